"""Loops over visibilities; arrays only, shapes are checked by the callers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]
    Complexes = npt.NDArray[np.complex64]
    Flags = npt.NDArray[np.bool_]
    Integers = npt.NDArray[np.int64]


@njit(cache=True)  # type: ignore[untyped-decorator]
def average(  # noqa: PLR0913, PLR0917, C901 - a kernel
    data: Complexes,
    flags: Flags,
    more_flags: Flags,
    weight: Singles,
    pols: Integers,
    ant1: Integers,
    ant2: Integers,
    time_index: Integers,
    wanted: Integers,
    band: Complexes,
    band_flag: Flags,
    gain: Complexes,
    gain_flag: Flags,
    factor: int,
    first: int,
    vis: Complexes,
    total: Singles,
    difference: Floats,
    pairs: Floats,
) -> None:
    """Calibrate rows, average channels and the parallel hands to Stokes I.

    Parameters
    ----------
    data, flags, more_flags
        Shape (rows, channels, polarizations).
    weight
        Shape (rows, channels or 1, polarizations): inverse variances up to a factor, of calibrated data.
    pols
        The polarizations that make Stokes I, one or two.
    wanted
        Indices of the rows to take.
    band, band_flag, gain, gain_flag
        Inverse gains: shape (antennas, channels, polarizations) and (times, antennas, polarizations).
    factor
        Channels averaged to one.
    first
        Row of `vis` and `total` that the first wanted row goes to.
    vis, total
        Shape (N, channels / factor), filled: the weighted mean and the sum of weights, which is 0 where all is flagged.
    difference, pairs
        Shape (antennas, antennas), added to: |first - second polarization|^2 in units of its variance for unit weights, and how often.
    """
    channels = data.shape[1] // factor
    spectral = weight.shape[1] > 1
    for index in range(wanted.size):
        r = wanted[index]
        i, j, t = ant1[r], ant2[r], time_index[r]
        for c in range(channels):
            whole, weights = 0j, 0.0
            one, other, one_weight, other_weight = 0j, 0j, 0.0, 0.0
            for q in range(pols.size):
                p = pols[q]
                if gain_flag[t, i, p] or gain_flag[t, j, p]:
                    continue
                both = gain[t, i, p] * gain[t, j, p].conjugate()
                part, part_weight = 0j, 0.0
                for f in range(c * factor, (c + 1) * factor):
                    if (
                        flags[r, f, p]
                        or more_flags[r, f, p]
                        or band_flag[i, f, p]
                        or band_flag[j, f, p]
                    ):
                        continue
                    w = weight[r, f if spectral else 0, p]
                    value = data[r, f, p]
                    if not (w > 0 and math.isfinite(value.real) and math.isfinite(value.imag)):
                        continue
                    part += w * (value * (both * (band[i, f, p] * band[j, f, p].conjugate())))
                    part_weight += w
                whole += part
                weights += part_weight
                if q == 0:
                    one, one_weight = part, part_weight
                else:
                    other, other_weight = part, part_weight
            if one_weight > 0 and other_weight > 0:
                apart = one / one_weight - other / other_weight
                spread = 1 / one_weight + 1 / other_weight
                difference[i, j] += (apart.real * apart.real + apart.imag * apart.imag) / (
                    2 * spread
                )
                pairs[i, j] += 1
            if weights > 0:
                vis[first + index, c] = whole / weights
                total[first + index, c] = weights
            else:
                vis[first + index, c] = 0
                total[first + index, c] = 0


@njit(cache=True)  # type: ignore[untyped-decorator]
def grid_weights(
    uvw_m: Floats, freq_per_light: Floats, weight: Singles, width_rad: float, density: Floats
) -> None:
    """Add weights to the cells of a half plane of width 1 / field: `density` has shape (n, 2n), v from 0."""
    half = density.shape[1] // 2
    for r in range(uvw_m.shape[0]):
        for c in range(freq_per_light.size):
            if weight[r, c] > 0:
                x, y = _cell(uvw_m[r, 0], uvw_m[r, 1], freq_per_light[c] * width_rad)
                density[y, x + half] += weight[r, c]


@njit(cache=True)  # type: ignore[untyped-decorator]
def add_power(
    uvw_m: Floats,
    freq_per_light: Floats,
    before: Complexes,
    after: Complexes,
    weight: Singles,
    pair: Integers,
    out: Floats,
) -> None:
    """Add what each baseline's visibilities say before and after a model was taken out of them.

    Parameters
    ----------
    before, after, weight
        Shape (rows, channels).
    pair
        Shape (rows,): baseline of a row, an index into `out`.
    out
        Shape (B, 6): number, and with weights w: sum of w, w |before|^2, w |before - after|^2, w |after|^2, w times the distance in the uv plane (wavelengths).
    """
    for r in range(pair.size):
        b = pair[r]
        distance = math.hypot(uvw_m[r, 0], uvw_m[r, 1])
        for c in range(freq_per_light.size):
            w = weight[r, c]
            if w > 0:
                whole, left = before[r, c], after[r, c]
                model = whole - left
                out[b, 0] += 1
                out[b, 1] += w
                out[b, 2] += w * (whole.real * whole.real + whole.imag * whole.imag)
                out[b, 3] += w * (model.real * model.real + model.imag * model.imag)
                out[b, 4] += w * (left.real * left.real + left.imag * left.imag)
                out[b, 5] += w * distance * freq_per_light[c]


@njit(cache=True)  # type: ignore[untyped-decorator]
def briggs(
    uvw_m: Floats,
    freq_per_light: Floats,
    weight: Singles,
    width_rad: float,
    density: Floats,
    shape: tuple[float, float],
    out: Singles,
) -> None:
    """Fill `out` with weight / (1 + density * shape[0]) * exp(-shape[1] * uv^2), tapered Briggs weights of each visibility."""
    half = density.shape[1] // 2
    squared, falling = shape
    for r in range(uvw_m.shape[0]):
        for c in range(freq_per_light.size):
            x, y = _cell(uvw_m[r, 0], uvw_m[r, 1], freq_per_light[c] * width_rad)
            square = (uvw_m[r, 0] ** 2 + uvw_m[r, 1] ** 2) * freq_per_light[c] ** 2
            out[r, c] = (
                weight[r, c] / (1.0 + density[y, x + half] * squared) * math.exp(-falling * square)
            )


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _cell(u_m: float, v_m: float, per_metre: float) -> tuple[int, int]:
    """Return the cell of a visibility, its conjugate taken where v is negative; rounded down, as WSClean does."""
    if v_m < 0:
        u_m, v_m = -u_m, -v_m
    return math.floor(u_m * per_metre), math.floor(v_m * per_metre)


@njit(cache=True)  # type: ignore[untyped-decorator]
def smearing(  # noqa: PLR0913, PLR0917 - a kernel
    uvw_s: Floats,
    spin_s: Floats,
    freq_hz: Floats,
    weight: Floats,
    interval_s: Floats,
    centre: Floats,
    offset: Floats,
    widths: tuple[float, int],
    out: Floats,
) -> float:
    """Add to `out` what is left of sources in each direction, summed over samples with their weights; return the sum of weights.

    Parameters
    ----------
    uvw_s, spin_s
        Shape (K, 3): baselines over the speed of light, s, and what the Earth's turning adds to them in one second.
    freq_hz, weight, interval_s
        Shape (K,).
    centre, offset
        Shape (D, 3): directions (l, m, n - 1) relative to the phase centre, and relative to where the array pointed.
    widths
        Width of a channel of the correlator, Hz, and the number of them averaged to one.
    """
    width, factor = widths
    heavy = 0.0
    for k in range(freq_hz.size):
        heavy += weight[k]
        for d in range(out.size):
            delay = _dot(uvw_s, k, offset, d)
            rate = _dot(spin_s, k, offset, d) * freq_hz[k] * interval_s[k]
            left = _sinc(math.pi * width * delay) * _sinc(math.pi * rate)
            if factor > 1:
                x = math.pi * width * _dot(uvw_s, k, centre, d)
                left *= _sinc(factor * x) / _sinc(x)
            out[d] += weight[k] * left
    return heavy


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _dot(a: Floats, i: int, b: Floats, j: int) -> float:
    return float(a[i, 0] * b[j, 0] + a[i, 1] * b[j, 1] + a[i, 2] * b[j, 2])


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _sinc(x: float) -> float:
    """Return sin(x) / x; its series below 0.5, where that is good to 1e-7."""
    y = x * x
    if y < 0.25:  # noqa: PLR2004 - the series' range
        return 1.0 - y / 6 * (1.0 - y / 20 * (1.0 - y / 42))
    return math.sin(x) / x


@njit(cache=True)  # type: ignore[untyped-decorator]
def responses(  # noqa: PLR0913, PLR0917 - a kernel
    uvw_s: Floats,
    spin_s: Floats,
    time_index: Integers,
    cosines: Floats,
    offsets: Floats,
    sample: tuple[float, int, float],
    freq_hz: Floats,
    level: Floats,
    root: Singles,
    out: Singles,
) -> None:
    """Fill `out`, shape (C, 2, rows, K), with real and imaginary parts of what sources of 1 Jy before the beam show, times `root`.

    Parameters
    ----------
    uvw_s, spin_s
        Shape (rows, 3): baselines over the speed of light, and what the Earth's turning adds in one second.
    cosines, offsets
        Shape (K, 3) and (times, K, 3): directions about the phase centre and about where the dishes point.
    sample
        Width of a channel (Hz), channels averaged to one, cycles of the middle frequency in an integration.
    freq_hz
        Shape (C,), equidistant: a phasor is turned from one to the next.
    level
        Shape (times, K, C).
    root
        Shape (rows, C).
    """
    step_hz = freq_hz[1] - freq_hz[0] if freq_hz.size > 1 else 0.0
    for r in range(uvw_s.shape[0]):
        t = time_index[r]
        for k in range(cosines.shape[0]):
            delay = _dot(uvw_s, r, cosines, k)
            left = _left(uvw_s, spin_s, r, offsets[t], k, delay, sample)
            turns = delay * freq_hz[0]
            phase = 2 * math.pi * (turns - math.floor(turns))
            real, imaginary = math.cos(phase), math.sin(phase)
            step = 2 * math.pi * delay * step_hz
            step_real, step_imaginary = math.cos(step), math.sin(step)
            for c in range(freq_hz.size):
                shown = left * level[t, k, c] * root[r, c]
                out[c, 0, r, k] = shown * real
                out[c, 1, r, k] = shown * imaginary
                real, imaginary = (
                    real * step_real - imaginary * step_imaginary,
                    real * step_imaginary + imaginary * step_real,
                )


@njit(cache=True)  # type: ignore[untyped-decorator]
def take_out(  # noqa: PLR0913, PLR0917 - a kernel
    uvw_s: Floats,
    spin_s: Floats,
    time_index: Integers,
    cosines: Floats,
    offsets: Floats,
    sample: tuple[float, int, float],
    freq_hz: Floats,
    level: Floats,
    weight: Singles,
    total: Floats,
    vis: Complexes,
) -> None:
    """Subtract sources from `vis`, shape (rows, C), channels equidistant.

    Parameters
    ----------
    level
        Shape (times, K, C), Jy: the sources without smearing.
    weight, total
        Shape (rows, C); and shape (K,), added to: the weighted sum of what each source shows.
    """
    step_hz = freq_hz[1] - freq_hz[0] if freq_hz.size > 1 else 0.0
    for r in range(uvw_s.shape[0]):
        t = time_index[r]
        for k in range(cosines.shape[0]):
            delay = _dot(uvw_s, r, cosines, k)
            left = _left(uvw_s, spin_s, r, offsets[t], k, delay, sample)
            turns = delay * freq_hz[0]
            phase = 2 * math.pi * (turns - math.floor(turns))
            real, imaginary = math.cos(phase), math.sin(phase)
            step = 2 * math.pi * delay * step_hz
            step_real, step_imaginary = math.cos(step), math.sin(step)
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


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _left(
    uvw_s: Floats,
    spin_s: Floats,
    r: int,
    offset: Floats,
    k: int,
    delay: float,
    sample: tuple[float, int, float],
) -> float:
    """Return what smearing leaves of a source: in a channel and an integration of the correlator, and by averaging channels."""
    width, factor, cycles = sample
    left = _sinc(math.pi * width * _dot(uvw_s, r, offset, k)) * _sinc(
        math.pi * cycles * _dot(spin_s, r, offset, k)
    )
    if factor > 1:
        x = math.pi * width * delay
        left *= _sinc(factor * x) / _sinc(x)
    return float(left)
