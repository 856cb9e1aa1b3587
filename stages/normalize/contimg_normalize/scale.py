"""The flux scale of an epoch, and the reference sources that define it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_normalize.epochs import Bools, Floats, Ints, LightCurves, arc_middle, wrap_angle

BASELINE_EPOCHS = 10
CLIP_SIGMA = 3.0
MEDIAN_LOSS = 1.2533
"""sqrt(π/2): error of a median over that of a mean, for Gaussian errors."""
MIN_REFERENCES = 3
"""References that an epoch needs."""
MIN_REFERENCES_FOR_MAD = 8
MIN_REFERENCES_FOR_GRADIENT = 8
"""References that a plane needs: it has three parameters, and the others show how well it fits."""
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

Factors = tuple[Floats, Floats]
"""Factors of the flux scale and their 1 sigma errors."""


@dataclass(frozen=True, kw_only=True)
class EpochScale:
    """The flux scale of one epoch: a plane over the field, flat unless a gradient was fitted."""

    plane: Floats
    """Shape (3,): the factor at the middle of the field and its change per degree east and north.
    NaN with too few references."""
    covariance: Floats
    """Shape (3, 3)."""
    used: Bools
    """Shape (n,): references left after the clip."""
    scatter: float
    """Of the ratios about the plane, 1.4826 MAD."""

    def at(self, offsets_deg: Floats) -> Factors:
        """Return the factor and its 1 sigma error at offsets, (2, …), from the field's middle."""
        basis = np.stack([np.ones_like(offsets_deg[0]), *offsets_deg])
        variance = np.einsum("i...,ij,j...->...", basis, self.covariance, basis)
        return np.asarray(np.tensordot(self.plane, basis, 1)), np.sqrt(np.maximum(variance, 0.0))


def measure_baselines(flux: Floats) -> tuple[Floats, Floats]:
    """Return the median of each source's first ten finite epochs, and 1.4826 × their MAD."""
    found = np.full((len(flux), 2), np.nan)
    for i, row in enumerate(flux):
        if np.isfinite(row).any():
            found[i] = median_and_spread(row[np.isfinite(row)][:BASELINE_EPOCHS])
    return found[:, 0], found[:, 1]


def solve_epoch(ratio: Floats, offsets_deg: Floats, *, gradient: bool) -> EpochScale:
    """Return the scale of one epoch from the ratios R = F / baseline of n references, or NaN.

    Ratios are clipped once at 3 × 1.4826 MAD, which leaves more than half of them; repeated clips
    can remove nearly all of a handful of references. The factor is the median, its error
    sqrt(π/2) s/√n, where s is 1.4826 MAD of the ratios that are left, or their standard deviation
    if there are fewer than 8. With `gradient`, 8 references or more are fitted by a plane over
    their offsets, shape (2, n), east and north of the field's middle.
    """
    used, cov = np.isfinite(ratio), np.full((3, 3), np.nan)
    if used.sum() < MIN_REFERENCES:
        return EpochScale(plane=np.full(3, np.nan), covariance=cov, used=used, scatter=np.nan)
    middle, spread = median_and_spread(ratio[used])
    if spread > 0:
        used &= np.abs(ratio - middle) <= CLIP_SIGMA * spread
    left = ratio[used]
    if gradient and left.size >= MIN_REFERENCES_FOR_GRADIENT:
        basis = np.stack([np.ones(left.size), *offsets_deg[:, used]], axis=1)
        fitted, *_ = np.linalg.lstsq(basis, left, rcond=None)
        rest = left - basis @ fitted
        variance = float(rest @ rest) / (rest.size - basis.shape[1])
        plane, cov = np.asarray(fitted), np.asarray(variance * np.linalg.inv(basis.T @ basis))
        _, spread = median_and_spread(rest)
    else:
        middle, spread = median_and_spread(left)
        # The MAD follows the references with small errors, but is a poor estimate from a few.
        few = left.size < MIN_REFERENCES_FOR_MAD
        width = float(np.std(left, ddof=1)) if few else spread
        error = MEDIAN_LOSS * width / np.sqrt(left.size)
        plane, cov = np.array([middle, 0.0, 0.0]), np.diag([error**2, 0.0, 0.0])
    return EpochScale(plane=plane, covariance=cov, used=used, scatter=spread)


def scales_from_others(flux: Floats, offsets_deg: Floats, *, gradient: bool) -> Factors:
    """Return the factor that each reference gets from all others, and its error, shape (n, m)."""
    ratio = flux / measure_baselines(flux)[0][:, None]
    factor, factor_error = np.empty_like(flux), np.empty_like(flux)
    for k, e in np.ndindex(flux.shape):
        others = np.where(np.arange(len(flux)) == k, np.nan, ratio[:, e])
        scale = solve_epoch(others, offsets_deg, gradient=gradient)
        factor[k, e], factor_error[k, e] = scale.at(offsets_deg[:, k])
    return factor, factor_error


def normalise(flux: Floats, error: Floats, factors: Factors) -> tuple[Floats, Floats]:
    """Return F/C and its error, σ² = (σ_raw/C)² + (F_raw σ_C/C²)², from C and σ_C."""
    factor, factor_error = factors
    return flux / factor, np.hypot(error / factor, flux * factor_error / factor**2)


def median_and_spread(values: Floats) -> tuple[float, float]:
    """Return the median and 1.4826 × the median absolute deviation."""
    middle = float(np.median(values))
    return middle, MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))


def find_candidates(curves: LightCurves, min_snr: float) -> Bools:
    """Return which sources are bright, present, single and unresolved, shape (n,)."""
    present = np.isfinite(curves.flux).mean(axis=1) >= MIN_PRESENT_FRACTION
    good = present & (curves.snr >= min_snr) & (curves.blend == 1)
    if not good.any():
        return np.zeros(good.size, bool)
    offset = np.abs(curves.compactness - np.nanmedian(curves.compactness[good]))
    return np.asarray(good & ~(offset > MAX_COMPACTNESS_OFFSET))


def drop_variables(curves: LightCurves, left: Bools, error: Floats, *, gradient: bool) -> Bools:
    """Return which of the candidates that are left do not vary, shape (n,).

    Each is normalised by the others. While one scatters more than twice as much as the median one
    (in units of the errors), the worst is dropped.
    """
    left, offsets = left.copy(), field_offsets(curves)
    while curves.epoch.size >= MIN_EPOCHS_FOR_SCATTER and left.sum() > MIN_REFERENCES:
        members = np.flatnonzero(left)
        flux = curves.flux[members]
        factors = scales_from_others(flux, offsets[:, members], gradient=gradient)
        excess = reduced_scatter(flux, error[members], factors)
        worst = int(np.argmax(excess))
        if excess[worst] <= MAX_EXCESS_SCATTER * max(1.0, float(np.median(excess))):
            break
        left[members[worst]] = False
    return left


def reduced_scatter(flux: Floats, error: Floats, factors: Factors) -> Floats:
    """Return sqrt(χ²/(m − 1)) of normalised light curves, shape (n,)."""
    curve, sigma = normalise(flux, error, factors)
    weight = np.where(np.isfinite(curve), sigma**-2.0, 0.0)
    curve = np.where(np.isfinite(curve), curve, 0.0)
    mean = (weight * curve).sum(axis=1) / weight.sum(axis=1)
    chi2 = (weight * (curve - mean[:, None]) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(chi2 / np.maximum((weight > 0).sum(axis=1) - 1, 1)))


def choose_spread(curves: LightCurves, candidates: Bools, count: int) -> Bools:
    """Choose at most `count` of the candidates, the brightest first, at a distance from each other.

    The distance begins with the field's radius and is halved until enough are chosen.
    """
    members, chosen = np.flatnonzero(candidates), np.zeros(candidates.size, bool)
    if members.size <= count:
        return candidates.copy()
    order = members[np.argsort(-curves.snr[members], kind="stable")]
    east, north = field_offsets(curves, members)
    distance = 0.5 * float(np.hypot(np.ptp(east[members]), np.ptp(north[members])))
    while chosen.sum() < count:
        for k in order[~chosen[order]]:
            near = np.hypot(east[chosen] - east[k], north[chosen] - north[k])
            chosen[k] = chosen.sum() < count and near.min(initial=np.inf) >= distance
        distance = distance / 2 if distance > 2e-6 else 0.0  # noqa: PLR2004 - sources at one place
    return chosen


def field_offsets(curves: LightCurves, about: Ints | slice = slice(None)) -> Floats:
    """Return the sources' offsets east and north of the middle of some, degrees, shape (2, n)."""
    east = wrap_angle(curves.ra_deg - arc_middle(curves.ra_deg[about]))
    north = curves.dec_deg - float(np.median(curves.dec_deg[about]))
    return np.stack([east * np.cos(np.radians(curves.dec_deg)), north])


def measure_systematic(curves: LightCurves, reference: Bools, *, gradient: bool) -> float:
    """Return the fraction of the flux to add to the noise, so that the median χ²/(m − 1) is 1.

    It covers errors that grow with flux and differ between sources: calibration, deconvolution,
    pointing. 0 if the noise explains the scatter; `DEFAULT_SYSTEMATIC` with too few epochs.
    """
    if curves.epoch.size < MIN_EPOCHS_FOR_SCATTER:
        return DEFAULT_SYSTEMATIC
    flux, noise = curves.flux[reference], curves.noise[reference]
    factors = scales_from_others(flux, field_offsets(curves)[:, reference], gradient=gradient)
    low, high, fraction = 0.0, 1.0, 0.0
    for _ in range(31):  # 0 itself, then 30 bisections
        scatter = reduced_scatter(flux, np.hypot(noise, fraction * flux), factors)
        if float(np.median(scatter)) > 1:
            low = fraction
        else:
            high = fraction
        fraction = 0.5 * (low + high)
    return high
