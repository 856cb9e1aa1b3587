"""The flux scale of an epoch, from the ratios of reference sources to their baselines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_normalize.epochs import Bools, Floats

BASELINE_EPOCHS = 10
CLIP_SIGMA = 3.0
MEDIAN_LOSS = 1.2533
"""sqrt(π/2): error of a median over that of a mean, for Gaussian errors."""
MIN_REFERENCES = 3
"""References that an epoch needs."""
MIN_REFERENCES_FOR_MAD = 8
MIN_REFERENCES_FOR_GRADIENT = 8
"""References that a plane needs: it has three parameters, and the others show how well it fits."""


@dataclass(frozen=True, kw_only=True)
class EpochScale:
    """The flux scale of one epoch: a plane over the field, flat unless a gradient was fitted."""

    plane: Floats
    """Shape (3,): the factor at the middle of the field and its change per degree east and north.
    NaN with too few references."""
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


def measure_baselines(flux: Floats) -> tuple[Floats, Floats]:
    """Return the median of each source's first ten finite epochs, and 1.4826 × their MAD."""
    middle, spread = np.full(len(flux), np.nan), np.full(len(flux), np.nan)
    for i, row in enumerate(flux):
        first = row[np.isfinite(row)][:BASELINE_EPOCHS]
        if first.size:
            middle[i], spread[i] = median_and_spread(first)
    return middle, spread


def solve_epoch(
    ratio: Floats, east_deg: Floats, north_deg: Floats, *, gradient: bool
) -> EpochScale:
    """Return the scale of one epoch from the ratios R = F / baseline of n references, or NaN.

    Ratios are clipped once at 3 × 1.4826 MAD, which leaves more than half of them; repeated clips
    can remove nearly all of a handful of references. The factor is the median, its error
    sqrt(π/2) s/√n, where s is 1.4826 MAD of the ratios that are left, or their standard deviation
    if there are fewer than 8. With `gradient`, 8 references or more are fitted by a plane.
    """
    used, cov = np.isfinite(ratio), np.full((3, 3), np.nan)
    if used.sum() < MIN_REFERENCES:
        return EpochScale(plane=np.full(3, np.nan), covariance=cov, used=used, scatter=np.nan)
    middle, spread = median_and_spread(ratio[used])
    if spread > 0:
        used &= np.abs(ratio - middle) <= CLIP_SIGMA * spread
    left = ratio[used]
    if gradient and left.size >= MIN_REFERENCES_FOR_GRADIENT:
        basis = np.stack([np.ones(left.size), east_deg[used], north_deg[used]], axis=1)
        fitted, *_ = np.linalg.lstsq(basis, left, rcond=None)
        rest = left - basis @ fitted
        variance = float(rest @ rest) / (rest.size - basis.shape[1])
        plane = np.asarray(fitted, np.float64)
        cov = np.asarray(variance * np.linalg.inv(basis.T @ basis), np.float64)
        _, spread = median_and_spread(rest)
    else:
        middle, spread = median_and_spread(left)
        # The MAD follows the references with small errors, but is a poor estimate from a few.
        few = left.size < MIN_REFERENCES_FOR_MAD
        width = float(np.std(left, ddof=1)) if few else spread
        error = MEDIAN_LOSS * width / np.sqrt(left.size)
        plane, cov = np.array([middle, 0.0, 0.0]), np.diag([error**2, 0.0, 0.0])
    return EpochScale(plane=plane, covariance=cov, used=used, scatter=spread)


def scales_from_others(
    flux: Floats, east_deg: Floats, north_deg: Floats, *, gradient: bool
) -> tuple[Floats, Floats]:
    """Return the factor that each reference gets from all others, and its error, shape (n, m)."""
    ratio = flux / measure_baselines(flux)[0][:, None]
    factor, factor_error = np.empty_like(flux), np.empty_like(flux)
    for k, e in np.ndindex(flux.shape):
        others = ratio[:, e].copy()
        others[k] = np.nan
        scale = solve_epoch(others, east_deg, north_deg, gradient=gradient)
        factor[k, e], factor_error[k, e] = scale.at(east_deg[k], north_deg[k])
    return factor, factor_error


def normalise(
    flux: Floats, error: Floats, factor: Floats, factor_error: Floats
) -> tuple[Floats, Floats]:
    """Return F/C and its error: σ² = (σ_raw/C)² + (F_raw σ_C/C²)²."""
    return flux / factor, np.hypot(error / factor, flux * factor_error / factor**2)


def median_and_spread(values: Floats) -> tuple[float, float]:
    """Return the median and 1.4826 × the median absolute deviation."""
    middle = float(np.median(values))
    return middle, MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))
