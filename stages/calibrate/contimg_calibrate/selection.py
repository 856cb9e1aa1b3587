"""What to calibrate with: a calibrator in the beam, or the best sets of the store.

It resolves the stage's inputs, so it imports neither CASA nor numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from contimg.astro.beam_files import read_beam
from contimg.astro.beam_text import UNRECORDED_BEAM
from contimg.astro.catalogues import CalibratorInBeam, calibrators_in_beam
from contimg.astro.coordinates import Site
from contimg.astro.primary_beam import PrimaryBeam
from contimg.records.calibration import FluxAnchor, ScaleBudget
from contimg.records.groups import utc_of_mjd
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime.errors import BadInputError, MissingError, NoCalibrationError
from contimg.runtime.manifest import Input, artifact_input, read_manifest
from contimg.runtime.store import absolute_uri
from contimg.runtime.tar import pack
from contimg_calibrate.options import CalibrateOptions, ImportOptions
from contimg_calibrate.scale_error import (
    TRUSTED_ERROR,
    calibrator_budget,
    ensemble_budget,
    row_budget,
)
from contimg_calibrate.sky_models import look_up_position

MAX_CANDIDATES = 3
"""Sets that are tried one after another before the stage gives up."""
SET_INPUT = "calibration_set"
"""Name of the resolved inputs."""
ENSEMBLE_NAME = "nvss"
"""Name of the field's NVSS sources as a calibrator."""
SAME_CALIBRATOR_DEG = 0.05
"""Two positions nearer than this are one calibrator."""


@dataclass(frozen=True)
class Target:
    """When and where the array pointed: what the selection depends on."""

    name: str
    mjd_start: float
    mjd_end: float
    dec_deg: float
    """Apparent Declination of the pointing."""
    site: Site

    @property
    def mjd(self) -> float:
        """Midpoint."""
        return (self.mjd_start + self.mjd_end) / 2


@dataclass(frozen=True)
class SolvePlan:
    """What to solve on, and the expected error of the flux scale."""

    target: Target
    calibrator: CalibratorInBeam | None
    """None: all NVSS sources of the beam."""
    budget: ScaleBudget

    @property
    def name(self) -> str:
        """The calibrator's name."""
        return self.calibrator.name if self.calibrator else ENSEMBLE_NAME

    @property
    def least_error(self) -> float:
        """Sets are tried first if their expected error is smaller."""
        total = self.budget.total
        return total if self.calibrator else max(total, TRUSTED_ERROR)


@dataclass(frozen=True)
class SetRow:
    """What ranks a calibration set: some columns of its row in the registry."""

    artifact: str
    digest: str
    mjd: float
    valid_from: float
    valid_to: float
    dec: float
    flux_anchor: FluxAnchor
    scale_error: float | None = None
    primary_beam: str | None = None
    """Name of the beam that it was solved with; None in older tables: the default."""


def read_target(uri: str) -> Target | None:
    """Read when and where the array pointed from a convert artifact's manifest.

    Return None for an imported Measurement Set of another telescope.

    Raises BadInputError if it is not a convert artifact.
    """
    metrics = read_manifest(uri).metrics
    if "telescope" in metrics and "pointing_dec_deg" not in metrics:
        return None
    try:
        return Target(
            name=str(metrics["group"]),
            mjd_start=float(metrics["mjd_start"]),
            mjd_end=float(metrics["mjd_end"]),
            dec_deg=float(metrics["pointing_dec_deg"]),
            site=Site(*(float(metrics[name]) for name in ("lat_deg", "lon_deg", "height_m"))),
        )
    except KeyError as error:
        problem = f"This is not a convert artifact: its metrics lack {error}."
        raise BadInputError(uri, problem, "Name a convert artifact.") from error


def find_calibrator(
    options: CalibrateOptions, target: Target, beam: PrimaryBeam
) -> CalibratorInBeam | None:
    """Return the calibrator in the beam to solve on, or None.

    It is the one that is expected to give the best flux scale.

    Raises NoCalibrationError if --calibrator is not in the beam, or --solve always finds none
    there.
    """
    if options.solve == "never":
        return None
    found = calibrators_in_beam(target.mjd_start, target.mjd_end, target.dec_deg, target.site, beam)
    if options.calibrator is not None:
        ra_deg, dec_deg = look_up_position(options.calibrator)
        for source in found:
            away_deg = max(abs(source.ra_deg - ra_deg), abs(source.dec_deg - dec_deg))
            if away_deg < SAME_CALIBRATOR_DEG:
                return source
        names = ", ".join(source.name for source in found) or "none"
        problem = f"There is no calibrator {options.calibrator} in the beam, only: {names}."
        raise NoCalibrationError(target.name, problem, "Name one of those, or omit --calibrator.")
    always = options.solve == "always"
    limits_jy = {True: options.min_primary_jy, False: options.min_bright_jy}
    usable = [c for c in found if always or c.apparent_jy >= limits_jy[c.is_standard]]
    if always and not usable:
        problem = "There is no calibrator of the VLA list in the beam."
        raise NoCalibrationError(target.name, problem, "Leave --solve at auto.")
    return min(usable, key=lambda c: calibrator_budget(c, target, beam).total, default=None)


def plan_solve(options: CalibrateOptions, target: Target, beam: PrimaryBeam) -> SolvePlan | None:
    """Return what to solve on, if on anything: a calibrator in the beam, or the NVSS sources there.

    The latter only if no calibrator is expected to be better than `TRUSTED_ERROR`, or if
    --calibrator nvss asks for it.

    Raises NoCalibrationError as `find_calibrator`, or if --calibrator nvss finds too few sources.
    """
    wanted = options.calibrator == ENSEMBLE_NAME
    found = None if wanted else find_calibrator(options, target, beam)
    plan = SolvePlan(target, found, calibrator_budget(found, target, beam)) if found else None
    chosen = options.solve != "auto" or (options.calibrator is not None and not wanted)
    if plan is not None and (chosen or plan.budget.total <= TRUSTED_ERROR):
        return plan
    ensemble = None
    if wanted or (options.solve != "never" and options.model_source == "nvss"):
        ensemble = ensemble_budget(target, beam)
    if wanted and ensemble is None:
        problem = "There are too few NVSS sources in the beam to solve on, or they are too faint."
        raise NoCalibrationError(target.name, problem, "Omit --calibrator.")
    if ensemble is not None and (plan is None or ensemble.total < plan.budget.total):
        return SolvePlan(target, None, ensemble)
    return plan


def resolve(options: CalibrateOptions | ImportOptions) -> list[Input]:
    """Return the inputs besides options: a plain Measurement Set, or the best sets of the store.

    Sets are inputs only if their flux scale is expected to be better than that of a solve here.

    Raises MissingError if there is no Measurement Set in the folder; NoCalibrationError if there is
    neither a calibrator in the beam nor a valid set.
    """
    plain_ms = options.path if isinstance(options, ImportOptions) else options.plain_ms
    if plain_ms is not None:
        if not (Path(plain_ms) / "table.dat").exists():
            problem = "There is no Measurement Set here (a folder with table.dat)."
            raise MissingError(plain_ms, problem, "Correct the path.")
        with Path("/dev/null").open("wb") as sink:
            _, digest = pack(Path(plain_ms), sink)
        return [Input(name="plain_ms", uri=plain_ms, digest=digest)]
    named = not isinstance(options, ImportOptions) and (options.calibration or options.flux_from)
    if isinstance(options, ImportOptions) or named or options.ms is None:
        return []
    target = read_target(options.ms)
    beam = read_beam(options.beam)
    plan = plan_solve(options, target, beam) if target else None
    wanted = options.solve == "always" or options.calibrator is not None
    if target is None or (plan is not None and wanted):
        return []
    limit = plan.least_error if plan else np.inf
    inputs: list[Input] = []
    for row in rank_sets(read_registry(options, target), target, options, beam.name, limit):
        try:
            found = artifact_input(SET_INPUT, absolute_uri(row.artifact, options.store or ""))
        except MissingError:
            continue  # the artifact was deleted
        if found.digest == row.digest:
            inputs.append(found)
        if len(inputs) == MAX_CANDIDATES:
            break
    if not inputs and plan is None:
        where = options.store or "a --store, which was not given"
        problem = (
            f"Found neither a standard of {options.min_primary_jy:g} Jy nor a calibrator of "
            f"{options.min_bright_jy:g} Jy (apparent) in the beam at Dec {target.dec_deg:+.2f}, "
            "nor enough NVSS sources to solve on (not tried with --solve never), "
            f"nor a set within {options.borrow_days:g} d of MJD {target.mjd:.3f} and "
            f"{options.strip_deg:g} deg of that Dec in {where} (NO_VIABLE_TABLE)."
        )
        remedy = "Calibrate a group with a calibrator of this strip first."
        raise NoCalibrationError(target.name, problem, remedy)
    return inputs


def read_registry(options: CalibrateOptions, target: Target) -> list[SetRow]:
    """Read the rows of the registry of sets that are near enough in time to matter."""
    if options.store is None:
        return []
    reach, middle = timedelta(days=options.borrow_days + 1), utc_of_mjd(target.mjd)
    first, last = (day.date().isoformat() for day in (middle - reach, middle + reach))
    rows: list[SetRow] = []
    for table in CALTABLES.read_days(options.store, first, last):
        columns = table.select(list(SetRow.__dataclass_fields__))
        rows += [SetRow(**row) for row in columns.to_pylist()]
    return rows


def rank_sets(
    rows: Sequence[SetRow],
    target: Target,
    options: CalibrateOptions,
    beam: str,
    limit: float = np.inf,
) -> list[SetRow]:
    """Return the usable sets with an expected error of the flux scale below `limit`, best first.

    The error grows with age, so that sets of the same transit come before those of the same date,
    and these before borrowed ones, unless their calibrator was poor. All are of the same strip:
    gains borrowed across strips once gave fluxes x 0.06. Sets of another primary beam are left out,
    than `beam`, a name, except with --other-beam: their flux scale is right for that beam alone.
    """
    ranked = []
    for row in rows:
        away_days = abs(row.mjd - target.mjd)
        valid = row.valid_from <= target.mjd <= row.valid_to
        in_time = valid or away_days <= options.borrow_days
        error = row_budget(row, target).total
        same_beam = options.other_beam or (row.primary_beam or UNRECORDED_BEAM) == beam
        same_strip = abs(row.dec - target.dec_deg) <= options.strip_deg
        if in_time and same_strip and same_beam and error < limit:
            ranked.append((error, away_days, row.artifact, row))
    return [row for *_, row in sorted(ranked, key=lambda key: key[:-1])]


def is_same_date(mjd: float, set_mjd: float, valid_from: float, valid_to: float) -> bool:
    """Return whether a moment is in a set's validity window, or on the UTC day of the set."""
    return valid_from <= mjd <= valid_to or int(set_mjd) == int(mjd)
