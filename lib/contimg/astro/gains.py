"""CASA caltables (B, G, K) as complex gains: ``corrected = data / (g_i conj(g_j))``.

The same numbers as CASA's applycal with ``interp`` 'nearest,nearestflag' for B, 'linear' for G and
'nearest' for K: G is interpolated linearly in amplitude and in phase separately, the phase the
shorter way round, and held beyond its ends; a time without a solution on either side is flagged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contimg.records.calibration import fetch_tables, read_calibration
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex64]
GainArray = npt.NDArray[np.complex128]
FlagArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

KINDS = {"B Jones": "B", "G Jones": "G", "K Jones": "K"}
SAME_TIME_S = 1e-3
"""Solutions nearer than this have one time."""
GRID_TOLERANCE = 1e-3
"""Channels may differ by this fraction of a channel's width."""
NANOSECOND_S = 1e-9


@dataclass(frozen=True)
class CalTable:
    """The solutions of one caltable."""

    where: str
    kind: str
    """B, G or K."""
    time_s: FloatArray
    """Shape (T,), MJD in seconds, ascending."""
    freq_hz: FloatArray
    """Shape (C,): channel centres; one for G and K, for K that at which the delay has no phase."""
    value: GainArray
    """Shape (T, antennas, C, polarizations); of K the real part is the delay in ns."""
    flag: FlagArray
    """Same shape: no solution."""

    def interpolate(self, times_s: FloatArray) -> tuple[GainArray, FlagArray]:
        """Return values and flags of G at times, shape (times, antennas, polarizations).

        Amplitude and phase are each interpolated linearly. As in CASA, a time between two solutions
        is flagged if either is, and a time beyond them takes the nearest one.
        """
        value, flag = self.value[:, :, 0, :], self.flag[:, :, 0, :]
        if self.time_s.size == 1:
            return np.repeat(value, times_s.size, axis=0), np.repeat(flag, times_s.size, axis=0)
        low = np.searchsorted(self.time_s, times_s, side="right") - 1
        low = np.clip(low, 0, self.time_s.size - 2)
        start, end = self.time_s[low], self.time_s[low + 1]
        share = np.clip((times_s - start) / (end - start), 0.0, 1.0)[:, None, None]
        lost = (flag[low] & (share < 1)) | (flag[low + 1] & (share > 0))
        before, after = value[low], value[low + 1]
        # The angle of the quotient is the shorter way round.
        turn = np.angle(after * before.conj())
        size = (1 - share) * np.abs(before) + share * np.abs(after)
        return size * np.exp(1j * (np.angle(before) + share * turn)), lost

    def bandpass(self, freq_hz: FloatArray) -> tuple[GainArray, FlagArray]:
        """Return the values and flags of B or K at channels, shape (antennas, C, polarizations).

        Raises BadInputError if solutions are of several times, or a bandpass of other channels.
        """
        if self.time_s.size != 1:
            problem = f"There are solutions of {self.time_s.size} times, not of one."
            raise BadInputError(self.where, problem, "Solve with solint inf.")
        if self.kind == "K":
            offset_hz = freq_hz[None, :, None] - self.freq_hz[0]
            turns = self.value[0].real * NANOSECOND_S * offset_hz
            return np.exp(2j * np.pi * turns), np.broadcast_to(self.flag[0], turns.shape)
        width = float(np.min(np.abs(np.diff(freq_hz)))) if freq_hz.size > 1 else 1.0
        same = self.freq_hz.shape == freq_hz.shape
        if not same or np.any(np.abs(self.freq_hz - freq_hz) > GRID_TOLERANCE * width):
            own, data = (f"{f.size} from {f[0] / 1e6:.6f} MHz" for f in (self.freq_hz, freq_hz))
            problem = f"Its channels ({own}) are not those of the data ({data})."
            remedy = "Apply a bandpass to data with its own channels only."
            raise BadInputError(self.where, problem, remedy)
        return self.value[0], self.flag[0]


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
    """Read a caltable of one spectral window; solutions without a row are flagged.

    Raises BadInputError if it is not a caltable, of another kind, or of several spectral windows.
    """
    import casacore.tables as ct

    where, read_only = str(path), {"ack": False, "lockoptions": "usernoread"}
    try:
        with ct.table(where, **read_only) as table:
            words = table.getkeywords() if table.keywordnames() else {}
            kind = KINDS.get(words.get("VisCal", ""), "")
            if not kind or not table.nrows():
                problem = "There are no solutions of kind B, G or K."
                raise BadInputError(where, problem, "Solve again.")
            names = ("TIME", "ANTENNA1", "SPECTRAL_WINDOW_ID", "FLAG")
            time_s, antenna, window, flag = (table.getcol(name) for name in names)
            value = table.getcol("FPARAM" if kind == "K" else "CPARAM").astype(np.complex128)
        with ct.table(f"{path}::SPECTRAL_WINDOW", **read_only) as spectral:
            freq = spectral.getcell("CHAN_FREQ", int(window[0]))
        with ct.table(f"{path}::ANTENNA", **read_only) as antennas:
            count = antennas.nrows()
    except RuntimeError as error:
        problem = f"This is not a CASA caltable: {error}."
        raise BadInputError(where, problem, "Solve again.") from error
    if np.ptp(window):
        problem = "There are solutions of several spectral windows."
        raise BadInputError(where, problem, "Split the Measurement Set first.")
    order = np.unique(time_s)
    starts = order[np.concatenate([[True], np.diff(order) > SAME_TIME_S])]
    slot = np.searchsorted(starts, time_s, side="right") - 1
    shape = (starts.size, count, *value.shape[1:])
    values, flags = np.ones(shape, np.complex128), np.ones(shape, bool)
    values[slot, antenna], flags[slot, antenna] = value, flag
    return CalTable(where, kind, starts, np.asarray(freq, np.float64), values, flags)


@dataclass(frozen=True)
class Gains:
    """Caltables to be applied together; their order does not matter, they all multiply."""

    tables: tuple[CalTable, ...]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Gains:
        """Read caltables."""
        return cls(tuple(read_caltable(path) for path in paths))

    def evaluate(self, times_mjd_s: npt.ArrayLike, freq_hz: FloatArray) -> Factors:
        """Return the gains of all antennas at times, UTC, (T,), and the channels of the data, (C,).

        Raises BadInputError as `CalTable.bandpass`, or if tables are of different arrays.
        """
        times = np.atleast_1d(np.asarray(times_mjd_s, np.float64))
        _, antennas, _, pols = self.tables[0].value.shape
        shape, steps = (antennas, freq_hz.size, pols), (times.size, antennas, pols)
        band, band_flag = np.ones(shape, complex), np.zeros(shape, bool)
        gain, gain_flag = np.ones(steps, complex), np.zeros(steps, bool)
        for table in self.tables:
            if table.value.shape[1::2] != (antennas, pols):
                own = f"{table.value.shape[1]} antennas and {table.value.shape[3]} polarizations"
                problem = f"It has {own}, the first table has {antennas} and {pols}."
                raise BadInputError(table.where, problem, "Use tables of one array.")
            if table.kind == "G":
                value, flag = table.interpolate(times)
                gain, gain_flag = gain * value, gain_flag | flag
            else:
                value, flag = table.bandpass(freq_hz)
                band, band_flag = band * value, band_flag | flag
        gain[gain_flag], band[band_flag] = 1.0, 1.0
        singles = band.astype(np.complex64), gain.astype(np.complex64)
        return Factors(singles[0], band_flag, singles[1], gain_flag)


def load_gains(context: Context, uri: str) -> Gains:
    """Read all caltables of a calibrate artifact, ready to evaluate."""
    return Gains.read(fetch_tables(context, uri, read_calibration(context, uri)))


def apply_block(
    data: ComplexArray,
    flags: FlagArray,
    ant1: IntArray,
    ant2: IntArray,
    slot: IntArray,
    factors: Factors,
) -> None:
    """Divide a block of rows by their gains, in place, and flag what has no solution.

    `data` and `flags` have shape (rows, channels, polarizations); `ant1`, `ant2` and `slot`, the
    index of the row's time among those of `factors`, have shape (rows,).
    """
    from contimg.astro import kernels  # numba is slow to import, and most readers apply no gains

    one, two, time = (np.asarray(index, np.int64) for index in (ant1, ant2, slot))
    band, gain = ((1 / factor).astype(np.complex64) for factor in (factors.bandpass, factors.gain))
    band_flag, gain_flag = factors.bandpass_flag, factors.gain_flag
    kernels.apply(data, flags, one, two, time, band, band_flag, gain, gain_flag)
