"""The tables of a catalogue file (FITS, VOTable, ECSV, CSV) with all that it says of its columns.

Nulls become NaN or empty texts here, and a file that says it is not whole is refused.
"""

from __future__ import annotations

import csv as plain_csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contimg.astro.catalogue_positions import SkyFrame, frames_of_text, parse_frame
from contimg.astro.catalogue_texts import arrange_rows, is_part
from contimg.runtime.errors import BadFileError, BadInputError

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.io.votable.tree import TableElement, VOTableFile

DAMAGES = (OSError, EOFError, zlib.error, ValueError, TypeError, IndexError, KeyError)
UNIT_IN_NAME = re.compile(r"^(?P<name>.*?)\s*[\[({](?P<unit>[^\])}]*)[\])}]\s*$")
CUT = re.compile(
    r"\boverflow\b|truncated (result|output|table|answer|list|at|to the)|"
    r"limit (of \w+ )?(was )?reached|"
    r"(result|output|table|answer|list|query) (is |was |were )?(cut|truncated)|"
    r"max(imum)? (number of )?(rows|records) (was |were )?(reached|returned)|"
    r"limited to (the )?(first |top )?[\d,]+ (rows|records|sources|objects|results|entries)|"
    r"(only|showing) the first [\d,]+|"
    r"more (rows|records|sources|results) (are |were )?(available|exist)"
)
"""What services write when they cut an answer."""
NULLS = ["", "NA", "N/A", "NULL", "null", "NaN", "nan", "None", "--", "-", "...", "masked"]
HEADER_ROWS = 200
ASCII_FORMS = (
    (re.compile("# %ECSV"), "ascii.ecsv"),
    (re.compile(r"(\\.*\n)*\|[^|\n]+\|.*\n\| *(double|real|float|int|long|char)"), "ascii.ipac"),
    (re.compile(r"(.*\n){0,100}Byte-by-byte Description of file"), "ascii.mrt"),
)
"""How texts begin that astropy reads: those that say more than names."""


@dataclass(frozen=True)
class CatalogueColumn:
    """A column as it is in a file."""

    name: str
    values: npt.NDArray[Any]
    """One element a row; nulls are NaN or empty."""
    unit: str = ""
    """As the file spells it; empty if it has none."""
    ucd: str = ""
    description: str = ""
    frame: SkyFrame | None = None
    """What the file states for this very column."""


@dataclass(frozen=True)
class CatalogueTable:
    """A table of a file."""

    name: str
    columns: list[CatalogueColumn]
    frame: SkyFrame | None = None
    """What the file states for all its positions."""
    comments: list[str] = field(default_factory=list)
    """Free text about the table."""


def read_tables(data: bytes, where: str) -> list[CatalogueTable]:
    """Return the tables of a file that is FITS, VOTable, ECSV or CSV, perhaps gzipped.

    Raises
    ------
    BadFileError
        If it has another format, or is damaged or cut.
    BadInputError
        If it states a frame that is not converted.
    """
    from astropy.io.votable.exceptions import VOTableSpecError
    from astropy.utils.exceptions import AstropyWarning

    kind = "gzip file"
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        start = data[:2000].lstrip()
        if not start:
            raise BadFileError(where, "The file is empty.", "Download it again.")
        if start.startswith(b"SIMPLE"):
            kind = "FITS file"
            return _read_fits(data, where)
        if b"<VOTABLE" in start.upper():
            kind = "VOTable"
            return _read_votable(data, where)
        text = _decode(data, where)
        for mark, form in ASCII_FORMS:
            if mark.match(text):
                kind = f"table of astropy's format {form}"
                return [_read_ascii(text, form, where)]
    except (AstropyWarning, VOTableSpecError, *DAMAGES) as error:
        problem = f"This is not a whole {kind}: {error}."
        raise BadFileError(where, problem, "Download it again.") from error
    return [_read_csv(text, where)]


def _decode(data: bytes, where: str) -> str:
    """Return the text of a file in UTF-8, or with the byte-order mark of UTF-16, without the mark.

    Lines end with a newline.
    """
    is_utf16 = data[:2] in {b"\xff\xfe", b"\xfe\xff"}
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"Line {line} is not text in UTF-8; this is neither FITS nor VOTable nor CSV."
        raise BadFileError(where, problem, "Convert it, as with iconv -t UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refuse_cut(texts: list[str], where: str) -> None:
    """Raise BadFileError if a remark in a file says that rows are missing."""
    for text in texts:
        if CUT.search(text.lower()):
            problem = f"The file says that it is not whole: {' '.join(text.split())[:200]!r}."
            raise BadFileError(where, problem, "Query again without a limit on rows.")


def _read_fits(data: bytes, where: str) -> list[CatalogueTable]:
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    with warnings.catch_warnings(), fits.open(io.BytesIO(data), memmap=False) as units:
        warnings.simplefilter("error", AstropyUserWarning)  # how a truncated file is reported
        tables = [unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            problem = "The FITS file has no table extension."
            raise BadFileError(where, problem, "Name the catalogue's file.")
        return [_read_hdu(unit, units[0].header, where) for unit in tables]


def _read_hdu(
    unit: fits.BinTableHDU | fits.TableHDU, primary: fits.Header, where: str
) -> CatalogueTable:
    header, columns = unit.header, []
    for number, column in enumerate(unit.columns, 1):
        system, equinox = (header.get(f"{word}{number}", "") for word in ("RADE", "EQUI"))
        axis = str(header.get(f"TCTYP{number}", ""))[:4].strip("-")
        system = {"GLON": "galactic", "GLAT": "galactic", "ELON": "ecliptic"}.get(axis, system)
        columns.append(
            CatalogueColumn(
                name=column.name,
                values=_fits_values(unit, column),
                unit=column.unit or "",
                ucd=str(header.get(f"TUCD{number}", "")),
                description=" ".join(
                    (str(header.get(f"TCOMM{number}", "")), header.comments[f"TTYPE{number}"])
                ),
                frame=parse_frame(str(system), equinox, where),
            )
        )
    # EPOCH is the old name of EQUINOX, but in a primary header it may be of anything.
    words = (("RADESYS", "RADECSYS"), ("EQUINOX", "EPOCH"))
    system, equinox = (
        next((header[name] for name in names if name in header), primary.get(names[0], ""))
        for names in words
    )
    comments = [str(head.get("COMMENT", "")) for head in (header, primary)]
    _refuse_cut(comments, where)
    frame = parse_frame(str(system), equinox, where)
    return CatalogueTable(unit.name or "table", columns, frame, comments)


def _fits_values(unit: fits.BinTableHDU | fits.TableHDU, column: fits.Column) -> npt.NDArray[Any]:
    """Return the values of a column, scaled by TSCAL and TZERO, with NaN for its TNULL."""
    from astropy.io import fits

    values, null = np.asarray(unit.data[column.name]), column.null
    is_text = isinstance(unit, fits.TableHDU)
    if values.dtype.kind not in "iuf" or (null in (None, "") and not is_text):
        return values
    raw = unit.data.view(np.ndarray)[column.name]
    if is_text:  # a table of characters: blanks, and TNULL, mean nothing
        words = np.char.strip(raw.astype(str))
        nothing = (words == "") | (words == str(null or "").strip())
    else:
        nothing = raw == int(null)
    return np.where(nothing, np.nan, values.astype(np.float64))


def _read_votable(data: bytes, where: str) -> list[CatalogueTable]:
    from astropy.io.votable import exceptions, parse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.VOTableSpecWarning)
        file = parse(io.BytesIO(data), verify="ignore")
    # Everywhere in the file: services write it before or after the table, or instead of one.
    for tag in re.finditer(rb"<INFO\b[^>]*?(/>|>[^<]*)", data, re.DOTALL):
        text = tag[0].decode("utf-8", "replace")
        if "QUERY_STATUS" in text and re.search(r"value\s*=\s*[\"']\s*ERROR", text, re.IGNORECASE):
            problem = f"The service answered with an error: {' '.join(text.split())[:300]}."
            raise BadFileError(where, problem, "Query again.")
        _refuse_cut([text.replace("-out.max", "")], where)
    tables = [table for table in file.iter_tables() if table.fields]
    if not tables:
        raise BadFileError(where, "The VOTable has no table.", "Query again.")
    for tag, table in zip(re.finditer(rb"<TABLE\b[^>]*>", data), tables, strict=False):
        rows = re.search(rb"\bnrows\s*=\s*[\"'](\d+)", tag[0])
        if rows and int(rows[1]) != len(table.array):
            problem = f"A table has {len(table.array)} rows; by its nrows it had {int(rows[1])}."
            raise BadFileError(where, problem, "Query again.")
    return [_read_element(table, file, where) for table in tables]


def _read_element(table: TableElement, file: VOTableFile, where: str) -> CatalogueTable:
    systems = {one.ID: one for one in file.iter_coosys()}
    in_groups = {
        entry.ref: group.ref for group in table.groups for entry in group.entries if group.ref
    }
    columns = []
    for one in table.fields:
        system = systems.get(one.ref) or systems.get(in_groups.get(one.ID))
        columns.append(
            CatalogueColumn(
                name=one.name,
                values=_fill_masked(table.array[one.ID]),
                unit=str(one.unit or ""),
                ucd=str(one.ucd or ""),
                description=str(one.description or ""),
                frame=parse_frame(system.system or "", system.equinox, where) if system else None,
            )
        )
    stated = {parse_frame(one.system or "", one.equinox, where) for one in systems.values()}
    for param in [*_params(table), *file.iter_info()]:
        utype = str(getattr(param, "utype", "") or "").lower()
        word = str(param.name or param.ID or "").lower()
        if utype.endswith("coordrefframe") or word in {"radesys", "frame", "coosys"}:
            stated.add(parse_frame(str(param.value), "", where))
        elif word == "equinox":
            stated.add(parse_frame("", param.value, where))
    stated.discard(None)
    texts = [str(table.description or ""), str(file.description or "")]
    if len(stated) > 1:  # which of them is meant is left to the columns
        texts += [f"({one.equinox:g}) {one}" for one in stated if one]
    frame = stated.pop() if len(stated) == 1 else None
    return CatalogueTable(str(table.name or table.ID or "table"), columns, frame, texts)


def _fill_masked(column: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - a masked array or a Column
    """Return the values of a column with NaN, or an empty text, for the masked ones."""
    values, mask = np.asarray(np.ma.getdata(column)), np.ma.getmaskarray(column)
    if mask.any() and values.dtype.kind in "iuf":
        return np.where(mask, np.nan, values.astype(np.float64))
    if mask.any() and values.dtype.kind in "OSU" and mask.shape == values.shape:
        return np.where(mask, "", values.astype(object))
    return values


def _params(table: TableElement) -> list[Any]:
    """Return the PARAMs of a table and of its groups."""
    nested = [entry for group in table.groups for entry in group.entries]
    return [*table.params, *(one for one in nested if hasattr(one, "value"))]


def _read_ascii(text: str, form: str, where: str) -> CatalogueTable:
    from astropy.table import Table

    made = Table.read(text, format=form)
    if renamed := [name for name in made.colnames if name not in text]:
        problem = f"Several columns have one name (astropy calls them {', '.join(renamed)})."
        raise BadInputError(where, problem, "Rename or delete all but one.")
    columns = []
    for name in list(made.colnames):
        if hasattr(made[name], "frame"):  # a SkyCoord, which knows its own frame
            if (own := made[name].icrs).isscalar or own.ndim != 1:
                raise BadInputError(where, f"Column {name} is no list of positions.", "Split it.")
            columns += [
                CatalogueColumn(axis, getattr(own, axis[:3].strip("_")).deg, "deg")
                for axis in ("ra_icrs", "dec_icrs")
            ]
            continue
        split = UNIT_IN_NAME.match(name) if made[name].unit is None else None
        columns.append(
            CatalogueColumn(
                name=split["name"].strip() if split else name,
                values=_fill_masked(made[name]),
                unit=split["unit"] if split else str(made[name].unit or ""),
                ucd=str(made[name].meta.get("ucd", "")),
                description=str(made[name].description or ""),
            )
        )
    meta = {str(key).lower(): value for key, value in _flat(made.meta).items()}
    system = next((meta[k] for k in ("radesys", "radecsys", "frame", "coosys") if k in meta), "")
    comments = [f"{key}: {value}" for key, value in meta.items()]
    _refuse_cut(comments, where)
    frame = parse_frame(str(system), meta.get("equinox", ""), where)
    return CatalogueTable("table", columns, frame, [*comments, *_comments(text)])


def _flat(meta: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the values of nested mappings by their innermost keys."""
    found: dict[Any, Any] = {}
    for key, value in meta.items():
        found |= _flat(value) if isinstance(value, Mapping) else {key: value}
    return found


def _comments(text: str) -> list[str]:
    return [line[1:] for line in text.split("\n", HEADER_ROWS) if line.startswith(("#", "\\"))]


def _read_csv(text: str, where: str) -> CatalogueTable:
    """Read a table with names in its first line that is no comment, perhaps units in the second."""
    from pyarrow import csv

    lines = text.split("\n")
    skipped = next((i for i, x in enumerate(lines) if x.strip() and x[0] != "#"), len(lines))
    comments, body = [line[1:] for line in lines[:skipped]], lines[skipped:]
    tail: list[str] = []
    while body and (not body[-1].strip() or body[-1].startswith("#")):
        tail.append(body.pop())
    _refuse_cut([*comments, *tail], where)
    if not body:
        raise BadFileError(where, "The file has comments only.", "Download it again.")
    body, delimiter = arrange_rows(body, comments, where, skipped)
    rows = list(plain_csv.reader(body[:4], delimiter=delimiter))
    units = rows[1] if len(rows) > 1 and _are_units(rows[1], len(rows[0])) else []
    units = [word.strip() for word in units]
    if all(re.fullmatch(r"[\[({].*[\])}]|-*", word) for word in units):
        units = [word.strip("[](){}") for word in units]  # of one alone they mean a logarithm
    rules = [row for row in rows[1:3] if row and all(re.fullmatch("-+", x) for x in row)]
    read = csv.ReadOptions(skip_rows_after_names=len(rules) + bool(units), use_threads=True)
    # As numbers, parts of a position would lose the sign of 0 degrees.
    texts = {name: pa.string() for name in rows[0] if is_part(name)}
    try:
        table = csv.read_csv(
            io.BytesIO("\n".join(body).encode()),
            read_options=read,
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(null_values=NULLS, column_types=texts),
        )
    except pa.ArrowInvalid as error:
        problem = f"This is neither FITS nor VOTable nor CSV: {error}."
        raise BadFileError(where, problem, "Convert it to one of them.") from error
    columns = []
    for number, name in enumerate(table.column_names):
        split = UNIT_IN_NAME.match(name)
        shown, unit = (split["name"], split["unit"]) if split else (name, "")
        said = name if frames_of_text(f"({unit})") else ""  # RA (J2000)
        unit = "" if said else unit
        below = units[number] if units else ""
        if unit and below and unit != below:
            problem = f"Column {shown} is in {unit!r} by its name, {below!r} by the row of units."
            raise BadInputError(where, problem, "Correct one of them.")
        values = table.column(number)
        if pa.types.is_null(values.type):
            values = values.cast(pa.float64())
        column = CatalogueColumn(shown.strip(), values.to_numpy(), unit or below, "", said)
        columns.append(column)
    return CatalogueTable("table", columns, None, comments)


UNIT_WORD = re.compile(
    r"[\[({]?(deg(rees?)?|°|rad|arcsec|arcmin|\"|h:m:s|d:m:s|hms|dms|h|hr|hours?|"
    r"[munµk]?jy(/b(ea)?m)?|[kmg]?hz|-+)?[\])}]?",
    re.IGNORECASE,
)


def _are_units(row: list[str], width: int) -> bool:
    """Return whether a row holds units: texts alone, and a known unit among them."""
    words = [word.strip() for word in row]
    known = [word for word in words if word.strip("-") and UNIT_WORD.fullmatch(word)]
    numeric = any(re.match(r"[+-]?\.?\d", word) for word in words)
    return len(words) == width and bool(known) and not numeric
