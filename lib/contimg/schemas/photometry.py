"""Forced photometry: one row a source and image, also where the source was not detected."""

from __future__ import annotations

import pyarrow as pa

from contimg.tables import FLUX, Column, Schema

PEAK, ERROR, POSITION_ERROR = f"{FLUX};stat.max", f"stat.error;{FLUX}", "stat.error;pos.eq"

PHOTOMETRY = Schema(
    "photometry",
    version=1,
    sort=("source", "mjd"),
    columns=(
        Column("source", pa.string(), "", "meta.id;meta.main", "DSA Jhhmmss.s+ddmmss, of the catalogue position", nullable=False),
        Column("ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "ICRS, of the catalogue", nullable=False),
        Column("dec", pa.float64(), "deg", "pos.eq.dec;meta.main", "ICRS, of the catalogue", nullable=False),
        Column("group", pa.string(), "", "meta.id;obs", "The observation that was imaged", nullable=False),
        Column("image", pa.string(), "", "meta.id;obs.image", "Key of the image artifact", nullable=False),
        Column("mjd", pa.float64(), "d", "time.epoch", "UTC midpoint of the observation", nullable=False),
        Column("strip", pa.float64(), "deg", "pos.eq.dec;instr", "Declination that the telescope pointed to"),
        Column(
            "beam", pa.float32(), "", "arith.factor;instr.beam", "Effective beam there, 1 at the centre; fluxes are divided by it"
        ),
        Column("flux_peak", pa.float32(), "mJy/beam", PEAK, "Beam amplitude at the position; null if not detected"),
        Column("flux_peak_err", pa.float32(), "mJy/beam", ERROR, "1 sigma: local_rms and the flux-scale term"),
        Column("flux_fit", pa.float32(), "mJy", FLUX, "Flux of the beam fitted at the position; null if not detected"),
        Column("flux_fit_err", pa.float32(), "mJy", ERROR, "1 sigma: flux_fit_rms and the flux-scale term"),
        Column("flux_forced", pa.float32(), "mJy/beam", FLUX, "As flux_peak, and also where the source was not detected"),
        Column("local_rms", pa.float32(), "mJy/beam", "instr.det.noise", "1 sigma noise of flux_forced, corrected for the beam"),
        Column("flux_fit_rms", pa.float32(), "mJy", ERROR, "1 sigma noise of flux_fit, from the noise's autocorrelation"),
        Column(
            "flux_scale_err", pa.float32(), "", "stat.error;phot.flux.density", "1 sigma of the image's flux scale, a fraction"
        ),
        Column("background", pa.float32(), "mJy/beam", "phot.flux.density;instr.background", "Taken from an annulus, subtracted"),
        Column("snr", pa.float32(), "", "stat.snr", "flux_forced / local_rms", nullable=False),
        Column("upper_limit", pa.bool_(), "", "meta.code", "True: not detected, flux_limit holds", nullable=False),
        Column("flux_limit", pa.float32(), "mJy/beam", f"{FLUX};stat.max", "max(flux_forced, 0) + 3 local_rms; null if detected"),
        Column(
            "compactness", pa.float32(), "", "phys.angSize;arith.ratio", "flux_fit / flux_peak; above 1 for an extended source"
        ),
        Column("blend", pa.int16(), "", "meta.number", "Sources that were fitted together; 1: alone", nullable=False),
        Column("ra_offset", pa.float32(), "arcsec", "pos.eq.ra;arith.diff", "Fitted minus catalogue, on the sky; null if faint"),
        Column("dec_offset", pa.float32(), "arcsec", "pos.eq.dec;arith.diff", "Fitted minus catalogue; null if faint"),
        Column("ra_offset_err", pa.float32(), "arcsec", POSITION_ERROR, "1 sigma, noise alone"),
        Column("dec_offset_err", pa.float32(), "arcsec", POSITION_ERROR, "1 sigma, noise alone"),
        Column("catalogue_name", pa.string(), "", "meta.id;meta.dataset", "Name in the catalogue"),
        Column("catalogue_flux", pa.float32(), "mJy", FLUX, "Flux in the catalogue, at its own resolution"),
        Column(
            "flux_ratio", pa.float32(), "", "phot.flux.density;arith.ratio", "flux_peak / catalogue_flux; null if not detected"
        ),
    ),
)
"""One file a group: ``photometry/date=YYYY-MM-DD/GROUP.parquet``."""
