"""Shapes of light curves: plasma lenses and flares. Each is a change of unit size about zero.

A lens is a Gaussian cloud of electrons in front of the source (Clegg, Fey & Lazio 1998, ApJ 496, 253; one-dimensional). A ray that
crosses it at u (in cloud radii a) arrives at u' = u (1 + α exp(−u²)), so the flux at u' is the density of rays there,
smeared by the source. α = 3.6 (λ/1 cm)² (N₀/1 cm⁻³ pc) (D/1 kpc) (a/1 au)⁻², hence α ∝ ν⁻².
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHAS = (0.5, 0.9, 1.6, 2.8, 5.0, 9.0)
BETAS = (0.15, 0.4, 1.0)
LARGEST_ALPHA, SMALLEST_BETA, LARGEST_BETA = 20.0, 0.1, 1.5
DURATIONS_DAYS = (14.0, 20.0, 28.0, 40.0, 56.0, 80.0, 113.0, 160.0)
LONGEST_DAYS = 180.0
STEPS = 12
"""Lens positions in the time that a lens lasts."""
SEEN = 0.35
"""A light curve must reach this part of the duration to both sides of the middle: there the spikes are past their tops."""
SHORTEST_SPAN_DAYS = 2 * SEEN * DURATIONS_DAYS[0]
"""A shorter light curve holds no whole lens."""
CHANGE = 0.05
"""A lens lasts as long as it changes the flux by this much."""
GRID_STEP, GRID_HALF, RAYS_A_CELL = 0.02, 16.0, 12
LENS_HALF = 6.0
"""Beyond this many lens radii a ray goes straight: exp(−36) of the cloud is left."""
RISES_DAYS = (2.0, 8.0, 20.0, 50.0)
DECAYS_DAYS = (5.0, 12.0, 30.0, 80.0, 200.0)
POWERS = (1.0, 2.0)
SMALLEST_POWER, LARGEST_POWER = 0.7, 6.0
SHORTEST_FLARE_DAYS, LONGEST_FLARE_DAYS = 0.5, 400.0
EDGE_DAYS = 60.0
"""Flares may peak this long before the first epoch or after the last, so that only their wings are seen."""


@dataclass(frozen=True)
class Bank:
    """Templates sampled at the epochs of a light curve, and the space that a search moves in."""

    shape: Floats
    """Shape (M, N)."""
    points: Floats
    """Shape (M, K): logarithms of the positive parameters, and times in days."""
    kind: Floats
    """Shape (M,): a lens's strength, a flare's decay; searches start from the best of different kinds."""
    steps: Floats
    """Shape (K,): first steps of a search."""
    low: Floats
    """Shape (K,): limits of the search."""
    high: Floats
    logarithms: tuple[bool, ...]
    """Which of the K are logarithms."""

    def parameters_of(self, point: Floats) -> tuple[float, ...]:
        """Return the parameters at a point, kept within the limits."""
        inside = np.clip(point, self.low, self.high)
        return tuple(
            float(np.exp(x) if log else x) for x, log in zip(inside, self.logarithms, strict=True)
        )


@functools.lru_cache(maxsize=512)
def magnification(alpha: float, beta: float) -> tuple[Floats, Floats]:
    """Return positions u' and the magnification there of a lens, for a Gaussian source of `beta` lens radii (1 sigma).

    Rays are shot on a grid and counted, each shared between its two neighbours, so that flux is conserved.
    """
    fine = GRID_STEP / RAYS_A_CELL
    ray = np.arange(-LENS_HALF, LENS_HALF - 0.5 * fine, fine) + 0.5 * fine
    cell = (ray * (1 + alpha * np.exp(-(ray**2))) + GRID_HALF) / GRID_STEP
    size = round(2 * GRID_HALF / GRID_STEP)
    left = cell.astype(np.int64)
    right_part = cell - left
    bent = np.bincount(left, 1 - right_part, size) + np.bincount(left + 1, right_part, size)
    grid = np.arange(size, dtype=np.float64) * GRID_STEP - GRID_HALF
    edge = np.isclose(np.abs(grid), LENS_HALF)
    density = bent / RAYS_A_CELL + np.where(edge, 0.5, np.abs(grid) > LENS_HALF)
    # The source by its Fourier transform; the ends of the grid join, where there is no lens.
    source = np.exp(-2 * (np.pi * beta * np.fft.rfftfreq(size, GRID_STEP)) ** 2)
    return grid, np.fft.irfft(np.fft.rfft(density) * source, size)


@functools.lru_cache(maxsize=512)
def half_extent(alpha: float, beta: float) -> float:
    """Return the largest |u'| at which a lens changes the flux by 5 %; 0 if it nowhere does."""
    grid, gain = magnification(alpha, beta)
    changed = np.abs(gain - 1) >= CHANGE
    return float(np.abs(grid[changed]).max()) if changed.any() else 0.0


def lens_curve(mjd: Floats, alpha: float, beta: float, middle: float, duration: float) -> Floats:
    """Return magnification − 1 at times `mjd` of a lens that lasts `duration` days about `middle`."""
    grid, gain = magnification(alpha, beta)
    position = (mjd - middle) * (2 * half_extent(alpha, beta) / duration)
    return np.asarray(np.interp(position, grid, gain - 1, left=0.0, right=0.0))


def whole_lens_curve(
    mjd: Floats, alpha: float, beta: float, middle: float, duration: float
) -> Floats:
    """Return the same if the light curve holds the dip and what flanks it, else zeros: half a lens may be anything."""
    flank = SEEN * duration
    if middle - flank < mjd[0] or middle + flank > mjd[-1]:
        return np.zeros_like(mjd)
    return lens_curve(mjd, alpha, beta, middle, duration)


def flare_curve(mjd: Floats, rise: float, decay: float, power: float, peak: float) -> Floats:
    """Return a flare of unit size, exp(−|Δt/τ|^power) with τ days of rise before the peak and of decay after it.

    Power 1 is the exponential of a shock that cools, 2 a Gaussian, large ones a top hat.
    """
    x = mjd - peak
    return np.asarray(np.exp(-((np.abs(x) / np.where(x < 0, rise, decay)) ** power)))


def lenses(mjd: Floats) -> Bank:
    """Return the bank of lenses for a light curve of at least SHORTEST_SPAN_DAYS.

    Strengths, source sizes and durations, at positions a twelfth of the duration apart.
    """
    rows, points = [], []
    span = mjd[-1] - mjd[0]
    for duration in (days for days in DURATIONS_DAYS if 2 * SEEN * days <= span):
        middles = np.arange(
            mjd[0] + SEEN * duration, mjd[-1] - SEEN * duration + 1e-9, duration / STEPS
        )
        times = mjd[None, :] - middles[:, None]
        for alpha in ALPHAS:
            for beta in BETAS:
                rows.append(lens_curve(times, alpha, beta, 0.0, duration))
                points += [
                    (np.log(alpha), np.log(beta), middle, np.log(duration)) for middle in middles
                ]
    low = np.array([np.log(ALPHAS[0]), np.log(SMALLEST_BETA), mjd[0], np.log(DURATIONS_DAYS[0])])
    high = np.array([np.log(LARGEST_ALPHA), np.log(LARGEST_BETA), mjd[-1], np.log(LONGEST_DAYS)])
    where = np.array(points)
    return Bank(
        np.concatenate(rows),
        where,
        where[:, 0],
        np.array([0.25, 0.4, 1.5, 0.15]),
        low,
        high,
        (True, True, False, True),
    )


def flares(mjd: Floats) -> Bank:
    """Return the bank of flares for a light curve."""
    rows, points = [], []
    for rise, decay, power in itertools.product(RISES_DAYS, DECAYS_DAYS, POWERS):
        peaks = np.arange(mjd[0] - EDGE_DAYS, mjd[-1] + EDGE_DAYS, max(3.0, 0.5 * min(rise, decay)))
        rows.append(flare_curve(mjd[None, :] - peaks[:, None], rise, decay, power, 0.0))
        points += [(np.log(rise), np.log(decay), np.log(power), peak) for peak in peaks]
    ends = [np.log(SHORTEST_FLARE_DAYS), np.log(LONGEST_FLARE_DAYS)]
    low = np.array([ends[0], ends[0], np.log(SMALLEST_POWER), mjd[0] - EDGE_DAYS])
    high = np.array([ends[1], ends[1], np.log(LARGEST_POWER), mjd[-1] + EDGE_DAYS])
    where = np.array(points)
    steps = np.array([0.4, 0.4, 0.3, 1.5])
    return Bank(
        np.concatenate(rows), where, where[:, 1], steps, low, high, (True, True, True, False)
    )
