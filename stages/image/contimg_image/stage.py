"""The image stage: average, weigh, subtract bright sources, clean, check and write one group."""

from __future__ import annotations

import shutil

from contimg.astro.catalogues import load, nvss
from contimg.records.ms import MeasurementSet
from contimg.runtime.context import Context, StageResult
from contimg_image import diagnostics, masks, product, quality
from contimg_image.averaging import average
from contimg_image.beam import smearing_loss
from contimg_image.bright import choose_sources, restore_bright, subtract_bright
from contimg_image.cleaning import ExpectedSky, clean
from contimg_image.field import ImagingField, half_power_beam
from contimg_image.imagers import ImagerJob
from contimg_image.observation import ImagingInput, fetch_input
from contimg_image.options import ImageOptions
from contimg_image.tiers import Settings, choose_settings

STEP_COUNT = 6
EDGE_LEVEL = 0.2
"""Out to where the beam has this level at the middle of the band, smearing is kept small."""
MEMORY_PER_PIXEL_BYTES = 90
"""Peak memory of cleaning per pixel of the image, WSClean's padded grids included."""


def run(options: ImageOptions, context: Context) -> StageResult:
    """Image one group."""
    with context.step("fetch"):
        observation = fetch_input(options, context)
    context.progress(1, STEP_COUNT)
    with context.step("average"):
        settings = choose_settings(options, observation.header, observation.longest_m)
        edge_rad, dec_deg = edge_radius_rad(observation, settings), observation.pointing_dec_deg
        with MeasurementSet(observation.path) as ms:
            given = observation.flags, observation.gains, edge_rad, settings.longest_m
            data = average(options.ms, ms, *given, observation.channels)
        # Scratch may be memory, which the imager needs.
        shutil.rmtree(observation.path)
        field = ImagingField.of(data, settings, dec_deg, observation.site, observation.beam)
    catalogue = load(options.catalogue) if options.catalogue else nvss()
    with context.step("bright sources"):
        sources = choose_sources(catalogue, field, (settings.bright, settings.beyond))
        before = tuple(part.vis.copy() for part in data.sets)
        subtracted = [(sources, subtract_bright(field, sources))]
        context.write("uv.npz", diagnostics.summarise_baselines(data, before, subtracted[0][1]))
        sample = diagnostics.sample_slices(data)
        before = tuple(whole[sample].copy() for whole in before)
        paths = field.write_sets(context.scratch)
    context.progress(2, STEP_COUNT)
    with context.step("beam"):
        beam, sky = half_power_beam(field), ExpectedSky.of(catalogue, field)
        loss = smearing_loss(field, edge_rad)
    context.progress(3, STEP_COUNT)
    context.need(0, MEMORY_PER_PIXEL_BYTES * settings.size**2)
    with context.step("clean"):
        job = ImagerJob(paths, settings, beam, field.frame, options.backend, options.timeout_s)
        cleaned, mask, uncatalogued = clean(context, job, field, sky, subtracted)
        restore_bright(cleaned.image, subtracted, cleaned.beam, cleaned.cell_deg)
    context.progress(4, STEP_COUNT)
    with context.step("judge"):
        local_rms = masks.rms_map(cleaned.residual, mask, cleaned.beam_px)
        # Only now do the subtracted sources include bright ones that the catalogue lacks.
        antennas = diagnostics.measure_phases(data, before)
        quality.check_phases(options.ms, antennas)
        numbers = quality.measure_quality(options.ms, cleaned, local_rms, sky, field)
        numbers |= {"phase_error_deg": antennas.error_deg, "phase_noise_deg": antennas.noise_deg}
        numbers |= {"smearing_loss": loss, "strangers": float(uncatalogued)}
        qa = quality.assess_quality(numbers, known_beam=field.primary_beam is not None)
    context.progress(5, STEP_COUNT)
    with context.step("write"):
        robust, rms_jy = settings.robust, numbers["rms_jy"]
        header = product.make_header(observation, field, cleaned, robust, rms_jy)
        product.write_images(context, header, cleaned, sky.effective, local_rms)
        metrics = product.image_metrics(observation, field, cleaned, numbers)
        product.write_record(context, settings, metrics, field)
        known = vars(settings) | metrics | {"verdict": qa.verdict}
        product.publish_row(context, options, observation, known)
    context.progress(STEP_COUNT, STEP_COUNT)
    return StageResult(metrics=metrics, qa=qa)


def edge_radius_rad(observation: ImagingInput, settings: Settings) -> float:
    """Return the radius out to which smearing is kept small: the beam's 20 %, or the image."""
    if observation.pointing_dec_deg is None:
        return settings.width_rad / 2
    return observation.beam.radius_rad(EDGE_LEVEL, float(observation.header.frequencies_hz.mean()))
