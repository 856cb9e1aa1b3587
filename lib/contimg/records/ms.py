"""Measurement Sets with one field, one phase centre and one spectral window: the one writer and reader of the house.

Big columns lie in tiles of about 1 MiB that hold all channels of some rows, so that a block of rows is one sequential read.
The same rows make the same bytes (`contimg.runtime.tar` leaves the lock file out). Sign of the phases: a source of flux S at the
direction cosines l, m (east, north; ICRS) of the phase centre has DATA = S exp(+2 pi i (u l + v m + w (n - 1)) / lambda) with
the UVW of the same row, and a gain error makes it g_i conj(g_j) of that, i = ANTENNA1, j = ANTENNA2.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int32]

TILE_BYTES = 1 << 20
"""Bytes of one tile of a visibility column."""
ROW_TILE = 16384
"""Rows of one tile of the small columns."""
XX, YY, STOKES_I = 9, 12, 1
"""Codes of casacore's ``Stokes`` enumeration."""
TOPOCENTRIC = 5
"""Code of casacore's ``MFrequency`` for frequencies as the telescope counts them."""
FOREVER_S = 1e30
COLUMN_TYPES = {
    "DATA": "complex",
    "MODEL_DATA": "complex",
    "CORRECTED_DATA": "complex",
    "WEIGHT_SPECTRUM": "float",
}
"""Columns that a caller may ask for besides FLAG, and their casacore types."""
SCALARS = (
    "TIME",
    "TIME_CENTROID",
    "INTERVAL",
    "EXPOSURE",
    "SCAN_NUMBER",
    "ARRAY_ID",
    "OBSERVATION_ID",
    "DATA_DESC_ID",
    "FIELD_ID",
    "PROCESSOR_ID",
    "STATE_ID",
    "FEED1",
    "FEED2",
    "FLAG_ROW",
)
FIXED: dict[str, dict[str, tuple[int, ...]]] = {
    "FEED": {"BEAM_OFFSET": (2, 2), "POL_RESPONSE": (2, 2)},
    "FIELD": {"DELAY_DIR": (1, 2), "PHASE_DIR": (1, 2), "REFERENCE_DIR": (1, 2)},
}
"""Arrays of subtables that get a fixed shape, as numpy sees it."""
FIXED_SHAPE = 5
"""casacore's ColumnDesc::Direct | FixedShape."""
ZEROS = (
    "ARRAY_ID",
    "OBSERVATION_ID",
    "DATA_DESC_ID",
    "FIELD_ID",
    "PROCESSOR_ID",
    "STATE_ID",
    "FEED1",
    "FEED2",
)


@dataclass(frozen=True)
class Antennas:
    """The ANTENNA table; the index of an antenna is its row."""

    names: tuple[str, ...]
    positions_m: FloatArray
    """Shape (A, 3), geocentric ITRF."""
    diameters_m: FloatArray
    """Shape (A,)."""


@dataclass(frozen=True)
class Header:
    """What an MS says once."""

    telescope: str
    field: str
    ra_rad: float
    """Phase centre, ICRS."""
    dec_rad: float
    frequencies_hz: FloatArray
    """Channel centres, shape (C,), ascending, topocentric."""
    channel_width_hz: float
    antennas: Antennas
    correlations: tuple[int, ...] = (XX, YY)


@dataclass(frozen=True)
class Rows:
    """What an MS says of each of its N rows, time-major."""

    time_s: FloatArray
    """Midpoints, UTC, MJD in seconds, shape (N,)."""
    interval_s: FloatArray
    antenna1: IntArray
    antenna2: IntArray
    uvw_m: FloatArray
    """Shape (N, 3), the sign that the module's docstring states."""
    weight: npt.NDArray[np.float32]
    """Shape (N, correlations); SIGMA is its inverse square root, 0 where it is 0."""

    def __len__(self) -> int:
        return len(self.time_s)


class Writer:
    """An MS being written, all rows there, visibilities block by block; `create` makes it."""

    def __init__(self, table: Any) -> None:  # noqa: ANN401 - casacore has no types
        self._table = table

    def put(self, first: int, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write consecutive rows from `first` on; each array has shape (rows, channels, correlations)."""
        for name, values in columns.items():
            self._table.putcol(name, values, first, len(values))

    def weigh(self, first: int, weight: npt.NDArray[np.float32]) -> None:
        """Write WEIGHT, shape (rows, correlations), and the SIGMA that follows."""
        self.put(first, {"WEIGHT": weight, "SIGMA": sigma_of(weight)})


def sigma_of(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return weight^-1/2, and 0 where the weight is 0."""
    sigma = np.zeros_like(weight)
    np.power(weight, -0.5, out=sigma, where=weight > 0)
    return sigma


@contextlib.contextmanager
def create(
    path: Path, header: Header, rows: Rows, columns: Sequence[str] = ("DATA",)
) -> Iterator[Writer]:
    """Make an MS with all its subtables and rows; FLAG and `columns` are for the caller to put, in blocks.

    Raises
    ------
    BadInputError
        If the frequencies do not ascend: readers of spectral windows disagree about such.
    """
    import casacore.tables as ct

    if np.any(np.diff(header.frequencies_hz) <= 0):
        raise BadInputError(
            str(path),
            "expected ascending channels, found others.",
            "Sort channels and data before writing them.",
        )
    with ct.default_ms(str(path), *_layout(header, columns)) as table:
        table.addrows(len(rows))
        _put_rows(table, rows)
        _put_keywords(table, header, columns)
        yield Writer(table)
    _put_subtables(path, header, rows)


def _layout(header: Header, columns: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Return the table description and the data managers."""
    import casacore.tables as ct

    shape = (len(header.frequencies_hz), len(header.correlations))
    description, managers = ct.required_ms_desc(), {}

    def tiled(name: str, kind: str, cell: tuple[int, ...], rows: int) -> None:
        value = {"complex": 0j, "float": 0.0, "double": 0.0, "boolean": False}[kind]
        made = ct.makearrcoldesc(
            name,
            value,
            valuetype=kind,
            ndim=len(cell),
            shape=list(cell),
            options=4,
            datamanagertype="TiledColumnStMan",
            datamanagergroup=f"Tiled{name}",
        )
        made["desc"].update(
            {k: description[name][k] for k in ("keywords", "comment") if name in description}
        )
        description.update(ct.maketabdesc([made]))
        spec = {"DEFAULTTILESHAPE": np.array([*cell[::-1], rows], np.int32)}
        managers[f"*{name}"] = {
            "NAME": f"Tiled{name}",
            "TYPE": "TiledColumnStMan",
            "SPEC": spec,
            "COLUMNS": [name],
        }

    cells = max(1, shape[0] * shape[1])
    tile_rows = max(1, TILE_BYTES // (8 * cells))
    for name in columns:
        tiled(name, COLUMN_TYPES[name], shape, tile_rows)
    tiled("FLAG", "boolean", shape, 8 * tile_rows)
    tiled("UVW", "double", (3,), ROW_TILE)
    tiled("WEIGHT", "float", shape[1:], ROW_TILE)
    tiled("SIGMA", "float", shape[1:], ROW_TILE)
    for name in SCALARS:
        description[name].update(dataManagerType="IncrementalStMan", dataManagerGroup="Incremental")
    names = [name for name in SCALARS if name in description]
    managers["*rows"] = {
        "NAME": "Incremental",
        "TYPE": "IncrementalStMan",
        "SPEC": {},
        "COLUMNS": names,
    }
    return description, managers


def _put_rows(table: Any, rows: Rows) -> None:  # noqa: ANN401 - casacore has no types
    zeros = np.zeros(len(rows), np.int32)
    sigma = sigma_of(rows.weight)
    values = {
        "TIME": rows.time_s,
        "TIME_CENTROID": rows.time_s,
        "INTERVAL": rows.interval_s,
        "EXPOSURE": rows.interval_s,
        "ANTENNA1": rows.antenna1,
        "ANTENNA2": rows.antenna2,
        "UVW": rows.uvw_m,
        "WEIGHT": rows.weight,
        "SIGMA": sigma,
        "SCAN_NUMBER": zeros + 1,
        "FLAG_ROW": np.zeros(len(rows), bool),
        **dict.fromkeys(ZEROS, zeros),
    }
    for name, value in values.items():
        table.putcol(name, value)


def _put_keywords(table: Any, header: Header, columns: Sequence[str]) -> None:  # noqa: ANN401 - casacore has no types
    table.putcolkeyword("UVW", "MEASINFO", {"type": "uvw", "Ref": "ICRS"})
    if "MODEL_DATA" in columns:
        # CASA's calibration looks for it.
        channels = np.array([[0, len(header.frequencies_hz)]], np.int32)
        table.putcolkeyword("MODEL_DATA", "CHANNEL_SELECTION", channels)


def _put_subtables(path: Path, header: Header, rows: Rows) -> None:
    start, end = (
        float(rows.time_s[0] - rows.interval_s[0] / 2),
        float(rows.time_s[-1] + rows.interval_s[-1] / 2),
    )
    width, channels = header.channel_width_hz, len(header.frequencies_hz)
    widths = np.full((1, channels), width)
    code = np.array([header.correlations], np.int32)
    receptors = min(2, len(header.correlations))
    product = (
        np.repeat(np.arange(len(header.correlations), dtype=np.int32)[:, None], 2, axis=1)
        % receptors
    )
    # A centre is a polynomial of order 0: shape (rows, 1, 2).
    centre = np.array([[[header.ra_rad, header.dec_rad]]])
    _put(path, "ANTENNA", _antenna_table(header.antennas))
    _put(path, "FEED", _feed_table(len(header.antennas.names), (start + end) / 2))
    _put(
        path,
        "FIELD",
        {
            "NAME": [header.field],
            "CODE": [""],
            "TIME": [start],
            "NUM_POLY": [0],
            "SOURCE_ID": [-1],
            "FLAG_ROW": [False],
            "DELAY_DIR": centre,
            "PHASE_DIR": centre,
            "REFERENCE_DIR": centre,
        },
    )
    _put(
        path,
        "SPECTRAL_WINDOW",
        {
            "NUM_CHAN": [channels],
            "NAME": ["DSA-110"],
            "REF_FREQUENCY": [float(header.frequencies_hz[0])],
            "CHAN_FREQ": header.frequencies_hz[None],
            "CHAN_WIDTH": widths,
            "EFFECTIVE_BW": widths,
            "RESOLUTION": widths,
            "MEAS_FREQ_REF": [TOPOCENTRIC],
            "TOTAL_BANDWIDTH": [channels * width],
            "NET_SIDEBAND": [1],
            "IF_CONV_CHAIN": [0],
            "FREQ_GROUP": [0],
            "FREQ_GROUP_NAME": ["none"],
            "FLAG_ROW": [False],
        },
    )
    _put(
        path,
        "POLARIZATION",
        {
            "NUM_CORR": [code.size],
            "CORR_TYPE": code,
            "CORR_PRODUCT": product[None],
            "FLAG_ROW": [False],
        },
    )
    _put(
        path,
        "DATA_DESCRIPTION",
        {"SPECTRAL_WINDOW_ID": [0], "POLARIZATION_ID": [0], "FLAG_ROW": [False]},
    )
    _put(
        path,
        "OBSERVATION",
        {
            "TELESCOPE_NAME": [header.telescope],
            "TIME_RANGE": np.array([[start, end]]),
            "OBSERVER": ["DSA-110"],
            "PROJECT": ["contimg"],
            "RELEASE_DATE": [0.0],
            "SCHEDULE_TYPE": [""],
            "FLAG_ROW": [False],
            "LOG": [[""]],
            "SCHEDULE": [[""]],
        },
    )
    _put(
        path,
        "STATE",
        {
            "SIG": [True],
            "REF": [False],
            "CAL": [0.0],
            "LOAD": [0.0],
            "SUB_SCAN": [0],
            "FLAG_ROW": [False],
            "OBS_MODE": ["OBSERVE_TARGET#ON_SOURCE"],
        },
    )
    _put(
        path,
        "PROCESSOR",
        {
            "TYPE": ["CORRELATOR"],
            "SUB_TYPE": [""],
            "TYPE_ID": [-1],
            "MODE_ID": [-1],
            "FLAG_ROW": [False],
        },
    )


def _antenna_table(antennas: Antennas) -> dict[str, Any]:
    count = len(antennas.names)
    return {
        "NAME": list(antennas.names),
        "STATION": list(antennas.names),
        "TYPE": ["GROUND-BASED"] * count,
        "MOUNT": ["ALT-AZ"] * count,
        "POSITION": antennas.positions_m,
        "OFFSET": np.zeros((count, 3)),
        "DISH_DIAMETER": antennas.diameters_m,
        "FLAG_ROW": np.zeros(count, bool),
    }


def _feed_table(count: int, time_s: float) -> dict[str, Any]:
    def whole(value: int) -> IntArray:
        return np.full(count, value, np.int32)

    return {
        "ANTENNA_ID": np.arange(count, dtype=np.int32),
        "FEED_ID": whole(0),
        "SPECTRAL_WINDOW_ID": whole(-1),
        "TIME": np.full(count, time_s),
        "INTERVAL": np.full(count, FOREVER_S),
        "NUM_RECEPTORS": whole(2),
        "BEAM_ID": whole(-1),
        "BEAM_OFFSET": np.zeros((count, 2, 2)),
        "POLARIZATION_TYPE": [["X", "Y"]] * count,
        "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (count, 1, 1)),
        "POSITION": np.zeros((count, 3)),
        "RECEPTOR_ANGLE": np.zeros((count, 2)),
    }


def _put(path: Path, name: str, columns: Mapping[str, Any]) -> None:
    """Make a subtable of an MS from one sequence a column.

    It is made anew with all its rows: rows that are added later are counted in table.lock alone, which no tar takes along.
    Arrays get a fixed shape where casacore would leave random bytes between them.
    """
    import casacore.tables as ct

    description = ct.required_ms_desc(name)
    for column, shape in FIXED.get(name, {}).items():
        description[column].update(ndim=len(shape), shape=list(shape), option=FIXED_SHAPE)
    count = len(next(iter(columns.values())))
    with ct.table(f"{path}/{name}", description, nrow=count, ack=False) as table:
        for column, value in columns.items():
            # python-casacore takes lists of texts in this form only.
            texts = isinstance(value, list) and isinstance(value[0], list)
            given = (
                {"shape": [count, len(value[0])], "array": [text for row in value for text in row]}
                if texts
                else value
            )
            table.putcol(column, given)
        if name == "FIELD":
            for column in FIXED[name]:
                table.putcolkeyword(column, "MEASINFO", {"type": "direction", "Ref": "ICRS"})


class MeasurementSet:
    """An MS that is only read; no lock is taken, so that no other reader waits."""

    def __init__(self, path: Path) -> None:
        import casacore.tables as ct

        self.path = path
        try:
            self._table = ct.table(str(path), ack=False, lockoptions="usernoread")
        except RuntimeError as error:
            raise BadInputError(
                str(path),
                f"expected a Measurement Set, found {error!s}.",
                "Convert the group again.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def __len__(self) -> int:
        return int(self._table.nrows())

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._table.colnames())

    @cached_property
    def header(self) -> Header:
        """What the subtables say.

        Raises
        ------
        BadInputError
            If there is not one field, one spectral window and one polarization set-up.
        """
        spectral, field = self._subtable("SPECTRAL_WINDOW"), self._subtable("FIELD")
        antenna, polarization = self._subtable("ANTENNA"), self._subtable("POLARIZATION")
        counts = {
            name: len(table["FLAG_ROW"])
            for name, table in (("spectral window", spectral), ("field", field))
        }
        if set(counts.values()) != {1}:
            raise BadInputError(
                str(self.path),
                f"expected one field and one spectral window, found {counts!s}.",
                "Split the MS first.",
            )
        ra, dec = field["PHASE_DIR"].reshape(2)
        names, dishes = tuple(antenna["NAME"]), antenna["DISH_DIAMETER"]
        return Header(
            telescope=self._subtable("OBSERVATION")["TELESCOPE_NAME"][0],
            field=field["NAME"][0],
            ra_rad=float(ra) % (2 * np.pi),
            dec_rad=float(dec),
            frequencies_hz=spectral["CHAN_FREQ"][0],
            channel_width_hz=float(abs(spectral["CHAN_WIDTH"][0, 0])),
            antennas=Antennas(names, antenna["POSITION"], dishes),
            correlations=tuple(int(code) for code in polarization["CORR_TYPE"][0]),
        )

    @cached_property
    def rows(self) -> Rows:
        """The small columns, whole."""
        get = self._table.getcol
        return Rows(
            time_s=get("TIME"),
            interval_s=get("INTERVAL"),
            antenna1=get("ANTENNA1"),
            antenna2=get("ANTENNA2"),
            uvw_m=get("UVW"),
            weight=get("WEIGHT"),
        )

    def read(self, column: str, first: int = 0, count: int = -1) -> npt.NDArray[Any]:
        """Return `count` rows of a column from `first` on (all, if -1); visibilities have shape (rows, channels, correlations)."""
        values: npt.NDArray[Any] = self._table.getcol(column, first, count)
        return values

    def blocks(self, count: int) -> Iterator[slice]:
        """Cut the rows into slices of at most `count`."""
        for first in range(0, len(self), count):
            yield slice(first, min(first + count, len(self)))

    def _subtable(self, name: str) -> dict[str, Any]:
        import casacore.tables as ct

        with ct.table(f"{self.path}::{name}", ack=False, lockoptions="usernoread") as table:
            wanted = [
                column
                for column in table.colnames()
                if table.nrows() and table.iscelldefined(column, 0)
            ]
            return {column: table.getcol(column) for column in wanted}
