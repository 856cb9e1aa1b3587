"""Real light curves: AGN of the Green Bank Interferometer, in pieces like ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[3] / "shared/data/gbi"
DAYS = 6.0 * np.arange(26)
"""One epoch in six days, for 150 days."""


def windows(
    path: Path, column: int, spacing_days: float, min_epochs: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Times and fluxes of the pieces with more than `min_epochs`; they begin `spacing_days` apart.

    The archive holds failed scans near zero: they are cut by a running median, as any reader of these data does.
    """
    table = np.genfromtxt(path, invalid_raise=False)
    table = table[table[:, column] > 0]
    mjd, flux = table[np.argsort(table[:, 0], kind="stable")][:, [0, column]].T
    middle = np.array([np.median(flux[max(0, k - 7) : k + 8]) for k in range(flux.size)])
    good = np.abs(flux / middle - 1) < 0.15
    mjd, flux = mjd[good], flux[good]
    found = []
    for start in np.arange(mjd[0], mjd[-1] - 150, spacing_days):
        nearest = np.unique([int(np.argmin(np.abs(mjd - day))) for day in start + DAYS])
        nearest = nearest[np.abs(mjd[nearest] - start - 75) < 80]
        if nearest.size > min_epochs:
            found.append((mjd[nearest], flux[nearest]))
    return found
