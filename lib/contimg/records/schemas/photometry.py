"""Forced photometry: one row a source and image, also where the source was not detected."""

from __future__ import annotations

from contimg.records.tables import FLUX, Schema, parse_columns

PHOTOMETRY = Schema(
    name="photometry",
    version=1,
    sort=("source", "mjd"),
    columns=parse_columns(f"""
    source | string | | meta.id;meta.main | DSA Jhhmmss.s+ddmmss, of the catalogue position
    ra | float64 | deg | pos.eq.ra;meta.main | ICRS, of the catalogue
    dec | float64 | deg | pos.eq.dec;meta.main | ICRS, of the catalogue
    group | string | | meta.id;obs | The observation that was imaged
    image | string | | meta.id;obs.image | Key of the image artifact
    mjd | float64 | d | time.epoch | UTC midpoint of the observation
    strip | float64? | deg | pos.eq.dec;instr | Declination that the telescope pointed to
    tier | string? | | meta.code;instr.setup | Tier of the image
    frequency | float64? | Hz | em.freq | Of the image: mean with its weights
    bmaj | float32? | arcsec | phys.angSize.smajAxis;instr.beam | Restoring beam of the image, FWHM
    bmin | float32? | arcsec | phys.angSize.sminAxis;instr.beam | Restoring beam of the image, FWHM
    used_fraction | float32? | | stat.value;arith.ratio | Visibilities of the image with weight
    catalogue | string? | | meta.id;meta.dataset | Digest of the catalogue; nvss: the shipped one
    beam | float32? | | arith.factor;instr.beam | Effective beam, 1 at the centre; divides fluxes
    flux_peak | float32? | mJy/beam | {FLUX};stat.max | Beam amplitude; null if not detected
    flux_peak_err | float32? | mJy/beam | stat.error;{FLUX} | 1 sigma: local_rms and flux-scale term
    flux_fit | float32? | mJy | {FLUX} | Flux of the beam fitted at the position, if detected
    flux_fit_err | float32? | mJy | stat.error;{FLUX} | 1 sigma: flux_fit_rms and flux-scale term
    flux_forced | float32? | mJy/beam | {FLUX} | As flux_peak, but also if not detected
    local_rms | float32? | mJy/beam | instr.det.noise | 1 sigma of flux_forced, divided by the beam
    flux_fit_rms | float32? | mJy | stat.error;{FLUX} | 1 sigma noise of flux_fit, from the \
        noise's autocorrelation
    flux_scale_err | float32? | | stat.error;phot.flux.density | 1 sigma of the flux scale there, \
        relative
    background | float32? | mJy/beam | phot.flux.density;instr.background | Taken from an annulus, \
        subtracted
    snr | float32 | | stat.snr | flux_forced / local_rms
    upper_limit | bool | | meta.code | True: not detected, flux_limit holds
    flux_limit | float32? | mJy/beam | {FLUX};stat.max | max(flux_forced, 0) + 3 local_rms; null \
        if detected
    compactness | float32? | | phys.angSize;arith.ratio | flux_fit / flux_peak; above 1 if extended
    blend | int16 | | meta.number | Sources that were fitted together; 1: alone
    missing | float32? | | stat.value;arith.ratio | Part of the aperture without pixels, by the \
        fit's weights; where the peak needs them, flux_forced is the fit
    ra_offset | float32? | arcsec | pos.eq.ra;arith.diff | Fitted minus catalogue, on the sky
    dec_offset | float32? | arcsec | pos.eq.dec;arith.diff | Fitted minus catalogue; null if faint
    ra_offset_err | float32? | arcsec | stat.error;pos.eq | 1 sigma, noise alone
    dec_offset_err | float32? | arcsec | stat.error;pos.eq | 1 sigma, noise alone
    catalogue_name | string? | | meta.id;meta.dataset | Name in the catalogue
    catalogue_flux | float32? | mJy | {FLUX} | Of the catalogue at its own resolution, scaled to \
        `frequency`
    flux_ratio | float32? | | phot.flux.density;arith.ratio | flux_peak / catalogue_flux, or null
    catalogue_flux_err | float32? | mJy | stat.error;{FLUX} | 1 sigma, of scaling it in frequency
    primary_beam | string? | | meta.id;instr.beam | Name of the primary beam in `beam`
    flux_int | float32? | mJy | {FLUX} | Integrated, of a Gaussian fitted to a single bright source
    flux_int_err | float32? | mJy | stat.error;{FLUX} | 1 sigma: noise and flux-scale term
    major | float32? | arcsec | phys.angSize.smajAxis | Of that Gaussian without the beam, FWHM; \
        null if the source is not wider than the beam by 3 sigma
    minor | float32? | arcsec | phys.angSize.sminAxis | The same, minor axis; 0 if below the beam's
    pa | float32? | deg | pos.posAng | Of the major axis, from north through east
    """),
)
"""One file a group: ``photometry/date=YYYY-MM-DD/GROUP.parquet``."""
