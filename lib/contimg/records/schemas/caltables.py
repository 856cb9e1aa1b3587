"""The registry of calibration sets: one row a set, written by the calibrate stage."""

from __future__ import annotations

from contimg.records.tables import FLUX, Schema, parse_columns

CALTABLES = Schema(
    name="caltables",
    version=1,
    sort=("mjd",),
    columns=parse_columns(f"""
    group | string | | meta.id | Group that the set was solved on
    mjd | float64 | d | time.epoch | UTC midpoint of that group
    valid_from | float64 | d | time.start | The set may be used from here, MJD
    valid_to | float64 | d | time.end | The set may be used up to here, MJD
    dec | float64 | deg | pos.eq.dec | Apparent Declination of the pointing
    calibrator | string | | meta.id;src | Name of the calibrator
    flux_anchor | string | | meta.code | standard, catalogue or nvss
    apparent_flux | float64? | Jy | {FLUX} | Calibrator after the beam
    rung | string | | meta.code | PRIMARY_TRANSIT_, BRIGHT_FALLBACK_ or \
        ENSEMBLE_GENERATED
    flag_fraction | float64? | | stat.fit.goodness | Flagged share of the bandpass solutions
    artifact | string | | meta.ref.uri | Calibrate artifact that holds the tables
    digest | string | | meta.checksum | Digest of that artifact
    scale_error | float64? | | stat.error;phot.calib | Expected 1 sigma error of the flux scale, \
        relative
    primary_beam | string? | | meta.id;instr.beam | Beam that the flux scale rests on; null: \
        airy:4.65
    """),
)
