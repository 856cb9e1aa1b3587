"""The tables `ms` and `subbands`: what a group was made of, and what it became."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contimg.records.groups import read_group
from contimg.records.ms import MeasurementSet
from contimg.records.schemas.ms import MS
from contimg.records.schemas.subbands import SUBBANDS

ABSENT = 3


def rows(tables: Path, schema: Any) -> list[dict[str, Any]]:
    """Return all rows of a table; the group must have written one file."""
    (path,) = tables.glob(f"{schema.name}/date=*/*.parquet")
    found: list[dict[str, Any]] = schema.read(path.read_bytes(), str(path)).to_pylist()
    return found


@pytest.fixture
def record(two_sources: Any, tmp_path: Path) -> Path:
    """A group that lacks one subband."""
    return two_sources.write(tmp_path / "store", tuple(k for k in range(16) if k != ABSENT))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    return tmp_path / "run0" / "tables"


@pytest.fixture
def converted(record: Path, run_convert: Any, tables: Path) -> Any:
    return run_convert(record, tables=str(tables))


@pytest.mark.usefixtures("converted")
def test_subband_rows_match_files_and_band(record: Path, two_sources: Any, tables: Path) -> None:
    found = rows(tables, SUBBANDS)
    assert [row["subband"] for row in found] == list(range(16))
    assert [row["subband"] for row in found if row["missing"]] == [ABSENT]
    assert {found[ABSENT][name] for name in ("file", "bytes", "sha256", "modified")} == {None}
    for subband in read_group(str(record)).subbands:
        row, data = found[subband.index], Path(subband.uri).read_bytes()
        assert (row["file"], row["bytes"]) == (Path(subband.uri).name, len(data))
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        # The listing's time, to the microsecond that an MJD holds.
        modified = 40587 + subband.modified.timestamp() / 86400
        assert row["modified"] == pytest.approx(modified, abs=1e-10)
    for row in found:
        channels = two_sources.frequencies_hz(row["subband"])
        # Edges lie half a channel beyond the file's own first and last channel.
        assert row["freq_max"] == pytest.approx(channels.max() + two_sources.width_hz / 2, abs=1)
        assert row["freq_min"] == pytest.approx(channels.min() - two_sources.width_hz / 2, abs=1)


def test_ms_row_agrees_with_ms(converted: Any, tables: Path, tmp_path: Path) -> None:
    (row,) = rows(tables, MS)
    tar = tmp_path / "run0" / "artifact" / "ms.tar"
    assert row["sha256"] == hashlib.sha256(tar.read_bytes()).hexdigest()
    assert row["bytes"] == tar.stat().st_size
    with MeasurementSet(converted.ms) as ms:
        assert row["n_rows"] == len(ms)
        assert row["channels"] == len(ms.header.frequencies_hz)
        centre = np.degrees([ms.header.ra_rad, ms.header.dec_rad])
        assert (row["ra"], row["dec"]) == pytest.approx(tuple(centre))
        times = ms.rows.time_s / 86400
        assert row["mjd_start"] < times.min() < row["mjd"] < times.max() < row["mjd_end"]
        assert row["baselines"] * row["integrations"] == row["n_rows"]
    assert (row["n_subbands"], row["verdict"]) == (15, "warning")
    # Relative to the store that holds tables and artifact; else the whole URI.
    assert (row["artifact"], row["ms"]) == ("artifact", "artifact")
    for elsewhere in ("/elsewhere/tables", "tables"):
        assert converted.context.relative_uri(elsewhere) == str(tar.parent)


@pytest.mark.usefixtures("converted")
def test_second_run_replaces_rows(
    record: Path, run_convert: Any, tables: Path, tmp_path: Path
) -> None:
    before = rows(tables, SUBBANDS)
    run_convert(record, tables=str(tables))
    assert rows(tables, SUBBANDS) == before
    (row,) = rows(tables, MS)
    assert row["artifact"] == str(tmp_path / "run1" / "artifact")


def test_no_tables_option_writes_no_rows(record: Path, run_convert: Any, tmp_path: Path) -> None:
    run_convert(record)
    assert not list(tmp_path.rglob("*.parquet"))
