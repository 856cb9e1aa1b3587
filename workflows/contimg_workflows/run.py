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
from contimg.runtime.config import Document, merge_documents, read_document
from contimg.runtime.console import Console
from contimg.runtime.errors import UsageError
from contimg.runtime.options import describe_error
from contimg.runtime.pipeline import ALL_OTHERS, Pipeline
from contimg.runtime.store import open_store
from contimg_runs.calibrators import CALIBRATE, find_calibrator_groups
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
PHOTOMETRY = "photometry"
"""The step whose rows an epoch reads."""
MAX_TABLE_ROWS = 100
"""Workflows that the closing table lists one by one; of more, only those that failed."""


def run(options: PipelineRunOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Run one pipeline or all of them; the summary's exit code is 1 if a workflow failed."""
    _check_subjects(options)
    runs = runs_folder("contimg run", options.store, options.runs)
    display = Display()
    with display.live():
        states = Runner(options, runs, env, display).run()
    failed = [state for state in states if state.status is not Status.DONE]
    shown = (failed or states[-1:]) if len(states) > MAX_TABLE_ROWS else states
    display.console.print(summary_table(shown))
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
    """Refuse an unknown pipeline, and --group, --strip and --epoch that do not belong to it."""
    name, group, strip, epoch = options.pipeline, options.group, options.strip, options.epoch
    where, known = f"contimg run {name}", [*PIPELINES, ALL]
    if name not in known:
        problem = f"There is no pipeline {name!r}; there are {', '.join(known)}."
        raise UsageError("contimg run", problem, "Correct the name.")
    if name == PROCESS_GROUP.name and not group:
        raise UsageError(where, "--group is required.", "Name the groups, with commas.")
    if name != PROCESS_GROUP.name and group:
        raise UsageError(where, "--group is an option of process-group.", "Leave it out.")
    if name != EPOCH.name and (epoch or strip is not None):
        raise UsageError(where, "--strip and --epoch are options of epoch.", "Leave them out.")
    if epoch and strip is None:
        raise UsageError("--epoch", "--strip is required beside it.", "Say which strip is meant.")


class Runner:
    """Runs the pipelines of one store by one engine."""

    def __init__(
        self, options: PipelineRunOptions, runs: Path, env: Mapping[str, str], display: Display
    ) -> None:
        # Absolute, so that the URIs in manifests hold in every folder.
        self._store, self._runs, self._given = open_store(options.store).root, runs, options
        self._engine = Engine(runs, Path(sys.executable).parent, env, display, options.jobs)
        single, self._named = read_settings(options.set)
        document = merge_documents([read_document(options.config), single])
        self._watch = {key: word_of(value) for key, value in document.pop(WATCH, {}).items()}
        try:
            commands()[WATCH].options.model_validate({"store": self._store, **self._watch})
        except ValidationError as error:
            reasons = "; ".join(f"{WATCH} {describe_error(item)}" for item in error.errors())
            remedy = "contimg watch --help lists them."
            raise UsageError("options", f"{reasons}.", remedy) from error
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
        self._options: dict[str, Document] = {}
        for one in pipelines:
            given = [f"{s.name}={self._named.get(s.name, '')}" for s in one.shortcuts]
            self._options[one.name] = resolve_options(
                one, json.dumps(document), options.profile, env, given
            )

    def run(self) -> list[RunState]:
        """Run the requested pipeline, or all: groups, and epochs if any group has fluxes."""
        options = self._given
        if options.pipeline == PROCESS_GROUP.name:
            return self.run_groups(options.group)
        if options.pipeline == EPOCH.name:
            strip = () if options.strip is None else (options.strip,)
            return self.run_epochs(strip, options.epoch)
        if options.pipeline == ALL:
            arguments = {"store": self._store, **self._watch}
            states = self._engine.run([template_workflow(WATCH, f"contimg-{WATCH}", arguments)])
            if states[0].status is not Status.DONE:
                return states
            groups = self.run_groups(None)
            measured = any(one.tasks[PHOTOMETRY].status in GOOD for one in groups)
            return [*states, *groups, *(self.run_epochs() if measured else [])]
        pipeline = find_pipeline(options.pipeline)
        values = {one.name: self._named.get(one.name, one.default) for one in pipeline.parameters}
        given = {name: value for name, value in values.items() if value is not None}
        for name in values:
            if name not in given:
                raise UsageError(pipeline.name, f"Parameter {name!r} is required.", "Set it.")
        name = workflow_name(f"contimg-{pipeline.name}", given)
        return self._engine.run([self._workflow(name, pipeline, given)])

    def run_groups(self, ids: Iterable[str] | None) -> list[RunState]:
        """Process these groups, or all; those without a calibrator wait for the others' gains."""
        records = {record.id: record for record in latest_records(self._store)}
        for one in ids or ():
            if one not in records:
                there = ", ".join(records) or "none"
                problem = f"There is no record of group {one}; there are {there}."
                remedy = "Run contimg-watch, or correct --group."
                raise UsageError(f"{self._store}/{GROUPS}", problem, remedy)
        wanted = [records[one] for one in (records if ids is None else ids)]
        first = find_calibrator_groups(wanted, self._options[PROCESS_GROUP.name])
        own: list[LocalWorkflow] = []
        others: list[LocalWorkflow] = []
        for record in wanted:
            values = {"group": record.id, "attempt": str(record.attempt)}
            workflow = self._workflow(f"contimg-{record.name}", PROCESS_GROUP, values)
            (own if record.id in first else others).append(workflow)
        gate = Gate(CALIBRATE, frozenset(one.name for one in own))
        return self._engine.run([*own, *others], {one.name: gate for one in others})

    def run_epochs(self, wanted: Sequence[float] = (), name: str | None = None) -> list[RunState]:
        """Run the epoch of these Declination strips, or of all that the store's groups point to.

        An epoch's page shows the artifacts of the strip's groups, as far as they were made here.
        """
        inputs = {step.stage: step.inputs for step in PROCESS_GROUP.steps if step.inputs}
        shown = [stage for stage, read in inputs.items() if ALL_OTHERS not in read.values()]
        workflows, records = [], latest_records(self._store)
        for dec_deg in wanted or strips(records):
            found: list[str] = []
            for record in records:
                folder, dec = RunFolder(self._runs / f"contimg-{record.name}"), record.dec_deg
                if dec is None or abs(dec - dec_deg) >= STRIP_GAP_DEG or not folder.exists():
                    continue
                tasks = folder.load().tasks
                either = [tasks.get(stage) or tasks.get(f"{PROCESS}-{stage}") for stage in shown]
                found += [one.outputs["artifact"] for one in either if one and one.status in GOOD]
            epoch = name or strip_name(dec_deg)
            values, groups = {"epoch": epoch, "strip": str(dec_deg)}, {"report": {"groups": found}}
            workflows.append(self._workflow(f"epoch-{epoch}", EPOCH, values, groups))
        return self._engine.run(workflows)

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


def latest_records(store: str) -> list[GroupRecord]:
    """Return the latest attempt of each group, by id; BadInputError if a record is unreadable."""
    root = open_store(store)
    keys = [one.entry.key for one in list_latest(root)]
    return [group_record(root.read(key), f"{root.root}/{key}") for key in keys]
