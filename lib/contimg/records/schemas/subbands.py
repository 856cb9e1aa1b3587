"""Subbands: sixteen rows a group, also for those that are missing, written by convert."""

from __future__ import annotations

import pyarrow as pa

from contimg.records.tables import Column, Schema

SUBBANDS = Schema(
    "subbands",
    version=1,
    sort=("group", "subband"),
    meaning="The UVH5 files that each group was made of.",
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
            "subband",
            pa.int16(),
            "",
            "meta.id;instr.bandpass",
            "0 (highest frequency) to 15",
            nullable=False,
        ),
        Column(
            "missing",
            pa.bool_(),
            "",
            "meta.code",
            "True: the group was converted without it",
            nullable=False,
        ),
        Column("file", pa.string(), "", "meta.id;meta.file", "Name of the file; null if missing"),
        Column("bytes", pa.int64(), "byte", "phys.size;meta.file", "Its size; null if missing"),
        Column("sha256", pa.string(), "", "meta.checksum", "Its digest; null if missing"),
        Column(
            "modified",
            pa.float64(),
            "d",
            "time.creation",
            "MJD, UTC, at which the store had it; null if missing",
        ),
        Column(
            "mjd",
            pa.float64(),
            "d",
            "time.epoch",
            "UTC, mean of the group's integrations",
            nullable=False,
        ),
        Column(
            "freq_min",
            pa.float64(),
            "Hz",
            "em.freq;stat.min",
            "Lower edge of the subband",
            nullable=False,
        ),
        Column(
            "freq_max",
            pa.float64(),
            "Hz",
            "em.freq;stat.max",
            "Upper edge of the subband",
            nullable=False,
        ),
    ),
)
"""One file a group: ``subbands/date=YYYY-MM-DD/GROUP.parquet``."""
