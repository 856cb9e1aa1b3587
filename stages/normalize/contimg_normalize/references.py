"""Which sources define the flux scale: bright, unresolved, stable, and spread over the field."""

from __future__ import annotations

import numpy as np

from contimg_normalize.epochs import Bools, Floats, Ints, LightCurves, arc_middle, wrap_angle
from contimg_normalize.scale import MIN_REFERENCES, normalise, scales_from_others

MIN_PRESENT_FRACTION = 0.8
"""Fraction of the epochs in which a reference was measured."""
MAX_COMPACTNESS_OFFSET = 0.1
"""From the field's median flux_fit / flux_peak; beyond it a source is extended or blended."""
MAX_EXCESS_SCATTER = 2.0
"""Of a reference over that of the median candidate, both in units of their errors."""
MIN_EPOCHS_FOR_SCATTER = 5
"""Fewer epochs do not show whether a source is stable."""
DEFAULT_SYSTEMATIC = 0.01
"""Fraction assumed if there are too few epochs to measure it; see docs/stages/normalize.md."""


def find_candidates(curves: LightCurves, min_snr: float) -> Bools:
    """Return which sources are bright, present, single and unresolved, shape (n,)."""
    present = np.isfinite(curves.flux).mean(axis=1) >= MIN_PRESENT_FRACTION
    good = present & (curves.snr >= min_snr) & (curves.blend == 1)
    if not good.any():
        return np.zeros(good.size, bool)
    offset = np.abs(curves.compactness - np.nanmedian(curves.compactness[good]))
    return np.asarray(good & ~(offset > MAX_COMPACTNESS_OFFSET))


def drop_variables(
    curves: LightCurves, candidates: Bools, error: Floats, *, gradient: bool = False
) -> Bools:
    """Return which candidates do not vary, shape (n,).

    Each is normalised by the others. While one scatters more than twice as much as the median one
    (in units of the errors), the worst is dropped.
    """
    left = candidates.copy()
    east, north = field_offsets(curves)
    if curves.epoch.size < MIN_EPOCHS_FOR_SCATTER:
        return left
    while left.sum() > MIN_REFERENCES:
        members = np.flatnonzero(left)
        flux = curves.flux[members]
        scale = scales_from_others(flux, east[members], north[members], gradient=gradient)
        excess = reduced_scatter(flux, error[members], scale)
        worst = int(np.argmax(excess))
        if excess[worst] <= MAX_EXCESS_SCATTER * max(1.0, float(np.median(excess))):
            break
        left[members[worst]] = False
    return left


def reduced_scatter(flux: Floats, error: Floats, scale: tuple[Floats, Floats]) -> Floats:
    """Return sqrt(χ²/(m − 1)) of light curves on a scale (factors and their errors), shape (n,)."""
    curve, sigma = normalise(flux, error, *scale)
    weight = np.where(np.isfinite(curve), sigma**-2.0, 0.0)
    curve = np.where(np.isfinite(curve), curve, 0.0)
    mean = (weight * curve).sum(axis=1) / weight.sum(axis=1)
    chi2 = (weight * (curve - mean[:, None]) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(chi2 / np.maximum((weight > 0).sum(axis=1) - 1, 1)))


def choose_spread(curves: LightCurves, candidates: Bools, count: int) -> Bools:
    """Choose at most `count` of the candidates, the brightest first, at a distance from each other.

    The distance begins with the field's radius and is halved until enough are chosen.
    """
    members = np.flatnonzero(candidates)
    chosen = np.zeros(candidates.size, bool)
    if members.size <= count:
        chosen[members] = True
        return chosen
    order = members[np.argsort(-curves.snr[members], kind="stable")]
    east, north = field_offsets(curves, members)
    distance = 0.5 * float(np.hypot(np.ptp(east[members]), np.ptp(north[members])))
    while chosen.sum() < count:
        for k in order:
            near = np.hypot(east[chosen] - east[k], north[chosen] - north[k])
            far = near.size == 0 or near.min() >= distance
            if not chosen[k] and chosen.sum() < count and far:
                chosen[k] = True
        distance /= 2
        if distance < 1e-6:  # noqa: PLR2004 - sources at one place
            distance = 0.0
    return chosen


def field_offsets(curves: LightCurves, about: Ints | slice = slice(None)) -> tuple[Floats, Floats]:
    """Return the sources' offsets east and north of the middle of some sources, degrees."""
    east = wrap_angle(curves.ra_deg - arc_middle(curves.ra_deg[about]))
    north = curves.dec_deg - float(np.median(curves.dec_deg[about]))
    return east * np.cos(np.radians(curves.dec_deg)), north


def measure_systematic(curves: LightCurves, reference: Bools, *, gradient: bool = False) -> float:
    """Return the fraction of the flux to add to the noise, so that the median χ²/(m − 1) is 1.

    It covers errors that grow with flux and differ between sources: calibration, deconvolution,
    pointing. 0 if the noise explains the scatter; `DEFAULT_SYSTEMATIC` with too few epochs.
    """
    if curves.epoch.size < MIN_EPOCHS_FOR_SCATTER:
        return DEFAULT_SYSTEMATIC
    flux, noise = curves.flux[reference], curves.noise[reference]
    east, north = (part[reference] for part in field_offsets(curves))
    scale = scales_from_others(flux, east, north, gradient=gradient)
    low, high, fraction = 0.0, 1.0, 0.0
    for _ in range(31):  # 0 itself, then 30 bisections
        scatter = reduced_scatter(flux, np.hypot(noise, fraction * flux), scale)
        if float(np.median(scatter)) > 1:
            low = fraction
        elif fraction == 0:
            return 0.0
        else:
            high = fraction
        fraction = 0.5 * (low + high)
    return high
