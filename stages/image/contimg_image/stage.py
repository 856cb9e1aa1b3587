"""Calibrated image of one group: average, weigh, mask, clean, correct, judge."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.catalogues import load, nvss
from contimg.records.groups import day_of_mjd
from contimg.records.images import bilinear
from contimg.records.ms import MeasurementSet
from contimg.records.schemas.images import IMAGES
from contimg.runtime.context import StageResult
from contimg_image import (
    averaging,
    beam,
    bright,
    describe,
    judge,
    noise,
    phases,
    rows,
    tiers,
    uv,
    wsclean,
)
from contimg_image.frame import Frame
from contimg_image.observation import Observation, fetch
from contimg_image.rounds import CUT, Field, Sky, beam_px, clean
from contimg_image.weights import ImagingWeights, half_power_beam, imaging_weights

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.catalogues import Catalogue
    from contimg.runtime.context import Context
    from contimg_image.averaging import Averaged
    from contimg_image.bright import Bright
    from contimg_image.options import ImageOptions
    from contimg_image.phases import Sample
    from contimg_image.tiers import Settings
    from contimg_image.wsclean import Cleaned

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]

STEPS = 6
EDGE_RAD = float(np.radians(1.98))
"""Where the beam of our dishes is 20 % at the middle of the band: smearing is kept small out to here."""
MEMORY_PER_PIXEL = 90
"""Bytes that a pixel needs at the height of cleaning, WSClean's padded grids included."""
ARCSEC_RAD = float(np.radians(1 / 3600))


def run(options: ImageOptions, context: Context) -> StageResult:
    """Image one group."""
    with context.step("fetch"):
        seen = fetch(options, context)
    context.progress(1, STEPS)
    with context.step("average"):
        data, settings = average(options, seen)
        # Scratch may be memory, and the imager needs it more.
        shutil.rmtree(seen.path)
        padded = wsclean.PADDING * settings.width_rad
        weights = imaging_weights(data, settings.robust, padded, settings.taper_arcsec * ARCSEC_RAD)
    frame = Frame(
        float(np.degrees(seen.header.ra_rad)),
        float(np.degrees(seen.header.dec_rad)),
        settings.size,
        settings.cell_arcsec,
    )
    where = beam.pointing(seen.header, data.times_s, seen.pointing_dec_deg, seen.site)
    catalogue = load(options.catalogue) if options.catalogue else nvss()
    with context.step("bright sources"):
        field = Field(data, weights, where, frame)
        chosen = bright.choose(
            catalogue, frame, where, weights.frequency_hz, (settings.bright, settings.beyond)
        )
        before = take_out(context, field, chosen)
        paths = field.write(context.scratch)
    context.progress(2, STEPS)
    with context.step("beam"):
        lobe = half_power_beam(data, weights)
        sky = expect(catalogue, frame, data, weights, where)
        lost = beam.smearing_loss(data, weights, where, edge_rad(where, settings))
    context.progress(3, STEPS)
    context.need(0, MEMORY_PER_PIXEL * settings.size**2)
    with context.step("clean"):
        restoring = (lobe[0] / ARCSEC_RAD, lobe[1] / ARCSEC_RAD, float(np.degrees(lobe[2])))
        job = wsclean.Job(paths, settings, restoring, frame, options.timeout_s)
        made, mask, strangers = clean(options.backend, context, job, sky, field)
        field.put_back(made)
    context.progress(4, STEPS)
    with context.step("judge"):
        local = noise.rms_map(made.residual, mask, beam_px(made, frame))
        # Of all that was taken out: a bright source that the catalogue lacks is among it only now.
        found = phases.against_sources(data, before)
        judge.check_phases(options.ms, found)
        numbers = measure(options.ms, made, local, sky, weights, frame)
        numbers |= {
            "smearing_loss": lost,
            "strangers": float(strangers),
            "used_fraction": data.used,
        }
        numbers |= {"phase_error_deg": found.error_deg, "phase_noise_deg": found.noise_deg}
    context.progress(5, STEPS)
    with context.step("write"):
        of = describe.description(seen, frame, made, weights, settings, numbers)
        describe.publish(context, of, made, sky.effective, local, CUT)
        metrics = describe.metrics(seen, data, made, weights, numbers)
        record = {
            "settings": vars(settings),
            "metrics": metrics,
            "sets": [describe.of_set(part) for part in data.sets],
        }
        context.write("imaging.json", json.dumps(record, indent=1).encode())
        qa = judge.verdict(numbers, known_beam=sky.known_beam)
        if options.tables is not None:
            row = rows.image_row(context, options, seen, settings, metrics) | {
                "verdict": qa.verdict
            }
            context.publish(
                options.tables, IMAGES, day_of_mjd(seen.mjd), seen.group, IMAGES.rows([row])
            )
    context.progress(STEPS, STEPS)
    return StageResult(metrics=metrics, qa=qa)


def take_out(context: Context, field: Field, sources: Bright) -> Sample:
    """Take sources out of the visibilities and write what those are; return some of them as they were."""
    before = uv.copied(field.data)
    field.take_out(sources)
    context.write("uv.npz", uv.summary(field.data, before, field.sources))
    return phases.sample(before)


def average(options: ImageOptions, seen: Observation) -> tuple[Averaged, Settings]:
    """Calibrate and average the visibilities; return them with the settings that fit them."""
    with MeasurementSet(seen.path) as ms:
        header = ms.header
        longest_m = float(averaging.baseline_lengths_m(header, ms.rows).max())
        freq = float(header.frequencies_hz[-1])
        settings = tiers.settings(
            options,
            header.telescope,
            longest_m,
            float(np.median(header.antennas.diameters_m)),
            freq,
        )
        radius_rad = EDGE_RAD if seen.pointing_dec_deg is not None else settings.width_rad / 2
        data = averaging.average(
            options.ms, ms, seen.flags, seen.gains, radius_rad, settings.longest_m
        )
    return data, settings


def edge_rad(where: beam.Pointing, settings: Settings) -> float:
    """Return the distance from the centre out to which an image keeps its promises."""
    return EDGE_RAD if where.known_beam else settings.width_rad / 2


def expect(
    catalogue: Catalogue,
    frame: Frame,
    data: Averaged,
    weights: ImagingWeights,
    where: beam.Pointing,
) -> Sky:
    """Return the effective beam on the image's grid, and the catalogue's sources as it lets them appear."""
    axis, directions = beam.coarse_grid(frame.size * frame.cell_rad)
    coarse = beam.effective_beam(data, weights, where, directions)
    effective = beam.on_image(axis, coarse, frame.size, frame.cell_rad)
    near = catalogue.within(frame.ra_deg, frame.dec_deg, frame.radius_deg)
    x, y = frame.pixels(near.ra_deg, near.dec_deg)
    inside = frame.inside(x, y, margin=2)
    expected = near.flux_jy[inside] * bilinear(effective, x[inside], y[inside])
    return Sky(effective, where.known_beam, x[inside], y[inside], expected)


def measure(
    where: str, made: Cleaned, local: Singles, sky: Sky, weights: ImagingWeights, frame: Frame
) -> dict[str, float]:
    """Return what the image says of itself, and refuse it if that is absurd."""
    judge.check_planes(where, made, frame.cell_deg)
    good = sky.effective >= CUT
    rms = float(np.median(local[good] if good.any() else local))
    # Of one polarization the noise cannot be told from the sky; then the image is only compared with itself.
    thermal = weights.thermal_rms_jy if np.isfinite(weights.thermal_rms_jy) else rms
    sure = (sky.expected_jy >= judge.SURE * thermal) & (
        bilinear(sky.effective, sky.x, sky.y) >= CUT
    )
    found = judge.sightings(
        made.image, sky.x[sure], sky.y[sure], sky.expected_jy[sure], beam_px(made, frame) / 2
    )
    judge.check_sky(where, rms, thermal, found)
    return {
        "rms_jy": rms,
        "noise_ratio": rms / weights.thermal_rms_jy,
        "peak_jy": float(made.image.max()),
        "sightings": float(found.expected_jy.size),
        "flux_ratio": found.ratio,
    }
