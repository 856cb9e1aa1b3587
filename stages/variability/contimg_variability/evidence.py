"""Whether a plasma lens explains a light curve better than red noise, flares or bad epochs do.

Likelihoods are maximised over a bank of templates first, then by a simplex search from the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from contimg_variability import templates
from contimg_variability.likelihood import LightCurveNoise, model_noise
from contimg_variability.metrics import Floats
from contimg_variability.templates import Bank, flare_curve, whole_lens_curve

Bools = NDArray[np.bool_]

PARAMETER_COUNTS = {"red noise": 3, "flare": 8, "two flares": 13, "bad epochs": 7, "lens": 8}
"""Fitted parameters of each explanation; half of it times ln N is the penalty (Schwarz 1978)."""
MIN_DEPTH = 0.1
"""Observed lenses dim their sources by 10 to 50 % and more (Fiedler et al. 1994)."""
MIN_DIP_EPOCHS = 3
"""Epochs that must lie in the dip, each below the quiescent flux by `DIP_SIGMA`."""
DIP_SIGMA = 3.0
MAX_LENSED_FRACTION = 1.05
"""More than 1, because the fit has errors."""
SEARCH_STARTS = 3
"""Templates that the simplex search starts from, each of another kind."""
SEARCH_EVALUATIONS = 120
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

    @property
    def over_best_rival(self) -> float:
        """The smallest of the three ratios."""
        return min(self.over_red_noise, self.over_flare, self.over_bad_epochs)


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
class Explanation:
    """One kind of explanation: its templates, and which fits of them it allows."""

    mjd: Floats
    bank: Bank
    curve: Callable[..., Floats]
    allowed: Callable[[Floats, Floats, Floats], Bools]
    """From shapes (M, N), a and b, both (Q, M)."""

    def best_fits(self, bank: Bank, noise: LightCurveNoise) -> list[TemplateFit]:
        """Return the best allowed fits, each of another kind of template, best first."""
        best: dict[float, TemplateFit] = {}
        step = max(1, MAX_ARRAY_SIZE // (noise.size.size * noise.y.size))
        for first in range(0, len(bank.shape), step):
            shapes, kinds = bank.shape[first : first + step], bank.kind[first : first + step]
            value, a, b = noise.fit_templates(shapes)
            value = np.where(self.allowed(shapes, a, b), value, -np.inf)
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

    def fit_at(self, point: Floats, noise: LightCurveNoise) -> TemplateFit | None:
        """Return the fit at one place of the bank's space; None if it is not allowed."""
        shape = self.curve(self.mjd, *self.bank.parameters_at(point))[None, :]
        one = replace(self.bank, shape=shape, points=point[None, :].copy(), kind=np.zeros(1))
        return next(iter(self.best_fits(one, noise)), None)

    def improve(self, start: TemplateFit, noise: LightCurveNoise, stride: float) -> TemplateFit:
        """Improve a fit by a simplex search that begins with the bank's steps times `stride`."""
        from scipy.optimize import minimize

        best = start

        def loss(point: Floats) -> float:
            nonlocal best
            fit = self.fit_at(point, noise)
            if fit is not None and fit.value > best.value:
                best = fit
            return FORBIDDEN_LOSS if fit is None else -fit.value

        simplex = np.vstack([start.point, start.point + np.diag(self.bank.steps * stride)])
        options = {"initial_simplex": simplex, "maxfev": SEARCH_EVALUATIONS}
        minimize(loss, start.point, method="Nelder-Mead", options=options)
        return best

    def maximise(
        self, coarse: LightCurveNoise, noise: LightCurveNoise, worth: float = -np.inf
    ) -> TemplateFit | None:
        """Return the best allowed fit of the bank or of a search from the bank's best.

        The search ends early if its coarse part does not reach the log likelihood `worth`.
        """
        starts = self.best_fits(self.bank, coarse)
        if not starts:
            return None
        searched = [self.improve(start, coarse, 1.0) for start in starts]
        smooth = max(searched, key=lambda fit: fit.value)
        best = self.fit_at(smooth.point, noise) or starts[0]
        for _ in range(MAX_RESTARTS if best.value > worth else 0):
            before = best.value
            best = self.improve(best, noise, -0.5)
            if best.value < before + MIN_RESTART_GAIN:
                break
        return max([best, *self.best_fits(self.bank, noise)], key=lambda fit: fit.value)


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
    penalty = {k: 0.5 * count * float(np.log(y.size)) for k, count in PARAMETER_COUNTS.items()}
    red = float(noise.constant.max()) - penalty["red noise"]
    bad = noise.fit_two_bad_epochs() - penalty["bad epochs"]
    lens = Explanation(
        mjd=mjd,
        bank=templates.lens_bank(mjd),
        curve=whole_lens_curve,
        allowed=lambda shapes, a, b: dims_source(shapes, a, b, y, sigma),
    )
    ahead = max(red, bad) + penalty["lens"]
    best = lens.maximise(coarse, noise, worth=ahead - MAX_SEARCH_DEFICIT)
    if best is None:
        return None
    value = best.value - penalty["lens"]
    flares = fit_flares(mjd, coarse, noise, penalty, lens=value, thorough=best.value > ahead)
    alpha, beta, middle, duration = lens.bank.parameters_at(best.point)
    shape = whole_lens_curve(mjd, alpha, beta, middle, duration)
    return Evidence(
        over_red_noise=value - red,
        over_flare=value - flares,
        over_bad_epochs=value - bad,
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


def dims_source(shapes: Floats, a: Floats, b: Floats, y: Floats, sigma: Floats) -> Bools:
    """Return which lenses clearly dim the source for some epochs, and lens at most all of it.

    From shapes (M, N), a and b (Q, M), light curve and errors (N,); shape (Q, M).
    """
    fraction = b / np.where(a > 0, a, np.inf)
    below = y < a[:, :, None] - DIP_SIGMA * sigma
    dips = ((shapes * fraction[:, :, None] <= -MIN_DEPTH) & below).sum(axis=2)
    possible = (fraction > 0) & (fraction <= MAX_LENSED_FRACTION)
    return np.asarray(possible & (dips >= MIN_DIP_EPOCHS))


def fit_flares(
    mjd: Floats,
    coarse: LightCurveNoise,
    noise: LightCurveNoise,
    penalty: dict[str, float],
    *,
    lens: float,
    thorough: bool,
) -> float:
    """Return the penalised log likelihood of one flare or two.

    Two flares are only tried if one is less likely than the lens, and a search (`thorough`) is only
    made if the lens beats red noise; otherwise the bank's best flare is good enough.
    """
    flare = Explanation(
        mjd=mjd,
        bank=templates.flare_bank(mjd),
        curve=flare_curve,
        allowed=lambda _shapes, _a, b: b > 0,
    )
    constant = float(noise.constant.max())
    if thorough:
        found = flare.maximise(coarse, noise)
    else:
        found = next(iter(flare.best_fits(flare.bank, noise)), None)
    one = (found.value if found else constant) - penalty["flare"]
    if found is None or one > lens or not thorough:
        return one
    two = constant
    for _ in range(2):  # the second flare beside the first, then the first again beside the second
        shape = flare_curve(mjd, *flare.bank.parameters_at(found.point))
        other = flare.maximise(coarse.with_template(shape), noise.with_template(shape))
        if other is None:
            break
        found, two = other, max(two, other.value)
    return max(one, two - penalty["two flares"])
