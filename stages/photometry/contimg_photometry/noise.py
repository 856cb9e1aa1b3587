"""What correlated noise does to a fit: the noise's autocorrelation, and covariances of weighted sums of pixels.

White noise would give a fitted amplitude the error (Σ K² / σ²)^−½. An interferometer's noise is correlated over a beam, so
the pixels of a beam are worth about one, and the true error is several times that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]

BRIGHT = 5.0
"""Residuals beyond this many sigma are sources and artefacts, not noise."""
FEWEST_PIXELS = 1024


@dataclass(frozen=True)
class Correlation:
    """The autocorrelation of an image's noise, 1 at lag zero."""

    values: Floats
    """Shape (2 m + 1, 2 m + 1): element [m + dy, m + dx] for a lag of (dx, dy) pixels; taken as zero beyond."""

    @property
    def reach(self) -> int:
        """The largest lag, pixels."""
        return int(self.values.shape[0] // 2)

    def at(self, dx: Floats, dy: Floats) -> Floats:
        """Return the autocorrelation at fractional lags, by bilinear interpolation."""
        m = self.reach
        column, row = np.clip(dx + m, 0, 2 * m - 1e-9), np.clip(dy + m, 0, 2 * m - 1e-9)
        i, j = column.astype(int), row.astype(int)
        u, v = column - i, row - j
        table = self.values
        low = (1 - u) * table[j, i] + u * table[j, i + 1]
        high = (1 - u) * table[j + 1, i] + u * table[j + 1, i + 1]
        inside = (np.abs(dx) <= m) & (np.abs(dy) <= m)
        return np.where(inside, (1 - v) * low + v * high, 0.0)

    def covariance(self, weights: Floats) -> Floats:
        """Return the covariance, shape (n, n), of n weighted sums of pixels of unit noise.

        Parameters
        ----------
        weights
            Shape (n, ny, nx), all on the same box of pixels.

        Notes
        -----
        Σ_p Σ_q w_i(p) ρ(p − q) w_j(q): a convolution, so it is done by FFT without the matrix of ρ(p − q).
        """
        n, ny, nx = weights.shape
        shape = (2 * ny, 2 * nx)
        kernel = np.zeros(shape)
        my, mx = min(self.reach, ny - 1), min(self.reach, nx - 1)
        m = self.reach
        lags_y, lags_x = np.arange(-my, my + 1), np.arange(-mx, mx + 1)
        kernel[np.ix_(lags_y % shape[0], lags_x % shape[1])] = self.values[
            np.ix_(lags_y + m, lags_x + m)
        ]
        spread = fft.irfft2(fft.rfft2(weights, s=shape) * fft.rfft2(kernel), s=shape)[:, :ny, :nx]
        return np.asarray(weights.reshape(n, -1) @ spread.reshape(n, -1).T)


def noise_autocorrelation(
    residual: NDArray[np.float32], good: NDArray[np.bool_], reach: int
) -> Correlation:
    """Measure the autocorrelation of the noise in a residual image, shape (ny, nx).

    Parameters
    ----------
    good
        Pixels to use; those that are not finite or brighter than 5 sigma are left out besides.
    reach
        The largest lag, pixels.

    Notes
    -----
    Σ over pairs of good pixels at a lag of their product, over the number of such pairs. If almost no pixel is good, the noise is
    taken as wholly correlated: errors are then too large rather than too small.
    """
    values = np.where(np.isfinite(residual), residual, 0.0).astype(np.float64)
    use = good & np.isfinite(residual)
    for _ in range(2):
        if use.sum() < FEWEST_PIXELS:
            return Correlation(np.ones((2 * reach + 1, 2 * reach + 1)))
        middle, sigma = float(values[use].mean()), float(values[use].std())
        use &= np.abs(values - middle) <= BRIGHT * sigma
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
