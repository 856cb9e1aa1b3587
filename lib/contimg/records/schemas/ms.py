"""Measurement Sets: one row a group, written by convert."""

from __future__ import annotations

import pyarrow as pa

from contimg.records.tables import Column, Schema

FRACTION = "stat.value;arith.ratio"

MS = Schema(
    "ms",
    version=1,
    sort=("mjd",),
    meaning="Measurement Sets: what convert made of each group of subbands.",
    columns=(
        Column(
            "group", pa.string(), "", "meta.id;obs;meta.main", "Id of the group", nullable=False
        ),
        Column(
            "attempt",
            pa.int32(),
            "",
            "meta.number",
            "Number of the attempt at the group",
            nullable=False,
        ),
        Column(
            "artifact",
            pa.string(),
            "",
            "meta.ref.uri",
            "Convert artifact, relative to what holds the tables",
            nullable=False,
        ),
        Column("ms", pa.string(), "", "meta.id", "Key of that artifact", nullable=False),
        Column(
            "ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "ICRS, phase centre", nullable=False
        ),
        Column(
            "dec", pa.float64(), "deg", "pos.eq.dec;meta.main", "ICRS, phase centre", nullable=False
        ),
        Column(
            "strip",
            pa.float64(),
            "deg",
            "pos.eq.dec;instr",
            "Apparent Declination of the pointing",
            nullable=False,
        ),
        Column(
            "mjd", pa.float64(), "d", "time.epoch", "UTC, mean of the integrations", nullable=False
        ),
        Column(
            "mjd_start",
            pa.float64(),
            "d",
            "time.start;obs",
            "UTC, begin of the first integration",
            nullable=False,
        ),
        Column(
            "mjd_end",
            pa.float64(),
            "d",
            "time.end;obs",
            "UTC, end of the last integration",
            nullable=False,
        ),
        Column(
            "integrations",
            pa.int32(),
            "",
            "meta.number;time.interval",
            "Integrations",
            nullable=False,
        ),
        Column(
            "integration",
            pa.float64(),
            "s",
            "time.duration;obs.exposure",
            "Length of one integration",
            nullable=False,
        ),
        Column(
            "antennas", pa.int32(), "", "meta.number;instr", "Antennas with data", nullable=False
        ),
        Column(
            "baselines",
            pa.int32(),
            "",
            "meta.number;instr.baseline",
            "Baselines, autocorrelations included",
            nullable=False,
        ),
        Column(
            "longest_baseline",
            pa.float64(),
            "m",
            "instr.baseline;stat.max",
            "Length of the longest one",
            nullable=False,
        ),
        Column("n_rows", pa.int64(), "", "meta.number", "Rows of the MS", nullable=False),
        Column(
            "channels",
            pa.int32(),
            "",
            "meta.number;em.freq",
            "Channels, those of missing subbands included",
            nullable=False,
        ),
        Column(
            "channel_width",
            pa.float64(),
            "Hz",
            "instr.bandwidth",
            "Width of a channel",
            nullable=False,
        ),
        Column(
            "freq_min",
            pa.float64(),
            "Hz",
            "em.freq;stat.min",
            "Lower edge of the band",
            nullable=False,
        ),
        Column(
            "freq_max",
            pa.float64(),
            "Hz",
            "em.freq;stat.max",
            "Upper edge of the band",
            nullable=False,
        ),
        Column(
            "n_subbands",
            pa.int16(),
            "",
            "meta.number;instr.bandpass",
            "Subbands that were there, of 16",
            nullable=False,
        ),
        Column(
            "zeros_fraction",
            pa.float64(),
            "",
            FRACTION,
            "Exact zeros among the cross-correlations",
            nullable=False,
        ),
        Column(
            "invalid_fraction",
            pa.float64(),
            "",
            FRACTION,
            "Visibilities that were not finite",
            nullable=False,
        ),
        Column(
            "bytes", pa.int64(), "byte", "phys.size;meta.file", "Size of ms.tar", nullable=False
        ),
        Column("sha256", pa.string(), "", "meta.checksum", "Digest of ms.tar", nullable=False),
        Column("verdict", pa.string(), "", "meta.code.qual", "good or warning", nullable=False),
    ),
)
"""One file a group: ``ms/date=YYYY-MM-DD/GROUP.parquet``."""
