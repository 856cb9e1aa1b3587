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
from typing import Any

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
VISIBILITIES = ("DATA", "MODEL_DATA", "CORRECTED_DATA")
COLUMN_TYPES = {**dict.fromkeys(VISIBILITIES, "complex"), "WEIGHT_SPECTRUM": "float"}
"""Columns that a caller may ask for besides FLAG, and their casacore types."""
ZERO_COLUMNS = (
    *("ARRAY_ID", "OBSERVATION_ID", "DATA_DESC_ID", "FIELD_ID"),
    *("PROCESSOR_ID", "STATE_ID", "FEED1", "FEED2"),
)
"""Scalar columns whose value is 0 in every row."""
TIMES = ("TIME", "TIME_CENTROID", "INTERVAL", "EXPOSURE")
SCALAR_COLUMNS = [*TIMES, "SCAN_NUMBER", *ZERO_COLUMNS, "FLAG_ROW"]
NUMERIC_ZEROS = {"complex": 0j, "float": 0.0, "double": 0.0, "int": 0}
ZERO_OF_TYPE: dict[str, Any] = NUMERIC_ZEROS | {"boolean": False, "string": ""}
DIRECTIONS = ("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR")
FIXED_SHAPES = {
    "FEED": dict.fromkeys(("BEAM_OFFSET", "POL_RESPONSE"), (2, 2)),
    "FIELD": dict.fromkeys(DIRECTIONS, (1, 2)),
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


@dataclass(frozen=True)
class Writer:
    """An MS being written, in blocks of rows; `create` makes it with all rows."""

    table: Any

    def put(self, first: int, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write rows from `first` on; visibilities have shape (rows, channels, correlations)."""
        for name, values in columns.items():
            self.table.putcol(name, values, first, len(values))

    def put_weight(self, first: int, weight: npt.NDArray[np.float32]) -> None:
        """Write WEIGHT, shape (rows, correlations), and SIGMA, its inverse square root or 0."""
        sigma = np.zeros_like(weight)
        np.power(weight, -0.5, out=sigma, where=weight > 0)
        self.put(first, {"WEIGHT": weight, "SIGMA": sigma})


@contextlib.contextmanager
def create(
    path: Path, header: MSHeader, rows: Rows, columns: Sequence[str] = ("DATA",)
) -> Iterator[Writer]:
    """Make an MS with all its subtables and rows; the caller puts FLAG and `columns`, in blocks.

    Raises BadInputError if frequencies do not ascend: readers disagree about such windows.
    """
    import casacore.tables as ct

    if np.any(np.diff(header.frequencies_hz) <= 0):
        remedy = "Sort channels and data before writing them."
        raise BadInputError(str(path), "The channels do not ascend in frequency.", remedy)
    with ct.default_ms(str(path), *_layout(header, columns)) as table:
        table.addrows(len(rows))
        writer, zeros = Writer(table), np.zeros(len(rows), np.int32)
        times = (rows.time_s, rows.time_s, rows.interval_s, rows.interval_s)
        writer.put(0, dict(zip(TIMES, times, strict=True)) | dict.fromkeys(ZERO_COLUMNS, zeros))
        writer.put(0, {"ANTENNA1": rows.antenna1, "ANTENNA2": rows.antenna2, "UVW": rows.uvw_m})
        writer.put(0, {"SCAN_NUMBER": zeros + 1, "FLAG_ROW": np.zeros(len(rows), bool)})
        writer.put_weight(0, rows.weight)
        table.putcolkeyword("UVW", "MEASINFO", {"type": "uvw", "Ref": "ICRS"})
        if "MODEL_DATA" in columns:
            # CASA's calibration looks for it.
            channels = np.array([[0, len(header.frequencies_hz)]], np.int32)
            table.putcolkeyword("MODEL_DATA", "CHANNEL_SELECTION", channels)
        yield writer
    for name, subtable in _subtables(header, rows).items():
        _write_subtable(path, name, subtable)


def _layout(header: MSHeader, columns: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Return the table description and the data managers."""
    import casacore.tables as ct

    shape = (len(header.frequencies_hz), len(header.correlations))
    tile_rows = max(1, TILE_BYTES // (8 * max(1, shape[0] * shape[1])))
    tiled = [
        *((name, COLUMN_TYPES[name], shape, tile_rows) for name in columns),
        ("FLAG", "boolean", shape, 8 * tile_rows),
        ("UVW", "double", (3,), TILE_ROWS),
        *((name, "float", shape[1:], TILE_ROWS) for name in ("WEIGHT", "SIGMA")),
    ]
    description, managers = ct.required_ms_desc(), dict[str, Any]()
    for name, kind, cell, rows in tiled:
        manager, group = "TiledColumnStMan", f"Tiled{name}"
        zero, storage = ZERO_OF_TYPE[kind], {"datamanagertype": manager, "datamanagergroup": group}
        form = {"valuetype": kind, "ndim": len(cell), "shape": list(cell), "options": 4}
        made = ct.makearrcoldesc(name, zero, **form, **storage)
        if name in description:
            made["desc"].update({k: description[name][k] for k in ("keywords", "comment")})
        description.update(ct.maketabdesc([made]))
        spec = {"DEFAULTTILESHAPE": np.array([*cell[::-1], rows], np.int32)}
        managers[f"*{name}"] = {"NAME": group, "TYPE": manager, "SPEC": spec, "COLUMNS": [name]}
    manager, group = "IncrementalStMan", "Incremental"
    for name in SCALAR_COLUMNS:
        description[name].update(dataManagerType=manager, dataManagerGroup=group)
    managers["*rows"] = {"NAME": group, "TYPE": manager, "SPEC": {}, "COLUMNS": SCALAR_COLUMNS}
    return description, managers


def _subtables(header: MSHeader, rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the columns of every subtable, one sequence per column; other scalars are 0."""
    start = float(rows.time_s[0] - rows.interval_s[0] / 2)
    end = float(rows.time_s[-1] + rows.interval_s[-1] / 2)
    channels, correlations = len(header.frequencies_hz), len(header.correlations)
    widths = np.full((1, channels), header.channel_width_hz)
    product = np.repeat(np.arange(correlations, dtype=np.int32)[:, None], 2, axis=1)
    # A centre is a polynomial of order 0: shape (rows, 1, 2).
    centres = dict.fromkeys(DIRECTIONS, np.array([[[header.ra_rad, header.dec_rad]]]))
    names, count = list(header.antennas.names), len(header.antennas.names)
    return {
        "ANTENNA": {
            **dict.fromkeys(("NAME", "STATION"), names),
            "TYPE": ["GROUND-BASED"] * count,
            "MOUNT": ["ALT-AZ"] * count,
            "POSITION": header.antennas.positions_m,
            "OFFSET": np.zeros((count, 3)),
            "DISH_DIAMETER": header.antennas.diameters_m,
        },
        "FEED": {
            "ANTENNA_ID": np.arange(count, dtype=np.int32),
            **dict.fromkeys(("SPECTRAL_WINDOW_ID", "BEAM_ID"), np.full(count, -1, np.int32)),
            "TIME": np.full(count, (start + end) / 2),
            "INTERVAL": np.full(count, FEED_INTERVAL_S),
            "NUM_RECEPTORS": np.full(count, 2, np.int32),
            "BEAM_OFFSET": np.zeros((count, 2, 2)),
            "POLARIZATION_TYPE": [["X", "Y"]] * count,
            "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (count, 1, 1)),
            "POSITION": np.zeros((count, 3)),
            "RECEPTOR_ANGLE": np.zeros((count, 2)),
        },
        "FIELD": {"NAME": [header.field], "TIME": [start], "SOURCE_ID": [-1], **centres},
        "SPECTRAL_WINDOW": {
            "NUM_CHAN": [channels],
            "NAME": ["DSA-110"],
            "MEAS_FREQ_REF": [TOPOCENTRIC],
            "REF_FREQUENCY": [float(header.frequencies_hz[0])],
            "CHAN_FREQ": header.frequencies_hz[None],
            **dict.fromkeys(("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"), widths),
            "TOTAL_BANDWIDTH": [channels * header.channel_width_hz],
            "NET_SIDEBAND": [1],
            "FREQ_GROUP_NAME": ["none"],
        },
        "POLARIZATION": {
            "NUM_CORR": [correlations],
            "CORR_TYPE": np.array([header.correlations], np.int32),
            "CORR_PRODUCT": (product % min(2, correlations))[None],
        },
        "DATA_DESCRIPTION": {"SPECTRAL_WINDOW_ID": [0], "POLARIZATION_ID": [0]},
        "OBSERVATION": {
            "TELESCOPE_NAME": [header.telescope],
            "TIME_RANGE": np.array([[start, end]]),
            "OBSERVER": ["DSA-110"],
            "PROJECT": ["contimg"],
            "LOG": [[""]],
            "SCHEDULE": [[""]],
        },
        "STATE": {"SIG": [True], "OBS_MODE": ["OBSERVE_TARGET#ON_SOURCE"]},
        "PROCESSOR": {"TYPE": ["CORRELATOR"], "TYPE_ID": [-1], "MODE_ID": [-1]},
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
    scalars = {
        k: v["valueType"] for k, v in description.items() if "valueType" in v and "ndim" not in v
    }
    zeros = {column: [ZERO_OF_TYPE[kind]] * count for column, kind in scalars.items()}
    with ct.table(f"{path}/{name}", description, nrow=count, ack=False) as table:
        for column, value in (zeros | dict(columns)).items():
            given = value
            if isinstance(value, list) and isinstance(value[0], list):
                # python-casacore takes lists of texts only in this form.
                texts = [text for row in value for text in row]
                given = {"shape": [count, len(value[0])], "array": texts}
            table.putcol(column, given)
        if name == "FIELD":
            for column in DIRECTIONS:
                table.putcolkeyword(column, "MEASINFO", {"type": "direction", "Ref": "ICRS"})


class MeasurementSet(contextlib.AbstractContextManager["MeasurementSet"]):
    """An MS that is only read; it takes no lock."""

    def __init__(self, path: Path) -> None:
        import casacore.tables as ct

        self.path = path
        try:
            self._table = ct.table(str(path), **READ_ONLY)
        except RuntimeError as error:
            problem = f"This is not a Measurement Set: {error}."
            raise BadInputError(str(path), problem, "Convert the group again.") from error
        self.columns: list[str] = self._table.colnames()

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def __len__(self) -> int:
        return int(self._table.nrows())

    @cached_property
    def header(self) -> MSHeader:
        """Metadata from the subtables.

        Raises BadInputError if there is not one field and one spectral window.
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
                tuple(antenna["NAME"]), antenna["POSITION"], antenna["DISH_DIAMETER"]
            ),
            correlations=tuple(int(code) for code in polarization["CORR_TYPE"][0]),
        )

    @cached_property
    def rows(self) -> Rows:
        """The small columns, whole."""
        names = ("TIME", "INTERVAL", "ANTENNA1", "ANTENNA2", "UVW", "WEIGHT")
        return Rows(*map(self._table.getcol, names))

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
