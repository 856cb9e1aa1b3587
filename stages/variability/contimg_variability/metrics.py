"""The one module of light-curve statistics: arrays in, numbers out.

Everywhere `flux` and `error` have shape (N,), one element per epoch, in one unit; `error` is
1 sigma.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIGNIFICANT_VS = 4.3
SIGNIFICANT_M = 0.26
"""Mooley et al. 2016, ApJ 818, 105: a pair of epochs is variable above both."""
MIN_DURATION_DAYS, MAX_DURATION_DAYS = 14.0, 180.0
MIN_AMPLITUDE, MAX_AMPLITUDE = 0.2, 2.0
"""Peak to trough, a fraction of the mean flux: a lens moves flux in time and keeps its mean."""
PART_WEIGHTS = (2, 4, 4)
"""Tenths, of symmetry, duration and amplitude: a score above 0.6 needs the last two."""
EXCURSION_SIGMA = 3.0
EXCURSION_FRACTION = 0.25
"""Epochs of the excursion differ from the median by 3 sigma and this much of the largest offset."""
ROUNDING = 1e-9
"""Relative to a limit, or absolute below 1: sums of a few numbers are right to this."""
PAIR_BLOCK = 256
"""Epochs that are compared with all others at once."""
MAX_QUIET_EPOCHS = 2
"""As many quiet epochs in a row do not end an excursion: the flux crosses the median from spike to
dip."""


def weighted_mean(flux: Floats, error: Floats) -> tuple[float, float]:
    """Return the mean with the weights 1/σ², and its error."""
    weight = error**-2.0
    return float(np.average(flux, weights=weight)), float(weight.sum() ** -0.5)


def eta(flux: Floats, error: Floats) -> float:
    """Return η, the reduced χ² of a light curve about its weighted mean; NaN for one epoch.

    1 for noise alone. Swinbank et al. 2015, A&C 11, 25: η = N/(N − 1) (⟨wF²⟩ − ⟨wF⟩²/⟨w⟩). The two
    forms are equal; this one is summed about the mean, because the difference of the two means
    cancels at high S/N.
    """
    if flux.size < 2:  # noqa: PLR2004 - a variance
        return float("nan")
    mean, _ = weighted_mean(flux, error)
    return float(np.sum(((flux - mean) / error) ** 2) / (flux.size - 1))


def p_constant(flux: Floats, error: Floats) -> float:
    """Return the probability that noise alone makes η as large or larger; NaN for one epoch."""
    from scipy.special import chdtrc

    n = flux.size - 1
    return float(chdtrc(n, eta(flux, error) * n)) if n > 0 else float("nan")


def modulation(flux: Floats) -> float:
    """Return V = s/⟨F⟩, the sample standard deviation over the plain mean; NaN for one epoch."""
    return float(np.std(flux, ddof=1) / np.mean(flux)) if flux.size > 1 else float("nan")


def exceeds(value: float, limit: float) -> bool:
    """Return whether a number is above a limit by more than rounding; False for NaN.

    0.2 + 0.4 is 0.6000000000000001, which does not exceed 0.6.
    """
    return bool(value - limit > ROUNDING * max(1.0, abs(limit)))


def compare_pairs(flux: Floats, error: Floats) -> tuple[float, float, int]:
    """Return |Vs| and |m| of the most different pair of epochs, and the number of different pairs.

    Vs = (F_i − F_j)/√(σ_i² + σ_j²), m = 2 (F_i − F_j)/(F_i + F_j); NaN for one epoch. A pair is
    different if |Vs| ≥ 4.3 and |m| > 0.26; m has no meaning where the sum is below its own error.
    """
    if flux.size < 2:  # noqa: PLR2004 - a pair
        return float("nan"), float("nan"), 0
    vs, high, low = most_different(flux, error)
    m = modulation_of_pairs(flux[[high]], error[[high]], flux[[low]], error[[low]])[0]
    pairs = 0
    if vs >= SIGNIFICANT_VS:  # else no pair is different
        order = np.argsort(flux, kind="stable")
        flux, error = flux[order], error[order]
        # A fainter epoch that is nearer than this is not different, whatever its error is.
        least = SIGNIFICANT_VS * np.hypot(error[1:], np.minimum.accumulate(error)[:-1])
        ends = np.searchsorted(flux, flux[1:] - least, side="right")
        for k in (np.flatnonzero(ends) + 1).tolist():
            one, others = slice(k, k + 1), slice(0, ends[k - 1])
            ratio = (flux[one] - flux[others]) / np.hypot(error[one], error[others])
            ms = modulation_of_pairs(flux[one], error[one], flux[others], error[others])
            pairs += int(np.count_nonzero((ratio >= SIGNIFICANT_VS) & (ms > SIGNIFICANT_M)))
    return vs, float(m), pairs


def modulation_of_pairs(one: Floats, error: Floats, other: Floats, other_error: Floats) -> Floats:
    """Return |m| of pairs of fluxes; NaN where the sum is below its error."""
    total = one + other
    known = total > np.hypot(error, other_error)
    return np.where(known, np.abs(2 * (one - other)) / np.where(known, total, 1.0), np.nan)


def most_different(flux: Floats, error: Floats) -> tuple[float, int, int]:
    """Return the largest |Vs| of all pairs of N > 1 epochs, and its brighter and fainter epoch.

    O(N log N) in time for fluxes with errors that depend on little else: only epochs that no other
    epoch beats in both flux and error can belong to the pair.
    """
    order = np.lexsort((flux, error))
    best_high = np.maximum.accumulate(flux[order])
    best_low = np.minimum.accumulate(flux[order])
    first = np.ones(order.size, bool)
    high = order[np.append(first[:1], best_high[1:] > best_high[:-1])]
    low = order[np.append(first[:1], best_low[1:] < best_low[:-1])]
    best = (0.0, int(high[-1]), int(low[-1]))
    for start in range(0, high.size, PAIR_BLOCK):
        part = high[start : start + PAIR_BLOCK]
        vs = (flux[part, None] - flux[low]) / np.hypot(error[part, None], error[low])
        i, j = np.unravel_index(int(np.argmax(vs)), vs.shape)
        if vs[i, j] > best[0]:
            best = (float(vs[i, j]), int(part[i]), int(low[j]))
    return best


def leave_one_out(flux: Floats) -> Floats:
    """Return each epoch's distance from the mean of the others, in standard deviations, shape (N,).

    The externally studentised residual t_k = (F_k − ⟨F⟩₋ₖ)/(s₋ₖ √(N/(N − 1))). It has no upper
    limit, whereas max|F − ⟨F⟩|/s is at most (N − 1)/√N, below 5 for fewer than 27 epochs. NaN below
    4 epochs; infinite if the others are all equal.
    """
    n = flux.size
    if n < 4:  # noqa: PLR2004 - a standard deviation of three
        return np.full(n, np.nan)
    centred = flux - flux.mean()
    others = -centred / (n - 1)
    variance = (np.sum(centred**2) - centred**2 - (n - 1) * others**2) / (n - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (centred - others) / np.sqrt(np.maximum(variance, 0.0) * n / (n - 1))
    return np.where(centred == others, 0.0, found)


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
    """Return the mission's ESE score: for one excursion of the right duration and amplitude.

    A high score makes a light curve worth a closer look, but does not make it an ESE: a flare of
    the right length scores as high. `mjd` is ascending.

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
        exceeds(tau, MIN_DURATION_DAYS) and exceeds(MAX_DURATION_DAYS, tau),
        exceeds(amplitude, MIN_AMPLITUDE) and exceeds(MAX_AMPLITUDE, amplitude) and significant,
    )
    # Tenths, rounded, so that 0.2 + 0.4 is the number 0.6.
    total = round(float(np.dot(PART_WEIGHTS, parts)) / 10, 9)
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
