"""The relative flux scale: one row an epoch and field, and one flux a source and epoch."""

from __future__ import annotations

import pyarrow as pa

from contimg.records.tables import FLUX, Column, Schema

ERROR, FACTOR, FACTOR_ERROR = (
    f"stat.error;{FLUX}",
    "arith.factor;phot.calib",
    "stat.error;phot.calib",
)

NORMALIZATION = Schema(
    "normalization",
    version=1,
    sort=("field", "epoch"),
    meaning="Flux scale of each transit of a Dec strip, from reference sources that do not vary.",
    columns=(
        Column(
            "field",
            pa.string(),
            "",
            "meta.id",
            "Part of the strip that is normalised as one, RA and Dec of its middle",
            nullable=False,
        ),
        Column(
            "epoch",
            pa.int32(),
            "",
            "meta.number;time.epoch",
            "Number of the field's transit since J2000",
            nullable=False,
        ),
        Column(
            "mjd",
            pa.float64(),
            "d",
            "time.epoch",
            "UTC, mean of the field's measurements",
            nullable=False,
        ),
        Column(
            "strip",
            pa.float64(),
            "deg",
            "pos.eq.dec;instr",
            "Declination that the telescope pointed to",
            nullable=False,
        ),
        Column(
            "references",
            pa.int32(),
            "",
            "meta.number",
            "Reference sources left after the clip",
            nullable=False,
        ),
        Column(
            "clipped",
            pa.int32(),
            "",
            "meta.number",
            "Reference sources that the 3 sigma clip left out",
            nullable=False,
        ),
        Column(
            "factor",
            pa.float64(),
            "",
            FACTOR,
            "C: fluxes of this epoch are divided by it; null if there were too few references",
        ),
        Column("factor_err", pa.float64(), "", FACTOR_ERROR, "1 sigma"),
        Column(
            "scatter",
            pa.float64(),
            "",
            "stat.stdev",
            "Of the references' ratios about the factor, 1.4826 MAD",
        ),
        Column(
            "gradient_east",
            pa.float64(),
            "deg-1",
            "arith.grad;phot.calib",
            "Change of the factor a degree east; 0 for a plain factor",
        ),
        Column(
            "gradient_north",
            pa.float64(),
            "deg-1",
            "arith.grad;phot.calib",
            "Change of the factor a degree north",
        ),
    ),
)

NORMALIZED = Schema(
    "normalized",
    version=1,
    sort=("source", "epoch"),
    meaning="Light curves on the relative flux scale: one flux a source and transit.",
    columns=(
        Column(
            "source", pa.string(), "", "meta.id;meta.main", "DSA Jhhmmss.s+ddmmss", nullable=False
        ),
        Column("ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "ICRS", nullable=False),
        Column("dec", pa.float64(), "deg", "pos.eq.dec;meta.main", "ICRS", nullable=False),
        Column(
            "field", pa.string(), "", "meta.id", "As in the table normalization", nullable=False
        ),
        Column(
            "epoch",
            pa.int32(),
            "",
            "meta.number;time.epoch",
            "As in the table normalization",
            nullable=False,
        ),
        Column(
            "mjd",
            pa.float64(),
            "d",
            "time.epoch",
            "UTC, mean of the source's measurements in this epoch",
            nullable=False,
        ),
        Column(
            "groups",
            pa.int32(),
            "",
            "meta.number;obs",
            "Observations that were averaged with the weight beam^2 / rms^2",
            nullable=False,
        ),
        Column(
            "flux_raw",
            pa.float64(),
            "mJy/beam",
            FLUX,
            "Forced peak flux, mean of the observations",
            nullable=False,
        ),
        Column(
            "flux_raw_err",
            pa.float64(),
            "mJy/beam",
            ERROR,
            "1 sigma: noise and the systematic term",
            nullable=False,
        ),
        Column("noise", pa.float64(), "mJy/beam", ERROR, "1 sigma: noise alone", nullable=False),
        Column(
            "factor",
            pa.float64(),
            "",
            FACTOR,
            "C for this source: never from itself; null if the epoch has none",
        ),
        Column("factor_err", pa.float64(), "", FACTOR_ERROR, "1 sigma"),
        Column(
            "flux",
            pa.float64(),
            "mJy/beam",
            f"{FLUX};meta.main",
            "flux_raw / factor, also where not detected; null without a factor",
        ),
        Column("flux_err", pa.float64(), "mJy/beam", f"{ERROR};meta.main", "1 sigma"),
        Column("snr", pa.float64(), "", "stat.snr", "flux_raw / noise", nullable=False),
        Column(
            "upper_limit",
            pa.bool_(),
            "",
            "meta.code",
            "True: not detected in this epoch",
            nullable=False,
        ),
        Column(
            "reference",
            pa.bool_(),
            "",
            "meta.code",
            "True: the source is a reference of its field",
            nullable=False,
        ),
        Column(
            "baseline",
            pa.float64(),
            "mJy/beam",
            f"{FLUX};stat.median",
            "Median of flux_raw over the first 10 good epochs",
        ),
        Column(
            "baseline_scatter",
            pa.float64(),
            "mJy/beam",
            f"stat.stdev;{FLUX}",
            "1.4826 MAD of the same",
        ),
    ),
)
