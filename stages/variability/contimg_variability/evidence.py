"""Whether a lens explains a light curve better than red noise, a flare or a bad epoch does.

Every explanation is a mean a + b × template under Gaussian noise: the errors, and the source's own slow variation, a damped
random walk of covariance (s a)² exp(−|Δt|/τ), which all explanations may use. Likelihoods are maximised over a, b, the templates, s and τ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contimg_variability.templates import Lenses, flares, glitches, lenses

Floats = NDArray[np.float64]

RED_SIZES = (0.01, 0.03, 0.1, 0.3)
RED_DAYS = (3.0, 15.0, 60.0, 240.0)
"""3 days is shorter than any cadence: errors that were underestimated."""
PARAMETERS = {"red noise": 3, "glitch": 5, "flare": 7, "lens": 8}
"""Numbers that each explanation adjusts; the penalty is half of it times ln N (Schwarz 1978)."""
SHALLOWEST = 0.1
"""A lens that dims its source by less is none that anyone has seen: dips are 10 to 50 % and more (Fiedler et al. 1994)."""
DIP_EPOCHS = 3
"""Epochs that must lie in the dip, each below the quiescent flux by 3 sigma."""
DIP_SIGMA = 3.0
FULL = 1.1
"""The lensed part of the flux may exceed the whole by what the coarse bank costs."""


@dataclass(frozen=True)
class Evidence:
    """The best lens, and penalised log likelihood ratios of it to the best of each rival."""

    over_red_noise: float
    over_flare: float
    over_glitch: float
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
        return min(self.over_red_noise, self.over_flare, self.over_glitch)


@dataclass(frozen=True)
class _Noise:
    """One covariance of the light curve, ready for fits of a + b T."""

    size: float
    inverse: Floats
    """K⁻¹."""
    projected: Floats
    """P = K⁻¹ − K⁻¹ 1 1ᵀ K⁻¹ / (1ᵀ K⁻¹ 1): K⁻¹ for what is left after the best constant."""
    constant: float
    """Log likelihood of the best constant."""


def evidence(mjd: Floats, flux: Floats, error: Floats) -> Evidence | None:
    """Compare a lens with its rivals; None if no lens of the bank dims the source as a lens must.

    Parameters
    ----------
    mjd, flux, error
        Shape (N,), `mjd` ascending.
    """
    scale = float(np.median(np.abs(flux)))
    y, sigma = flux / scale, error / scale
    noises = _noises(mjd, y, sigma)
    bank = lenses(mjd)
    best = _best_lens(bank, y, sigma, noises)
    if best is None:
        return None
    gain, which, noise, a, b = best
    penalty = {name: 0.5 * count * np.log(y.size) for name, count in PARAMETERS.items()}
    lens = gain - penalty["lens"]
    constant = max(item.constant for item in noises) - penalty["red noise"]
    flare = _best(flares(mjd), y, noises, signs=(1.0,)) - penalty["flare"]
    glitch = _best(glitches(y.size), y, noises, signs=(1.0, -1.0)) - penalty["glitch"]
    shape = bank.shape[which]
    return Evidence(
        lens - constant, lens - flare, lens - glitch, float(bank.middle[which]), float(bank.duration[which]),
        float(bank.alpha[which]), float(bank.beta[which]), b / a, -float(shape.min()) * b / a, a * scale, noise.size,
        (a + b * shape) * scale,
    )  # fmt: skip


def _noises(mjd: Floats, y: Floats, sigma: Floats) -> list[_Noise]:
    lag = np.abs(mjd[:, None] - mjd[None, :])
    kernels = [(0.0, np.zeros_like(lag))] + [(size, size**2 * np.exp(-lag / days)) for size in RED_SIZES for days in RED_DAYS]
    return [_noise(size, kernel + np.diag(sigma**2), y) for size, kernel in kernels]


def _noise(size: float, covariance: Floats, y: Floats) -> _Noise:
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    weight = inverse.sum(axis=0)
    projected = inverse - np.outer(weight, weight) / weight.sum()
    _, logdet = np.linalg.slogdet(covariance)
    return _Noise(size, inverse, projected, -0.5 * float(y @ projected @ y) - 0.5 * float(logdet))


def _fits(shapes: Floats, y: Floats, noise: _Noise) -> tuple[Floats, Floats]:
    """Return the best b of a + b T for each template, and the gain in log likelihood over the best constant; shape (M,)."""
    spread = shapes @ noise.projected
    along, norm = spread @ y, np.einsum("ij,ij->i", spread, shapes)
    usable = norm > 1e-6 * float(np.trace(noise.inverse)) / y.size  # a template that no epoch sees fits anything
    b = np.where(usable, along / np.where(usable, norm, 1.0), 0.0)
    return b, 0.5 * along * b


def _best(shapes: Floats, y: Floats, noises: list[_Noise], signs: tuple[float, ...]) -> float:
    """Return the largest log likelihood of a rival whose template may have these signs."""
    found = -np.inf
    for noise in noises:
        b, gain = _fits(shapes, y, noise)
        allowed = np.isin(np.sign(b), signs)
        found = max(found, noise.constant + float(np.max(np.where(allowed, gain, 0.0))))
    return found


def _best_lens(bank: Lenses, y: Floats, sigma: Floats, noises: list[_Noise]) -> tuple[float, int, _Noise, float, float] | None:
    """Return log likelihood, index, noise, a and b of the best lens that dims the source as one must."""
    best: tuple[float, int, _Noise, float, float] | None = None
    for noise in noises:
        b, gain = _fits(bank.shape, y, noise)
        weight = noise.inverse.sum(axis=0)
        a = (weight @ y - b * (bank.shape @ weight)) / weight.sum()
        dips = (bank.shape * (b / a)[:, None] <= -SHALLOWEST) & (y[None, :] < a[:, None] - DIP_SIGMA * sigma[None, :])
        allowed = (b > 0) & (a > 0) & (b <= FULL * a) & (dips.sum(axis=1) >= DIP_EPOCHS)
        if not allowed.any():
            continue
        k = int(np.argmax(np.where(allowed, gain, -np.inf)))
        value = noise.constant + float(gain[k])
        if best is None or value > best[0]:
            best = (value, k, noise, float(a[k]), float(b[k]))
    return best
