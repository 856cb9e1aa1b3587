"""Parquet tables with units and UCDs: VOParquet 1.0, sorted, zstd, schema version in the footer.

The meaning of a table is stored twice: as metadata of each Arrow field (pyarrow, pandas, DuckDB),
and as a VOTable header in the footer (``Table.read(path, format="parquet.votable")`` of astropy,
TOPCAT), after IVOA's VOParquet 1.0.

Tables grow. Within a version, a nullable column may be added: older files read with nulls in it,
and columns that this code does not know yet are left out. Every other change is a new version,
with a function in `Schema.upgrades` that turns a table of the version before into the new one.
DuckDB and pandas read files of one version together by name (``union_by_name``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contimg.runtime.errors import BadInputError, UsageError
from contimg.runtime.store import open_store

FLUX = "phot.flux.density;em.radio.750-1500MHz"
"""UCD of every flux that we measure."""
VERSION = b"contimg.schema_version"
NAME = b"contimg.table"
INTEGERS = {"int64": "long", "int32": "int", "int16": "short", "uint8": "unsignedByte"}
NUMBERS = INTEGERS | {"double": "double", "float": "float"}
VOTABLE_TYPES = NUMBERS | {"string": "unicodeChar", "bool": "boolean"}
NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"
NULL_LENGTH = 4
"""Characters of "None", which astropy 7 and 8 make of a null string; they fail without room."""
REMEDY = "Make it again with this version (contimg reprocess)."
Upgrade = Callable[[pa.Table], pa.Table]


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


def parse_columns(text: str) -> tuple[Column, ...]:
    """Read columns from lines ``NAME | TYPE | UNIT | UCD | MEANING``; ``TYPE?`` is nullable."""
    columns = []
    for line in filter(str.strip, text.splitlines()):
        parts: list[Any] = [" ".join(part.split()) for part in line.split("|", 4)]
        name, kind, unit, ucd, meaning = parts
        arrow = pa.type_for_alias(kind.removesuffix("?"))
        columns.append(Column(name, arrow, unit, ucd, meaning, kind.endswith("?")))
    return tuple(columns)


@dataclass(frozen=True)
class Schema:
    """One table."""

    name: str
    version: int
    sort: tuple[str, ...]
    columns: tuple[Column, ...]
    meaning: str = ""
    """What the table is, and where it comes from if it is not ours."""
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict, compare=False)
    """By version: makes a table of the next version from one of that version."""

    def arrow(self) -> pa.Schema:
        """Return the Arrow schema with units, UCDs and meanings in the fields' metadata."""
        fields = []
        for c in self.columns:
            metadata = {"unit": c.unit, "ucd": c.ucd, "description": c.meaning}
            fields.append(pa.field(c.name, c.type, c.nullable, metadata))
        return pa.schema(fields, {NAME: self.name.encode(), VERSION: str(self.version).encode()})

    def table(self, columns: Mapping[str, Any]) -> pa.Table:
        """Make a sorted table from an array or list per column; NaN and None become null.

        Raises BadInputError if a column is missing, unknown, of another type or length, or null
        where it must not be.
        """
        names = {c.name for c in self.columns}
        missing, unknown = sorted(names - set(columns)), sorted(set(columns) - names)
        if missing or unknown:
            raise self._error(f"The columns differ: missing {missing}, unknown {unknown}.")
        arrays = [self._array(c, columns[c.name]) for c in self.columns]
        lengths = {c.name: len(array) for c, array in zip(self.columns, arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            raise self._error(f"The columns are not of one length: {lengths}.")
        made = pa.Table.from_arrays(arrays, schema=self.arrow())
        return made.sort_by([(name, "ascending") for name in self.sort]) if self.sort else made

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Make a table from one mapping per row; a column that a row lacks is null."""
        unknown = sorted({name for row in rows for name in row} - {c.name for c in self.columns})
        if unknown:
            raise self._error(f"There are unknown columns {unknown}.")
        return self.table({c.name: [row.get(c.name) for row in rows] for c in self.columns})

    def to_bytes(self, content: pa.Table | Mapping[str, Any]) -> bytes:
        """Return the Parquet file of a table, or of its columns; the same rows, the same bytes."""
        if isinstance(content, pa.Table):
            content = {name: content[name] for name in content.column_names}
        made = self.table(content)
        lengths = {}
        for name in (c.name for c in self.columns if pa.types.is_string(c.type)):
            longest = pc.max(pc.utf8_length(made[name])).as_py() or 1
            lengths[name] = max(longest, NULL_LENGTH if made[name].null_count else 1)
        sink = io.BytesIO()
        self.write(sink, [made], lengths)
        return sink.getvalue()

    def write(self, sink: IO[bytes], parts: Iterable[pa.Table], longest: Mapping[str, int]) -> None:
        """Write the Parquet file of parts made by `table`, each in memory only while it is written.

        The parts follow each other in the order of the table. `longest` is the length of the
        longest text of each column of texts.
        """
        footer = {
            **(self.arrow().metadata or {}),
            **{f"table::len::{n}".encode(): str(length).encode() for n, length in longest.items()},
            b"IVOA.VOTable-Parquet.version": b"1.0",
            b"IVOA.VOTable-Parquet.content": self._votable(longest),
        }
        schema = self.arrow().with_metadata(footer)
        with pq.ParquetWriter(sink, schema, compression="zstd", store_schema=True) as writer:
            for part in parts:
                # One chunk per column: the bytes do not depend on how the table was put together.
                writer.write_table(part.combine_chunks().replace_schema_metadata(footer))

    def read(self, data: bytes, where: str) -> pa.Table:
        """Read a Parquet file of this table, of this version or one that can be upgraded.

        It has the columns of this schema, in its order: null where the file has none, and without
        those that only the file has.
        Raises BadInputError if it is another table or version, or lacks a column that is not
        nullable.
        """
        return self._conform(read_parquet(data, where), where)

    def read_parts(self, path: Path, where: str) -> Iterator[pa.Table]:
        """Read a file as `read` does, one row group in memory at a time."""
        with _parquet_errors(where), pq.ParquetFile(path) as file:
            for k in range(file.num_row_groups):
                yield self._conform(file.read_row_group(k), where)

    def text_length(self, path: Path, column: str) -> int:
        """Return the length of the longest text of a column, as the file's footer states it."""
        with _parquet_errors(str(path)):
            footer = pq.read_schema(path).metadata or {}
        return int(footer.get(f"table::len::{column}".encode(), NULL_LENGTH))

    def _conform(self, found: pa.Table, where: str) -> pa.Table:
        """Return a table of this version with the columns of this schema; see `read`."""
        footer = found.schema.metadata or {}
        name, version = (footer.get(tag, b"?").decode() for tag in (NAME, VERSION))
        step = int(version) if version.isdigit() else 0
        while name == self.name and step < self.version and step in self.upgrades:
            found = self.upgrades[step](found)
            step += 1
        if (name, step) != (self.name, self.version):
            wanted = f"{self.name} version {self.version}"
            problem = f"This is table {name} version {version}, not {wanted}."
            remedy = f"{REMEDY} Or install the version of contimg that wrote it."
            raise BadInputError(where, problem, remedy)
        arrays = []
        for column in self.columns:
            kind: Any = column.type
            problem = ""
            if column.name in found.column_names:
                array = found[column.name]
                if array.type != kind:
                    problem = f"Column {column.name} is {array.type}, not {kind}."
            elif column.nullable:
                array = pa.chunked_array([pa.nulls(found.num_rows, kind)])
            else:
                problem = f"Table {name} lacks its column {column.name}."
            if problem:
                raise BadInputError(where, problem, REMEDY)
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=self.arrow())

    def read_days(self, root: str, first: str = "", last: str = "") -> Iterator[pa.Table]:
        """Read the table's files in a store of the UTC days YYYY-MM-DD from `first` to `last`.

        Without one of them the days have no limit on that side.
        """
        store = open_store(f"{root.rstrip('/')}/tables/{self.name}")
        for entry in store.entries("date="):
            day = entry.key.partition("=")[2][:10]
            if (first or day) <= day <= (last or day) and entry.key.endswith(".parquet"):
                yield self.read(store.read(entry.key), f"{store.root}/{entry.key}")

    def _array(self, column: Column, values: Any) -> pa.Array[Any] | pa.ChunkedArray[Any]:  # noqa: ANN401 - whatever Arrow reads
        try:
            if isinstance(values, pa.Array | pa.ChunkedArray):
                made = values.cast(column.type)
            else:
                # Arrow reads no two-dimensional array, but a list of its rows.
                rows = list(values) if pa.types.is_fixed_size_list(column.type) else values
                made = pa.array(rows, type=column.type, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise self._error(f"Column {column.name} is not {column.type}: {error}.") from error
        if made.null_count and (not column.nullable or pa.types.is_boolean(column.type)):
            problem = f"Column {column.name} must not be null, but is in {made.null_count} rows."
            raise self._error(problem)
        return made

    def _error(self, problem: str) -> BadInputError:
        return BadInputError(f"table {self.name}", problem, "Correct the stage that writes it.")

    def _votable(self, lengths: Mapping[str, int]) -> bytes:
        """Return the VOTable 1.4 header; `lengths` are the longest texts of string columns."""
        root = ET.Element("VOTABLE", {"version": "1.4", "xmlns": NAMESPACE})
        resource = ET.SubElement(root, "RESOURCE", {"type": "results"})
        table = ET.SubElement(resource, "TABLE", {"name": self.name})
        if self.meaning:
            ET.SubElement(table, "DESCRIPTION").text = self.meaning
        for column in self.columns:
            kind: Any = column.type
            size = ""
            if pa.types.is_fixed_size_list(kind):
                kind, size = kind.value_type, str(kind.list_size)
            elif column.name in lengths:
                size = f"{lengths[column.name]}*"
            if str(kind) not in VOTABLE_TYPES:
                problem = f"VOTable has no type {kind}."
                remedy = f"Choose one of {', '.join(VOTABLE_TYPES)}."
                raise UsageError(f"column {column.name}", problem, remedy)
            marks = {"arraysize": size, "unit": column.unit, "ucd": column.ucd}
            attributes = {"name": column.name, "datatype": VOTABLE_TYPES[str(kind)]}
            attributes |= {name: value for name, value in marks.items() if value}
            element = ET.SubElement(table, "FIELD", attributes)
            ET.SubElement(element, "DESCRIPTION").text = column.meaning
        ET.SubElement(table, "PARQUET", {"type": "Parquet-local-XML"})
        return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def encode_texts(column: pa.ChunkedArray[Any]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the different texts of a column, ascending, and the index of each row's text.

    An array of the texts of all rows would need more memory than the numbers of a table.
    """
    encoded = column.combine_chunks().dictionary_encode()
    texts, rank = np.unique(np.array(encoded.dictionary.to_pylist(), np.str_), return_inverse=True)
    return texts, rank[encoded.indices.to_numpy()].astype(np.int64)


def repeat_texts(label: NDArray[np.int64], texts: list[str]) -> pa.Array[Any]:
    """Return the text of each label; numpy's texts need four bytes a letter of the longest."""
    return pa.DictionaryArray.from_arrays(label.astype(np.int32), texts).cast(pa.string())


def read_parquet(data: bytes, where: str) -> pa.Table:
    """Read any Parquet file; BadInputError if it is not one."""
    with _parquet_errors(where):
        # Not read_table: that imports pyarrow.dataset, and with it pandas if installed (0.3 s).
        table = pq.ParquetFile(io.BytesIO(data)).read()
    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problem = f"It has several columns called {', '.join(twice)}."
        raise BadInputError(where, problem, "Rename or delete all but one.")
    return table


@contextmanager
def _parquet_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        problem = f"This is not a whole Parquet file: {error}."
        raise BadInputError(where, problem, "Make it again.") from error
