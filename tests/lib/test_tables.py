"""Tables that people and programs of the Virtual Observatory can read."""

from __future__ import annotations

import importlib
import io
import pkgutil
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import contimg.records.schemas
from contimg.records.tables import FLUX, Column, Schema, read_parquet
from contimg.runtime.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = Schema(
    "photometry",
    version=3,
    sort=("source", "mjd"),
    meaning="A table for tests",
    columns=(
        Column(
            "source",
            pa.string(),
            "",
            "meta.id;meta.main",
            "Name, with <signs> & umlauts",
            nullable=False,
        ),
        Column("mjd", pa.float64(), "d", "time.epoch", "UTC midpoint"),
        Column("flux_peak", pa.float32(), "mJy/beam", FLUX, "Null if not detected"),
        Column("upper_limit", pa.bool_(), "", "meta.code", "Whether the flux is a limit"),
        Column("count", pa.int32(), "", "meta.number", "How many"),
        Column("note", pa.string(), "", "meta.note", "Anything"),
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


class TestTable:
    def test_rows_are_sorted(self) -> None:
        made = SCHEMA.table(columns())
        assert made["source"].to_pylist() == ["a", "a", "b", "Ångström"]
        assert made["mjd"].to_pylist() == [1.0, 2.0, 3.0, 1.0]
        assert made["flux_peak"].to_pylist() == [4.5, None, 1.5, 3.5]

    def test_rows_may_lack_columns(self) -> None:
        made = SCHEMA.rows([{"source": "a", "upper_limit": True, "bands": [1, 2, 3]}])
        assert made["flux_peak"].to_pylist() == [None]
        assert made.schema.equals(SCHEMA.arrow())

    def test_no_rows(self) -> None:
        assert SCHEMA.rows([]).num_rows == SCHEMA.empty().num_rows == 0

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"colour": [1] * 4}, r"unknown \['colour'\]"),
            ({"mjd": [1.0]}, "one length"),
            ({"count": ["x"] * 4}, "count as int32"),
            ({"count": [2**40] * 4}, "count as int32"),
            ({"source": ["a", None, "b", "c"]}, "source in every row, found 1 rows without"),
            ({"upper_limit": [True, None, True, True]}, "upper_limit in every row"),
            ({"bands": np.zeros((4, 2))}, "bands as fixed_size_list"),
        ],
    )
    def test_wrong_columns_are_named(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInputError, match=message):
            SCHEMA.table(columns(**wrong))

    def test_a_missing_column_is_named(self) -> None:
        without = {name: value for name, value in columns().items() if name != "mjd"}
        with pytest.raises(BadInputError, match=r"missing \['mjd'\]"):
            SCHEMA.table(without)

    def test_an_unknown_field_of_a_row_is_named(self) -> None:
        with pytest.raises(BadInputError, match="fluks"):
            SCHEMA.rows([{"source": "a", "fluks": 1.0}])


class TestBytes:
    def test_same_rows_same_bytes(self) -> None:
        once = SCHEMA.to_bytes(columns())
        assert SCHEMA.to_bytes(columns()) == once
        assert SCHEMA.to_bytes(SCHEMA.table(columns())) == once

    def test_order_and_pieces_do_not_matter(self) -> None:
        made = SCHEMA.table(columns())
        turned = pa.concat_tables([made.slice(2), made.slice(0, 2)])
        assert SCHEMA.to_bytes(turned) == SCHEMA.to_bytes(made)

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
    def test_another_table(self) -> None:
        other = Schema("other", 3, (), SCHEMA.columns)
        with pytest.raises(
            BadInputError, match="table photometry version 3, found other version 3"
        ):
            SCHEMA.read(other.to_bytes(columns()), "here")

    def test_another_version(self) -> None:
        old = Schema("photometry", 2, (), SCHEMA.columns)
        with pytest.raises(BadInputError, match=r"found photometry version 2\. .*reprocess"):
            SCHEMA.read(old.to_bytes(columns()), "here")

    def test_a_stranger(self) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"x": [1]}), sink)
        with pytest.raises(BadInputError, match=r"found \? version \?"):
            SCHEMA.read(sink.getvalue(), "here")

    @pytest.mark.parametrize("cut", [0, 100, -8])
    def test_damaged(self, cut: int) -> None:
        with pytest.raises(BadInputError, match="somewhere: expected a Parquet file"):
            read_parquet(SCHEMA.to_bytes(columns())[:cut], "somewhere", "any")


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
        # PARQUET is VOParquet's own element, which astropy writes and reads, but its validator does not know.
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
    return [
        value for module in modules for value in vars(module).values() if isinstance(value, Schema)
    ]


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
