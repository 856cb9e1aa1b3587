"""Parquet tables with units and UCDs: VOParquet 1.0, sorted, zstd, schema version in the footer.

What a table means stands in it twice: as metadata of each Arrow field (pyarrow, pandas, DuckDB) and as a VOTable header in the
footer (``Table.read(path, format="parquet.votable")`` of astropy, TOPCAT), after IVOA's VOParquet 1.0.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contimg.runtime.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLUX = "phot.flux.density;em.radio.750-1500MHz"
"""UCD of every flux that we measure."""
VERSION = b"contimg.schema_version"
NAME = b"contimg.table"
VOTABLE_TYPES = {
    "string": "unicodeChar",
    "double": "double",
    "float": "float",
    "bool": "boolean",
    "int64": "long",
    "int32": "int",
    "int16": "short",
    "uint8": "unsignedByte",
}
NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"
NULL_LENGTH = 4
"""Characters of "None", which is what astropy 7 and 8 make of a null string; without room for it they fail."""


@dataclass(frozen=True)
class Column:
    """One column: its type, unit (VOUnit), UCD1+ and meaning."""

    name: str
    type: pa.DataType
    """A number, bool or string, or a fixed-size list of numbers."""
    unit: str
    ucd: str
    meaning: str
    nullable: bool = True
    """Whether a row may lack it; a bool never may, because astropy cannot read a null one."""


@dataclass(frozen=True)
class Schema:
    """One table."""

    name: str
    version: int
    sort: tuple[str, ...]
    columns: tuple[Column, ...]
    meaning: str = ""
    """What the table is, and where it comes from if it is not ours."""

    def arrow(self) -> pa.Schema:
        """Return the Arrow schema with units, UCDs and meanings in the fields' metadata."""
        fields = [
            pa.field(
                c.name, c.type, c.nullable, {"unit": c.unit, "ucd": c.ucd, "description": c.meaning}
            )
            for c in self.columns
        ]
        return pa.schema(fields, metadata=self._tag())

    def table(self, columns: Mapping[str, Any]) -> pa.Table:
        """Make a sorted table from one sequence a column (arrays, or lists with None); NaN and None become null.

        Raises
        ------
        BadInputError
            If a column is missing or unknown, of another type or length, or null where it must not be.
        """
        names = {c.name for c in self.columns}
        if set(columns) != names:
            wrong = (
                f"missing {sorted(names - set(columns))}, unknown {sorted(set(columns) - names)}"
            )
            raise self._wrong("the columns of its schema", wrong)
        arrays = [self._array(c, columns[c.name]) for c in self.columns]
        lengths = {c.name: len(array) for c, array in zip(self.columns, arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            raise self._wrong("columns of one length", str(lengths))
        made = pa.Table.from_arrays(arrays, schema=self.arrow())
        return made.sort_by([(name, "ascending") for name in self.sort]) if self.sort else made

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Make a table from one mapping a row; a column that a row lacks is null."""
        unknown = sorted({name for row in rows for name in row} - {c.name for c in self.columns})
        if unknown:
            raise self._wrong("the columns of its schema", f"unknown {unknown}")
        return self.table({c.name: [row.get(c.name) for row in rows] for c in self.columns})

    def to_bytes(self, content: pa.Table | Mapping[str, Any]) -> bytes:
        """Return the Parquet file of a table that `table` made (or a part of one), or of its columns; same rows, same bytes."""
        if isinstance(content, pa.Table):
            content = {name: content[name] for name in content.column_names}
        made = self.table(content)
        lengths = {
            c.name: _longest(made[c.name]) for c in self.columns if pa.types.is_string(c.type)
        }
        footer = {
            **self._tag(),
            **{
                f"table::len::{name}".encode(): str(length).encode()
                for name, length in lengths.items()
            },
            b"IVOA.VOTable-Parquet.version": b"1.0",
            b"IVOA.VOTable-Parquet.content": self._votable(lengths),
        }
        sink = io.BytesIO()
        # One chunk a column, so that the bytes do not depend on how the table was put together.
        pq.write_table(
            made.combine_chunks().replace_schema_metadata(footer),
            sink,
            compression="zstd",
            store_schema=True,
        )
        return sink.getvalue()

    def read(self, data: bytes, where: str) -> pa.Table:
        """Read a Parquet file of this schema.

        Raises
        ------
        BadInputError
            If it is another table, or a version that this code does not read.
        """
        found = read_parquet(data, where, f"table {self.name}")
        footer = found.schema.metadata or {}
        tag = f"{footer.get(NAME, b'?').decode()} version {footer.get(VERSION, b'?').decode()}"
        wanted = f"{self.name} version {self.version}"
        if tag != wanted:
            raise BadInputError(
                where,
                f"expected table {wanted}, found {tag}.",
                "Make it again with this version (contimg reprocess).",
            )
        return found

    def empty(self) -> pa.Table:
        """Return the table without rows."""
        return self.arrow().empty_table()

    def _array(self, column: Column, values: Any) -> pa.Array[Any] | pa.ChunkedArray[Any]:  # noqa: ANN401 - whatever Arrow reads
        try:
            made = (
                values.cast(column.type)
                if isinstance(values, pa.Array | pa.ChunkedArray)
                else _convert(values, column.type)
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise self._wrong(f"{column.name} as {column.type}", str(error)) from error
        if made.null_count and (not column.nullable or pa.types.is_boolean(column.type)):
            raise self._wrong(f"{column.name} in every row", f"{made.null_count} rows without")
        return made

    def _wrong(self, expected: str, found: str) -> BadInputError:
        return BadInputError(
            f"table {self.name}",
            f"expected {expected}, found {found}.",
            "Correct the stage that writes it.",
        )

    def _tag(self) -> dict[bytes | str, bytes | str]:
        return {NAME: self.name.encode(), VERSION: str(self.version).encode()}

    def _votable(self, lengths: Mapping[str, int]) -> bytes:
        """Return the VOTable header: VOTable 1.4 with PARQUET in place of the data."""
        root = ET.Element("VOTABLE", {"version": "1.4", "xmlns": NAMESPACE})
        resource = ET.SubElement(root, "RESOURCE", {"type": "results"})
        table = ET.SubElement(resource, "TABLE", {"name": self.name})
        if self.meaning:
            ET.SubElement(table, "DESCRIPTION").text = self.meaning
        for column in self.columns:
            shape = (
                f"{lengths[column.name]}*" if column.name in lengths else _arraysize(column.type)
            )
            marks = {"arraysize": shape, "unit": column.unit, "ucd": column.ucd}
            named = {
                "name": column.name,
                "datatype": _datatype(column),
                **{k: v for k, v in marks.items() if v},
            }
            field = ET.SubElement(table, "FIELD", named)
            ET.SubElement(field, "DESCRIPTION").text = column.meaning
        ET.SubElement(table, "PARQUET", {"type": "Parquet-local-XML"})
        return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def read_parquet(data: bytes, where: str, expected: str) -> pa.Table:
    """Read any Parquet file; BadInputError if it is none."""
    try:
        # Not read_table: that imports pyarrow.dataset, and with it pandas where that is installed (0.3 s).
        return pq.ParquetFile(io.BytesIO(data)).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInputError(
            where, f"expected a Parquet file ({expected}), found {error!s}.", "Make it again."
        ) from error


def _convert(values: Any, kind: pa.DataType) -> pa.Array[Any]:  # noqa: ANN401 - whatever Arrow reads
    if pa.types.is_fixed_size_list(kind):
        values = list(values)  # Arrow reads no two-dimensional array, but a list of its rows
    return pa.array(values, type=kind, from_pandas=True)


def _longest(column: pa.ChunkedArray[Any]) -> int:
    longest = pc.max(pc.utf8_length(column)).as_py() or 1
    return max(longest, NULL_LENGTH if column.null_count else 1)


def _arraysize(kind: pa.DataType) -> str:
    return str(kind.list_size) if pa.types.is_fixed_size_list(kind) else ""


def _datatype(column: Column) -> str:
    kind = column.type.value_type if pa.types.is_fixed_size_list(column.type) else column.type
    if str(kind) not in VOTABLE_TYPES:
        raise UsageError(
            f"column {column.name}",
            f"expected one of {sorted(VOTABLE_TYPES)}, found {kind!s}.",
            "Choose a type that VOTable has.",
        )
    return VOTABLE_TYPES[str(kind)]
