"""The image stage: average, weigh, subtract bright sources, clean, check and write one group."""

from __future__ import annotations

import json
import shutil

import numpy as np

from contimg.astro.catalogues import load, nvss
from contimg.records.groups import day_of_mjd
from contimg.records.ms import MeasurementSet
from contimg.records.schemas.images import IMAGES
from contimg.runtime.context import Context, StageResult
from contimg_image import noise, phases, product, quality, uv
from contimg_image.averaging import AveragedVisibilities, average, baseline_lengths_m
from contimg_image.beam import smearing_loss
from contimg_image.bright import choose_sources, restore_bright, subtract_bright
from contimg_image.cleaning import clean, expect_sky
from contimg_image.field import ImagingField, Pointing
from contimg_image.frame import ARCSEC_RAD, Frame
from contimg_image.imagers import PADDING, ImagerJob
from contimg_image.observation import ImagingInput, fetch_input
from contimg_image.options import ImageOptions
from contimg_image.tiers import Settings, choose_settings
from contimg_image.weights import half_power_beam, imaging_weights

STEP_COUNT = 6
EDGE_RAD = float(np.radians(1.98))
"""Where the beam of our dishes is 20 % at the middle of the band: out to here smearing is small."""
MEMORY_PER_PIXEL_BYTES = 90
"""Peak memory of cleaning per pixel of the image, WSClean's padded grids included."""


def run(options: ImageOptions, context: Context) -> StageResult:
    """Image one group."""
    with context.step("fetch"):
        observation = fetch_input(options, context)
    context.progress(1, STEP_COUNT)
    with context.step("average"):
        data, settings = average_visibilities(options, observation)
        # Scratch may be memory, which the imager needs.
        shutil.rmtree(observation.path)
        field = plan_field(observation, data, settings)
    catalogue = load(options.catalogue) if options.catalogue else nvss()
    with context.step("bright sources"):
        sources = choose_sources(catalogue, field, (settings.bright, settings.beyond))
        before = tuple(part.vis.copy() for part in data.sets)
        subtracted = [(sources, subtract_bright(field, sources))]
        context.write("uv.npz", uv.summarise_baselines(data, before, subtracted[0][1]))
        before = phases.sample_visibilities(before)
        paths = field.write_sets(context.scratch)
    context.progress(2, STEP_COUNT)
    with context.step("beam"):
        beam = half_power_beam(data, field.weights)
        sky = expect_sky(catalogue, field)
        loss = smearing_loss(field, edge_radius_rad(observation, settings))
    context.progress(3, STEP_COUNT)
    context.need(0, MEMORY_PER_PIXEL_BYTES * settings.size**2)
    with context.step("clean"):
        job = ImagerJob(paths, settings, beam, field.frame, options.timeout_s)
        cleaned, mask, uncatalogued = clean(options.backend, context, job, field, sky, subtracted)
        for sources, apparent_jy in subtracted:
            restore_bright(cleaned.image, sources, apparent_jy, cleaned.beam, cleaned.cell_deg)
    context.progress(4, STEP_COUNT)
    with context.step("judge"):
        local_rms = noise.rms_map(cleaned.residual, mask, cleaned.beam_px)
        # Only now do the subtracted sources include bright ones that the catalogue lacks.
        antennas = phases.measure_phases(data, before)
        quality.check_phases(options.ms, antennas)
        thermal_rms_jy = field.weights.thermal_rms_jy
        numbers = quality.measure_quality(options.ms, cleaned, local_rms, sky, thermal_rms_jy)
        numbers |= {
            "smearing_loss": loss,
            "strangers": float(uncatalogued),
            "used_fraction": data.used,
            "phase_error_deg": antennas.error_deg,
            "phase_noise_deg": antennas.noise_deg,
        }
        qa = quality.assess_quality(numbers, known_beam=field.pointing.known_beam)
    context.progress(5, STEP_COUNT)
    with context.step("write"):
        header = product.common_header(
            observation, field, cleaned, settings.robust, numbers["rms_jy"]
        )
        product.write_images(context, header, cleaned, sky.effective, local_rms, field)
        metrics = product.image_metrics(observation, field, cleaned, numbers)
        record = product.imaging_record(settings, metrics, data)
        context.write("imaging.json", json.dumps(record, indent=1).encode())
        if options.tables is not None:
            row = product.image_row(context, options, observation, settings, metrics)
            rows, day = IMAGES.rows([row | {"verdict": qa.verdict}]), day_of_mjd(observation.mjd)
            context.publish(options.tables, IMAGES, day, observation.group, rows)
    context.progress(STEP_COUNT, STEP_COUNT)
    return StageResult(metrics=metrics, qa=qa)


def edge_radius_rad(observation: ImagingInput, settings: Settings) -> float:
    """Return the distance from the phase centre out to which smearing must stay small."""
    ours = observation.pointing_dec_deg is not None
    return EDGE_RAD if ours else settings.width_rad / 2


def average_visibilities(
    options: ImageOptions, observation: ImagingInput
) -> tuple[AveragedVisibilities, Settings]:
    """Calibrate and average the visibilities; return them with the settings that fit them."""
    with MeasurementSet(observation.path) as ms:
        header = ms.header
        settings = choose_settings(
            options,
            header.telescope,
            longest_baseline_m=float(baseline_lengths_m(header, ms.rows).max()),
            dish_m=float(np.median(header.antennas.diameters_m)),
            freq_hz=float(header.frequencies_hz[-1]),
        )
        radius_rad = edge_radius_rad(observation, settings)
        flags, gains = observation.flags, observation.gains
        return average(options.ms, ms, flags, gains, radius_rad, settings.longest_m), settings


def plan_field(
    observation: ImagingInput, data: AveragedVisibilities, settings: Settings
) -> ImagingField:
    """Return the field of the image with its weights, its pointing and its pixel grid."""
    header, dec_deg = observation.header, observation.pointing_dec_deg
    ra, dec = float(np.degrees(header.ra_rad)), float(np.degrees(header.dec_rad))
    padded_rad, taper_rad = PADDING * settings.width_rad, settings.taper_arcsec * ARCSEC_RAD
    return ImagingField(
        data=data,
        weights=imaging_weights(data, settings.robust, padded_rad, taper_rad),
        pointing=Pointing.of(header, data.times_s, dec_deg, observation.site),
        frame=Frame(ra, dec, settings.size, settings.cell_arcsec),
    )
