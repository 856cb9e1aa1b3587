"""The local engine as a service: what is submitted waits in the folder of runs, and a process of its own works it off."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from contimg.runtime.errors import UsageError
from contimg_runs.argo import no_such_run
from contimg_workflows.compiled import Library
from contimg_workflows.logfile import following, lines_of
from contimg_workflows.render import all_templates
from contimg_workflows.state import BACKLOG, RunFolder, RunState, Status, TaskState, all_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from contimg_workflows.argo import Parameter

AGAIN = {Status.INTERRUPTED, Status.STOPPED}
"""Runs that lost their engine may be submitted again under their name; any other has its fate."""


class LocalService:
    """The runs of one folder."""

    def __init__(self, runs: Path, env: Mapping[str, str], jobs: int = 2) -> None:
        self.place = str(runs)
        self._runs, self._env, self._jobs = runs, env, jobs

    def parameters(self, template: str) -> tuple[Parameter, ...]:
        """Return the parameters of a template."""
        return library()[template].spec.arguments.parameters

    def submit(self, template: str, name: str, arguments: Mapping[str, str]) -> None:
        """Leave a workflow in the folder, and a process that begins it when those before it have ended."""
        workflow = library().workflow(name, template, arguments)
        folder = RunFolder(self._runs, name)
        with folder.hold():
            if folder.exists() and (before := folder.load().status) not in AGAIN:
                raise UsageError(
                    str(folder.path),
                    f"expected no run of that name, found one that is {before.value}.",
                    "See contimg status.",
                )
            tasks = {task: TaskState() for task in workflow.jobs}
            state = RunState(
                name=name,
                pipeline=template,
                arguments=dict(workflow.arguments),
                started=datetime.now(UTC),
                status=Status.PENDING,
                tasks=tasks,
            )
            folder.save(state)
        self._begin()

    def states(self) -> list[RunState]:
        """Read the states of all runs."""
        return [folder.load() for folder in all_runs(self._runs)]

    def state(self, name: str) -> RunState:
        """Read the state of one run."""
        folder = RunFolder(self._runs, name)
        if not folder.exists():
            raise no_such_run(self.place, name, [state.name for state in self.states()])
        return folder.load()

    def source(self, state: RunState, task: str, number: int) -> str:
        """Return the log's file."""
        return str(self._log(state, task, number))

    def lines(
        self, state: RunState, task: str, number: int, *, follow: bool = False
    ) -> Iterator[str]:
        """Read a log."""
        path = self._log(state, task, number)
        if follow:
            yield from following(
                path, lambda: self.state(state.name).tasks[task].tries[number].ended is not None
            )
        else:
            yield from lines_of(path)

    def _log(self, state: RunState, task: str, number: int) -> Path:
        return self._runs / state.name / state.tasks[task].tries[number].log

    def _begin(self) -> None:
        """Start a process that outlives this one; until it ends, what waits has an engine."""
        argv = [
            sys.executable,
            "-m",
            "contimg_workflows.backlog",
            "--runs",
            str(self._runs),
            "--jobs",
            str(self._jobs),
        ]
        with (
            (self._runs / BACKLOG).open("a") as lock,
            (self._runs / "backlog.log").open("ab") as log,
        ):
            # The lock belongs to the open file, which the process inherits: it is held from now to the process's end.
            fcntl.flock(lock, fcntl.LOCK_SH)
            subprocess.Popen(  # noqa: S603 - our own module
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._env),
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )


def library() -> Library:
    """Return all templates that this program has."""
    return Library(template.to_dict() for template in all_templates())
