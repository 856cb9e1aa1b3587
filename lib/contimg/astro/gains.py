"""CASA caltables (B, G, K) as complex gains, and how they are applied: ``corrected = data / (g_i conj(g_j))``.

The same numbers as CASA's applycal with ``interp`` 'nearest,nearestflag' for B, 'linear' for G and 'nearest' for K: G is
interpolated linearly in amplitude and in phase separately, the phase the shorter way round, and held beyond its ends; what
has no solution on either side is flagged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    ComplexArray = npt.NDArray[np.complex64]
    FlagArray = npt.NDArray[np.bool_]
    IntArray = npt.NDArray[np.int64]

KINDS = {"B Jones": "B", "G Jones": "G", "K Jones": "K"}
SAME_TIME_S = 1e-3
"""Solutions nearer than this have one time."""
SAME_GRID = 1e-3
"""Channels may differ by this share of a channel's width."""
NS = 1e-9


@dataclass(frozen=True)
class CalTable:
    """The solutions of one caltable."""

    where: str
    kind: str
    """B, G or K."""
    time_s: FloatArray
    """Shape (T,), MJD in seconds, ascending."""
    freq_hz: FloatArray
    """Shape (C,): channel centres; for G and K one, for K that at which the delay turns no phase."""
    value: npt.NDArray[np.complex128]
    """Shape (T, antennas, C, polarizations); of K the real part is the delay in ns."""
    flag: FlagArray
    """Same shape: no solution."""


@dataclass(frozen=True)
class Factors:
    """Gains of one block of times, factored: ``bandpass[a, f, p] * gain[t, a, p]``."""

    bandpass: ComplexArray
    """Shape (antennas, channels, polarizations); 1 where flagged."""
    bandpass_flag: FlagArray
    gain: ComplexArray
    """Shape (times, antennas, polarizations); 1 where flagged."""
    gain_flag: FlagArray

    def product(self) -> ComplexArray:
        """Return the whole gains, shape (times, antennas, channels, polarizations)."""
        return self.bandpass[None] * self.gain[:, :, None, :]


def read_caltable(path: Path) -> CalTable:
    """Read a caltable of one spectral window.

    Raises
    ------
    BadInputError
        If it is no caltable, of another kind, or of several spectral windows.
    """
    import casacore.tables as ct

    try:
        with ct.table(str(path), ack=False, lockoptions="usernoread") as table:
            words = table.getkeywords() if table.keywordnames() else {}
            kind = KINDS.get(words.get("VisCal", ""), "")
            if not kind or not table.nrows():
                raise BadInputError(
                    str(path), "expected solutions of kind B, G or K, found none.", "Solve again."
                )
            columns = {
                name: table.getcol(name)
                for name in ("TIME", "ANTENNA1", "SPECTRAL_WINDOW_ID", "FLAG")
            }
            column = "FPARAM" if kind == "K" else "CPARAM"
            value = table.getcol(column).astype(np.complex128)
        with ct.table(f"{path}::SPECTRAL_WINDOW", ack=False, lockoptions="usernoread") as spectral:
            freq = spectral.getcell("CHAN_FREQ", int(columns["SPECTRAL_WINDOW_ID"][0]))
        with ct.table(f"{path}::ANTENNA", ack=False, lockoptions="usernoread") as antennas:
            count = antennas.nrows()
    except RuntimeError as error:
        raise BadInputError(
            str(path), f"expected a CASA caltable, found {error!s}.", "Solve again."
        ) from error
    if np.ptp(columns["SPECTRAL_WINDOW_ID"]):
        raise BadInputError(
            str(path),
            "expected one spectral window, found several.",
            "Split the Measurement Set first.",
        )
    return _gather(
        str(path), kind, columns["TIME"], columns["ANTENNA1"], freq, (value, columns["FLAG"], count)
    )


def _gather(
    where: str,
    kind: str,
    time_s: FloatArray,
    antenna: IntArray,
    freq_hz: FloatArray,
    rows: tuple[ComplexArray, FlagArray, int],
) -> CalTable:
    """Sort rows into (time, antenna); what has no row is flagged."""
    value, flag, antennas = rows
    order = np.unique(time_s)
    starts = order[np.concatenate([[True], np.diff(order) > SAME_TIME_S])]
    slot = np.searchsorted(starts, time_s, side="right") - 1
    shape = (starts.size, antennas, *value.shape[1:])
    values, flags = np.ones(shape, np.complex128), np.ones(shape, bool)
    values[slot, antenna], flags[slot, antenna] = value, flag
    return CalTable(where, kind, starts, np.asarray(freq_hz, np.float64), values, flags)


@dataclass(frozen=True)
class Gains:
    """Caltables to be applied together."""

    tables: tuple[CalTable, ...]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Gains:
        """Read caltables; their order does not matter, they all multiply."""
        return cls(tuple(read_caltable(path) for path in paths))

    def evaluate(self, times_mjd_s: npt.ArrayLike, freq_hz: FloatArray) -> Factors:
        """Return the gains of all antennas at some times and the channels of a Measurement Set.

        Parameters
        ----------
        times_mjd_s
            Shape (T,), MJD in seconds, UTC.
        freq_hz
            Shape (C,), the channels of the data.

        Raises
        ------
        BadInputError
            If a bandpass has other channels than the data, or tables have different antennas or polarizations.
        """
        times = np.atleast_1d(np.asarray(times_mjd_s, np.float64))
        _, antennas, _, pols = self.tables[0].value.shape
        band, band_flag = (
            np.ones((antennas, freq_hz.size, pols), complex),
            np.zeros((antennas, freq_hz.size, pols), bool),
        )
        gain, gain_flag = (
            np.ones((times.size, antennas, pols), complex),
            np.zeros((times.size, antennas, pols), bool),
        )
        for table in self.tables:
            if table.value.shape[1::2] != (antennas, pols):
                found = f"{table.value.shape[1]} antennas, {table.value.shape[3]} polarizations"
                raise BadInputError(
                    table.where,
                    f"expected {antennas} antennas, {pols} polarizations, found {found}.",
                    "Use tables of one array.",
                )
            if table.kind == "G":
                value, flag = interpolate(table, times)
                gain, gain_flag = gain * value, gain_flag | flag
            else:
                value, flag = (
                    _bandpass(table, freq_hz) if table.kind == "B" else _delay(table, freq_hz)
                )
                band, band_flag = band * value, band_flag | flag
        gain[gain_flag], band[band_flag] = 1.0, 1.0
        return Factors(band.astype(np.complex64), band_flag, gain.astype(np.complex64), gain_flag)


def interpolate(
    table: CalTable, times_s: FloatArray
) -> tuple[npt.NDArray[np.complex128], FlagArray]:
    """Interpolate G in time, amplitude and phase each linearly; shapes (times, antennas, polarizations).

    As in CASA, a time between two solutions is flagged if either is, and a time beyond them takes the nearest one.
    """
    value, flag = table.value[:, :, 0, :], table.flag[:, :, 0, :]
    if table.time_s.size == 1:
        return np.repeat(value, times_s.size, axis=0), np.repeat(flag, times_s.size, axis=0)
    low = np.clip(
        np.searchsorted(table.time_s, times_s, side="right") - 1, 0, table.time_s.size - 2
    )
    start, end = table.time_s[low], table.time_s[low + 1]
    share = np.clip((times_s - start) / (end - start), 0.0, 1.0)[:, None, None]
    lost = (flag[low] & (share < 1)) | (flag[low + 1] & (share > 0))
    before, after = value[low], value[low + 1]
    # The angle of the quotient is the shorter way round.
    turn = np.angle(after * before.conj())
    size = (1 - share) * np.abs(before) + share * np.abs(after)
    return size * np.exp(1j * (np.angle(before) + share * turn)), lost


def _only_time(table: CalTable) -> None:
    if table.time_s.size != 1:
        raise BadInputError(
            table.where,
            f"expected solutions of one time, found {table.time_s.size} times.",
            "Solve with solint inf.",
        )


def _bandpass(table: CalTable, freq_hz: FloatArray) -> tuple[npt.NDArray[np.complex128], FlagArray]:
    _only_time(table)
    width = float(np.min(np.abs(np.diff(freq_hz)))) if freq_hz.size > 1 else 1.0
    same = table.freq_hz.shape == freq_hz.shape and np.all(
        np.abs(table.freq_hz - freq_hz) <= SAME_GRID * width
    )
    if not same:
        found = f"{table.freq_hz.size} channels from {table.freq_hz[0] / 1e6:.6f} MHz"
        wanted = f"{freq_hz.size} channels from {freq_hz[0] / 1e6:.6f} MHz, as in the data"
        raise BadInputError(
            table.where,
            f"expected {wanted}, found {found}.",
            "Apply a bandpass to data with its own channels only.",
        )
    return table.value[0], table.flag[0]


def _delay(table: CalTable, freq_hz: FloatArray) -> tuple[npt.NDArray[np.complex128], FlagArray]:
    _only_time(table)
    turns = table.value[0].real * NS * (freq_hz[None, :, None] - table.freq_hz[0])
    return np.exp(2j * np.pi * turns), np.broadcast_to(table.flag[0], turns.shape)


def apply_block(
    data: ComplexArray,
    flags: FlagArray,
    ant1: IntArray,
    ant2: IntArray,
    time_index: IntArray,
    factors: Factors,
) -> None:
    """Divide a block of rows by their gains, in place, and flag what has no solution.

    Parameters
    ----------
    data, flags
        Shape (rows, channels, polarizations), changed in place.
    ant1, ant2, time_index
        Shape (rows,): antennas, and the index of the row's time among those that `factors` were evaluated at.
    factors
        What `Gains.evaluate` returned.
    """
    from contimg.astro import (
        kernels as loops,
    )  # numba is slow to import, and most who read gains apply none

    inverse = (1 / factors.bandpass).astype(np.complex64)
    loops.apply(
        data,
        flags,
        np.asarray(ant1, np.int64),
        np.asarray(ant2, np.int64),
        np.asarray(time_index, np.int64),
        inverse,
        factors.bandpass_flag,
        (1 / factors.gain).astype(np.complex64),
        factors.gain_flag,
    )
