"""Images: one row a group, written by image; an ObsCore table can be made from it."""

from __future__ import annotations

from contimg.records.tables import FLUX, Schema, parse_columns

NOISE = "instr.det.noise;em.radio.750-1500MHz"

IMAGES = Schema(
    name="images",
    version=1,
    sort=("mjd",),
    meaning="Images of groups: where they are, how deep and how sharp, "
    "and what they were calibrated with.",
    columns=parse_columns(f"""
    group | string | | meta.id;obs | Id of the group
    image | string | | meta.id;obs.image;meta.main | Key of the image artifact
    artifact | string | | meta.ref.uri | Image artifact, relative to what holds the tables
    ms | string | | meta.id;obs | Key of the convert artifact
    ra | float64 | deg | pos.eq.ra;meta.main | ICRS, centre
    dec | float64 | deg | pos.eq.dec;meta.main | ICRS, centre
    strip | float64? | deg | pos.eq.dec;instr | Apparent Declination of the pointing, if known
    width | float64 | deg | phys.angSize;instr.fov | Width and height of the image
    cell | float64 | arcsec | phys.angSize;instr.pixel | Width of a pixel
    mjd | float64 | d | time.epoch | UTC midpoint of the observation
    mjd_start | float64 | d | time.start;obs | UTC, begin of the first integration
    mjd_end | float64 | d | time.end;obs | UTC, end of the last integration
    frequency | float64 | Hz | em.freq;meta.main | Mean with the image's weights
    freq_min | float64 | Hz | em.freq;stat.min | Lower edge of the band
    freq_max | float64 | Hz | em.freq;stat.max | Upper edge of the band
    bmaj | float64 | arcsec | phys.angSize.smajAxis;instr.beam | Restoring beam, FWHM
    bmin | float64 | arcsec | phys.angSize.sminAxis;instr.beam | Restoring beam, FWHM
    bpa | float64 | deg | pos.posAng;instr.beam | North through east
    rms | float64 | mJy/beam | {NOISE} | Median local rms inside the 20 % beam, apparent flux
    thermal_rms | float64? | mJy/beam | {NOISE};meta.modelled | Noise expected from the weights
    peak | float64 | mJy/beam | {FLUX};stat.max | Brightest pixel, apparent flux
    flux_ratio | float64? | | phot.flux.density;arith.ratio | Bright sources, found / expected
    smearing_loss | float64? | | stat.value;arith.ratio | Lost to channel averaging at the 20 % beam
    used_fraction | float64 | | stat.value;arith.ratio | Visibilities that carry weight
    antennas | int32 | | meta.number;instr | Antennas with data
    tier | string | | meta.code;instr.setup | As asked for with --tier
    backend | string | | meta.id;meta.software | wsclean or tclean
    robust | float64 | | stat.weight;instr.setup | Briggs' robustness
    calibration | string | | meta.id;obs.calib | Key of the calibrate artifact
    calibrator | string | | meta.id;src | That the tables were solved on
    calibrated | float64 | d | time.epoch;obs.calib | UTC, midpoint of the calibrator's group
    rung | string | | meta.code;obs.calib | Of the ladder of calibrations
    flux_anchor | string | | meta.code;phot.calib | What the flux scale rests on
    scale_error | float32? | | stat.error;phot.calib | Expected 1 sigma error of the flux scale, \
        relative
    verdict | string | | meta.code.qual | good or warning
    primary_beam | string? | | meta.id;instr.beam | Primary beam that fluxes are corrected for; \
        none: unknown
    beam_width | float64? | | stat.value;instr.beam | Logarithm of the primary beam's width over \
        the assumed one, from flux ratios to the catalogue
    beam_width_error | float64? | | stat.error;instr.beam | 1 sigma
    beam_east_deg | float64? | deg | pos.eq.ra;arith.diff | Axis of the primary beam, east of the \
        assumed one
    beam_east_error_deg | float64? | deg | stat.error;pos.eq | 1 sigma
    beam_north_deg | float64? | deg | pos.eq.dec;arith.diff | The same to the north
    beam_north_error_deg | float64? | deg | stat.error;pos.eq | 1 sigma
    beam_sources | float64? | | meta.number | Sources that this rests on
    """),
)
"""One file a group: ``images/date=YYYY-MM-DD/GROUP.parquet``."""
