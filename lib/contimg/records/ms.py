"""Writer and reader of Measurement Sets with one field, one phase centre and one spectral window.

Big columns are stored in tiles of about 1 MiB with all channels of some rows, so that a block of
rows is one sequential read. The same rows make the same bytes (tars leave the lock file out). Sign
of the phases: a source of flux S at the direction cosines l, m (east, north; ICRS) of the phase
centre has DATA = S exp(+2 pi i (u l + v m + w (n - 1)) / lambda) with the UVW of the same row; a
gain error multiplies it by g_i conj(g_j), i = ANTENNA1, j = ANTENNA2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from contimg.runtime.errors import BadInputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]

TILE_BYTES = 1 << 20
"""Size of one tile of a visibility column."""
TILE_ROWS = 16384
"""Rows of one tile of the small columns."""
XX, YY, STOKES_I = 9, 12, 1
"""Codes of casacore's ``Stokes`` enumeration."""
TOPOCENTRIC = 5
"""Code of casacore's ``MFrequency`` for topocentric frequencies."""
FEED_INTERVAL_S = 1e30
"""Validity of the FEED table: for ever."""
READ_ONLY = {"ack": False, "lockoptions": "usernoread"}
"""Arguments of casacore's ``table`` for readers, which take no lock so that no other one waits."""
COLUMN_TYPES = {
    "DATA": "complex",
    "MODEL_DATA": "complex",
    "CORRECTED_DATA": "complex",
    "WEIGHT_SPECTRUM": "float",
}
"""Columns that a caller may ask for besides FLAG, and their casacore types."""
ZERO_COLUMNS = (
    *("ARRAY_ID", "OBSERVATION_ID", "DATA_DESC_ID", "FIELD_ID"),
    *("PROCESSOR_ID", "STATE_ID", "FEED1", "FEED2"),
)
"""Scalar columns whose value is 0 in every row."""
SCALAR_COLUMNS = (
    *("TIME", "TIME_CENTROID", "INTERVAL", "EXPOSURE", "SCAN_NUMBER"),
    *(*ZERO_COLUMNS, "FLAG_ROW"),
)
FIXED_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "FEED": {"BEAM_OFFSET": (2, 2), "POL_RESPONSE": (2, 2)},
    "FIELD": {"DELAY_DIR": (1, 2), "PHASE_DIR": (1, 2), "REFERENCE_DIR": (1, 2)},
}
"""Arrays of subtables that get a fixed shape, as in numpy."""
FIXED_SHAPE_OPTION = 5
"""casacore's ColumnDesc::Direct | FixedShape."""


@dataclass(frozen=True)
class Antennas:
    """The ANTENNA table; the index of an antenna is its row."""

    names: tuple[str, ...]
    positions_m: FloatArray
    """Shape (A, 3), geocentric ITRF."""
    diameters_m: FloatArray
    """Shape (A,)."""


@dataclass(frozen=True)
class MSHeader:
    """Metadata of a whole MS."""

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
    """Metadata of each of the N rows, time-major."""

    time_s: FloatArray
    """Midpoints, UTC, MJD in seconds, shape (N,)."""
    interval_s: FloatArray
    antenna1: IntArray
    antenna2: IntArray
    uvw_m: FloatArray
    """Shape (N, 3), sign as in the module's docstring."""
    weight: npt.NDArray[np.float32]
    """Shape (N, correlations); SIGMA is its inverse square root, 0 where it is 0."""

    def __len__(self) -> int:
        return len(self.time_s)


class Writer:
    """An MS being written, in blocks of rows; `create` makes it with all rows."""

    def __init__(self, table: Any) -> None:  # noqa: ANN401 - casacore has no types
        self._table = table

    def put(self, first: int, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write rows from `first` on; each array has shape (rows, channels, correlations)."""
        for name, values in columns.items():
            self._table.putcol(name, values, first, len(values))

    def put_weight(self, first: int, weight: npt.NDArray[np.float32]) -> None:
        """Write WEIGHT, shape (rows, correlations), and the SIGMA that follows from it."""
        self.put(first, {"WEIGHT": weight, "SIGMA": sigma_of(weight)})


def sigma_of(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return weight^-1/2, and 0 where the weight is 0."""
    sigma = np.zeros_like(weight)
    np.power(weight, -0.5, out=sigma, where=weight > 0)
    return sigma


@contextlib.contextmanager
def create(
    path: Path, header: MSHeader, rows: Rows, columns: Sequence[str] = ("DATA",)
) -> Iterator[Writer]:
    """Make an MS with all its subtables and rows; the caller puts FLAG and `columns`, in blocks.

    Raises
    ------
    BadInputError
        If the frequencies do not ascend: readers disagree about such spectral windows.
    """
    import casacore.tables as ct

    if np.any(np.diff(header.frequencies_hz) <= 0):
        remedy = "Sort channels and data before writing them."
        raise BadInputError(str(path), "The channels do not ascend in frequency.", remedy)
    with ct.default_ms(str(path), *_layout(header, columns)) as table:
        table.addrows(len(rows))
        zeros = np.zeros(len(rows), np.int32)
        values: dict[str, npt.NDArray[Any]] = {
            "TIME": rows.time_s,
            "TIME_CENTROID": rows.time_s,
            "INTERVAL": rows.interval_s,
            "EXPOSURE": rows.interval_s,
            "ANTENNA1": rows.antenna1,
            "ANTENNA2": rows.antenna2,
            "UVW": rows.uvw_m,
            "WEIGHT": rows.weight,
            "SIGMA": sigma_of(rows.weight),
            "SCAN_NUMBER": zeros + 1,
            "FLAG_ROW": np.zeros(len(rows), bool),
            **dict.fromkeys(ZERO_COLUMNS, zeros),
        }
        for name, value in values.items():
            table.putcol(name, value)
        table.putcolkeyword("UVW", "MEASINFO", {"type": "uvw", "Ref": "ICRS"})
        if "MODEL_DATA" in columns:
            # CASA's calibration looks for it.
            channels = np.array([[0, len(header.frequencies_hz)]], np.int32)
            table.putcolkeyword("MODEL_DATA", "CHANNEL_SELECTION", channels)
        yield Writer(table)
    for name, subtable in _subtables(header, rows).items():
        _write_subtable(path, name, subtable)


def _layout(header: MSHeader, columns: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Return the table description and the data managers."""
    import casacore.tables as ct

    shape = (len(header.frequencies_hz), len(header.correlations))
    description, managers = ct.required_ms_desc(), {}

    def tiled(name: str, kind: str, cell: tuple[int, ...], rows: int) -> None:
        manager, group = "TiledColumnStMan", f"Tiled{name}"
        made = ct.makearrcoldesc(
            name,
            {"complex": 0j, "float": 0.0, "double": 0.0, "boolean": False}[kind],
            valuetype=kind,
            ndim=len(cell),
            shape=list(cell),
            options=4,
            datamanagertype=manager,
            datamanagergroup=group,
        )
        if name in description:
            made["desc"].update({k: description[name][k] for k in ("keywords", "comment")})
        description.update(ct.maketabdesc([made]))
        spec = {"DEFAULTTILESHAPE": np.array([*cell[::-1], rows], np.int32)}
        managers[f"*{name}"] = {"NAME": group, "TYPE": manager, "SPEC": spec, "COLUMNS": [name]}

    tile_rows = max(1, TILE_BYTES // (8 * max(1, shape[0] * shape[1])))
    for name in columns:
        tiled(name, COLUMN_TYPES[name], shape, tile_rows)
    tiled("FLAG", "boolean", shape, 8 * tile_rows)
    tiled("UVW", "double", (3,), TILE_ROWS)
    tiled("WEIGHT", "float", shape[1:], TILE_ROWS)
    tiled("SIGMA", "float", shape[1:], TILE_ROWS)
    manager, group = "IncrementalStMan", "Incremental"
    for name in SCALAR_COLUMNS:
        description[name].update(dataManagerType=manager, dataManagerGroup=group)
    scalars = list(SCALAR_COLUMNS)
    managers["*rows"] = {"NAME": group, "TYPE": manager, "SPEC": {}, "COLUMNS": scalars}
    return description, managers


def _subtables(header: MSHeader, rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the columns of every subtable, one sequence per column."""
    start = float(rows.time_s[0] - rows.interval_s[0] / 2)
    end = float(rows.time_s[-1] + rows.interval_s[-1] / 2)
    channels, correlations = len(header.frequencies_hz), len(header.correlations)
    widths = np.full((1, channels), header.channel_width_hz)
    product = np.repeat(np.arange(correlations, dtype=np.int32)[:, None], 2, axis=1)
    # A centre is a polynomial of order 0: shape (rows, 1, 2).
    centre = np.array([[[header.ra_rad, header.dec_rad]]])
    return {
        **_antenna_subtables(header.antennas, (start + end) / 2),
        "FIELD": {
            "NAME": [header.field],
            "CODE": [""],
            "TIME": [start],
            "NUM_POLY": [0],
            "SOURCE_ID": [-1],
            "FLAG_ROW": [False],
            **dict.fromkeys(("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR"), centre),
        },
        "SPECTRAL_WINDOW": {
            "NUM_CHAN": [channels],
            "NAME": ["DSA-110"],
            "MEAS_FREQ_REF": [TOPOCENTRIC],
            "REF_FREQUENCY": [float(header.frequencies_hz[0])],
            "CHAN_FREQ": header.frequencies_hz[None],
            **dict.fromkeys(("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"), widths),
            "TOTAL_BANDWIDTH": [channels * header.channel_width_hz],
            "NET_SIDEBAND": [1],
            "IF_CONV_CHAIN": [0],
            "FREQ_GROUP": [0],
            "FREQ_GROUP_NAME": ["none"],
            "FLAG_ROW": [False],
        },
        "POLARIZATION": {
            "NUM_CORR": [correlations],
            "FLAG_ROW": [False],
            "CORR_TYPE": np.array([header.correlations], np.int32),
            "CORR_PRODUCT": (product % min(2, correlations))[None],
        },
        "DATA_DESCRIPTION": {
            "SPECTRAL_WINDOW_ID": [0],
            "POLARIZATION_ID": [0],
            "FLAG_ROW": [False],
        },
        "OBSERVATION": {
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
        "STATE": {
            "SIG": [True],
            "REF": [False],
            "CAL": [0.0],
            "LOAD": [0.0],
            "SUB_SCAN": [0],
            "FLAG_ROW": [False],
            "OBS_MODE": ["OBSERVE_TARGET#ON_SOURCE"],
        },
        "PROCESSOR": {
            "TYPE": ["CORRELATOR"],
            "SUB_TYPE": [""],
            "TYPE_ID": [-1],
            "MODE_ID": [-1],
            "FLAG_ROW": [False],
        },
    }


def _antenna_subtables(antennas: Antennas, middle_s: float) -> dict[str, dict[str, Any]]:
    """Return the columns of ANTENNA and FEED."""
    names, count = list(antennas.names), len(antennas.names)
    zero, none, both = (np.full(count, value, np.int32) for value in (0, -1, 2))
    return {
        "ANTENNA": {
            "NAME": names,
            "STATION": names,
            "TYPE": ["GROUND-BASED"] * count,
            "MOUNT": ["ALT-AZ"] * count,
            "POSITION": antennas.positions_m,
            "OFFSET": np.zeros((count, 3)),
            "DISH_DIAMETER": antennas.diameters_m,
            "FLAG_ROW": np.zeros(count, bool),
        },
        "FEED": {
            "ANTENNA_ID": np.arange(count, dtype=np.int32),
            "FEED_ID": zero,
            "SPECTRAL_WINDOW_ID": none,
            "TIME": np.full(count, middle_s),
            "INTERVAL": np.full(count, FEED_INTERVAL_S),
            "NUM_RECEPTORS": both,
            "BEAM_ID": none,
            "BEAM_OFFSET": np.zeros((count, 2, 2)),
            "POLARIZATION_TYPE": [["X", "Y"]] * count,
            "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (count, 1, 1)),
            "POSITION": np.zeros((count, 3)),
            "RECEPTOR_ANGLE": np.zeros((count, 2)),
        },
    }


def _write_subtable(path: Path, name: str, columns: Mapping[str, Any]) -> None:
    """Replace a subtable of an MS by one with all its rows.

    Rows that are added later are counted only in table.lock, which tars leave out. Arrays get a
    fixed shape where casacore would leave random bytes between them.
    """
    import casacore.tables as ct

    description = ct.required_ms_desc(name)
    for column, shape in FIXED_SHAPES.get(name, {}).items():
        fixed = {"ndim": len(shape), "shape": list(shape), "option": FIXED_SHAPE_OPTION}
        description[column].update(fixed)
    count = len(next(iter(columns.values())))
    with ct.table(f"{path}/{name}", description, nrow=count, ack=False) as table:
        for column, value in columns.items():
            given = value
            if isinstance(value, list) and isinstance(value[0], list):
                # python-casacore takes lists of texts only in this form.
                texts = [text for row in value for text in row]
                given = {"shape": [count, len(value[0])], "array": texts}
            table.putcol(column, given)
        if name == "FIELD":
            for column in FIXED_SHAPES[name]:
                table.putcolkeyword(column, "MEASINFO", {"type": "direction", "Ref": "ICRS"})


class MeasurementSet:
    """An MS that is only read; it takes no lock."""

    def __init__(self, path: Path) -> None:
        import casacore.tables as ct

        self.path = path
        try:
            self._table = ct.table(str(path), **READ_ONLY)
        except RuntimeError as error:
            problem = f"This is not a Measurement Set: {error}."
            raise BadInputError(str(path), problem, "Convert the group again.") from error

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
    def header(self) -> MSHeader:
        """Metadata from the subtables.

        Raises
        ------
        BadInputError
            If there is not one field, one spectral window and one polarization set-up.
        """
        spectral, field = self._subtable("SPECTRAL_WINDOW"), self._subtable("FIELD")
        antenna, polarization = self._subtable("ANTENNA"), self._subtable("POLARIZATION")
        windows, fields = len(spectral["FLAG_ROW"]), len(field["FLAG_ROW"])
        if (windows, fields) != (1, 1):
            problem = f"There are {windows} spectral windows and {fields} fields, not one of each."
            raise BadInputError(str(self.path), problem, "Split the MS first.")
        ra, dec = field["PHASE_DIR"].reshape(2)
        return MSHeader(
            telescope=self._subtable("OBSERVATION")["TELESCOPE_NAME"][0],
            field=field["NAME"][0],
            ra_rad=float(ra) % (2 * np.pi),
            dec_rad=float(dec),
            frequencies_hz=spectral["CHAN_FREQ"][0],
            channel_width_hz=float(abs(spectral["CHAN_WIDTH"][0, 0])),
            antennas=Antennas(
                names=tuple(antenna["NAME"]),
                positions_m=antenna["POSITION"],
                diameters_m=antenna["DISH_DIAMETER"],
            ),
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
        """Return `count` rows of a column from `first` on, all of them if -1.

        Visibilities have shape (rows, channels, correlations).
        """
        values: npt.NDArray[Any] = self._table.getcol(column, first, count)
        return values

    def blocks(self, count: int) -> Iterator[slice]:
        """Cut the rows into slices of at most `count`."""
        for first in range(0, len(self), count):
            yield slice(first, min(first + count, len(self)))

    def _subtable(self, name: str) -> dict[str, Any]:
        import casacore.tables as ct

        with ct.table(f"{self.path}::{name}", **READ_ONLY) as table:
            columns = table.colnames() if table.nrows() else []
            defined = (column for column in columns if table.iscelldefined(column, 0))
            return {column: table.getcol(column) for column in defined}
