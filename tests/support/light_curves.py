"""Light curves like ours: simulated lenses, flares and red noise, and real AGN of the GBI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from contimg_variability.options import VariabilityOptions
from contimg_variability.stage import EseVerdict, LightCurve, judge_curve

EPOCH_DAYS = 6.0 * np.arange(26)
"""One epoch in six days, for 150 days."""
OPTIONS = VariabilityOptions(normalized="n", tables="t", out="o")


def lens_gain(position: np.ndarray, strength: float, size: float) -> np.ndarray:
    """A plasma lens by the integral of the source's brightness over rays; the stage counts rays."""
    rays = np.arange(-25, 25, size / 50)
    origin = rays * (1 + strength * np.exp(-(rays**2)))
    bright = np.exp(-0.5 * ((origin[None, :] - position[:, None]) / size) ** 2)
    return np.asarray(bright.sum(axis=1) * (size / 50) / (size * np.sqrt(2 * np.pi)))


def flare(peak: float, rise: float, decay: float, size: float) -> np.ndarray:
    """The change of flux that peaks at `peak` days."""
    x = EPOCH_DAYS - peak
    return np.asarray(size * np.exp(-np.abs(x) / np.where(x < 0, rise, decay)))


def red_noise(rng: np.random.Generator, size: float, tau: float) -> np.ndarray:
    """Fluxes about 1 that wander by `size` within `tau` days."""
    covariance = size**2 * np.exp(-np.abs(EPOCH_DAYS[:, None] - EPOCH_DAYS[None, :]) / tau)
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(EPOCH_DAYS.size))
    return np.asarray(np.exp(root @ rng.normal(size=EPOCH_DAYS.size)))


def make_curve(
    mjd: np.ndarray, flux: np.ndarray, error: np.ndarray, source: str = "DSA J000000.0+330000"
) -> LightCurve:
    fixed: dict[str, Any] = {"ra": 0.0, "dec": 33.0, "field": "f", "reference": False}
    fixed |= {"epoch": np.arange(mjd.size), "upper_limit": np.zeros(mjd.size, bool)}
    return LightCurve(source=source, mjd=mjd, flux=flux, flux_err=error, **fixed)


def judge_fluxes(mjd: np.ndarray, flux: np.ndarray, error: np.ndarray) -> EseVerdict:
    return judge_curve(make_curve(mjd, flux, error), OPTIONS)


def gbi_windows(
    path: Path, column: int, spacing_days: float, min_epochs: int = OPTIONS.min_epochs
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Times and fluxes of pieces of 150 days that begin `spacing_days` apart.

    Pieces have more than `min_epochs`. The archive holds failed scans near zero: they are cut by a
    running median, as any reader of these data does.
    """
    table = np.genfromtxt(path, invalid_raise=False)
    table = table[table[:, column] > 0]
    mjd, flux = table[np.argsort(table[:, 0], kind="stable")][:, [0, column]].T
    middle = np.array([np.median(flux[max(0, k - 7) : k + 8]) for k in range(flux.size)])
    good = np.abs(flux / middle - 1) < 0.15
    mjd, flux = mjd[good], flux[good]
    found = []
    for start in np.arange(mjd[0], mjd[-1] - 150, spacing_days):
        nearest = np.unique([int(np.argmin(np.abs(mjd - day))) for day in start + EPOCH_DAYS])
        nearest = nearest[np.abs(mjd[nearest] - start - 75) < 80]
        if nearest.size > min_epochs:
            found.append((mjd[nearest], flux[nearest]))
    return found
