"""What to calibrate with: a calibrator in the beam, or the nearest valid set of the store. Light: no CASA, no numba."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contimg.records.calibration import CalibrationSource
from contimg.records.groups import utc_of_mjd
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime.errors import BadInputError, MissingError, NoCalibrationError
from contimg.runtime.manifest import Input, artifact_input, read_manifest
from contimg.runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from contimg.astro.catalogues import CalibratorInBeam
    from contimg.records.calibration import FluxAnchor
    from contimg_calibrate.options import CalibrateOptions

CANDIDATES = 3
"""Sets that are tried one after another before the stage gives up."""
SET = "calibration_set"
"""Name of the resolved inputs."""
TRANSIT_DAYS = 0.25
"""Sets of the same transit are nearer than this, days."""


@dataclass(frozen=True)
class Target:
    """When and where the array pointed; what the choice depends on."""

    name: str
    mjd_start: float
    mjd_end: float
    dec_deg: float
    """Apparent Declination of the pointing."""
    lat_deg: float
    lon_deg: float
    height_m: float

    @property
    def mjd(self) -> float:
        """Midpoint."""
        return (self.mjd_start + self.mjd_end) / 2


@dataclass(frozen=True)
class SetRow:
    """One row of the registry."""

    artifact: str
    group: str
    mjd: float
    valid_from: float
    valid_to: float
    dec: float
    calibrator: str
    flux_anchor: FluxAnchor
    apparent_flux: float
    rung: CalibrationSource
    digest: str


def target_of(uri: str) -> Target | None:
    """Read when and where the array pointed in a convert artifact's manifest; None if another telescope was imported.

    Raises
    ------
    BadInputError
        If it does not say when and where the array pointed.
    """
    metrics = read_manifest(uri).metrics
    if "telescope" in metrics and "pointing_dec_deg" not in metrics:
        return None
    try:
        return Target(
            str(metrics["group"]),
            float(metrics["mjd_start"]),
            float(metrics["mjd_end"]),
            float(metrics["pointing_dec_deg"]),
            float(metrics["lat_deg"]),
            float(metrics["lon_deg"]),
            float(metrics["height_m"]),
        )
    except KeyError as error:
        raise BadInputError(
            uri,
            f"expected a convert artifact whose metrics have {error}, found none.",
            "Name a convert artifact.",
        ) from error


def calibrator_here(options: CalibrateOptions, target: Target) -> CalibratorInBeam | None:
    """Return the calibrator to solve on, or None: the one with the largest apparent flux, standards first."""
    if options.solve == "never":
        return None
    from contimg.astro.catalogues import calibrators_in_beam
    from contimg.astro.coordinates import Site

    site = Site(target.lat_deg, target.lon_deg, target.height_m)
    found = calibrators_in_beam(target.mjd_start, target.mjd_end, target.dec_deg, site)
    if options.calibrator is not None:
        return _named(options.calibrator, found, target)
    force = options.solve == "always"
    standards = [
        c for c in found if c.is_standard and (force or c.apparent_jy >= options.min_primary_jy)
    ]
    others = [
        c for c in found if not c.is_standard and (force or c.apparent_jy >= options.min_bright_jy)
    ]
    if force and not (standards or others):
        found_words = "none of the VLA calibrator list"
        raise NoCalibrationError(
            target.name,
            f"expected a calibrator in the beam, found {found_words}.",
            "Leave --solve at auto.",
        )
    return next(iter([*standards, *others]), None)


def _named(wanted: str, found: Iterable[CalibratorInBeam], target: Target) -> CalibratorInBeam:
    from contimg_calibrate.sky import position_of

    ra_deg, dec_deg = position_of(wanted)
    here = list(found)
    for source in here:
        if abs(source.dec_deg - dec_deg) < SAME_DEG and abs(source.ra_deg - ra_deg) < SAME_DEG:
            return source
    words = ", ".join(source.name for source in here) or "none"
    raise NoCalibrationError(
        target.name,
        f"expected calibrator {wanted} in the beam, found {words}.",
        "Name one of those, or none.",
    )


SAME_DEG = 0.05
"""Two positions nearer than this are one calibrator, degrees."""


def resolve(options: CalibrateOptions) -> list[Input]:
    """Find what the stage will read besides its options: a plain Measurement Set's digest, or the sets to try, best first.

    Raises
    ------
    NoCalibrationError
        If there is neither a calibrator in the beam nor a valid set; says what was looked for.
    """
    if options.plain_ms is not None:
        return [plain_input(options.plain_ms)]
    if options.calibration is not None or options.ms is None:
        return []
    target = target_of(options.ms)
    if target is None or calibrator_here(options, target) is not None:
        return []
    ranked = ladder(registry(options, target), target, options)
    inputs = list(_existing(ranked, options.store or ""))[:CANDIDATES]
    if not inputs:
        raise NoCalibrationError(*_nothing(options, target))
    return inputs


def plain_input(path: str) -> Input:
    """Describe a folder with a Measurement Set as an input; MissingError if it is none."""
    from contimg.runtime.tar import pack

    folder = Path(path)
    if not (folder / "table.dat").exists():
        raise MissingError(
            path,
            "expected a Measurement Set (a folder with table.dat), found none.",
            "Correct the path.",
        )

    with Path("/dev/null").open("wb") as nowhere:
        _, digest = pack(folder, nowhere)
    return Input(name="plain_ms", uri=path, digest=digest)


def _nothing(options: CalibrateOptions, target: Target) -> tuple[str, str, str]:
    wanted = (
        f"a standard of {options.min_primary_jy:g} Jy or a calibrator of {options.min_bright_jy:g} Jy (apparent) in the beam at "
        f"Dec {target.dec_deg:+.2f}, or a set within {options.borrow_days:g} d of MJD {target.mjd:.3f} and "
        f"{options.strip_deg:g} deg of that Dec in {options.store or 'a --store, which was not given'}"
    )
    return (
        target.name,
        f"expected {wanted}, found neither (NO_VIABLE_TABLE).",
        "Calibrate a group with a calibrator of this strip first.",
    )


def registry(options: CalibrateOptions, target: Target) -> list[SetRow]:
    """Read the rows of the table of sets that are near enough in time to matter."""
    if options.store is None:
        return []
    store = open_store(f"{options.store.rstrip('/')}/tables/{CALTABLES.name}")
    reach = timedelta(days=options.borrow_days + 1)
    middle = utc_of_mjd(target.mjd)
    first, last = (middle - reach).date().isoformat(), (middle + reach).date().isoformat()
    rows: list[SetRow] = []
    for entry in store.entries("date="):
        if first <= entry.key.partition("=")[2][:10] <= last and entry.key.endswith(".parquet"):
            table = CALTABLES.read(store.read(entry.key), f"{store.root}/{entry.key}")
            rows += [
                SetRow(**{name: row[name] for name in SetRow.__dataclass_fields__})
                for row in table.to_pylist()
            ]
    return rows


def ladder(rows: Sequence[SetRow], target: Target, options: CalibrateOptions) -> list[SetRow]:
    """Rank the sets that may be used, best first: same transit, same date, borrowed; standards before others, then the nearest.

    Windows reach both ways in time; every rung asks for the same strip, since gains that were borrowed across strips
    once gave fluxes x 0.06.
    """
    usable = [
        row
        for row in rows
        if abs(row.dec - target.dec_deg) <= options.strip_deg
        and (
            row.valid_from <= target.mjd <= row.valid_to
            or abs(row.mjd - target.mjd) <= options.borrow_days
        )
    ]
    return sorted(usable, key=lambda row: _order(row, target))


def _order(row: SetRow, target: Target) -> tuple[Any, ...]:
    away = abs(row.mjd - target.mjd)
    step = 0 if away <= TRANSIT_DAYS else 1 if same_date(row, target.mjd) else 2
    return step, row.flux_anchor != "standard", away, row.artifact


def same_date(row: SetRow, mjd: float) -> bool:
    """Say whether a set needs no further check of its date: its window holds the moment, or the UTC day is the same."""
    return row.valid_from <= mjd <= row.valid_to or int(row.mjd) == int(mjd)


def relative(uri: str, store: str) -> str:
    """Return an artifact's URI relative to the store, if it lies there: a store may be moved."""
    return uri.removeprefix(f"{store.rstrip('/')}/")


def _existing(rows: Iterable[SetRow], store: str) -> Iterable[Input]:
    """Describe the sets whose artifact is there, and is the one that was registered."""
    for row in rows:
        inside = "://" not in row.artifact and not row.artifact.startswith("/")
        try:
            found = artifact_input(
                SET, f"{store.rstrip('/')}/{row.artifact}" if inside else row.artifact
            )
        except MissingError:
            continue
        if found.digest == row.digest:
            yield found
