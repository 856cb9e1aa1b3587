"""The record of a calibration: which caltables to apply, their origin and their quality."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError
from contimg.runtime.manifest import Record

RECORD = "calibration.json"
CalibrationSource = Literal[
    "SAME_DATE_VALID",
    "PRIMARY_TRANSIT_GENERATED",
    "BRIGHT_FALLBACK_GENERATED",
    "BORROWED_VALIDATED",
    "ENSEMBLE_GENERATED",
    "NO_VIABLE_TABLE",
]
"""How a set was found, the best first; no artifact is ever made with the last one."""
FluxAnchor = Literal["standard", "catalogue", "nvss"]
"""What sets the flux scale: a flux standard, a catalogue calibrator, the field's NVSS sources."""


class AppliedTable(Record):
    """One caltable to apply."""

    role: Literal["delay", "bandpass", "phase", "gain", "field"]
    kind: Literal["K", "B", "G"]
    file: str
    """Name of its tar in the artifact with the record; tables of another set are copied there."""
    interp: Literal["nearest", "linear"]
    """In time; amplitude and phase separately."""


class CalibratorRecord(Record):
    """The calibrator on which a set was solved."""

    name: str
    ra_deg: float
    dec_deg: float
    flux_jy: float
    """Flux of the model at the centre of the band, Jy."""
    apparent_jy: float
    """The same after the primary beam, mean over the group, Jy."""
    standard: bool
    """Whether it is a Perley-Butler 2017 flux standard."""


class FieldPhase(Record):
    """Whether phases were solved again on the field, and why."""

    done: bool
    reason: str
    solint: str = ""
    sources: int = 0
    """NVSS sources in the model."""
    model_jy: float = 0.0
    """Sum of their apparent fluxes, Jy."""
    phase_error_deg: float | None = None
    """Expected error of one antenna's phase from noise and sources not in the model, degrees."""
    scale: float | None = None
    """Calibrated data over model, amplitude: 1 if the set fits this field."""
    scale_error: float | None = None
    """1 sigma of `scale`: by noise, and by what single sources differ from the catalogue."""
    scale_sources: int = 0
    """Number of sources that `scale` is the mean of; 0: it is measured on the sum of all."""


class ScaleBudget(Record):
    """Expected error of a flux scale: 1 sigma, relative, with the terms that it is made of."""

    total: float
    """Root of the sum of the squares of all terms."""
    flux: float = 0.0
    """Of the fluxes that the scale was solved on."""
    beam: float = 0.0
    """Of the primary beam there: its width and the pointing."""
    noise: float = 0.0
    solved: float = 0.0
    """Of a selected set, when it was solved."""
    drift: float = 0.0
    """Of the gains' amplitudes since then."""
    strip: float = 0.0
    """Of a set of another Declination."""
    field: float = 0.0
    """By how much the field's sources disagree with it, where the gate `flux_scale` marks that."""


class Possibility(Record):
    """One way to calibrate this group that was considered."""

    kind: Literal["calibrator", "set", "ensemble"]
    name: str
    """Of the calibrator, or the group of the set."""
    budget: ScaleBudget


class SetSource(Record):
    """The artifact in which a selected set was solved."""

    group: str
    key: str
    """Key of the calibrate artifact."""
    digest: str
    """Digest of that artifact."""
    mjd: float


class Calibration(Record):
    """calibration.json, the result of the calibrate stage."""

    schema_version: Literal[1] = 1
    group: str
    mjd: float
    """Midpoint of the group, UTC."""
    dec_deg: float
    """Strip: the apparent Declination of the pointing (other telescopes: of the phase centre)."""
    tables: tuple[AppliedTable, ...]
    """All of them multiply; their order is that of solving."""
    rung: CalibrationSource
    solved: bool
    """True: solved on this group; False: taken from `source`."""
    calibrator: CalibratorRecord
    flux_anchor: FluxAnchor
    valid_from_mjd: float
    valid_to_mjd: float
    reference_antenna: str
    """Name of the antenna whose phase is 0."""
    flag_fraction: float
    """Share of the bandpass solutions that is flagged, of antennas that have data."""
    field_phase: FieldPhase
    primary_beam: str = "airy:4.65"
    """Name of the beam through which the calibrator was seen, on which its flux scale rests; older
    records have none, and were made with this. ``none``: another telescope's, taken as 1."""
    source: SetSource | None = None
    scale: ScaleBudget | None = None
    """Expected error of the flux scale; None: not known, as for another telescope."""
    considered: tuple[Possibility, ...] = ()
    """What could have been used, the smallest expected error first."""


def read_calibration(context: Context, uri: str) -> Calibration:
    """Read the record of a calibrate artifact.

    Raises BadInputError if it is not such a record.
    """
    where = f"{uri.rstrip('/')}/{RECORD}"
    try:
        return Calibration.model_validate_json(context.read(where))
    except ValidationError as error:
        problem = f"This is not a calibration record: {error}."
        raise BadInputError(where, problem, "Run contimg-calibrate again.") from error


def fetch_tables(context: Context, uri: str, calibration: Calibration) -> list[Path]:
    """Unpack the caltables of a calibrate artifact into scratch; return their folders in order."""
    return [context.fetch_tree(uri, table.file) for table in calibration.tables]
