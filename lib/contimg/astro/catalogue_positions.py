"""Positions in catalogue files: strict texts, and the frame that the file states for them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contimg.runtime.errors import BadInputError

FloatArray = npt.NDArray[np.float64]

MINUS_SIGNS = "[\u2010-\u2014\u2212\ufe63\uff0d]"
"""Hyphens, dashes and the minus sign of typesetters."""
SPACES = "[\u00a0\u2002-\u200a\u202f\u3000\t ]+"
NULL_WORDS = ["", "-", "--", "---", "...", "nan", "none", "null", "n/a", "na", "masked"]
SIGN, HEMISPHERE = "^(?P<sign>[+-]?) ?", " ?(?P<hemisphere>[NSEW]?)$"
DECIMAL = (
    rf"{SIGN}(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    rf" ?(?P<unit>(?:deg|degrees?|°|d|h|hr|hours?)?){HEMISPHERE}"
)
PARTS = (
    rf"{SIGN}(?P<first>[0-9]{{1,3}})%s(?P<minutes>[0-9]{{1,2}})%s"
    rf"(?P<seconds>[0-9]{{1,2}}(?:\.[0-9]*)?)%s{HEMISPHERE}"
)
STYLES = (
    DECIMAL,
    PARTS % ("(?P<unit>) ?: ?", " ?: ?", ""),
    PARTS % ("(?P<unit>) ", " ", ""),
    PARTS
    % (
        " ?(?P<unit>hr?|deg|d|°) ?",
        " ?(?:min|m|'|′|’) ?",  # noqa: RUF001 - as typesetters write minutes
        " ?(?:sec|s|\"|″|”|''|′′)?",
    ),
)
"""A number, or three parts between colons, blanks or the letters of their units."""
HOUR_UNITS = ("h", "hr", "hour", "hours", "hourangle")
HOUR_PARTS, DEGREE_PARTS = ("h:m:s", "hms"), ("d:m:s", "dms")
MAX_RA_DEG, MAX_DEC_DEG, SIXTY, HOURS_A_DAY = 360.0, 90.0, 60, 24
SENTINELS = (99, 99.9, 99.99, 999, 999.9, 9999, 9999.9, 99999, 999999, 9999999)
"""Absolute values that mean "unknown" where they are no possible value."""
FILL_VALUE = 1e20
"""Larger numbers are fill values."""


class SkyFrame(NamedTuple):
    """A frame of positions."""

    system: str
    """icrs, fk5, fk4, fk4noeterms or galactic."""
    equinox: float = 2000.0

    def __str__(self) -> str:
        """Return it as messages name it."""
        letter = "B" if self.system.startswith("fk4") else "J"
        is_old = self.system.startswith("fk")
        return self.system.upper() + (f" {letter}{self.equinox:g}" if is_old else "")


ICRS, FK4, GALACTIC = SkyFrame("icrs"), SkyFrame("fk4", 1950.0), SkyFrame("galactic")
SYSTEMS = {"icrs": "icrs", "fk5": "fk5", "fk4": "fk4", "fk4noe": "fk4noeterms"}
SYSTEMS |= {"gal": "galactic", "galactic": "galactic", "galacticii": "galactic"}
FIRST_FK5_EQUINOX = 1984.0
"""FITS standard 4.0, section 8.3: an earlier EQUINOX without RADESYS is of the FK4."""


def parse_frame(system: str, equinox: object, where: str) -> SkyFrame | None:
    """Return the frame that the words of a file mean, ICRS for FK5 of J2000; None if empty.

    Raises BadInputError if it is one that is not converted, such as an ecliptic one.
    """
    name = re.sub(r"[^a-z0-9]", "", system.lower()).removeprefix("eq")
    number = re.search(r"\d{4}(\.\d+)?", str(equinox or ""))
    year = float(number[0]) if number else None
    if name in {"", "unknown", "unknownframe"}:
        if year is None:
            return None
        name = "fk4" if year < FIRST_FK5_EQUINOX else "fk5"
    if name not in SYSTEMS:
        remedy = "Convert the positions to ICRS, or say what they are with --frame."
        raise BadInputError(where, f"Its positions are in the frame {system!r}.", remedy)
    kind = SYSTEMS[name]
    if kind == "fk5" and (year is None or abs(year - ICRS.equinox) < 1e-3):  # noqa: PLR2004
        return ICRS  # within 0.03 arcsec
    if kind in {"icrs", "galactic"}:
        return SkyFrame(kind)
    return SkyFrame(kind, year or (1950.0 if kind.startswith("fk4") else 2000.0))


FRAME_WORDS = (
    (r"\bB ?(1[89]\d\d)(\.\d+)?\b", "fk4"),
    (r"(?:equinox|\()\D{0,3}(1[89]\d\d)(\.\d+)?\b", ""),
    (r"\bfk4\b", "fk4"),
    (r"\bJ ?2000(\.0*)?\b|\bfk5\b|\bicrs\b|(?:equinox|\()\D{0,3}2000(\.0*)?\b", "icrs"),
    (r"\bgalactic (longitude|latitude|coord)|\bg(lon|lat)\b", "galactic"),
    (r"\b(coord\w*|positions?|frame)\b\W+(\w+\W+){0,2}galactic\b", "galactic"),
    (r"\becliptic (longitude|latitude|coord)|\be(lon|lat)\b", "ecliptic"),
)
"""Patterns of texts that state a frame; the first group is the equinox."""


def frames_of_text(text: str) -> set[tuple[str, str]]:
    """Return system and equinox of every frame that a description or comment mentions."""
    found = set()
    text = re.sub(r"epoch\D{0,3}J?(19|20)\d\d(\.\d+)?", "", text, flags=re.IGNORECASE)
    for pattern, system in FRAME_WORDS:
        for one in re.finditer(pattern, text, re.IGNORECASE):
            year = one[1] if system in {"", "fk4"} and one.re.groups and one[1] else ""
            found.add((system or "fk4", year or ("1950" if system in {"", "fk4"} else "")))
    return found


def to_icrs(lon_deg: FloatArray, lat_deg: FloatArray, frame: SkyFrame) -> tuple[Any, Any]:
    """Return ICRS Right Ascension and Declination, degrees, of positions in a frame; NaN stays."""
    if frame == ICRS:
        return lon_deg, lat_deg
    from astropy.coordinates import SkyCoord

    known = np.isfinite(lon_deg) & np.isfinite(lat_deg)
    more = {"equinox": f"{'B' if 'fk4' in frame.system else 'J'}{frame.equinox}"}
    more = more if frame.system.startswith("fk") else {}
    given = SkyCoord(lon_deg[known], lat_deg[known], unit="deg", frame=frame.system, **more)
    ra, dec = np.full((2, lon_deg.size), np.nan)
    ra[known], dec[known] = given.icrs.ra.deg, given.icrs.dec.deg
    return ra, dec


def plain_texts(words: npt.NDArray[Any]) -> pa.StringArray:
    """Return texts with plain minus signs and single blanks, null for words that mean nothing."""
    text = pa.array(words.astype(str).tolist(), pa.string())
    text = pc.replace_substring_regex(text, MINUS_SIGNS, "-")
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, SPACES, " "))
    nothing = pc.is_in(pc.utf8_lower(text), value_set=pa.array(NULL_WORDS))
    found: pa.StringArray = pc.if_else(nothing, pa.scalar(None, pa.string()), text)
    return found


def parse_numbers(words: npt.NDArray[Any], where: str) -> FloatArray:
    """Return the numbers of texts, NaN for empty ones; raise BadInputError for any other text."""
    text: Any = plain_texts(words)
    good = pc.match_substring_regex(text, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$")
    wrong = np.flatnonzero(~np.asarray(pc.fill_null(good, True)))  # noqa: FBT003
    if wrong.size:
        row = int(wrong[0])
        problem = f"Row {row + 1} has {text[row].as_py()!r}, which is not a number."
        raise BadInputError(where, problem, "Correct the column.")
    return np.asarray(pc.fill_null(pc.cast(text, pa.float64()), np.nan), np.float64)


def parse_degrees(
    words: npt.NDArray[Any], *, axis: str, unit: str = "", where: str = ""
) -> FloatArray:
    """Return degrees of texts such as ``12 34 56.7``, ``-01:02:03``, ``12h34m56.7s`` or ``188.7``.

    `axis` is ra or dec; three parts of RA are hours, and a single number degrees, unless the text
    or the column's `unit` (deg, h, h:m:s, d:m:s) says otherwise. NaN for empty texts.

    Raises
    ------
    BadInputError
        If a text is not wholly understood, is out of range, or contradicts the unit. The message
        has the row and the text; `where` names the file and the column.
    """
    text: Any = plain_texts(words)
    degrees, wrong = np.full(len(text), np.nan), ~np.asarray(text.is_null())
    left = int(wrong.sum())
    for style in STYLES:
        if not left:
            break
        found = pc.extract_regex(text, style)
        rows = np.flatnonzero(~np.asarray(found.is_null()))
        if rows.size:
            part = {field.name: found.field(field.name).take(rows) for field in found.type}
            degrees[rows], good = _read_style(part, axis, unit)
            wrong[rows] = ~good
            left -= rows.size
    if wrong.any():
        row = int(np.argmax(wrong))
        problem = f"Row {row + 1} has {text[row].as_py()!r}, which is not a valid {axis.upper()}."
        wanted = "Write degrees, or three parts: 12:34:56.7, 12h34m56.7s, -01d02m03s."
        raise BadInputError(where, problem, wanted)
    return degrees


def _read_style(
    part: dict[str, Any], axis: str, unit: str
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return degrees of the matched groups of one of STYLES, and which of them are valid."""
    own, sign, hemisphere = (
        part[name].to_numpy(zero_copy_only=False) for name in ("unit", "sign", "hemisphere")
    )
    hours, unstated = np.isin(own, HOUR_UNITS), own == ""
    is_number, in_hours = "number" in part, unit in {*HOUR_UNITS, *HOUR_PARTS}
    names = ("number",) if is_number else ("first", "minutes", "seconds")
    numbers = [np.asarray(pc.cast(part[n], pa.float64()), np.float64) for n in names]
    size = sum(value / SIXTY**power for power, value in enumerate(numbers))
    if is_number:
        hours |= unstated & (unit in HOUR_UNITS)
        good = ~unstated | (unit not in {*HOUR_PARTS, *DEGREE_PARTS})
    else:
        hours |= unstated & (in_hours or (axis == "ra" and unit not in {"deg", *DEGREE_PARTS}))
        good = (numbers[1] < SIXTY) & (numbers[2] < SIXTY)
    negative = (sign == "-") | (hemisphere == "S")
    good &= ~hours | ((axis == "ra") & (size < HOURS_A_DAY) & ~negative)
    good &= hours if in_hours else (~hours | (unit not in {"deg", *DEGREE_PARTS}))
    good &= (hemisphere == "") | (np.isin(hemisphere, ("N", "S")) & (axis == "dec") & (sign == ""))
    return np.where(negative, -size, size) * np.where(hours, 15.0, 1.0), good


def check_range(degrees: FloatArray, *, axis: str, where: str) -> FloatArray:
    """Return longitudes or latitudes, with NaN for those that say "unknown", such as -999.

    Raises BadInputError with the row if any other is beyond 360 or 90 degrees.
    """
    limit = MAX_RA_DEG if axis == "ra" else MAX_DEC_DEG
    size = np.abs(degrees)
    unknown = (np.isin(size, SENTINELS) & ((size > limit) | (degrees < 0))) | (size >= FILL_VALUE)
    wrong = np.flatnonzero((size > limit) & ~unknown)
    if wrong.size:
        row = int(wrong[0])
        problem = f"Row {row + 1} has {degrees[row]:g} deg; at most {limit:g} is possible."
        raise BadInputError(where, problem, "Correct the position, or the column's unit.")
    return np.where(unknown, np.nan, degrees)
