"""The mission's ESE score: whether there is one excursion of the right duration, size and shape.

A high score makes a light curve worth a closer look, but does not make it an ESE: a flare of the
right length scores as high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg_variability.metrics import SIGNIFICANT_VS, Floats

MIN_DURATION_DAYS, MAX_DURATION_DAYS = 14.0, 180.0
MIN_AMPLITUDE, MAX_AMPLITUDE = 0.2, 2.0
"""Peak to trough, a fraction of the mean flux: a lens moves flux in time and keeps its mean."""
PART_WEIGHTS = (0.2, 0.4, 0.4)
"""Of symmetry, duration and amplitude: a score above 0.6 needs both duration and amplitude."""
EXCURSION_SIGMA = 3.0
EXCURSION_FRACTION = 0.25
"""Epochs of the excursion differ from the median by 3 sigma and this much of the largest offset."""
MAX_QUIET_EPOCHS = 2
"""As many quiet epochs in a row do not end an excursion: the flux crosses the median from spike to
dip."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The parts of the mission's score."""

    total: float
    asymmetry: float
    """|rise − fall| / (rise + fall), 0 for a symmetric excursion; NaN without an excursion."""
    tau_days: float
    """Duration of the largest excursion."""
    amplitude: float
    """(Largest − smallest flux) / mean flux."""


def mission_score(mjd: Floats, flux: Floats, error: Floats) -> Score:
    """Return the mission's score of a light curve; all shape (N,), `mjd` ascending.

    Notes
    -----
    score = 0.2 (1 − asymmetry) + 0.4 [14 d < τ < 180 d] + 0.4 [0.2 < amplitude < 2.0, and the
    extremes differ by |Vs| ≥ 4.3]. The mission asks for "asymmetry of rise and fall". A lens is
    symmetric where an intrinsic flare rises faster than it falls, so symmetry adds to the score. It
    is not decisive: real lenses are lopsided.
    """
    offset = flux - float(np.median(flux))
    high, low = int(np.argmax(flux)), int(np.argmin(flux))
    mean, range_ = float(np.mean(flux)), flux[high] - flux[low]
    amplitude = float(range_ / mean) if mean > 0 else float("nan")
    significant = range_ >= SIGNIFICANT_VS * float(np.hypot(error[high], error[low]))
    first, last = find_excursion(offset, error)
    if first > last:
        nan = float("nan")
        return Score(total=0.0, asymmetry=nan, tau_days=nan, amplitude=amplitude)
    # It ends between its last epoch and the next: half a sampling interval later on average.
    half_step = 0.5 * float(np.median(np.diff(mjd)))
    top = first + int(np.argmax(np.abs(offset)[first : last + 1]))
    rise, fall = mjd[top] - mjd[first] + half_step, mjd[last] - mjd[top] + half_step
    asymmetry, tau = float(abs(rise - fall) / (rise + fall)), float(rise + fall)
    parts = (
        1 - asymmetry,
        MIN_DURATION_DAYS < tau < MAX_DURATION_DAYS,
        MIN_AMPLITUDE < amplitude < MAX_AMPLITUDE and significant,
    )
    total = float(np.dot(PART_WEIGHTS, parts))
    return Score(total=total, asymmetry=asymmetry, tau_days=tau, amplitude=amplitude)


def find_excursion(deviation: Floats, error: Floats) -> tuple[int, int]:
    """Return the first and last epoch of the largest excursion; (1, 0) if there is none."""
    size = np.abs(deviation)
    outside = (size > EXCURSION_SIGMA * error) & (size >= EXCURSION_FRACTION * size.max())
    top = int(np.argmax(np.where(outside, size, -1.0)))
    if not outside[top]:
        return 1, 0
    members = np.flatnonzero(outside)
    parts = np.split(members, np.flatnonzero(np.diff(members) > MAX_QUIET_EPOCHS + 1) + 1)
    part = next(part for part in parts if top in part)
    return int(part[0]), int(part[-1])
