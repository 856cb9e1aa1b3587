"""Solve on a calibrator in the beam, or select a set of the store and fit it to the field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import casacore.tables as ct
import numpy as np

from contimg.astro.beam_files import read_beam
from contimg.astro.beam_fit import midpoints
from contimg.astro.beam_text import NO_BEAM
from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import Site, separation_rad
from contimg.astro.gains import FlagArray, FloatArray, read_caltable
from contimg.astro.measures import call_casa
from contimg.astro.predict import PointSources, SkyModel
from contimg.astro.primary_beam import PrimaryBeam, check_same_beam
from contimg.records import calibration as records
from contimg.records.array_files import to_npz
from contimg.records.calibration import (
    RECORD,
    AppliedTable,
    Calibration,
    CalibrationSource,
    FluxAnchor,
    Possibility,
    ScaleBudget,
)
from contimg.records.groups import utc_of_mjd
from contimg.records.ms import READ_ONLY, MeasurementSet, MSHeader
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime import errors
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import BadInputError, NoCalibrationError, UsageError
from contimg.runtime.manifest import QA, digest_json
from contimg_calibrate import selection, sky_models
from contimg_calibrate.ensemble import (
    FIT_NAMES,
    MAX_BEAM_ERROR,
    check_scale,
    ensemble_scale,
    total_scale,
)
from contimg_calibrate.field_checks import FieldSources, check_data, check_field, check_motion
from contimg_calibrate.foreign import copy_field, describe_offset
from contimg_calibrate.options import CalibrateOptions
from contimg_calibrate.scale_error import (
    NVSS_SCALE_ERROR,
    TRUSTED_ERROR,
    add_pointing,
    beam_error,
    beam_terms,
    combine,
    mean_beam,
    set_budget,
)
from contimg_calibrate.selection import SolvePlan
from contimg_calibrate.sky_models import Calibrator, find_field_sources, keep_bright

TIMEOUT_S = 1800.0
TABLES = (
    AppliedTable(role="delay", kind="K", file="delay.tar", interp="nearest"),
    AppliedTable(role="bandpass", kind="B", file="bandpass.tar", interp="nearest"),
    AppliedTable(role="phase", kind="G", file="phase.tar", interp="linear"),
    AppliedTable(role="gain", kind="G", file="gain.tar", interp="linear"),
    AppliedTable(role="field", kind="G", file="field.tar", interp="linear"),
)
"""All tables that a set may have, in the order of solving."""
SCRATCH_BYTES = 200_000_000
"""Room for the small Measurement Sets and the tables."""
MEMORY_FACTOR, CASA_BYTES = 1.8, 500_000_000
"""Memory of a solve over the bytes of the MS, and of CASA itself; 2.9 GB at full size."""
DRIFT_DEG = 5.0
"""Phases of antennas drift apart by this much in an hour; the drift grows with the root of time."""
MAX_PHASE_ERROR_DEG = 10.0
"""Phases are not solved on a field where one antenna's error would be larger."""
SHORT_SOLINT_ERROR_DEG = 1.0
"""They are solved in short intervals if the error stays below this."""
CONFUSION_JY = 0.2
"""Rms visibility of the sources below NVSS's 50 mJy in our beam: 3.7 sources per square degree
above 50 mJy, dN/dS ~ S^-2."""
LINEAR = (9, 12)
"""XX and YY in casacore's ``Stokes`` enumeration."""
MIN_TRANSFER_BEAM = 0.1
"""Beam at a calibrator whose flux is measured, at least."""
AXES = "east", "north"
BEAM_MOMENTS = 5
"""Moments at which the beam is averaged to estimate fluxes; models use every integration."""


class CalibratedSet(NamedTuple):
    """The outcome of each way to calibrate."""

    record: Calibration
    folders: dict[str, str]
    """Folders of the caltables by role."""
    quality: dict[str, Any]
    marks: tuple[str, ...] = ()
    """What makes the result doubtful."""


@dataclass(frozen=True)
class MSObservation:
    """The header of the Measurement Set, and when and where the array pointed."""

    name: str
    path: Path
    flags: Path | None
    header: MSHeader
    mjd_start: float
    mjd_end: float
    integration_s: float
    dec_deg: float
    """Apparent Declination of the pointing; of the phase centre where that is unknown."""
    target: selection.Target | None
    """None: another telescope, whose pointing and beam are unknown."""
    beam: PrimaryBeam
    notes: tuple[str, ...] = ()
    """What a Measurement Set of another telescope states that makes the result doubtful."""

    @property
    def mjd(self) -> float:
        """Midpoint, UTC."""
        return (self.mjd_start + self.mjd_end) / 2

    @property
    def beam_mjds(self) -> FloatArray:
        """Moments of the observation at which to evaluate the beam, MJD."""
        return midpoints(self.mjd_start, self.mjd_end, BEAM_MOMENTS)

    def make_sky(self, sources: PointSources) -> SkyModel:
        """Return sources as this array sees them: without smearing or beam if it is another one."""
        header, ours = self.header, self.target is not None
        return SkyModel(
            sources=sources,
            ra0_rad=header.ra_rad,
            dec0_rad=header.dec_rad,
            freq_hz=header.frequencies_hz,
            width_hz=header.channel_width_hz if ours else 0.0,
            integration_s=self.integration_s if ours else 0.0,
            primary_beam=self.beam,
            site=self.target.site if self.target else None,
            pointing_dec_rad=float(np.radians(self.dec_deg)),
        )

    def field_sky(self, site: Site, calibrator: PointSources | None = None) -> SkyModel:
        """Return the NVSS sources of the field that are bright enough for a model, brightest first.

        A calibrator replaces those at its own place.
        """
        moments, freq_hz = (self.mjd_start, self.mjd_end), self.header.frequencies_hz
        sources = find_field_sources(*moments, self.dec_deg, site, freq_hz, self.beam)
        if calibrator is not None:
            sources = sky_models.merge_sources(calibrator, sources)
        return keep_bright(self.make_sky(sources), self.beam_mjds, sky_models.MIN_SOURCE_JY)


def run(options: CalibrateOptions, context: Context) -> StageResult:
    """Calibrate one Measurement Set."""
    with context.step("read"):
        ms = read_observation(options, context)
    record, folders, quality, marks = calibrate(options, context, ms)
    reasons = [*ms.notes, *marks]
    with context.step("write"):
        for table in record.tables:
            context.write_tree(table.file, Path(folders[table.role]))
        context.write("solutions.npz", pack_solutions(folders))
        context.write("quality.json", json.dumps(quality, indent=1).encode())
        context.write(RECORD, record.model_dump_json(indent=1).encode())
        if record.solved and options.store is not None:
            outputs = sorted(context.outputs, key=lambda output: output.name)
            tables = f"{options.store.rstrip('/')}/tables"
            names = {"group", "mjd", "flux_anchor", "rung", "flag_fraction", "primary_beam"}
            row = {
                **record.model_dump(include=names),
                "valid_from": record.valid_from_mjd,
                "valid_to": record.valid_to_mjd,
                "dec": record.dec_deg,
                "calibrator": record.calibrator.name,
                "apparent_flux": record.calibrator.apparent_jy,
                "artifact": context.relative_uri(tables),
                "digest": digest_json([[output.name, output.sha256] for output in outputs]),
                "scale_error": record.scale.total if record.scale else None,
            }
            day = utc_of_mjd(record.mjd).date().isoformat()
            context.publish(tables, CALTABLES, day, record.group, CALTABLES.rows([row]))
    names = {"group", "flux_anchor", "solved", "reference_antenna", "flag_fraction", "primary_beam"}
    metrics = {
        **quality,
        **record.model_dump(include=names),
        "provenance": record.rung,
        "calibrator": record.calibrator.name,
        "field_phase": record.field_phase.done,
        "scale": quality.get("scale", record.field_phase.scale),
        "scale_error": record.scale.total if record.scale else None,
        "set_group": record.source.group if record.source and not record.solved else record.group,
    }
    if not record.solved and record.field_phase.scale is None:
        reasons.append("flux_scale: the set could not be checked against the field's sources")
    if record.solved and ms.target is None:
        place = record.calibrator.ra_deg, record.calibrator.dec_deg
        if problem := describe_offset(ms.header, *place):
            reasons.append(f"pointing: {record.calibrator.name} {problem}")
    check = check_scale(record.field_phase, record.scale) if record.scale else None
    if check is not None and not check.good:
        reasons.append(f"flux_scale: calibrated data are {check}")
    said = any(reason.startswith("flux_scale") for reason in reasons)
    if record.scale is not None and record.scale.total > TRUSTED_ERROR and not said:
        reasons.append(f"scale_error: the flux scale is known to {record.scale.total:.0%} only")
    qa = QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
    return StageResult(metrics=metrics, qa=qa)


def calibrate(options: CalibrateOptions, context: Context, ms: MSObservation) -> CalibratedSet:
    """Select a set or solve, whichever is expected to give the better flux scale.

    Sets among the inputs are expected to be better than a solve here, which is done if none fits.

    Raises NoCalibrationError if no set fits and there is nothing to solve on.
    """
    plan = None
    if options.calibration is None and options.flux_from is None and ms.target is not None:
        plan = selection.plan_solve(options, ms.target, ms.beam)
    calibrator = choose_calibrator(options, context, ms, plan)
    solve: Callable[[], CalibratedSet] | None = None
    if calibrator is not None:
        solve = partial(solve_calibrator, options, context, ms, calibrator)
    elif plan is not None:
        solve = partial(solve_ensemble, options, context, ms, plan.target)
    sets = [options.calibration] if options.calibration else []
    sets = sets or [item.uri for item in context.named(selection.SET_INPUT)]
    possible = consider(context, ms, plan, sets)
    if sets or solve is None:
        try:
            selected = select_set(options, context, ms, sets)
        except NoCalibrationError as error:
            if solve is None:
                raise
            context.log.warning("%s The group is solved on its own sources instead.", error)
        else:
            record = selected.record.model_copy(update={"considered": possible})
            return selected._replace(record=record)
    solved = solve()
    budget = solved.record.scale or (plan.budget if plan else None)
    if budget is not None and any(mark.startswith("flux_scale") for mark in solved.marks):
        # What the field's sources say is no worse than the calibrator's flux.
        terms = budget.model_dump(exclude={"total", "field"})
        budget = combine(**terms, field=abs(math.log(solved.quality["field_ratio"])))
    seen_off = any(mark.startswith("pointing") for mark in solved.marks)
    if budget is not None and seen_off and ms.target is not None:
        on, off_deg = solved.record.calibrator, (solved.quality[f"beam_{n}_deg"] for n in AXES)
        budget = add_pointing(budget, on.ra_deg, on.dec_deg, ms.target, ms.beam, *off_deg)
    known = {"considered": possible, "scale": budget}
    return solved._replace(record=solved.record.model_copy(update=known))


def consider(
    context: Context, ms: MSObservation, plan: SolvePlan | None, sets: Sequence[str]
) -> tuple[Possibility, ...]:
    """Return what the group could be calibrated on with the expected error, the best first."""
    if ms.target is None:
        return ()
    found = [
        Possibility(kind="set", name=one.group, budget=budget_of_set(one, ms))
        for one in (records.read_calibration(context, uri) for uri in sets)
    ]
    if plan is not None:
        kind: Literal["calibrator", "ensemble"] = "calibrator" if plan.calibrator else "ensemble"
        found.append(Possibility(kind=kind, name=plan.name, budget=plan.budget))
    return tuple(sorted(found, key=lambda one: one.budget.total))


def budget_of_set(chosen: Calibration, ms: MSObservation) -> ScaleBudget:
    """Return the expected error of a set's flux scale at this group."""
    own = chosen.scale.total if chosen.scale else None
    return set_budget(own, chosen.flux_anchor, chosen.mjd - ms.mjd, chosen.dec_deg - ms.dec_deg)


def read_observation(options: CalibrateOptions, context: Context) -> MSObservation:
    """Fetch the Measurement Set and its flags into scratch, and read its header and times."""
    notes: tuple[str, ...] = ()
    if options.ms is not None:
        target = selection.read_target(options.ms)
        path = context.fetch_tree(options.ms, "ms.tar")
        name = target.name if target else path.stem
    else:
        source = Path(str(options.plain_ms))
        target, name = None, source.stem
        copied = copy_field(
            source,
            options.field,
            context.scratch / "field.ms",
            column=options.column,
            windows=options.windows,
        )
        path, notes = copied.path, copied.notes
    with MeasurementSet(path) as ms:
        times, interval = ms.read("TIME"), float(np.median(ms.read("INTERVAL")))
        header = ms.header
    return MSObservation(
        name=name,
        path=path,
        flags=context.fetch(options.flags, "flags.bin") if options.flags else None,
        header=header,
        mjd_start=float(times.min() - interval / 2) / DAY_S,
        mjd_end=float(times.max() + interval / 2) / DAY_S,
        integration_s=interval,
        dec_deg=target.dec_deg if target else float(np.degrees(header.dec_rad)),
        target=target,
        beam=read_beam(options.beam),
        notes=notes,
    )


def choose_calibrator(
    options: CalibrateOptions, context: Context, ms: MSObservation, plan: SolvePlan | None
) -> Calibrator | None:
    """Return the calibrator to solve on, if it is one.

    Raises NoCalibrationError if a named one is not where the array pointed: gains absorb the place
    of a point source, so that no solve would show it.
    """
    if options.calibration is not None or options.solve == "never":
        return None
    freq_hz, measured = ms.header.frequencies_hz, options.flux_from is not None
    if ms.target is not None and not measured:
        found = plan.calibrator if plan else None
        return found and sky_models.look_up_calibrator(found.ra_deg, found.dec_deg, freq_hz)
    if options.model_file is not None:  # the flux is the file's: none need be listed
        sources = sky_models.read_model(
            context.read(options.model_file), options.model_file, freq_hz
        )
        return sky_models.name_brightest(sources, options.calibrator)
    if options.calibrator is None:
        problem = "A Measurement Set of another telescope needs a calibrator's name."
        remedy = (
            "Name it with --calibrator, a set with --calibration, or a model with --model-file."
        )
        raise UsageError("--plain-ms", problem, remedy)
    position = sky_models.look_up_position(options.calibrator)
    calibrator = sky_models.look_up_calibrator(*position, freq_hz, to_be_measured=measured)
    if ms.target is not None:
        place = np.array([calibrator.ra_deg]), np.array([calibrator.dec_deg])
        if mean_beam(*place, ms.target, ms.beam)[0] >= MIN_TRANSFER_BEAM:
            return calibrator
        problem = f"{calibrator.name} is not in the beam of this group"
        raise NoCalibrationError(ms.name, f"{problem}.", "Name a calibrator that is.")
    if problem := describe_offset(ms.header, calibrator.ra_deg, calibrator.dec_deg):
        remedy = "Name the calibrator that was observed, or correct --field."
        raise NoCalibrationError(ms.name, f"{calibrator.name} {problem}", remedy)
    return calibrator


def solve_calibrator(
    options: CalibrateOptions, context: Context, ms: MSObservation, calibrator: Calibrator
) -> CalibratedSet:
    """Solve on a calibrator in the beam."""
    with context.step("model"):
        sky, apparent_jy = model_calibrator(options, context, ms, calibrator)
    place = np.radians([calibrator.ra_deg, calibrator.dec_deg])
    away_rad = separation_rad(sky.sources.ra_rad, sky.sources.dec_rad, *place)
    held = away_rad < np.radians(sky_models.MATCH_RADIUS_DEG)
    # Without the calibrator in it, a list of fluxes is itself what sets the scale.
    if ms.target is None or options.field_fluxes == "catalogue" or not held.any():
        held = np.ones_like(held)
    given = {**solve_limits(options, ms), "held": held.tolist()}
    chosen = None
    if options.flux_from is not None:
        allowed = options.other_beam
        chosen, given["flux_from"] = fetch_scale(context, ms, options.flux_from, other_beam=allowed)
    with context.step("solve"):
        answer = _call_solver(context, "solve_group", ms, sky, given)
    numbers, marks = check_fluxes(context, ms, sky, held, answer["fluxes"])
    marks += check_data(ms.name, answer["quality"])
    if calibrator.polarization and not answer["fluxes"] and ms.header.correlations[0] in LINEAR:
        known = f"{calibrator.name} is {calibrator.polarization:.1%} linearly polarised"
        marks.append(f"polarization: {known}; the gains of X and Y may differ by as much")
    factor = 1 / answer["scale"]["scale"] if chosen else 1.0
    solved_on = records.CalibratorRecord(
        name=calibrator.name,
        ra_deg=calibrator.ra_deg,
        dec_deg=calibrator.dec_deg,
        flux_jy=float(calibrator.spectrum_jy.mean()) * factor,
        apparent_jy=apparent_jy * factor,
        standard=calibrator.standard,
    )
    anchor: FluxAnchor = "standard" if calibrator.standard else "catalogue"
    record = make_record(options, ms, answer, solved_on, anchor)
    quality = answer["quality"] | numbers
    if chosen is not None and options.flux_from is not None:
        source = make_source(context, options.flux_from, chosen)
        record = anchor_to_set(ms, chosen, source, record, answer["scale"])
        numbers = {"jy": solved_on.flux_jy, "error": answer["scale"]["error"] * factor}
        numbers |= {name: answer["scale"][name] for name in ("sources", "scatter")}
        quality |= {f"transfer_{name}": value for name, value in numbers.items()}
    return CalibratedSet(record, answer["tables"], quality, tuple(marks))


def fetch_scale(
    context: Context, ms: MSObservation, uri: str, *, other_beam: bool
) -> tuple[Calibration, dict[str, str]]:
    """Return the set whose flux scale is taken over, and its tables by role.

    Raises BadInputError if it was not solved on its own group, or with another primary beam.
    """
    chosen = records.read_calibration(context, uri)
    if not chosen.solved:
        problem = "The set was not solved on its own group, but selected."
        raise BadInputError(uri, problem, f"Take {chosen.source}.")
    beam = ms.beam.name if ms.target else NO_BEAM
    check_same_beam(uri, chosen.primary_beam, beam, allowed=other_beam)
    tables = {str(table.role): table.file for table in chosen.tables}
    return chosen, {role: str(context.fetch_tree(uri, file)) for role, file in tables.items()}


def anchor_to_set(
    ms: MSObservation,
    chosen: Calibration,
    source: records.SetSource,
    record: Calibration,
    told: Mapping[str, Any],
) -> Calibration:
    """Return the record of a solve whose flux scale is that of another set, with its error."""
    away_deg = chosen.dec_deg - ms.dec_deg if ms.target else 0.0  # other telescopes are steered
    own = chosen.scale.total if chosen.scale else None
    terms = set_budget(own, chosen.flux_anchor, chosen.mjd - ms.mjd, away_deg)
    beam = 0.0
    if ms.target is not None:
        place = np.array([record.calibrator.ra_deg]), np.array([record.calibrator.dec_deg])
        beam = float(beam_error(*place, ms.target, ms.beam)[0])
    kept = terms.model_dump(include={"solved", "drift", "strip"})
    budget = combine(**kept, beam=beam, noise=told["error"] / told["scale"])
    anchor = {"flux_anchor": chosen.flux_anchor, "source": source, "scale": budget}
    return record.model_copy(update=anchor)


def check_fluxes(
    context: Context, ms: MSObservation, sky: SkyModel, held: FlagArray, fluxes: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Write field_sources.npz and check the fluxes that were fitted; return numbers and marks."""
    if ms.target is None or held.all():
        return {}, []
    sources = FieldSources(
        ra_deg=np.degrees(sky.sources.ra_rad),
        dec_deg=np.degrees(sky.sources.dec_rad),
        catalogue_jy=sky.sources.flux_jy.mean(axis=1),
        apparent_jy=sky.apparent_jy(ms.beam_mjds).mean(axis=1),
        held=held,
    )
    numbers, marks = check_field(ms.name, sources, fluxes, ms.target, ms.beam, ms.header.antennas)
    fitted = {name: np.array(fluxes[name]) for name in FIT_NAMES if fluxes}
    context.write("field_sources.npz", to_npz({**vars(sources), **fitted}))
    return numbers, marks


def solve_ensemble(
    options: CalibrateOptions, context: Context, ms: MSObservation, target: selection.Target
) -> CalibratedSet:
    """Solve on all NVSS sources of the field.

    Each flux may be wrong by 15 to 20 %, and the brightest dominate a solve. So all fluxes are
    fitted with the gains, relative to the brightest one, and the gains are scaled afterwards, such
    that the sources together have their catalogue fluxes.
    """
    with context.step("model"):
        sky = ms.field_sky(target.site)
        ra_deg, dec_deg = np.degrees([sky.sources.ra_rad, sky.sources.dec_rad])
        terms = beam_terms(ra_deg, dec_deg, target, ms.beam)
        error = np.linalg.norm(terms, axis=0)
        apparent_jy = float(sky.apparent_jy(ms.beam_mjds).mean(axis=1).sum())
    held = np.full(len(ra_deg), options.field_fluxes == "catalogue")
    # The brightest in the main beam: that of Taurus A in a sidelobe is not known well enough.
    held[np.argmax(error < MAX_BEAM_ERROR)] = True
    given = {"beam_error": error.tolist(), "held": held.tolist()}
    with context.step("solve"):
        answer = _call_solver(
            context, "solve_group", ms, sky, {**solve_limits(options, ms), **given}
        )
    numbers, marks = check_fluxes(context, ms, sky, held, answer["fluxes"])
    told = answer["scale"]
    solved_on = records.CalibratorRecord(
        name=selection.ENSEMBLE_NAME,
        ra_deg=float(np.degrees(ms.header.ra_rad)),
        dec_deg=float(np.degrees(ms.header.dec_rad)),
        flux_jy=float(sky.sources.flux_jy.mean(axis=1).sum()),
        apparent_jy=apparent_jy,
        standard=False,
    )
    record = make_record(options, ms, answer, solved_on, "nvss")
    counts = {"sources": len(ra_deg), "scale_sources": told["sources"]}
    phase = record.field_phase.model_copy(update={**counts, "model_jy": apparent_jy})
    flux = float(np.hypot(told["error"] / told["scale"], NVSS_SCALE_ERROR))
    members = error < MAX_BEAM_ERROR
    budget = combine(flux=flux, beam=float(np.linalg.norm(terms[:, members].mean(axis=1))))
    record = record.model_copy(update={"field_phase": phase, "scale": budget})
    marks += check_data(ms.name, answer["quality"])
    return CalibratedSet(record, answer["tables"], answer["quality"] | numbers, tuple(marks))


def solve_limits(options: CalibrateOptions, ms: MSObservation) -> dict[str, Any]:
    """Return the arguments of `solver.solve_group` that are options of the stage."""
    names = {"do_k", "prephase_solint_s", "phase_solint_s", "minsnr", "fillgaps", "minblperant"}
    given = options.model_dump(include=names | {"max_flagged", "reference_antenna"})
    return {**given, "group": ms.name}


def make_record(
    options: CalibrateOptions,
    ms: MSObservation,
    answer: Mapping[str, Any],
    solved_on: records.CalibratorRecord,
    anchor: FluxAnchor,
) -> Calibration:
    """Return the record of a solved set; `answer` is that of `solver.solve_group`."""
    rungs: dict[FluxAnchor, CalibrationSource] = {
        "standard": "PRIMARY_TRANSIT_GENERATED",
        "catalogue": "BRIGHT_FALLBACK_GENERATED",
        "nvss": "ENSEMBLE_GENERATED",
    }
    reach_days = options.valid_hours / 24
    reason = "The gains were solved on this very field."
    return Calibration(
        group=ms.name,
        mjd=ms.mjd,
        dec_deg=ms.dec_deg,
        tables=tuple(table for table in TABLES if table.role in answer["tables"]),
        rung=rungs[anchor],
        solved=True,
        calibrator=solved_on,
        flux_anchor=anchor,
        valid_from_mjd=ms.mjd - reach_days,
        valid_to_mjd=ms.mjd + reach_days,
        reference_antenna=answer["reference_antenna"],
        flag_fraction=answer["quality"]["flagged_bandpass"],
        primary_beam=ms.beam.name if ms.target else NO_BEAM,
        field_phase=records.FieldPhase(done=False, reason=reason),
    )


def model_calibrator(
    options: CalibrateOptions, context: Context, ms: MSObservation, calibrator: Calibrator
) -> tuple[SkyModel, float]:
    """Return the model, and the calibrator's apparent flux (Jy, mean over the group and band)."""
    ra_rad, dec_rad = np.radians([[calibrator.ra_deg], [calibrator.dec_deg]])
    alone = ms.make_sky(PointSources(ra_rad, dec_rad, calibrator.spectrum_jy[None, :]))
    apparent_jy = float(alone.apparent_jy(ms.beam_mjds).mean())
    if options.model_file is not None:
        where = options.model_file
        sources = sky_models.read_model(context.read(where), where, ms.header.frequencies_hz)
        return ms.make_sky(sources), apparent_jy
    if options.model_source == "calibrator" or ms.target is None:
        return alone, apparent_jy
    return ms.field_sky(ms.target.site, alone.sources), apparent_jy


def select_set(
    options: CalibrateOptions, context: Context, ms: MSObservation, uris: Sequence[str]
) -> CalibratedSet:
    """Try the candidate sets, best first, until one fits the field.

    Raises BadInputError if --calibration is not a set that was solved on its own group;
    NoCalibrationError if no set fits.
    """
    refused: list[str] = []
    for uri in uris:
        chosen = records.read_calibration(context, uri)
        if not chosen.solved:
            problem = "The set was not solved on its own group, but selected."
            raise BadInputError(uri, problem, f"Take {chosen.source}.")
        if ms.target is not None:
            beam = chosen.primary_beam
            check_same_beam(uri, beam, ms.beam.name, allowed=options.other_beam)
        with context.step("fit"):
            phase, folders, marks = fit_field(options, context, ms, uri, chosen)
        window = chosen.valid_from_mjd, chosen.valid_to_mjd
        same_date = selection.is_same_date(ms.mjd, chosen.mjd, *window)
        budget = budget_of_set(chosen, ms)
        check = check_scale(phase, budget)
        # A set of another date must be seen to fit; one of the same date may pass unchecked.
        unchecked = check is None and (same_date or ms.target is None)
        if not unchecked and (check is None or not check.holds):
            reason = "the field is too faint to tell"
            if check is not None:
                reason = f"flux_scale: calibrated data are {check}"
            context.log.warning("%s refused: %s", uri, reason)
            refused.append(f"{chosen.group} ({reason})")
            continue
        changes = {
            "group": ms.name,
            "mjd": ms.mjd,
            "dec_deg": ms.dec_deg,
            "tables": tuple(table for table in TABLES if table.role in folders),
            "rung": "SAME_DATE_VALID" if same_date else "BORROWED_VALIDATED",
            "solved": False,
            "field_phase": phase,
            "source": make_source(context, uri, chosen),
            "scale": budget if ms.target else None,
        }
        return CalibratedSet(chosen.model_copy(update=changes), folders, {}, tuple(marks))
    problem = (
        f"No set brings the data to the scale of NVSS; tried: {', '.join(refused) or 'no set'}."
    )
    raise NoCalibrationError(ms.name, problem, "Calibrate a group of this strip nearer in time.")


def make_source(context: Context, uri: str, chosen: Calibration) -> records.SetSource:
    """Return which artifact a set was taken from."""
    manifest = context.manifest(uri)
    return records.SetSource(
        group=chosen.group, key=manifest.key, digest=manifest.digest, mjd=chosen.mjd
    )


def fit_field(
    options: CalibrateOptions, context: Context, ms: MSObservation, uri: str, chosen: Calibration
) -> tuple[records.FieldPhase, dict[str, str], list[str]]:
    """Solve phases on the field after a set; return what was done, the tables by role, and marks.

    Raises SolveFailedError if the data are mirrored or their amplitudes change: no set fits them.
    """
    fetched = {table.role: context.fetch_tree(uri, table.file) for table in chosen.tables}
    folders: dict[str, str] = {role: str(folder) for role, folder in fetched.items()}
    if ms.target is None:
        reason = "Not asked for: the field's sources are unknown for another telescope's beam."
        return records.FieldPhase(done=False, reason=reason), folders, []
    sky = ms.field_sky(ms.target.site)
    apparent_jy = sky.apparent_jy(ms.beam_mjds).mean(axis=1)
    if not apparent_jy.size:
        reason = "NVSS has no source in the beam that is bright enough."
        return records.FieldPhase(done=False, reason=reason), folders, []
    limits_deg = {"never": -1.0, "auto": MAX_PHASE_ERROR_DEG, "always": np.inf}
    given = {
        **options.model_dump(include={"phase_solint_s", "minsnr", "minblperant"}),
        "tables": list(folders.values()),
        "confusion": CONFUSION_JY / float(np.sqrt(np.sum(apparent_jy**2))),
        "limit_deg": limits_deg[options.field_phase],
        "short_limit_deg": SHORT_SOLINT_ERROR_DEG,
        "reference_antenna": options.reference_antenna or chosen.reference_antenna,
        "held": [options.field_fluxes == "catalogue"] * apparent_jy.size,
    }
    answer = _call_solver(context, "solve_field", ms, sky, given)
    marks = check_data(ms.name, answer["residuals"])
    fluxes = answer["fluxes"]
    marks += check_motion(fluxes) if "moved_arcsec_min" in fluxes else []
    ra_deg, dec_deg = np.degrees([sky.sources.ra_rad, sky.sources.dec_rad])
    amplitude, error, noise = (np.array(fluxes[name]) for name in FIT_NAMES)
    at_place = beam_error(ra_deg, dec_deg, ms.target, ms.beam)
    told = ensemble_scale(amplitude, error, noise, at_place)
    told = told or total_scale(answer["residuals"], apparent_jy)
    drift_deg = DRIFT_DEG * float(np.sqrt(abs(ms.mjd - chosen.mjd) * 24))
    numbers = f"expected error {answer['phase_error_deg']:.2f} deg an antenna"
    numbers += f", expected drift since the set {drift_deg:.1f} deg"
    reason = f"The field's NVSS sources suffice: {numbers}."
    if options.field_phase == "never":
        reason = f"Not asked for; {numbers}."
    elif answer["done"]:
        folders["field"] = answer["table"]
    else:
        limit = f"limit {MAX_PHASE_ERROR_DEG:g} deg"
        reason = f"The field's NVSS sources do not suffice: {numbers}, {limit}."
    phase = records.FieldPhase(
        done=answer["done"],
        reason=reason,
        solint=answer["solint"],
        sources=apparent_jy.size,
        model_jy=float(apparent_jy.sum()),
        phase_error_deg=answer["phase_error_deg"],
        scale=told and told.scale,
        scale_error=told and told.error,
        scale_sources=told.sources if told else 0,
    )
    return phase, folders, marks


def _call_solver(
    context: Context, task: str, ms: MSObservation, sky: SkyModel, given: dict[str, Any]
) -> dict[str, Any]:
    """Run a task of `contimg_calibrate.solver` in a child; raise its `ContimgError` here."""
    folder = context.scratch / f"{task}{len(list(context.scratch.glob(f'{task}*')))}"
    folder.mkdir()
    size = sum(path.stat().st_size for path in ms.path.rglob("*") if path.is_file())
    context.need(SCRATCH_BYTES, memory=int(MEMORY_FACTOR * size) + CASA_BYTES)
    saved = {**vars(sky), "freq_hz": sky.freq_hz.tolist(), "primary_beam": sky.primary_beam.dump()}
    saved["sources"] = {name: values.tolist() for name, values in vars(sky.sources).items()}
    saved["site"] = sky.site and asdict(sky.site)
    paths = {"ms": str(ms.path), "flags": str(ms.flags or ""), "folder": str(folder)}
    arguments = {"task": task, "sky": saved, "given": given, **paths}
    solver = "contimg_calibrate.solver:run"
    answer: dict[str, Any] = call_casa(context, solver, TIMEOUT_S, **arguments)
    if "error" in answer:
        raise getattr(errors, answer["error"])(*answer["arguments"])
    return answer


def pack_solutions(folders: Mapping[str, str]) -> bytes:
    """Return solutions.npz: antenna names, and arrays of each role.

    ROLE_value and ROLE_flag have shape (T, antennas, channels, polarizations); ROLE_time_s is in
    MJD seconds.
    """
    arrays: dict[str, Any] = {}
    for role, folder in folders.items():
        table = read_caltable(Path(folder))
        arrays[f"{role}_value"] = table.value.astype(np.complex64)
        arrays[f"{role}_flag"] = table.flag
        arrays[f"{role}_time_s"] = table.time_s
        arrays[f"{role}_freq_hz"] = table.freq_hz
        with ct.table(f"{folder}::ANTENNA", **READ_ONLY) as antennas:
            arrays["antenna"] = np.array(antennas.getcol("NAME"), np.str_)
    return to_npz(arrays)
