"""Correlated noise: its autocorrelation, and the errors of fits of the restoring beam in it.

White noise would give a fitted amplitude the error (Σ K² / σ²)^−½. The noise of an interferometer
is correlated over a beam, so the pixels of a beam count as about one, and the true error is several
times as large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from contimg.records.images import SkyImage
from contimg_photometry.kernels import Floats, Form, Image

MAX_NOISE_SIGMA = 5.0
"""Larger residuals are sources and artefacts, not noise."""
MIN_NOISE_PIXELS = 1024


@dataclass(frozen=True)
class BeamProfile:
    """A beam exp(−(a dx² + 2 b dx dy + c dy²)) in pixels."""

    form: Form
    """a, b, c, pixel⁻²."""
    major: float
    """Full width at half maximum, pixels."""
    minor: float

    @classmethod
    def of(cls, image: SkyImage) -> BeamProfile:
        """Return the restoring beam of an image in its pixels."""
        beam, cell = image.beam, image.pixel_side_deg
        form = beam.form_of(image.pixel_matrix)
        return cls(form, major=beam.major_deg / cell, minor=beam.minor_deg / cell)

    def at(self, dx: Floats, dy: Floats) -> Floats:
        """Return the beam at offsets in pixels."""
        a, b, c = self.form
        return np.asarray(np.exp(-(a * dx * dx + 2 * b * dx * dy + c * dy * dy)))


@dataclass(frozen=True)
class Correlation:
    """The autocorrelation of an image's noise, 1 at lag zero."""

    values: Floats
    """Shape (2 m + 1, 2 m + 1): element [m + dy, m + dx] for a lag of (dx, dy); zero beyond."""

    def at(self, dx: Floats, dy: Floats) -> Floats:
        """Return the autocorrelation at fractional lags, by bilinear interpolation."""
        m, table = self.values.shape[0] // 2, self.values
        column, row = np.clip(dx + m, 0, 2 * m - 1e-9), np.clip(dy + m, 0, 2 * m - 1e-9)
        i, j = column.astype(int), row.astype(int)
        u, v = column - i, row - j
        low = (1 - u) * table[j, i] + u * table[j, i + 1]
        high = (1 - u) * table[j + 1, i] + u * table[j + 1, i + 1]
        inside = (np.abs(dx) <= m) & (np.abs(dy) <= m)
        return np.where(inside, (1 - v) * low + v * high, 0.0)

    def covariance(self, weights: Floats) -> Floats:
        """Return the covariance, shape (n, n), of n weighted sums of pixels of unit noise.

        The weights, shape (n, ny, nx), are on the same box of pixels. The covariance is Σ_p Σ_q
        w_i(p) ρ(p − q) w_j(q): a convolution, computed by FFT without the matrix ρ(p − q).
        """
        (n, ny, nx), m = weights.shape, self.values.shape[0] // 2
        shape = (2 * ny, 2 * nx)
        y, x = (np.arange(-reach, reach + 1) for reach in (min(m, ny - 1), min(m, nx - 1)))
        kernel = np.zeros(shape)
        kernel[np.ix_(y % shape[0], x % shape[1])] = self.values[np.ix_(y + m, x + m)]
        spread = fft.irfft2(fft.rfft2(weights, s=shape) * fft.rfft2(kernel), s=shape)[:, :ny, :nx]
        return np.asarray(weights.reshape(n, -1) @ spread.reshape(n, -1).T)


def measure_autocorrelation(residual: Image, reach: int) -> Correlation:
    """Measure the autocorrelation of the noise in a residual image, up to lags of `reach` pixels.

    That is the mean product over all pairs of good pixels at a lag; good pixels are finite and
    within 5 sigma. If almost no pixel is good, the noise is taken as fully correlated: errors are
    then too large rather than too small.
    """
    use = np.isfinite(residual)
    values = np.where(use, residual, 0.0).astype(np.float64)
    for _ in range(2):
        if use.sum() < MIN_NOISE_PIXELS:
            return Correlation(np.ones((2 * reach + 1, 2 * reach + 1)))
        middle, sigma = float(values[use].mean()), float(values[use].std())
        use &= np.abs(values - middle) <= MAX_NOISE_SIGMA * sigma
    values = np.where(use, values - values[use].mean(), 0.0)
    # Padded, so that lags do not wrap, to a size without large primes.
    shape = tuple(fft.next_fast_len(size + reach, real=True) for size in values.shape)
    power = fft.irfft2(np.abs(fft.rfft2(values, s=shape)) ** 2, s=shape)
    pairs = fft.irfft2(np.abs(fft.rfft2(use.astype(np.float64), s=shape)) ** 2, s=shape)
    lags = np.arange(-reach, reach + 1)
    grid = np.ix_(lags % shape[0], lags % shape[1])
    found = power[grid] / np.maximum(pairs[grid], 1.0)
    centre = found[reach, reach]
    return Correlation(found / centre if centre > 0 else np.ones_like(found))


def single_source_errors(beam: BeamProfile, radius: float, noise: Correlation) -> Floats:
    """Return the 1 sigma errors of the fit of a single source for unit noise, shape (3,).

    These are that of the amplitude at a fixed position, and those of x and y (pixels) for a source
    of unit amplitude. For the least-squares solution (GᵀG)⁻¹ Gᵀ I the covariance is (GᵀG)⁻¹ Gᵀ R G
    (GᵀG)⁻¹, where R is the correlation of the noise.
    """
    reach = int(np.ceil(radius))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    a, b, c = beam.form
    value = np.where(np.hypot(dx, dy) <= radius, beam.at(dx, dy), 0.0)
    design = np.stack([value, 2 * (a * dx + b * dy) * value, 2 * (b * dx + c * dy) * value])
    flat = design.reshape(3, -1)
    between = noise.covariance(design)
    inverse = np.linalg.inv(flat @ flat.T)
    _, error_x, error_y = np.sqrt(np.maximum(np.diag(inverse @ between @ inverse), 0.0))
    return np.array([np.sqrt(max(between[0, 0], 0.0)) / (value**2).sum(), error_x, error_y])
