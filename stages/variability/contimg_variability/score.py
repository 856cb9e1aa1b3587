"""The mission's ESE score: whether there is one excursion of the right duration, size and shape.

It says that a light curve is worth a closer look, not that it is an ESE: a flare of the right length has a high score too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contimg_variability.metrics import SIGNIFICANT_VS

Floats = NDArray[np.float64]

SHORTEST_DAYS, LONGEST_DAYS = 14.0, 180.0
SMALLEST, LARGEST = 0.2, 2.0
"""Limits of the peak-to-trough amplitude, a fraction of the mean flux: a lens moves flux in time and keeps its mean."""
WEIGHTS = (0.2, 0.4, 0.4)
"""Of symmetry, duration and amplitude: above 0.6 both duration and amplitude must be right, whatever the shape."""
EXCURSION_SIGMA = 3.0
EXCURSION_PART = 0.25
"""Epochs belong to the excursion if they differ from the median by 3 sigma and by this part of the largest difference."""
QUIET_EPOCHS = 2
"""As many quiet epochs in a row do not end an excursion: between spike and dip a light curve crosses its median."""


@dataclass(frozen=True)
class Score:
    """The parts of the mission's score."""

    total: float
    asymmetry: float
    """|rise − fall| / (rise + fall), 0 for a symmetric excursion; NaN if there is no excursion."""
    tau_days: float
    """Duration of the largest excursion."""
    amplitude: float
    """(Largest − smallest flux) / mean flux."""


def mission_score(mjd: Floats, flux: Floats, error: Floats) -> Score:
    """Return the mission's score of a light curve.

    Parameters
    ----------
    mjd
        Ascending, shape (N,).

    Notes
    -----
    score = 0.2 (1 − asymmetry) + 0.4 [14 d < τ < 180 d] + 0.4 [0.2 < amplitude < 2.0, and the extremes differ by |Vs| ≥ 4.3].
    The mission asks for "asymmetry of rise and fall"; a lens is symmetric where an intrinsic flare rises faster than it falls, so
    symmetry adds. It cannot decide: real lenses are lopsided.
    """
    median = float(np.median(flux))
    high, low = int(np.argmax(flux)), int(np.argmin(flux))
    mean = float(np.mean(flux))
    amplitude = float((flux[high] - flux[low]) / mean) if mean > 0 else float("nan")
    significant = flux[high] - flux[low] >= SIGNIFICANT_VS * float(
        np.hypot(error[high], error[low])
    )
    first, last = excursion(flux - median, error)
    if first > last:
        return Score(0.0, float("nan"), float("nan"), amplitude)
    # Its ends lie between the last epoch inside and the first outside: half a sampling interval each on average.
    half_step = 0.5 * float(np.median(np.diff(mjd)))
    top = first + int(np.argmax(np.abs(flux - median)[first : last + 1]))
    rise, fall = mjd[top] - mjd[first] + half_step, mjd[last] - mjd[top] + half_step
    asymmetry, tau = float(abs(rise - fall) / (rise + fall)), float(rise + fall)
    parts = (
        1 - asymmetry,
        SHORTEST_DAYS < tau < LONGEST_DAYS,
        SMALLEST < amplitude < LARGEST and significant,
    )
    return Score(float(np.dot(WEIGHTS, parts)), asymmetry, tau, amplitude)


def excursion(deviation: Floats, error: Floats) -> tuple[int, int]:
    """Return the first and last epoch of the excursion that holds the largest deviation; (1, 0) if there is none."""
    size = np.abs(deviation)
    outside = (size > EXCURSION_SIGMA * error) & (size >= EXCURSION_PART * size.max())
    top = int(np.argmax(np.where(outside, size, -1.0)))
    if not outside[top]:
        return 1, 0
    members = np.flatnonzero(outside)
    parts = np.split(members, np.flatnonzero(np.diff(members) > QUIET_EPOCHS + 1) + 1)
    part = next(part for part in parts if top in part)
    return int(part[0]), int(part[-1])
