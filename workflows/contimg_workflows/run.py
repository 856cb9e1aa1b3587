"""``contimg run``: run pipelines here and now, group after group or strip after strip."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contimg.records.groups import GROUPS, GroupRecord, group_record, list_latest
from contimg.records.strips import STRIP_GAP_DEG, strip_name, strips
from contimg.runtime.command import commands
from contimg.runtime.config import merge_documents, read_document
from contimg.runtime.console import Console
from contimg.runtime.errors import UsageError
from contimg.runtime.options import describe_error
from contimg.runtime.pipeline import ALL_OTHERS, Pipeline
from contimg.runtime.store import open_store
from contimg_runs.pipelines import EPOCH, PIPELINES, PROCESS_GROUP, find_pipeline
from contimg_runs.resolve import read_settings, resolve_options
from contimg_runs.state import GOOD, RunState, Status
from contimg_workflows.arguments import runs_folder
from contimg_workflows.display import Display, failure_reason, summary_table
from contimg_workflows.engine import Engine, Gate
from contimg_workflows.forms import word_of
from contimg_workflows.options import PipelineRunOptions
from contimg_workflows.state import RunFolder
from contimg_workflows.submit import FAILED, workflow_name
from contimg_workflows.tasks import PROCESS, LocalWorkflow, steps_workflow, template_workflow

ALL, WATCH = "all", "watch"
CALIBRATE, PHOTOMETRY = "calibrate", "photometry"
"""The step that takes over what other groups solved, and the one whose rows an epoch reads."""
MAX_TABLE_ROWS = 100
"""Workflows that the closing table lists one by one; of more, only those that failed."""


def run(options: PipelineRunOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Run one pipeline or all of them; the summary's exit code is 1 if a workflow failed."""
    if options.pipeline != ALL and options.pipeline not in PIPELINES:
        known = ", ".join([*PIPELINES, ALL])
        problem = f"There is no pipeline {options.pipeline!r}; there are {known}."
        raise UsageError("contimg run", problem, "Correct the name.")
    _check_subjects(options)
    runs = runs_folder("contimg run", options.store, options.runs)
    with Display() as display:
        runner = Runner(options, runs, env, display)
        if options.pipeline == ALL:
            states = runner.run_all()
        elif options.pipeline == PROCESS_GROUP.name:
            states = runner.run_groups(options.group)
        elif options.pipeline == EPOCH.name:
            strip = () if options.strip is None else (options.strip,)
            states = runner.run_epochs(strip, options.epoch)
        else:
            states = runner.run_other(find_pipeline(options.pipeline))
    failed = [state for state in states if state.status is not Status.DONE]
    display.print(
        summary_table((failed or states[-1:]) if len(states) > MAX_TABLE_ROWS else states)
    )
    console.close()
    cached = sum(task.status is Status.CACHED for state in states for task in state.tasks.values())
    return {
        "pipeline": options.pipeline,
        "workflows": len(states),
        "failed": len(failed),
        "tasks": sum(len(state.tasks) for state in states),
        "cached": cached,
        "reasons": {state.name: failure_reason(state) for state in failed},
        "runs": str(runs),
        **({"exit": FAILED} if failed else {}),
    }


def _check_subjects(options: PipelineRunOptions) -> None:
    """Refuse --group, --strip and --epoch where they have no meaning, or are missing."""
    where, pipeline = f"contimg run {options.pipeline}", options.pipeline
    if pipeline == PROCESS_GROUP.name and not options.group:
        raise UsageError(where, "--group is required.", "Name the groups, with commas.")
    if pipeline != PROCESS_GROUP.name and options.group:
        raise UsageError(where, "--group is an option of process-group.", "Leave it out.")
    if pipeline != EPOCH.name and (options.epoch or options.strip is not None):
        raise UsageError(where, "--strip and --epoch are options of epoch.", "Leave them out.")
    if options.epoch and options.strip is None:
        raise UsageError("--epoch", "--strip is required beside it.", "Say which strip is meant.")


class Runner:
    """Runs the pipelines of one store by one engine."""

    def __init__(
        self, options: PipelineRunOptions, runs: Path, env: Mapping[str, str], display: Display
    ) -> None:
        # Absolute, so that the URIs in manifests hold in every folder.
        self._store, self._runs = open_store(options.store).root, runs
        self._engine = Engine(runs, Path(sys.executable).parent, env, display, options.jobs)
        single, self._named = read_settings(options.set)
        document = merge_documents([read_document(options.config), single])
        self._watch = self._watch_settings(document.pop(WATCH, {}))
        wanted = PIPELINES if options.pipeline == ALL else [options.pipeline]
        pipelines = [find_pipeline(name) for name in wanted]
        for stage in single:
            if stage != WATCH and not any(stage in one.order for one in pipelines):
                pipelines[0].check_options({stage: single[stage]}, "--set")
        known = {one.name for pipeline in pipelines for one in pipeline.shortcuts}
        if options.pipeline not in {ALL, PROCESS_GROUP.name, EPOCH.name}:
            known |= {one.name for one in pipelines[0].parameters}
        for name in self._named:
            if name not in known:
                there = ", ".join(sorted(known)) or "none"
                problem = f"There is no parameter or shortcut {name!r}; there are {there}."
                raise UsageError(f"--set {name}", problem, "Write STAGE.OPTION=VALUE.")
        # Everything is checked before anything runs.
        self._options = {
            one.name: resolve_options(
                one,
                json.dumps(document),
                options.profile,
                env,
                [f"{s.name}={self._named.get(s.name, '')}" for s in one.shortcuts],
            )
            for one in pipelines
        }

    def _watch_settings(self, given: Mapping[str, Any]) -> dict[str, str]:
        values = {key: word_of(value) for key, value in given.items()}
        try:
            commands()[WATCH].options.model_validate({"store": self._store, **values})
        except ValidationError as error:
            reasons = "; ".join(f"{WATCH} {describe_error(item)}" for item in error.errors())
            raise UsageError(
                "options", f"{reasons}.", "contimg watch --help lists them."
            ) from error
        return values

    def run_groups(self, ids: Iterable[str] | None) -> list[RunState]:
        """Process these groups, or all; those without a calibrator wait for the others' gains."""
        records = latest_records(self._store)
        if ids is not None:
            known = {record.id: record for record in records}
            for one in ids:
                if one not in known:
                    there = ", ".join(known) or "none"
                    problem = f"There is no record of group {one}; there are {there}."
                    remedy = "Run contimg-watch, or correct --group."
                    raise UsageError(f"{self._store}/{GROUPS}", problem, remedy)
            records = [known[one] for one in ids]
        chosen = self._options[PROCESS_GROUP.name].get(CALIBRATE, {})
        fields = PROCESS_GROUP.specs[CALIBRATE].options.model_fields
        standard, other = (
            float(chosen.get(name, fields[name].default))
            for name in ("min_primary_jy", "min_bright_jy")
        )
        own = [one for one in records if can_solve(one, standard, other)]
        others = [one for one in records if one not in own]
        gate = Gate(CALIBRATE, frozenset(f"contimg-{one.name}" for one in own))
        workflows = [
            self._workflow(
                f"contimg-{one.name}", PROCESS_GROUP, {"group": one.id, "attempt": str(one.attempt)}
            )
            for one in [*own, *others]
        ]
        return self._engine.run(workflows, {f"contimg-{one.name}": gate for one in others})

    def run_epochs(self, wanted: Sequence[float] = (), name: str | None = None) -> list[RunState]:
        """Run the epoch of these Declination strips, or of all that the store's groups point to."""
        workflows = []
        for dec_deg in wanted or strips(latest_records(self._store)):
            epoch = name or strip_name(dec_deg)
            groups = {"report": {"groups": self._group_artifacts(dec_deg)}}
            values = {"epoch": epoch, "strip": str(dec_deg)}
            workflows.append(self._workflow(f"epoch-{epoch}", EPOCH, values, groups))
        return self._engine.run(workflows)

    def run_other(self, pipeline: Pipeline) -> list[RunState]:
        """Run a pipeline whose parameters are given by --set."""
        values = {one.name: self._named.get(one.name, one.default) for one in pipeline.parameters}
        given = {name: value for name, value in values.items() if value is not None}
        for name in values:
            if name not in given:
                raise UsageError(pipeline.name, f"Parameter {name!r} is required.", "Set it.")
        name = workflow_name(f"contimg-{pipeline.name}", given)
        return self._engine.run([self._workflow(name, pipeline, given)])

    def run_all(self) -> list[RunState]:
        """Look for groups, process all of them, and run the epochs if any group has fluxes."""
        arguments = {"store": self._store, **self._watch}
        states = self._engine.run([template_workflow(WATCH, f"contimg-{WATCH}", arguments)])
        if states[0].status is not Status.DONE:
            return states
        groups = self.run_groups(None)
        measured = any(one.tasks[PHOTOMETRY].status in GOOD for one in groups)
        return [*states, *groups, *(self.run_epochs() if measured else [])]

    def _workflow(
        self,
        name: str,
        pipeline: Pipeline,
        values: Mapping[str, str],
        more: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> LocalWorkflow:
        document = merge_documents([self._options[pipeline.name], more or {}])
        given = {"store": self._store, **values}
        return steps_workflow(name, pipeline, given, json.dumps(document))

    def _group_artifacts(self, dec_deg: float) -> list[str]:
        """Return the artifacts of a strip's groups for an epoch's page, as far as made here."""
        shown = [
            step.stage
            for step in PROCESS_GROUP.steps
            if step.inputs and ALL_OTHERS not in step.inputs.values()
        ]
        found: list[str] = []
        for record in latest_records(self._store):
            folder = RunFolder(self._runs, f"contimg-{record.name}")
            dec = record.dec_deg
            if dec is None or abs(dec - dec_deg) >= STRIP_GAP_DEG or not folder.exists():
                continue
            tasks = folder.load().tasks
            for stage in shown:
                task = tasks.get(stage) or tasks.get(f"{PROCESS}-{stage}")
                if task is not None and task.status in GOOD:
                    found.append(task.outputs["artifact"])
        return found


def latest_records(store: str) -> list[GroupRecord]:
    """Return the latest attempt of each group of a store, by id.

    Raises
    ------
    BadInputError
        If a record cannot be read.
    """
    root = open_store(store)
    keys = [one.entry.key for one in list_latest(root)]
    return [group_record(root.read(key), f"{root.root}/{key}") for key in keys]


def can_solve(record: GroupRecord, standard_jy: float, other_jy: float) -> bool:
    """Say whether a calibrator in the beam is bright enough to calibrate the group on itself.

    Parameters
    ----------
    standard_jy, other_jy
        Apparent flux from which calibrate solves on a flux standard, and on another calibrator, Jy.
    """
    from contimg.astro.catalogues import calibrators_in_beam  # slow to import
    from contimg.astro.telescope import SITE

    if record.dec_deg is None:
        return False
    inside = calibrators_in_beam(record.mjd_start, record.mjd_end, record.dec_deg, SITE)
    return any(one.apparent_jy >= (standard_jy if one.is_standard else other_jy) for one in inside)
