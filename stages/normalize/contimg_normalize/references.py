"""Which sources hold the flux scale: bright, unresolved, stable, and spread over the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contimg_normalize.scale import FEWEST, baselines, leave_one_out, normalised

if TYPE_CHECKING:
    from contimg_normalize.epochs import LightCurves

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PRESENT = 0.8
"""Part of the epochs in which a reference was measured."""
WORST_COMPACTNESS = 0.1
"""Difference of flux_fit / flux_peak from the field's median: beyond it the source is extended, or blended with one unknown."""
UNSTABLE = 2.0
"""A reference scatters at most this many times as much as the candidates' median, in units of its errors."""
ROUNDS = 5
EPOCHS_TO_JUDGE = 5
"""Fewer epochs say nothing about stability."""


def candidates(curves: LightCurves, min_snr: float) -> Bools:
    """Return which sources are bright, present, single and unresolved, shape (n,)."""
    present = np.isfinite(curves.flux).mean(axis=1) >= PRESENT
    good = present & (curves.snr >= min_snr) & (curves.blend == 1)
    if not good.any():
        return np.zeros(good.size, bool)
    middle = np.nanmedian(curves.compactness[good])
    return np.asarray(good & ~(np.abs(curves.compactness - middle) > WORST_COMPACTNESS))


def stable(curves: LightCurves, among: Bools, error: Floats, *, gradient: bool = False) -> Bools:
    """Drop candidates that vary, and say which are left, shape (n,).

    Each is normalised by the others; one that scatters twice as much as the median candidate (in units of the errors) goes, the
    worst first, until none does.
    """
    left = among.copy()
    east, north = offsets(curves)
    if curves.epoch.size < EPOCHS_TO_JUDGE:
        return left
    for _ in range(int(among.sum())):
        members = np.flatnonzero(left)
        if members.size <= FEWEST:
            break
        plane = (east[members], north[members]) if gradient else None
        scale = scale_of_others(curves.flux[members], plane)
        excess = reduced_scatter(curves.flux[members], error[members], scale)
        worst = int(np.argmax(excess))
        if excess[worst] <= UNSTABLE * max(1.0, float(np.median(excess))):
            break
        left[members[worst]] = False
    return left


def reduced_scatter(flux: Floats, error: Floats, scale: tuple[Floats, Floats]) -> Floats:
    """Return sqrt(χ²/(m − 1)) of each source's light curve on a scale (factors and their errors), shape (n,)."""
    curve, sigma = normalised(flux, error, *scale)
    weight = np.where(np.isfinite(curve), sigma**-2.0, 0.0)
    safe = np.where(np.isfinite(curve), curve, 0.0)
    mean = (weight * safe).sum(axis=1) / weight.sum(axis=1)
    chi2 = (weight * (safe - mean[:, None]) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(chi2 / np.maximum((weight > 0).sum(axis=1) - 1, 1)))


def scale_of_others(
    flux: Floats, plane: tuple[Floats, Floats] | None = None
) -> tuple[Floats, Floats]:
    """Return the factor that each source gets from all the others in each epoch, and its error; shape (n, m).

    Parameters
    ----------
    plane
        Offsets east and north, degrees, if a gradient is to be fitted.
    """
    base, _ = baselines(flux)
    ratio = flux / base[:, None]
    east, north = plane if plane is not None else (np.zeros(len(flux)), np.zeros(len(flux)))
    factor, factor_error = np.empty_like(flux), np.empty_like(flux)
    for e in range(flux.shape[1]):
        for k, scale in enumerate(
            leave_one_out(ratio[:, e], east, north, gradient=plane is not None)
        ):
            factor[k, e], factor_error[k, e] = scale.at(east[k], north[k])
    return factor, factor_error


def spread_out(curves: LightCurves, among: Bools, most: int) -> Bools:
    """Choose at most `most` of the candidates: the brightest first, but none near one that was chosen while others are left far off.

    The distance that must be kept begins with the field's radius and is halved until enough are chosen.
    """
    members = np.flatnonzero(among)
    chosen = np.zeros(among.size, bool)
    if members.size <= most:
        chosen[members] = True
        return chosen
    order = members[np.argsort(-curves.snr[members], kind="stable")]
    east, north = offsets(curves, members)
    distance = 0.5 * float(np.hypot(np.ptp(east[members]), np.ptp(north[members])))
    while chosen.sum() < most:
        for k in order:
            near = np.hypot(east[chosen] - east[k], north[chosen] - north[k])
            if not chosen[k] and chosen.sum() < most and (near.size == 0 or near.min() >= distance):
                chosen[k] = True
        distance /= 2
        if distance < 1e-6:  # noqa: PLR2004 - sources at one place
            distance = 0.0
    return chosen


def offsets(curves: LightCurves, about: NDArray[np.int64] | None = None) -> tuple[Floats, Floats]:
    """Return the sources' offsets east and north of the middle of the field (or of some of its sources), degrees, shape (n,)."""
    from contimg_normalize.epochs import middle_of, wrapped

    part = slice(None) if about is None else about
    middle = middle_of(curves.ra_deg[part])
    north = curves.dec_deg - float(np.median(curves.dec_deg[part]))
    return wrapped(curves.ra_deg - middle) * np.cos(np.radians(curves.dec_deg)), north


def systematic_fraction(
    flux: Floats, noise: Floats, plane: tuple[Floats, Floats] | None = None
) -> float:
    """Return the fraction of the flux that must be added to the noise for the references' median χ²/(m − 1) to be 1; 0 if none.

    It holds what grows with flux and differs from source to source: calibration, deconvolution, pointing.
    """
    scale = scale_of_others(flux, plane)

    def excess(fraction: float) -> float:
        return (
            float(np.median(reduced_scatter(flux, np.hypot(noise, fraction * flux), scale))) - 1.0
        )

    low, high = 0.0, 1.0
    if excess(low) <= 0:
        return 0.0
    for _ in range(30):
        half = 0.5 * (low + high)
        low, high = (half, high) if excess(half) > 0 else (low, half)
    return high
