"""Survey catalogues as published (FITS, VOTable, CSV), read into contimg's names and units.

A column is known by its name; its unit comes from the file, else from the survey's documents. An
unknown unit is an error, never a guess: a catalogue in mJy read as Jy looks like a catalogue.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contimg.astro.catalogues import source_names
from contimg.runtime.errors import BadFileError, BadInputError, UsageError

FloatArray = npt.NDArray[np.float64]
Survey = Literal["nvss", "first", "racs", "vlass", "other"]

SIZE_UNITS = {"major": "arcsec", "minor": "arcsec", "position_angle": "deg"}
UNITS = (
    {"ra": "deg", "dec": "deg", "flux": "Jy", "flux_err": "Jy", "flux_peak": "Jy/beam"}
    | SIZE_UNITS
    | {"spectral_index": "", "frequency": "Hz"}
)
"""Units of contimg's columns."""
SURVEY_NAMES = {
    "ra": "_raj2000 raj2000 ra_2000 ra_deg ra raj2000_deg",
    "dec": "_dej2000 dej2000 dec_2000 dec_deg dec decj2000 de_j2000",
    "flux": "flux s1_4 flux_20_cm fint int_flux total_flux_source total_flux flux_int ftot "
    "flux_jy flux_mjy s_int sint flux_20cm",
    "flux_err": "flux_err e_s1_4 flux_20_cm_error e_total_flux_source e_total_flux flux_int_err "
    "e_ftot e_flux flux_err_jy flux_err_mjy e_sint",
    "flux_peak": "flux_peak peak_int fpeak peak_flux s_peak flux_peak_jy flux_peak_mjy",
    "major": "dc_maj dcmaj major majaxis major_axis maj major_arcsec major_ax",
    "minor": "dc_min dcmin minor minaxis minor_axis min minor_arcsec minor_ax",
    "position_angle": "dc_pa dcpa posang position_angle pa posangle",
    "spectral_index": "spectral_index alpha spindex",
    "frequency": "frequency freq obs_freq freq_hz freq_mhz",
    "name": "name source_name component_name compname iau_name nvss first island_id source_id",
}
"""Names of each column in surveys, in lower case with signs as ``_``, the preferred first."""
FLUX_UNITS = {"flux": "mJy", "flux_err": "mJy", "flux_peak": "mJy/beam"}
SURVEY_UNITS: Mapping[Survey, Mapping[str, str]] = {
    "nvss": {"flux": "mJy", "flux_err": "mJy", **SIZE_UNITS},
    "first": {"flux": "mJy", "flux_peak": "mJy/beam", **SIZE_UNITS},
    "racs": {**FLUX_UNITS, **SIZE_UNITS, "frequency": "MHz"},
    "vlass": {**FLUX_UNITS, **SIZE_UNITS},
    "other": {},
}
"""Units where a file has none, as the surveys' papers give them; positions are in degrees."""
FREQUENCY_HZ: Mapping[Survey, float] = {"nvss": 1.4e9, "first": 1.4e9, "vlass": 2.987741e9}
NVSS_BEAM_ARCSEC = 45.0
FULL_TURN_DEG = 360.0
UNIT_SPELLINGS = {"degree": "deg", "degrees": "deg", "asec": "arcsec"} | {
    spelling.lower(): unit
    for unit in ("mJy", "Jy", "mJy/beam", "Jy/beam", "MHz", "GHz", "Hz")
    for spelling in (unit, unit.replace("beam", "bm"))
}
SEXAGESIMAL_UNITS = ("hms", "h:m:s", "dms", "d:m:s")
SEXAGESIMAL_PARTS = 3
UNIT_IN_NAME = re.compile(r"^(?P<name>.*?)\s*[\[(](?P<unit>[^\])]*)[\])]\s*$")
UNIT_AT_END = re.compile(r"^.*_(?P<unit>mjy|jy|deg|arcsec|hz|mhz)$")


@dataclass(frozen=True)
class CatalogueColumn:
    """A column as it is in a file."""

    name: str
    values: npt.NDArray[Any]
    unit: str
    """As the file spells it; empty if it has none."""


def read_catalogue(
    data: bytes, where: str, survey: Survey, frequency_hz: float | None = None
) -> dict[str, Any]:
    """Return the columns of `contimg.records.schemas.shipped.CATALOGUE` from a catalogue file.

    It is FITS, VOTable or CSV, perhaps gzipped, by its content, not by its name `where`. Units and
    frequency are those of the file, else of the survey; `frequency_hz` is used if neither has one.

    Raises
    ------
    BadFileError
        If it has another format or is damaged.
    BadInputError
        If a column is missing or its unit wrong or unknown, or no row has a position and a flux.
    UsageError
        If the frequency is not known.
    """
    columns = {_plain_name(column.name): column for column in _read_columns(data, where)}
    found = {
        target: next((columns[name] for name in names.split() if name in columns), None)
        for target, names in SURVEY_NAMES.items()
    }
    missing = [target for target in ("ra", "dec") if found[target] is None]
    missing += ["flux"] if found["flux"] is None and found["flux_peak"] is None else []
    if missing:
        needed = "; ".join(f"{t}: one of {', '.join(SURVEY_NAMES[t].split())}" for t in missing)
        present = ", ".join(column.name for column in columns.values()) or "no columns"
        problem = f"Columns are missing ({needed}); the file has {present}."
        raise BadInputError(where, problem, "Rename the columns; positions must be J2000.")
    values = {
        target: _values(column, target, survey, where)
        for target, column in found.items()
        if column is not None and target != "name"
    }
    peak, size = values.get("flux_peak"), found["major"]
    if "flux" not in values and peak is not None:
        values["flux"] = peak
        if size is not None and _plain_name(size.name) == "major_ax":
            # Sizes in NRAO's own NVSS file are not deconvolved: flux is peak times area over beam.
            area = values.pop("major") * values.pop("minor")
            values["flux"] = peak * area / NVSS_BEAM_ARCSEC**2
    if "frequency" not in values:
        frequency = frequency_hz or FREQUENCY_HZ.get(survey)
        if frequency is None:
            remedy = "Give --frequency-mhz; RACS is 887.5 (low), 1367.5 (mid) or 1655.5 (high)."
            raise UsageError(where, "The file has no frequency of the fluxes.", remedy)
        values["frequency"] = np.full(values["ra"].size, frequency)
    keep = _is_source(values, columns, survey)
    if not keep.any():
        problem = f"None of {keep.size} rows has a position and a flux."
        raise BadInputError(where, problem, "Check the file.")
    nothing = np.full(keep.size, np.nan)
    whole: dict[str, Any] = {target: values.get(target, nothing)[keep] for target in UNITS}
    whole["ra"] = np.mod(whole["ra"], FULL_TURN_DEG)
    if found["name"] is not None and found["name"].values.dtype.kind in "OSU":
        whole["name"] = [name.strip() for name in found["name"].values[keep].astype(str).tolist()]
    else:
        prefix = survey.upper() if survey != "other" else "CAT"
        whole["name"] = source_names(prefix, whole["ra"], whole["dec"]).tolist()
    return whole


def _read_columns(data: bytes, where: str) -> list[CatalogueColumn]:
    """Read every column of the file's first table."""
    from astropy.utils.exceptions import AstropyWarning
    from pyarrow import csv

    kind, damages = "gzip file", (OSError, EOFError, zlib.error, ValueError, TypeError, IndexError)
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
            return _read_votable(data)
    except (AstropyWarning, *damages) as error:
        problem = f"This is not a whole {kind}: {error}."
        raise BadFileError(where, problem, "Download it again.") from error
    lines = data.split(b"\n", 200)
    comments = next((i for i, line in enumerate(lines) if not line.startswith(b"#")), len(lines))
    try:
        table = csv.read_csv(io.BytesIO(data), read_options=csv.ReadOptions(skip_rows=comments))
    except pa.ArrowInvalid as error:
        problem = f"This is neither FITS nor VOTable nor CSV: {error}."
        raise BadFileError(where, problem, "Convert it to one of them.") from error
    columns = []
    for name in table.column_names:
        split = UNIT_IN_NAME.match(name)
        shown, unit = (split["name"], split["unit"]) if split else (name, "")
        columns.append(CatalogueColumn(shown.strip(), table[name].to_numpy(), unit))
    return columns


def _read_fits(data: bytes, where: str) -> list[CatalogueColumn]:
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    with warnings.catch_warnings(), fits.open(io.BytesIO(data), memmap=False) as units:
        warnings.simplefilter("error", AstropyUserWarning)  # how a truncated file is reported
        tables = [unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            problem = "The FITS file has no table extension."
            raise BadFileError(where, problem, "Name the catalogue's file.")
        values = tables[0].data
        columns = tables[0].columns
        return [CatalogueColumn(c.name, np.asarray(values[c.name]), c.unit or "") for c in columns]


def _read_votable(data: bytes) -> list[CatalogueColumn]:
    from astropy.io.votable import exceptions, parse_single_table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.VOTableSpecWarning)
        table = parse_single_table(io.BytesIO(data), verify="ignore")
    columns = []
    for field in table.fields:
        values = np.asarray(np.ma.getdata(table.array[field.ID]))
        mask = np.ma.getmaskarray(table.array[field.ID])
        if mask.any() and values.dtype.kind in "iuf":
            values = np.where(mask, np.nan, values.astype(np.float64))
        columns.append(CatalogueColumn(field.name, values, str(field.unit or "")))
    return columns


def _plain_name(name: str) -> str:
    """Return a name in lower case, with an underscore for anything but letters and digits."""
    lead = "_" if name.startswith("_") else ""
    return lead + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _values(column: CatalogueColumn, target: str, survey: Survey, where: str) -> FloatArray:
    """Return a column's numbers in contimg's unit."""
    from astropy import units

    unit, wanted = column.unit.strip().strip('"').strip(), UNITS[target]
    is_position, is_text = target in {"ra", "dec"}, column.values.dtype.kind in "OSU"
    if is_position and is_text:
        hours = target == "ra" and unit not in {"deg", "d:m:s"}
        return parse_degrees(column.values, hours=hours, where=where)
    if is_position and unit in SEXAGESIMAL_UNITS:
        problem = f"Column {column.name} has numbers in {unit}."
        raise BadInputError(where, problem, "Write the positions in degrees.")
    try:
        numbers = np.asarray(column.values, np.float64)
    except (ValueError, TypeError) as error:
        problem = f"Column {column.name} is not numeric: {error}."
        raise BadInputError(where, problem, "Correct the column.") from error
    if is_text or not wanted:
        return numbers
    ending = UNIT_AT_END.match(_plain_name(column.name))
    default = "deg" if is_position else SURVEY_UNITS[survey].get(target, "")
    unit = unit or (ending["unit"] if ending else default)
    if not unit:
        problem = f"Column {column.name} has no unit."
        remedy = f"Write it as '{column.name} [m{wanted}]', or name the survey with --catalogue."
        raise BadInputError(where, problem, remedy)
    # Peaks are given in Jy as often as in Jy/beam; both mean the same.
    own, ours = (
        re.sub(r"/\s*beam|beam-1|beam\^-1", "", UNIT_SPELLINGS.get(one.lower(), one)).strip()
        for one in (unit, wanted)
    )
    try:
        return numbers * float(units.Unit(own).to(units.Unit(ours)))
    except (ValueError, TypeError, units.UnitConversionError) as error:
        problem = f"Column {column.name} is in {unit}, which cannot be converted to {wanted}."
        raise BadInputError(where, problem, "Convert the column, or correct its unit.") from error


def _is_source(
    values: Mapping[str, FloatArray], columns: Mapping[str, CatalogueColumn], survey: Survey
) -> npt.NDArray[np.bool_]:
    """Return which rows are sources: they have a position and a flux, and are no duplicates."""
    ra, dec, flux, frequency = (values[name] for name in ("ra", "dec", "flux", "frequency"))
    with np.errstate(invalid="ignore"):  # comparisons with NaN are False
        good = (np.abs(ra) <= FULL_TURN_DEG) & (np.abs(dec) <= FULL_TURN_DEG / 4)
        for positive in (flux, frequency):
            good &= np.isfinite(positive) & (positive > 0)
    duplicate = columns.get("duplicate_flag") or columns.get("dupflag")
    if survey == "vlass" and duplicate is not None:
        # 2: the same source is better measured in another row (CIRADA's user guide).
        good &= np.asarray(duplicate.values, np.float64) < 2  # noqa: PLR2004
    return np.asarray(good)


def parse_degrees(words: npt.NDArray[Any], *, hours: bool, where: str) -> FloatArray:
    """Return degrees of texts such as ``12 34 56.7``, ``-01:02:03``, ``12h34m56.7s`` or ``188.7``.

    The first of three parts is hours (Right Ascension) or degrees. Raises BadInputError, in which
    `where` names the file, if a text has neither one part nor three, or is not numeric.
    """
    text = pa.array(words.astype(str).tolist())
    spaced = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, r"[^0-9.+\-eE]+", " "))
    pieces = pc.split_pattern(spaced, " ")
    counts, remedy = np.asarray(pc.list_value_length(pieces)), "Correct the positions."
    wrong = np.flatnonzero((counts != SEXAGESIMAL_PARTS) & (counts != 1))
    if wrong.size:
        problem = f"A position is {text[int(wrong[0])].as_py()!r}, not degrees or three parts."
        raise BadInputError(where, problem, remedy)
    try:
        numbers = pc.cast(pc.list_flatten(pieces), pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise BadInputError(where, f"A position is not numeric: {error}.", remedy) from error
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    degrees: FloatArray = numbers[first]
    triple = counts == SEXAGESIMAL_PARTS
    at = first[triple]
    size = np.abs(numbers[at]) + numbers[at + 1] / 60 + numbers[at + 2] / 3600
    # The sign of "-00 12 34" is in the text alone.
    negative = np.asarray(pc.starts_with(spaced, "-"))[triple]
    degrees[triple] = np.where(negative, -size, size) * (15.0 if hours else 1.0)
    return degrees
