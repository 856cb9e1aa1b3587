"""The flux scale of an epoch from the ratios of reference sources to their baselines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contimg.astro.constants import MAD_TO_SIGMA

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BASELINE_EPOCHS = 10
CLIP = 3.0
MEDIAN_LOSS = 1.2533
"""sqrt(π/2): error of a median over that of a mean, Gaussian errors."""
FEWEST = 3
"""References that an epoch needs."""
FEWEST_FOR_MAD = 8
FEWEST_FOR_GRADIENT = 8
"""References that a plane needs: three numbers and enough left to judge them."""


@dataclass(frozen=True)
class Scale:
    """The flux scale of one epoch: a plane over the field, flat unless a gradient was asked for."""

    plane: Floats
    """Shape (3,): the factor at the field's middle and its change a degree east and north; NaN with too few references."""
    covariance: Floats
    """Shape (3, 3)."""
    used: Bools
    """Shape (n,): references left after the clip."""
    scatter: float
    """Of the ratios about the plane, 1.4826 MAD."""

    def at(self, east_deg: Floats, north_deg: Floats) -> tuple[Floats, Floats]:
        """Return the factor and its 1 sigma error at offsets from the field's middle."""
        basis = np.stack([np.ones_like(east_deg), east_deg, north_deg])
        variance = np.einsum("i...,ij,j...->...", basis, self.covariance, basis)
        return np.asarray(np.tensordot(self.plane, basis, 1)), np.sqrt(np.maximum(variance, 0.0))


def baselines(flux: Floats) -> tuple[Floats, Floats]:
    """Return the median of each source's first ten good epochs, and 1.4826 × their MAD; shape (n,).

    Parameters
    ----------
    flux
        Shape (n, m), in the order of time; NaN where not good.
    """
    middle, spread = np.full(len(flux), np.nan), np.full(len(flux), np.nan)
    for i, row in enumerate(flux):
        first = row[np.isfinite(row)][:BASELINE_EPOCHS]
        if first.size:
            middle[i] = np.median(first)
            spread[i] = MAD_TO_SIGMA * np.median(np.abs(first - middle[i]))
    return middle, spread


def solve(ratio: Floats, east_deg: Floats, north_deg: Floats, *, gradient: bool) -> Scale:
    """Return the scale of one epoch.

    Parameters
    ----------
    ratio
        R = F / baseline of each reference, shape (n,); NaN where it was not measured.
    gradient
        Fit a plane, if at least 8 references are left.

    Notes
    -----
    One clip at 3 × 1.4826 MAD, which leaves more than half (repeated, it eats up a handful of references); the factor is the median, its error sqrt(π/2) s/√n, where s is 1.4826 MAD of the
    ratios that are left, or their standard deviation if there are fewer than 8.
    """
    used = np.isfinite(ratio)
    if used.sum() < FEWEST:
        return Scale(np.full(3, np.nan), np.full((3, 3), np.nan), used, np.nan)
    middle, spread = _middle(ratio[used])
    if spread > 0:
        used &= np.abs(ratio - middle) <= CLIP * spread
    if gradient and used.sum() >= FEWEST_FOR_GRADIENT:
        return _plane(ratio, east_deg, north_deg, used)
    middle, spread = _middle(ratio[used])
    # The references' errors differ, and the median follows the good ones: so does the MAD, but it is a poor guide for a few.
    width = spread if used.sum() >= FEWEST_FOR_MAD else float(np.std(ratio[used], ddof=1))
    error = MEDIAN_LOSS * width / np.sqrt(used.sum())
    return Scale(np.array([middle, 0.0, 0.0]), np.diag([error**2, 0.0, 0.0]), used, spread)


def leave_one_out(
    ratio: Floats, east_deg: Floats, north_deg: Floats, *, gradient: bool
) -> list[Scale]:
    """Return the scale that each reference gets: from all the others."""
    scales = []
    for k in range(ratio.size):
        others = ratio.copy()
        others[k] = np.nan
        scales.append(solve(others, east_deg, north_deg, gradient=gradient))
    return scales


def normalised(
    flux: Floats, error: Floats, factor: Floats, factor_error: Floats
) -> tuple[Floats, Floats]:
    """Return F/C and its error: σ² = (σ_raw/C)² + (F_raw σ_C/C²)²."""
    return flux / factor, np.hypot(error / factor, flux * factor_error / factor**2)


def _middle(ratio: Floats) -> tuple[float, float]:
    middle = float(np.median(ratio))
    return middle, MAD_TO_SIGMA * float(np.median(np.abs(ratio - middle)))


def _plane(ratio: Floats, east_deg: Floats, north_deg: Floats, used: Bools) -> Scale:
    basis = np.stack([np.ones(int(used.sum())), east_deg[used], north_deg[used]], axis=1)
    plane, *_ = np.linalg.lstsq(basis, ratio[used], rcond=None)
    rest = ratio[used] - basis @ plane
    variance = float(rest @ rest) / (rest.size - basis.shape[1])
    covariance = variance * np.linalg.inv(basis.T @ basis)
    return Scale(
        np.asarray(plane, np.float64), np.asarray(covariance, np.float64), used, _middle(rest)[1]
    )
