"""Catalogues as plain text: tables between blanks, names in comments, positions in six columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contimg.astro.catalogue_positions import (
    HOURS_A_DAY,
    MAX_DEC_DEG,
    MAX_RA_DEG,
    MINUS_SIGNS,
    SIXTY,
    FloatArray,
    parse_numbers,
)
from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from contimg.astro.catalogue_tables import CatalogueColumn

DELIMITERS = ",\t;|"
DATUM = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\d+:\d+:\d+\.?\d*")
RULE = re.compile(r"\s*-+( +-+)+\s*")
"""The dashes under the names of columns of fixed width."""
NAME_COMMENTS = 4
"""The last lines of comments, in one of which the names of columns are looked for."""
MIN_DATA = 2
"""Cells of a line that are numbers, so that it holds no names."""
PARTS = {
    "first": "h hr hour hours hh d deg degree degrees dd",
    "minutes": "m min mm minute minutes arcmin am",
    "seconds": "s sec ss second seconds arcsec as",
    "sign": "- sign sgn",
}
PART = re.compile(
    r"_?(?P<axis>ra|dec|de)_?(?P<equinox>b1950|j2000|1950|2000|b|j)?_?(?P<part>"
    + "|".join(word for words in PARTS.values() for word in words.split())
    + ")"
)
"""Names of the columns that the parts of a position are in, in lower case."""
PART_NAMES = "RAh, RAm, RAs, DE- (the sign), DEd, DEm and DEs"


def arrange_rows(
    body: list[str], comments: Sequence[str], where: str, skipped: int
) -> tuple[list[str], str]:
    """Return the lines of a table with its names in the first one, and their delimiter.

    Columns between blanks, or under a rule of dashes, are then between tabs. `body` begins in the
    line after `skipped` ones; names may be in the last of its `comments`.

    Raises BadInputError if lines have other numbers of columns, or there are no names.
    """
    delimiter = max(DELIMITERS, key=body[0].count)
    blanks = delimiter not in body[0]
    if blanks:
        rows, delimiter = _split_blanks(body), "\t"
        for number, row in enumerate(rows, skipped + 1):
            if not row:
                problem = f"Line {number} does not fit the columns under the dashes."
                raise BadInputError(where, problem, "Align it, or write commas between columns.")
            if len(row) != len(rows[0]):
                problem = f"Line {number} has {len(row)} words, the first one {len(rows[0])}."
                remedy = "Write commas between the columns; call parts of positions "
                raise BadInputError(where, problem, f"{remedy}{PART_NAMES}.")
        body = ["\t".join(row) for row in rows]
    cells = body[0].split(delimiter)
    if sum(bool(DATUM.fullmatch(cell.strip())) for cell in cells) < MIN_DATA:
        return body, delimiter
    for comment in reversed(comments[-NAME_COMMENTS:]):
        found = comment.strip("# ")
        names = next(iter(_split_blanks([found])), []) if blanks else found.split(delimiter)
        if len(names) == len(cells) and not any(map(DATUM.fullmatch, names)):
            return [delimiter.join(name.strip() for name in names), *body], delimiter
    problem = f"Line {skipped + 1} has numbers, where the names of the columns are expected"
    problem += f"; no comment has {len(cells)} names."
    remedy = f"Write them above, with commas between them; call parts of positions {PART_NAMES}."
    raise BadInputError(where, problem, remedy)


def _split_blanks(body: list[str]) -> list[list[str]]:
    """Return the cells of lines between blanks, or under the rule of dashes of the first lines.

    A line that does not fit the rule has none.
    """
    rule = next((line for line in body[1:3] if RULE.fullmatch(line)), None)
    if rule is None:
        lines = (line.replace("\t", " ").strip() for line in body)
        found = csv.reader(lines, delimiter=" ", skipinitialspace=True)
        return [row for row in found if row]
    gaps = [one.start() for one in re.finditer(" ", rule)]
    edges = [0, *(one.start() for one in re.finditer("-+", rule))][2:]
    return [
        [line[a:b].strip(" \"'") for a, b in pairwise([0, *edges, None])]
        if all(line[gap : gap + 1] in {"", " "} for gap in gaps)
        else []
        for line in filter(str.strip, body)
    ]


def is_part(name: str) -> bool:
    """Return whether a column holds hours, degrees, minutes, seconds or the sign of positions."""
    return PART.fullmatch(_plain(name)) is not None


def join_parts(columns: list[CatalogueColumn], where: str) -> list[CatalogueColumn]:
    """Return columns with those of positions in parts (RAh, RAm, RAs, DE-, DEd …) joined.

    They are called ra and dec, and RAB1950 and DEB1950 where the parts' names say that. Nothing is
    joined if a part is missing; whole positions are kept beside them.

    Raises BadInputError if a row is no position, or could be north or south.
    """
    found: dict[str, dict[str, CatalogueColumn]] = {"ra": {}, "de": {}}
    words: dict[str, re.Match[str]] = {}
    for column in columns:
        word = PART.fullmatch(_plain(column.name))
        if word:
            kind = next(kind for kind, known in PARTS.items() if word["part"] in known.split())
            found[word["axis"][:2]][kind], words[word["axis"][:2]] = column, word
            if kind == "first" and word["axis"] == "ra":
                in_hours = word["part"].startswith("h")
    if any(parts.keys() < {"first", "minutes", "seconds"} for parts in found.values()):
        return columns
    used = [id(one) for parts in found.values() for one in parts.values()]
    kept = [one for one in columns if id(one) not in used]
    if {"ra", "dec"} & {_plain(one.name) for one in kept}:
        return kept
    for axis, parts in found.items():
        old = str(words[axis]["equinox"]).endswith(("b", "1950"))
        name = f"{axis.upper()}B1950" if old else {"de": "dec"}.get(axis, axis)
        place = f"{where}, columns {', '.join(one.name for one in parts.values())}"
        limit = MAX_DEC_DEG if axis == "de" else HOURS_A_DAY if in_hours else MAX_RA_DEG
        degrees = _join_axis({kind: one.values for kind, one in parts.items()}, axis, limit, place)
        kept.append(replace(parts["first"], name=name, values=degrees, unit="deg"))
    return kept


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _join_axis(
    parts: Mapping[str, npt.NDArray[Any]], axis: str, limit: float, where: str
) -> FloatArray:
    """Return degrees of the columns of an axis, NaN where all parts are empty.

    `limit` is the largest value of the first part, which is in hours if that is 24.
    """
    values = [_numbers(parts[name], where) for name in ("first", "minutes", "seconds")]
    first, minutes, seconds = values
    south, unsigned = np.signbit(first), np.zeros(first.shape, np.bool_)
    wrong = south & (axis == "ra")
    if "sign" in parts:
        signs = [re.sub(MINUS_SIGNS, "-", _text(one)).strip() for one in parts["sign"]]
        wrong |= south | ~np.isin(signs, ["", "+", "-"])
        south = np.array(signs) == "-"
    elif axis == "de" and parts["first"].dtype.kind not in "OSU":
        unsigned = (first == 0) & ~south
    size = np.abs(first) + minutes / SIXTY + seconds / SIXTY**2
    with np.errstate(invalid="ignore"):
        whole = (first == np.round(first)) & (minutes == np.round(minutes))
        valid = whole & (minutes >= 0) & (minutes < SIXTY) & (seconds >= 0) & (seconds < SIXTY)
        valid &= (size < limit) if axis == "ra" else (size <= limit)
    empty = np.isnan(values).all(axis=0)
    wrong = (wrong | ~valid) & ~empty
    if wrong.any() or unsigned.any():
        row = int(np.argmax(wrong | unsigned))
        shown = " ".join(_text(column[row]).strip() for column in parts.values())
        problem = f"Row {row + 1} has {shown!r}, which is no position"
        if not wrong[row]:
            problem = f"Row {row + 1} has 0 degrees without a sign, which may be north or south"
        raise BadInputError(where, f"{problem}.", f"Give whole numbers in {PART_NAMES}.")
    return np.where(south, -size, size) * (15.0 if limit == HOURS_A_DAY else 1.0)


def _numbers(values: npt.NDArray[Any], where: str) -> FloatArray:
    if values.dtype.kind in "OSU":
        return parse_numbers(np.array([_text(one) for one in values], np.str_), where)
    return np.asarray(values, np.float64)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else "" if value is None else str(value)
