"""Whether a plasma lens explains a light curve better than red noise, flares or bad epochs do.

Likelihoods are maximised over a bank of templates first, then by a simplex search from the best.
The model is a mean a + b × template, errors and the source's slow variation, a damped random walk
of covariance (s a)² exp(−|Δt|/τ). Every explanation may use it, with the s and τ that suit it best.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from contimg_variability import templates
from contimg_variability.metrics import Floats
from contimg_variability.templates import Bank, Bools

RED_NOISE_SIZES = (0.005, 0.015, 0.05, 0.15, 0.45)
RED_NOISE_DAYS = (3.0, 15.0, 60.0, 240.0)
"""3 days is shorter than any cadence: it stands for errors that were underestimated."""
PARAMETERS = {"red noise": 3, "flare": 8, "two flares": 13, "bad epochs": 7, "lens": 8}
"""Fitted parameters of each explanation; half of it times ln N is the penalty (Schwarz 1978)."""
MIN_DEPTH = 0.1
"""Observed lenses dim their sources by 10 to 50 % and more (Fiedler et al. 1994)."""
MIN_DIP_EPOCHS, DIP_SIGMA = 3, 3.0
"""Epochs that must lie in the dip, each below the quiescent flux by so many sigma."""
MAX_LENSED_FRACTION = 1.05
"""More than 1, because the fit has errors."""
SEARCH_STARTS, SEARCH_EVALUATIONS = 3, 120
"""A simplex search starts from so many templates, each of another kind."""
MAX_RESTARTS, MIN_RESTART_GAIN = 4, 0.5
"""A search is restarted from its end with a fresh simplex while that gains this much: strength,
source size and lensed fraction are degenerate, and a simplex collapses in their narrow valley."""
COARSE_ERROR_FRACTION = 0.1
"""Error of a coarse template, a fraction of the range of the light curve. Added to the errors, it
makes the bank rank templates correctly at high signal-to-noise ratios and smooths the search; the
final likelihoods are computed without it."""
MAX_SEARCH_DEFICIT = 15.0
"""A lens this much less likely than red noise after the coarse search is not searched further: the
fine search gains a few units only."""
FORBIDDEN_LOSS = 1e12
"""Finite, because the simplex subtracts losses."""
MAX_ARRAY_SIZE = 4_000_000
"""Numbers in one array of a bank's fits."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The best lens, and penalised log likelihood ratios of it to the best of each rival.

    The fields have the names, units and meanings of the columns of ese_candidates.
    """

    over_red_noise: float
    over_flare: float
    over_bad_epochs: float
    over_best_rival: float
    """The smallest of the three ratios."""
    lens_mjd: float
    lens_duration: float
    lens_alpha: float
    lens_beta: float
    lens_fraction: float
    lens_depth: float
    flux_quiescent: float
    red_noise: float
    model: Floats
    """The fitted mean, shape (N,)."""


@dataclass(frozen=True, kw_only=True)
class TemplateFit:
    """One fit of a + b × template."""

    value: float
    """Log likelihood."""
    point: Floats
    """Place in the bank's space of parameters."""
    a: float
    b: float
    red: float
    """1 sigma of the red noise, a fraction of the flux."""


@dataclass(frozen=True, kw_only=True)
class LightCurveNoise:
    """The Q covariances to try for a light curve y of N epochs, ready for fits of a + b T."""

    y: Floats
    """Shape (N,), of unit median."""
    size: Floats
    """Shape (Q,): 1 sigma of the source's own variation, a fraction of its flux."""
    weight: Floats
    """K⁻¹ 1, shape (Q, N)."""
    projected: Floats
    """P = K⁻¹ − K⁻¹ 1 1ᵀ K⁻¹ / (1ᵀ K⁻¹ 1), shape (Q, N, N): K⁻¹ of residuals of a constant."""
    min_norm: Floats
    """Shape (Q,): templates with a smaller TᵀPT are seen by no epoch, and would fit anything."""
    constant: Floats
    """Log likelihood of the best constant, shape (Q,)."""

    def fit_templates(self, shapes: Floats) -> tuple[Floats, Floats, Floats]:
        """Return log likelihood, a and b of the best a + b T, (Q, M), for M templates, (M, N)."""
        spread = shapes @ self.projected
        along, norm = spread @ self.y, np.einsum("qmn,mn->qm", spread, shapes)
        seen = norm > self.min_norm[:, None]
        b = np.where(seen, along / np.where(seen, norm, 1.0), 0.0)
        total = (self.weight @ self.y)[:, None] - b * (self.weight @ shapes.T)
        a = total / self.weight.sum(axis=1)[:, None]
        return self.constant[:, None] + 0.5 * along * b, a, b

    def with_template(self, shape: Floats) -> LightCurveNoise:
        """Return the noise for fits of a + b T + c S, with a template S, (N,); ignore their `a`."""
        spread = self.projected @ shape
        norm = np.maximum(spread @ shape, self.min_norm)
        projected = self.projected - spread[:, :, None] * spread[:, None, :] / norm[:, None, None]
        constant = self.constant + 0.5 * (spread @ self.y) ** 2 / norm
        return replace(self, projected=projected, constant=constant)

    def fit_two_bad_epochs(self) -> float:
        """Return the largest log likelihood of a constant and two bad epochs of any size.

        Two free offsets at epochs i and j gain ½ rᵀ P⁻¹ r, with r = P y and P restricted to them.
        """
        best = -np.inf
        for p, constant in zip(self.projected, self.constant, strict=True):
            pull, diagonal = p @ self.y, np.diag(p)
            det = diagonal[:, None] * diagonal[None, :] - p**2
            np.fill_diagonal(det, np.inf)
            own = pull[:, None] ** 2 * diagonal[None, :]
            gain = 0.5 * ((own + own.T - 2 * np.outer(pull, pull) * p) / det).max()
            best = max(best, float(constant + gain))
        return best


def model_noise(mjd: Floats, y: Floats, sigma: Floats) -> LightCurveNoise:
    """Return the covariances to try for a light curve of unit median; all shape (N,)."""
    lag = np.abs(mjd[:, None] - mjd[None, :])
    red = list(itertools.product(RED_NOISE_SIZES, RED_NOISE_DAYS))
    parts = [np.zeros_like(lag), *(size**2 * np.exp(-lag / days) for size, days in red)]
    covariance = np.stack(parts) + np.diag(sigma**2)
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    weight = inverse.sum(axis=1)
    outer = weight[:, :, None] * weight[:, None, :]
    projected = inverse - outer / weight.sum(axis=1)[:, None, None]
    logdet = np.linalg.slogdet(covariance).logabsdet
    return LightCurveNoise(
        y=y,
        size=np.array([0.0, *(size for size, _ in red)]),
        weight=weight,
        projected=projected,
        min_norm=1e-6 * np.trace(inverse, axis1=1, axis2=2) / y.size,
        constant=-0.5 * np.einsum("i,qij,j->q", y, projected, y) - 0.5 * logdet,
    )


def best_fits(bank: Bank, noise: LightCurveNoise) -> list[TemplateFit]:
    """Return the best allowed fits, each of another kind of template, best first."""
    best: dict[float, TemplateFit] = {}
    step = max(1, MAX_ARRAY_SIZE // (noise.size.size * noise.y.size))
    for first in range(0, len(bank.shape), step):
        shapes, kinds = bank.shape[first : first + step], bank.kind[first : first + step]
        value, a, b = noise.fit_templates(shapes)
        value = np.where(bank.allowed(shapes, a, b), value, -np.inf)
        covariance = np.argmax(value, axis=0)
        top = value[covariance, np.arange(len(shapes))]
        for kind in np.unique(kinds[np.isfinite(top)]):
            members = np.flatnonzero(kinds == kind)
            k = int(members[np.argmax(top[members])])
            if kind not in best or top[k] > best[kind].value:
                q = covariance[k]
                best[kind] = TemplateFit(
                    value=float(top[k]),
                    point=bank.points[first + k],
                    a=float(a[q, k]),
                    b=float(b[q, k]),
                    red=float(noise.size[q]),
                )
    return sorted(best.values(), key=lambda fit: -fit.value)[:SEARCH_STARTS]


def fit_at(bank: Bank, point: Floats, noise: LightCurveNoise) -> TemplateFit | None:
    """Return the fit at one place of the bank's space; None if it is not allowed."""
    shape = bank.curve(bank.mjd, *bank.parameters_at(point))[None, :]
    one = replace(bank, shape=shape, points=point[None, :].copy(), kind=np.zeros(1))
    return next(iter(best_fits(one, noise)), None)


def improve(bank: Bank, start: TemplateFit, noise: LightCurveNoise, stride: float) -> TemplateFit:
    """Improve a fit by a simplex search that begins with the bank's steps times `stride`."""
    from scipy.optimize import minimize

    best = start

    def loss(point: Floats) -> float:
        nonlocal best
        fit = fit_at(bank, point, noise)
        if fit is not None and fit.value > best.value:
            best = fit
        return FORBIDDEN_LOSS if fit is None else -fit.value

    simplex = np.vstack([start.point, start.point + np.diag(bank.steps * stride)])
    options = {"initial_simplex": simplex, "maxfev": SEARCH_EVALUATIONS}
    minimize(loss, start.point, method="Nelder-Mead", options=options)
    return best


def maximise(
    bank: Bank, coarse: LightCurveNoise, noise: LightCurveNoise, worth: float = -np.inf
) -> TemplateFit | None:
    """Return the best allowed fit of the bank or of a search from the bank's best.

    The search ends early if its coarse part does not reach the log likelihood `worth`.
    """
    starts = best_fits(bank, coarse)
    if not starts:
        return None
    searched = [improve(bank, start, coarse, 1.0) for start in starts]
    smooth = max(searched, key=lambda fit: fit.value)
    best = fit_at(bank, smooth.point, noise) or starts[0]
    for _ in range(MAX_RESTARTS if best.value > worth else 0):
        before = best.value
        best = improve(bank, best, noise, -0.5)
        if best.value < before + MIN_RESTART_GAIN:
            break
    return max([best, *best_fits(bank, noise)], key=lambda fit: fit.value)


def compare_lens(mjd: Floats, flux: Floats, error: Floats) -> Evidence | None:
    """Compare a lens with its rivals; None if no lens of the bank dims the source as a lens must.

    Times (ascending), fluxes and errors have shape (N,).
    """
    if np.ptp(mjd) <= templates.MIN_SPAN_DAYS:
        return None
    scale = float(np.median(np.abs(flux)))
    y, sigma = flux / scale, error / scale
    noise = model_noise(mjd, y, sigma)
    coarse = model_noise(mjd, y, np.hypot(sigma, COARSE_ERROR_FRACTION * np.ptp(y)))
    half_log = 0.5 * float(np.log(y.size))
    red = float(noise.constant.max()) - PARAMETERS["red noise"] * half_log
    bad = noise.fit_two_bad_epochs() - PARAMETERS["bad epochs"] * half_log

    def dims_source(shapes: Floats, a: Floats, b: Floats) -> Bools:
        """Return which lenses clearly dim the source for some epochs, and lens at most all of it.

        From shapes (M, N), a and b (Q, M); shape (Q, M).
        """
        fraction = b / np.where(a > 0, a, np.inf)
        below = y < a[:, :, None] - DIP_SIGMA * sigma
        dips = ((shapes * fraction[:, :, None] <= -MIN_DEPTH) & below).sum(axis=2)
        possible = (fraction > 0) & (fraction <= MAX_LENSED_FRACTION)
        return np.asarray(possible & (dips >= MIN_DIP_EPOCHS))

    bank = replace(templates.lens_bank(mjd), allowed=dims_source)
    ahead = max(red, bad) + PARAMETERS["lens"] * half_log
    best = maximise(bank, coarse, noise, worth=ahead - MAX_SEARCH_DEFICIT)
    if best is None:
        return None
    value = best.value - PARAMETERS["lens"] * half_log
    flares = fit_flares(mjd, coarse, noise, value if best.value > ahead else None)
    alpha, beta, middle, duration = bank.parameters_at(best.point)
    shape = bank.curve(mjd, alpha, beta, middle, duration)
    return Evidence(
        over_red_noise=value - red,
        over_flare=value - flares,
        over_bad_epochs=value - bad,
        over_best_rival=value - max(red, flares, bad),
        lens_mjd=middle,
        lens_duration=duration,
        lens_alpha=alpha,
        lens_beta=beta,
        lens_fraction=best.b / best.a,
        lens_depth=-float(shape.min()) * best.b / best.a,
        flux_quiescent=best.a * scale,
        red_noise=best.red,
        model=(best.a + best.b * shape) * scale,
    )


def fit_flares(
    mjd: Floats, coarse: LightCurveNoise, noise: LightCurveNoise, lens: float | None
) -> float:
    """Return the penalised log likelihood of one flare or two.

    Two flares are only tried if one is less likely than the lens. If the lens does not beat red
    noise (None), no search is made: the bank's best flare is good enough.
    """
    bank, constant = templates.flare_bank(mjd), float(noise.constant.max())
    half_log = 0.5 * float(np.log(mjd.size))
    fits = best_fits(bank, noise) if lens is None else [maximise(bank, coarse, noise)]
    found = next(iter(fits), None)
    one = (found.value if found else constant) - PARAMETERS["flare"] * half_log
    if found is None or lens is None or one > lens:
        return one
    two = constant
    for _ in range(2):  # the second flare beside the first, then the first again beside the second
        shape = bank.curve(mjd, *bank.parameters_at(found.point))
        other = maximise(bank, coarse.with_template(shape), noise.with_template(shape))
        if other is None:
            break
        found, two = other, max(two, other.value)
    return max(one, two - PARAMETERS["two flares"] * half_log)
