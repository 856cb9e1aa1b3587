"""Rounds of cleaning inside discs on sources, repeated while bright uncatalogued ones appear."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from contimg.astro.catalogues import Catalogue
from contimg.records.images import bilinear
from contimg.runtime.context import Context
from contimg_image import masks
from contimg_image.beam import beam_map
from contimg_image.bright import Subtracted, subtract_bright
from contimg_image.field import ImagingField
from contimg_image.frame import Floats, Mask, Singles
from contimg_image.imagers import Cleaned, ImagerJob, run_imager

MIN_EFFECTIVE_BEAM = 0.2
"""Where the beam is below this, images are neither corrected nor checked."""
DISC_RADIUS_BEAMS = 1.0
"""Radius of a disc of the mask in units of the beam's major axis."""
UNMASKED_THRESHOLD = 5.0
"""Multiple of the noise at which cleaning without a mask ends, before it turns noise to sources."""
UNMASKED_NITER = 10_000
MAX_EXTRA_ROUNDS = 2
"""Largest number of rounds after the first, which clean uncatalogued sources."""


@dataclass(frozen=True, eq=False)
class ExpectedSky:
    """What the image should show, on its grid."""

    effective: Singles
    """Effective beam."""
    x: Floats
    """Pixels of the catalogue's sources."""
    y: Floats
    expected_jy: Floats
    """Catalogue flux at the image's frequency times effective beam."""
    scaling_error: Floats
    """Relative 1 sigma error of `expected_jy` from the catalogue's distance in frequency."""

    @classmethod
    def of(cls, catalogue: Catalogue, field: ImagingField) -> ExpectedSky:
        """Return the effective beam, and the catalogue's sources as they appear through it."""
        frame, effective = field.frame, beam_map(field)
        freq_hz = field.weights.frequency_hz
        corner_deg = float(frame.size * frame.cell_deg / np.sqrt(2))
        near = catalogue.within(frame.ra_deg, frame.dec_deg, corner_deg)
        x, y = frame.pixels(near.ra_deg, near.dec_deg)
        inside = frame.inside(x, y, margin=2)
        x, y, near = x[inside], y[inside], near.select(inside)
        return cls(
            effective=effective,
            x=x,
            y=y,
            expected_jy=near.at_frequency(freq_hz).flux_jy * bilinear(effective, x, y),
            scaling_error=near.scaling_error(freq_hz),
        )


def clean(
    context: Context, job: ImagerJob, field: ImagingField, sky: ExpectedSky, subtracted: Subtracted
) -> tuple[Cleaned, Mask, int]:
    """Clean inside discs on catalogue sources, and again if uncatalogued bright sources appear.

    Those are subtracted from the visibilities, too, and appended to `subtracted`. Sources that had
    been subtracted before are fitted again with them, since they had absorbed some of their flux.
    Returns the planes, the mask, and the number of uncatalogued sources.
    """
    settings, frame, uncatalogued = job.settings, field.frame, 0
    radius_px = DISC_RADIUS_BEAMS * job.beam[0] / frame.cell_arcsec
    mask = masks.draw_discs(frame, sky.x, sky.y, radius_px)
    if not mask.any():
        threshold = max(settings.threshold, UNMASKED_THRESHOLD)
        niter = min(settings.niter, UNMASKED_NITER)
        careful = replace(settings, threshold=threshold, niter=niter)
        return run_imager(context, replace(job, settings=careful), None), mask, 0
    cleaned = run_imager(context, job, mask)
    if not settings.niter:
        return cleaned, mask, 0
    if not np.isfinite(cleaned.residual).all():
        context.log.warning("cleaning diverged: the catalogue lacks a bright source")
        dirty = replace(job, settings=replace(settings, niter=0))
        cleaned = run_imager(context, dirty, None)
    for _ in range(MAX_EXTRA_ROUNDS):
        rms = masks.rms_map(cleaned.residual, mask, cleaned.beam_px)
        sidelobe = masks.highest_sidelobe(cleaned.psf, radius_px)
        excluded = mask | (sky.effective < MIN_EFFECTIVE_BEAM)
        x, y = masks.uncatalogued_sources(cleaned.residual, rms, excluded, radius_px, sidelobe)
        if not x.size:
            break
        context.log.info("cleaning again with %d bright sources in no catalogue", x.size)
        mask |= masks.draw_discs(frame, x, y, radius_px)
        sources = subtracted[-1][0].add_pixels(frame, x, y)
        subtracted.append((sources, subtract_bright(field, sources)))
        field.write_sets(context.scratch)
        cleaned = run_imager(context, job, mask)
        uncatalogued += int(x.size)
    return cleaned, mask, uncatalogued
