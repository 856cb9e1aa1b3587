"""The checks that an image must pass, and the warnings about one that passes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from contimg.records.images import bilinear
from contimg.runtime.errors import BadImageError
from contimg.runtime.manifest import QA
from contimg_image import beam_check
from contimg_image.cleaning import MIN_EFFECTIVE_BEAM, ExpectedSky
from contimg_image.diagnostics import AntennaPhases
from contimg_image.field import ImagingField
from contimg_image.frame import Floats, Singles
from contimg_image.imagers import Cleaned

MAX_AXIS_RATIO = 25.0
"""Of the beam: a group of one arm alone makes 10, a PSF without a main lobe more."""
MIN_BEAM_CELLS = 1.5
MAX_BEAM_FRACTION = 0.1
"""Largest major axis as a fraction of the field."""
MAX_NOISE_RATIO = 50.0
"""Noise over thermal noise: a 16 Jy source that 96 antennas see with random phases makes 800, a
good image of the brightest field (3C48, dynamic range 10^4) 8; earlier pipelines accepted 40."""
WARN_NOISE_RATIO = 3.0
MATCH_SNR = 20.0
"""Catalogue sources that should appear with this signal-to-noise ratio are compared."""
MIN_MATCHES = 3
"""With fewer, no image is refused: one may have varied, the catalogue may be wrong."""
MAX_SCALING_ERROR = 0.25
"""Largest 1 sigma error of a flux scaled from the catalogue's frequency that is compared: lists
from 0.5 to 3.8 GHz where spectral indices are unknown."""
MIN_PRESENCE = 0.3
"""0.95 to 1 in good images (0.48 with a catalogue of doubled fluxes), within 0.05 of 0 with wrong
phases; with gains of another field it was once 0.06."""
MAX_PHASE_ERROR_DEG = 15.0
"""0.5 to 3 in good images, 24 and more if any table has wrong phases. 15 costs 12 % of a flux."""
WARN_PHASE_ERROR_DEG = 5.0
"""Such an error costs 1 to 2 % of a flux."""
WARN_FLUX_DEVIATION = 0.2
MAX_SMEARING_LOSS = 0.01
"""What averaging may cost at the edge of the field."""


class CatalogueMatches(NamedTuple):
    """What an image shows of catalogue sources: medians over their fluxes, NaN without sources."""

    sources: int
    flux_ratio: float
    """Of the highest pixel within half a beam: the source, but at least the noise."""
    presence: float
    """Of the brightness at the position itself: 0 but for noise if there is no source."""
    mirrored: float
    """Of the brightness at the position mirrored in RA, as a control."""


def catalogue_matches(
    image: Singles, x: Floats, y: Floats, expected_jy: Floats, radius_px: float
) -> CatalogueMatches:
    """Return what an image shows at the pixels x, y where sources are expected."""
    if not x.size:
        return CatalogueMatches(0, *[float("nan")] * 3)
    reach = max(1, round(radius_px))
    highest = []
    for column, row in zip(np.round(x).astype(int), np.round(y).astype(int), strict=True):
        rows = slice(max(0, row - reach), row + reach + 1)
        part = image[rows, max(0, column - reach) : column + reach + 1]
        highest.append(part.max() if part.size else np.nan)
    mirrored = np.nan_to_num(bilinear(image, image.shape[0] - x, y))
    values = (np.array(highest, np.float64), bilinear(image, x, y), mirrored)
    return CatalogueMatches(x.size, *(float(np.median(value / expected_jy)) for value in values))


def measure_quality(
    where: str, cleaned: Cleaned, local_rms: Singles, sky: ExpectedSky, field: ImagingField
) -> dict[str, float]:
    """Return noise, peak and flux ratio of an image; raise BadImageError if a check fails."""
    check_planes(where, cleaned)
    rms = float(np.median(local_rms[sky.checked]))
    # With one polarization the thermal noise is unknown, and the image is compared with itself.
    thermal_rms = field.weights.thermal_rms_jy
    thermal = thermal_rms if np.isfinite(thermal_rms) else rms
    selected = (sky.expected_jy >= MATCH_SNR * thermal) & (sky.level >= MIN_EFFECTIVE_BEAM)
    selected &= sky.scaling_error <= MAX_SCALING_ERROR
    if field.primary_beam is None:
        # Sources far from the pointing appear with a small, unknown part of their flux.
        selected[:] = False
    x, y, expected_jy = sky.x[selected], sky.y[selected], sky.expected_jy[selected]
    matches = catalogue_matches(cleaned.image, x, y, expected_jy, cleaned.beam_px / 2)
    check_sky(where, rms, thermal, matches)
    return {
        "rms_jy": rms,
        "noise_ratio": rms / thermal_rms,
        "diverged": float(cleaned.diverged),
        "peak_jy": float(cleaned.image.max()),
        "sightings": float(matches.sources),
        "flux_ratio": matches.flux_ratio,
        "used_fraction": field.data.used,
        **beam_check.measure_beam(cleaned.image, local_rms, sky, field, cleaned.beam_px).numbers(),
    }


def check_planes(where: str, cleaned: Cleaned) -> None:
    """Raise BadImageError if pixels are not finite, all are zero, or the beam is absurd."""
    for name, plane in (("image", cleaned.image), ("residual", cleaned.residual)):
        infinite, nonzero = np.count_nonzero(~np.isfinite(plane)), np.count_nonzero(plane)
        if infinite or not nonzero:
            found = f"The {name} has {infinite} pixels that are not finite and {nonzero} not zero."
            raise BadImageError(where, found, "Look at the imager's log and at the calibration.")
    major, minor, cell_deg = cleaned.beam.major_deg, cleaned.beam.minor_deg, cleaned.cell_deg
    field_deg = cleaned.image.shape[0] * cell_deg
    largest = min(MAX_AXIS_RATIO * minor, MAX_BEAM_FRACTION * field_deg)
    if not MIN_BEAM_CELLS * cell_deg <= minor <= major <= largest:
        raise BadImageError(
            where,
            f"The beam is {major * 3600:.1f} x {minor * 3600:.1f} arcsec. It must be between "
            f"{MIN_BEAM_CELLS:.1f} cells and {MAX_BEAM_FRACTION:.0%} of the field, its axes in a "
            f"ratio below {MAX_AXIS_RATIO:.0f}.",
            "Choose --size and --cell-arcsec for these baselines, or look at the flags.",
        )


def check_phases(where: str, phases: AntennaPhases) -> None:
    """Raise BadImageError if antennas disagree with the sources by more than noise explains."""
    if phases.error_deg > MAX_PHASE_ERROR_DEG:
        raise BadImageError(
            where,
            f"The phases of the antennas differ from those of the brightest sources by "
            f"{phases.error_deg:.0f} deg rms, beyond the {phases.noise_deg:.1f} deg of noise; "
            f"{MAX_PHASE_ERROR_DEG:.0f} deg are allowed.",
            "A caltable's phases, the phase centre or the times are wrong; calibrate again.",
        )


def check_sky(where: str, rms_jy: float, thermal_jy: float, matches: CatalogueMatches) -> None:
    """Raise BadImageError if the noise is absurd, or if catalogue sources are missing.

    Then phases, position or time are wrong.
    """
    if rms_jy > MAX_NOISE_RATIO * thermal_jy:
        raise BadImageError(
            where,
            f"The noise of the image is {rms_jy * 1e3:.2f} mJy/beam, more than "
            f"{MAX_NOISE_RATIO:.0f} x the thermal {thermal_jy * 1e3:.3f} mJy/beam.",
            "Look at the calibration (is it from another group?) and at the flags.",
        )
    if matches.sources >= MIN_MATCHES and matches.presence < MIN_PRESENCE:
        raise BadImageError(
            where,
            f"At the positions of {matches.sources} catalogue sources, the image shows a median of "
            f"{matches.presence:.2f} of their flux (and {matches.mirrored:.2f} at mirrored ones).",
            "Phases, phase centre or times are wrong; look at the calibration.",
        )


def assess_quality(numbers: dict[str, float], *, known_beam: bool) -> QA:
    """Return the verdict on an image that passed the checks, with the reasons of a warning."""
    noise_ratio, flux_ratio = numbers["noise_ratio"], numbers["flux_ratio"]
    loss, phase_error = numbers["smearing_loss"], numbers["phase_error_deg"]
    reasons = []
    if numbers["diverged"]:
        reasons.append("cleaning raised the noise: gains or positions of bright sources are wrong")
    if not known_beam:
        reasons.append("the primary beam is not known: the effective beam is smearing alone")
    if not np.isfinite(noise_ratio):
        reasons.append("the thermal noise is not known: there is one polarization only")
    elif noise_ratio > WARN_NOISE_RATIO:
        reasons.append(f"the noise is {noise_ratio:.1f} x thermal")
    if not numbers["sightings"]:
        reasons.append("no catalogue source is bright and near enough in frequency to compare")
    elif abs(flux_ratio - 1) > WARN_FLUX_DEVIATION:
        reasons.append(f"catalogue sources appear with {flux_ratio:.2f} of their flux")
    if phase_error > WARN_PHASE_ERROR_DEG:
        reasons.append(f"antenna phases are off by {phase_error:.1f} deg rms from bright sources")
    if loss > MAX_SMEARING_LOSS:
        reasons.append(f"smearing takes {loss:.1%} at the edge of the field")
    if numbers["strangers"]:
        reasons.append(f"{numbers['strangers']:.0f} bright sources are in no catalogue")
    reasons += beam_check.describe_beam(numbers)
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
