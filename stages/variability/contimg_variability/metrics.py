"""The one module of light-curve statistics: arrays in, numbers out.

Everywhere `flux` and `error` have shape (N,), one element an epoch, in one unit; `error` is 1 sigma.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIGNIFICANT_VS = 4.3
SIGNIFICANT_M = 0.26
"""Mooley et al. 2016, ApJ 818, 105: a pair of epochs is variable above both."""


def weighted_mean(flux: Floats, error: Floats) -> tuple[float, float]:
    """Return the mean with the weights 1/σ², and its error."""
    weight = error**-2.0
    return float(np.average(flux, weights=weight)), float(weight.sum() ** -0.5)


def eta(flux: Floats, error: Floats) -> float:
    """Return η, the reduced χ² of a light curve about its weighted mean; NaN for one epoch.

    Notes
    -----
    1 for noise alone. Swinbank et al. 2015, A&C 11, 25: η = N/(N − 1) (⟨wF²⟩ − ⟨wF⟩²/⟨w⟩). It is summed about the mean, because
    the difference of the two means cancels at high S/N; the two forms are equal. This is also χ²_ν.
    """
    if flux.size < 2:  # noqa: PLR2004 - a variance
        return float("nan")
    mean, _ = weighted_mean(flux, error)
    return float(np.sum(((flux - mean) / error) ** 2) / (flux.size - 1))


def p_constant(flux: Floats, error: Floats) -> float:
    """Return the probability that noise alone makes η as large or larger; NaN for one epoch."""
    from scipy.special import chdtrc

    return (
        float(chdtrc(flux.size - 1, eta(flux, error) * (flux.size - 1)))
        if flux.size > 1
        else float("nan")
    )


def modulation(flux: Floats) -> float:
    """Return V = s/⟨F⟩, the sample standard deviation over the plain mean; NaN for one epoch."""
    return float(np.std(flux, ddof=1) / np.mean(flux)) if flux.size > 1 else float("nan")


def pair_vs(flux: Floats, error: Floats) -> Floats:
    """Return Vs = (F_i − F_j)/√(σ_i² + σ_j²) of all pairs, shape (N, N), antisymmetric."""
    return np.asarray((flux[:, None] - flux[None, :]) / np.hypot(error[:, None], error[None, :]))


def pair_m(flux: Floats) -> Floats:
    """Return m = 2 (F_i − F_j)/(F_i + F_j) of all pairs, shape (N, N); without a limit where a sum is near zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(2 * (flux[:, None] - flux[None, :]) / (flux[:, None] + flux[None, :]))


class Pair(NamedTuple):
    """The most different pair of epochs."""

    vs: float
    """|Vs|; NaN for one epoch."""
    m: float
    """|m| of the same pair."""
    significant: int
    """Pairs with |Vs| ≥ 4.3 and |m| > 0.26."""


def pairs(flux: Floats, error: Floats) -> Pair:
    """Return the pair with the largest |Vs|, and how many pairs are significant."""
    if flux.size < 2:  # noqa: PLR2004 - a pair
        return Pair(float("nan"), float("nan"), 0)
    vs, m = np.abs(pair_vs(flux, error)), np.abs(pair_m(flux))
    largest = np.unravel_index(int(np.argmax(vs)), vs.shape)
    both = (vs >= SIGNIFICANT_VS) & (m > SIGNIFICANT_M)
    return Pair(float(vs[largest]), float(m[largest]), int(np.count_nonzero(np.triu(both, 1))))


def leave_one_out(flux: Floats) -> Floats:
    """Return how far each epoch is from the mean of all others, in the standard deviation that they predict, shape (N,).

    Notes
    -----
    The externally studentised residual t_k = (F_k − ⟨F⟩₋ₖ)/(s₋ₖ √(N/(N − 1))), which has no upper limit; max|F − ⟨F⟩|/s has
    one, (N − 1)/√N, and can never exceed 5 below 27 epochs. NaN below 4 epochs; infinite if the others are all equal.
    """
    n = flux.size
    if n < 4:  # noqa: PLR2004 - a standard deviation of three
        return np.full(n, np.nan)
    centred = flux - flux.mean()
    others = -centred / (n - 1)
    variance = (np.sum(centred**2) - centred**2 - (n - 1) * others**2) / (n - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (centred - others) / np.sqrt(np.maximum(variance, 0.0) * n / (n - 1))
    return np.where(centred == others, 0.0, found)
