"""What an image must pass before anyone sees it, and what is said of one that passes with a blemish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.records.images import bilinear
from contimg.runtime.errors import BadImageError
from contimg.runtime.manifest import QA

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_image.phases import Phases
    from contimg_image.wsclean import Cleaned

    Floats = npt.NDArray[np.float64]

WORST_AXIS_RATIO = 25.0
"""Of the beam: a group of one arm alone makes 10, a PSF that is no beam makes more."""
FEWEST_CELLS = 1.5
"""Cells that the minor axis must have."""
LARGEST_BEAM = 0.1
"""The major axis must be below this part of the field."""
NOISE_FACTOR = 50.0
"""Noise above this multiple of the thermal one: a 16 Jy source that 96 antennas see with random phases makes 800, an honest image
of the brightest field (3C48, dynamic range 10^4) 8; earlier pipelines lived with 40."""
NOISE_WARNING = 3.0
SURE = 20.0
"""Catalogue sources that should appear with this signal-to-noise must be seen."""
ENOUGH = 3
"""As many of them are needed before their absence condemns an image: one may have varied, the catalogue may be wrong."""
SEEN = 0.3
"""The median of the brightness at their places over the expected flux must reach this: it is 0.95 to 1 in good images (0.48 with a
catalogue of doubled fluxes) and within 0.05 of 0 with wrong phases; with borrowed gains it was once 0.06."""
PHASE_LIMIT_DEG = 15.0
"""Largest error of the antennas' phases: 0.5 to 3 in good images, 24 and more if any table's phases are wrong. 15 cost 12 % of a flux."""
PHASE_WARNING_DEG = 5.0
"""Such an error costs 1 to 2 % of a flux."""
RATIO_WARNING = 0.2


@dataclass(frozen=True, eq=False)
class Sightings:
    """Catalogue sources that an image should show."""

    expected_jy: Floats
    """Catalogue flux times effective beam."""
    seen_jy: Floats
    """Highest pixel within half a beam of the place: what the image shows of the source, but never less than its noise."""
    at_jy: Floats
    """Brightness at the place itself, which noise leaves at 0 where there is no source."""
    other_jy: Floats
    """Brightness at the place mirrored in RA, a control."""

    @property
    def ratio(self) -> float:
        """Median of seen over expected; NaN without sources."""
        return (
            float(np.median(self.seen_jy / self.expected_jy))
            if self.expected_jy.size
            else float("nan")
        )

    @property
    def presence(self) -> float:
        """Median of the brightness at the places over the expected flux; NaN without sources."""
        return (
            float(np.median(self.at_jy / self.expected_jy))
            if self.expected_jy.size
            else float("nan")
        )


def sightings(
    image: npt.NDArray[np.float32], x: Floats, y: Floats, expected_jy: Floats, radius_px: float
) -> Sightings:
    """Return what an image shows at the pixels x, y where a catalogue has sources."""
    size = image.shape[0]
    seen = np.array([_highest(image, a, b, radius_px) for a, b in zip(x, y, strict=True)])
    other = np.nan_to_num(bilinear(image, size - x, y))
    return Sightings(expected_jy, seen, bilinear(image, x, y), other)


def _highest(image: npt.NDArray[np.float32], x: float, y: float, radius_px: float) -> float:
    reach = max(1, round(radius_px))
    row, column = round(y), round(x)
    part = image[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
    return float(part.max()) if part.size else float("nan")


def check_planes(where: str, made: Cleaned, cell_deg: float) -> None:
    """Refuse what is no image.

    Raises
    ------
    BadImageError
        If pixels are not finite, all are zero, or the beam is absurd.
    """
    for name in ("image", "residual"):
        plane = getattr(made, name)
        if not np.isfinite(plane).all() or not plane.any():
            found = f"{np.count_nonzero(~np.isfinite(plane))} that are not, and {np.count_nonzero(plane)} that are not 0"
            raise BadImageError(
                where,
                f"expected finite pixels in the {name}, found {found}.",
                "Look at the imager's log and at the calibration.",
            )
    size, major, minor = made.image.shape[0] * cell_deg, made.bmaj_deg, made.bmin_deg
    good = (
        FEWEST_CELLS * cell_deg
        <= minor
        <= major
        <= min(WORST_AXIS_RATIO * minor, LARGEST_BEAM * size)
    )
    if not good:
        found = f"{major * 3600:.1f} x {minor * 3600:.1f} arcsec"
        wanted = f"a beam between {FEWEST_CELLS:.1f} cells and {LARGEST_BEAM:.0%} of the field"
        raise BadImageError(
            where,
            f"expected {wanted}, found {found}.",
            "Choose --size and --cell-arcsec for these baselines, or look at the flags.",
        )


def check_phases(where: str, found: Phases) -> None:
    """Refuse visibilities whose phases are not those of the sources in them, whatever the caltables claim.

    Raises
    ------
    BadImageError
        If antennas disagree with the sources by more than noise explains.
    """
    if found.error_deg > PHASE_LIMIT_DEG:
        said = f"{found.error_deg:.0f} deg rms, beyond the {found.noise_deg:.1f} deg of noise"
        wanted = (
            f"antennas whose phases agree with the brightest sources to {PHASE_LIMIT_DEG:.0f} deg"
        )
        raise BadImageError(
            where,
            f"expected {wanted}, found {said}.",
            "A caltable's phases, the phase centre or the times are wrong; calibrate again.",
        )


def check_sky(where: str, rms_jy: float, thermal_jy: float, seen: Sightings) -> None:
    """Refuse an image that cannot be of this part of the sky.

    Raises
    ------
    BadImageError
        If its noise is absurd, or if what a catalogue has is not there: then phases, position or time are wrong.
    """
    if rms_jy > NOISE_FACTOR * thermal_jy:
        found = f"{rms_jy * 1e3:.2f} mJy/beam"
        wanted = f"noise below {NOISE_FACTOR:.0f} x the thermal {thermal_jy * 1e3:.3f} mJy/beam"
        raise BadImageError(
            where,
            f"expected {wanted}, found {found}.",
            "Look at the calibration (were its gains borrowed?) and at the flags.",
        )
    if seen.expected_jy.size >= ENOUGH and seen.presence < SEEN:
        found = f"a median of {seen.presence:.2f} of their flux (and {np.median(seen.other_jy / seen.expected_jy):.2f} at mirrored places)"
        wanted = f"{seen.expected_jy.size} catalogue sources at their places"
        raise BadImageError(
            where,
            f"expected {wanted}, found {found}.",
            "Phases, phase centre or times are wrong; look at the calibration.",
        )


def verdict(numbers: dict[str, float], *, known_beam: bool) -> QA:
    """Return what is said of an image that passed.

    Parameters
    ----------
    numbers
        noise_ratio, sightings, flux_ratio, phase_error_deg, smearing_loss, strangers.
    """
    reasons = []
    if not known_beam:
        reasons.append(
            "the telescope's primary beam is not known: the effective beam is that of smearing alone"
        )
    if not np.isfinite(numbers["noise_ratio"]):
        reasons.append("the thermal noise is not known: there is one polarization only")
    elif numbers["noise_ratio"] > NOISE_WARNING:
        reasons.append(f"the noise is {numbers['noise_ratio']:.1f} x thermal")
    if not numbers["sightings"]:
        reasons.append("no catalogue source is bright enough here to check places and fluxes")
    elif abs(numbers["flux_ratio"] - 1) > RATIO_WARNING:
        reasons.append(f"catalogue sources appear with {numbers['flux_ratio']:.2f} of their flux")
    if numbers["phase_error_deg"] > PHASE_WARNING_DEG:
        reasons.append(
            f"phases of antennas are off by {numbers['phase_error_deg']:.1f} deg rms against the brightest sources"
        )
    if numbers["smearing_loss"] > 0.01:  # noqa: PLR2004 - the promise of the averaging
        reasons.append(f"smearing takes {numbers['smearing_loss']:.1%} at the edge of the field")
    if numbers["strangers"]:
        reasons.append(
            f"{numbers['strangers']:.0f} bright sources are in no catalogue; they were cleaned in a second round"
        )
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
