"""Measurement Sets of other telescopes, and the code of ``contimg import-ms``.

A field is copied into the form of ours: one field, one spectral window (several are joined),
ascending channels, parallel hands, ICRS, UTC. What a set states of itself is used, converted or
refused: flags, weights, frames, time scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import astropy.units as u
import casacore.tables as ct
import erfa
import numpy as np
import numpy.typing as npt
from astropy.coordinates import FK4, ICRS, EarthLocation, SkyCoord, SpectralCoord
from astropy.coordinates.spectral_coordinate import NoVelocityWarning
from astropy.time import Time

from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import separation_rad, use_offline_iers
from contimg.records.flagfile import pack_flags
from contimg.records.groups import MJD_ZERO_JD
from contimg.records.hygiene import usable_samples
from contimg.records.ms import (
    READ_ONLY,
    TOPOCENTRIC,
    VISIBILITIES,
    Antennas,
    FloatArray,
    MeasurementSet,
    MSHeader,
    Rows,
    create,
)
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg.runtime.manifest import QA
from contimg_calibrate.options import ImportOptions
from contimg_calibrate.windows import choose_windows, find_windows, match_rows, read_samples

EQUATORIAL = {"ICRS", "J2000"}
"""Frames that are taken as ICRS; they differ by 0.025 arcsec."""
BESSELIAN = {"B1950": "B1950", "B1950_VLA": "B1979.9"}
"""Frames of equinox B1950, and the epoch at which they rest."""
TIME_SCALES = {"UTC": "utc", "TAI": "tai", "IAT": "tai", "TT": "tt", "TDT": "tt", "ET": "tt"}
FREQUENCY_FRAMES = {1: "lsrk", 2: "lsrd", 3: "icrs", 4: "gcrs", TOPOCENTRIC: ""}
"""astropy's names of casacore's ``MFrequency``: LSRK, LSRD, barycentre, geocentre, topocentre."""
UNITS = {
    **dict.fromkeys(("TIME", "INTERVAL", "EXPOSURE"), "s"),
    **dict.fromkeys(("UVW", "POSITION", "DISH_DIAMETER"), "m"),
    **dict.fromkeys(("CHAN_FREQ", "CHAN_WIDTH"), "Hz"),
    "PHASE_DIR": "rad",
}
"""Our units; a set states its own in the keyword QuantumUnits."""
FIRST_S, LAST_S = 40587 * DAY_S, 88069 * DAY_S
"""1970 and 2100, MJD."""
LENGTH_TOLERANCE = 0.01
"""UVW may be longer or shorter than the baselines by this fraction."""
UVW_TIMES = 64
"""Integrations at which UVW are compared with the antenna positions."""
ALIGNED = 0.9
"""Cosine of the angle to what the positions give, beyond which a row's UVW are right, or have the
opposite sign; precession and aberration turn them by less than a degree."""
MIN_ALIGNED = 0.99
"""Of the rows, so that their signs tell something."""
MAX_TURN_DEG = 2.0
"""A larger median angle between UVW and positions is told."""
NORTH_STEP_RAD = 1e-4
"""To a second place, which shows how north turns between frames."""
MAX_OFFSET = 0.1
"""A calibrator may be this fraction of the beam's FWHM away from the phase centre."""
UNKNOWN_FWHM_DEG = 1.0
"""Taken where the set does not state the dishes' diameters."""
PHASE_SHIFT_REMEDY = "Convert it first, such as with CASA's phaseshift to an ICRS direction."


@dataclass(frozen=True)
class FieldCopy:
    """One field in our form."""

    path: Path
    notes: tuple[str, ...]
    """What a person should know: marks a result as a warning."""


def run(options: ImportOptions, context: Context) -> StageResult:
    """Copy one field of a Measurement Set into an artifact: ms.tar and flags.bin."""
    name = Path(options.path).stem
    copied = copy_field(
        Path(options.path),
        options.field,
        context.scratch / f"{name}.ms",
        column=options.column,
        windows=options.windows,
    )
    with MeasurementSet(copied.path) as ms:
        header, rows = ms.header, ms.rows
        # The autos, which the flag stage would flag; the other flags are the observatory's own.
        flags = ms.read("FLAG") | (rows.antenna1 == rows.antenna2)[:, None, None]
    context.write_tree("ms.tar", copied.path)
    context.write("flags.bin", pack_flags(flags))
    half = rows.interval_s / 2
    metrics = {
        "group": name,
        "telescope": header.telescope,
        "field": header.field,
        "antennas": len(header.antennas.names),
        "channels": header.frequencies_hz.size,
        "rows": len(rows),
        "flagged": float(flags.mean()),
        "ra_deg": float(np.degrees(header.ra_rad)) % 360.0,
        "dec_deg": float(np.degrees(header.dec_rad)),
        "mjd": float(rows.time_s.mean()) / DAY_S,
        "mjd_start": float(np.min(rows.time_s - half)) / DAY_S,
        "mjd_end": float(np.max(rows.time_s + half)) / DAY_S,
    }
    verdict = QA(verdict="warning" if copied.notes else "good", reasons=copied.notes)
    return StageResult(metrics=metrics, qa=verdict)


def copy_field(
    source: Path,
    field: str,
    into: Path,
    *,
    column: Literal["DATA", "CORRECTED_DATA"] = "DATA",
    windows: Sequence[str] = (),
) -> FieldCopy:
    """Copy one field, by number or name, of any Measurement Set into a new one.

    The data are those of `column`; all spectral windows of the field are joined to one, or those of
    the numbers and names `windows`.

    Raises BadInputError if there is no such field, column or window, or windows cannot be joined,
    or frames, time scale or correlations are none that can be converted, or UVW have the wrong
    sign; AllFlaggedError if the field has no rows.
    """
    try:
        with ct.table(str(source), **READ_ONLY) as table:
            names = _read_subtable(source, "FIELD")["NAME"]
            number = _find_field(source, names, field)
            _require_column(source, table, column)
            with table.query(f"FIELD_ID=={number}", sortlist="TIME,ANTENNA1,ANTENNA2") as rows:
                if not rows.nrows():
                    problem = f"Field {field} has no rows."
                    raise AllFlaggedError(str(source), problem, "Name another field.")
                notes = _copy_rows(source, number, rows, into, column, windows)
    except RuntimeError as error:
        problem = f"It cannot be read as a Measurement Set: {error!s}."
        raise BadInputError(str(source), problem, "Correct --plain-ms or --path.") from error
    return FieldCopy(into, tuple(notes))


def _require_column(source: Path, table: Any, column: str) -> None:  # noqa: ANN401 - casacore has no types
    """Raise BadInputError if there is no such column of visibilities."""
    present = [name for name in (*VISIBILITIES, "FLOAT_DATA") if name in table.colnames()]
    if column not in present:
        problem = f"It has no {column}; its columns of data are {', '.join(present) or 'none'}."
        remedy = "Name another with --column; CORRECTED_DATA is made by CASA's applycal."
        raise BadInputError(str(source), problem, remedy)


def _find_field(source: Path, names: list[str], field: str) -> int:
    """Return the row of a field given by number or name; BadInputError unless there is just one."""
    found = {row for row, name in enumerate(names) if name == field}
    if field.isdigit() and int(field) < len(names):
        found.add(int(field))
    if len(found) == 1:
        return found.pop()
    listed = ", ".join(f"{row} ({name})" for row, name in enumerate(names))
    problem = f"{len(found) or 'No'} fields are called {field}; the fields are {listed}."
    remedy = "Give the number of one of them, or rename fields that are called like a number."
    raise BadInputError(str(source), problem, remedy)


def describe_offset(header: MSHeader, ra_deg: float, dec_deg: float) -> str:
    """Say how far from the phase centre a calibrator is, if the beam makes that matter; else "".

    The beam of another telescope is not in the model, so that its flux would be too low by more
    than 3 % from a tenth of the FWHM on, 1.02 wavelengths over the dish (uniform illumination).
    """
    place = np.radians([ra_deg, dec_deg])
    away_deg = float(np.degrees(separation_rad(header.ra_rad, header.dec_rad, *place)))
    known = header.antennas.diameters_m[header.antennas.diameters_m > 0]
    fwhm_deg = UNKNOWN_FWHM_DEG
    if known.size:
        wavelength_m = SPEED_OF_LIGHT_M_S / header.frequencies_hz.max()
        fwhm_deg = float(np.degrees(1.02 * wavelength_m / np.median(known)))
    if away_deg <= MAX_OFFSET * fwhm_deg:
        return ""
    where = f"is {away_deg:.3g} deg from the phase centre of field {header.field}"
    ra, dec = np.degrees([header.ra_rad, header.dec_rad])
    centre = f"RA {ra % 360:.4f}, Dec {dec:+.4f} deg"
    return f"{where} ({centre}), whose beam has a FWHM of {fwhm_deg:.2g} deg."


def _read_subtable(source: Path, name: str) -> dict[str, Any]:
    """Return the columns of a subtable that have a value in every row, as lists of cells.

    Those of `UNITS` are in our units.
    """
    with ct.table(f"{source}::{name}", **READ_ONLY) as table:
        rows = range(table.nrows())
        found = {
            column: [table.getcell(column, i) for i in rows]
            for column in table.colnames()
            if all(table.iscelldefined(column, i) for i in rows)
        }
        for column in found.keys() & UNITS.keys():
            factor = _unit_factor(source, table, column)
            found[column] = [np.multiply(cell, factor) for cell in found[column]]
    return found


def _unit_factor(source: Path, table: Any, column: str) -> float:  # noqa: ANN401 - casacore has no types
    """Return what 1 in the unit that a column states is in ours; BadInputError for other units."""
    keywords = table.getcolkeywords(column)
    stated = keywords.get("QuantumUnits", keywords.get("UNIT", UNITS[column]))
    stated = {stated} if isinstance(stated, str) else set(stated)
    try:
        (factor,) = {float(u.Unit(one).to(UNITS[column])) for one in stated}
    except (ValueError, u.UnitConversionError) as error:
        problem = f"{column} is in {', '.join(sorted(stated))}; {UNITS[column]} is expected."
        raise BadInputError(str(source), problem, "Correct its QuantumUnits.") from error
    if any(name.startswith("RefOff") for name in keywords.get("MEASINFO", {})):
        problem = f"{column} is relative to an offset (RefOffMsr)."
        raise BadInputError(str(source), problem, "Write the column without an offset.")
    return factor


def _copy_rows(
    source: Path,
    field: int,
    rows: Any,  # noqa: ANN401 - casacore has no types
    into: Path,
    column: str,
    wanted: Sequence[str],
) -> list[str]:
    """Write the rows of a query on `source` as a Measurement Set; return notes for a person."""
    names = ("FIELD", "ANTENNA", "SPECTRAL_WINDOW", "POLARIZATION", "DATA_DESCRIPTION")
    fields, antennas, spectral, setups, descriptions = (_read_subtable(source, n) for n in names)
    ids = np.unique(rows.getcol("DATA_DESC_ID"))
    windows = choose_windows(source, find_windows(descriptions, spectral, setups, ids), wanted)
    if len(windows) < ids.size:
        rows = rows.query(f"DATA_DESC_ID IN {[one.description for one in windows]}")
    ra_rad, dec_rad, turn_rad = read_centre(source, fields, field)
    positions = _read_positions(source, antennas)
    times_s = read_utc(source, rows)
    pointing, place = _first_pointing(source, fields), positions.mean(axis=0)
    factors = [topocentric_factor(source, one.reference, *pointing, place) for one in windows]
    uvw_m, bad_rows, notes = check_rows(source, rows, times_s, antennas)
    notes += check_uvw(source, rows, times_s, uvw_m, positions, (ra_rad, dec_rad))
    first, cells = match_rows(source, times_s, rows, len(windows))
    samples = read_samples(rows, windows, factors, cells, bad_rows, column)
    header = MSHeader(
        telescope=_read_telescope(source, rows),
        field=str(fields["NAME"][field]),
        ra_rad=ra_rad,
        dec_rad=dec_rad,
        frequencies_hz=samples.frequencies_hz,
        channel_width_hz=float(windows[0].widths_hz[0]) * factors[0],
        antennas=Antennas(
            _distinct_names(antennas["NAME"]), positions, np.array(antennas["DISH_DIAMETER"])
        ),
        correlations=tuple(windows[0].codes[i] for i in windows[0].hands),
    )
    data, stated = samples.data, samples.flags
    flags = stated | ~usable_samples(np.where(stated, 0, samples.weight), data)
    data[~np.isfinite(data)] = 0
    kept = np.where(flags, 0, samples.weight)
    sampled = np.maximum(1, np.count_nonzero(kept, axis=1))
    columns = Rows(
        time_s=times_s[first],
        interval_s=read_intervals(source, rows)[first],
        antenna1=rows.getcol("ANTENNA1")[first],
        antenna2=rows.getcol("ANTENNA2")[first],
        uvw_m=turn_uvw(uvw_m, turn_rad)[first],
        weight=(kept.sum(axis=1) / sampled).astype(np.float32),
    )
    with create(into, header, columns, ("DATA", "WEIGHT_SPECTRUM")) as writer:
        writer.put(0, {"DATA": data, "FLAG": flags, "WEIGHT_SPECTRUM": kept})
    lost = float(np.mean(flags & ~stated))
    if lost:
        found = f"{lost:.2%} of the samples have no weight or no data and were not flagged"
        notes.insert(0, found)
    commands = _read_subtable(source, "FLAG_CMD") if "FLAG_CMD" in rows.keywordnames() else {}
    waiting = sum(not applied for applied in commands.get("APPLIED", ()))
    if waiting:
        notes.append(f"{waiting} commands of its FLAG_CMD were not applied")
    if column == "DATA" and "CORRECTED_DATA" in rows.colnames():
        notes.append("its CORRECTED_DATA were not used, but DATA (--column chooses)")
    return notes


def _read_telescope(source: Path, rows: Any) -> str:  # noqa: ANN401 - casacore has no types
    """Return the telescope of the rows' observations; BadInputError if there are several."""
    names = _read_subtable(source, "OBSERVATION")["TELESCOPE_NAME"]
    found = sorted({str(names[number]) for number in set(rows.getcol("OBSERVATION_ID").tolist())})
    if len(found) > 1:
        problem = f"The field was observed with {', '.join(found)}; one telescope is expected."
        raise BadInputError(str(source), problem, "Split the Measurement Set first.")
    return found[0]


def _first_pointing(source: Path, fields: dict[str, Any]) -> tuple[float, tuple[float, float]]:
    """Return time (MJD) and direction (rad) of the first row, at which a set's channels are fixed.

    All fields of a set share it, so that gains of one field fit the channels of another.
    """
    with ct.table(str(source), **READ_ONLY) as table:
        time_s = table.getcell("TIME", 0) * _unit_factor(source, table, "TIME")
        centre = np.asarray(fields["PHASE_DIR"][table.getcell("FIELD_ID", 0)]).reshape(-1)
    return float(time_s) / DAY_S, (float(centre[0]), float(centre[1]))


def _read_positions(source: Path, antennas: dict[str, Any]) -> FloatArray:
    """Return geocentric positions, m, shape (A, 3); BadInputError if they have another frame."""
    with ct.table(f"{source}::ANTENNA", **READ_ONLY) as table:
        frame = measure_frame(table, "POSITION", antennas, 0, unstated="ITRF")
    if frame != "ITRF":
        problem = f"Its antenna positions are in the frame {frame}; ITRF is expected."
        raise BadInputError(str(source), problem, "Write geocentric positions.")
    return np.array(antennas["POSITION"])


def _distinct_names(names: list[str]) -> tuple[str, ...]:
    """Return the names of antennas, with their numbers where names are repeated or empty."""
    if len(set(names) - {""}) == len(names):
        return tuple(names)
    return tuple(f"{name or 'antenna'}-{number}" for number, name in enumerate(names))


def check_rows(
    source: Path,
    rows: Any,  # noqa: ANN401 - casacore has no types
    times_s: FloatArray,
    antennas: dict[str, Any],
) -> tuple[FloatArray, npt.NDArray[np.bool_], list[str]]:
    """Return UVW in m, shape (N, 3), which rows are to be flagged, and notes for a person.

    Raises BadInputError if rows have antennas that do not exist, or several of them are the same
    integration of a baseline, or they are of several feeds.
    """
    columns = ("ANTENNA1", "ANTENNA2", "FEED1", "FEED2", "STATE_ID", "FLAG_ROW")
    one, two, feed1, feed2, state, bad = (rows.getcol(name) for name in columns)
    count, problem = len(antennas["NAME"]), ""
    window = rows.getcol("DATA_DESC_ID")
    key = np.stack([times_s, window, np.minimum(one, two), np.maximum(one, two)])
    if min(one.min(), two.min()) < 0 or max(one.max(), two.max()) >= count:
        problem = f"Rows have antennas beyond the {count} of the ANTENNA table."
    elif np.ptp(feed1) or np.ptp(feed2):
        problem = "Rows are of several feeds (FEED1, FEED2)."
    elif (repeated := key.shape[1] - np.unique(key, axis=1).shape[1]) > 0:
        problem = f"{repeated} rows repeat the time and baseline of others."
    if problem:
        raise BadInputError(str(source), problem, "Split the Measurement Set first.")
    notes = []
    states = _read_subtable(source, "STATE")
    off = np.array([_is_off_source(states, row) for row in range(len(states.get("SIG", ())))])
    uvw = rows.getcol("UVW") * _unit_factor(source, rows, "UVW")
    reasons = {
        "are of antennas that are marked as not valid (ANTENNA, FLAG_ROW)": np.isin(
            [one, two], np.flatnonzero(antennas["FLAG_ROW"])
        ).any(axis=0),
        "are not on the source (STATE)": np.isin(state, np.flatnonzero(off)),
        "have no UVW": ~np.isfinite(uvw).all(axis=1),
    }
    for reason, which in reasons.items():
        if np.any(which & ~bad):
            notes.append(f"{np.mean(which & ~bad):.2%} of the rows {reason} and were not flagged")
        bad |= which
    uvw = np.where(np.isfinite(uvw), uvw, 0)
    positions = np.array(antennas["POSITION"])
    length = np.linalg.norm(positions[one] - positions[two], axis=1)
    if length.any():
        ratio = np.median(np.linalg.norm(uvw, axis=1)[length > 0] / length[length > 0])
        if abs(ratio - 1) > LENGTH_TOLERANCE:
            notes.append(f"UVW are {ratio:.4g} times as long as the baselines between positions")
    return uvw, bad, notes


def check_uvw(
    source: Path,
    rows: Any,  # noqa: ANN401 - casacore has no types
    times_s: FloatArray,
    uvw_m: FloatArray,
    positions_m: FloatArray,
    centre_rad: tuple[float, float],
) -> list[str]:
    """Compare UVW with the antenna positions seen from the phase centre (ICRS); return notes.

    UVW are those of ANTENNA1 less those of ANTENNA2, with data of the sign in `contimg.records.ms`.

    Raises BadInputError if they have the opposite sign: the image would be mirrored.
    """
    one, two = (positions_m[rows.getcol(name)] for name in ("ANTENNA1", "ANTENNA2"))
    baseline_m, moments = one - two, np.unique(times_s)
    moments = moments[:: max(1, moments.size // UVW_TIMES)]
    size_m = np.linalg.norm(baseline_m, axis=1) * np.linalg.norm(uvw_m, axis=1)
    used = np.flatnonzero(np.isin(times_s, moments) & (size_m > 0))
    if not used.size:
        return []
    (sin_ra, sin_dec), (cos_ra, cos_dec) = np.sin(centre_rad), np.cos(centre_rad)
    axes = np.array(
        [
            [-sin_ra, cos_ra, 0.0],
            [-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec],
            [cos_dec * cos_ra, cos_dec * sin_ra, sin_dec],
        ]
    )
    mjd = moments / DAY_S
    # The few milliseconds of a turn between UTC and UT1 do not matter here, nor does polar motion.
    turn = erfa.c2t00b(MJD_ZERO_JD, mjd, MJD_ZERO_JD, mjd, 0.0, 0.0)
    seen = np.einsum("tij,kj->tki", turn, axes)[np.searchsorted(moments, times_s[used])]
    wanted_m = np.einsum("nki,ni->nk", seen, baseline_m[used])
    cosine = np.einsum("nk,nk->n", wanted_m, uvw_m[used]) / size_m[used]
    wrong = float(np.mean(cosine < -ALIGNED))
    if wrong and wrong + np.mean(cosine > ALIGNED) > MIN_ALIGNED:
        problem = f"UVW of {wrong:.0%} of the rows have the opposite sign of the baseline from"
        problem += " ANTENNA2 to ANTENNA1, as the positions of the antennas give it."
        remedy = "Multiply UVW by -1, or, if antennas were exchanged, exchange them back."
        raise BadInputError(str(source), problem, remedy)
    angle_deg = float(np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))))
    if angle_deg <= MAX_TURN_DEG:
        return []
    words = f"UVW are {angle_deg:.0f} deg away from what the antenna positions give"
    return [f"{words} for the times and the phase centre"]


def _is_off_source(states: dict[str, Any], row: int) -> bool:
    """Return whether rows of a state are of a reference, a load or a blank sky."""
    mode = str(states["OBS_MODE"][row]).upper()
    reference = states["REF"][row] and not states["SIG"][row]
    is_off = "OFF_SOURCE" in mode and "ON_SOURCE" not in mode
    return bool(reference or is_off or states["LOAD"][row] > 0 or states["CAL"][row] > 0)


def topocentric_factor(
    source: Path,
    reference: int,
    mjd: float,
    centre_rad: tuple[float, float],
    itrf_m: FloatArray,
) -> float:
    """Return by what frequencies in a frame of ``MFrequency`` are multiplied to be topocentric.

    `mjd` is a time (UTC), `centre_rad` RA and Dec (ICRS), `itrf_m` the place of the array. The
    factor changes by 1e-6 in some hours, and by up to 1e-4 over the sky.

    Raises BadInputError for frames that are not converted, such as the rest frame of a source.
    """
    if reference not in FREQUENCY_FRAMES:
        problem = f"Its frequencies are in frame {reference} of MFrequency, not topocentric (5)."
        raise BadInputError(str(source), problem, "Convert it first, such as with CASA's cvel2.")
    if not FREQUENCY_FRAMES[reference]:
        return 1.0
    use_offline_iers()
    place = EarthLocation.from_geocentric(*itrf_m, unit=u.m)
    with warnings.catch_warnings():
        # Source and antennas have no velocity in their own frames, ICRS and ITRS.
        warnings.simplefilter("ignore", NoVelocityWarning)
        here = SpectralCoord(
            1 * u.GHz,
            observer=place.get_itrs(obstime=Time(mjd, format="mjd")),
            target=SkyCoord(*(centre_rad * u.rad), distance=1 * u.Mpc),
        )
        there = here.with_observer_stationary_relative_to(FREQUENCY_FRAMES[reference])
    return float(here.value / there.value)


def read_intervals(source: Path, rows: Any) -> FloatArray:  # noqa: ANN401 - casacore has no types
    """Return the length of each row's integration, s; BadInputError if one has none."""
    for column in ("INTERVAL", "EXPOSURE"):
        found: FloatArray = rows.getcol(column) * _unit_factor(source, rows, column)
        if np.all(found > 0):
            return found
    problem = "Neither INTERVAL nor EXPOSURE is positive in all rows."
    raise BadInputError(str(source), problem, "Write the lengths of integrations into INTERVAL.")


def read_centre(source: Path, fields: dict[str, Any], field: int) -> tuple[float, float, float]:
    """Return RA and Dec (ICRS, rad) of a field, and how far its north is turned to the east, rad.

    Raises BadInputError if the frame cannot be converted, or the centre moves.
    """
    with ct.table(f"{source}::FIELD", **READ_ONLY) as table:
        frame = measure_frame(table, "PHASE_DIR", fields, field)
    moves = fields.get("EPHEMERIS_ID", {field: -1})[field] >= 0 or fields["NUM_POLY"][field] > 0
    known = frame in EQUATORIAL or frame in BESSELIAN
    if moves or not known:
        kind = "moves" if moves else f"is given in the frame {frame}"
        problem = f"The phase centre of field {fields['NAME'][field]} {kind}; ICRS is expected."
        raise BadInputError(str(source), problem, PHASE_SHIFT_REMEDY)
    ra, dec = (float(value) for value in np.asarray(fields["PHASE_DIR"][field]).reshape(-1)[:2])
    if frame in EQUATORIAL:
        return ra, dec, 0.0
    old = FK4(equinox="B1950", obstime=BESSELIAN[frame])
    north = min(dec + NORTH_STEP_RAD, np.pi / 2)
    both = SkyCoord([ra, ra] * u.rad, [dec, north] * u.rad, frame=old).transform_to(ICRS())
    turn = float(both[0].position_angle(both[1]).wrap_at(180 * u.deg).rad)
    with ct.table(str(source), **READ_ONLY) as table:  # the axes of UVW may be those of J2000
        axes = measure_frame(table, "UVW", {}, 0)
    return float(both[0].ra.rad), float(both[0].dec.rad), 0.0 if axes in EQUATORIAL else turn


def measure_frame(
    table: Any,  # noqa: ANN401 - casacore has no types
    column: str,
    cells: dict[str, Any],
    row: int,
    unstated: str = "J2000",
) -> str:
    """Return the frame of a measure column, which may differ from row to row."""
    keywords = table.getcolkeywords(column).get("MEASINFO", {})
    if "VarRefCol" not in keywords:
        return str(keywords.get("Ref", unstated))
    code = cells[keywords["VarRefCol"]][row]
    names = dict(zip(keywords["TabRefCodes"], keywords["TabRefTypes"], strict=True))
    return str(names.get(code, f"code {code}"))


def turn_uvw(uvw_m: FloatArray, turn_rad: float) -> FloatArray:
    """Return UVW, shape (N, 3), on axes whose north is `turn_rad` west of the old one."""
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    east, north, away = uvw_m.T
    return np.stack([cos * east + sin * north, cos * north - sin * east, away], axis=1)


def read_utc(source: Path, rows: Any) -> FloatArray:  # noqa: ANN401 - casacore has no types
    """Return the midpoints of rows, UTC, MJD in seconds; BadInputError for other time scales."""
    times: FloatArray = rows.getcol("TIME") * _unit_factor(source, rows, "TIME")
    scale = str(rows.getcolkeywords("TIME").get("MEASINFO", {}).get("Ref", "UTC"))
    if scale not in TIME_SCALES:
        problem = f"Its times are in {scale}; expected one of {', '.join(TIME_SCALES)}."
        raise BadInputError(str(source), problem, "Write the Measurement Set with UTC.")
    if not np.all((times > FIRST_S) & (times < LAST_S)):
        found = f"{times.min() / DAY_S:.6g} to {times.max() / DAY_S:.6g}"
        problem = f"Its times are MJD {found}, not between 1970 and 2100."
        raise BadInputError(str(source), problem, "Correct TIME, or its QuantumUnits.")
    if scale == "UTC":
        return times
    moments, place = np.unique(times, return_inverse=True)
    utc = Time(moments / DAY_S, format="mjd", scale=TIME_SCALES[scale]).utc
    offset_s = ((utc.jd1 - 2400000.5) * DAY_S - moments) + utc.jd2 * DAY_S
    return np.asarray(times + offset_s[place], np.float64)
