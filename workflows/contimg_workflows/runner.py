"""What a person may ask the local engine for, as workflows in an order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contimg.records.groups import GroupRecord
from contimg.runtime.store import open_store
from contimg_workflows.arguments import named
from contimg_workflows.compiled import Library, Workflow
from contimg_workflows.engine import Engine, Gate
from contimg_workflows.render import all_templates
from contimg_workflows.selection import (
    STRIP_GAP_DEG,
    chosen,
    latest_records,
    limits_of,
    solvable,
    strip_name,
    strips,
)
from contimg_workflows.state import GOOD, RunFolder, RunState, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from contimg_workflows.display import Display

PROCESS_GROUP, EPOCH, WATCH = "contimg-process-group", "contimg-epoch", "contimg-watch"
SHOWN = ("flag", "calibrate", "image", "photometry")
"""Tasks of a group whose artifacts the page of an epoch lists."""


class Runner:
    """One store, one engine."""

    def __init__(
        self,
        store: str,
        runs: Path,
        env: Mapping[str, str],
        display: Display,
        jobs: int,
        settings: Iterable[str],
    ) -> None:
        # Absolute, so that what manifests say of it is true in every folder.
        self._store, self._runs = open_store(store).root, runs
        self._library = Library(template.to_dict() for template in all_templates())
        self._settings = named(settings, self._known())
        self._engine = Engine(runs, Path(sys.executable).parent, env, display, jobs)

    def groups(self, ids: Sequence[str] | None) -> list[RunState]:
        """Process the groups of these ids, or all."""
        records = latest_records(self._store)
        return self._process(records if ids is None else chosen(records, ids, self._store))

    def epochs(self, wanted: Sequence[float] = (), name: str | None = None) -> list[RunState]:
        """Bring the fluxes of Declination strips together: of these, or of all that the store's groups point to."""
        decs = wanted or strips(latest_records(self._store))
        return self._engine.run([self._epoch(dec, name or strip_name(dec)) for dec in decs])

    def everything(self) -> list[RunState]:
        """Look for groups, process all of them, and run the epochs if any group has fluxes."""
        states = self._engine.run([self._workflow("watch", WATCH, {"store": self._store})])
        if states[0].status is not Status.DONE:
            return states
        states += self.groups(None)
        measured = any(
            state.tasks["photometry"].status in GOOD
            for state in states
            if "photometry" in state.tasks
        )
        return states + self.epochs() if measured else states

    def _epoch(self, dec_deg: float, name: str) -> Workflow:
        arguments = {
            "store": self._store,
            "epoch": name,
            "strip": str(dec_deg),
            "report-groups": ",".join(self._shown(dec_deg)),
        }
        return self._workflow(f"epoch-{name}", EPOCH, arguments)

    def _shown(self, dec_deg: float) -> list[str]:
        """Return the artifacts of a strip's groups that the page of an epoch lists, as far as this engine made them."""
        found: list[str] = []
        for record in latest_records(self._store):
            folder = RunFolder(self._runs, f"contimg-{record.name}")
            if (
                record.dec_deg is not None
                and abs(record.dec_deg - dec_deg) < STRIP_GAP_DEG
                and folder.exists()
            ):
                tasks = folder.load().tasks
                found += [
                    tasks[name].outputs["artifact"]
                    for name in SHOWN
                    if name in tasks and tasks[name].status in GOOD
                ]
        return found

    def _process(self, records: Sequence[GroupRecord]) -> list[RunState]:
        """Process groups: those that calibrate themselves go first, the others take from what these leave in the store."""
        limits = limits_of(
            {**self._library.parameters(PROCESS_GROUP), **self._arguments(PROCESS_GROUP)}
        )
        own = [record for record in records if solvable(record, limits)]
        others = [record for record in records if record not in own]
        workflows = [self._group(record) for record in [*own, *others]]
        gate = Gate("calibrate", frozenset(f"contimg-{record.name}" for record in own))
        return self._engine.run(workflows, {f"contimg-{record.name}": gate for record in others})

    def _group(self, record: GroupRecord) -> Workflow:
        arguments = {"store": self._store, "group": record.id, "attempt": str(record.attempt)}
        return self._workflow(f"contimg-{record.name}", PROCESS_GROUP, arguments)

    def _workflow(self, name: str, pipeline: str, arguments: Mapping[str, str]) -> Workflow:
        return self._library.workflow(name, pipeline, {**self._arguments(pipeline), **arguments})

    def _arguments(self, pipeline: str) -> dict[str, str]:
        """Return the settings that concern a pipeline, or a stage that is run by itself."""
        settings = self._settings
        if pipeline == WATCH:
            settings = {
                name.removeprefix("watch-"): value
                for name, value in settings.items()
                if name.startswith("watch-")
            }
        known = self._library.parameters(pipeline)
        return {name: value for name, value in settings.items() if name in known}

    def _known(self) -> list[str]:
        """Return the parameters that a setting may name."""
        known = [f"watch-{key}" for key in self._library.parameters(WATCH) if key != "store"]
        return known + [
            key
            for pipeline in (PROCESS_GROUP, EPOCH)
            for key in self._library.parameters(pipeline)
            if "-" in key
        ]
