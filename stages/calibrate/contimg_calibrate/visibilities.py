"""Visibilities over their model: what a solve needs of a Measurement Set, and no more.

With data D, model M and weights w, the gains that minimize ``sum w |D - g_i conj(g_j) M|^2`` depend on the data only through
``X = sum w D conj(M)`` and ``Y = sum w |M|^2`` over all samples that share a gain: the same minimum is that of
``Y |X/Y - g_i conj(g_j)|^2``. So the data are multiplied by the model once, and summed over time for the bandpass and over
channels for the gains, and CASA solves sets that are 20 to 700 times smaller, with X/Y as data, 1 as model and Y as weight.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from contimg.astro.constants import DAY_S
from contimg.astro.predict import antenna_positions, predict_rows
from contimg.runtime.errors import AllFlaggedError, BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.gains import Factors
    from contimg.astro.predict import SkyModel
    from contimg.records.ms import MeasurementSet

    FloatArray = npt.NDArray[np.float64]
    Float32Array = npt.NDArray[np.float32]
    ComplexArray = npt.NDArray[np.complex64]
    FlagArray = npt.NDArray[np.bool_]
    IntArray = npt.NDArray[np.int64]

SAME_TIME_S = 1e-3
SECOND_DIFFERENCE = 12.0
"""Mean |d0 - 2 d1 + d2|^2 of complex noise, in units of the variance of its real part."""
MAX_WEIGHT = 10.0
"""No baseline weighs more (or less) than the usual one by a larger factor: true noise varies by 3, and CASA does not converge
where, for want of noise, the weights range over many powers of ten."""
MIN_TRIPLES = 20
"""Samples that a baseline needs for a noise estimate of its own; otherwise it gets the median."""


@dataclass
class Ratio:
    """Data times conj(model), and |model|^2, of the cross-correlations of one field."""

    times_s: FloatArray
    """Shape (T,), MJD in seconds."""
    slot: IntArray
    """Shape (R,): time of a row."""
    ant1: IntArray
    ant2: IntArray
    pair: IntArray
    """Shape (R,): baseline of a row, an index into `pairs`."""
    pairs: IntArray
    """Shape (B, 2)."""
    product: ComplexArray
    """Shape (R, C, P): D conj(M), 0 where flagged."""
    power: Float32Array
    """Shape (R, C, P): |M|^2, 0 where flagged."""
    weight: Float32Array
    """Shape (B, P): 1 / variance of the real part of a sample's noise, in units of the data."""

    @property
    def health(self) -> FloatArray:
        """Share of unflagged samples of each antenna, shape (antennas,); antennas without rows have 0."""
        good = np.count_nonzero(self.power, axis=(1, 2)).astype(float)
        size = self.pairs.max() + 1
        total = sum(np.bincount(a, minlength=size) for a in (self.ant1, self.ant2)) * float(
            np.prod(self.power.shape[1:])
        )
        kept = sum(np.bincount(a, good, minlength=size) for a in (self.ant1, self.ant2))
        return np.asarray(np.divide(kept, total, out=np.zeros(size), where=total > 0))


def load(ms: MeasurementSet, flags: FlagArray | None, sky: SkyModel) -> Ratio:
    """Read a Measurement Set, integration by integration, over the model of a sky.

    Parameters
    ----------
    ms
        One field, rows time-major.
    flags
        Shape (rows, channels, polarizations), in addition to the set's own; or None.
    sky
        What to predict.

    Raises
    ------
    AllFlaggedError, BadInputError
        If nothing is left; if the model is zero anywhere that there are data.
    """
    rows, antennas = ms.rows, len(ms.header.antennas.names)
    cross = rows.antenna1 != rows.antenna2
    edges = np.flatnonzero(np.concatenate([[True], np.diff(rows.time_s) > SAME_TIME_S, [True]]))
    ant1, ant2 = rows.antenna1[cross].astype(np.int64), rows.antenna2[cross].astype(np.int64)
    keys, pair = np.unique(ant1 * antennas + ant2, return_inverse=True)
    shape = (ant1.size, sky.freq_hz.size, len(ms.header.correlations))
    ratio = Ratio(
        rows.time_s[edges[:-1]],
        np.searchsorted(edges, np.flatnonzero(cross), side="right") - 1,
        ant1,
        ant2,
        pair,
        np.stack([keys // antennas, keys % antennas], axis=1),
        np.empty(shape, np.complex64),
        np.empty(shape, np.float32),
        np.ones((keys.size, shape[2]), np.float32),
    )
    noise = np.zeros((keys.size, shape[2], 2))
    for first, last in itertools.pairwise(edges):
        _load_integration(ms, (int(first), int(last)), flags, sky, ratio, noise)
    if not np.any(ratio.power):
        raise AllFlaggedError(
            str(ms.path.name),
            "expected unflagged cross-correlations, found none.",
            "Look at the flag artifact's report.",
        )
    ratio.weight[:] = _weights(noise)
    return ratio


def _load_integration(
    ms: MeasurementSet,
    span: tuple[int, int],
    flags: FlagArray | None,
    sky: SkyModel,
    ratio: Ratio,
    noise: FloatArray,
) -> None:
    first, last = span
    rows = ms.rows
    cross = np.flatnonzero(rows.antenna1[first:last] != rows.antenna2[first:last])
    ant1, ant2 = (a[first:last].astype(np.int64) for a in (rows.antenna1, rows.antenna2))
    positions = antenna_positions(rows.uvw_m[first:last], ant1, ant2, len(ms.header.antennas.names))
    model = predict_rows(
        sky, positions, float(rows.time_s[first]) / DAY_S, ant1[cross], ant2[cross]
    )
    lost = ms.read("FLAG", first, last - first)[cross]
    if flags is not None:
        lost |= flags[first:last][cross]
    at = int(np.searchsorted(ratio.times_s, rows.time_s[first] - SAME_TIME_S))
    to = slice(
        int(np.searchsorted(ratio.slot, at)), int(np.searchsorted(ratio.slot, at, side="right"))
    )
    data = ms.read("DATA", first, last - first)[cross]
    empty = _divide(data, lost, model, ratio.product[to], ratio.power[to])
    if empty:
        raise BadInputError(
            f"model of {ms.path.name}",
            f"expected a flux wherever there are data, found {empty} zeros.",
            "Correct the model.",
        )
    _noise(data, lost, ratio.pair[to], noise)


def _weights(noise: FloatArray) -> Float32Array:
    """Return 1 / variance a baseline and polarization from sums of squared second differences and their counts."""
    total, count = noise[..., 0], noise[..., 1]
    variance = np.divide(
        total,
        count * SECOND_DIFFERENCE,
        out=np.full(total.shape, np.nan),
        where=count >= MIN_TRIPLES,
    )
    usual = np.nanmedian(np.where(variance > 0, variance, np.nan)) if np.any(variance > 0) else 1.0
    variance = np.clip(
        np.where(variance > 0, variance, usual), usual / MAX_WEIGHT, usual * MAX_WEIGHT
    )
    return np.asarray(1 / variance, np.float32)


def sum_channels(
    ratio: Ratio, factors: Factors, channels: slice = slice(None)
) -> tuple[ComplexArray, Float32Array]:
    """Return X and Y of each row after a bandpass and gains, shapes (R, P): sums over channels, weights included.

    X / Y is then what is left of the data over the model; Y is the inverse variance of its real part.
    """
    rows, pols = ratio.slot.size, ratio.power.shape[2]
    top, bottom = np.zeros((rows, pols), np.complex128), np.zeros((rows, pols), np.float64)
    span = range(*channels.indices(ratio.power.shape[1]))
    _sum_channels(
        ratio.product,
        ratio.power,
        (ratio.slot, ratio.ant1, ratio.ant2),
        np.where(factors.bandpass_flag, 0, factors.bandpass),
        np.where(factors.gain_flag, 0, factors.gain),
        (span.start, span.stop),
        (top, bottom),
    )
    weight = ratio.weight[ratio.pair]
    return (top * weight).astype(np.complex64), (bottom * weight).astype(np.float32)


def sum_times(ratio: Ratio, factors: Factors) -> tuple[ComplexArray, Float32Array]:
    """Return X and Y of each baseline and channel after a bandpass and gains, shapes (B, C, P): sums over time."""
    shape = (len(ratio.pairs), *ratio.power.shape[1:])
    top, bottom = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    _sum_times(
        ratio.product,
        ratio.power,
        (ratio.slot, ratio.ant1, ratio.ant2, ratio.pair),
        np.where(factors.bandpass_flag, 0, factors.bandpass),
        np.where(factors.gain_flag, 0, factors.gain),
        (top, bottom),
    )
    weight = ratio.weight[:, None, :]
    return np.asarray(top * weight, np.complex64), bottom * weight


@njit(cache=True)  # type: ignore[untyped-decorator]
def _divide(
    data: ComplexArray,
    flags: FlagArray,
    model: ComplexArray,
    product: ComplexArray,
    power: Float32Array,
) -> int:
    """Fill D conj(M) and |M|^2; return how many unflagged samples have no model."""
    rows, channels, pols = data.shape
    empty = 0
    for r in range(rows):
        for f in range(channels):
            m = model[r, f]
            size = m.real * m.real + m.imag * m.imag
            for p in range(pols):
                if flags[r, f, p]:
                    product[r, f, p], power[r, f, p] = 0, 0
                    continue
                empty += size == 0
                product[r, f, p], power[r, f, p] = data[r, f, p] * np.conj(m), size
    return empty


@njit(cache=True)  # type: ignore[untyped-decorator]
def _noise(data: ComplexArray, flags: FlagArray, pair: IntArray, noise: FloatArray) -> None:
    """Add the squared second differences along frequency: a source's fringe is smooth over three channels, noise is not."""
    rows, channels, pols = data.shape
    for r in range(rows):
        for p in range(pols):
            total, count = 0.0, 0
            for f in range(1, channels - 1):
                if not (flags[r, f - 1, p] or flags[r, f, p] or flags[r, f + 1, p]):
                    d = data[r, f - 1, p] - 2 * data[r, f, p] + data[r, f + 1, p]
                    total += d.real * d.real + d.imag * d.imag
                    count += 1
            noise[pair[r], p, 0] += total
            noise[pair[r], p, 1] += count


@njit(cache=True)  # type: ignore[untyped-decorator]
def _sum_channels(
    product: ComplexArray,
    power: Float32Array,
    where: tuple[IntArray, IntArray, IntArray],
    band: ComplexArray,
    gain: ComplexArray,
    span: tuple[int, int],
    out: tuple[npt.NDArray[np.complex128], FloatArray],
) -> None:
    slot, ant1, ant2 = where
    top, bottom = out
    for r in range(slot.size):
        i, j = ant1[r], ant2[r]
        for p in range(power.shape[2]):
            x, y = 0j, 0.0
            for f in range(span[0], span[1]):
                b = band[i, f, p] * np.conj(band[j, f, p])
                x += product[r, f, p] * np.conj(b)
                y += power[r, f, p] * (b.real * b.real + b.imag * b.imag)
            g = gain[slot[r], i, p] * np.conj(gain[slot[r], j, p])
            top[r, p] = x * np.conj(g)
            bottom[r, p] = y * (g.real * g.real + g.imag * g.imag)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _sum_times(
    product: ComplexArray,
    power: Float32Array,
    where: tuple[IntArray, IntArray, IntArray, IntArray],
    band: ComplexArray,
    gain: ComplexArray,
    out: tuple[ComplexArray, Float32Array],
) -> None:
    slot, ant1, ant2, pair = where
    top, bottom = out
    for r in range(slot.size):
        i, j, k = ant1[r], ant2[r], pair[r]
        for p in range(power.shape[2]):
            g = gain[slot[r], i, p] * np.conj(gain[slot[r], j, p])
            for f in range(power.shape[1]):
                b = g * band[i, f, p] * np.conj(band[j, f, p])
                top[k, f, p] += product[r, f, p] * np.conj(b)
                bottom[k, f, p] += power[r, f, p] * (b.real * b.real + b.imag * b.imag)
