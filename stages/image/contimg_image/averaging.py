"""Calibrated Stokes I visibilities, averaged as far as the limit on smearing allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.gains import Gains
from contimg.records.ms import STOKES_I, XX, YY, MeasurementSet, MSHeader, Rows
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg_image import kernels
from contimg_image.frame import Complexes, Floats, Integers, Mask, Singles

RR, LL = 5, 8
PARALLEL_HANDS = ((XX, YY), (RR, LL), (STOKES_I,))
"""Correlations that make Stokes I, as codes of casacore's ``Stokes``."""
SHORT_BASELINE_M = 500.0
"""Shorter baselines (74 % of ours) may average four times as many channels for the same loss."""
MAX_PEAK_LOSS = 0.04
"""Of the longest baseline of a set at the edge of the field; the weighted mean is below 1 %."""
BLOCK_ROWS = 4096
"""Rows read at a time: 50 MB of visibilities."""
MIN_PAIRS = 8
"""Differences of polarizations that the noise estimate of a baseline needs."""


@dataclass(frozen=True, eq=False)
class AveragedBaselines:
    """Averaged visibilities of the baselines in one range of lengths: N rows and C channels."""

    name: str
    frequencies_hz: Floats
    width_hz: float
    """Width of a channel before averaging."""
    factor: int
    """Channels averaged to one."""
    time_index: Integers
    """Index of each row's time in `AveragedVisibilities.times_s`."""
    antenna1: Integers
    antenna2: Integers
    uvw_m: Floats
    interval_s: Floats
    vis: Complexes
    """Shape (N, C), Jy."""
    weight: Singles
    """Shape (N, C): `AveragedVisibilities.variance_jy2` over the variance; 0 without data."""

    @property
    def samples(self) -> kernels.UVSamples:
        """The visibilities in the uv plane."""
        per_metre = self.frequencies_hz / SPEED_OF_LIGHT_M_S
        return kernels.UVSamples(self.uvw_m, per_metre, self.weight)


@dataclass(frozen=True, eq=False)
class AveragedVisibilities:
    """All visibilities that are imaged."""

    header: MSHeader
    times_s: Floats
    """Shape (T,), MJD in seconds, UTC."""
    sets: tuple[AveragedBaselines, ...]
    variance_jy2: float
    """Variance of the real part of a visibility of weight 1; NaN with one polarization."""
    used: float
    """Fraction of the cross-correlations of antennas with data that carry weight."""
    antennas: int
    """Number of antennas with data."""
    longest_m: float


def channels_to_average(longest_m: float, radius_rad: float, width_hz: float, channels: int) -> int:
    """Return how many channels may be averaged to one: a divisor of their number.

    Averaging a band B loses (pi B tau)^2 / 6 of the visibility of a source whose delay from the
    phase centre is tau, to second order (Thompson, Moran & Swenson 2017, section 6.3). Here tau is
    the delay of the longest baseline at `radius_rad`.
    """
    delay_m = longest_m * radius_rad
    limit_hz = np.sqrt(6 * MAX_PEAK_LOSS) / np.pi * SPEED_OF_LIGHT_M_S / delay_m
    allowed = [n for n in range(1, channels + 1) if channels % n == 0 and n * width_hz <= limit_hz]
    return max(allowed, default=1)


def baseline_lengths_m(header: MSHeader, rows: Rows) -> Floats:
    """Return the length of each row's baseline; 0 for an autocorrelation."""
    position = header.antennas.positions_m
    return np.asarray(np.linalg.norm(position[rows.antenna2] - position[rows.antenna1], axis=1))


def find_parallel_hands(path: str, header: MSHeader) -> Integers:
    """Return the indices of the correlations that make Stokes I.

    Raises BadInputError if there are none.
    """
    for hands in PARALLEL_HANDS:
        found = [header.correlations.index(code) for code in hands if code in header.correlations]
        if found:
            return np.array(found, np.int64)
    problem = f"Stokes I needs XX, YY or RR, LL; the correlations are {header.correlations}."
    raise BadInputError(path, problem, "Image another Measurement Set.")


def average(
    path: str,
    ms: MeasurementSet,
    flags: Mask,
    gains: Gains,
    radius_rad: float,
    longest_m: float,
    channels: Mask | None = None,
) -> AveragedVisibilities:
    """Calibrate and average a Measurement Set, which messages call `path`, in one pass.

    The flags, shape (rows, channels, correlations), are joined with those of the Measurement Set.
    Out to `radius_rad` from the phase centre smearing stays small. Baselines longer than
    `longest_m` are left out, and channels outside of the mask `channels`, if one is given. Raises
    BadInputError if the flags are those of another Measurement Set, or its correlations make no
    Stokes I; raises AllFlaggedError if nothing is left.
    """
    header, rows = ms.header, ms.rows
    shape = (len(ms), len(header.frequencies_hz), len(header.correlations))
    if flags.shape != shape:
        found = f"The data need flags of shape {shape}, but the flag artifact has {flags.shape}."
        raise BadInputError(path, found, "Name the flag artifact of this group.")
    if channels is not None and not channels.all():
        flags = flags | ~channels[None, :, None]
    length_m = baseline_lengths_m(header, rows)
    times_s, time_index = np.unique(rows.time_s, return_inverse=True)
    kept = (length_m > 0) & (length_m <= longest_m) & (rows.antenna1 != rows.antenna2)
    short, planned = length_m < SHORT_BASELINE_M, []
    for name, selected in (("short", kept & short), ("long", kept & ~short)):
        if not selected.any():
            continue
        index, width_hz = np.flatnonzero(selected), header.channel_width_hz
        factor = channels_to_average(length_m[index].max(), radius_rad, width_hz, shape[1])
        frequencies_hz = header.frequencies_hz.reshape(-1, factor).mean(axis=1)
        part = AveragedBaselines(
            name=name,
            frequencies_hz=frequencies_hz,
            width_hz=width_hz,
            factor=factor,
            time_index=time_index[index].astype(np.int64),
            antenna1=rows.antenna1[index].astype(np.int64),
            antenna2=rows.antenna2[index].astype(np.int64),
            uvw_m=rows.uvw_m[index],
            interval_s=rows.interval_s[index],
            vis=np.empty((index.size, frequencies_hz.size), np.complex64),
            weight=np.zeros((index.size, frequencies_hz.size), np.float32),
        )
        planned.append((part, index))
    variance_jy2 = _fill(ms, flags, gains, (times_s, time_index.astype(np.int64)), planned)
    of_rows = ("time_index", "antenna1", "antenna2", "uvw_m", "interval_s", "vis", "weight")
    sets = tuple(
        replace(part, **{name: getattr(part, name)[part.weight.any(axis=1)] for name in of_rows})
        for part, _ in planned
        if part.weight.any()
    )
    if not sets:
        found = "All visibilities are flagged or have no calibration solution."
        raise AllFlaggedError(path, found, "Look at flagging.json and the calibration's flags.")
    used = sum(int(np.count_nonzero(part.weight)) * part.factor for part in sets)
    antennas = [index for part in sets for index in (part.antenna1, part.antenna2)]
    return AveragedVisibilities(
        header=header,
        times_s=times_s,
        sets=sets,
        variance_jy2=variance_jy2,
        used=used / (int(np.count_nonzero(length_m > 0)) * shape[1]),
        antennas=np.unique(np.concatenate(antennas)).size,
        longest_m=max(float(np.linalg.norm(part.uvw_m, axis=1).max()) for part in sets),
    )


def _fill(
    ms: MeasurementSet,
    flags: Mask,
    gains: Gains,
    times: tuple[Floats, Integers],
    sets: list[tuple[AveragedBaselines, Integers]],
) -> float:
    """Fill the sets with calibrated, averaged visibilities and return the noise variance.

    The variance of a visibility of weight 1 is measured from the difference of the polarizations,
    in which an unpolarized sky cancels: the median over baselines, which one bad antenna cannot
    move, or the mean if no baseline has enough differences; NaN without any.

    `times` are all times and the index among them of each row; `sets` come with the rows that they
    average.
    """
    header, rows, (times_s, time_index) = ms.header, ms.rows, times
    hands = find_parallel_hands(str(ms.path), header)
    factors = gains.evaluate(times_s, header.frequencies_hz)
    inverse = kernels.InverseGains(
        band=(1 / factors.bandpass).astype(np.complex64),
        band_flag=factors.bandpass_flag,
        gain=(1 / factors.gain).astype(np.complex64),
        gain_flag=factors.gain_flag,
    )
    spectral = "WEIGHT_SPECTRUM" in ms.columns
    antenna1, antenna2 = rows.antenna1.astype(np.int64), rows.antenna2.astype(np.int64)
    difference, pairs = np.zeros((2, len(header.antennas.names), len(header.antennas.names)))
    for block in ms.blocks(BLOCK_ROWS):
        first, count = block.start, block.stop - block.start
        weight = ms.read("WEIGHT_SPECTRUM", first, count) if spectral else rows.weight[block, None]
        data = kernels.RowBlock(
            data=ms.read("DATA", first, count),
            flags=ms.read("FLAG", first, count),
            more_flags=flags[block],
            weight=np.ascontiguousarray(weight, np.float32),
            antenna1=antenna1[block],
            antenna2=antenna2[block],
            time_index=time_index[block],
        )
        for part, index in sets:
            begin, end = np.searchsorted(index, (block.start, block.stop))
            selected = index[begin:end] - block.start
            output = (begin, part.vis, part.weight, difference, pairs)
            kernels.average_rows(data, inverse, hands, selected, part.factor, *output)
    known = pairs >= MIN_PAIRS
    if known.any():
        return float(np.median(difference[known] / pairs[known]))
    return float(np.sum(difference) / np.sum(pairs)) if pairs.any() else float("nan")
