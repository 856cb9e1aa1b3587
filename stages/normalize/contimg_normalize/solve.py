"""The joint solution for the fluxes of steady sources and the flux scale of every group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_normalize.epochs import Bools, Floats, Ints, grouped_median

ROUNDS = 8
"""Gauss-Newton steps; the robust weights have settled after 5."""
FULL_WEIGHT_SIGMA, NO_WEIGHT_SIGMA = 2.5, 5.0
"""Residuals up to the first have full weight, from the second on none."""
MEDIAN_Z2 = MAD_TO_SIGMA**-2
"""Median of the square of a Gaussian of unit width."""
MIN_FREEDOM = 10
"""Degrees of freedom that a measurement of the systematic term needs."""
DEFAULT_SYSTEMATIC = 0.01
"""Fraction assumed if there are fewer; see docs/stages/normalize.md."""
MIN_FOR_SLOPE = 5
"""References that show the slope of a group: a plane has three parameters."""
NO_SLOPE = 1e-7
"""Prior 1 sigma, per degree, of a slope that is not fitted."""
ANY_SLOPE = 1.0
"""Prior 1 sigma, per degree, of a slope that is left free."""
SLOPE_EVIDENCE_SIGMA = 3.0
"""The slopes of all groups are fitted if their χ² exceeds its expectation by so many sigma."""
MAX_CONDITION = 1e10
"""Of a plane's normal matrix: above it the sources lie on a line and show no slope."""
OWN_SLOPE_CHI2 = 18.0
"""A group whose own slope has this χ², p = 0.0001, keeps it although others have none."""
EXPONENT_SIGMA = 0.2
"""Prior 1 sigma of the exponent of the beam: 0.1 in its width."""
UNKNOWN = 1e12
"""Variance of what was not measured."""
MIN_SIGNIFICANCE = 5.0
"""A group's scale over its error; below it the scale takes no part in estimates over groups."""


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """N measurements of k reference sources in u groups of one cell."""

    source: Ints
    """Shape (N,), 0 … k − 1."""
    group: Ints
    """Shape (N,), 0 … u − 1."""
    flux: Floats
    noise: Floats
    basis: Floats
    """1, degrees east and degrees north of the group's middle, shape (3, N)."""
    log_beam: Floats
    """ln of the effective beam, shape (N,)."""
    middle_deg: Floats
    """Offset of each group's middle from the cell's, east and north, shape (2, u)."""
    shape: tuple[int, int]
    """k and u."""

    def select(self, rows: Bools) -> Ratings:
        """Return some rows, of the same sources and groups."""
        names = ("source", "group", "flux", "noise", "log_beam")
        chosen: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return replace(self, basis=self.basis[:, rows], **chosen)


@dataclass(frozen=True, kw_only=True)
class Solution:
    """F = baseline × (plane · basis) × beam^exponent, the robust fit of all measurements."""

    baseline: Floats
    """Shape (k,)."""
    plane: Floats
    """Scale of each group at its middle, and its change per degree east and north, shape (u, 3)."""
    covariance: Floats
    """Of the planes, shape (u, 3, 3); for groups without measurements UNKNOWN."""
    weight: Floats
    """Robust weight of each measurement, 0 to 1, shape (N,)."""
    pull: Floats
    """Residual over its expected error, if the measurement had not been fitted, shape (N,)."""
    ratio: Floats
    """Residual over the fitted flux, shape (N,)."""
    systematic: float
    """1 sigma of errors that grow with flux, a fraction."""
    measured: bool
    """Whether `systematic` was measured from the residuals."""
    slope: Floats
    """Prior 1 sigma of the planes' slopes, relative, per degree, shape (u,)."""
    exponent: float
    """Of the beam; it is 0 ± 0.2 if no source was seen at several places in the beam."""
    exponent_error: float


@dataclass(frozen=True, kw_only=True)
class Level:
    """The present fit of N measurements: flux = shape × model."""

    shape: Floats
    """Baseline × beam^exponent."""
    model: Floats
    """The plane at the source."""
    residual: Floats
    """Measured less fitted flux."""
    weight: Floats
    """Robust weight / σ²."""
    normal: Floats
    """Normal matrices of the planes, shape (u, 3, 3)."""
    gradient: Floats
    """Right-hand sides of the planes, shape (u, 3)."""

    @classmethod
    def of(
        cls, data: Ratings, *, shape: Floats, model: Floats, residual: Floats, weight: Floats
    ) -> Level:
        """Return the present fit with the planes' part of the normal equations."""
        u = data.shape[1]
        normal, gradient = np.empty((u, 3, 3)), np.empty((u, 3))
        for i, basis in enumerate(data.basis):
            gradient[:, i] = np.bincount(data.group, weight * shape * residual * basis, u)
            for j in range(i, 3):
                product = weight * shape**2 * basis * data.basis[j]
                normal[:, i, j] = normal[:, j, i] = np.bincount(data.group, product, u)
        return cls(
            shape=shape,
            model=model,
            residual=residual,
            weight=weight,
            normal=normal,
            gradient=gradient,
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """A step of the fit."""

    baseline: Floats
    """Relative, shape (k,)."""
    exponent: float
    exponent_error: float
    """1 sigma of the exponent itself."""


def solve_jointly(
    data: Ratings, *, systematic: float | None, slope: float | Floats | None, start: Solution | None
) -> Solution:
    """Fit baselines and planes by Gauss-Newton steps with weights that leave out outliers.

    Errors are noise ⊕ systematic × flux. `systematic` and `slope` are estimated where None. Without
    `start` the fit begins with medians, so that up to half of a group or a source may be wrong.
    """
    u = data.shape[1]
    baseline, plane = start_from_medians(data) if start is None else (start.baseline, start.plane)
    fraction = DEFAULT_SYSTEMATIC if systematic is None else systematic
    free = 0.0 if slope is None else slope
    prior, measured = np.broadcast_to(np.maximum(free, NO_SLOPE), u), False
    exponent, exponent_error = (start.exponent, start.exponent_error) if start else (0.0, 0.0)
    looseness = NO_SLOPE if start else EXPONENT_SIGMA
    centre = exponent
    for step in range(ROUNDS):
        shape = np.exp(exponent * data.log_beam) * baseline[data.source]
        model = np.einsum("jn,nj->n", data.basis, plane[data.group])
        residual = data.flux - shape * model
        if systematic is None and step > 0:
            fraction, measured = measure_fraction(data, residual, shape * model)
        sigma = np.hypot(data.noise, fraction * shape * model)
        weight = taper(residual / sigma)
        level = Level.of(
            data, shape=shape, model=model, residual=residual, weight=weight / sigma**2
        )
        if slope is None and step > 0:
            prior = estimate_slopes(data, level, plane)
        change, turn, covariance = gauss_newton(
            data, level, plane, prior, exponent - centre, looseness
        )
        baseline = baseline * (1 + np.clip(change.baseline, -0.5, 1.0))
        plane = plane + turn
        exponent = exponent + change.exponent
        exponent_error = change.exponent_error if start is None else exponent_error
    _, error = evaluate(plane, covariance, data.group, data.basis)
    leverage = np.minimum((error * shape) ** 2 * level.weight, 0.99)
    return Solution(
        baseline=baseline,
        plane=plane,
        covariance=covariance,
        weight=weight,
        pull=residual / (sigma * np.sqrt(1 - leverage)),
        ratio=residual / np.where(shape * model == 0, np.nan, shape * model),
        systematic=fraction,
        measured=measured,
        slope=np.asarray(prior),
        exponent=exponent,
        exponent_error=exponent_error,
    )


def start_from_medians(data: Ratings) -> tuple[Floats, Floats]:
    """Return baselines, (k,), and flat planes, (u, 3), from medians of medians."""
    k, u = data.shape
    plane = np.zeros((u, 3))
    good = np.ones(data.flux.size, bool)
    baseline = grouped_median(data.flux, data.source, k)
    for _ in range(3):
        plane[:, 0] = grouped_median(data.flux / baseline[data.source], data.group, u)
        usual = float(np.nanmedian(plane[:, 0]))
        good = plane[data.group, 0] > 0.2 * usual
        ratio = data.flux[good] / plane[data.group[good], 0]
        found = grouped_median(ratio, data.source[good], k)
        baseline = np.where(found > 0, found, np.abs(baseline))
    return np.nan_to_num(baseline, nan=1.0), np.nan_to_num(plane)


def taper(pull: Floats) -> Floats:
    """Return the robust weight of residuals in units of their errors."""
    span = NO_WEIGHT_SIGMA - FULL_WEIGHT_SIGMA
    return np.clip((NO_WEIGHT_SIGMA - np.abs(pull)) / span, 0.0, 1.0)


def measure_fraction(data: Ratings, residual: Floats, model: Floats) -> tuple[float, bool]:
    """Return the fraction of the flux that, added to the noise, explains the median residual.

    The median is that of squares over errors, which some variable sources do not move. With too few
    measurements to tell, the default and False.
    """
    k, u = np.unique(data.source).size, np.unique(data.group).size
    if (freedom := residual.size - k - u + 1) < MIN_FREEDOM:
        return DEFAULT_SYSTEMATIC, False
    wanted = MEDIAN_Z2 * freedom / residual.size

    def too_small(fraction: float) -> bool:
        z2 = residual**2 / (data.noise**2 + (fraction * model) ** 2)
        return float(np.median(z2)) > wanted

    return least_fraction(too_small), True


def least_fraction(too_small: Callable[[float], bool]) -> float:
    """Return the least fraction of the flux, 0 to 1, as an error that is not too small."""
    low, high = 0.0, 1.0
    for _ in range(25):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return low


def gauss_newton(
    data: Ratings,
    level: Level,
    plane: Floats,
    prior: Floats,
    excess: float,
    looseness: float,
) -> tuple[Change, Floats, Floats]:
    """Return the change of baselines and exponent, that of planes, (u, 3), and their covariance.

    Planes are eliminated group by group, which leaves a system of k + 1 unknowns. Only ratios are
    measured: the mean change of the baselines is 0. The exponent is `excess` above its prior of
    1 sigma `looseness`.
    """
    k, u = data.shape
    shape, model, weight = level.shape, level.model, level.weight
    inner, gradient = level.normal.copy(), level.gradient.copy()
    empty = inner[:, 0, 0] <= 0
    inner[empty] = np.eye(3) * 1e-30
    # The slope is known to be `prior` × scale; a scale near zero has no slope.
    pull = 1.0 / (prior * np.maximum(np.abs(plane[:, 0]), 0.01)) ** 2
    pull[empty] = 1e-30
    inner[:, 1, 1] += pull
    inner[:, 2, 2] += pull
    covariance = np.asarray(np.linalg.inv(inner), np.float64)
    square, by_beam = weight * shape * (shape * model), data.log_beam
    cross = np.zeros((u, 3, k + 1))
    for j, basis in enumerate(data.basis):
        # A source has one measurement in a group.
        cross[data.group, j, data.source] = square * basis
        cross[:, j, k] = np.bincount(data.group, square * by_beam * basis, u)
    gradient[:, 1:] -= pull[:, None] * plane[:, 1:]
    eliminated = np.einsum("uij,ujk->uik", covariance, cross)
    power = square * model
    left = np.diag(np.append(np.bincount(data.source, power, k), (power * by_beam**2).sum()))
    left[k, :k] = left[:k, k] = np.bincount(data.source, power * by_beam, k)
    left -= cross.reshape(3 * u, k + 1).T @ eliminated.reshape(3 * u, k + 1)
    slope = weight * shape * model * level.residual
    right = np.append(np.bincount(data.source, slope, k), (slope * by_beam).sum())
    right -= np.einsum("uik,ui->k", eliminated, gradient)
    left[k, k] += looseness**-2
    right[k] -= excess / looseness**2
    left[:k, :k] += gauge(np.diag(left)[:k])
    inverse = np.linalg.inv(left)
    found = inverse @ right
    turn = np.einsum("uij,uj->ui", covariance, gradient) - eliminated @ found
    turn[empty] = 0.0
    covariance[empty] = np.eye(3) * UNKNOWN
    error = float(np.sqrt(max(inverse[k, k], 0.0)))
    change = Change(baseline=found[:k], exponent=float(found[k]), exponent_error=error)
    return change, turn, covariance


def gauge(diagonal: Floats) -> Floats:
    """Return what to add to the matrix of baselines so that their mean change is 0, shape (k, k).

    Sources without measurements do not change.
    """
    k = diagonal.size
    measured = (diagonal > 0).astype(np.float64)
    size = max(float(diagonal.sum()) / k, 1e-30)
    extra = np.outer(measured, measured) / k + np.diag(1 - measured) + 1e-9 * np.eye(k)
    return np.asarray(size * extra)


def estimate_slopes(data: Ratings, level: Level, plane: Floats) -> Floats:
    """Return the prior 1 sigma of each group's slope, relative, per degree, shape (u,).

    Free slopes are fitted where at least 5 references show them. If together they are larger than
    their errors explain, their size beyond the errors is the prior of all; if one is by itself, its
    size is its own prior. Otherwise there is no slope.
    """
    u, inner = data.shape[1], level.normal
    count = np.bincount(data.group, level.weight > 0, u)
    significance = plane[:, 0] * np.sqrt(inner[:, 0, 0])
    shown = (count >= MIN_FOR_SLOPE) & (significance > MIN_SIGNIFICANCE)
    shown &= np.linalg.cond(inner + 1e-300 * np.eye(3)) < MAX_CONDITION
    if not shown.any():
        return np.full(u, NO_SLOPE)
    free_cov = np.asarray(np.linalg.inv(inner[shown]), np.float64)
    free = plane[shown] + np.einsum("uij,uj->ui", free_cov, level.gradient[shown])
    relative = free[:, 1:] / plane[shown, :1]
    spread = free_cov[:, 1:, 1:] / plane[shown, :1, None] ** 2
    chi2 = np.einsum("ui,uij,uj->u", relative, np.linalg.inv(spread), relative)
    excess = chi2.sum() - 2 * chi2.size
    prior = np.full(u, NO_SLOPE)
    if excess > SLOPE_EVIDENCE_SIGMA * np.sqrt(4 * chi2.size):
        variance = 0.5 * (relative**2).sum(axis=1) - 0.5 * np.trace(spread, axis1=1, axis2=2)
        common = float(np.mean(np.clip(variance, *np.percentile(variance, [0, 95]))))
        prior = np.full(u, max(common, NO_SLOPE**2) ** 0.5)
    own = np.full(u, NO_SLOPE)
    size = np.sqrt(0.5 * (relative**2).sum(axis=1))
    own[shown] = np.where(chi2 > OWN_SLOPE_CHI2, size, NO_SLOPE)
    return np.asarray(np.maximum(prior, own))


def largest_component(data: Ratings) -> Bools:
    """Return which sources belong to the largest connected part, shape (k,).

    Groups are connected by sources that were measured in both. Others have no common scale.
    """
    k, u = data.shape
    label, before = np.arange(k), np.full(k, -1)
    while (label != before).any():
        before = label.copy()
        of_group = np.full(u, k)
        np.minimum.at(of_group, data.group, label[data.source])
        np.minimum.at(label, data.source, of_group[data.group])
    sizes = np.bincount(label[data.source], minlength=k)
    return np.asarray(label == int(np.argmax(sizes)))


def evaluate(
    plane: Floats, covariance: Floats, group: Ints, basis: Floats
) -> tuple[Floats, Floats]:
    """Return factors and their 1 sigma errors for rows of groups at places, (3, N)."""
    factor = np.einsum("in,ni->n", basis, plane[group])
    variance = np.einsum("in,nij,jn->n", basis, covariance[group], basis, optimize=True)
    return factor, np.sqrt(np.maximum(variance, 0.0))
