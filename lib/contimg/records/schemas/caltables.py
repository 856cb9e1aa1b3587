"""The registry of calibration sets: one row a set, written by the calibrate stage that solved it."""

from __future__ import annotations

import pyarrow as pa

from contimg.records.tables import Column, Schema

CALTABLES = Schema(
    "caltables",
    version=1,
    sort=("mjd",),
    columns=(
        Column(
            "group", pa.string(), "", "meta.id", "Group that the set was solved on", nullable=False
        ),
        Column(
            "mjd", pa.float64(), "d", "time.epoch", "UTC midpoint of that group", nullable=False
        ),
        Column(
            "valid_from",
            pa.float64(),
            "d",
            "time.start",
            "The set may be used from here, MJD",
            nullable=False,
        ),
        Column(
            "valid_to",
            pa.float64(),
            "d",
            "time.end",
            "The set may be used up to here, MJD",
            nullable=False,
        ),
        Column(
            "dec",
            pa.float64(),
            "deg",
            "pos.eq.dec",
            "Apparent Declination of the pointing",
            nullable=False,
        ),
        Column(
            "calibrator", pa.string(), "", "meta.id;src", "Name of the calibrator", nullable=False
        ),
        Column(
            "flux_anchor", pa.string(), "", "meta.code", "standard or catalogue", nullable=False
        ),
        Column(
            "apparent_flux",
            pa.float64(),
            "Jy",
            "phot.flux.density;em.radio.750-1500MHz",
            "Calibrator after the beam",
        ),
        Column(
            "rung",
            pa.string(),
            "",
            "meta.code",
            "PRIMARY_TRANSIT_GENERATED or BRIGHT_FALLBACK_GENERATED",
            nullable=False,
        ),
        Column(
            "flag_fraction",
            pa.float64(),
            "",
            "stat.fit.goodness",
            "Flagged share of the bandpass solutions",
        ),
        Column(
            "artifact",
            pa.string(),
            "",
            "meta.ref.uri",
            "Calibrate artifact that holds the tables",
            nullable=False,
        ),
        Column(
            "digest", pa.string(), "", "meta.checksum", "Digest of that artifact", nullable=False
        ),
    ),
)
