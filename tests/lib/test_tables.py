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

import contimg.records.schemas
from contimg.records.schemas.caltables import CALTABLES
from contimg.records.schemas.subbands import SUBBANDS
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

    def test_columns_missing_from_a_row_are_null(self) -> None:
        made = SCHEMA.rows([{"source": "a", "upper_limit": True, "bands": [1, 2, 3]}])
        assert made["flux_peak"].to_pylist() == [None]
        assert made.schema.equals(SCHEMA.arrow())
        assert SCHEMA.rows([]).num_rows == SCHEMA.empty().num_rows == 0

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"colour": [1] * 4}, r"unknown \['colour'\]"),
            ({"mjd": [1.0]}, "not of one length"),
            ({"count": ["x"] * 4}, "Column count is not int32"),
            ({"count": [2**40] * 4}, "Column count is not int32"),
            ({"source": ["a", None, "b", "c"]}, "source must not be null, but is in 1 rows"),
            ({"upper_limit": [True, None, True, True]}, "upper_limit must not be null"),
            ({"bands": np.zeros((4, 2))}, "Column bands is not fixed_size_list"),
        ],
    )
    def test_wrong_columns_are_named(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInputError, match=message):
            SCHEMA.table(columns(**wrong))

    def test_missing_and_unknown_names_are_refused(self) -> None:
        without = {name: value for name, value in columns().items() if name != "mjd"}
        with pytest.raises(BadInputError, match=r"missing \['mjd'\]"):
            SCHEMA.table(without)
        with pytest.raises(BadInputError, match="fluks"):
            SCHEMA.rows([{"source": "a", "fluks": 1.0}])


class TestBytes:
    def test_same_rows_same_bytes(self) -> None:
        once, made = SCHEMA.to_bytes(columns()), SCHEMA.table(columns())
        turned = pa.concat_tables([made.slice(2), made.slice(0, 2)])
        assert once == SCHEMA.to_bytes(columns()) == SCHEMA.to_bytes(made)
        assert once == SCHEMA.to_bytes(turned)

    def test_round_trip(self) -> None:
        made = SCHEMA.table(columns())
        back = SCHEMA.read(SCHEMA.to_bytes(made), "here")
        assert back.equals(made)
        assert back.schema.field("flux_peak").metadata == {
            b"unit": b"mJy/beam",
            b"ucd": FLUX.encode(),
            b"description": b"Null if not detected",
        }

    def test_compressed_with_zstd(self) -> None:
        file = pq.ParquetFile(io.BytesIO(SCHEMA.to_bytes(columns())))
        assert {file.metadata.row_group(0).column(i).compression for i in range(4)} == {"ZSTD"}


class TestRead:
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

    def test_a_parquet_file_without_schema_is_refused(self) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"x": [1]}), sink)
        with pytest.raises(BadInputError, match=r"This is table \? version \?"):
            SCHEMA.read(sink.getvalue(), "here")

    @pytest.mark.parametrize("cut", [0, 100, -8])
    def test_a_damaged_file_is_refused(self, cut: int) -> None:
        with pytest.raises(BadInputError, match="somewhere: This is not a whole Parquet file"):
            read_parquet(SCHEMA.to_bytes(columns())[:cut], "somewhere")


NEW = Column("colour", pa.float32(), "mag", "phot.color", "A column that came later")
GROWN = {
    schema.name: replace(schema, columns=(*schema.columns, NEW)) for schema in (CALTABLES, SUBBANDS)
}


@pytest.mark.parametrize("schema", [CALTABLES, SUBBANDS], ids=lambda schema: schema.name)
class TestGrowth:
    """The files of the snapshots were written by the commit before tables could grow."""

    @pytest.fixture
    def files(self, schema: Schema, tmp_path: Path) -> list[Path]:
        old = SNAPSHOTS / f"{schema.name}.parquet"
        rows = schema.read(old.read_bytes(), "old").to_pydict()
        count = len(next(iter(rows.values())))
        new = tmp_path / "new.parquet"
        new.write_bytes(GROWN[schema.name].to_bytes({**rows, "colour": [0.5] * count}))
        return [old, new]

    def test_old_files_read_unchanged(self, schema: Schema, files: list[Path]) -> None:
        found = schema.read(files[0].read_bytes(), "old")
        assert found.num_rows > 0
        assert schema.to_bytes(found) == files[0].read_bytes()

    def test_one_schema_reads_old_and_new_together(self, schema: Schema, files: list[Path]) -> None:
        content = [(path.read_bytes(), path.name) for path in files]
        whole = GROWN[schema.name].read_all(content)
        assert whole.schema.equals(GROWN[schema.name].arrow())
        half = whole.num_rows // 2
        assert whole["colour"].to_pylist() == [None] * half + [0.5] * half
        before = schema.read_all(content)  # code that does not know the column yet
        assert before.schema.equals(schema.arrow())
        assert before.slice(half).to_pylist() == before.slice(0, half).to_pylist()
        assert schema.read_all([]).equals(schema.empty())

    def test_duckdb_reads_old_and_new_together(self, schema: Schema, files: list[Path]) -> None:
        paths = [str(path) for path in files]
        query = "select * exclude filename from read_parquet(?, union_by_name=true, filename=true)"
        found = duckdb.execute(query, [paths]).fetchdf()
        assert list(found.columns) == [column.name for column in GROWN[schema.name].columns]
        assert found["colour"].isna().sum() == (found["colour"] == 0.5).sum() == len(found) / 2
        assert schema.name

    def test_pandas_and_astropy_read_old_and_new(self, schema: Schema, files: list[Path]) -> None:
        from astropy.table import Table, vstack

        frame = pd.concat([pd.read_parquet(path) for path in files])
        assert list(frame.columns) == [column.name for column in GROWN[schema.name].columns]
        tables = [Table.read(path, format="parquet.votable") for path in files]
        assert len(vstack(tables)) == len(frame)

    def test_a_required_column_or_another_type_is_no_growth(
        self, schema: Schema, files: list[Path]
    ) -> None:
        required = replace(NEW, nullable=False)
        with pytest.raises(BadInputError, match="lacks its column colour"):
            replace(schema, columns=(*schema.columns, required)).read(files[0].read_bytes(), "f")
        wider = replace(NEW, type=pa.float64())
        with pytest.raises(BadInputError, match="Column colour is float, not double"):
            replace(schema, columns=(*schema.columns, wider)).read(files[1].read_bytes(), "f")

    def test_a_new_version_reads_its_predecessors_by_upgrades(
        self, schema: Schema, files: list[Path]
    ) -> None:
        def add_colour(table: pa.Table) -> pa.Table:
            return table.append_column("colour", pa.array([0.25] * table.num_rows, pa.float32()))

        def double_colour(table: pa.Table) -> pa.Table:
            doubled = pa.array([2 * c for c in table["colour"].to_pylist()], pa.float32())
            return table.set_column(table.column_names.index("colour"), "colour", doubled)

        required = (*schema.columns, replace(NEW, nullable=False))
        third = replace(
            schema, version=3, columns=required, upgrades={1: add_colour, 2: double_colour}
        )
        assert set(third.read(files[0].read_bytes(), "old")["colour"].to_pylist()) == {0.5}
        only_last = replace(third, upgrades={2: double_colour})
        with pytest.raises(BadInputError, match="version 1, not"):
            only_last.read(files[0].read_bytes(), "old")


class TestVOParquet:
    def read(self, path: Path, content: Any) -> Any:
        from astropy.table import Table

        path.write_bytes(SCHEMA.to_bytes(content))
        return Table.read(path, format="parquet.votable")

    def test_astropy_reads_values_units_ucds_and_meanings(self, tmp_path: Path) -> None:
        table = self.read(tmp_path / "a.parquet", columns())
        assert list(table["source"]) == ["a", "a", "b", "Ångström"]
        assert list(table["upper_limit"]) == [False, True, False, False]
        np.testing.assert_array_equal(
            table["flux_peak"], np.array([4.5, np.nan, 1.5, 3.5], np.float32)
        )
        np.testing.assert_array_equal(table["count"], [4, np.nan, 1, 3])
        assert list(table["note"][[0, 1, 3]]) == ["a long one", "x", "yy"]
        np.testing.assert_array_equal(table["bands"][2], [0, 1, 2])
        assert str(table["flux_peak"].unit) == "mJy / beam"
        assert table["flux_peak"].meta["ucd"] == FLUX
        assert table["source"].description == "Name, with <signs> & umlauts"

    def test_astropy_reads_a_table_without_rows(self, tmp_path: Path) -> None:
        table = self.read(tmp_path / "a.parquet", SCHEMA.empty())
        assert len(table) == 0
        assert table["mjd"].unit == "d"

    def test_the_header_is_a_valid_votable(self) -> None:
        from astropy.io.votable import validate

        header = pq.read_schema(io.BytesIO(SCHEMA.to_bytes(columns()))).metadata
        assert header[b"IVOA.VOTable-Parquet.version"] == b"1.0"
        report = io.StringIO()
        validate(io.BytesIO(header[b"IVOA.VOTable-Parquet.content"]), output=report, xmllint=False)
        # PARQUET is VOParquet's own element, which astropy writes and reads, but its validator does
        # not know.
        assert re.findall(r"[WE]\d\d: .*", report.getvalue()) == [
            "W10: Unknown tag 'PARQUET'.  Ignoring"
        ]

    def test_a_type_that_votable_lacks(self) -> None:
        odd = Schema(
            "odd", 1, (), (Column("when", pa.timestamp("ms"), "", "time", "No such type"),)
        )
        with pytest.raises(UsageError, match="column when"):
            odd.to_bytes({"when": [0]})


def schemas() -> list[Schema]:
    modules = [
        importlib.import_module(f"contimg.records.schemas.{m.name}")
        for m in pkgutil.iter_modules(contimg.records.schemas.__path__)
    ]
    values = [value for module in modules for value in vars(module).values()]
    return sorted((v for v in values if isinstance(v, Schema)), key=lambda schema: schema.name)


def test_schemas_are_those_of_the_snapshot(tmp_path: Path) -> None:
    found = {}
    for schema in schemas():
        names = [
            f"{c.name} | {c.type}{'?' if c.nullable else ''} | {c.unit} | {c.ucd}"
            for c in schema.columns
        ]
        found[schema.name] = {"version": schema.version, "columns": names}
    old, new = SNAPSHOTS / "schemas.json", tmp_path / "schemas.json"
    new.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert new.read_text() == old.read_text(), (
        "A schema changed. A new nullable column may stay in its version. For any other change "
        "raise the version and register a function in Schema.upgrades that makes the new table "
        f"from the old one. Then accept the snapshot: cp {new} {old}"
    )


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.name)
class TestEverySchema:
    def test_ucds_are_in_the_vocabulary(self, schema: Schema) -> None:
        from astropy.io.votable.ucd import parse_ucd

        for column in schema.columns:
            assert parse_ucd(column.ucd, check_controlled_vocabulary=True), column.name

    def test_units_are_those_of_the_vo(self, schema: Schema) -> None:
        from astropy import units

        for column in schema.columns:
            units.Unit(column.unit, format="vounit")

    def test_columns_are_explained_once_each(self, schema: Schema) -> None:
        names = [column.name for column in schema.columns]
        assert len(set(names)) == len(names)
        assert set(schema.sort) <= set(names)
        assert all(column.meaning for column in schema.columns)

    def test_astropy_reads_it(self, schema: Schema, tmp_path: Path) -> None:
        from astropy.table import Table

        path = tmp_path / "empty.parquet"
        path.write_bytes(schema.to_bytes(schema.empty()))
        assert Table.read(path, format="parquet.votable").colnames == [
            column.name for column in schema.columns
        ]
