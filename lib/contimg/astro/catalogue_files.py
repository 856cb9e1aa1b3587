"""Survey catalogues as published (FITS, VOTable, ECSV, CSV), read into contimg's names and units.

A column is known by its name; what the file says of its unit and frame is used. An unknown unit is
an error, never a guess: a catalogue in mJy read as Jy looks like a catalogue.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import erfa
import numpy as np
import numpy.typing as npt

from contimg.astro.catalogue_positions import (
    DEGREE_PARTS,
    FILL_VALUE,
    FK4,
    GALACTIC,
    HOUR_PARTS,
    HOUR_UNITS,
    ICRS,
    MAX_RA_DEG,
    SYSTEMS,
    SkyFrame,
    check_range,
    frames_of_text,
    parse_degrees,
    parse_frame,
    parse_numbers,
    to_icrs,
)
from contimg.astro.catalogue_tables import CatalogueColumn, CatalogueTable, read_tables
from contimg.astro.catalogue_texts import PART_NAMES, join_parts
from contimg.astro.catalogues import source_names
from contimg.runtime.errors import BadInputError, UsageError

FloatArray = npt.NDArray[np.float64]
Survey = Literal["nvss", "first", "racs", "vlass", "other"]

SIZE_UNITS = {"major": "arcsec", "minor": "arcsec", "position_angle": "deg"}
UNITS = (
    {"ra": "deg", "dec": "deg", "flux": "Jy", "flux_err": "Jy", "flux_peak": "Jy/beam"}
    | SIZE_UNITS
    | {"spectral_index": "", "frequency": "Hz"}
)
"""Units of contimg's columns."""
_POSITION_PAIRS = (
    "_raj2000/_dej2000 raj2000/dej2000 raj2000/decj2000 ra_j2000/dec_j2000 ra_j2000/de_j2000 "
    "ra_icrs/de_icrs _ra_icrs/_de_icrs ra_icrs/dec_icrs raj2000/de_j2000 ra_2000/dec_2000 "
    "raj2000_deg/dej2000_deg ra_deg/dec_deg ra_deg_cont/dec_deg_cont ra/dec ra/de _ra/_de "
    "ra/dej2000 ra/decj2000 ra/de_j2000 raj2000/dec ra_2000/dec ra_deg/dec ra/dec_deg _raj2000/dec "
    "glon/glat _glon/_glat gal_lon/gal_lat gall/galb l/b rab1950/deb1950 _rab1950/_deb1950 "
    "ra1950/dec1950 ra1950/de1950 ra_1950/dec_1950 ra_b1950/dec_b1950"
)
POSITION_NAMES = tuple(tuple(pair.split("/")) for pair in _POSITION_PAIRS.split())
"""Names of Right Ascension and Declination, or of other coordinates, the preferred first."""
FRAMES_BY_NAME = (
    (r".*(2000|icrs)", ICRS, "J2000"),
    (r"_?(glon|glat|gal_?(lon|lat|l|b)|l|b)$", GALACTIC, "galactic"),
    (r".*1950", FK4, "B1950"),
)
NAMED_FREQUENCIES_HZ = dict.fromkeys(("s1_4", "flux_20_cm", "flux_20cm"), 1.4e9)
"""Of fluxes under names that say it."""
SURVEY_NAMES = {
    "flux": "flux s1_4 flux_20_cm fint int_flux total_flux_source total_flux flux_int ftot "
    "flux_jy flux_mjy s_int sint flux_20cm",
    "flux_err": "flux_err e_s1_4 flux_20_cm_error e_total_flux_source e_total_flux flux_int_err "
    "e_ftot e_flux flux_err_jy flux_err_mjy e_sint err_int_flux",
    "flux_peak": "flux_peak peak_int fpeak peak_flux s_peak flux_peak_jy flux_peak_mjy",
    "major": "dc_maj dcmaj maj_axis_deconv major majaxis major_axis maj major_arcsec major_ax",
    "minor": "dc_min dcmin min_axis_deconv minor minaxis minor_axis min minor_arcsec minor_ax",
    "position_angle": "dc_pa dcpa pos_ang_deconv posang position_angle pa posangle",
    "spectral_index": "spectral_index alpha spindex",
    "frequency": "frequency freq obs_freq freq_hz freq_mhz",
    "name": "name source_name component_name compname iau_name nvss first island_id source_id",
}
"""Names of the other columns in surveys, in lower case with signs as ``_``, the preferred first."""
SURVEY_UNITS: Mapping[Survey, Mapping[str, str]] = {
    "nvss": SIZE_UNITS,
    "first": SIZE_UNITS,
    "racs": {**SIZE_UNITS, "frequency": "MHz"},
    "vlass": SIZE_UNITS,
    "other": {},
}
SURVEY_FLUXES: Mapping[Survey, str] = {
    "nvss": "s1_4 e_s1_4 flux_20_cm flux_20_cm_error",
    "first": "fint fpeak flux_20_cm int_flux_20_cm",
    "racs": "total_flux_source e_total_flux_source peak_flux flux_int flux_int_err flux_peak",
    "vlass": "total_flux e_total_flux peak_flux",
    "other": "",
}
"""Columns that the surveys publish in mJy (mJy/beam), under names of their own."""
SURVEY_MARKS: Mapping[Survey, str] = {
    "nvss": "",
    "first": "",
    "racs": "total_flux_source flux_int",
    "vlass": "component_name duplicate_flag",
    "other": "",
}
"""One of these is in the survey's own file; other programs write some of the same names in Jy."""
AEGEAN_FLUXES = "int_flux err_int_flux peak_flux"
AEGEAN_MARKS = {"uuid", "int_flux", "peak_flux"}
"""Aegean writes fluxes in Jy, without units (Hancock et al. 2018, PASA 35, e011)."""
FREQUENCY_HZ: Mapping[Survey, float] = {"nvss": 1.4e9, "first": 1.4e9, "vlass": 2.987741e9}
FREQUENCY_RANGE_HZ = 1e7, 1e12
FREQUENCY_TOLERANCE = 0.05
"""By how much a frequency that was given may differ from the file's or the survey's."""
NVSS_BEAM_ARCSEC = 45.0
MAX_FLUX_JY = 1e5
"""Cas A has 50 kJy at 20 MHz."""
MAX_SPECTRAL_INDEX = 5.0
MAX_MEDIAN_INDEX, MIN_INDICES = 0.3, 10
"""Spectra of most sources fall: above it, so many indices probably have the other sign."""
REPEATED_ARCSEC = 1.0
CUT_COUNTS = {50, 100, 500} | {n * 10**power for n in (1, 2, 3, 5) for power in range(3, 7)}
"""Services cut their answers at such numbers of rows, often without a word."""
FLUX_UNITS = ("mJy", "Jy", "uJy")
UNIT_SPELLINGS = {"°": "deg", "Deg": "deg", "Degrees": "deg"} | {
    spelling: unit
    for unit, words in {
        "arcsec": ("asec",),
        "deg": ("deg", "degree", "degrees"),
        **{one: (one,) for one in ("Hz", "MHz", "GHz", *FLUX_UNITS)},
        **{f"{one}/beam": (f"{one}/beam", f"{one}/bm", f"{one}.beam-1") for one in FLUX_UNITS},
    }.items()
    for word in words
    for spelling in (word, word.lower(), word.upper())
}
"""Spellings in one case alone have the prefix that makes sense: MJY is mJy, but MJy is 10^6 Jy."""
FLUX_UNIT_NAMES = ("flux_unit", "flux_units", "unit", "units")
FRAME_NAMES = ("frame", "radesys", "radecsys", "coosys", "coordsys", "ref_frame", "refsys")
EQUINOX_NAMES = ("equinox",)
"""Columns in which every row says the same for all."""
UNIT_AT_END = re.compile(r"^.*_(?P<unit>ujy|mjy|jy|deg|arcsec|hz|mhz|ghz)$")
UCD_BAND = re.compile(r"em\.radio\.(?P<low>\d+)-(?P<high>\d+)(?P<unit>[mg]hz)", re.IGNORECASE)
NON_EQUATORIAL = re.compile(
    r"^pos[._](?!eq)(galactic|gal|supergalactic|ecliptic|ec|az)", re.IGNORECASE
)


class UserStatements(NamedTuple):
    """What a person says about a file."""

    table: str = ""
    """Name or number (from 1) of the table to read; empty for the only one with positions."""
    frame: str = ""
    """Frame of the positions (icrs, fk5, fk4 or galactic) instead of what the file states."""
    flux_unit: str = ""
    """Unit of fluxes that have none."""


NOTHING_GIVEN = UserStatements()


def read_catalogue(
    data: bytes,
    where: str,
    survey: Survey,
    frequency_hz: float | None = None,
    *,
    given: UserStatements = NOTHING_GIVEN,
    notes: list[str] | None = None,
) -> dict[str, Any]:
    """Return the columns of `contimg.records.schemas.shipped.CATALOGUE` from a catalogue file.

    It is FITS, VOTable, ECSV or CSV, perhaps gzipped, by its content, not by its name `where`.
    Units, frame and frequency are those of the file, else of the survey, else those that were
    `given`. What was left out is appended to `notes`.

    Raises
    ------
    BadFileError
        If it has another format or is damaged, or says that it is not whole.
    BadInputError
        If a column is missing, ambiguous or not understood, its unit wrong or unknown, the frame
        not known, or no row has a position and a flux.
    UsageError
        If the frequency is not known, or contradicts the file; or the table must be chosen.
    """
    notes = [] if notes is None else notes
    tables = [
        replace(one, columns=join_parts(one.columns, where)) for one in read_tables(data, where)
    ]
    chosen = choose_table(tables, given.table, where, notes)
    columns = _columns_by_name(chosen)
    pair = _position_names(columns)
    found: dict[str, CatalogueColumn | None] = {"ra": None, "dec": None}
    if pair:
        found = {n: _single(columns, name, where) for n, name in zip(found, pair, strict=True)}
    for target, names in SURVEY_NAMES.items():
        name = next((name for name in names.split() if name in columns), None)
        found[target] = _single(columns, name, where) if name else None
    _require_columns(found, chosen, where)
    flux_unit = given.flux_unit or _only_text(columns, FLUX_UNIT_NAMES, where)
    values = {
        target: _values(column, target, (survey, set(columns), flux_unit), where)
        for target, column in found.items()
        if column is not None and target != "name"
    }
    frame = choose_frame(chosen, (found["ra"], found["dec"]), given.frame, where)
    ra, dec = (check_range(values[n], axis=n, where=f"{where}, {n}") for n in ("ra", "dec"))
    values["ra"], values["dec"] = to_icrs(ra, dec, frame)
    _fill_flux(values, found["major"])
    flux_column = found["flux"] or found["flux_peak"]
    named_hz = NAMED_FREQUENCIES_HZ.get(_plain_name(flux_column.name)) if flux_column else None
    _fill_frequency(values, named_hz or FREQUENCY_HZ.get(survey), frequency_hz, where)
    _check_band(flux_column, values["frequency"], where)
    keep = _is_source(values, columns, survey, _limits(columns, found, where), notes)
    if not keep.any():
        problem = f"None of {keep.size} rows has a position and a flux."
        raise BadInputError(where, problem, "Check the file.")
    nothing = np.full(keep.size, np.nan)
    whole: dict[str, Any] = {target: values.get(target, nothing)[keep] for target in UNITS}
    whole["ra"] = np.mod(whole["ra"], MAX_RA_DEG)
    prefix = survey.upper() if survey != "other" else "CAT"
    whole["name"] = source_names(prefix, whole["ra"], whole["dec"]).tolist()
    own = found["name"]
    if own is not None and own.values.dtype.kind in "OSU":
        listed = [str(x).strip() for x in _texts(own.values[keep])]
        count = Counter(listed)
        by_place = [count[one] > 1 or not one for one in listed]
        if repeated := sum(by_place) - count[""]:
            notes.append(f"{repeated} rows share their names with others: named by position")
        whole["name"] = np.where(by_place, whole["name"], listed).tolist()
    _note_doubts(whole, columns, notes)
    return whole


def _note_doubts(whole: Mapping[str, Any], columns: Mapping[str, object], notes: list[str]) -> None:
    """Append what is odd about a list as a whole to `notes`."""
    from scipy.spatial import cKDTree

    vectors = erfa.s2c(np.radians(whole["ra"]), np.radians(whole["dec"]))
    if len(vectors) > 1:
        nearest = cKDTree(vectors).query(vectors, k=2)[0][:, 1]
        if near := int(np.sum(nearest < np.radians(REPEATED_ARCSEC / 3600))):
            notes.append(f"{near} rows are within {REPEATED_ARCSEC:g} arcsec of others: repeated?")
    index = whole["spectral_index"][np.isfinite(whole["spectral_index"])]
    if index.size >= MIN_INDICES and np.median(index) > MAX_MEDIAN_INDEX:
        middle = np.median(index)
        notes.append(f"the median spectral index is {middle:+.2g}; S is proportional to nu^index")
    if len(whole["ra"]) in CUT_COUNTS:
        notes.append(f"exactly {len(whole['ra'])} rows: was the answer of the service cut?")
    if columns.keys() & {"pmra", "pmdec", "pm_ra", "pm_dec"}:
        notes.append("proper motions are not used: the positions are taken as they are")


def choose_table(
    tables: list[CatalogueTable], wanted: str, where: str, notes: list[str]
) -> CatalogueTable:
    """Return the table of a file that has positions, or the one that is `wanted`.

    Raises UsageError if several have positions and none is wanted, or there is no such table.
    """
    shown = ", ".join(
        f"{i} ({one.name}: {one.columns[0].values.shape[0] if one.columns else 0} rows)"
        for i, one in enumerate(tables, 1)
    )
    if wanted:
        for i, one in enumerate(tables, 1):
            if wanted in {str(i), one.name}:
                return one
        problem = f"The file has no table {wanted!r}; it has {shown}."
        raise UsageError("--table", problem, "Name one of them.")
    usable = [one for one in tables if _position_names(_columns_by_name(one))]
    if len(usable) > 1:
        problem = f"The file has {len(usable)} tables with positions: {shown}."
        raise UsageError(where, problem, "Choose one with --table, and add the others also.")
    if len(tables) > 1:
        notes.append(f"the file has {len(tables)} tables, one with positions was read")
    return usable[0] if usable else tables[0]


def choose_frame(
    table: CatalogueTable,
    pair: tuple[CatalogueColumn | None, CatalogueColumn | None],
    given: str,
    where: str,
) -> SkyFrame:
    """Return the frame of the positions: the one given, else what the file states, else ICRS.

    Raises BadInputError if its statements contradict each other or are not understood.
    """
    if given:
        return parse_frame(given, "", where) or ICRS
    stated: dict[SkyFrame, str] = {}
    for column in pair:
        if column is not None:
            stated |= _stated_frames(column, table)
    columns = _columns_by_name(table)
    system, equinox = (_only_text(columns, names, where) for names in (FRAME_NAMES, EQUINOX_NAMES))
    of_rows = parse_frame(system, equinox, where)
    if of_rows:
        stated[of_rows] = f"a column of its own says {system} {equinox}"
    said = frames_of_text(" ".join(table.comments)) - {("icrs", "")}
    if not stated and said:
        words = ", ".join(f"{system.upper()} {year}".strip() for system, year in sorted(said))
        problem = f"The file's comments mention {words}, but no column's frame is stated."
        raise BadInputError(where, problem, "Say with --frame what the positions are.")
    if len(stated) > 1:
        problem = f"The frame of the positions is contradictory: {'; '.join(stated.values())}."
        raise BadInputError(where, problem, "Say with --frame what they are.")
    found = next(iter(stated), ICRS)
    if found.system not in SYSTEMS.values():
        problem = f"Its positions are in the frame {found.system}."
        raise BadInputError(where, problem, "Convert them to ICRS.")
    return found


def _only_text(
    columns: Mapping[str, list[CatalogueColumn]], names: tuple[str, ...], where: str
) -> str:
    """Return what all rows of a column of one of these names say; empty if there is no such column.

    Raises BadInputError if rows differ.
    """
    for column in (_single(columns, name, where) for name in names if name in columns):
        said = sorted({text.strip() for text in _texts(column.values.ravel())} - {"", "nan"})
        if len(said) > 1:
            problem = f"Column {column.name} differs between rows: {', '.join(said[:5])}."
            raise BadInputError(where, problem, "Split the file, or convert the rows.")
        if said:
            return str(said[0])
    return ""


def _stated_frames(column: CatalogueColumn, table: CatalogueTable) -> dict[SkyFrame, str]:
    """Return every frame that a file states for a column of positions, and how."""
    stated: dict[SkyFrame, str] = {}
    name = _plain_name(column.name)
    named = [(frame, word) for pattern, frame, word in FRAMES_BY_NAME if re.match(pattern, name)]
    own = column.frame or (None if named else table.frame)
    if own:
        stated[own] = f"{column.name} is {own}"
    for frame, word in named:
        stated[frame] = f"{column.name} is {word} by its name"
    other = NON_EQUATORIAL.match(column.ucd)
    if other:
        kind = GALACTIC if other[1].lower().startswith("gal") else SkyFrame(other[1].lower())
        stated[kind] = f"{column.name} has the UCD {column.ucd}"
    said = frames_of_text(column.description)
    if len(said) == 1:
        system, year = said.pop()
        frame = SkyFrame(system, float(year or ICRS.equinox))
        stated[frame] = f"{column.name} is described as {column.description.strip()!r}"
    return stated


def _plain_name(name: str) -> str:
    """Return a name in lower case, with an underscore for anything but letters and digits."""
    lead = "_" if name.startswith("_") else ""
    return lead + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _columns_by_name(table: CatalogueTable) -> dict[str, list[CatalogueColumn]]:
    found: dict[str, list[CatalogueColumn]] = {}
    for column in table.columns:
        found.setdefault(_plain_name(column.name), []).append(column)
    return found


def _position_names(columns: Mapping[str, object]) -> tuple[str, ...] | None:
    return next((pair for pair in POSITION_NAMES if all(n in columns for n in pair)), None)


def _single(columns: Mapping[str, list[CatalogueColumn]], name: str, where: str) -> CatalogueColumn:
    """Return the only column of a name, one number or text a row.

    Raises BadInputError if there are several, or it has several numbers a row.
    """
    found = columns[name]
    if len(found) > 1:
        names = ", ".join(column.name for column in found)
        problem = f"The file has {len(found)} columns of one name: {names}."
        raise BadInputError(where, problem, "Rename or delete all but one.")
    values = found[0].values
    if values.ndim > 1 and values.size != len(values):
        count = values.size // max(1, len(values))
        problem = f"Column {found[0].name} has {count} numbers a row; one is expected."
        raise BadInputError(where, problem, "Write the one to use as a column of its own.")
    return CatalogueColumn(**{**vars(found[0]), "values": values.reshape(len(values))})


def _require_columns(
    found: Mapping[str, CatalogueColumn | None], table: CatalogueTable, where: str
) -> None:
    """Raise BadInputError if there is no position or no flux."""
    missing = [target for target in ("ra", "dec") if found[target] is None]
    missing += ["flux"] if found["flux"] is None and found["flux_peak"] is None else []
    if not missing:
        return
    names = {"ra": [a for a, _ in POSITION_NAMES], "dec": [b for _, b in POSITION_NAMES]}
    names["flux"] = SURVEY_NAMES["flux"].split()
    needed = "; ".join(f"{t}: one of {', '.join(dict.fromkeys(names[t]))}" for t in missing)
    present = ", ".join(column.name for column in table.columns) or "no columns"
    problem = f"Columns are missing ({needed}); the file has {present}."
    remedy = (
        "Rename the columns; positions must be J2000, or their frame stated. Parts of positions"
    )
    remedy += f" are called {PART_NAMES}."
    raise BadInputError(where, problem, remedy)


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return texts of bytes, texts and nothing."""
    plain = ["" if x is None else x.decode() if isinstance(x, bytes) else str(x) for x in values]
    return np.array(plain, np.str_)


def _values(
    column: CatalogueColumn, target: str, source: tuple[Survey, set[str], str], where: str
) -> FloatArray:
    """Return a column's numbers in contimg's unit, NaN for nulls and impossible values.

    `source` is the survey, the names of all columns, and the unit of fluxes that was given.
    """
    place, wanted = f"{where}, column {column.name}", UNITS[target]
    unit = column.unit.strip().strip("\"'").strip()
    unit = "" if unit in {"-", "--", "---"} else unit
    is_position, is_text = target in {"ra", "dec"}, column.values.dtype.kind in "OSU"
    if is_position and is_text:
        own = UNIT_SPELLINGS.get(unit, unit)
        return parse_degrees(_texts(column.values), axis=target, unit=own, where=place)
    if is_position and unit in {*HOUR_PARTS, *DEGREE_PARTS}:
        problem = f"Column {column.name} has numbers in {unit}."
        raise BadInputError(where, problem, "Write the positions in degrees.")
    if not is_text and column.values.dtype.kind not in "iuf":
        problem = f"Column {column.name} is not numeric: it has {column.values.dtype}."
        raise BadInputError(where, problem, "Correct the column.")
    if is_text:
        numbers = parse_numbers(_texts(column.values), place)
    else:
        numbers = np.asarray(column.values, np.float64)
    numbers = np.where(np.abs(numbers) >= FILL_VALUE, np.nan, numbers)
    if wanted:
        unit = unit or _unstated_unit(column, target, source)
        numbers = numbers * _unit_factor(column, unit, target, where)
        numbers = np.where(numbers == 0, 0.0, numbers)
    return _possible(numbers, column, target, where)


def _unstated_unit(
    column: CatalogueColumn, target: str, source: tuple[Survey, set[str], str]
) -> str:
    """Return the unit of a column that has none: of its name, its writer or its survey; or none."""
    survey, names, flux_unit = source
    name, is_flux = _plain_name(column.name), target.startswith("flux")
    ending = UNIT_AT_END.match(name)
    if ending:
        return ending["unit"]
    if is_flux and flux_unit:
        return flux_unit
    if is_flux and names >= AEGEAN_MARKS and name in AEGEAN_FLUXES.split():
        return "Jy"
    if is_flux:
        marks = SURVEY_MARKS[survey].split()
        is_own = name in SURVEY_FLUXES[survey].split() and (not marks or names & set(marks))
        return "mJy" if is_own else ""
    return "deg" if target in {"ra", "dec"} else SURVEY_UNITS[survey].get(target, "")


def _unit_factor(column: CatalogueColumn, unit: str, target: str, where: str) -> float:
    """Return what a number in a unit is in contimg's unit of the column `target`.

    Raises BadInputError for an unknown or logarithmic unit, or one that the column's name denies.
    """
    from astropy import units

    wanted = UNITS[target]
    ending = UNIT_AT_END.match(_plain_name(column.name))
    if not unit:
        problem = f"Column {column.name} has no unit."
        example = {"Jy": "mJy", "Jy/beam": "mJy/beam", "Hz": "MHz"}.get(wanted, wanted)
        remedy = f"Write it as '{column.name} [{example}]', or name the survey with --catalogue."
        if target.startswith("flux"):
            remedy = f"{remedy[:-1]}, or give --flux-unit."
        raise BadInputError(where, problem, remedy)
    spelled = UNIT_SPELLINGS.get(unit, unit)
    if target == "ra" and spelled.lower() in HOUR_UNITS:
        spelled = "hourangle"
    try:
        one, ours = units.Unit(spelled), units.Unit(wanted.removesuffix("/beam"))
        # Peaks are given in Jy as often as in Jy/beam; both mean the same. Logarithms (dex) are
        # equivalent to what they are of, but no multiple of it.
        is_plain = isinstance(one, units.UnitBase)
        same = one if is_plain and one.is_equivalent(ours) else one * units.beam
        factor = float(same.to(ours))
        by_name = units.Unit(UNIT_SPELLINGS[ending["unit"]]).to(ours) if ending else factor
    except (ValueError, TypeError, units.UnitsError) as error:
        problem = f"Column {column.name} is in {unit}, which cannot be converted to {wanted}."
        raise BadInputError(where, problem, "Convert the column, or correct its unit.") from error
    if not np.isclose(factor, by_name, rtol=1e-6):
        problem = f"Column {column.name} is in {unit}, but its name says otherwise."
        raise BadInputError(where, problem, "Rename the column, or correct its unit.")
    return factor


def _possible(numbers: FloatArray, column: CatalogueColumn, target: str, where: str) -> FloatArray:
    """Return numbers with NaN for values such as -99 that mean nothing.

    Raises BadInputError if a flux or a frequency is beyond all that exists.
    """
    if target in {"ra", "dec"}:
        return numbers
    with np.errstate(invalid="ignore"):
        if target in {"flux", "flux_peak"}:
            wrong, limits = numbers > MAX_FLUX_JY, f"{MAX_FLUX_JY:g} Jy"
        elif target == "frequency":
            low, high = FREQUENCY_RANGE_HZ
            wrong = (numbers > 0) & ((numbers < low) | (numbers > high))
            limits = f"{low / 1e6:g} to {high / 1e6:g} MHz; mHz are millihertz"
        else:
            wrong, limits = np.zeros(numbers.shape, bool), ""
            nothing = {
                "spectral_index": np.abs(numbers) > MAX_SPECTRAL_INDEX,
                "position_angle": np.abs(numbers) > MAX_RA_DEG,
            }.get(target, numbers < 0)
            numbers = np.where(nothing, np.nan, numbers)
    if wrong.any():
        row = int(np.argmax(wrong))
        problem = f"Row {row + 1} of column {column.name} is {numbers[row]:g} {UNITS[target]}, "
        problem += f"beyond what is possible ({limits})."
        raise BadInputError(where, problem, "Correct the column, or its unit.")
    return numbers


def _fill_flux(values: dict[str, FloatArray], major: CatalogueColumn | None) -> None:
    """Take peaks for fluxes where there are no others, times the size in NRAO's own file."""
    if "flux" in values:
        return
    values["flux"] = values["flux_peak"]
    if major is not None and _plain_name(major.name) == "major_ax":
        # Sizes in NRAO's own NVSS file are not deconvolved: flux is peak times area over beam.
        area = values.pop("major") * values.pop("minor")
        values["flux"] = values["flux_peak"] * area / NVSS_BEAM_ARCSEC**2


def _fill_frequency(
    values: dict[str, FloatArray], survey_hz: float | None, given_hz: float | None, where: str
) -> None:
    """Fill in the frequency of rows without one; raise UsageError if it is not known.

    `survey_hz` is that of the survey, or of the flux column's name.
    """
    low, high = FREQUENCY_RANGE_HZ
    if given_hz and not low <= given_hz <= high:
        possible = f"{low / 1e6:g} to {high / 1e6:g} are possible"
        problem = f"{given_hz / 1e6:g} MHz were given; {possible}."
        raise UsageError("--frequency-mhz", problem, "Give the frequency of the fluxes in MHz.")
    own = values.get("frequency", np.full(values["ra"].size, np.nan))
    own = np.where(own > 0, own, np.nan)
    known = own[np.isfinite(own)]
    stated = known if known.size else np.array([survey_hz or given_hz or np.nan])
    if given_hz:
        low, high = float(stated.min()), float(stated.max())
        if not low * (1 - FREQUENCY_TOLERANCE) <= given_hz <= high * (1 + FREQUENCY_TOLERANCE):
            problem = f"{given_hz / 1e6:g} MHz were given, but the fluxes are at "
            problem += f"{low / 1e6:g} to {high / 1e6:g} MHz by the file or survey."
            raise UsageError("--frequency-mhz", problem, "Leave it out, or correct the file.")
    frequency = given_hz or survey_hz
    if not np.isfinite(own).all():
        if frequency is None and not known.size:
            remedy = "Give --frequency-mhz; RACS is 887.5 (low), 1367.5 (mid) or 1655.5 (high)."
            raise UsageError(where, "The file has no frequency of the fluxes.", remedy)
        own = np.where(np.isfinite(own), own, frequency or np.nan)
    values["frequency"] = own


def _check_band(flux: CatalogueColumn | None, own_hz: FloatArray, where: str) -> None:
    """Raise BadInputError if the band in a flux's UCD denies the frequencies of the fluxes, Hz."""
    band = UCD_BAND.search(flux.ucd) if flux else None
    if band is None:
        return
    scale = {"mhz": 1e6, "ghz": 1e9}[band["unit"].lower()]
    low = float(band["low"]) * scale * (1 - FREQUENCY_TOLERANCE)
    high = float(band["high"]) * scale * (1 + FREQUENCY_TOLERANCE)
    wrong = own_hz[(own_hz < low) | (own_hz > high)]
    if wrong.size:
        problem = f"Fluxes are at {wrong[0] / 1e6:g} MHz, but their UCD says {band[0]}."
        raise BadInputError(where, problem, "Correct the frequency, or the UCD of the column.")


def _limits(
    columns: Mapping[str, list[CatalogueColumn]],
    found: Mapping[str, CatalogueColumn | None],
    where: str,
) -> npt.NDArray[np.bool_] | None:
    """Return which fluxes are limits by a flag column (l_NAME of VizieR, or upper_limit)."""
    flux = found["flux"] or found["flux_peak"]
    names = (f"l_{_plain_name(flux.name)}", "upper_limit", "limit_flag") if flux else ()
    for name in names:
        if name in columns:
            flags = _single(columns, name, where).values
            if flags.dtype.kind in "OSU":
                words = np.char.lower(np.char.strip(_texts(flags)))
                return np.isin(words, ("<", ">", "u", "l", "true", "t", "yes", "y", "1"))
            return np.asarray(np.nan_to_num(flags.astype(np.float64)) > 0)
    return None


def _is_source(
    values: Mapping[str, FloatArray],
    columns: Mapping[str, list[CatalogueColumn]],
    survey: Survey,
    limits: npt.NDArray[np.bool_] | None,
    notes: list[str],
) -> npt.NDArray[np.bool_]:
    """Return which rows are sources: they have a position and a flux, and are no duplicates."""
    ra, dec, flux, frequency = (values[name] for name in ("ra", "dec", "flux", "frequency"))
    with np.errstate(invalid="ignore"):  # comparisons with NaN are False
        reasons = {
            "no position": ~(np.isfinite(ra) & np.isfinite(dec)),
            "no positive flux": ~(np.isfinite(flux) & (flux > 0)),
            "no frequency": ~(frequency > 0),
        }
    if limits is not None:
        reasons["a limit for a flux"] = limits
    duplicate = columns.get("duplicate_flag") or columns.get("dupflag")
    if survey == "vlass" and duplicate is not None:
        # 2: the same source is better measured in another row (CIRADA's user guide).
        flag = np.nan_to_num(np.asarray(duplicate[0].values, np.float64))
        reasons["a better duplicate"] = flag >= 2  # noqa: PLR2004
    bad = np.zeros(ra.size, bool)
    for reason, rows in reasons.items():
        count = int((rows & ~bad).sum())
        bad |= rows
        if count:
            notes.append(f"{count} of {ra.size} rows left out: {reason}")
    places = np.stack([ra, dec, flux], axis=1)[~bad]
    _, first = np.unique(places, axis=0, return_index=True)
    if first.size < len(places):
        notes.append(f"{len(places) - first.size} of {ra.size} rows left out: repeated")
        kept = np.zeros(len(places), bool)
        kept[first] = True
        bad[np.flatnonzero(~bad)[~kept]] = True
    return ~bad
