"""Compiled loops over visibilities. They take arrays only; the callers check the shapes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from contimg.runtime.compiled import compile_loops
from contimg_image.frame import Complexes, Floats, Integers, Mask, Singles


class RowBlock(NamedTuple):
    """Consecutive rows of a Measurement Set."""

    data: Complexes
    """Shape (rows, channels, polarizations), like the flags."""
    flags: Mask
    more_flags: Mask
    weight: Singles
    """Shape (rows, channels or 1, polarizations): relative inverse variances of calibrated data."""
    antenna1: Integers
    antenna2: Integers
    time_index: Integers


class InverseGains(NamedTuple):
    """Factors that calibrate: 1 / gain, and where there is no solution."""

    band: Complexes
    """Shape (antennas, channels, polarizations)."""
    band_flag: Mask
    gain: Complexes
    """Shape (times, antennas, polarizations)."""
    gain_flag: Mask


class UVSamples(NamedTuple):
    """Where visibilities lie in the uv plane, and how much they weigh."""

    uvw_m: Floats
    """Shape (rows, 3)."""
    per_metre: Floats
    """Shape (channels,): frequency over the speed of light, wavelengths per metre."""
    weight: Singles
    """Shape (rows, channels)."""


class SourceGeometry(NamedTuple):
    """Baselines and sources of a model."""

    uvw_s: Floats
    """Shape (rows, 3): baselines over the speed of light."""
    spin_s: Floats
    """Shape (rows, 3): change of `uvw_s` per second by the Earth's rotation."""
    time_index: Integers
    """Shape (rows,)."""
    cosines: Floats
    """Shape (K, 3): directions (l, m, n - 1) of the sources about the phase centre."""
    offsets: Floats
    """Shape (times, K, 3): the same about the direction in which the dishes point."""
    sampling: tuple[float, int, float]
    """Width of a channel (Hz), channels averaged to one, cycles of a wave per integration."""

    def select(self, rows: slice | Integers) -> SourceGeometry:
        """Return some rows."""
        uvw_s, spin_s, time_index = self.uvw_s[rows], self.spin_s[rows], self.time_index[rows]
        return self._replace(uvw_s=uvw_s, spin_s=spin_s, time_index=time_index)


@compile_loops()
def average_rows(  # noqa: C901, PLR0913, PLR0917 - a kernel
    block: RowBlock,
    gains: InverseGains,
    hands: Integers,
    selected: Integers,
    factor: int,
    first: int,
    vis: Complexes,
    total: Singles,
    difference: Floats,
    pairs: Floats,
) -> None:
    """Calibrate rows, average `factor` channels and the parallel hands to Stokes I.

    `hands` are the indices of the one or two polarizations that make Stokes I. The rows `selected`
    are averaged to rows from `first` on of `vis` and `total`, shape (N, channels / factor): the
    weighted mean and the sum of weights, 0 without data. Added to `difference` and `pairs`, shape
    (antennas, antennas): |first - second polarization|^2 in units of its variance for unit weights,
    and the number of terms.
    """
    channels = block.data.shape[1] // factor
    spectral = block.weight.shape[1] > 1
    for index in range(selected.size):
        r = selected[index]
        i, j, t = block.antenna1[r], block.antenna2[r], block.time_index[r]
        for c in range(channels):
            whole, weights = 0j, 0.0
            one, other, one_weight, other_weight = 0j, 0j, 0.0, 0.0
            for q in range(hands.size):
                p = hands[q]
                if gains.gain_flag[t, i, p] or gains.gain_flag[t, j, p]:
                    continue
                both = gains.gain[t, i, p] * gains.gain[t, j, p].conjugate()
                part, part_weight = 0j, 0.0
                for f in range(c * factor, (c + 1) * factor):
                    if block.flags[r, f, p] or block.more_flags[r, f, p]:
                        continue
                    if gains.band_flag[i, f, p] or gains.band_flag[j, f, p]:
                        continue
                    w = block.weight[r, f if spectral else 0, p]
                    value = block.data[r, f, p]
                    if not (w > 0 and math.isfinite(value.real) and math.isfinite(value.imag)):
                        continue
                    band = gains.band[i, f, p] * gains.band[j, f, p].conjugate()
                    part += w * (value * (both * band))
                    part_weight += w
                whole += part
                weights += part_weight
                if q == 0:
                    one, one_weight = part, part_weight
                else:
                    other, other_weight = part, part_weight
            if one_weight > 0 and other_weight > 0:
                apart = one / one_weight - other / other_weight
                square = apart.real * apart.real + apart.imag * apart.imag
                difference[i, j] += square / (2 * (1 / one_weight + 1 / other_weight))
                pairs[i, j] += 1
            vis[first + index, c] = whole / weights if weights > 0 else 0j
            total[first + index, c] = weights


@compile_loops(inline="always")
def _cell(u_m: float, v_m: float, per_metre: float) -> tuple[int, int]:
    """Return the uv cell of a visibility (its conjugate if v < 0), rounded down like WSClean."""
    if v_m < 0:
        u_m, v_m = -u_m, -v_m
    return math.floor(u_m * per_metre), math.floor(v_m * per_metre)


@compile_loops()
def grid_weights(samples: UVSamples, width_rad: float, density: Floats) -> None:
    """Add weights to the uv cells of width 1 / field: `density` has shape (n, 2n), v from 0."""
    uvw_m, per_metre, weight = samples
    half = density.shape[1] // 2
    for r in range(uvw_m.shape[0]):
        for c in range(per_metre.size):
            if weight[r, c] > 0:
                x, y = _cell(uvw_m[r, 0], uvw_m[r, 1], per_metre[c] * width_rad)
                density[y, x + half] += weight[r, c]


@compile_loops()
def weigh_briggs(
    samples: UVSamples, width_rad: float, density: Floats, shape: tuple[float, float], out: Singles
) -> None:
    """Fill `out` with weight / (1 + density * shape[0]) * exp(-shape[1] * uv^2)."""
    uvw_m, per_metre, weight = samples
    half = density.shape[1] // 2
    squared, taper = shape
    for r in range(uvw_m.shape[0]):
        for c in range(per_metre.size):
            x, y = _cell(uvw_m[r, 0], uvw_m[r, 1], per_metre[c] * width_rad)
            square = (uvw_m[r, 0] ** 2 + uvw_m[r, 1] ** 2) * per_metre[c] ** 2
            briggs = weight[r, c] / (1.0 + density[y, x + half] * squared)
            out[r, c] = briggs * math.exp(-taper * square)


@compile_loops()
def add_power(
    samples: UVSamples, before: Complexes, after: Complexes, pair: Integers, out: Floats
) -> None:
    """Add up the power of each baseline before and after, (rows, channels), a model was subtracted.

    `pair`, shape (rows,), is the baseline of each row, an index into `out`. `out`, shape (B, 6), is
    the number of visibilities, and with weights w the sums of w, w |before|^2,
    w |before - after|^2, w |after|^2 and w times the uv distance (wavelengths).
    """
    uvw_m, per_metre, weight = samples
    for r in range(pair.size):
        b = pair[r]
        distance = math.hypot(uvw_m[r, 0], uvw_m[r, 1])
        for c in range(per_metre.size):
            w = weight[r, c]
            if w > 0:
                whole, left = before[r, c], after[r, c]
                model = whole - left
                out[b, 0] += 1
                out[b, 1] += w
                out[b, 2] += w * (whole.real * whole.real + whole.imag * whole.imag)
                out[b, 3] += w * (model.real * model.real + model.imag * model.imag)
                out[b, 4] += w * (left.real * left.real + left.imag * left.imag)
                out[b, 5] += w * distance * per_metre[c]


@compile_loops(inline="always")
def _dot(a: Floats, i: int, b: Floats, j: int) -> float:
    return float(a[i, 0] * b[j, 0] + a[i, 1] * b[j, 1] + a[i, 2] * b[j, 2])


@compile_loops(inline="always")
def _sinc(x: float) -> float:
    """Return sin(x) / x; its series below 0.5, where that is good to 1e-7."""
    y = x * x
    if y < 0.25:  # noqa: PLR2004 - the series' range
        return 1.0 - y / 6 * (1.0 - y / 20 * (1.0 - y / 42))
    return math.sin(x) / x


@compile_loops()
def sum_smearing(
    geometry: SourceGeometry, freq_hz: Floats, weight: Floats, interval_s: Floats
) -> tuple[Floats, float]:
    """Return the weighted sum of what smearing leaves of each source, and the sum of weights.

    Frequency, weight and length of the integration, shape (rows,), are those of one visibility of
    each row.
    """
    width, factor, _ = geometry.sampling
    total = 0.0
    out = np.zeros(geometry.cosines.shape[0])
    for r in range(freq_hz.size):
        total += weight[r]
        offset = geometry.offsets[geometry.time_index[r]]
        for k in range(out.size):
            delay = _dot(geometry.uvw_s, r, offset, k)
            rate = _dot(geometry.spin_s, r, offset, k) * freq_hz[r] * interval_s[r]
            left = _sinc(math.pi * width * delay) * _sinc(math.pi * rate)
            if factor > 1:
                x = math.pi * width * _dot(geometry.uvw_s, r, geometry.cosines, k)
                left *= _sinc(factor * x) / _sinc(x)
            out[k] += weight[r] * left
    return out, total


@compile_loops(inline="always")
def _smeared_phasor(
    geometry: SourceGeometry, r: int, k: int, freq_hz: Floats
) -> tuple[float, float, float, float, float]:
    """Return how row `r` sees source `k`.

    That is the amplitude that smearing leaves (in a channel and an integration of the correlator,
    and by averaging channels), the phasor at the first frequency and its rotation per channel.
    """
    width, factor, cycles = geometry.sampling
    offset = geometry.offsets[geometry.time_index[r]]
    delay = _dot(geometry.uvw_s, r, geometry.cosines, k)
    left = _sinc(math.pi * width * _dot(geometry.uvw_s, r, offset, k)) * _sinc(
        math.pi * cycles * _dot(geometry.spin_s, r, offset, k)
    )
    if factor > 1:
        x = math.pi * width * delay
        left *= _sinc(factor * x) / _sinc(x)
    step_hz = freq_hz[1] - freq_hz[0] if freq_hz.size > 1 else 0.0
    turns = delay * freq_hz[0]
    phase = 2 * math.pi * (turns - math.floor(turns))
    step = 2 * math.pi * delay * step_hz
    return left, math.cos(phase), math.sin(phase), math.cos(step), math.sin(step)


@compile_loops()
def fill_responses(
    geometry: SourceGeometry, freq_hz: Floats, level: Floats, root: Singles, out: Singles
) -> None:
    """Fill `out`, shape (C, 2, rows, K), with real and imaginary parts of each source.

    The frequencies, shape (C,), are equidistant: a phasor is rotated from one to the next. `level`,
    shape (times, K, C), is the amplitude of a source of 1 Jy without smearing. `root`, shape
    (rows, C), are square roots of the weights, which multiply the visibilities.
    """
    for r in range(geometry.uvw_s.shape[0]):
        t = geometry.time_index[r]
        for k in range(geometry.cosines.shape[0]):
            left, real, imaginary, step_real, step_imaginary = _smeared_phasor(
                geometry, r, k, freq_hz
            )
            for c in range(freq_hz.size):
                shown = left * level[t, k, c] * root[r, c]
                out[c, 0, r, k] = shown * real
                out[c, 1, r, k] = shown * imaginary
                real, imaginary = (
                    real * step_real - imaginary * step_imaginary,
                    real * step_imaginary + imaginary * step_real,
                )


@compile_loops()
def subtract_sources(
    geometry: SourceGeometry,
    freq_hz: Floats,
    level: Floats,
    weight: Singles,
    total: Floats,
    vis: Complexes,
) -> None:
    """Subtract sources from `vis`, shape (rows, C) like `weight`, with equidistant channels.

    `level`, shape (times, K, C), are the sources without smearing, Jy. The sums of their amplitudes
    times the weights are added to `total`, shape (K,).
    """
    for r in range(geometry.uvw_s.shape[0]):
        t = geometry.time_index[r]
        for k in range(geometry.cosines.shape[0]):
            left, real, imaginary, step_real, step_imaginary = _smeared_phasor(
                geometry, r, k, freq_hz
            )
            shown = 0.0
            for c in range(freq_hz.size):
                flux = left * level[t, k, c]
                shown += weight[r, c] * flux
                vis[r, c] -= complex(flux * real, flux * imaginary)
                real, imaginary = (
                    real * step_real - imaginary * step_imaginary,
                    real * step_imaginary + imaginary * step_real,
                )
            total[k] += shown


@compile_loops()
def clean_patch(
    residual: Singles,
    patch: Singles,
    floor: Singles,
    stop: float,
    gain: float,
    limit: int,
    model: Singles,
) -> None:
    """Move peaks of a residual to a model, both (n, n), in place; a peak is `gain` of its pixel.

    It ends at `limit` components, or when no pixel above its own `floor`, (n, n), exceeds `stop`.
    `patch` is the middle of the PSF, of odd width.
    """
    count, half = residual.shape[0], patch.shape[0] // 2
    highest = np.zeros(count, np.float32)
    place = np.zeros(count, np.int64)
    first, last, components = 0, count, 0
    while True:
        for y in range(first, last):
            highest[y] = 0
            for x in range(count):
                if residual[y, x] > floor[y, x] and residual[y, x] > highest[y]:
                    highest[y], place[y] = residual[y, x], x
        row = int(np.argmax(highest))
        if highest[row] <= stop or components == limit:
            return
        column, components = place[row], components + 1
        flux = np.float32(gain * highest[row])
        model[row, column] += flux
        first, last = max(0, row - half), min(count, row + half + 1)
        left, right = max(0, column - half), min(count, column + half + 1)
        for y in range(first, last):
            for x in range(left, right):
                residual[y, x] -= flux * patch[y - row + half, x - column + half]
