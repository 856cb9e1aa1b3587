"""Likelihoods of a light curve: a mean a + b × template, errors and the source's slow variation.

The variation is a damped random walk of covariance (s a)² exp(−|Δt|/τ). Every explanation of a
light curve may use it, each with the s and τ that suit it best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from contimg_variability.metrics import Floats

RED_NOISE_SIZES = (0.005, 0.015, 0.05, 0.15, 0.45)
RED_NOISE_DAYS = (3.0, 15.0, 60.0, 240.0)
"""3 days is shorter than any cadence: it stands for errors that were underestimated."""


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
    red = [(size, days) for size in RED_NOISE_SIZES for days in RED_NOISE_DAYS]
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
