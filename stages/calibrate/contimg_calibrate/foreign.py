"""Measurement Sets of other telescopes, and the code of ``contimg import-ms``.

A field is copied into the form of ours: one field, one spectral window, ascending channels,
parallel hands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.flagfile import pack_flags
from contimg.records.ms import READ_ONLY, Antennas, MeasurementSet, MSHeader, Rows, create
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg_calibrate.options import ImportOptions

PARALLEL_HANDS = (5, 8, 9, 12)
"""RR, LL, XX, YY in casacore's ``Stokes`` enumeration."""


def run(options: ImportOptions, context: Context) -> StageResult:
    """Copy one field of a Measurement Set into an artifact: ms.tar and flags.bin."""
    name = Path(options.path).stem
    path = copy_field(Path(options.path), options.field, context.scratch / f"{name}.ms")
    with MeasurementSet(path) as ms:
        header, rows = ms.header, ms.rows
        # The autos, which the flag stage would flag; the other flags are the observatory's own.
        flags = ms.read("FLAG") | (rows.antenna1 == rows.antenna2)[:, None, None]
    context.write_tree("ms.tar", path)
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
    return StageResult(metrics=metrics)


def copy_field(source: Path, field: str, into: Path) -> Path:
    """Copy one field, by number or name, of any Measurement Set into a new one.

    Raises BadInputError if there is no such field, or it was observed in several spectral windows;
    AllFlaggedError if the field has no rows.
    """
    try:
        with ct.table(str(source), **READ_ONLY) as table:
            names = _read_subtable(source, "FIELD")["NAME"]
            number = int(field) if field.isdigit() else -1
            if field in names:
                number = names.index(field)
            elif not 0 <= number < len(names):
                problem = f"There is no field {field}; the fields are {', '.join(names)}."
                raise BadInputError(str(source), problem, "Name one of these fields.")
            with table.query(f"FIELD_ID=={number}", sortlist="TIME,ANTENNA1,ANTENNA2") as rows:
                if not rows.nrows():
                    problem = f"Field {field} has no rows."
                    raise AllFlaggedError(str(source), problem, "Name another field.")
                _copy_rows(source, number, rows, into)
    except RuntimeError as error:
        problem = f"It cannot be read as a Measurement Set: {error!s}."
        raise BadInputError(str(source), problem, "Correct --plain-ms.") from error
    return into


def _read_subtable(source: Path, name: str) -> dict[str, Any]:
    """Return the columns of a subtable that have a value in every row, as lists of cells."""
    with ct.table(f"{source}::{name}", **READ_ONLY) as table:
        rows = range(table.nrows())
        return {
            column: [table.getcell(column, i) for i in rows]
            for column in table.colnames()
            if all(table.iscelldefined(column, i) for i in rows)
        }


def _copy_rows(source: Path, field: int, rows: Any, into: Path) -> None:  # noqa: ANN401 - casacore has no types
    """Write the rows of a query on `source` as a Measurement Set."""
    ids = np.unique(rows.getcol("DATA_DESC_ID"))
    if ids.size != 1:
        problem = f"The field was observed in {ids.size} spectral windows; one is expected."
        raise BadInputError(str(source), problem, "Split the Measurement Set first.")
    names = ("FIELD", "ANTENNA", "SPECTRAL_WINDOW", "POLARIZATION", "DATA_DESCRIPTION")
    fields, antennas, windows, setups, descriptions = (_read_subtable(source, n) for n in names)
    window = descriptions["SPECTRAL_WINDOW_ID"][ids[0]]
    codes = np.asarray(setups["CORR_TYPE"][descriptions["POLARIZATION_ID"][ids[0]]])
    hands = np.flatnonzero(np.isin(codes, PARALLEL_HANDS))
    freq_hz = np.asarray(windows["CHAN_FREQ"][window])
    order = np.argsort(freq_hz)
    ra, dec = np.asarray(fields["PHASE_DIR"][field]).reshape(-1)[:2]
    positions, diameters = (np.array(antennas[name]) for name in ("POSITION", "DISH_DIAMETER"))
    header = MSHeader(
        telescope=str(_read_subtable(source, "OBSERVATION")["TELESCOPE_NAME"][0]),
        field=str(fields["NAME"][field]),
        ra_rad=float(ra),
        dec_rad=float(dec),
        frequencies_hz=freq_hz[order],
        channel_width_hz=float(abs(np.asarray(windows["CHAN_WIDTH"][window])[0])),
        antennas=Antennas(tuple(antennas["NAME"]), positions, diameters),
        correlations=tuple(int(code) for code in codes[hands]),
    )
    columns = Rows(
        time_s=rows.getcol("TIME"),
        interval_s=rows.getcol("INTERVAL"),
        antenna1=rows.getcol("ANTENNA1"),
        antenna2=rows.getcol("ANTENNA2"),
        uvw_m=rows.getcol("UVW"),
        weight=rows.getcol("WEIGHT")[:, hands].astype(np.float32),
    )
    flags = rows.getcol("FLAG")[:, order][:, :, hands] | rows.getcol("FLAG_ROW")[:, None, None]
    with create(into, header, columns) as writer:
        writer.put(0, {"DATA": rows.getcol("DATA")[:, order][:, :, hands], "FLAG": flags})
