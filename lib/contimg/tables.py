"""Parquet tables with units and UCDs: VOParquet 1.0, sorted, zstd, schema version in the footer."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from contimg.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLUX = "phot.flux.density;em.radio.750-1500MHz"
"""UCD of every flux that we measure."""
VERSION = b"contimg.schema_version"
NAME = b"contimg.table"
VOTABLE_TYPES = {"string": "char", "double": "double", "float": "float", "int64": "long", "int32": "int", "bool": "boolean", "int16": "short"}


@dataclass(frozen=True)
class Column:
    """One column: its type, unit (VOUnit), UCD1+ and meaning."""

    name: str
    type: pa.DataType
    unit: str
    ucd: str
    meaning: str
    nullable: bool = True


@dataclass(frozen=True)
class Schema:
    """One table."""

    name: str
    version: int
    sort: tuple[str, ...]
    columns: tuple[Column, ...]

    def arrow(self) -> pa.Schema:
        """Return the Arrow schema with units, UCDs and the VOTable header in its metadata."""
        fields = [
            pa.field(c.name, c.type, c.nullable, {"unit": c.unit, "ucd": c.ucd, "description": c.meaning})
            for c in self.columns
        ]
        return pa.schema(fields, metadata=self._footer())

    def table(self, columns: Mapping[str, Any]) -> pa.Table:
        """Make a table from one sequence a column (arrays, or lists with None); sorted; BadInputError if a column is missing or unknown."""
        names = {c.name for c in self.columns}
        if set(columns) != names:
            wrong = f"missing {sorted(names - set(columns))}, unknown {sorted(set(columns) - names)}"
            raise BadInputError(f"table {self.name}", "the columns of its schema", wrong, "Correct the stage that writes it.")
        arrays = [pa.array(columns[c.name], type=c.type, from_pandas=True) for c in self.columns]
        made = pa.Table.from_arrays(arrays, schema=self.arrow())
        return made.sort_by([(name, "ascending") for name in self.sort]) if self.sort else made

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Make a table from one mapping a row; a column that a row lacks is null."""
        return self.table({c.name: [row.get(c.name) for row in rows] for c in self.columns})

    def to_bytes(self, content: pa.Table | Mapping[str, Any]) -> bytes:
        """Return the Parquet file of a table that `table` made, or of its columns."""
        made = content if isinstance(content, pa.Table) else self.table(content)
        sink = io.BytesIO()
        pq.write_table(made.replace_schema_metadata(self._footer()), sink, compression="zstd", store_schema=True)
        return sink.getvalue()

    def read(self, data: bytes, where: str) -> pa.Table:
        """Read a Parquet file of this schema.

        Raises
        ------
        BadInputError
            If it is another table, or a version that this code does not read.
        """
        try:
            found = pq.read_table(io.BytesIO(data))
        except pa.ArrowInvalid as error:
            raise BadInputError(where, f"a Parquet table {self.name}", str(error), "Make it again.") from error
        footer = found.schema.metadata or {}
        tag = f"{footer.get(NAME, b'?').decode()} version {footer.get(VERSION, b'?').decode()}"
        wanted = f"{self.name} version {self.version}"
        if tag != wanted:
            raise BadInputError(where, f"table {wanted}", tag, "Make it again with this version (contimg reprocess).")
        return found

    def _footer(self) -> dict[bytes, bytes]:
        return {
            NAME: self.name.encode(),
            VERSION: str(self.version).encode(),
            b"IVOA.VOTable-Parquet.version": b"1.0",
            b"IVOA.VOTable-Parquet.content": self._votable().encode(),
        }

    def _votable(self) -> str:
        from astropy.io.votable import tree  # slow to import, and only writers need it

        file = tree.VOTableFile(version="1.4")
        resource = tree.Resource()
        file.resources.append(resource)
        table = tree.TableElement(file, name=self.name)
        resource.tables.append(table)
        for column in self.columns:
            kind = VOTABLE_TYPES[str(column.type)]
            size = {"arraysize": "*"} if kind == "char" else {}
            unit = {"unit": column.unit} if column.unit else {}
            made = tree.Field(file, name=column.name, datatype=kind, ucd=column.ucd or None, **size, **unit)
            made.description = column.meaning
            table.fields.append(made)
        table.create_arrays(0)
        sink = io.BytesIO()
        file.to_xml(sink)
        return sink.getvalue().decode()
