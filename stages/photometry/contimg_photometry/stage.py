"""The photometry stage: measure the catalogue sources of one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from contimg.astro.catalogues import load, nvss
from contimg.astro.constants import MAD_TO_SIGMA
from contimg.records.groups import day_of_mjd
from contimg.records.images import SkyImage, read_image
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import QA, Manifest
from contimg_photometry.measure import Measurements, measure
from contimg_photometry.noise import BeamProfile, measure_autocorrelation
from contimg_photometry.options import PhotometryOptions
from contimg_photometry.rows import (
    ARCSEC_PER_DEG,
    ImageEpoch,
    Targets,
    photometry_rows,
    select_sources,
)

NOISE_BOX_PX = 2048
"""Side of the central box in which the noise's autocorrelation is measured: thousands of beams."""
MAX_RATIO_DEVIATION = 0.2
"""Of the median flux ratio to the catalogue from 1: NVSS is good to 3 %, its sources vary."""
MAX_OFFSET_BEAMS = 0.1
"""Largest median position offset without a warning, in minor axes."""
MIN_BRIGHT_SOURCES = 5
"""Sources that a median of the flux ratio needs for a QA verdict."""


def run(options: PhotometryOptions, context: Context) -> StageResult:
    """Measure the catalogue sources of one image; write and publish one row for each source."""
    with context.step("read"):
        image, beam_map, residual = (
            read_image(context.fetch(options.image, name), f"{options.image}/{name}")
            for name in ("image.fits", "beam.fits", "residual.fits")
        )
        epoch = read_epoch(context.manifest(options.image), options.image, image)
        targets = catalogue_targets(options, image, beam_map)
    with context.step("measure"):
        beam = BeamProfile.of(image)
        reach = int(np.ceil((2 * options.aperture + options.pair_separation) * beam.major)) + 1
        ny, nx = residual.pixels.shape
        low, left = max(0, (ny - NOISE_BOX_PX) // 2), max(0, (nx - NOISE_BOX_PX) // 2)
        box = residual.pixels[low : low + NOISE_BOX_PX, left : left + NOISE_BOX_PX]
        noise = measure_autocorrelation(box, min(reach, min(box.shape) // 2))
        x, y = image.to_pixels(targets.ra_deg, targets.dec_deg)
        found = measure(image.pixels, x, y, beam, noise, options)
        targets, found = drop_unmeasured(targets, found, options.image)
    limits = (options.detection_snr, options.flux_scale_error)
    rows = photometry_rows(targets, found, image.cell_deg, epoch, *limits)
    with context.step("write"):
        table = PHOTOMETRY.table(rows)
        context.write_table("photometry.parquet", PHOTOMETRY, table)
        context.publish(options.tables, PHOTOMETRY, day_of_mjd(epoch.mjd), epoch.group, table)
    metrics = summarise(rows, options.position_snr)
    return StageResult(
        metrics={"group": epoch.group, "mjd": epoch.mjd, **metrics},
        qa=assess_quality(metrics, image.beam.minor_deg * ARCSEC_PER_DEG),
    )


def read_epoch(manifest: Manifest, uri: str, image: SkyImage) -> ImageEpoch:
    """Return what an image's manifest says about the observation.

    Raises BadInputError if the manifest is not that of an image.
    """
    metrics = manifest.metrics
    missing = [name for name in ("group", "mjd") if metrics.get(name) is None]
    if missing:
        raise BadInputError(
            uri,
            f"The artifact lacks the metrics of an image: {', '.join(missing)}.",
            "Name an image artifact.",
        )
    strip = metrics.get("pointing_dec_deg")
    return ImageEpoch(
        group=str(metrics["group"]),
        image=manifest.key,
        mjd=float(metrics["mjd"]),
        strip_deg=image.centre_deg[1] if strip is None else float(strip),
    )


def catalogue_targets(options: PhotometryOptions, image: SkyImage, beam_map: SkyImage) -> Targets:
    """Return the catalogue's sources on the image where the effective beam is large enough."""
    catalogue = load(options.catalogue) if options.catalogue else nvss()
    ny, nx = image.pixels.shape
    cell_x, cell_y = image.cell_deg
    radius_deg = 0.5 * float(np.hypot(nx * cell_x, ny * cell_y))
    near = catalogue.within(*image.centre_deg, radius_deg)
    targets = Targets(
        name=near.name,
        ra_deg=near.ra_deg,
        dec_deg=near.dec_deg,
        flux_jy=near.flux_jy,
        beam=beam_map.sample(near.ra_deg, near.dec_deg),
    )
    return drop_outside_beam(targets, beam_map.where, options.min_beam)


def drop_outside_beam(targets: Targets, where: str, min_beam: float) -> Targets:
    """Keep the sources where the effective beam is large enough.

    Raises NoSourcesError if nothing is left.
    """
    kept = select_sources(targets, targets.beam >= min_beam)  # False for NaN: outside the map
    if not kept.ra_deg.size:
        raise NoSourcesError(
            where,
            f"The effective beam is below {min_beam} at all {targets.ra_deg.size} catalogue "
            f"sources on the image.",
            "Lower --min-beam, or give a deeper --catalogue.",
        )
    return kept


def drop_unmeasured(
    targets: Targets, found: Measurements, where: str
) -> tuple[Targets, Measurements]:
    """Leave out sources without a flux or noise: too few pixels, or two entries for one source.

    Raises NoSourcesError if nothing is left.
    """
    good = np.isfinite(found.peak) & np.isfinite(found.fit) & (found.peak_noise > 0)
    if not good.any():
        raise NoSourcesError(
            where,
            "No catalogue source has pixels with noise around it.",
            "Look at the image: is it blank?",
        )
    return select_sources(targets, good), select_sources(found, good)


def summarise(rows: dict[str, Any], bright_snr: float) -> dict[str, Any]:
    """Return the metrics: numbers of sources, flux ratio to the catalogue, astrometry.

    Medians are over single sources of at least `bright_snr`; those that are not finite are null.
    """
    bright = (rows["snr"] >= bright_snr) & (rows["blend"] == 1)
    counts = {
        "sources": len(rows["source"]),
        "detected": int((~rows["upper_limit"]).sum()),
        "bright": int(bright.sum()),
    }
    values = {"rms_median_mjy": np.median(rows["local_rms"] * rows["beam"])}
    if bright.any():
        ratio, east, north = rows["flux_ratio"], rows["ra_offset"], rows["dec_offset"]
        middle = np.nanmedian(ratio[bright])
        values |= {
            "ratio_median": middle,
            "ratio_scatter": MAD_TO_SIGMA * np.nanmedian(np.abs(ratio[bright] - middle)),
            "compactness_median": np.nanmedian(rows["compactness"][bright]),
            "ra_offset_arcsec": np.nanmedian(east[bright]),
            "dec_offset_arcsec": np.nanmedian(north[bright]),
            "offset_arcsec": np.nanmedian(np.hypot(east[bright], north[bright])),
        }
    return counts | {
        name: round(float(value), 5) if np.isfinite(value) else None
        for name, value in values.items()
    }


def assess_quality(metrics: dict[str, Any], minor_arcsec: float) -> QA:
    """Return whether the fluxes and positions agree with the catalogue."""
    reasons = []
    if metrics["bright"] < MIN_BRIGHT_SOURCES:
        reasons.append(
            f"only {metrics['bright']} bright single sources to compare with the catalogue"
        )
    elif abs(metrics["ratio_median"] - 1) > MAX_RATIO_DEVIATION:
        reasons.append(f"the median flux ratio to the catalogue is {metrics['ratio_median']:.3f}")
    for axis in ("ra", "dec"):
        offset = metrics.get(f"{axis}_offset_arcsec")
        if offset is not None and abs(offset) > MAX_OFFSET_BEAMS * minor_arcsec:
            reasons.append(f"the median {axis} offset is {offset:.2f} arcsec")
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
