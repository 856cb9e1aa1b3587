"""Compiled loops over pixels. They take arrays in pixel units only, no header and no sky.

The beam is exp(−(a dx² + 2 b dx dy + c dy²)), given as ``form`` = (a, b, c). Positions are
zero-based (x, y) of an image of shape (ny, nx). Pixels that are NaN or outside it are not used.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.runtime.compiled import compile_loops

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Image = NDArray[np.float32]
Form = tuple[float, float, float]

MIN_SAMPLES = 32
"""Samples that the noise of an annulus needs."""
CLIP_SIGMA = 3.0
"""Samples further than this many sigma from the median are sources."""
CLIP_BIAS = 0.98656
"""Standard deviation of a unit Gaussian that is cut at 3 sigma."""
CLIP_ROUNDS = 3


@compile_loops()
def fill_cubic_weights(shift: float, weights: Floats) -> None:
    """Fill `weights` with the Catmull–Rom weights at `shift` (0 to 1) after the second sample."""
    s, s2, s3 = shift, shift * shift, shift * shift * shift
    weights[0] = 0.5 * (-s + 2.0 * s2 - s3)
    weights[1] = 0.5 * (2.0 - 5.0 * s2 + 3.0 * s3)
    weights[2] = 0.5 * (s + 4.0 * s2 - 3.0 * s3)
    weights[3] = 0.5 * (-s2 + s3)


@compile_loops()
def interpolate_peak(
    pixels: Image, x: float, y: float, form: Form, background: float, wx: Floats, wy: Floats
) -> float:
    """Return the amplitude of the beam at (x, y): interpolated image over interpolated beam.

    Dividing by the interpolated beam makes it exact for a beam-shaped source at any sampling; the
    noise stays that of one pixel.
    """
    ny, nx = pixels.shape
    x0, y0 = math.floor(x), math.floor(y)
    if x0 < 1 or y0 < 1 or x0 > nx - 3 or y0 > ny - 3:
        return np.nan
    fill_cubic_weights(x - x0, wx)
    fill_cubic_weights(y - y0, wy)
    value, unit = 0.0, 0.0
    for j in range(4):
        dy = y0 - 1 + j - y
        for i in range(4):
            dx = x0 - 1 + i - x
            weight = wx[i] * wy[j]
            value += weight * (pixels[y0 - 1 + j, x0 - 1 + i] - background)
            unit += weight * math.exp(
                -(form[0] * dx * dx + 2.0 * form[1] * dx * dy + form[2] * dy * dy)
            )
    return value / unit


@compile_loops()
def fit_beam(
    pixels: Image, x: float, y: float, form: Form, background: float, radius: float
) -> float:
    """Return the amplitude of the beam at (x, y) fitted within `radius`: Σ K (I − b) / Σ K²."""
    ny, nx = pixels.shape
    x1, x2 = max(0, math.ceil(x - radius)), min(nx - 1, math.floor(x + radius))
    y1, y2 = max(0, math.ceil(y - radius)), min(ny - 1, math.floor(y + radius))
    data, norm = 0.0, 0.0
    # Along a row the exponent is quadratic: each value follows from the last by two products.
    curve = math.exp(-2.0 * form[0])
    for row in range(y1, y2 + 1):
        dy = row - y
        half = math.sqrt(max(0.0, radius * radius - dy * dy))
        first, last = max(x1, math.ceil(x - half)), min(x2, math.floor(x + half))
        dx = first - x
        beam = math.exp(-(form[0] * dx * dx + 2.0 * form[1] * dx * dy + form[2] * dy * dy))
        ratio = math.exp(-(form[0] * (2.0 * dx + 1.0) + 2.0 * form[1] * dy))
        for column in range(first, last + 1):
            value = pixels[row, column]
            if value == value:  # noqa: PLR0124 - not NaN
                data += beam * (value - background)
                norm += beam * beam
            beam *= ratio
            ratio *= curve
    return data / norm if norm > 0.0 else np.nan


@compile_loops()
def missing_fraction(pixels: Image, x: float, y: float, form: Form, radius: float) -> float:
    """Return the part of Σ K² within `radius` on pixels that are NaN or outside the image."""
    ny, nx = pixels.shape
    missing, norm = 0.0, 0.0
    for row in range(math.ceil(y - radius), math.floor(y + radius) + 1):
        dy = row - y
        half = math.sqrt(max(0.0, radius * radius - dy * dy))
        for column in range(math.ceil(x - half), math.floor(x + half) + 1):
            dx = column - x
            square = math.exp(-2 * (form[0] * dx * dx + 2 * form[1] * dx * dy + form[2] * dy * dy))
            norm += square
            inside = 0 <= row < ny and 0 <= column < nx
            if not inside or pixels[row, column] != pixels[row, column]:
                missing += square
    return missing / norm if norm > 0.0 else 1.0


@compile_loops()
def measure_annulus(
    pixels: Image, x: float, y: float, steps_x: Ints, steps_y: Ints, samples: Floats
) -> tuple[float, float]:
    """Return background and noise at (x, y) from the image at the offsets `steps`.

    They are the median and the clipped standard deviation. `samples` is scratch space, at least as
    long as the offsets.
    """
    ny, nx = pixels.shape
    x0, y0 = math.floor(x + 0.5), math.floor(y + 0.5)
    count = 0
    for k in range(steps_x.size):
        column, row = x0 + steps_x[k], y0 + steps_y[k]
        if 0 <= column < nx and 0 <= row < ny:
            value = pixels[row, column]
            if value == value:  # noqa: PLR0124 - not NaN
                samples[count] = value
                count += 1
    if count < MIN_SAMPLES:
        return np.nan, np.nan
    found = samples[:count]
    middle = np.median(found)
    sigma = MAD_TO_SIGMA * np.median(np.abs(found - middle))
    centre = middle
    for _ in range(CLIP_ROUNDS):
        total, square, kept = 0.0, 0.0, 0
        for k in range(count):
            d = found[k] - centre
            if abs(d) <= CLIP_SIGMA * sigma:
                total += d
                square += d * d
                kept += 1
        if kept < MIN_SAMPLES:
            return middle, sigma
        mean = total / kept
        sigma = math.sqrt(max(0.0, square / kept - mean * mean)) / CLIP_BIAS
        centre += mean
    return centre, sigma


@compile_loops()
def measure_positions(
    pixels: Image, xs: Floats, ys: Floats, form: Form, radius: float, steps: Ints, out: Floats
) -> None:
    """Fill `out`, shape (N, 5), with peak, fit, background, noise and missing fraction.

    `steps`, shape (2, M), are the pixel offsets of the annulus.
    """
    steps_x, steps_y = steps[0], steps[1]
    samples = np.empty(steps_x.size, np.float64)
    wx, wy = np.empty(4, np.float64), np.empty(4, np.float64)
    for k in range(xs.size):
        background, noise = measure_annulus(pixels, xs[k], ys[k], steps_x, steps_y, samples)
        out[k, 2], out[k, 3] = background, noise
        out[k, 4] = missing_fraction(pixels, xs[k], ys[k], form, radius)
        if background != background:  # noqa: PLR0124 - NaN
            out[k, 0], out[k, 1] = np.nan, np.nan
            continue
        out[k, 0] = interpolate_peak(pixels, xs[k], ys[k], form, background, wx, wy)
        out[k, 1] = fit_beam(pixels, xs[k], ys[k], form, background, radius)


@compile_loops()
def solve_symmetric(a: Floats, d: Floats) -> tuple[float, float, float]:
    """Return x of a x = d for a symmetric 3 x 3 matrix, by its cofactors; zeros if it is singular.

    numpy's own solver would take each pod six seconds to compile.
    """
    c00, c11 = a[1, 1] * a[2, 2] - a[1, 2] ** 2, a[0, 0] * a[2, 2] - a[0, 2] ** 2
    c01, c02 = a[1, 2] * a[0, 2] - a[0, 1] * a[2, 2], a[0, 1] * a[1, 2] - a[1, 1] * a[0, 2]
    c12, c22 = a[0, 1] * a[0, 2] - a[0, 0] * a[1, 2], a[0, 0] * a[1, 1] - a[0, 1] ** 2
    det = a[0, 0] * c00 + a[0, 1] * c01 + a[0, 2] * c02
    if det == 0.0:
        return 0.0, 0.0, 0.0
    first = c00 * d[0] + c01 * d[1] + c02 * d[2]
    second = c01 * d[0] + c11 * d[1] + c12 * d[2]
    third = c02 * d[0] + c12 * d[1] + c22 * d[2]
    return first / det, second / det, third / det


@compile_loops()
def fit_position(
    pixels: Image, x: float, y: float, form: Form, background: float, radius: float, rounds: int
) -> tuple[float, float]:
    """Return (dx, dy) from (x, y) to the centre of the best-fitting beam; NaN if it diverges.

    Gauss–Newton iterations in amplitude, x and y.
    """
    ny, nx = pixels.shape
    at_x, at_y = x, y
    for _ in range(rounds):
        normal, data = np.zeros((3, 3)), np.zeros(3)
        gradient = np.empty(3)
        x1, x2 = max(0, math.ceil(at_x - radius)), min(nx - 1, math.floor(at_x + radius))
        y1, y2 = max(0, math.ceil(at_y - radius)), min(ny - 1, math.floor(at_y + radius))
        for row in range(y1, y2 + 1):
            dy = row - at_y
            for column in range(x1, x2 + 1):
                dx = column - at_x
                value = pixels[row, column]
                if dx * dx + dy * dy > radius * radius or value != value:  # noqa: PLR0124 - NaN
                    continue
                beam = math.exp(-(form[0] * dx * dx + 2.0 * form[1] * dx * dy + form[2] * dy * dy))
                gradient[0] = beam
                gradient[1] = 2.0 * (form[0] * dx + form[1] * dy) * beam
                gradient[2] = 2.0 * (form[1] * dx + form[2] * dy) * beam
                for i in range(3):
                    data[i] += gradient[i] * (value - background)
                    for j in range(3):
                        normal[i, j] += gradient[i] * gradient[j]
        amplitude, east, north = solve_symmetric(normal, data)
        if amplitude == 0.0:
            return np.nan, np.nan
        at_x += east / amplitude
        at_y += north / amplitude
        if not (abs(at_x - x) < radius and abs(at_y - y) < radius):
            return np.nan, np.nan
    return at_x - x, at_y - y
