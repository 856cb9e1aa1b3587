"""A strip of the sky that drifts through a beam: what each group's image says of the beam."""

from __future__ import annotations

from typing import Any

import numpy as np

from contimg_image.beam_check import BeamErrors, fit_beam_errors
from contimg_normalize.beam import ERRORS, LIMITS

HALF_DEG, FWHM_DEG, STEP_DEG, DEC_DEG = 2.25, 2.7, 1.08, 33.0
NOISE_JY, FLUX_ERROR = 4e-4, 0.01
FACTOR = 4 * np.log(2)


def draw_strip(
    rng: np.random.Generator,
    *,
    groups: int,
    width: float = 1.0,
    east_deg: float = 0.0,
    north_deg: float = 0.0,
    scatter: float = 0.18,
    step_deg: float = STEP_DEG,
) -> tuple[list[BeamErrors], dict[str, np.ndarray[Any, Any]]]:
    """Return the errors that groups find of a Gaussian beam, and columns of table `images`.

    Sources have NVSS's counts. They scatter about the catalogue, one in ten by more, in all groups
    alike; each flux of a group has an error of its own.
    """
    length = groups * step_deg + 2 * HALF_DEG
    number = rng.poisson(3.7 * 2 * HALF_DEG * length)
    place = np.stack([rng.uniform(0, length, number), rng.uniform(-HALF_DEG, HALF_DEG, number)])
    flux = np.minimum(0.05 / rng.uniform(size=number), 5.0)
    own = rng.normal(0, scatter, number)
    varies = rng.uniform(size=number) < 0.1
    own += varies * rng.exponential(0.4, number) * rng.choice([-1, 1], number)
    found = []
    for centre in HALF_DEG + step_deg * np.arange(groups):
        near = np.abs(place[0] - centre) < HALF_DEG
        at = place[:, near] - np.array([[centre], [0.0]])
        away = at - np.array([[east_deg], [north_deg]])
        assumed = -FACTOR * np.sum(at**2, axis=0) / FWHM_DEG**2
        true = -FACTOR * np.sum(away**2, axis=0) / (FWHM_DEG * width) ** 2
        expected = flux[near] * np.exp(assumed)
        seen = (assumed > np.log(0.05)) & (expected > 20 * NOISE_JY)
        error = NOISE_JY / expected
        ratio = true - assumed + own[near] + rng.normal(0, np.hypot(error, FLUX_ERROR))
        slopes = 2 * FACTOR / FWHM_DEG**2 * np.stack([np.sum(at**2, axis=0), *at])
        ratio = np.clip(ratio, -1.5, 1.5)
        found.append(fit_beam_errors(ratio[seen], error[seen], slopes[:, seen]))
    ra_deg = 20 + step_deg * np.arange(groups) / np.cos(np.radians(DEC_DEG))
    images = {"ra": ra_deg, "dec": np.full(groups, DEC_DEG)}
    values, errors = (np.array([getattr(b, n) for b in found]).T for n in ("value", "error"))
    images |= dict(zip(LIMITS, values, strict=True)) | dict(zip(ERRORS, errors, strict=True))
    return found, images
