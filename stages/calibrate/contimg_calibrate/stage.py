"""Solve on a calibrator in the beam, or select the best set of the store and fit its phases to the field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.measures import call_casa
from contimg.astro.predict import SkyModel
from contimg.records.calibration import (
    RECORD,
    AppliedTable,
    Calibration,
    CalibratorRecord,
    FieldPhase,
    SetSource,
    read_calibration,
)
from contimg.records.groups import utc_of_mjd
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime.context import StageResult
from contimg.runtime.errors import BadInputError, NoCalibrationError, UsageError
from contimg.runtime.manifest import QA, digest_json
from contimg_calibrate import choose
from contimg_calibrate import sky as skies
from contimg_calibrate.observation import Observation, observe
from contimg_calibrate.report import solutions
from contimg_calibrate.solving import raise_error, save_sky

if TYPE_CHECKING:
    from contimg.records.calibration import CalibrationSource, FluxAnchor
    from contimg.runtime.context import Context
    from contimg_calibrate.options import CalibrateOptions

TIMEOUT_S = 1800.0
TABLES = (
    AppliedTable(role="delay", kind="K", file="delay.tar", interp="nearest"),
    AppliedTable(role="bandpass", kind="B", file="bandpass.tar", interp="nearest"),
    AppliedTable(role="phase", kind="G", file="phase.tar", interp="linear"),
    AppliedTable(role="gain", kind="G", file="gain.tar", interp="linear"),
    AppliedTable(role="field", kind="G", file="field.tar", interp="linear"),
)
"""All that there can be, in the order of solving."""
SCRATCH_BYTES = 200_000_000
"""Room for the small sets and the tables."""
MEMORY_A_BYTE, CASA_BYTES = 1.8, 500_000_000
"""Memory of a solve: so much for each byte of the Measurement Set, and CASA itself (2.9 GB for the full size)."""
DRIFT_DEG = 5.0
"""Phases of antennas drift apart by so much in an hour, and with the root of time."""
MAX_PHASE_ERROR_DEG = 10.0
"""Phases are not solved again on a field where one antenna's error would be larger."""
SHORT_ERROR_DEG = 1.0
"""They are solved in short intervals where this is their error then."""
CONFUSION_JY = 0.2
"""Rms visibility of the sources below NVSS's 50 mJy in our beam: 3.7 sources a square degree above 50 mJy, dN/dS ~ S^-2."""
CLEAR_SCALE = 5.0
"""A scale that is measured to fewer sigmas gates nothing."""


def run(options: CalibrateOptions, context: Context) -> StageResult:
    """Calibrate one Measurement Set."""
    with context.step("read"):
        ms = observe(options, context)
    calibrator = _calibrator(options, ms)
    if calibrator is not None:
        return _solve(options, context, ms, calibrator)
    return _select(options, context, ms)


def _calibrator(options: CalibrateOptions, ms: Observation) -> skies.Calibrator | None:
    """Return what to solve on, or None."""
    if options.calibration is not None or options.solve == "never":
        return None
    freq = ms.header.frequencies_hz
    if ms.target is None:
        if options.calibrator is None:
            remedy = "Name it with --calibrator, or a set with --calibration."
            raise UsageError("--plain-ms", "expected a calibrator's name, found none.", remedy)
        return skies.calibrator_at(*skies.position_of(options.calibrator), freq)
    here = choose.calibrator_here(options, ms.target)
    return None if here is None else skies.calibrator_at(here.ra_deg, here.dec_deg, freq)


# Solving


def _solve(
    options: CalibrateOptions, context: Context, ms: Observation, calibrator: skies.Calibrator
) -> StageResult:
    with context.step("model"):
        sky, apparent = _calibrator_sky(options, context, ms, calibrator)
    with context.step("solve"):
        answer = _call(
            context,
            "solve_group",
            ms,
            sky,
            {
                **options.model_dump(
                    include={
                        "do_k",
                        "prephase_solint_s",
                        "phase_solint_s",
                        "minsnr",
                        "fillgaps",
                        "minblperant",
                    }
                ),
                "max_flagged": options.max_flagged,
                "reference_antenna": options.reference_antenna,
                "group": ms.name,
            },
        )
    anchor: FluxAnchor = "standard" if calibrator.standard else "catalogue"
    reach = options.valid_hours / 24
    record = Calibration(
        group=ms.name,
        mjd=ms.mjd,
        dec_deg=ms.dec_deg,
        tables=_applied(answer["tables"]),
        rung="PRIMARY_TRANSIT_GENERATED" if calibrator.standard else "BRIGHT_FALLBACK_GENERATED",
        solved=True,
        calibrator=CalibratorRecord(
            name=calibrator.name,
            ra_deg=calibrator.ra_deg,
            dec_deg=calibrator.dec_deg,
            flux_jy=float(calibrator.spectrum_jy.mean()),
            apparent_jy=apparent,
            standard=calibrator.standard,
        ),
        flux_anchor=anchor,
        valid_from_mjd=ms.mjd - reach,
        valid_to_mjd=ms.mjd + reach,
        reference_antenna=answer["refant"],
        flag_fraction=answer["quality"]["flagged_bandpass"],
        field_phase=FieldPhase(done=False, reason="The gains were solved on this very field."),
    )
    with context.step("write"):
        _write(context, record, answer["tables"], answer["quality"])
        if options.store is not None:
            _register(context, options.store, record)
    return _outcome(record, answer["quality"], QA())


def _calibrator_sky(
    options: CalibrateOptions, context: Context, ms: Observation, calibrator: skies.Calibrator
) -> tuple[SkyModel, float]:
    """Return the model, and the calibrator's apparent flux (Jy, mean over the group and the band)."""
    alone = ms.sky(calibrator.sources())
    moments = ms.moments()
    apparent = float(alone.apparent_jy(moments).mean())
    if options.model_file is not None:
        sources = skies.read_model(
            context.read(options.model_file), options.model_file, ms.header.frequencies_hz
        )
        return ms.sky(sources), apparent
    if options.model_source == "calibrator" or ms.target is None:
        return alone, apparent
    whole = ms.sky(skies.merge(calibrator.sources(), ms.field_sources()))
    bright = skies.keep_bright(whole, moments, skies.KEPT_FLUX * apparent)
    return replace(whole, sources=skies.select(whole.sources, bright)), apparent


def _register(context: Context, store: str, record: Calibration) -> None:
    digest = digest_json(
        [[output.name, output.sha256] for output in sorted(context.outputs, key=lambda o: o.name)]
    )
    row = {
        "group": record.group,
        "mjd": record.mjd,
        "valid_from": record.valid_from_mjd,
        "valid_to": record.valid_to_mjd,
        "dec": record.dec_deg,
        "calibrator": record.calibrator.name,
        "flux_anchor": record.flux_anchor,
        "apparent_flux": record.calibrator.apparent_jy,
        "rung": record.rung,
        "flag_fraction": record.flag_fraction,
        "artifact": choose.relative(context.artifact, store),
        "digest": digest,
    }
    day = utc_of_mjd(record.mjd).date().isoformat()
    context.publish(
        f"{store.rstrip('/')}/tables", CALTABLES, day, record.group, CALTABLES.rows([row])
    )


# Selecting


def _select(options: CalibrateOptions, context: Context, ms: Observation) -> StageResult:
    """Try the candidates, best first, until one fits the field."""
    uris = (
        [options.calibration]
        if options.calibration
        else [item.uri for item in context.named(choose.SET)]
    )
    refused: list[str] = []
    for uri in uris:
        chosen = read_calibration(context, uri)
        if not chosen.solved:
            raise BadInputError(
                uri,
                "expected a set that was solved on its own group, found one that was selected.",
                f"Take {chosen.source}.",
            )
        with context.step("fit"):
            phase, folders, scale = _fit(options, context, ms, uri, chosen)
        # A set of another date must be seen to fit; ours of the same date may go unseen, with a warning.
        unseen = scale is None and (_same_date(chosen, ms) or ms.target is None)
        if unseen or (scale is not None and 1 / options.max_scale <= scale <= options.max_scale):
            return _selected(context, ms, (uri, chosen), phase, folders)
        found = (
            "the field is too faint to tell"
            if scale is None
            else f"calibrated data are {scale:.3g} x the model"
        )
        context.log.warning("%s refused: %s", uri, found)
        refused.append(f"{chosen.group} ({found})")
    wanted = f"a set that brings the data within a factor {options.max_scale:g} of the NVSS model"
    raise NoCalibrationError(
        ms.name,
        f"expected {wanted}, found {', '.join(refused) or 'no set'}.",
        "Calibrate a group of this strip nearer in time.",
    )


def _fit(
    options: CalibrateOptions, context: Context, ms: Observation, uri: str, chosen: Calibration
) -> tuple[FieldPhase, dict[str, str], float | None]:
    """Solve phases on the field after a set; return what was done, the tables by role, and data over model if that is clear."""
    folders: dict[str, str] = {
        table.role: str(context.fetch_tree(uri, table.file)) for table in chosen.tables
    }
    if ms.target is None:
        reason = "Not asked for: the field's sources are unknown for another telescope's beam."
        return FieldPhase(done=False, reason=reason), folders, None
    sky = _field_sky(ms)
    apparent = sky.apparent_jy(ms.moments()).mean(axis=1)
    if not apparent.size:
        return (
            FieldPhase(done=False, reason="NVSS has no source in the beam that is bright enough."),
            folders,
            None,
        )
    strength = float(np.sqrt(np.sum(apparent**2)))
    limit = MAX_PHASE_ERROR_DEG if options.field_phase == "auto" else 180.0
    answer = _call(
        context,
        "solve_field",
        ms,
        sky,
        {
            "tables": list(folders.values()),
            "mode": options.field_phase,
            "confusion": CONFUSION_JY / strength,
            "limit_deg": limit,
            "phase_solint_s": options.phase_solint_s,
            "short_limit_deg": SHORT_ERROR_DEG,
            "minsnr": options.minsnr,
            "minblperant": options.minblperant,
            "reference_antenna": options.reference_antenna or chosen.reference_antenna,
        },
    )
    left = answer.get("after", answer["before"])
    clear = left["scale_error"] * CLEAR_SCALE < max(abs(left["scale"]), 1.0)
    scale = left["scale"] if clear else None
    drift = DRIFT_DEG * float(np.sqrt(abs(ms.mjd - chosen.mjd) * 24))
    phase = FieldPhase(
        done=answer["done"],
        reason=_reason(options, answer, drift),
        solint=answer["solint"],
        sources=apparent.size,
        model_jy=float(apparent.sum()),
        phase_error_deg=answer["phase_error_deg"],
        scale=scale,
    )
    if answer["done"]:
        folders["field"] = answer["table"]
    return phase, folders, scale


def _reason(options: CalibrateOptions, answer: dict[str, Any], drift_deg: float) -> str:
    numbers = f"expected error {answer['phase_error_deg']:.2f} deg an antenna, expected drift since the set {drift_deg:.1f} deg"
    if options.field_phase == "never":
        return f"Not asked for; {numbers}."
    if answer["done"]:
        return f"The field's NVSS sources suffice: {numbers}."
    return f"The field's NVSS sources do not suffice: {numbers}, limit {MAX_PHASE_ERROR_DEG:g} deg."


def _field_sky(ms: Observation) -> SkyModel:
    sky = ms.sky(ms.field_sources())
    bright = skies.keep_bright(sky, ms.moments(), skies.KEPT_FIELD_JY)
    return replace(sky, sources=skies.select(sky.sources, bright))


def _same_date(chosen: Calibration, ms: Observation) -> bool:
    return chosen.valid_from_mjd <= ms.mjd <= chosen.valid_to_mjd or int(chosen.mjd) == int(ms.mjd)


def _selected(
    context: Context,
    ms: Observation,
    choice: tuple[str, Calibration],
    phase: FieldPhase,
    folders: dict[str, str],
) -> StageResult:
    uri, chosen = choice
    manifest = context.manifest(uri)
    rung: CalibrationSource = "SAME_DATE_VALID" if _same_date(chosen, ms) else "BORROWED_VALIDATED"
    record = chosen.model_copy(
        update={
            "group": ms.name,
            "mjd": ms.mjd,
            "dec_deg": ms.dec_deg,
            "tables": _applied(folders),
            "rung": rung,
            "solved": False,
            "field_phase": phase,
            "source": SetSource(
                group=chosen.group, key=manifest.key, digest=manifest.digest, mjd=chosen.mjd
            ),
        }
    )
    reasons = (
        ()
        if phase.scale is not None
        else ("the set could not be checked against the field's sources",)
    )
    with context.step("write"):
        _write(context, record, folders, {})
    return _outcome(record, {}, QA(verdict="warning" if reasons else "good", reasons=reasons))


# Both


def _call(
    context: Context, function: str, ms: Observation, sky: SkyModel, given: dict[str, Any]
) -> dict[str, Any]:
    folder = context.scratch / f"{function}{len(list(context.scratch.glob(f'{function}*')))}"
    folder.mkdir()
    size = sum(path.stat().st_size for path in ms.path.rglob("*") if path.is_file())
    context.need(SCRATCH_BYTES, memory=int(MEMORY_A_BYTE * size) + CASA_BYTES)
    save_sky(folder / "sky.npz", sky)
    arguments = {
        "ms": str(ms.path),
        "flags": str(ms.flags or ""),
        "sky": str(folder / "sky.npz"),
        "folder": str(folder),
        "given": given,
    }
    answer = call_casa(
        context, "contimg_calibrate.solving:run", TIMEOUT_S, task=function, arguments=arguments
    )
    return raise_error(answer)


def _applied(folders: dict[str, str]) -> tuple[AppliedTable, ...]:
    return tuple(table for table in TABLES if table.role in folders)


def _write(
    context: Context, record: Calibration, folders: dict[str, str], quality: dict[str, float]
) -> None:
    from pathlib import Path

    for table in record.tables:
        context.write_tree(table.file, Path(folders[table.role]))
    context.write(
        "solutions.npz", solutions({role: Path(folder) for role, folder in folders.items()})
    )
    context.write("quality.json", json.dumps(quality, indent=1).encode())
    context.write(RECORD, record.model_dump_json(indent=1).encode())


def _outcome(record: Calibration, quality: dict[str, float], qa: QA) -> StageResult:
    metrics = {
        "group": record.group,
        "provenance": record.rung,
        "calibrator": record.calibrator.name,
        "flux_anchor": record.flux_anchor,
        "solved": record.solved,
        "field_phase": record.field_phase.done,
        "reference_antenna": record.reference_antenna,
        "flag_fraction": record.flag_fraction,
        "scale": record.field_phase.scale,
        "set_group": record.source.group if record.source else record.group,
        **quality,
    }
    return StageResult(metrics=metrics, qa=qa)
