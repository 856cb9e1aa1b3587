"""Shapes of light curves: plasma lenses and flares. Each is a change of unit size about zero.

A lens is a Gaussian cloud of electrons in front of the source (Clegg, Fey & Lazio 1998, ApJ 496,
253; one-dimensional). A ray that crosses it at u (in cloud radii a) arrives at
u' = u (1 + α exp(−u²)), so the flux at u' is the density of rays there, smeared by the source.
α = 3.6 (λ/1 cm)² (N₀/1 cm⁻³ pc) (D/1 kpc) (a/1 au)⁻², hence α ∝ ν⁻².
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contimg_variability.metrics import Floats

Bools = NDArray[np.bool_]

LENS_ALPHAS = (0.5, 0.9, 1.6, 2.8, 5.0, 9.0)
LENS_BETAS = (0.15, 0.4, 1.0)
MAX_ALPHA, MIN_BETA, MAX_BETA = 20.0, 0.1, 1.5
LENS_DAYS = (14.0, 20.0, 28.0, 40.0, 56.0, 80.0, 113.0, 160.0)
MAX_LENS_DAYS = 180.0
POSITIONS_PER_LENS = 12
"""Lens positions in the time that a lens lasts."""
FLANK_FRACTION = 0.35
"""Of the duration; a light curve must reach so far to both sides, where the spikes are over."""
MIN_SPAN_DAYS = 2 * FLANK_FRACTION * LENS_DAYS[0]
"""A shorter light curve holds no whole lens."""
MIN_CHANGE = 0.05
"""A lens lasts as long as it changes the flux by this fraction."""
GRID_STEP, GRID_HALF, RAYS_PER_CELL = 0.02, 16.0, 12
LENS_HALF = 6.0
"""Beyond this many lens radii a ray goes straight: exp(−36) of the cloud is left."""
FLARE_RISE_DAYS = (2.0, 8.0, 20.0, 50.0)
FLARE_DECAY_DAYS = (5.0, 12.0, 30.0, 80.0, 200.0)
FLARE_POWERS = (1.0, 2.0)
MIN_POWER, MAX_POWER = 0.7, 6.0
MIN_FLARE_DAYS, MAX_FLARE_DAYS = 0.5, 400.0
FLARE_EDGE_DAYS = 60.0
"""Flares may peak this long before the first epoch or after the last; then their wings are seen."""


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Templates sampled at the epochs of a light curve, and the space that a search moves in."""

    mjd: Floats
    """Epochs, shape (N,)."""
    curve: Callable[..., Floats]
    """Template at the epochs of the first argument, from the parameters that follow."""
    allowed: Callable[[Floats, Floats, Floats], Bools] = lambda _shapes, _a, b: b > 0
    """Which fits are allowed, shape (Q, M), from shapes (M, N), a and b, both (Q, M)."""
    shape: Floats
    """Shape (M, N)."""
    points: Floats
    """Shape (M, K): logarithms of the positive parameters, and times in days."""
    kind: Floats
    """Shape (M,): a lens's strength or a flare's decay; a search starts from several kinds."""
    steps: Floats
    """Shape (K,): first steps of a search."""
    limits: Floats
    """Shape (2, K): of the search."""
    logarithms: tuple[bool, ...]
    """Which of the K are logarithms."""

    def parameters_at(self, point: Floats) -> tuple[float, ...]:
        """Return the parameters at a point, kept within the limits."""
        inside = zip(np.clip(point, *self.limits), self.logarithms, strict=True)
        return tuple(float(np.exp(x) if log else x) for x, log in inside)


@functools.lru_cache(maxsize=512)
def magnification(alpha: float, beta: float) -> tuple[Floats, Floats, float]:
    """Return positions u', a lens's magnification there, and the largest |u'| with 5 % change.

    The source is a Gaussian of `beta` lens radii (1 sigma). Rays are shot on a grid and counted,
    each shared between its two neighbours, so that flux is conserved.
    """
    fine = GRID_STEP / RAYS_PER_CELL
    ray = np.arange(-LENS_HALF, LENS_HALF - 0.5 * fine, fine) + 0.5 * fine
    cell = (ray * (1 + alpha * np.exp(-(ray**2))) + GRID_HALF) / GRID_STEP
    size = round(2 * GRID_HALF / GRID_STEP)
    left = cell.astype(np.int64)
    right_part = cell - left
    bent = np.bincount(left, 1 - right_part, size) + np.bincount(left + 1, right_part, size)
    grid = np.arange(size, dtype=np.float64) * GRID_STEP - GRID_HALF
    edge = np.isclose(np.abs(grid), LENS_HALF)
    density = bent / RAYS_PER_CELL + np.where(edge, 0.5, np.abs(grid) > LENS_HALF)
    # The source by its Fourier transform; the ends of the grid join, where there is no lens.
    source = np.exp(-2 * (np.pi * beta * np.fft.rfftfreq(size, GRID_STEP)) ** 2)
    gain = np.fft.irfft(np.fft.rfft(density) * source, size)
    changed = np.abs(grid[np.abs(gain - 1) >= MIN_CHANGE])
    return grid, gain, float(changed.max(initial=0.0))


def lens_curve(mjd: Floats, alpha: float, beta: float, middle: float, duration: float) -> Floats:
    """Return magnification − 1, at times `mjd`, of a lens of `duration` days about `middle`."""
    grid, gain, half_extent = magnification(alpha, beta)
    position = (mjd - middle) * (2 * half_extent / duration)
    return np.asarray(np.interp(position, grid, gain - 1, left=0.0, right=0.0))


def whole_lens_curve(mjd: Floats, alpha: float, beta: float, middle: float, days: float) -> Floats:
    """Return the same if the light curve holds dip and flanks, else zeros: half may be anything."""
    flank = FLANK_FRACTION * days
    if middle - flank < mjd[0] or middle + flank > mjd[-1]:
        return np.zeros_like(mjd)
    return lens_curve(mjd, alpha, beta, middle, days)


def flare_curve(mjd: Floats, rise: float, decay: float, power: float, peak: float) -> Floats:
    """Return a flare of unit size, exp(−|Δt/τ|^power), τ = `rise` or `decay` days about `peak`.

    Power 1 is the exponential of a shock that cools, 2 a Gaussian, large ones a top hat.
    """
    x = mjd - peak
    return np.asarray(np.exp(-((np.abs(x) / np.where(x < 0, rise, decay)) ** power)))


def lens_bank(mjd: Floats) -> Bank:
    """Return the bank of lenses for a light curve of at least MIN_SPAN_DAYS.

    Strengths, source sizes and durations, at positions a twelfth of the duration apart.
    """
    rows, points = [], []
    for duration in LENS_DAYS:
        flank = FLANK_FRACTION * duration
        if 2 * flank > mjd[-1] - mjd[0]:
            continue
        step = duration / POSITIONS_PER_LENS
        middles = np.arange(mjd[0] + flank, mjd[-1] - flank + 1e-9, step)
        times = mjd[None, :] - middles[:, None]
        for alpha, beta in itertools.product(LENS_ALPHAS, LENS_BETAS):
            rows.append(lens_curve(times, alpha, beta, 0.0, duration))
            points += [(np.log(alpha), np.log(beta), mid, np.log(duration)) for mid in middles]
    low = (np.log(LENS_ALPHAS[0]), np.log(MIN_BETA), mjd[0], np.log(LENS_DAYS[0]))
    high = (np.log(MAX_ALPHA), np.log(MAX_BETA), mjd[-1], np.log(MAX_LENS_DAYS))
    return Bank(
        mjd=mjd,
        curve=whole_lens_curve,
        shape=np.concatenate(rows),
        points=np.array(points),
        kind=np.array(points)[:, 0],
        steps=np.array([0.25, 0.4, 1.5, 0.15]),
        limits=np.array([low, high]),
        logarithms=(True, True, False, True),
    )


def flare_bank(mjd: Floats) -> Bank:
    """Return the bank of flares for a light curve."""
    rows, points = [], []
    first, last = mjd[0] - FLARE_EDGE_DAYS, mjd[-1] + FLARE_EDGE_DAYS
    for rise, decay, power in itertools.product(FLARE_RISE_DAYS, FLARE_DECAY_DAYS, FLARE_POWERS):
        peaks = np.arange(first, last, max(3.0, 0.5 * min(rise, decay)))
        rows.append(flare_curve(mjd[None, :] - peaks[:, None], rise, decay, power, 0.0))
        points += [(np.log(rise), np.log(decay), np.log(power), peak) for peak in peaks]
    shortest, longest = np.log(MIN_FLARE_DAYS), np.log(MAX_FLARE_DAYS)
    low = (shortest, shortest, np.log(MIN_POWER), first)
    high = (longest, longest, np.log(MAX_POWER), last)
    return Bank(
        mjd=mjd,
        curve=flare_curve,
        shape=np.concatenate(rows),
        points=np.array(points),
        kind=np.array(points)[:, 1],
        steps=np.array([0.4, 0.4, 0.3, 1.5]),
        limits=np.array([low, high]),
        logarithms=(True, True, True, False),
    )
