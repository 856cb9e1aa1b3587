"""Survey catalogues as their makers publish them (FITS, VOTable, CSV), read into contimg's names and units.

A column is known by its name, its unit by the file, else by what the survey documents. What is not known is an error that
names it: nothing is guessed, because a catalogue in mJy read as Jy looks like a catalogue.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from contimg.astro.catalogues import source_names
from contimg.astro.sexagesimal import degrees_of_words
from contimg.runtime.errors import BadFileError, BadInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

Survey = Literal["nvss", "first", "racs", "vlass", "other"]


@dataclass(frozen=True)
class Field:
    """One of contimg's columns: which names it goes by elsewhere (in lower case, signs as ``_``), and its unit here."""

    names: tuple[str, ...]
    unit: str


FIELDS: Mapping[str, Field] = {
    "ra": Field(("_raj2000", "raj2000", "ra_2000", "ra_deg", "ra", "raj2000_deg"), "deg"),
    "dec": Field(
        ("_dej2000", "dej2000", "dec_2000", "dec_deg", "dec", "decj2000", "de_j2000"), "deg"
    ),
    "flux": Field(
        (
            "flux",
            "s1_4",
            "flux_20_cm",
            "fint",
            "int_flux",
            "total_flux_source",
            "total_flux",
            "flux_int",
            "ftot",
            "flux_jy",
            "flux_mjy",
            "s_int",
            "sint",
            "flux_20cm",
        ),
        "Jy",
    ),
    "flux_err": Field(
        (
            "flux_err",
            "e_s1_4",
            "flux_20_cm_error",
            "e_total_flux_source",
            "e_total_flux",
            "flux_int_err",
            "e_ftot",
            "e_flux",
            "flux_err_jy",
            "flux_err_mjy",
            "e_sint",
        ),
        "Jy",
    ),
    "flux_peak": Field(
        ("flux_peak", "peak_int", "fpeak", "peak_flux", "s_peak", "flux_peak_jy", "flux_peak_mjy"),
        "Jy/beam",
    ),
    "major": Field(
        ("dc_maj", "dcmaj", "major", "majaxis", "major_axis", "maj", "major_arcsec", "major_ax"),
        "arcsec",
    ),
    "minor": Field(
        ("dc_min", "dcmin", "minor", "minaxis", "minor_axis", "min", "minor_arcsec", "minor_ax"),
        "arcsec",
    ),
    "position_angle": Field(("dc_pa", "dcpa", "posang", "position_angle", "pa", "posangle"), "deg"),
    "spectral_index": Field(("spectral_index", "alpha", "spindex"), ""),
    "frequency": Field(("frequency", "freq", "obs_freq", "freq_hz", "freq_mhz"), "Hz"),
}
NAMES = (
    "name",
    "source_name",
    "component_name",
    "compname",
    "iau_name",
    "nvss",
    "first",
    "island_id",
    "source_id",
)
REQUIRED = ("ra", "dec")

DOCUMENTED: Mapping[Survey, Mapping[str, str]] = {
    "nvss": {
        "flux": "mJy",
        "flux_err": "mJy",
        "major": "arcsec",
        "minor": "arcsec",
        "position_angle": "deg",
    },
    "first": {
        "flux": "mJy",
        "flux_peak": "mJy/beam",
        "major": "arcsec",
        "minor": "arcsec",
        "position_angle": "deg",
    },
    "racs": {
        "flux": "mJy",
        "flux_err": "mJy",
        "flux_peak": "mJy/beam",
        "major": "arcsec",
        "minor": "arcsec",
        "position_angle": "deg",
        "frequency": "MHz",
    },
    "vlass": {
        "flux": "mJy",
        "flux_err": "mJy",
        "flux_peak": "mJy/beam",
        "major": "arcsec",
        "minor": "arcsec",
        "position_angle": "deg",
    },
    "other": {},
}
"""Units where a file has none, as the surveys' papers give them; positions are degrees everywhere."""
FREQUENCY_HZ: Mapping[Survey, float] = {"nvss": 1.4e9, "first": 1.4e9, "vlass": 2.987741e9}
NVSS_BEAM_ARCSEC = 45.0
TURN_DEG = 360.0
SPELLINGS = {
    "degree": "deg",
    "degrees": "deg",
    "jy/beam": "Jy/beam",
    "mjy/beam": "mJy/beam",
    "mjy/bm": "mJy/beam",
    "jy/bm": "Jy/beam",
    "mjy": "mJy",
    "jy": "Jy",
    "asec": "arcsec",
    "mhz": "MHz",
    "ghz": "GHz",
    "hz": "Hz",
}
SEXAGESIMAL = ("hms", "h:m:s", "dms", "d:m:s")
UNIT_IN_NAME = re.compile(r"^(?P<name>.*?)\s*[\[(](?P<unit>[^\])]*)[\])]\s*$")
UNIT_AT_END = re.compile(r"^.*_(?P<unit>mjy|jy|deg|arcsec|hz|mhz)$")


@dataclass(frozen=True)
class Raw:
    """A column as it stands in a file."""

    name: str
    values: npt.NDArray[Any]
    unit: str
    """As the file spells it; empty if it says nothing."""


def read_catalogue(
    data: bytes, where: str, survey: Survey, frequency_hz: float | None = None
) -> dict[str, Any]:
    """Return the columns of `contimg.records.schemas.shipped.CATALOGUE` from a catalogue file.

    Parameters
    ----------
    data
        The file: FITS, VOTable or CSV, perhaps gzipped; its content decides, not its name.
    where
        Its name, for messages.
    survey
        Decides what stands for units and frequency where the file is silent.
    frequency_hz
        Of the fluxes, where neither the file nor the survey has one.

    Raises
    ------
    BadFileError
        If it is none of the three, or damaged.
    BadInputError
        If a column is missing or its unit wrong or unknown, or if no row has a position and a flux.
    UsageError
        If the frequency is not known.
    """
    raw = {_plain(column.name): column for column in _read(data, where)}
    found = {
        target: next((raw[n] for n in field.names if n in raw), None)
        for target, field in FIELDS.items()
    }
    _require(found, raw, where)
    columns = {
        t: _values(column, t, survey, where) for t, column in found.items() if column is not None
    }
    _complete(columns, found)
    if "frequency" not in columns:
        columns["frequency"] = np.full(columns["ra"].size, _frequency(survey, frequency_hz, where))
    keep = _good(columns, raw, survey)
    if not keep.any():
        raise BadInputError(
            where,
            f"expected rows with a position and a flux, found none of {keep.size}.",
            "Check the file.",
        )
    whole: dict[str, Any] = {
        target: columns.get(target, np.full(keep.size, np.nan))[keep] for target in FIELDS
    }
    whole["ra"] = np.mod(whole["ra"], TURN_DEG)
    whole["name"] = _names(raw, keep, survey, whole)
    return whole


def _read(data: bytes, where: str) -> list[Raw]:
    """Read every column of the file's first table."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BadFileError(
                where, f"expected a whole gzip file, found {error!s}.", "Fetch it again."
            ) from error
    start = data[:2000].lstrip()
    if not start:
        raise BadFileError(where, "expected a catalogue, found an empty file.", "Fetch it again.")
    if start.startswith(b"SIMPLE"):
        return _read_fits(data, where)
    if b"<VOTABLE" in start.upper():
        return _read_votable(data, where)
    return _read_csv(data, where)


def _read_fits(data: bytes, where: str) -> list[Raw]:
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    try:
        with warnings.catch_warnings(), fits.open(io.BytesIO(data), memmap=False) as units:
            warnings.simplefilter(
                "error", AstropyUserWarning
            )  # that is how a truncated file is announced
            table = next(
                (unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)), None
            )
            if table is None:
                raise BadFileError(
                    where,
                    "expected a FITS table, found no table extension.",
                    "Name the catalogue's file.",
                )
            return [
                Raw(c.name, np.asarray(table.data[c.name]), c.unit or "") for c in table.columns
            ]
    except (OSError, ValueError, TypeError, AstropyUserWarning) as error:
        raise BadFileError(
            where, f"expected a whole FITS file, found {error!s}.", "Fetch it again."
        ) from error


def _read_votable(data: bytes, where: str) -> list[Raw]:
    from astropy.io.votable import exceptions, parse_single_table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.VOTableSpecWarning)
            table = parse_single_table(io.BytesIO(data), verify="ignore")
    except (exceptions.VOTableSpecError, OSError, ValueError, IndexError, EOFError) as error:
        raise BadFileError(
            where, f"expected a whole VOTable, found {error!s}.", "Fetch it again."
        ) from error
    return [Raw(f.name, _unmasked(table.array[f.ID]), str(f.unit or "")) for f in table.fields]


def _unmasked(column: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - a masked array of any type
    plain = np.asarray(np.ma.getdata(column))
    mask = np.ma.getmaskarray(column)
    if not mask.any() or plain.dtype.kind not in "iuf":
        return plain
    return np.where(mask, np.nan, plain.astype(np.float64))


def _read_csv(data: bytes, where: str) -> list[Raw]:
    import pyarrow as pa
    from pyarrow import csv

    lines = data.split(b"\n", 200)
    comments = next((i for i, line in enumerate(lines) if not line.startswith(b"#")), len(lines))
    try:
        table = csv.read_csv(io.BytesIO(data), read_options=csv.ReadOptions(skip_rows=comments))
    except pa.ArrowInvalid as error:
        raise BadFileError(
            where, f"expected FITS, VOTable or CSV, found {error!s}.", "Convert it to one of them."
        ) from error
    columns = []
    for name in table.column_names:
        split = UNIT_IN_NAME.match(name)
        shown, unit = (split["name"], split["unit"]) if split else (name, "")
        columns.append(Raw(shown.strip(), table[name].to_numpy(), unit))
    return columns


def _plain(name: str) -> str:
    """Spell a column's name in lower case with single underscores for everything that is no letter or digit."""
    lead = "_" if name.startswith("_") else ""
    return lead + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _require(found: Mapping[str, Raw | None], raw: Mapping[str, Raw], where: str) -> None:
    missing = [target for target in REQUIRED if found[target] is None]
    if found["flux"] is None and found["flux_peak"] is None:
        missing.append("flux")
    if missing:
        wanted = "; ".join(f"{t}: one of {', '.join(FIELDS[t].names)}" for t in missing)
        have = ", ".join(column.name for column in raw.values()) or "no columns"
        raise BadInputError(
            where,
            f"expected columns ({wanted}), found {have}.",
            "Rename the columns; positions must be J2000.",
        )


def _values(column: Raw, target: str, survey: Survey, where: str) -> FloatArray:
    """Return a column's numbers in contimg's unit."""
    wanted = FIELDS[target].unit
    spelled = column.unit.strip().strip('"').strip()
    if column.values.dtype.kind in "OSU":
        if target in {"ra", "dec"}:
            return degrees_of_words(
                column.values, hours=target == "ra" and spelled not in {"deg", "d:m:s"}, where=where
            )
        return _floats(column, where)
    if target in {"ra", "dec"} and spelled in SEXAGESIMAL:
        raise BadInputError(
            where,
            f"expected {column.name} in degrees, found numbers in {spelled}.",
            "Write the positions in degrees.",
        )
    numbers = _floats(column, where)
    return numbers * _factor(
        column.name, spelled or _implied(column.name, target, survey), wanted, where
    )


def _floats(column: Raw, where: str) -> FloatArray:
    try:
        return np.asarray(column.values, np.float64)
    except (ValueError, TypeError) as error:
        raise BadInputError(
            where, f"expected numbers in {column.name}, found {error!s}.", "Correct the column."
        ) from error


def _implied(name: str, target: str, survey: Survey) -> str:
    """Return the unit that a column without one has: by its name's end, or by the survey's documents."""
    ending = UNIT_AT_END.match(_plain(name))
    if ending:
        return ending["unit"]
    if target in {"ra", "dec"}:
        return "deg"
    return DOCUMENTED[survey].get(target, "")


def _factor(name: str, spelled: str, wanted: str, where: str) -> float:
    """Return what turns numbers in one unit into numbers in another."""
    from astropy import units

    if not wanted:
        return 1.0
    if not spelled:
        remedy = f"Write it behind the column's name, as in '{name} [m{wanted}]', or name the survey with --catalogue."
        raise BadInputError(where, f"expected a unit for {name}, found none.", remedy)
    # Peaks are given in Jy as often as in Jy/beam; they mean the same.
    plain = [
        re.sub(r"/\s*beam|beam-1|beam\^-1", "", SPELLINGS.get(u.lower(), u)).strip()
        for u in (spelled, wanted)
    ]
    try:
        return float(units.Unit(plain[0]).to(units.Unit(plain[1])))
    except (ValueError, TypeError, units.UnitConversionError) as error:
        raise BadInputError(
            where,
            f"expected {name} in {wanted} or the like, found {spelled}.",
            "Convert the column, or correct its unit.",
        ) from error


def _complete(columns: dict[str, FloatArray], found: Mapping[str, Raw | None]) -> None:
    """Make the integrated flux where there is only a peak; take AIPS's fitted sizes for what they are."""
    peak = columns.get("flux_peak")
    size = found["major"]
    if "flux" in columns or peak is None:
        return
    columns["flux"] = peak
    if size is not None and _plain(size.name) == "major_ax":
        # NRAO's own NVSS file has sizes that are not deconvolved: the flux is peak times area over beam area.
        columns["flux"] = peak * columns.pop("major") * columns.pop("minor") / NVSS_BEAM_ARCSEC**2


def _frequency(survey: Survey, given_hz: float | None, where: str) -> float:
    frequency = given_hz or FREQUENCY_HZ.get(survey)
    if frequency is None:
        remedy = "Give --frequency-mhz; RACS is 887.5 (low), 1367.5 (mid) or 1655.5 (high)."
        raise UsageError(
            where, "expected the frequency of the fluxes, found none in the file.", remedy
        )
    return frequency


def _good(
    columns: Mapping[str, FloatArray], raw: Mapping[str, Raw], survey: Survey
) -> npt.NDArray[np.bool_]:
    """Return which rows are sources: they have a position and a flux, and are no duplicate."""
    ra, dec, flux = columns["ra"], columns["dec"], columns["flux"]
    with np.errstate(invalid="ignore"):
        good = (
            np.isfinite(ra)
            & (np.abs(ra) <= TURN_DEG)
            & (np.abs(dec) <= TURN_DEG / 4)
            & np.isfinite(flux)
            & (flux > 0)
        )
        good &= np.isfinite(columns["frequency"]) & (columns["frequency"] > 0)
    duplicate = raw.get("duplicate_flag") or raw.get("dupflag")
    if survey == "vlass" and duplicate is not None:
        # 2: the same source is better measured in another row (CIRADA's user guide).
        good &= np.asarray(duplicate.values, np.float64) < 2  # noqa: PLR2004
    return np.asarray(good)


def _names(
    raw: Mapping[str, Raw],
    keep: npt.NDArray[np.bool_],
    survey: Survey,
    columns: Mapping[str, FloatArray],
) -> list[str]:
    column = next((raw[name] for name in NAMES if name in raw), None)
    if column is None or column.values.dtype.kind not in "OSU":
        prefix = survey.upper() if survey != "other" else "CAT"
        made: list[str] = source_names(prefix, columns["ra"], columns["dec"]).tolist()
        return made
    return [(v.decode() if isinstance(v, bytes) else str(v)).strip() for v in column.values[keep]]
