"""Calibrated, averaged Stokes I visibilities of a Measurement Set, within the limit that smearing sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.ms import STOKES_I, XX, YY, MeasurementSet
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg_image import kernels

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.gains import Factors, Gains
    from contimg.records.ms import MSHeader, Rows

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

RR, LL = 5, 8
PARALLEL_HANDS = ((XX, YY), (RR, LL), (STOKES_I,))
"""Correlations that make Stokes I, as codes of casacore's ``Stokes``."""
SHORT_M = 500.0
"""Baselines below this (74 % of ours) may lose as much as the rest with four times the channels in one."""
PEAK_LOSS = 0.04
"""What the longest baseline of a set may lose by averaging at the edge; with imaging weights the mean is below 1 %."""
BLOCK = 4096
"""Rows read at a time: 50 MB of visibilities."""
MIN_PAIRS = 8
"""Differences that a baseline must have to say something about the noise."""


@dataclass(frozen=True, eq=False)
class Baselines:
    """Averaged visibilities of the baselines in one range of lengths: N rows and C channels."""

    name: str
    frequencies_hz: Floats
    width_hz: float
    """Of a channel before averaging."""
    factor: int
    """Channels averaged to one."""
    time_index: Integers
    """Index of each row's time among `Averaged.times_s`."""
    antenna1: Integers
    antenna2: Integers
    uvw_m: Floats
    interval_s: Floats
    vis: npt.NDArray[np.complex64]
    """Shape (N, C), Jy."""
    weight: npt.NDArray[np.float32]
    """Shape (N, C): inverse variance up to the factor `Averaged.variance_jy2`; 0 where there is no visibility."""


@dataclass(frozen=True, eq=False)
class Averaged:
    """All visibilities that are imaged."""

    header: MSHeader
    times_s: Floats
    """Shape (T,), MJD in seconds, UTC."""
    interval_s: float
    """Length of an integration."""
    sets: tuple[Baselines, ...]
    variance_jy2: float
    """Variance of the real part of a visibility of weight 1, measured; NaN if there is one polarization only."""
    used: float
    """Share of the cross-correlations of antennas with data that carry weight."""
    antennas: int
    """Antennas with data."""
    longest_m: float


@dataclass(eq=False)
class _Noise:
    """Differences of the polarizations, where an unpolarized sky cancels, by baseline."""

    antennas: int
    total: Floats = field(init=False)
    count: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.antennas, self.antennas))
        self.count = np.zeros((self.antennas, self.antennas))

    def variance(self) -> float:
        """Return the median over baselines, which one bad antenna cannot move; NaN without differences."""
        known = self.count >= MIN_PAIRS
        if not known.any():
            return (
                float(np.sum(self.total) / np.sum(self.count)) if self.count.any() else float("nan")
            )
        return float(np.median(self.total[known] / self.count[known]))


def channels_to_average(
    longest_m: float,
    radius_rad: float,
    width_hz: float,
    channels: int,
    peak_loss: float = PEAK_LOSS,
) -> int:
    """Return how many channels may become one: a divisor of their number.

    Averaging a band B loses (pi B tau)^2 / 6 of the visibility of a source whose delay from the phase centre is tau, to second
    order (Thompson, Moran & Swenson 2017, section 6.3); here tau is that of the longest baseline at `radius_rad`.
    """
    limit_hz = np.sqrt(6 * peak_loss) / np.pi * SPEED_OF_LIGHT_M_S / (longest_m * radius_rad)
    allowed = [n for n in range(1, channels + 1) if channels % n == 0 and n * width_hz <= limit_hz]
    return max(allowed, default=1)


def average(
    path: str,
    ms: MeasurementSet,
    flags: npt.NDArray[np.bool_],
    gains: Gains,
    radius_rad: float,
    longest_m: float,
) -> Averaged:
    """Calibrate and average a Measurement Set in one pass.

    Parameters
    ----------
    path
        What messages call it.
    flags
        Shape (rows, channels, correlations), joined with those of the MS.
    radius_rad
        Distance from the phase centre out to which smearing must stay small.
    longest_m
        Longer baselines are left out.

    Raises
    ------
    BadInputError
        If the flags are of another MS, or its correlations make no Stokes I.
    AllFlaggedError
        If nothing is left.
    """
    header, rows = ms.header, ms.rows
    shape = (len(ms), len(header.frequencies_hz), len(header.correlations))
    if flags.shape != shape:
        raise BadInputError(
            path,
            f"expected flags of shape {shape}, found {flags.shape!s}.",
            "Name the flag artifact of this group.",
        )
    length_m = baseline_lengths_m(header, rows)
    times, time_index = np.unique(rows.time_s, return_inverse=True)
    groups = [
        _Group.plan(name, header, rows, which, radius_rad, longest)
        for name, which, longest in _ranges(length_m, longest_m)
    ]
    noise = _Noise(len(header.antennas.names))
    factors = gains.evaluate(times, header.frequencies_hz)
    _fill(ms, flags, rows, time_index.astype(np.int64), factors, groups, noise)
    sets = tuple(group.finish(header, rows, time_index) for group in groups)
    if not sum(float(part.weight.sum()) for part in sets):
        raise AllFlaggedError(
            path,
            "expected visibilities to image, found all flagged.",
            "Look at flagging.json and at the calibration's flags.",
        )
    return _collect(header, rows, times, sets, noise.variance(), length_m)


def baseline_lengths_m(header: MSHeader, rows: Rows) -> Floats:
    """Return the length of each row's baseline; 0 for an autocorrelation."""
    position = header.antennas.positions_m
    return np.asarray(np.linalg.norm(position[rows.antenna2] - position[rows.antenna1], axis=1))


def _ranges(length_m: Floats, longest_m: float) -> list[tuple[str, npt.NDArray[np.bool_], float]]:
    """Cut the baselines in two; each part is named and comes with its longest baseline."""
    kept = (length_m > 0) & (length_m <= longest_m)
    parts = (("short", kept & (length_m < SHORT_M)), ("long", kept & (length_m >= SHORT_M)))
    return [(name, which, float(length_m[which].max())) for name, which in parts if which.any()]


@dataclass(eq=False)
class _Group:
    """One set while it is filled."""

    name: str
    index: Integers
    """Rows of the MS that belong to it."""
    factor: int
    vis: npt.NDArray[np.complex64]
    weight: npt.NDArray[np.float32]

    @classmethod
    def plan(
        cls,
        name: str,
        header: MSHeader,
        rows: Rows,
        which: npt.NDArray[np.bool_],
        radius_rad: float,
        longest: float,
    ) -> _Group:
        channels = len(header.frequencies_hz)
        factor = channels_to_average(longest, radius_rad, header.channel_width_hz, channels)
        index = np.flatnonzero(which & (rows.antenna1 != rows.antenna2))
        shape = (index.size, channels // factor)
        return cls(name, index, factor, np.empty(shape, np.complex64), np.zeros(shape, np.float32))

    def finish(self, header: MSHeader, rows: Rows, time_index: Integers) -> Baselines:
        """Drop the rows without weight."""
        kept = self.weight.any(axis=1)
        index = self.index[kept]
        return Baselines(
            self.name,
            header.frequencies_hz.reshape(-1, self.factor).mean(axis=1),
            header.channel_width_hz,
            self.factor,
            time_index[index].astype(np.int64),
            rows.antenna1[index].astype(np.int64),
            rows.antenna2[index].astype(np.int64),
            rows.uvw_m[index],
            rows.interval_s[index],
            self.vis[kept],
            self.weight[kept],
        )


def _fill(
    ms: MeasurementSet,
    flags: npt.NDArray[np.bool_],
    rows: Rows,
    time_index: Integers,
    factors: Factors,
    groups: list[_Group],
    noise: _Noise,
) -> None:
    pols = parallel_hands(str(ms.path), ms.header)
    inverse = (1 / factors.bandpass).astype(np.complex64), (1 / factors.gain).astype(np.complex64)
    spectral = "WEIGHT_SPECTRUM" in ms.columns
    ant1, ant2 = rows.antenna1.astype(np.int64), rows.antenna2.astype(np.int64)
    for block in ms.blocks(BLOCK):
        count = block.stop - block.start
        data, flagged = ms.read("DATA", block.start, count), ms.read("FLAG", block.start, count)
        weight = (
            ms.read("WEIGHT_SPECTRUM", block.start, count)
            if spectral
            else rows.weight[block][:, None, :]
        )
        for group in groups:
            first, last = np.searchsorted(group.index, (block.start, block.stop))
            kernels.average(
                data,
                flagged,
                flags[block],
                np.ascontiguousarray(weight, np.float32),
                pols,
                ant1[block],
                ant2[block],
                time_index[block],
                group.index[first:last] - block.start,
                inverse[0],
                factors.bandpass_flag,
                inverse[1],
                factors.gain_flag,
                group.factor,
                first,
                group.vis,
                group.weight,
                noise.total,
                noise.count,
            )


def parallel_hands(path: str, header: MSHeader) -> Integers:
    """Return the indices of the correlations that make Stokes I.

    Raises
    ------
    BadInputError
        If there are none.
    """
    for hands in PARALLEL_HANDS:
        found = [header.correlations.index(code) for code in hands if code in header.correlations]
        if found:
            return np.array(found, np.int64)
    raise BadInputError(
        path,
        f"expected correlations XX, YY or RR, LL, found {header.correlations!s}.",
        "Image another Measurement Set.",
    )


def _collect(
    header: MSHeader,
    rows: Rows,
    times: Floats,
    sets: tuple[Baselines, ...],
    variance: float,
    length_m: Floats,
) -> Averaged:
    weighted = sum(int(np.count_nonzero(part.weight)) * part.factor for part in sets)
    possible = int(np.count_nonzero(length_m > 0)) * len(header.frequencies_hz)
    present = np.unique(
        np.concatenate([np.concatenate([part.antenna1, part.antenna2]) for part in sets])
    )
    longest = max(
        float(np.linalg.norm(part.uvw_m, axis=1).max()) for part in sets if len(part.uvw_m)
    )
    return Averaged(
        header,
        times,
        float(np.median(rows.interval_s)),
        tuple(part for part in sets if len(part.uvw_m)),
        variance,
        weighted / possible,
        present.size,
        longest,
    )
