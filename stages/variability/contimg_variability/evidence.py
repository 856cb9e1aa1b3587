"""Whether a lens explains a light curve better than red noise, a flare or bad epochs do.

Likelihoods are maximised: over a bank of templates first, then by a simplex search from the best of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contimg_variability.likelihood import LightCurveNoise, noise_of
from contimg_variability.templates import flare_curve, flares, lens_curve, lenses

if TYPE_CHECKING:
    from collections.abc import Callable

    from contimg_variability.templates import Bank

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PARAMETERS = {"red noise": 3, "flare": 7, "bad epochs": 7, "lens": 8}
"""Numbers that each explanation adjusts; the penalty is half of it times ln N (Schwarz 1978)."""
SHALLOWEST = 0.1
"""A lens that dims its source by less is none that anyone has seen: dips are 10 to 50 % and more (Fiedler et al. 1994)."""
DIP_EPOCHS = 3
"""Epochs that must lie in the dip, each below the quiescent flux by 3 sigma."""
DIP_SIGMA = 3.0
FULL = 1.05
"""The lensed part of the flux may exceed the whole by this much: an error of the fit."""
STARTS = 2
"""Templates that the simplex search starts from, each of another duration."""
SEARCH = 160
"""Steps of a simplex search."""
HOPELESS = 0.0
"""If the best lens of the bank is less likely than a rival, no search follows. It improves the lens of a true event by 10 to 50,
but a true one is ahead before, for a coarse template is helped out by red noise."""
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
    scale = float(np.median(np.abs(flux)))
    y, sigma = flux / scale, error / scale
    noise = noise_of(mjd, y, sigma)
    lens = _Family(lenses(mjd), lens_curve, lambda shapes, a, b: _dims(shapes, a, b, y, sigma))
    flare = _Family(flares(mjd), flare_curve, lambda _shapes, _a, b: b > 0)
    starts, flare_starts = _best_of_bank(lens, noise), _best_of_bank(flare, noise)
    if not starts:
        return None
    constant = float(noise.constant.max()) - _penalty("red noise", y.size)
    bad = noise.two_bad_epochs() - _penalty("bad epochs", y.size)
    best, burst = starts[0], flare_starts[0].value if flare_starts else -np.inf
    if best.value - _penalty("lens", y.size) - max(constant, bad, burst - _penalty("flare", y.size)) > HOPELESS:
        best, burst = _search(lens, starts, mjd, noise), _search(flare, flare_starts, mjd, noise).value if flare_starts else burst
    parameters = lens.bank.parameters_of(best.point)
    rivals = (constant, burst - _penalty("flare", y.size), bad)
    ratios = (best.value - _penalty("lens", y.size) - rival for rival in rivals)
    return _report(mjd, best, parameters, tuple(ratios), scale)


def _report(mjd: Floats, best: _Fit, parameters: tuple[float, ...], ratios: tuple[float, ...], scale: float) -> Evidence:
    alpha, beta, middle, duration = parameters
    red_noise, flare, bad = ratios
    shape = lens_curve(mjd, *parameters)
    return Evidence(
        red_noise, flare, bad, middle, duration, alpha, beta, best.b / best.a, -float(shape.min()) * best.b / best.a,
        best.a * scale, best.red, (best.a + best.b * shape) * scale,
    )  # fmt: skip


def _penalty(name: str, epochs: int) -> float:
    return 0.5 * PARAMETERS[name] * float(np.log(epochs))


def _dims(shapes: Floats, a: Floats, b: Floats, y: Floats, sigma: Floats) -> Bools:
    """Say which lenses dim the source for some epochs, clearly, and lens at most all of it; shape (Q, M)."""
    fraction = b / np.where(a > 0, a, np.inf)
    below = y < a[:, :, None] - DIP_SIGMA * sigma
    dips = (shapes * fraction[:, :, None] <= -SHALLOWEST) & below
    return np.asarray((fraction > 0) & (fraction <= FULL) & (dips.sum(axis=2) >= DIP_EPOCHS))


def _best_of_bank(family: _Family, noise: LightCurveNoise) -> list[_Fit]:
    """Return the best allowed fits, of different time scales, best first."""
    bank, best = family.bank, dict[float, _Fit]()
    step = max(1, ROOM // (noise.size.size * noise.y.size))
    for first in range(0, len(bank.shape), step):
        part = slice(first, first + step)
        for fit, kind in zip(*_fits(family, bank.shape[part], bank.points[part], bank.kind[part], noise), strict=True):
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
        found.append(_Fit(float(top[k]), points[k], float(a[q, k]), float(b[q, k]), float(noise.size[q])))
        which.append(float(kind))
    return found, which


def _search(family: _Family, starts: list[_Fit], mjd: Floats, noise: LightCurveNoise) -> _Fit:
    """Improve the best templates of a bank by a simplex search in their parameters."""
    from scipy.optimize import minimize

    bank, best = family.bank, starts[0]

    def loss(point: Floats) -> float:
        nonlocal best
        shape = family.curve(mjd, *bank.parameters_of(point))[None, :]
        found, _ = _fits(family, shape, point[None, :].copy(), np.zeros(1), noise)
        if not found:
            return np.inf
        if found[0].value > best.value:
            best = found[0]
        return -found[0].value

    for start in starts:
        simplex = np.vstack([start.point, start.point + np.diag(bank.steps)])
        minimize(loss, start.point, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": SEARCH})
    return best
