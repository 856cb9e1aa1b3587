"""Subbands: sixteen rows a group, missing ones included, written by convert."""

from __future__ import annotations

from contimg.records.tables import Schema, parse_columns

SUBBANDS = Schema(
    name="subbands",
    version=1,
    sort=("group", "subband"),
    meaning="The UVH5 files that each group was made of.",
    columns=parse_columns("""
    group | string | | meta.id;obs;meta.main | Id of the group
    attempt | int32 | | meta.number | Number of the attempt at the group
    subband | int16 | | meta.id;instr.bandpass | 0 (highest frequency) to 15
    missing | bool | | meta.code | True: the group was converted without it
    file | string? | | meta.id;meta.file | Name of the file; null if missing
    bytes | int64? | byte | phys.size;meta.file | Its size; null if missing
    sha256 | string? | | meta.checksum | Its digest; null if missing
    modified | float64? | d | time.creation | MJD, UTC, at which the store had it; null if missing
    mjd | float64 | d | time.epoch | UTC, mean of the group's integrations
    freq_min | float64 | Hz | em.freq;stat.min | Lower edge of the subband
    freq_max | float64 | Hz | em.freq;stat.max | Upper edge of the subband
    """),
)
"""One file a group: ``subbands/date=YYYY-MM-DD/GROUP.parquet``."""
