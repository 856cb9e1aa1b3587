"""One field of any Measurement Set in the form of ours: one field, one spectral window, ascending channels, parallel hands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.records.ms import Antennas, MSHeader, Rows, create
from contimg.runtime.errors import AllFlaggedError, BadInputError

if TYPE_CHECKING:
    from pathlib import Path

PARALLEL = {5, 8, 9, 12}
"""RR, LL, XX, YY in casacore's ``Stokes`` enumeration."""


def pick_field(source: Path, field: str, into: Path) -> Path:
    """Copy one field of a Measurement Set.

    Parameters
    ----------
    source
        Any Measurement Set.
    field
        Number or name of the field.
    into
        The new set.

    Raises
    ------
    BadInputError
        If there is no such field, or it was observed in several spectral windows.
    AllFlaggedError
        If the field has no rows.
    """
    import casacore.tables as ct

    try:
        with ct.table(str(source), ack=False, lockoptions="usernoread") as table:
            number = _field_number(source, field)
            with table.query(f"FIELD_ID=={number}", sortlist="TIME,ANTENNA1,ANTENNA2") as rows:
                if not rows.nrows():
                    raise AllFlaggedError(
                        str(source),
                        f"expected visibilities of field {field}, found no row.",
                        "Name another field.",
                    )
                _copy(source, number, rows, into)
    except RuntimeError as error:
        raise BadInputError(
            str(source), f"expected a Measurement Set, found {error!s}.", "Correct --plain-ms."
        ) from error
    return into


def _subtable(source: Path, name: str) -> dict[str, Any]:
    import casacore.tables as ct

    with ct.table(f"{source}::{name}", ack=False, lockoptions="usernoread") as table:
        return {
            column: [table.getcell(column, i) for i in range(table.nrows())]
            for column in table.colnames()
            if _full(table, column)
        }


def _full(table: Any, column: str) -> bool:  # noqa: ANN401 - casacore has no types
    return all(table.iscelldefined(column, i) for i in range(table.nrows()))


def _field_number(source: Path, field: str) -> int:
    names = _subtable(source, "FIELD")["NAME"]
    if field in names:
        return int(names.index(field))
    if field.isdigit() and int(field) < len(names):
        return int(field)
    raise BadInputError(
        str(source),
        f"expected field {field}, found {', '.join(names)}.",
        "Name one of these fields.",
    )


def _copy(source: Path, field: int, rows: Any, into: Path) -> None:  # noqa: ANN401 - casacore has no types
    descriptions = np.unique(rows.getcol("DATA_DESC_ID"))
    if descriptions.size != 1:
        raise BadInputError(
            str(source),
            f"expected one spectral window, found {descriptions.size}.",
            "Split the Measurement Set first.",
        )
    description = _subtable(source, "DATA_DESCRIPTION")
    window = description["SPECTRAL_WINDOW_ID"][int(descriptions[0])]
    codes = np.asarray(
        _subtable(source, "POLARIZATION")["CORR_TYPE"][
            description["POLARIZATION_ID"][int(descriptions[0])]
        ]
    )
    hands = np.flatnonzero(np.isin(codes, list(PARALLEL)))
    spectral, antenna, place = (
        _subtable(source, "SPECTRAL_WINDOW"),
        _subtable(source, "ANTENNA"),
        _subtable(source, "FIELD"),
    )
    freq = np.asarray(spectral["CHAN_FREQ"][window])
    order = np.argsort(freq)
    ra, dec = np.asarray(place["PHASE_DIR"][field]).reshape(-1)[:2]
    header = MSHeader(
        telescope=str(_subtable(source, "OBSERVATION")["TELESCOPE_NAME"][0]),
        field=str(place["NAME"][field]),
        ra_rad=float(ra),
        dec_rad=float(dec),
        frequencies_hz=freq[order],
        channel_width_hz=float(abs(np.asarray(spectral["CHAN_WIDTH"][window])[0])),
        antennas=Antennas(
            tuple(antenna["NAME"]),
            np.array(antenna["POSITION"]),
            np.array(antenna["DISH_DIAMETER"]),
        ),
        correlations=tuple(int(code) for code in codes[hands]),
    )
    small = Rows(
        rows.getcol("TIME"),
        rows.getcol("INTERVAL"),
        rows.getcol("ANTENNA1"),
        rows.getcol("ANTENNA2"),
        rows.getcol("UVW"),
        rows.getcol("WEIGHT")[:, hands].astype(np.float32),
    )
    lost = rows.getcol("FLAG")[:, order][:, :, hands] | rows.getcol("FLAG_ROW")[:, None, None]
    with create(into, header, small) as writer:
        writer.put(0, {"DATA": rows.getcol("DATA")[:, order][:, :, hands], "FLAG": lost})
