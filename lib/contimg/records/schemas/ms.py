"""What convert writes: Measurement Sets, a row a group, and subbands, sixteen rows a group."""

from __future__ import annotations

from contimg.records.tables import Schema, parse_columns

MS = Schema(
    name="ms",
    version=1,
    sort=("mjd",),
    meaning="Measurement Sets: what convert made of each group of subbands.",
    columns=parse_columns("""
    group | string | | meta.id;obs;meta.main | Id of the group
    attempt | int32 | | meta.number | Number of the attempt at the group
    artifact | string | | meta.ref.uri | Convert artifact, relative to what holds the tables
    ms | string | | meta.id | Key of that artifact
    ra | float64 | deg | pos.eq.ra;meta.main | ICRS, phase centre
    dec | float64 | deg | pos.eq.dec;meta.main | ICRS, phase centre
    strip | float64 | deg | pos.eq.dec;instr | Apparent Declination of the pointing
    mjd | float64 | d | time.epoch | UTC, mean of the integrations
    mjd_start | float64 | d | time.start;obs | UTC, begin of the first integration
    mjd_end | float64 | d | time.end;obs | UTC, end of the last integration
    integrations | int32 | | meta.number;time.interval | Integrations
    integration | float64 | s | time.duration;obs.exposure | Length of one integration
    antennas | int32 | | meta.number;instr | Antennas with data
    baselines | int32 | | meta.number;instr.baseline | Baselines, autocorrelations included
    longest_baseline | float64 | m | instr.baseline;stat.max | Length of the longest one
    n_rows | int64 | | meta.number | Rows of the MS
    channels | int32 | | meta.number;em.freq | Channels, those of missing subbands included
    channel_width | float64 | Hz | instr.bandwidth | Width of a channel
    freq_min | float64 | Hz | em.freq;stat.min | Lower edge of the band
    freq_max | float64 | Hz | em.freq;stat.max | Upper edge of the band
    n_subbands | int16 | | meta.number;instr.bandpass | Subbands that were there, of 16
    zeros_fraction | float64 | | stat.value;arith.ratio | Exact zeros among the cross-correlations
    invalid_fraction | float64 | | stat.value;arith.ratio | Visibilities that were not finite
    bytes | int64 | byte | phys.size;meta.file | Size of ms.tar
    sha256 | string | | meta.checksum | Digest of ms.tar
    verdict | string | | meta.code.qual | good or warning
    unsampled_fraction | float64? | | stat.value;arith.ratio | Visibilities without nsamples
    """),
)
"""One file a group: ``ms/date=YYYY-MM-DD/GROUP.parquet``."""

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
