"""The photometry stage: measure the catalogue sources of one image; write a row for each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from contimg.astro import beam_fit
from contimg.astro.catalogues import load, nvss
from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.primary_beam import PrimaryBeam
from contimg.astro.telescope import SITE
from contimg.records.groups import day_of_mjd
from contimg.records.images import SkyImage, read_image
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import QA, Manifest
from contimg_photometry.extended import fit_extended, widths
from contimg_photometry.kernels import Floats
from contimg_photometry.measure import Measurements, measure
from contimg_photometry.noise import BeamProfile, Correlation, measure_autocorrelation
from contimg_photometry.options import PhotometryOptions

NOISE_BOX_PX = 2048
"""Side of the central box in which the noise's autocorrelation is measured: thousands of beams."""
MAX_RATIO_DEVIATION = 0.2
"""Of the median flux ratio to the catalogue from 1: NVSS is good to 3 %, its sources vary."""
MAX_SCALING_ERROR = 0.25
"""Largest median 1 sigma error of catalogue fluxes from their frequency for a verdict on ratios."""
MAX_STRETCH = 1.2
"""By how much a projection may stretch the sky between the middle of an image and its corners."""
MAX_OFFSET_BEAMS = 0.1
"""Largest median position offset without a warning, in minor axes."""
BEAM_GAP_PX, MAX_BEAM_GAP = 6, 0.25
"""Half width of the box over which a missing value of the beam map is averaged (20 arcsec), and
the part of it that may be missing."""
BEAM_FILE = "primary_beam.json"
EXTENDED_RADIUS_BEAMS = 1.5
"""Radius in which Gaussians are fitted, in beam major axes."""
MAX_UNMEASURED = 0.05
"""Part of the catalogue's sources in the beam that may lack pixels without a warning."""
MIN_BRIGHT_SOURCES = 5
"""Sources that a median of the flux ratio needs for a QA verdict."""
ARCSEC_PER_DEG = 3600.0
MJY_PER_JY = 1e3
LIMIT_SIGMA = 3.0
"""An upper limit is this many sigma above the forced flux, or above zero if that is negative."""


@dataclass(frozen=True)
class Targets:
    """The catalogue sources to measure, shape (N,) each."""

    name: NDArray[np.str_]
    ra_deg: Floats
    dec_deg: Floats
    flux_jy: Floats
    """Of the catalogue, scaled to the image's frequency."""
    flux_error: Floats
    """Relative 1 sigma error of that scaling."""
    beam: Floats
    """Effective beam at the source, 1 on the axis of the dishes."""
    beam_missing: Floats
    """Part of the beam map around the source that has no value."""


T = TypeVar("T", Targets, Measurements)


def run(options: PhotometryOptions, context: Context) -> StageResult:
    """Measure the catalogue sources of one image; write and publish one row for each source."""
    with context.step("read"):
        image, beam_map, residual = (
            read_image(context.fetch(options.image, name), f"{options.image}/{name}")
            for name in ("image.fits", "beam.fits", "residual.fits")
        )
        for plane in (image, residual):
            plane.pixels[...] *= plane.jy_per_unit
        manifest = context.manifest(options.image)
        epoch = read_epoch(manifest, options.image, image) | read_setup(manifest, image)
        catalogue = context.named("catalogue")
        epoch["catalogue"] = catalogue[0].digest[:12] if catalogue else "nvss"
        targets = catalogue_targets(options, image, beam_map, epoch["frequency"])
    with context.step("measure"):
        beam = BeamProfile.of(image)
        reach = int(np.ceil((2 * options.aperture + options.pair_separation) * beam.major)) + 1
        ny, nx = residual.pixels.shape
        low, left = max(0, (ny - NOISE_BOX_PX) // 2), max(0, (nx - NOISE_BOX_PX) // 2)
        box = residual.pixels[low : low + NOISE_BOX_PX, left : left + NOISE_BOX_PX]
        noise = measure_autocorrelation(box, min(reach, min(box.shape) // 2))
        x, y = image.to_pixels(targets.ra_deg, targets.dec_deg)
        found = measure(image.pixels, x, y, beam, noise, options)
        wanted = targets.ra_deg.size
        targets, found = drop_unmeasured(targets, found, options.image)
        extended = measure_extended(image, beam, noise, targets, found, options)
    # The error that calibration expects of its scale; negative if unknown, absent elsewhere.
    calibration_error = max(0.0, float(image.header.get("SCALEERR", 0.0)))
    common_error = np.hypot(options.flux_scale_error, calibration_error)
    scale_error = np.hypot(common_error, beam_errors(context, options.image, manifest, targets))
    offsets = offsets_arcsec(image, targets, found)
    rows = photometry_rows(targets, found, offsets, options.detection_snr, scale_error)
    factor = MJY_PER_JY / targets.beam
    flux_int = extended["flux"] * factor
    rows["flux_int"] = flux_int
    rows["flux_int_err"] = np.hypot(extended["flux_noise"] * factor, scale_error * flux_int)
    rows |= {name: extended[name] for name in ("major", "minor", "pa")}
    rows |= {name: [value] * targets.ra_deg.size for name, value in epoch.items()}
    with context.step("write"):
        table = PHOTOMETRY.table(rows)
        context.write_table("photometry.parquet", PHOTOMETRY, table)
        day = day_of_mjd(epoch["mjd"])
        context.publish(options.tables, PHOTOMETRY, day, epoch["group"], table)
    metrics = summarise(rows, options.position_snr)
    metrics["unmeasured"] = wanted - len(rows["source"])
    qa = assess_quality(metrics, image.beam.minor_deg * ARCSEC_PER_DEG)
    return StageResult(metrics={"group": epoch["group"], "mjd": epoch["mjd"], **metrics}, qa=qa)


def read_epoch(manifest: Manifest, uri: str, image: SkyImage) -> dict[str, Any]:
    """Return the columns that all rows of an image share.

    Raises BadInputError if the manifest is not that of an image.
    """
    metrics = manifest.metrics
    missing = [name for name in ("group", "mjd") if metrics.get(name) is None]
    if missing:
        problem = f"The artifact lacks the metrics of an image: {', '.join(missing)}."
        raise BadInputError(uri, problem, "Name an image artifact.")
    strip = metrics.get("pointing_dec_deg")
    return {
        "group": str(metrics["group"]),
        "image": manifest.key,
        "mjd": float(metrics["mjd"]),
        "primary_beam": metrics.get("primary_beam"),
        "strip": image.centre_deg[1] if strip is None else float(strip),
    }


def read_setup(manifest: Manifest, image: SkyImage) -> dict[str, Any]:
    """Return the columns that say with which other images fluxes may be compared."""
    return {
        "tier": manifest.options.get("tier"),
        "frequency": manifest.metrics.get("frequency_hz") or image.frequency_hz,
        "bmaj": image.beam.major_deg * ARCSEC_PER_DEG,
        "bmin": image.beam.minor_deg * ARCSEC_PER_DEG,
        "used_fraction": manifest.metrics.get("used_fraction"),
    }


def sample_beam(beam_map: SkyImage, ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats]:
    """Return the beam at positions, shape (N,), and the part of the map that is missing there.

    Where single pixels have no value, it is the mean of those within BEAM_GAP_PX, as the beam is
    smooth. It is NaN where more than MAX_BEAM_GAP of them have none, as at the end of a map.
    """
    beam = beam_map.sample(ra_deg, dec_deg)
    missing = np.zeros(beam.size)
    x, y = beam_map.to_pixels(ra_deg, dec_deg)
    for k in np.flatnonzero(~np.isfinite(beam) & np.isfinite(x) & np.isfinite(y)):
        column, row = round(float(x[k])), round(float(y[k]))
        parts = (slice(max(0, n - BEAM_GAP_PX), max(0, n + BEAM_GAP_PX + 1)) for n in (row, column))
        box = beam_map.pixels[tuple(parts)]
        share = np.count_nonzero(~np.isfinite(box)) / max(1, box.size)
        if box.size >= (1 + 2 * BEAM_GAP_PX) ** 2 and 0 < share <= MAX_BEAM_GAP:
            beam[k], missing[k] = float(np.nanmean(box)), share
    return beam, missing


def catalogue_targets(
    options: PhotometryOptions, image: SkyImage, beam_map: SkyImage, freq_hz: float | None
) -> Targets:
    """Return the catalogue's sources on the image where the effective beam is large enough.

    Their fluxes are scaled to `freq_hz` if it is known. Raises NoSourcesError without sources.
    """
    catalogue = load(options.catalogue) if options.catalogue else nvss()
    # Where every pixel must be: the reference position may be far from a cut-out.
    ny, nx = image.pixels.shape
    ra, dec = image.to_sky(np.array([(nx - 1) / 2]), np.array([(ny - 1) / 2]))
    radius_deg = MAX_STRETCH * 0.5 * float(np.hypot(*np.multiply((nx, ny), image.cell_deg)))
    near = catalogue.within(float(ra[0]), float(dec[0]), radius_deg)
    x, y = np.round(image.to_pixels(near.ra_deg, near.dec_deg))
    near = near.select((x >= 0) & (x < nx) & (y >= 0) & (y < ny))  # False for NaN
    beam, beam_missing = sample_beam(beam_map, near.ra_deg, near.dec_deg)
    targets = Targets(
        name=near.name,
        ra_deg=near.ra_deg,
        dec_deg=near.dec_deg,
        flux_jy=near.flux_jy if freq_hz is None else near.at_frequency(freq_hz).flux_jy,
        flux_error=np.full(beam.size, np.nan) if freq_hz is None else near.scaling_error(freq_hz),
        beam=beam,
        beam_missing=beam_missing,
    )
    kept = select_sources(targets, beam >= options.min_beam)  # False for NaN: outside the map
    if not kept.ra_deg.size:
        least = options.min_beam
        problem = f"The effective beam is below {least} at all {beam.size} catalogue sources."
        remedy = "Lower --min-beam, or give a deeper --catalogue."
        raise NoSourcesError(beam_map.where, problem, remedy)
    return kept


def drop_unmeasured(
    targets: Targets, found: Measurements, where: str
) -> tuple[Targets, Measurements]:
    """Leave out sources without a flux or noise: too few pixels, or two entries for one source.

    Raises NoSourcesError if nothing is left.
    """
    good = np.isfinite(found.peak) & np.isfinite(found.fit) & (found.peak_noise > 0)
    if not good.any():
        problem = "No catalogue source has pixels with noise around it."
        raise NoSourcesError(where, problem, "Look at the image: is it blank?")
    return select_sources(targets, good), select_sources(found, good)


def select_sources(whole: T, selected: NDArray[np.bool_]) -> T:
    """Return some elements of every array of a dataclass."""
    return replace(whole, **{name: array[selected] for name, array in vars(whole).items()})


def source_name(ra_deg: float, dec_deg: float) -> str:
    """Return the IAU name of an ICRS position, ``DSA Jhhmmss.s+ddmmss``: truncated, not rounded."""
    tenths = int(np.floor(ra_deg % 360.0 / 15.0 * 36000.0 + 1e-6))
    arcsec = int(np.floor(abs(dec_deg) * 3600.0 + 1e-6))
    sign = "-" if dec_deg < 0 else "+"
    hours, minutes, seconds = tenths // 36000, tenths // 600 % 60, tenths % 600
    return (
        f"DSA J{hours:02d}{minutes:02d}{seconds // 10:02d}.{seconds % 10}"
        f"{sign}{arcsec // 3600:02d}{arcsec // 60 % 60:02d}{arcsec % 60:02d}"
    )


def offsets_arcsec(image: SkyImage, targets: Targets, found: Measurements) -> Floats:
    """Return east, north and their errors of the fitted positions, ICRS arcsec, shape (4, N)."""
    x, y = image.to_pixels(targets.ra_deg, targets.dec_deg)
    east, north = image.offsets_arcsec(x, y, found.dx, found.dy)
    along_x = image.offsets_arcsec(x, y, found.dx_noise, 0 * x)
    along_y = image.offsets_arcsec(x, y, 0 * x, found.dy_noise)
    errors = [np.hypot(a, b) for a, b in zip(along_x, along_y, strict=True)]
    return np.array([east, north, *errors])


def measure_extended(
    image: SkyImage,
    beam: BeamProfile,
    noise: Correlation,
    targets: Targets,
    found: Measurements,
    options: PhotometryOptions,
) -> dict[str, Floats]:
    """Return integrated fluxes, their noise (Jy) and widths (arcsec, deg) of bright single sources.

    Shape (N,) each; NaN for all others.
    """
    x, y = image.to_pixels(targets.ra_deg, targets.dec_deg)
    bright = (found.blend == 1) & (found.peak > options.position_snr * found.peak_noise)
    radius = EXTENDED_RADIUS_BEAMS * beam.major
    columns = np.full((5, x.size), np.nan)
    for k in np.flatnonzero(bright):
        level = (float(found.peak[k]), float(found.background[k]), float(found.peak_noise[k]))
        place = (float(x[k]), float(y[k]))
        fit = fit_extended(image.pixels, place, beam, noise, level, radius)
        size = widths(fit.shape, image.pixel_matrix * ARCSEC_PER_DEG)
        columns[:, k] = fit.flux, fit.flux_noise, *size
    return dict(zip(("flux", "flux_noise", "major", "minor", "pa"), columns, strict=True))


def beam_errors(context: Context, uri: str, manifest: Manifest, targets: Targets) -> Floats:
    """Return the relative errors that the image's primary beam states for each source, (N,).

    They follow from those of its width and axis, as ``contimg beam fit`` writes them; 0 if there
    are none.
    """
    errors, metrics = None, manifest.metrics
    pointing = [metrics.get(name) for name in ("mjd_start", "mjd_end", "pointing_dec_deg")]
    if any(output.name == BEAM_FILE for output in manifest.outputs) and None not in pointing:
        beam = PrimaryBeam.load(json.loads(context.fetch(uri, BEAM_FILE).read_bytes()))
        errors = beam.errors
    if errors is None:
        return np.zeros(targets.ra_deg.size)
    start, end, strip_deg = np.array(pointing, np.float64)
    moments = beam_fit.sample_times(start, end)

    def log_level(one: PrimaryBeam) -> Floats:
        place = targets.ra_deg, targets.dec_deg
        return np.log(beam_fit.mean_beam(*place, moments, strip_deg, SITE, one))

    steps = dict(zip(beam_fit.STEPS, errors, strict=True))
    slopes = beam_fit.log_slopes(beam, steps, log_level)
    return np.asarray(np.linalg.norm(slopes * np.array(errors)[:, None], axis=0))


def photometry_rows(
    targets: Targets,
    found: Measurements,
    offsets: Floats,
    detection_snr: float,
    scale_error: Floats,
) -> dict[str, Any]:
    """Return the columns of the photometry table but for those that all rows share.

    Fluxes are found in Jy/beam, apparent and finite. `offsets` are those of `offsets_arcsec`, and
    `scale_error` the relative error of the flux scale at each source.
    """
    factor = MJY_PER_JY / targets.beam
    forced, rms = found.peak * factor, found.peak_noise * factor
    fit, fit_rms = found.fit * factor, found.fit_noise * factor
    detected = found.peak >= detection_snr * found.peak_noise
    peak, fitted = np.where(detected, forced, np.nan), np.where(detected, fit, np.nan)
    catalogue = targets.flux_jy * MJY_PER_JY
    return {
        "source": [*map(source_name, targets.ra_deg, targets.dec_deg)],
        "ra": targets.ra_deg,
        "dec": targets.dec_deg,
        "beam": targets.beam,
        "flux_peak": peak,
        "flux_peak_err": np.hypot(rms, scale_error * peak),
        "flux_fit": fitted,
        "flux_fit_err": np.hypot(fit_rms, scale_error * fitted),
        "flux_forced": forced,
        "local_rms": rms,
        "flux_fit_rms": fit_rms,
        "flux_scale_err": scale_error,
        "background": found.background * factor,
        "snr": found.peak / found.peak_noise,
        "upper_limit": ~detected,
        "flux_limit": np.where(detected, np.nan, np.maximum(forced, 0.0) + LIMIT_SIGMA * rms),
        "compactness": fitted / peak,
        "blend": found.blend,
        "missing": np.maximum(found.missing, targets.beam_missing),
        "ra_offset": offsets[0],
        "dec_offset": offsets[1],
        "ra_offset_err": offsets[2],
        "dec_offset_err": offsets[3],
        "catalogue_name": targets.name.tolist(),
        "catalogue_flux": catalogue,
        "flux_ratio": peak / catalogue,
        "catalogue_flux_err": targets.flux_error * catalogue,
    }


def summarise(rows: dict[str, Any], bright_snr: float) -> dict[str, Any]:
    """Return the metrics: numbers of sources, flux ratio to the catalogue, astrometry.

    Medians are over single sources of at least `bright_snr`; those that are not finite are null.
    """
    bright = (rows["snr"] >= bright_snr) & (rows["blend"] == 1) & (rows["missing"] == 0)
    counts = {
        "sources": len(rows["source"]),
        "detected": int((~rows["upper_limit"]).sum()),
        "bright": int(bright.sum()),
        "incomplete": int((rows["missing"] > 0).sum()),
    }
    values = {"rms_median_mjy": np.median(rows["local_rms"] * rows["beam"])}
    if bright.any():
        ratio, east, north = rows["flux_ratio"], rows["ra_offset"], rows["dec_offset"]
        middle = np.nanmedian(ratio[bright])
        relative = rows["catalogue_flux_err"] / rows["catalogue_flux"]
        values |= {
            "ratio_median": middle,
            "ratio_error": np.median(relative[bright]),
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
    reasons, bright = [], metrics["bright"]
    lost = metrics["unmeasured"] / (metrics["unmeasured"] + metrics["sources"])
    if lost > MAX_UNMEASURED:
        text = "too few pixels around them, or two entries for one source"
        reasons.append(f"{lost:.0%} of the sources have no row: {text}")
    if bright < MIN_BRIGHT_SOURCES:
        reasons.append(f"only {bright} bright single sources to compare with the catalogue")
    elif (metrics.get("ratio_error") or 0.0) > MAX_SCALING_ERROR:
        reasons.append("the catalogue is too far in frequency for a check of the flux scale")
    elif abs(metrics["ratio_median"] - 1) > MAX_RATIO_DEVIATION:
        reasons.append(f"the median flux ratio to the catalogue is {metrics['ratio_median']:.3f}")
    for axis in ("ra", "dec"):
        offset = metrics.get(f"{axis}_offset_arcsec")
        if offset is not None and abs(offset) > MAX_OFFSET_BEAMS * minor_arcsec:
            reasons.append(f"the median {axis} offset is {offset:.2f} arcsec")
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
