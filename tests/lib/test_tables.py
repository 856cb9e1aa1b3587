"""Tables that people and programs of the Virtual Observatory can read, and that may grow."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.io.votable import validate
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table, vstack

import contimg.records.schemas
from contimg.records.schemas.caltables import CALTABLES
from contimg.records.schemas.ms import SUBBANDS
from contimg.records.tables import FLUX, Column, Schema, parse_columns, read_parquet
from contimg.runtime.errors import BadInputError, UsageError

SNAPSHOTS = Path(__file__).parent / "snapshots"
SCHEMA = Schema(
    name="photometry",
    version=3,
    sort=("source", "mjd"),
    meaning="A table for tests",
    columns=(
        *parse_columns(f"""
    source | string | | meta.id;meta.main | Name, with <signs> & umlauts
    mjd | float64? | d | time.epoch | UTC midpoint
    flux_peak | float32? | mJy/beam | {FLUX} | Null if not detected
    upper_limit | bool? | | meta.code | Whether the flux is a limit
    count | int32? | | meta.number | How \
        many
    note | string? | | meta.note | Anything
    """),
        Column("bands", pa.list_(pa.float32(), 3), "mJy", FLUX, "By sub-band"),
    ),
)


def columns(**other: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "source": ["b", "a", "Ångström", "a"],
        "mjd": [3.0, 2.0, 1.0, 1.0],
        "flux_peak": np.array([1.5, np.nan, 3.5, 4.5]),
        "upper_limit": [False, True, False, False],
        "count": [1, None, 3, 4],
        "note": [None, "x", "yy", "a long one"],
        "bands": np.arange(12.0).reshape(4, 3),
    }
    return whole | other


def test_columns_are_read_from_text() -> None:
    source, mjd, *_, count, _, _ = SCHEMA.columns
    assert (source.type, source.nullable, source.unit) == (pa.string(), False, "")
    assert (mjd.type, mjd.nullable, mjd.unit) == (pa.float64(), True, "d")
    assert count.meaning == "How many"


class TestTable:
    def test_rows_are_sorted(self) -> None:
        made = SCHEMA.table(columns())
        assert made["source"].to_pylist() == ["a", "a", "b", "Ångström"]
        assert made["mjd"].to_pylist() == [1.0, 2.0, 3.0, 1.0]
        assert made["flux_peak"].to_pylist() == [4.5, None, 1.5, 3.5]

    def test_columns_missing_from_row_are_null(self) -> None:
        made = SCHEMA.rows([{"source": "a", "upper_limit": True, "bands": [1, 2, 3]}])
        assert made["flux_peak"].to_pylist() == [None]
        assert made.schema.equals(SCHEMA.arrow())
        assert SCHEMA.rows([]).num_rows == 0
        with pytest.raises(BadInputError, match="fluks"):
            SCHEMA.rows([{"source": "a", "fluks": 1.0}])

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"colour": [1] * 4}, r"unknown \['colour'\]"),
            ({"mjd": None}, r"missing \['mjd'\]"),
            ({"mjd": [1.0]}, "not of one length"),
            ({"count": ["x"] * 4}, "Column count is not int32"),
            ({"count": [2**40] * 4}, "Column count is not int32"),
            ({"source": ["a", None, "b", "c"]}, "source must not be null, but is in 1 rows"),
            ({"upper_limit": [True, None, True, True]}, "upper_limit must not be null"),
            ({"bands": np.zeros((4, 2))}, "Column bands is not fixed_size_list"),
        ],
    )
    def test_wrong_columns_are_named(self, wrong: dict[str, Any], message: str) -> None:
        given = {name: value for name, value in columns(**wrong).items() if value is not None}
        with pytest.raises(BadInputError, match=message):
            SCHEMA.table(given)


class TestBytes:
    def test_same_rows_same_bytes(self) -> None:
        once, made = SCHEMA.to_bytes(columns()), SCHEMA.table(columns())
        turned = pa.concat_tables([made.slice(2), made.slice(0, 2)])
        assert once == SCHEMA.to_bytes(columns()) == SCHEMA.to_bytes(made)
        assert once == SCHEMA.to_bytes(turned)
        file = pq.ParquetFile(io.BytesIO(once))
        assert {file.metadata.row_group(0).column(i).compression for i in range(4)} == {"ZSTD"}

    def test_round_trip(self) -> None:
        made = SCHEMA.table(columns())
        back = SCHEMA.read(SCHEMA.to_bytes(made), "here")
        assert back.equals(made)
        expected = {b"unit": b"mJy/beam", b"ucd": FLUX.encode()}
        expected[b"description"] = b"Null if not detected"
        assert back.schema.field("flux_peak").metadata == expected


class TestRead:
    def test_parts_are_those_of_the_whole(self, tmp_path: Path) -> None:
        whole = SCHEMA.table(columns())
        with (tmp_path / "t.parquet").open("wb") as sink:
            SCHEMA.write(sink, [whole.slice(0, 1), whole.slice(1)], {"source": 8, "note": 10})
        parts = list(SCHEMA.read_parts(tmp_path / "t.parquet", "here"))
        assert [part.num_rows for part in parts] == [1, 3]
        assert pa.concat_tables(parts).equals(whole)
        assert SCHEMA.text_length(tmp_path / "t.parquet", "note") == 10
        (tmp_path / "cut.parquet").write_bytes(b"PAR1 and nothing else")
        with pytest.raises(BadInputError, match="here: This is not a whole Parquet file"):
            list(SCHEMA.read_parts(tmp_path / "cut.parquet", "here"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "other"}, "This is table other version 3, not photometry version 3"),
            ({"version": 2}, r"photometry version 2, not photometry version 3\. .*reprocess"),
            ({"version": 4}, r"photometry version 4, not photometry version 3\. .*install the"),
        ],
    )
    def test_another_table_or_version_is_refused(
        self, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(BadInputError, match=message):
            SCHEMA.read(replace(SCHEMA, **change).to_bytes(columns()), "here")

    def test_parquet_without_schema_is_refused(self) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"x": [1]}), sink)
        with pytest.raises(BadInputError, match=r"This is table \? version \?"):
            SCHEMA.read(sink.getvalue(), "here")

    def test_repeated_column_is_refused(self) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table([[1.0], [2.0]], names=["flux", "flux"]), sink)
        with pytest.raises(BadInputError, match="here: It has several columns called flux"):
            read_parquet(sink.getvalue(), "here")

    @pytest.mark.parametrize("cut", [0, 100, -8])
    def test_damaged_file_is_refused(self, cut: int) -> None:
        with pytest.raises(BadInputError, match="somewhere: This is not a whole Parquet file"):
            read_parquet(SCHEMA.to_bytes(columns())[:cut], "somewhere")


NEW = Column("colour", pa.float32(), "mag", "phot.color", "A column that came later")


@pytest.mark.parametrize("schema", [CALTABLES, SUBBANDS], ids=lambda schema: schema.name)
class TestGrowth:
    """The files of the snapshots were written by the commit before tables could grow."""

    @pytest.fixture
    def grown(self, schema: Schema) -> Schema:
        return replace(schema, columns=(*schema.columns, NEW))

    @pytest.fixture
    def files(self, schema: Schema, grown: Schema, tmp_path: Path) -> list[Path]:
        old, new = SNAPSHOTS / f"{schema.name}.parquet", tmp_path / "new.parquet"
        rows = schema.read(old.read_bytes(), "old")
        colour = pa.array([0.5] * rows.num_rows, pa.float32())
        new.write_bytes(grown.to_bytes(rows.append_column("colour", colour)))
        return [old, new]

    def test_old_files_read_unchanged(self, schema: Schema, files: list[Path]) -> None:
        found = schema.read(files[0].read_bytes(), "old")
        assert found.num_rows > 0
        stored = pq.read_table(files[0])
        assert found.select(stored.column_names).to_pylist() == stored.to_pylist()
        for name in set(found.column_names) - set(stored.column_names):  # came later
            assert found[name].null_count == found.num_rows

    def test_one_schema_reads_old_and_new(
        self, schema: Schema, grown: Schema, files: list[Path]
    ) -> None:
        whole = pa.concat_tables([grown.read(path.read_bytes(), path.name) for path in files])
        assert whole.schema.equals(grown.arrow())
        half = whole.num_rows // 2
        assert whole["colour"].to_pylist() == [None] * half + [0.5] * half
        # Code that does not know the column yet.
        old, new = (schema.read(path.read_bytes(), path.name) for path in files)
        assert new.schema.equals(schema.arrow())
        assert old.to_pylist() == new.to_pylist()

    def test_other_programs_read_old_and_new(self, grown: Schema, files: list[Path]) -> None:
        paths, names = [str(path) for path in files], [column.name for column in grown.columns]
        query = "select * exclude filename from read_parquet(?, union_by_name=true, filename=true)"
        found = duckdb.execute(query, [paths]).fetchdf()
        assert list(found.columns) == names
        assert found["colour"].isna().sum() == (found["colour"] == 0.5).sum() == len(found) / 2
        frame = pd.concat([pd.read_parquet(path) for path in files])
        assert list(frame.columns) == names
        tables = [Table.read(path, format="parquet.votable") for path in files]
        assert len(vstack(tables)) == len(frame)

    @pytest.mark.parametrize(
        ("change", "file", "message"),
        [
            ({"nullable": False}, 0, "lacks its column colour"),
            ({"type": pa.float64()}, 1, "Column colour is float, not double"),
        ],
        ids=["required", "type"],
    )
    def test_other_changes_are_no_growth(
        self, schema: Schema, files: list[Path], change: dict[str, Any], file: int, message: str
    ) -> None:
        other = replace(schema, columns=(*schema.columns, replace(NEW, **change)))
        with pytest.raises(BadInputError, match=message):
            other.read(files[file].read_bytes(), "f")

    def test_upgrades_read_earlier_versions(self, schema: Schema, files: list[Path]) -> None:
        def add_colour(table: pa.Table) -> pa.Table:
            return table.append_column("colour", pa.array([0.25] * table.num_rows, pa.float32()))

        def double_colour(table: pa.Table) -> pa.Table:
            doubled = pa.array([2 * c for c in table["colour"].to_pylist()], pa.float32())
            return table.set_column(table.column_names.index("colour"), "colour", doubled)

        required, upgrades = replace(NEW, nullable=False), {1: add_colour, 2: double_colour}
        third = replace(schema, version=3, columns=(*schema.columns, required), upgrades=upgrades)
        assert set(third.read(files[0].read_bytes(), "old")["colour"].to_pylist()) == {0.5}
        only_last = replace(third, upgrades={2: double_colour})
        with pytest.raises(BadInputError, match="version 1, not"):
            only_last.read(files[0].read_bytes(), "old")


class TestVOParquet:
    def test_astropy_reads_values_units_ucds_and_meanings(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        path.write_bytes(SCHEMA.to_bytes(columns()))
        table = Table.read(path, format="parquet.votable")
        assert list(table["source"]) == ["a", "a", "b", "Ångström"]
        assert list(table["upper_limit"]) == [False, True, False, False]
        fluxes = np.array([4.5, np.nan, 1.5, 3.5], np.float32)
        np.testing.assert_array_equal(table["flux_peak"], fluxes)
        np.testing.assert_array_equal(table["count"], [4, np.nan, 1, 3])
        assert list(table["note"][[0, 1, 3]]) == ["a long one", "x", "yy"]
        np.testing.assert_array_equal(table["bands"][2], [0, 1, 2])
        assert str(table["flux_peak"].unit) == "mJy / beam"
        assert table["flux_peak"].meta["ucd"] == FLUX
        assert table["source"].description == "Name, with <signs> & umlauts"

    def test_header_is_a_valid_votable(self) -> None:
        header = pq.read_schema(io.BytesIO(SCHEMA.to_bytes(columns()))).metadata
        assert header[b"IVOA.VOTable-Parquet.version"] == b"1.0"
        report = io.StringIO()
        validate(io.BytesIO(header[b"IVOA.VOTable-Parquet.content"]), output=report, xmllint=False)
        # PARQUET is VOParquet's own element; astropy writes and reads it, its validator does not.
        problems = re.findall(r"[WE]\d\d: .*", report.getvalue())
        assert problems == ["W10: Unknown tag 'PARQUET'.  Ignoring"]
        column = Column("when", pa.timestamp("ms"), "", "time", "No such type")
        with pytest.raises(UsageError, match="column when"):
            Schema("odd", 1, (), (column,)).to_bytes({"when": [0]})


def schemas() -> list[Schema]:
    folder = contimg.records.schemas
    names = (f"{folder.__name__}.{module.name}" for module in pkgutil.iter_modules(folder.__path__))
    values = [value for name in names for value in vars(importlib.import_module(name)).values()]
    return sorted((v for v in values if isinstance(v, Schema)), key=lambda schema: schema.name)


def test_schemas_are_those_of_the_snapshot(tmp_path: Path) -> None:
    found = {}
    for schema in schemas():
        kinds = ((c, f"{c.type}{'?' if c.nullable else ''}") for c in schema.columns)
        names = [f"{c.name} | {kind} | {c.unit} | {c.ucd}" for c, kind in kinds]
        found[schema.name] = {"version": schema.version, "columns": names}
    old, new = SNAPSHOTS / "schemas.json", tmp_path / "schemas.json"
    new.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert new.read_text() == old.read_text(), (
        "A schema changed. A new nullable column may stay in its version. For any other change "
        "raise the version and register a function in Schema.upgrades that makes the new table "
        f"from the old one. Then accept the snapshot: cp {new} {old}"
    )


@pytest.mark.parametrize("schema", [*schemas(), SCHEMA], ids=lambda schema: schema.name)
def test_every_schema_is_in_vo_terms(schema: Schema, tmp_path: Path) -> None:
    names = [column.name for column in schema.columns]
    assert len(set(names)) == len(names)
    assert set(schema.sort) <= set(names)
    path = tmp_path / "empty.parquet"
    path.write_bytes(schema.to_bytes(schema.rows([])))
    table = Table.read(path, format="parquet.votable")
    assert (table.colnames, len(table)) == (names, 0)
    for column in schema.columns:
        assert parse_ucd(column.ucd, check_controlled_vocabulary=True), column.name
        assert (table[column.name].unit or "") == units.Unit(column.unit, format="vounit")
        assert column.meaning
