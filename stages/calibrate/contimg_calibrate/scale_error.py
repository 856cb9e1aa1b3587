"""Expected error of the flux scale of each way to calibrate a group, before any data are read.

All errors are 1 sigma and relative. They decide what a group is calibrated on, and are stated with
the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contimg.astro import beam_fit
from contimg.astro.catalogues import CalibratorInBeam
from contimg.astro.gains import FloatArray
from contimg.astro.primary_beam import PrimaryBeam
from contimg.astro.telescope import band_hz
from contimg.records.calibration import FluxAnchor, ScaleBudget
from contimg_calibrate.sky_models import find_field_sources

if TYPE_CHECKING:
    from contimg_calibrate.selection import SetRow, Target

STANDARD_ERROR = 0.01
"""Of a flux standard at 1.4 GHz: 0.5 to 1 % (Perley & Butler 2017, ApJS 230, 7)."""
CATALOGUE_ERROR = 0.1
"""Of a flux of the VLA's list of calibrators, from its interpolation and the list's scale."""
VARIABLE_ERROR, FLAT_INDEX = 0.2, -0.5
"""Variability in the decades since that list, of sources with a spectrum not steeper than this."""
NVSS_SCALE_ERROR = 0.03
"""Of the flux scale of NVSS (Baars et al. 1977) and of peaks for fluxes."""
SOURCE_SCATTER = 0.18
"""Of one source about its catalogue flux: variability, spectral index and size give 15 to 20 %."""
UNMEASURED_BEAM_ERRORS = (0.025, 0.07, 0.07)
"""Of the width of a beam that was not measured (models of one dish differ by 2 to 3 %), and of its
pointing to the east and north, deg (0.05 to 0.1 deg is usual for dishes of this kind)."""
DRIFT_PER_ROOT_HOUR, MAX_DRIFT = 0.01, 0.1
"""Drift of the gains' amplitudes; after some days it does not grow any more."""
STRIP_ERROR_PER_DEG = 0.01
"""A set of another Declination: elevation changes gains and system temperature."""
GROUP_NOISE_JY = 5e-4
"""Noise of a group's image, with the confusion of faint sources."""
UNKNOWN_SET_ERROR: dict[FluxAnchor, float] = {"standard": 0.03, "catalogue": 0.15, "nvss": 0.06}
"""Of sets that were registered without an error, by what they rest on."""
TINY = 1e-6
"""Added to a beam before its logarithm is taken."""
BEAM_SAMPLES = 5
"""Moments and frequencies at which the beam is averaged."""
MIN_ENSEMBLE_BEAM, MIN_ENSEMBLE_JY = 0.2, 0.02
"""Sources farther out or fainter (apparent) do not count as members of an ensemble."""
MIN_ENSEMBLE_SOURCES, MIN_ENSEMBLE_SIGNAL_JY = 8, 0.4
"""An ensemble has at least so many members, and this root of the sum of squares of their apparent
fluxes: then a channel of an antenna's bandpass has a signal-to-noise ratio of 8."""
TRUSTED_ERROR = 0.12
"""The ensemble is solved on only if no calibrator or set is expected to be better than this: its
factor differs from group to group, that of a set does not."""


def combine(**terms: float) -> ScaleBudget:
    """Return a budget with its total, the root of the sum of squares."""
    return ScaleBudget(**terms, total=float(np.linalg.norm(list(terms.values()))))


def mean_beam(
    ra_deg: FloatArray, dec_deg: FloatArray, target: Target, beam: PrimaryBeam
) -> FloatArray:
    """Return the beam, mean over a group and the band, at positions (N,): shape (N,)."""
    moments = beam_fit.midpoints(target.mjd_start, target.mjd_end, BEAM_SAMPLES)
    return beam_fit.mean_beam(ra_deg, dec_deg, moments, target.dec_deg, target.site, beam)


def beam_terms(
    ra_deg: FloatArray, dec_deg: FloatArray, target: Target, beam: PrimaryBeam
) -> FloatArray:
    """Return the error of ln(beam) at positions by its width and its pointing: shape (6, N).

    The errors are those that the beam's file states, else usual ones. Each of the three has a slope
    and, where the beam is even in it, a second order.
    """
    errors = zip(beam_fit.STEPS, beam.errors or UNMEASURED_BEAM_ERRORS, strict=True)
    middle, terms = np.log(mean_beam(ra_deg, dec_deg, target, beam) + TINY), []
    for name, error in errors:
        value = 1.0 if name == "width" else 0.0
        down, up = (
            np.log(mean_beam(ra_deg, dec_deg, target, beam.changed(**{name: value + step})) + TINY)
            for step in (-error, error)
        )
        terms += [(up - down) / 2, (up + down) / 2 - middle]
    return np.clip(terms, -1.0, 1.0)


def beam_error(
    ra_deg: FloatArray, dec_deg: FloatArray, target: Target, beam: PrimaryBeam
) -> FloatArray:
    """Return the relative error of the beam at positions (N,), all terms together: shape (N,)."""
    return np.asarray(np.linalg.norm(beam_terms(ra_deg, dec_deg, target, beam), axis=0))


def add_pointing(
    budget: ScaleBudget,
    ra_deg: float,
    dec_deg: float,
    target: Target,
    beam: PrimaryBeam,
    east_deg: float,
    north_deg: float,
) -> ScaleBudget:
    """Return a budget with the error at the calibrator's place of an offset of the beam's axis.

    For solves whose field shows the offset: the calibrator was seen through another beam than
    assumed, and other groups would take the set for a good one.
    """
    place = np.array([ra_deg]), np.array([dec_deg])
    moved = beam.changed(east_deg=east_deg, north_deg=north_deg)
    assumed, seen = (np.log(mean_beam(*place, target, one) + TINY)[0] for one in (beam, moved))
    terms = budget.model_dump(exclude={"total"})
    return combine(
        **{**terms, "beam": float(np.hypot(budget.beam, np.clip(seen - assumed, -1, 1)))}
    )


def calibrator_budget(
    source: CalibratorInBeam, target: Target, primary_beam: PrimaryBeam
) -> ScaleBudget:
    """Return the expected error of a scale that is solved on a calibrator in the beam."""
    flux = STANDARD_ERROR
    if not source.is_standard:
        flat = source.spectral_index > FLAT_INDEX or source.spectral_index == 0  # 0: unknown
        flux = float(np.hypot(CATALOGUE_ERROR, VARIABLE_ERROR if flat else 0.0))
    place = np.array([source.ra_deg]), np.array([source.dec_deg])
    beam = beam_terms(*place, target, primary_beam)
    noise = GROUP_NOISE_JY / source.apparent_jy
    return combine(flux=flux, beam=float(np.linalg.norm(beam)), noise=noise)


def set_budget(
    own: float | None, anchor: FluxAnchor, days: float, strips_deg: float
) -> ScaleBudget:
    """Return the expected error of a set: its own, its age (days), and its other strip (deg)."""
    hours = 24 * abs(days)
    return combine(
        solved=UNKNOWN_SET_ERROR[anchor] if own is None else own,
        drift=min(DRIFT_PER_ROOT_HOUR * float(np.sqrt(hours)), MAX_DRIFT),
        strip=STRIP_ERROR_PER_DEG * abs(strips_deg),
    )


def row_budget(row: SetRow, target: Target) -> ScaleBudget:
    """Return the expected error of a set of the registry at a group."""
    days, strips_deg = row.mjd - target.mjd, row.dec - target.dec_deg
    return set_budget(row.scale_error, row.flux_anchor, days, strips_deg)


def ensemble_budget(target: Target, primary_beam: PrimaryBeam) -> ScaleBudget | None:
    """Return the expected error of a scale that rests on all NVSS sources of a group's beam.

    None if they are too few or too faint to solve gains on.
    """
    middle_hz = float(np.mean(band_hz()))
    times = target.mjd_start, target.mjd_end
    place = target.dec_deg, target.site
    field = find_field_sources(*times, *place, np.array([middle_hz]), primary_beam)
    ra_deg, dec_deg = np.degrees([field.ra_rad, field.dec_rad])
    beam = mean_beam(ra_deg, dec_deg, target, primary_beam)
    apparent_jy = field.flux_jy[:, 0] * beam
    members = (beam >= MIN_ENSEMBLE_BEAM) & (apparent_jy >= MIN_ENSEMBLE_JY)
    count, signal_jy = np.count_nonzero(members), float(np.linalg.norm(apparent_jy))
    if count < MIN_ENSEMBLE_SOURCES or signal_jy < MIN_ENSEMBLE_SIGNAL_JY:
        return None
    # Width and pointing are the same for all, and the offsets of most cancel.
    terms = beam_terms(ra_deg[members], dec_deg[members], target, primary_beam).mean(axis=1)
    flux = float(np.hypot(SOURCE_SCATTER / np.sqrt(count), NVSS_SCALE_ERROR))
    noise = GROUP_NOISE_JY / signal_jy
    return combine(flux=flux, beam=float(np.linalg.norm(terms)), noise=noise)
