"""Measure the catalogue sources of one image."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contimg.records.groups import day_of_mjd
from contimg.records.images import SkyImage, read_image
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import StageResult
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import QA
from contimg_photometry.measure import Apertures, Measurements, measure
from contimg_photometry.noise import Correlation, noise_autocorrelation
from contimg_photometry.profile import BeamProfile, profile_of
from contimg_photometry.rows import Observation, Targets, photometry_rows

if TYPE_CHECKING:
    from contimg.runtime.context import Context
    from contimg.runtime.manifest import Manifest
    from contimg_photometry.options import PhotometryOptions

Floats = NDArray[np.float64]

ARCSEC = 3600.0
NOISE_BOX = 2048
"""The noise's autocorrelation is measured in this many pixels about the image's centre, squared: thousands of beams."""
WORST_RATIO = 0.2
"""The median flux ratio to the catalogue may differ from 1 by this much before QA warns: NVSS is good to 3 %, its sources vary."""
WORST_OFFSET = 0.1
"""The median position offset may be this part of the minor axis before QA warns."""
ENOUGH = 5
"""Sources that a median of the flux ratio needs for a QA verdict."""


def run(options: PhotometryOptions, context: Context) -> StageResult:
    """Measure the catalogue sources of one image; write and publish one row a source."""
    with context.step("read"):
        image = read_image(
            context.fetch(options.image, "image.fits"), f"{options.image}/image.fits"
        )
        beam_map = read_image(
            context.fetch(options.image, "beam.fits"), f"{options.image}/beam.fits"
        )
        residual = read_image(
            context.fetch(options.image, "residual.fits"), f"{options.image}/residual.fits"
        )
        of = observation(context.manifest(options.image), options.image, image)
    targets = within_beam(_catalogue(options, image, beam_map), beam_map, options)
    with context.step("measure"):
        beam, apertures = profile_of(image), _apertures(options)
        noise = _noise(residual, beam, apertures)
        x, y = image.to_pixels(targets.ra_deg, targets.dec_deg)
        targets, found = measurable(
            targets, measure(image.pixels, x, y, beam, noise, apertures), options.image
        )
        sky = sky_offsets(image, found)
    rows = photometry_rows(targets, found, sky, of, options.detection_snr, options.flux_scale_error)
    with context.step("write"):
        table = PHOTOMETRY.table(rows)
        context.write_table("photometry.parquet", PHOTOMETRY, table)
        day = day_of_mjd(of.mjd)
        context.publish(options.tables, PHOTOMETRY, day, of.group, table)
    metrics = summarise(rows, options.position_snr)
    return StageResult(
        metrics={"group": of.group, "mjd": of.mjd, **metrics},
        qa=judge(metrics, image.beam.minor_deg * ARCSEC),
    )


def observation(manifest: Manifest, uri: str, image: SkyImage) -> Observation:
    """Return what an image's manifest says of the observation.

    Raises
    ------
    BadInputError
        If the manifest is not that of an image.
    """
    metrics = manifest.metrics
    missing = [name for name in ("group", "mjd") if metrics.get(name) is None]
    if missing:
        raise BadInputError(
            uri,
            f"expected an image with the metrics group and mjd, found no {', '.join(missing)}.",
            "Name an image artifact.",
        )
    strip = metrics.get("pointing_dec_deg")
    return Observation(
        str(metrics["group"]),
        manifest.key,
        float(metrics["mjd"]),
        image.centre_deg[1] if strip is None else float(strip),
    )


def _catalogue(options: PhotometryOptions, image: SkyImage, beam_map: SkyImage) -> Targets:
    """Return the catalogue's sources on the image."""
    from contimg.astro.catalogues import load, nvss  # reads a megabyte of package data

    whole = load(options.catalogue) if options.catalogue else nvss()
    ny, nx = image.pixels.shape
    cell_x, cell_y = image.cell_deg
    part = whole.within(*image.centre_deg, 0.5 * float(np.hypot(nx * cell_x, ny * cell_y)))
    beam = beam_map.sample(part.ra_deg, part.dec_deg)
    return Targets(part.name, part.ra_deg, part.dec_deg, part.flux_jy, beam)


def within_beam(targets: Targets, beam_map: SkyImage, options: PhotometryOptions) -> Targets:
    """Keep the sources where the effective beam is large enough.

    Raises
    ------
    NoSourcesError
        If none is.
    """
    kept = choose(targets, targets.beam >= options.min_beam)  # False for NaN: outside the map
    if kept.ra_deg.size == 0:
        expected, found = (
            f"a catalogue source where the beam is at least {options.min_beam}",
            f"none among {targets.ra_deg.size}",
        )
        raise NoSourcesError(
            beam_map.where,
            f"expected {expected}, found {found}.",
            "Lower --min-beam, or give a deeper --catalogue.",
        )
    return kept


def choose(targets: Targets, which: NDArray[np.bool_]) -> Targets:
    """Return some of the targets."""
    return Targets(**{item.name: getattr(targets, item.name)[which] for item in fields(Targets)})


def _apertures(options: PhotometryOptions) -> Apertures:
    return Apertures(
        options.aperture,
        options.annulus_inner,
        options.annulus_outer,
        options.pair_separation,
        options.position_snr,
    )


def _noise(residual: SkyImage, beam: BeamProfile, apertures: Apertures) -> Correlation:
    """Measure the noise's autocorrelation about the image's centre."""
    ny, nx = residual.pixels.shape
    low, left = max(0, (ny - NOISE_BOX) // 2), max(0, (nx - NOISE_BOX) // 2)
    box = residual.pixels[low : low + NOISE_BOX, left : left + NOISE_BOX]
    reach = int(np.ceil((2 * apertures.fit + apertures.pair) * beam.major)) + 1
    return noise_autocorrelation(box, np.ones(box.shape, bool), min(reach, min(box.shape) // 2))


def measurable(targets: Targets, found: Measurements, where: str) -> tuple[Targets, Measurements]:
    """Leave out what could not be measured: no room for the annulus, no pixels, or two entries for one source.

    Raises
    ------
    NoSourcesError
        If nothing is left.
    """
    good = np.isfinite(found.peak) & np.isfinite(found.fit) & (found.peak_noise > 0)
    if not good.any():
        raise NoSourcesError(
            where,
            "expected sources with pixels and noise about them, found none.",
            "Look at the image: is it blank?",
        )
    parts: dict[str, Any] = {
        item.name: getattr(found, item.name)[good] for item in fields(Measurements)
    }
    return choose(targets, good), Measurements(**parts)


def sky_offsets(image: SkyImage, found: Measurements) -> tuple[Floats, Floats, Floats, Floats]:
    """Return fitted minus given positions, east and north, and their errors, arcsec; NaN where no position was fitted.

    The image axes are those of the tangent plane: over a beam's width they are east and north to a part in a thousand.
    """
    cell_x, cell_y = image.cell_deg
    east, north = found.dx * cell_x * ARCSEC, found.dy * cell_y * ARCSEC
    return east, north, found.dx_noise * abs(cell_x) * ARCSEC, found.dy_noise * abs(cell_y) * ARCSEC


def summarise(rows: dict[str, Any], bright_snr: float) -> dict[str, Any]:
    """Return the numbers for people: how many, the flux ratio to the catalogue, astrometry."""
    bright = (rows["snr"] >= bright_snr) & (rows["blend"] == 1)
    metrics: dict[str, Any] = {
        "sources": len(rows["source"]),
        "detected": int((~rows["upper_limit"]).sum()),
        "bright": int(bright.sum()),
        "rms_median_mjy": _number(np.median(rows["local_rms"] * rows["beam"])),
    }
    if bright.any():
        ratio, east, north = (
            rows[name][bright] for name in ("flux_ratio", "ra_offset", "dec_offset")
        )
        middle = float(np.nanmedian(ratio))
        metrics |= {
            "ratio_median": _number(middle),
            "ratio_scatter": _number(1.4826 * np.nanmedian(np.abs(ratio - middle))),
            "compactness_median": _number(np.nanmedian(rows["compactness"][bright])),
            "ra_offset_arcsec": _number(np.nanmedian(east)),
            "dec_offset_arcsec": _number(np.nanmedian(north)),
            "offset_arcsec": _number(np.nanmedian(np.hypot(east, north))),
        }
    return metrics


def _number(value: float | np.floating[Any]) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def judge(metrics: dict[str, Any], minor_arcsec: float) -> QA:
    """Say whether the fluxes and positions agree with the catalogue."""
    reasons = []
    if metrics["bright"] < ENOUGH:
        reasons.append(
            f"only {metrics['bright']} bright single sources to compare with the catalogue"
        )
    elif abs(metrics["ratio_median"] - 1) > WORST_RATIO:
        reasons.append(f"the median flux ratio to the catalogue is {metrics['ratio_median']:.3f}")
    for axis in ("ra", "dec"):
        offset = metrics.get(f"{axis}_offset_arcsec")
        if offset is not None and abs(offset) > WORST_OFFSET * minor_arcsec:
            reasons.append(f"the median {axis} offset is {offset:.2f} arcsec")
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
