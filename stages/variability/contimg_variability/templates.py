"""Shapes of light curves: plasma lenses, flares, bad epochs. Each is a change of unit size about zero.

A lens is a Gaussian cloud of electrons in front of the source (Clegg, Fey & Lazio 1998, ApJ 496, 253; one-dimensional). A ray that
crosses it at u (in cloud radii a) arrives at u' = u (1 + α exp(−u²)), so the flux at u' is the density of rays there,
smeared by the source. α = 3.6 (λ/1 cm)² (N₀/1 cm⁻³ pc) (D/1 kpc) (a/1 au)⁻², hence α ∝ ν⁻².
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHAS = (0.7, 1.5, 3.5, 8.0, 20.0)
BETAS = (0.15, 0.4, 0.9)
DURATIONS_DAYS = (14.0, 20.0, 28.0, 40.0, 56.0, 80.0, 113.0, 160.0)
STEPS = 12
"""Lens positions in the time that a lens lasts."""
CHANGE = 0.05
"""A lens lasts as long as it changes the flux by this much."""
GRID_STEP, GRID_HALF, RAYS_A_CELL = 0.02, 16.0, 40
RISES_DAYS = (2.0, 8.0, 20.0, 50.0)
DECAYS_DAYS = (5.0, 12.0, 30.0, 80.0, 200.0)
WIDTHS_DAYS = (5.0, 10.0, 20.0, 40.0, 80.0)


@dataclass(frozen=True)
class Lenses:
    """A bank of lenses, sampled at the epochs of a light curve."""

    shape: Floats
    """Magnification − 1, shape (M, N)."""
    alpha: Floats
    """Shape (M,), as all that follow."""
    beta: Floats
    middle: Floats
    """Days, as the epochs."""
    duration: Floats
    """Days."""


@functools.cache
def magnification(alpha: float, beta: float) -> tuple[Floats, Floats]:
    """Return positions u' and the magnification there of a lens, for a Gaussian source of `beta` lens radii (1 sigma).

    Rays are shot on a grid and counted, each shared between its two neighbours, so that flux is conserved.
    """
    fine = GRID_STEP / RAYS_A_CELL
    ray = np.arange(-2 * GRID_HALF, 2 * GRID_HALF, fine) + 0.5 * fine
    arrives = ray * (1 + alpha * np.exp(-(ray**2)))
    size = int(2 * GRID_HALF / GRID_STEP) + 1
    cell = (arrives + GRID_HALF) / GRID_STEP
    inside = (cell >= 0) & (cell < size - 1)
    left = cell[inside].astype(np.int64)
    right_part = cell[inside] - left
    density = np.bincount(left, 1 - right_part, size) + np.bincount(left + 1, right_part, size)
    grid = np.arange(size, dtype=np.float64) * GRID_STEP - GRID_HALF
    reach = np.arange(-4 * beta, 4 * beta + GRID_STEP, GRID_STEP)
    source = np.exp(-0.5 * (reach / beta) ** 2)
    smeared = np.convolve(np.pad(density / RAYS_A_CELL, reach.size, constant_values=1.0), source / source.sum(), "same")
    return grid, np.asarray(smeared[reach.size : -reach.size], np.float64)


@functools.cache
def half_extent(alpha: float, beta: float) -> float:
    """Return the largest |u'| at which a lens changes the flux by 5 %."""
    grid, gain = magnification(alpha, beta)
    inner = np.abs(grid) < GRID_HALF - 4 * max(BETAS)
    return float(np.abs(grid[inner & (np.abs(gain - 1) >= CHANGE)]).max())


def lens_curve(mjd: Floats, alpha: float, beta: float, middle: float, duration: float) -> Floats:
    """Return magnification − 1 at times `mjd` of a lens that lasts `duration` days about `middle`."""
    grid, gain = magnification(alpha, beta)
    position = (mjd - middle) * (2 * half_extent(alpha, beta) / duration)
    return np.asarray(np.interp(position, grid, gain - 1, left=0.0, right=0.0))


def lenses(mjd: Floats) -> Lenses:
    """Return the bank for a light curve: every strength, source size and duration, at positions a twelfth of it apart."""
    rows, parameters = [], []
    for duration in DURATIONS_DAYS:
        middles = np.arange(mjd[0], mjd[-1] + 1e-9, duration / STEPS)
        times = mjd[None, :] - middles[:, None]
        for alpha in ALPHAS:
            for beta in BETAS:
                rows.append(lens_curve(times, alpha, beta, 0.0, duration))
                parameters += [(alpha, beta, middle, duration) for middle in middles]
    alpha_of, beta_of, middle_of, duration_of = np.array(parameters).T
    return Lenses(np.concatenate(rows), alpha_of, beta_of, middle_of, duration_of)


def flares(mjd: Floats) -> Floats:
    """Return flares at the epochs of a light curve, shape (M, N): exponential rises and decays, and Gaussians; peak 1."""
    rows = []
    shapes = [(rise, decay) for rise in RISES_DAYS for decay in DECAYS_DAYS]
    for rise, decay in shapes:
        x = mjd[None, :] - _peaks(mjd, min(rise, decay), max(rise, decay))[:, None]
        rows.append(np.where(x < 0, np.exp(np.minimum(x, 0) / rise), np.exp(-np.maximum(x, 0) / decay)))
    for width in WIDTHS_DAYS:
        x = mjd[None, :] - _peaks(mjd, width, 3 * width)[:, None]
        rows.append(np.exp(-0.5 * (x / width) ** 2))
    return np.concatenate(rows)


def glitches(count: int) -> Floats:
    """Return one or two neighbouring bad epochs among `count`, shape (M, N)."""
    single = np.eye(count)
    return np.concatenate([single, single[:-1] + single[1:]])


def _peaks(mjd: Floats, fast: float, slow: float) -> Floats:
    """Return times at which flares may peak: also before the first epoch and after the last, when only their wings are seen."""
    return np.arange(mjd[0] - min(slow, 60.0), mjd[-1] + min(slow, 60.0), max(2.0, fast / 2))
