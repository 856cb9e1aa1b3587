"""Files that describe a primary beam: JSON, a radial table (CSV, FITS) or a map (FITS)."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from contimg.astro.primary_beam import BeamMap, FloatArray, PrimaryBeam, model_beam
from contimg.runtime.errors import BadInputError
from contimg.runtime.manifest import Record
from contimg.runtime.store import split
from contimg.runtime.unique_names import read_json

if TYPE_CHECKING:
    from astropy.io.fits import Header

MAX_AXIS_ERROR = 0.02
"""Largest deviation of a file's level on the axis from 1."""
MAX_LAST_LEVEL = 0.2
"""A table or map must reach out to this level: images use the beam down to there."""
MAX_OFFSET_DEG = 1.0
FACTOR_RANGE = (0.7, 1.4)
"""Of widths relative to the model: a file beyond it means something else by them."""
FIT_ERRORS = ("width_error", "east_error_deg", "north_error_deg")
"""As ``contimg beam fit`` writes them."""
TABLE_COLUMNS = ("radius_deg_ghz", "level")
DIRECTIONS = {("RA---SIN", "DEC--SIN"), ("L", "M")}
"""Axes of a map: l towards the east, m to the north."""


class BeamFile(Record):
    """A beam as a JSON file, such as ``contimg beam fit`` writes."""

    schema_version: Literal[1] = 1
    model: str
    """``airy:DIAMETER`` or ``gaussian:FWHM@FREQUENCY``."""
    offset_deg: tuple[float, float] = (0.0, 0.0)
    """East and north of the beam's axis from the direction to which the telescope is pointed."""
    widths: tuple[tuple[float, float], ...] = ()
    """Frequency (MHz) and factor on the model's width; linear between, constant beyond."""
    fit: dict[str, Any] = Field(default_factory=dict)
    """How it was measured. Its errors of width and offset are the beam's; the rest is not used."""


def read_beam(text: str) -> PrimaryBeam:
    """Return the beam that an option names.

    Raises BadInputError if it is neither a model nor a valid file; MissingError if there is no such
    file.
    """
    model = model_beam(text)
    if model is not None:
        return model
    store, key = split(text)
    data, ending = store.read(key), text.rpartition(".")[2].lower()
    reader = {"json": _read_json, "csv": _read_table, "fits": _read_fits}.get(ending)
    if reader is None:
        raise BadInputError(text, "The file is not .json, .csv or .fits.", "Name such a file.")
    made = reader(data, text)
    plain = made.kind in {"airy", "gaussian"} and not made.widths and made.offset_deg == (0.0, 0.0)
    if plain:
        return made
    return replace(made, name=f"{made.name}#{hashlib.sha256(data).hexdigest()[:8]}")


def _read_json(data: bytes, where: str) -> PrimaryBeam:
    remedy = "Write it as docs/how-to/primary-beam.md says, or with `contimg beam fit`."
    try:
        file = BeamFile.model_validate(read_json(data))
    except (ValidationError, ValueError) as error:
        raise BadInputError(where, f"This is not a beam file: {error}.", remedy) from error
    model = model_beam(file.model)
    if model is None:
        raise BadInputError(where, f"The model {file.model!r} is not known.", remedy)
    if not all(abs(value) <= MAX_OFFSET_DEG for value in file.offset_deg):
        problem = f"The offset is {file.offset_deg} deg; {MAX_OFFSET_DEG} deg are allowed."
        raise BadInputError(where, problem, remedy)
    low, high = FACTOR_RANGE
    mhz = [frequency for frequency, _ in file.widths]
    good = all(low <= factor <= high for _, factor in file.widths)
    if not good or mhz != sorted(set(mhz)) or not all(100 < one < 1e5 for one in mhz):  # noqa: PLR2004
        problem = f"Widths must be [MHz ascending, factor {low} to {high}]: {file.widths}."
        raise BadInputError(where, problem, remedy)
    stated = [file.fit.get(name) for name in FIT_ERRORS]
    known = [value for value in stated if value is not None]
    if known and not (
        len(known) == len(stated)
        and all(isinstance(one, int | float) and 0 < one < MAX_OFFSET_DEG for one in known)
    ):
        found = ", ".join(f"{name} {value}" for name, value in zip(FIT_ERRORS, stated, strict=True))
        problem = f"Its fit states errors that are not possible: {found}."
        raise BadInputError(where, problem, "Give all three, greater than 0, or none.")
    return replace(
        model,
        offset_deg=file.offset_deg,
        widths=tuple((frequency * 1e6, factor) for frequency, factor in file.widths),
        errors=(known[0] / file.fit.get("width", 1.0), known[1], known[2]) if known else None,
    )


def _read_table(data: bytes, where: str) -> PrimaryBeam:
    remedy = f"Give columns {', '.join(TABLE_COLUMNS)}: radius times frequency, and power."
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        names = tuple(name.strip() for name in reader.fieldnames or ())
        rows = [tuple(map(float, row.values())) for row in reader]
    except (UnicodeDecodeError, ValueError, TypeError, AttributeError) as error:
        raise BadInputError(where, f"The table cannot be read: {error}.", remedy) from error
    if names != TABLE_COLUMNS or any(len(row) != len(names) for row in rows):
        raise BadInputError(where, f"The columns are {', '.join(names) or 'none'}.", remedy)
    return _make_table(rows, where)


def _make_table(rows: Sequence[tuple[float, ...]], where: str) -> PrimaryBeam:
    """Return a radial beam; raise BadInputError for values that no beam has."""
    table = np.array(rows, np.float64).reshape(-1, 2)
    radius, level = table.T
    if len(table) < 4 or radius[0] != 0 or np.any(np.diff(radius) <= 0):  # noqa: PLR2004
        problem = "The radii do not ascend from 0 in at least 4 steps."
        raise BadInputError(where, problem, "Give the profile from the axis on.")
    _check_levels(level, float(level[0]), float(level[-1]), where)
    return PrimaryBeam(
        name="table", kind="table", table=tuple(zip(radius.tolist(), level.tolist(), strict=True))
    )


def _check_levels(level: FloatArray, on_axis: float, at_edge: float, where: str) -> None:
    finite = np.isfinite(level).all()
    if not finite or level.min(initial=0) < 0 or level.max(initial=0) > 1 + MAX_AXIS_ERROR:
        problem = "Levels must be between 0 and 1, power relative to the axis."
        raise BadInputError(where, problem, "Square a voltage pattern, take 10^(dB/10) of dB.")
    if abs(on_axis - 1) > MAX_AXIS_ERROR:
        problem = f"The level on the axis is {on_axis:.4g}, not 1."
        raise BadInputError(where, problem, "Divide by the level on the axis.")
    if at_edge > MAX_LAST_LEVEL:
        problem = f"The pattern ends at a level of {at_edge:.3g}; images need {MAX_LAST_LEVEL}."
        raise BadInputError(where, problem, "Give it to a larger radius.")


def _read_fits(data: bytes, where: str) -> PrimaryBeam:
    """Read a table with the columns of a CSV, or an image l, m[, frequency[, Stokes]]."""
    from astropy.io import fits  # takes half a second

    try:
        with fits.open(io.BytesIO(data)) as file:
            held = [(one.header, np.array(one.data)) for one in file if one.data is not None]
    except (OSError, ValueError, TypeError) as error:
        problem = f"This is not a whole FITS file: {error}."
        raise BadInputError(where, problem, "Copy it again.") from error
    if len(held) != 1:
        problem = f"The file has {len(held)} images or tables."
        raise BadInputError(where, problem, "Give a file with one.")
    header, content = held[0]
    if content.dtype.names:
        lower = {name.lower(): name for name in content.dtype.names}
        if sorted(name.lower() for name in content.dtype.names) != sorted(TABLE_COLUMNS):
            remedy = f"Give columns {', '.join(TABLE_COLUMNS)}."
            raise BadInputError(where, f"The columns are {', '.join(content.dtype.names)}.", remedy)
        columns = (np.asarray(content[lower[name]], np.float64) for name in TABLE_COLUMNS)
        return _make_table(list(zip(*columns, strict=True)), where)
    try:
        return _make_map(header, np.asarray(content, np.float64), where)
    except (KeyError, TypeError) as error:
        problem = f"A keyword of the axes is missing: {error}."
        raise BadInputError(where, problem, "Complete the header.") from error


def _make_map(header: Header, level: FloatArray, where: str) -> PrimaryBeam:
    """Return the beam of an image; raise BadInputError for axes that are not understood."""
    remedy = "Give axes RA/DEC or L/M (deg or rad), then FREQ (Hz), of power relative to the axis."
    kinds = [str(header.get(f"CTYPE{i}", "")).strip().upper() for i in range(1, level.ndim + 1)]
    units = [str(header.get(f"CUNIT{i}", "")).strip().lower() for i in range(1, level.ndim + 1)]
    spectral = kinds.index("FREQ") if "FREQ" in kinds else None
    others = [n for i, n in enumerate(level.shape[::-1]) if i > 1 and i != spectral]
    turned = [key for key in ("CROTA2", "PC1_2", "PC2_1", "CD1_1", "CD1_2") if header.get(key)]
    if tuple(kinds[:2]) not in DIRECTIONS or any(n > 1 for n in others) or turned:
        raise BadInputError(where, f"The axes are {', '.join(kinds)} {turned}.", remedy)
    if str(header.get("BUNIT", "")).strip() not in {"", "1"}:
        raise BadInputError(where, f"The unit is {header['BUNIT']}.", remedy)
    scales = [{"deg": np.pi / 180, "rad": 1.0}.get(unit) for unit in units[:2]]
    if None in scales or (spectral is not None and units[spectral] not in {"hz", ""}):
        raise BadInputError(where, f"The units of the axes are {units}.", remedy)
    if spectral is None:
        freq_hz = np.array([header.get("RESTFRQ", header.get("FREQ", 0.0))], np.float64)
        planes = level.reshape(1, *level.shape[-2:])
    else:
        index = np.arange(level.shape[::-1][spectral]) + 1 - header[f"CRPIX{spectral + 1}"]
        freq_hz = header[f"CRVAL{spectral + 1}"] + header[f"CDELT{spectral + 1}"] * index
        planes = level.reshape(-1, *level.shape[-2:])
    order = np.argsort(freq_hz)
    if not np.all((freq_hz > 1e8) & (freq_hz < 1e11)):  # noqa: PLR2004
        found = f"The frequencies are {freq_hz[:3]} Hz."
        raise BadInputError(where, found, "Give a FREQ axis in Hz, or RESTFRQ of a single plane.")
    steps = [float(header[f"CDELT{i + 1}"]) * float(scales[i] or 0.0) for i in (0, 1)]
    axis = [float(header[f"CRPIX{i + 1}"]) - 1 for i in (0, 1)]
    planes = np.ascontiguousarray(planes[order])
    if not all(0 <= px <= n - 1 for px, n in zip(axis, planes.shape[:0:-1], strict=True)):
        raise BadInputError(where, "The reference pixel is outside of the map.", remedy)
    planes_map = BeamMap(planes, freq_hz[order], (steps[0], steps[1]), (axis[0], axis[1]))
    peaks = planes.max(axis=(1, 2))
    worst = float(peaks[np.argmax(np.abs(peaks - 1))])
    rims = (planes[:, [0, -1]].max(initial=0), planes[:, :, [0, -1]].max(initial=0))
    _check_levels(planes, worst, float(max(rims)), where)
    return PrimaryBeam(name="map", kind="map", planes=planes_map)
