"""The relative flux scale: one row an epoch and field, and one flux a source and epoch."""

from __future__ import annotations

from contimg.records.tables import FLUX, Schema, parse_columns

NORMALIZATION = Schema(
    name="normalization",
    version=1,
    sort=("field", "epoch"),
    meaning="Flux scale of each group of a Dec strip, from reference sources that do not vary.",
    columns=parse_columns("""
    field | string | | meta.id | Part of the strip normalised as one: RA and Dec of its middle
    epoch | int32 | | meta.number;time.epoch | Number of the field's transit since J2000
    group | string? | | meta.id;obs | The observation; one row for each field that it touches
    status | string? | | meta.code.qual | good; borrowed: from others of the transit; bad epoch or \
        no scale: fluxes are not used
    reason | string? | | meta.note | Why it is not good
    mjd | float64 | d | time.epoch | UTC midpoint of the group
    strip | float64 | deg | pos.eq.dec;instr | Declination that the telescope pointed to
    references | int32 | | meta.number | Reference sources that define the factor
    clipped | int32 | | meta.number | Reference sources left out as outliers, over 5 sigma
    factor | float64? | | arith.factor;phot.calib | C at the middle of the group: its fluxes are \
        divided by it; null unless good or borrowed
    factor_err | float64? | | stat.error;phot.calib | 1 sigma
    scatter | float64? | | stat.stdev | Of the references' ratios about the factor, 1.4826 MAD
    scatter_over_error | float64? | | stat.fit.chi2 | Of the references about the factor, in their \
        errors; null below 5
    gradient_east | float64? | deg-1 | arith.grad;phot.calib | Change of the factor a degree east; \
        0 for a plain factor
    gradient_north | float64? | deg-1 | arith.grad;phot.calib | Change of the factor a degree north
    """),
)

NORMALIZED = Schema(
    name="normalized",
    version=1,
    sort=("source", "epoch"),
    meaning="Light curves on the relative flux scale: one flux a source and transit.",
    columns=parse_columns(f"""
    source | string | | meta.id;meta.main | DSA Jhhmmss.s+ddmmss
    ra | float64 | deg | pos.eq.ra;meta.main | ICRS
    dec | float64 | deg | pos.eq.dec;meta.main | ICRS
    field | string | | meta.id | As in the table normalization
    epoch | int32 | | meta.number;time.epoch | As in the table normalization
    mjd | float64 | d | time.epoch | UTC, mean of the source's measurements in this epoch
    groups | int32 | | meta.number;obs | Observations that were averaged, each on its own scale
    status | string? | | meta.code.qual | good; borrowed; bad epoch or no scale: flux is null
    flux_raw | float64 | mJy/beam | {FLUX} | Forced peak flux, mean of the observations
    flux_raw_err | float64 | mJy/beam | stat.error;{FLUX} | 1 sigma: noise and the systematic term
    noise | float64 | mJy/beam | stat.error;{FLUX} | 1 sigma: noise alone
    factor | float64? | | arith.factor;phot.calib | C for this source: never from itself; null if \
        the epoch has none
    factor_err | float64? | | stat.error;phot.calib | 1 sigma
    flux | float64? | mJy/beam | {FLUX};meta.main | flux_raw / factor, even if not detected
    flux_err | float64? | mJy/beam | stat.error;{FLUX};meta.main | 1 sigma
    snr | float64 | | stat.snr | flux_raw / noise
    upper_limit | bool | | meta.code | True: not detected in this epoch
    reference | bool | | meta.code | True: the source is a reference of its field
    baseline | float64? | mJy/beam | {FLUX};stat.median | Median flux, first 10 good epochs
    baseline_scatter | float64? | mJy/beam | stat.stdev;{FLUX} | 1.4826 MAD of the same
    """),
)
