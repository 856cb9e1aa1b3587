"""Whether a lens explains a light curve better than red noise, a flare or bad epochs do.

Likelihoods are maximised: over a bank of templates first, then by a simplex search from the best of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contimg_variability.likelihood import LightCurveNoise, noise_of
from contimg_variability.templates import (
    SHORTEST_SPAN_DAYS,
    flare_curve,
    flares,
    lenses,
    whole_lens_curve,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from contimg_variability.templates import Bank

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PARAMETERS = {"red noise": 3, "flare": 8, "two flares": 13, "bad epochs": 7, "lens": 8}
"""Numbers that each explanation adjusts; the penalty is half of it times ln N (Schwarz 1978)."""
SHALLOWEST = 0.1
"""A lens that dims its source by less is none that anyone has seen: dips are 10 to 50 % and more (Fiedler et al. 1994)."""
DIP_EPOCHS = 3
"""Epochs that must lie in the dip, each below the quiescent flux by 3 sigma."""
DIP_SIGMA = 3.0
FULL = 1.05
"""The lensed part of the flux may exceed the whole by this much: an error of the fit."""
STARTS = 3
"""Templates that the simplex search starts from, each of another kind."""
SEARCH = 120
"""Steps of a simplex search."""
RESTARTS, GAIN = 4, 0.5
"""A search starts anew from where it ended, with a fresh simplex, as often as that gains this much: strength, source size and
lensed part trade off against each other in a narrow valley, in which a simplex collapses."""
COARSE = 0.1
"""By this part of its whole range a coarse template misses the light curve that it stands for. Added to the errors it makes the
bank rank templates rightly at high signal-to-noise ratios, and smooths the way of the search; the verdict is without it."""
HOPELESS = 15.0
"""A lens that is this much less likely than red noise after the coarse search is not searched further; it would gain some units."""
FORBIDDEN = 1e12
"""Loss of what is not allowed; finite, because the simplex subtracts losses."""
ROOM = 4_000_000
"""Numbers in one array of a bank's fits."""


@dataclass(frozen=True)
class Evidence:
    """The best lens, and penalised log likelihood ratios of it to the best of each rival."""

    over_red_noise: float
    over_flare: float
    over_bad_epochs: float
    mjd: float
    duration_days: float
    alpha: float
    beta: float
    fraction: float
    """Lensed part of the flux."""
    depth: float
    """Depth of the dip, as a fraction of the quiescent flux."""
    quiescent: float
    red_noise: float
    """1 sigma of the source's own variation, a fraction of its flux."""
    model: Floats
    """The fitted mean, shape (N,)."""

    @property
    def least(self) -> float:
        """The ratio to the best rival."""
        return min(self.over_red_noise, self.over_flare, self.over_bad_epochs)


@dataclass(frozen=True)
class _Fit:
    """One fit of a + b T."""

    value: float
    """Log likelihood."""
    point: Floats
    """Place in the bank's space of parameters."""
    a: float
    b: float
    red: float


@dataclass(frozen=True)
class _Family:
    """One kind of explanation: its templates, and which fits of them it allows."""

    bank: Bank
    curve: Callable[..., Floats]
    allowed: Callable[[Floats, Floats, Floats], Bools]
    """From shapes (M, N), a and b, both (Q, M)."""


def evidence(mjd: Floats, flux: Floats, error: Floats) -> Evidence | None:
    """Compare a lens with its rivals; None if no lens of the bank dims the source as a lens must.

    Parameters
    ----------
    mjd, flux, error
        Shape (N,), `mjd` ascending.
    """
    if np.ptp(mjd) <= SHORTEST_SPAN_DAYS:
        return None
    scale = float(np.median(np.abs(flux)))
    y, sigma = flux / scale, error / scale
    noise, coarse = noise_of(mjd, y, sigma), noise_of(mjd, y, np.hypot(sigma, COARSE * np.ptp(y)))
    lens = _Family(
        lenses(mjd), whole_lens_curve, lambda shapes, a, b: _dims(shapes, a, b, y, sigma)
    )
    flare = _Family(flares(mjd), flare_curve, lambda _shapes, _a, b: b > 0)
    constant = float(noise.constant.max())
    red, bad = (
        constant - _penalty("red noise", y.size),
        noise.two_bad_epochs() - _penalty("bad epochs", y.size),
    )
    ahead = max(red, bad) + _penalty("lens", y.size)
    best = _maximum(lens, mjd, coarse, noise, worth=ahead - HOPELESS)
    if best is None:
        return None
    rivals = (
        red,
        _flares(
            flare,
            mjd,
            coarse,
            noise,
            ahead=best.value - _penalty("lens", y.size),
            thorough=best.value > ahead,
        ),
        bad,
    )
    ratios = tuple(best.value - _penalty("lens", y.size) - rival for rival in rivals)
    return _report(mjd, best, lens.bank.parameters_of(best.point), ratios, scale)


def _flares(
    family: _Family,
    mjd: Floats,
    coarse: LightCurveNoise,
    noise: LightCurveNoise,
    ahead: float,
    *,
    thorough: bool,
) -> float:
    """Return the penalised log likelihood of one flare or two.

    Parameters
    ----------
    ahead
        That of the lens: two flares are only tried where one is less likely.
    thorough
        Whether to search; a lens that red noise beats needs no more rivals, and the bank's flare is enough for the record.
    """
    epochs = mjd.size
    none = float(noise.constant.max())
    found = (
        _maximum(family, mjd, coarse, noise, worth=-np.inf)
        if thorough
        else next(iter(_best_of_bank(family, noise)), None)
    )
    one = (found.value if found else none) - _penalty("flare", epochs)
    if found is None or one > ahead or not thorough:
        return one
    two = none
    for _ in range(2):  # the second beside the first, then the first anew beside the second
        shape = flare_curve(mjd, *family.bank.parameters_of(found.point))
        other = _maximum(family, mjd, coarse.given(shape), noise.given(shape), worth=-np.inf)
        if other is None:
            break
        found, two = other, max(two, other.value)
    return max(one, two - _penalty("two flares", epochs))


def _report(
    mjd: Floats, best: _Fit, parameters: tuple[float, ...], ratios: tuple[float, ...], scale: float
) -> Evidence:
    alpha, beta, middle, duration = parameters
    red_noise, flare, bad = ratios
    shape = whole_lens_curve(mjd, *parameters)
    return Evidence(
        red_noise,
        flare,
        bad,
        middle,
        duration,
        alpha,
        beta,
        best.b / best.a,
        -float(shape.min()) * best.b / best.a,
        best.a * scale,
        best.red,
        (best.a + best.b * shape) * scale,
    )


def _penalty(name: str, epochs: int) -> float:
    return 0.5 * PARAMETERS[name] * float(np.log(epochs))


def _dims(shapes: Floats, a: Floats, b: Floats, y: Floats, sigma: Floats) -> Bools:
    """Say which lenses dim the source for some epochs, clearly, and lens at most all of it; shape (Q, M)."""
    fraction = b / np.where(a > 0, a, np.inf)
    below = y < a[:, :, None] - DIP_SIGMA * sigma
    dips = (shapes * fraction[:, :, None] <= -SHALLOWEST) & below
    return np.asarray((fraction > 0) & (fraction <= FULL) & (dips.sum(axis=2) >= DIP_EPOCHS))


def _best_of_bank(family: _Family, noise: LightCurveNoise) -> list[_Fit]:
    """Return the best allowed fits, of different kinds, best first."""
    bank, best = family.bank, dict[float, _Fit]()
    step = max(1, ROOM // (noise.size.size * noise.y.size))
    for first in range(0, len(bank.shape), step):
        part = slice(first, first + step)
        for fit, kind in zip(
            *_fits(family, bank.shape[part], bank.points[part], bank.kind[part], noise), strict=True
        ):
            if kind not in best or fit.value > best[kind].value:
                best[kind] = fit
    return sorted(best.values(), key=lambda fit: -fit.value)[:STARTS]


def _fits(
    family: _Family, shapes: Floats, points: Floats, kinds: Floats, noise: LightCurveNoise
) -> tuple[list[_Fit], list[float]]:
    """Return the best allowed fit of each kind among some templates, and its kind."""
    value, a, b = noise.fits(shapes)
    value = np.where(family.allowed(shapes, a, b), value, -np.inf)
    over_noise = np.argmax(value, axis=0)
    top = value[over_noise, np.arange(len(shapes))]
    found, which = [], []
    for kind in np.unique(kinds[np.isfinite(top)]):
        members = np.flatnonzero(kinds == kind)
        k = int(members[np.argmax(top[members])])
        q = int(over_noise[k])
        found.append(
            _Fit(float(top[k]), points[k], float(a[q, k]), float(b[q, k]), float(noise.size[q]))
        )
        which.append(float(kind))
    return found, which


def _maximum(
    family: _Family, mjd: Floats, coarse: LightCurveNoise, noise: LightCurveNoise, worth: float
) -> _Fit | None:
    """Return the best allowed fit: the bank's, or what a simplex search from the bank's best finds.

    The search ends early if its first part does not reach the log likelihood `worth`.
    """
    starts = _best_of_bank(family, coarse)
    if not starts:
        return None
    smooth = max(
        (_search(family, start, mjd, coarse, 1.0) for start in starts), key=lambda fit: fit.value
    )
    best = _at(family, smooth.point, mjd, noise) or starts[0]
    for _ in range(RESTARTS if best.value > worth else 0):
        before = best.value
        best = _search(family, best, mjd, noise, -0.5)
        if best.value < before + GAIN:
            break
    return max([best, *_best_of_bank(family, noise)], key=lambda fit: fit.value)


def _at(family: _Family, point: Floats, mjd: Floats, noise: LightCurveNoise) -> _Fit | None:
    """Return the fit at one place of the bank's space; None if it is not allowed."""
    shape = family.curve(mjd, *family.bank.parameters_of(point))[None, :]
    found, _ = _fits(family, shape, point[None, :].copy(), np.zeros(1), noise)
    return found[0] if found else None


def _search(
    family: _Family, start: _Fit, mjd: Floats, noise: LightCurveNoise, stride: float
) -> _Fit:
    """Improve a fit by a simplex search; its first simplex has the bank's steps, times `stride`."""
    from scipy.optimize import minimize

    best = start

    def loss(point: Floats) -> float:
        nonlocal best
        found = _at(family, point, mjd, noise)
        if found is not None and found.value > best.value:
            best = found
        return FORBIDDEN if found is None else -found.value

    simplex = np.vstack([start.point, start.point + np.diag(family.bank.steps * stride)])
    minimize(
        loss,
        start.point,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": SEARCH},
    )
    return best
