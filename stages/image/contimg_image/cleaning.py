"""Cleaning inside discs on catalogue sources and on those that the dirty image shows."""

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
from contimg_image.finding import SOURCE_RADIUS_BEAMS, Search, search
from contimg_image.frame import Floats, Mask, Singles
from contimg_image.imagers import Cleaned, ImagerJob, run_imager

MIN_EFFECTIVE_BEAM = 0.2
"""Where the beam is below this, images are neither corrected nor checked."""
DISC_RADIUS_BEAMS = 1.0
"""Radius of a disc of the mask in units of the beam's major axis."""
MIN_DRIFTING_NOISE = 60.0
"""Sources of no catalogue are subtracted from the visibilities if one is brighter than this, in
units of the thermal noise: cleaning leaves a part of each source that drifts through the beam. In
full-size groups, whose catalogue ends at 50 mJy, it lowers the noise by 5 to 9 %."""
LISTED_MARGIN = 1.5
"""A catalogue should list what is brighter than its faintest source by this factor."""
DIVERGED_NOISE = 1.05
"""Cleaning that multiplies the noise by more than this has added what is not there."""
FINAL_NOISE_RATIO = 1.25
"""With less noise over thermal noise, the image is not searched and cleaned a second time."""


@dataclass(frozen=True, eq=False)
class ExpectedSky:
    """What the image should show, on its grid."""

    effective: Singles
    """Effective beam."""
    x: Floats
    """Pixels of the catalogue's sources."""
    y: Floats
    level: Floats
    """Effective beam at the catalogue's sources."""
    expected_jy: Floats
    """Catalogue flux at the image's frequency times effective beam."""
    scaling_error: Floats
    """Relative 1 sigma error of `expected_jy` from the catalogue's distance in frequency."""
    faintest_jy: float
    """Of the catalogue in the field at the image's frequency; 0 if it has no source there."""

    @property
    def checked(self) -> Mask:
        """Pixels that are checked: where the beam is high enough, or all if it is so nowhere."""
        inside = self.effective >= MIN_EFFECTIVE_BEAM
        return inside if inside.any() else np.ones_like(inside)

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
        flux_jy, level = near.at_frequency(freq_hz).flux_jy, bilinear(effective, x, y)
        return cls(
            effective=effective,
            x=x,
            y=y,
            level=level,
            expected_jy=flux_jy * level,
            scaling_error=near.scaling_error(freq_hz),
            faintest_jy=float(flux_jy.min()) if flux_jy.size else 0.0,
        )


def clean(
    context: Context, job: ImagerJob, field: ImagingField, sky: ExpectedSky, subtracted: Subtracted
) -> tuple[Cleaned, Mask, int]:
    """Clean inside discs on catalogue sources and on all that the dirty image shows.

    Bright sources of no catalogue are first subtracted from the visibilities, too, and appended to
    `subtracted`; those that had been subtracted before are fitted again with them, since they had
    absorbed some of their flux. Returns the planes, the mask, and the number of sources that a
    complete catalogue would have.
    """
    settings, frame = job.settings, field.frame
    radius_px = DISC_RADIUS_BEAMS * job.beam[0] / frame.cell_arcsec
    mask = masks.draw_discs(frame, sky.x, sky.y, radius_px)
    dirty_job = replace(job, settings=replace(settings, niter=0))
    planes = run_imager(context, dirty_job, None)
    if not settings.niter:
        return planes, mask, 0
    excluded = mask | (sky.effective < MIN_EFFECTIVE_BEAM)
    found = search(planes, frame, mask)
    x, y, flux_jy = brightest(found, excluded, radius_px)
    # The search also finds false peaks, which sources beyond the image's edge leave. They are not
    # as high above the noise of the dirty image, so they are not counted as missing sources.
    dirty_rms = bilinear(masks.rms_map(planes.residual, mask, planes.beam_px), x, y)
    least_jy = LISTED_MARGIN * sky.faintest_jy * bilinear(sky.effective, x, y)
    strangers = np.count_nonzero(
        flux_jy > np.maximum(least_jy, masks.UNCATALOGUED_SIGMA * dirty_rms)
    )
    mask |= masks.draw_discs(frame, x, y, radius_px)
    drifting_jy = MIN_DRIFTING_NOISE * np.nan_to_num(field.weights.thermal_rms_jy)
    if field.primary_beam is not None and flux_jy.max(initial=0.0) > drifting_jy:
        context.log.info("subtracting %d bright sources in no catalogue", x.size)
        sources = subtracted[-1][0].add_pixels(frame, x, y)
        subtracted.append((sources, subtract_bright(field, sources)))
        field.write_sets(context.scratch)
        planes = run_imager(context, replace(dirty_job, reuse=("psf",)), None)
        found = search(planes, frame, mask)
    checked, again = sky.checked, replace(job, reuse=("psf", "dirty"))
    for cleanings in range(settings.cleanings):
        x, y = (search(planes, frame, mask) if cleanings else found).pixels
        # No disc is smaller than those that the finder itself draws.
        whole = mask | masks.draw_discs(frame, x, y, SOURCE_RADIUS_BEAMS * planes.beam_major_px)
        if not whole.any() or (cleanings and np.array_equal(whole, mask)):
            break
        mask = whole
        context.log.info("cleaning %.1f %% of the image", 100 * mask.mean())
        planes, noise_jy = clean_once(context, again, planes, mask, checked)
        if noise_jy < FINAL_NOISE_RATIO * field.weights.thermal_rms_jy:
            break
    return planes, mask, int(strangers)


def brightest(found: Search, excluded: Mask, radius_px: float) -> tuple[Floats, Floats, Floats]:
    """Return pixels x, y and apparent fluxes (Jy) of the brightest sources not `excluded`.

    They are those of the image that a search restores, so that none is a sidelobe.
    """
    step, image = found.step, found.restore()
    thin = excluded[::step, ::step]
    x, y = masks.uncatalogued_sources(image, found.rms, thin, radius_px / step)
    return x * step, y * step, bilinear(image, x, y)


def clean_once(
    context: Context, job: ImagerJob, planes: Cleaned, mask: Mask, checked: Mask
) -> tuple[Cleaned, float]:
    """Clean inside a mask; return the planes and the median noise where `checked`, Jy.

    If this raises the noise, it is done once more without negative components, the better of the
    two is returned, and it is marked if that raised the noise, too: gains are wrong.
    """
    limit_jy, tries = DIVERGED_NOISE * noise_of(planes, mask, checked), []
    for careful in (False, True):
        cleaned = run_imager(context, replace(job, careful=careful), mask)
        noise_jy = noise_of(cleaned, mask, checked)
        if noise_jy <= limit_jy:
            return cleaned, noise_jy
        context.log.warning("cleaning diverged%s", " again" if careful else "")
        tries.append((noise_jy, cleaned))
    noise_jy, cleaned = min(tries, key=lambda one: one[0])
    return replace(cleaned, diverged=True), noise_jy


def noise_of(planes: Cleaned, mask: Mask, checked: Mask) -> float:
    """Return the median noise where `checked`, Jy; infinite for planes that an imager gave up."""
    residual = planes.residual
    if not np.isfinite(residual).all() or not residual.any():
        return np.inf
    return float(np.median(masks.rms_map(residual, mask, planes.beam_px)[checked]))
