"""Visibilities over their model: the sums that a solve needs of a Measurement Set.

With data D, model M and weights w, the gains that minimize ``sum w |D - g_i conj(g_j) M|^2`` depend
on the data only through ``X = sum w D conj(M)`` and ``Y = sum w |M|^2`` over all samples that share
a gain: ``Y |X/Y - g_i conj(g_j)|^2`` has the same minimum. The data are therefore multiplied by the
model once and summed over time for the bandpass and over channels for the gains. CASA then solves
sets that are 20 to 700 times smaller, with X/Y as data, 1 as model and Y as weight.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.astro.gains import ComplexArray, Factors, FlagArray, FloatArray, GainArray, IntArray
from contimg.astro.predict import SkyModel, antenna_positions, predict_rows
from contimg.records.ms import MeasurementSet
from contimg.runtime.compiled import compile_loops
from contimg.runtime.errors import AllFlaggedError, BadInputError

Float32Array = npt.NDArray[np.float32]

SAME_TIME_S = 1e-3
"""Rows nearer in time than this belong to one integration."""
SECOND_DIFFERENCE_VARIANCE = 12.0
"""Mean |d0 - 2 d1 + d2|^2 of complex noise, in units of the variance of its real part."""
MAX_WEIGHT_FACTOR = 10.0
"""No weight of a baseline differs from the median by a larger factor. True noise varies by 3; CASA
does not converge if, without noise, the weights range over many powers of ten."""
MIN_TRIPLES = 20
"""A baseline with fewer triples of channels gets the median noise instead of its own."""


@dataclass
class Ratio:
    """Data times conj(model), and |model|^2, of the cross-correlations of one field."""

    antennas: int
    """Length of the ANTENNA table."""
    times_s: FloatArray
    """Shape (T,), MJD in seconds."""
    slot: IntArray
    """Shape (R,): time of a row, an index into `times_s`."""
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
        """Fraction of unflagged samples of each antenna, shape (antennas,); 0 without rows."""
        good = np.count_nonzero(self.power, axis=(1, 2)).astype(float)
        kept, rows = np.zeros(self.antennas), np.zeros(self.antennas)
        for antenna in (self.ant1, self.ant2):
            kept += np.bincount(antenna, good, self.antennas)
            rows += np.bincount(antenna, minlength=self.antennas)
        total = rows * float(np.prod(self.power.shape[1:]))
        return np.divide(kept, total, out=np.zeros(self.antennas), where=total > 0)

    def unit_gains(self) -> Factors:
        """Return gains of 1 for all antennas, times and channels."""
        _, channels, pols = self.power.shape
        band = np.ones((self.antennas, channels, pols), np.complex64)
        gain = np.ones((self.times_s.size, self.antennas, pols), np.complex64)
        return Factors(band, np.zeros(band.shape, bool), gain, np.zeros(gain.shape, bool))


def load_ratio(
    ms: MeasurementSet,
    flags: FlagArray | None,
    sky: SkyModel,
    into: Ratio | None = None,
    *,
    conjugate: bool = False,
) -> Ratio:
    """Read a Measurement Set of one field, integration by integration, over the model of a sky.

    Rows are time-major. `flags`, shape (rows, channels, polarizations), are added to the set's own.
    `into` was read from the same set: its arrays are used again, so that two never fill memory.
    With `conjugate`, the data are those of the sky mirrored through the phase centre.

    Raises AllFlaggedError if no cross-correlation is unflagged; BadInputError if the model is zero
    where there are data.
    """
    rows, antennas = ms.rows, len(ms.header.antennas.names)
    ant1, ant2 = rows.antenna1.astype(np.int64), rows.antenna2.astype(np.int64)
    cross = np.flatnonzero(ant1 != ant2)
    edges = np.flatnonzero(np.concatenate([[True], np.diff(rows.time_s) > SAME_TIME_S, [True]]))
    keys, pair = np.unique(ant1[cross] * antennas + ant2[cross], return_inverse=True)
    shape = (cross.size, sky.freq_hz.size, len(ms.header.correlations))
    ratio = Ratio(
        antennas=antennas,
        times_s=rows.time_s[edges[:-1]],
        slot=np.searchsorted(edges, cross, side="right") - 1,
        ant1=ant1[cross],
        ant2=ant2[cross],
        pair=pair,
        pairs=np.stack([keys // antennas, keys % antennas], axis=1),
        product=into.product if into else np.empty(shape, np.complex64),
        power=into.power if into else np.empty(shape, np.float32),
        weight=np.ones((keys.size, shape[2]), np.float32),
    )
    noise = np.zeros((keys.size, shape[2], 2))
    for first, last in itertools.pairwise(int(edge) for edge in edges):
        integration = slice(first, last)
        to = slice(*(int(edge) for edge in np.searchsorted(cross, [first, last])))
        positions = antenna_positions(
            rows.uvw_m[integration], ant1[integration], ant2[integration], antennas
        )
        mjd = float(rows.time_s[first]) / DAY_S
        model = predict_rows(sky, positions, mjd, ratio.ant1[to], ratio.ant2[to])
        lost = ms.read("FLAG", first, last - first)[cross[to] - first]
        if flags is not None:
            lost |= flags[cross[to]]
        data = ms.read("DATA", first, last - first)[cross[to] - first]
        data = data.conj() if conjugate else data
        empty = _divide(data, lost, model, ratio.product[to], ratio.power[to])
        if empty:
            problem = f"The model is zero for {empty} samples that have data."
            raise BadInputError(f"model of {ms.path.name}", problem, "Correct the model.")
        _add_noise(data, lost, ratio.pair[to], noise)
    if not np.any(ratio.power):
        remedy = "Look at the flag artifact's report."
        raise AllFlaggedError(ms.path.name, "All cross-correlations are flagged.", remedy)
    ratio.weight[:] = estimate_weights(noise)
    return ratio


def estimate_weights(noise: FloatArray) -> Float32Array:
    """Return 1 / variance of each baseline and polarization.

    `noise` has shape (B, P, 2): sums of squared second differences, and their number.
    """
    total, count = noise[..., 0], noise[..., 1]
    variance = np.full(total.shape, np.nan)
    enough = count >= MIN_TRIPLES
    np.divide(total, count * SECOND_DIFFERENCE_VARIANCE, out=variance, where=enough)
    known = variance > 0
    usual = np.median(variance[known]) if known.any() else 1.0
    variance = np.where(known, variance, usual)
    limited = np.clip(variance, usual / MAX_WEIGHT_FACTOR, usual * MAX_WEIGHT_FACTOR)
    return np.asarray(1 / limited, np.float32)


def sum_channels(
    ratio: Ratio, factors: Factors, channels: slice = slice(None)
) -> tuple[ComplexArray, Float32Array]:
    """Sum over channels after a bandpass and gains; return X and Y of each row, shapes (R, P).

    X / Y is what is left of the data over the model; Y is the inverse variance of its real part.
    """
    rows, pols = ratio.slot.size, ratio.power.shape[2]
    x, y = np.zeros((rows, pols), np.complex128), np.zeros((rows, pols))
    span = range(*channels.indices(ratio.power.shape[1]))
    band = np.where(factors.bandpass_flag, 0, factors.bandpass)
    gain = np.where(factors.gain_flag, 0, factors.gain)
    where, part = (ratio.slot, ratio.ant1, ratio.ant2), (span.start, span.stop)
    _sum_channels(ratio.product, ratio.power, where, band, gain, part, (x, y))
    weight = ratio.weight[ratio.pair]
    return (x * weight).astype(np.complex64), (y * weight).astype(np.float32)


def sum_times(ratio: Ratio, factors: Factors) -> tuple[ComplexArray, Float32Array]:
    """Sum over time after a bandpass and gains; return X and Y, shapes (B, C, P)."""
    shape = (len(ratio.pairs), *ratio.power.shape[1:])
    x, y = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    band = np.where(factors.bandpass_flag, 0, factors.bandpass)
    gain = np.where(factors.gain_flag, 0, factors.gain)
    where = (ratio.slot, ratio.ant1, ratio.ant2, ratio.pair)
    _sum_times(ratio.product, ratio.power, where, band, gain, (x, y))
    weight = ratio.weight[:, None, :]
    return np.asarray(x * weight, np.complex64), y * weight


def row_gains(factors: Factors, slot: IntArray, ant1: IntArray, ant2: IntArray) -> ComplexArray:
    """Return g_i conj(g_j) of rows without the bandpass, shape (R, P); 0 where flagged."""
    gain = np.where(factors.gain_flag, 0, factors.gain)
    return np.asarray(gain[slot, ant1] * gain[slot, ant2].conj(), np.complex64)


@compile_loops()
def _divide(
    data: ComplexArray,
    flags: FlagArray,
    model: ComplexArray,
    product: ComplexArray,
    power: Float32Array,
) -> int:
    """Fill D conj(M) and |M|^2; return the number of unflagged samples whose model is zero."""
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


@compile_loops()
def _add_noise(data: ComplexArray, flags: FlagArray, pair: IntArray, noise: FloatArray) -> None:
    """Add squared second differences along frequency, and their number, of each baseline.

    A source's fringe is smooth over three channels, noise is not.
    """
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


@compile_loops()
def _sum_channels(
    product: ComplexArray,
    power: Float32Array,
    where: tuple[IntArray, IntArray, IntArray],
    band: ComplexArray,
    gain: ComplexArray,
    span: tuple[int, int],
    out: tuple[GainArray, FloatArray],
) -> None:
    """Sum each row over the channels of `span`, with its bandpass and gain taken out."""
    slot, ant1, ant2 = where
    x_sum, y_sum = out
    for r in range(slot.size):
        i, j = ant1[r], ant2[r]
        for p in range(power.shape[2]):
            x, y = 0j, 0.0
            for f in range(span[0], span[1]):
                b = band[i, f, p] * np.conj(band[j, f, p])
                x += product[r, f, p] * np.conj(b)
                y += power[r, f, p] * (b.real * b.real + b.imag * b.imag)
            g = gain[slot[r], i, p] * np.conj(gain[slot[r], j, p])
            x_sum[r, p] = x * np.conj(g)
            y_sum[r, p] = y * (g.real * g.real + g.imag * g.imag)


@compile_loops()
def _sum_times(
    product: ComplexArray,
    power: Float32Array,
    where: tuple[IntArray, IntArray, IntArray, IntArray],
    band: ComplexArray,
    gain: ComplexArray,
    out: tuple[ComplexArray, Float32Array],
) -> None:
    """Sum each baseline over its rows, with their bandpass and gain taken out."""
    slot, ant1, ant2, pair = where
    x_sum, y_sum = out
    for r in range(slot.size):
        i, j, k = ant1[r], ant2[r], pair[r]
        for p in range(power.shape[2]):
            g = gain[slot[r], i, p] * np.conj(gain[slot[r], j, p])
            for f in range(power.shape[1]):
                b = g * band[i, f, p] * np.conj(band[j, f, p])
                x_sum[k, f, p] += product[r, f, p] * np.conj(b)
                y_sum[k, f, p] += power[r, f, p] * (b.real * b.real + b.imag * b.imag)
