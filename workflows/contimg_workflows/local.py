"""The local engine as a service: a background process runs what was submitted."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contimg.runtime.command import Command
from contimg.runtime.console import Console
from contimg.runtime.contract import run_command
from contimg.runtime.errors import ContimgError, Exit, UsageError
from contimg.runtime.options import Options, flag
from contimg_runs.argo import no_such_run
from contimg_runs.pipelines import PIPELINES
from contimg_runs.state import RunState, Status, TaskState
from contimg_workflows.display import Display
from contimg_workflows.engine import Engine
from contimg_workflows.forms import DRIVERS, PREFIX, find_form
from contimg_workflows.state import BACKLOG, LOCK, RunFolder, all_runs, is_locked, read_log
from contimg_workflows.tasks import exit_arguments, template_workflow

RESUMABLE = {Status.INTERRUPTED, Status.STOPPED}
"""Runs that lost their engine may be submitted again under their name."""
TURN = ".turn"
"""Lock of a folder of runs: its holder runs what was submitted."""
EXIT_LOG = "exit.log"
RECORD_TIMEOUT_S = 300.0
PHASES = {Status.DONE: "Succeeded", Status.FAILED: "Failed", Status.STOPPED: "Failed"}
TICK_S = 0.5


class LocalService:
    """The runs of one folder."""

    form = staticmethod(find_form)

    def __init__(self, runs: Path, env: Mapping[str, str], jobs: int = 2) -> None:
        self.place = str(runs)
        self._runs, self._env, self._jobs = runs, env, jobs

    def submit(self, template: str, name: str, arguments: Mapping[str, str]) -> None:
        """Save a pending workflow, and start a process that runs it after those before it."""
        workflow = template_workflow(name, template, arguments)
        folder = RunFolder(self._runs / name)
        with folder.hold():
            if folder.exists() and (before := folder.load().status) not in RESUMABLE:
                problem = f"Run {name} already exists ({before.value})."
                raise UsageError(str(folder.path), problem, "See contimg status.")
            state = RunState(
                name=name,
                pipeline=template,
                arguments=dict(workflow.arguments),
                started=datetime.now(UTC),
                status=Status.PENDING,
                tasks={task: TaskState() for task in workflow.tasks},
            )
            folder.save(state)
        argv = [sys.executable, "-m", "contimg_workflows.local"]
        argv += ["--runs", str(self._runs), "--jobs", str(self._jobs)]
        backlog, text = self._runs / BACKLOG, self._runs / "backlog.log"
        with backlog.open("a") as lock, text.open("ab") as log:
            # The process outlives this one. The lock belongs to the open file, which it inherits,
            # so that pending runs have an engine until it ends.
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

    def states(self) -> list[RunState]:
        """Read the states of all runs."""
        return [folder.load() for folder in all_runs(self._runs)]

    def state(self, name: str) -> RunState:
        """Read the state of one run."""
        folder = RunFolder(self._runs / name)
        if not folder.exists():
            raise no_such_run(self.place, name, [state.name for state in self.states()])
        return folder.load()

    def source(self, state: RunState, task: str, number: int) -> str:
        """Return the log's file."""
        return str(self._runs / state.name / state.tasks[task].tries[number].log)

    def lines(
        self, state: RunState, task: str, number: int, *, follow: bool = False
    ) -> Iterator[str]:
        """Read a log."""
        path = Path(self.source(state, task, number))
        if not follow:
            return read_log(path)
        return read_log(path, lambda: bool(self.state(state.name).tasks[task].tries[number].ended))


class BacklogOptions(Options):
    """Run what was submitted to a folder of runs, then exit."""

    runs: str
    """Folder of states and logs."""
    jobs: int = 2
    """Processes side by side."""


def run_backlog(
    options: BacklogOptions, console: Console, env: Mapping[str, str]
) -> dict[str, Any]:
    """Wait for the turn, then run everything that was submitted meanwhile."""
    runs, count = Path(options.runs), 0
    with (runs / TURN).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while waiting := [one for one in all_runs(runs) if one.load().status is Status.PENDING]:
            workflows = []
            for folder in waiting:
                if is_locked(folder.path / LOCK):
                    continue  # another engine took it
                state = folder.load()
                try:
                    workflows.append(template_workflow(state.name, state.pipeline, state.arguments))
                except ContimgError as error:  # submitted by another version
                    state.status, state.reason = Status.FAILED, str(error)
                    state.ended = datetime.now(UTC)
                    folder.save(state)
            engine = Engine(runs, Path(sys.executable).parent, env, Display(), options.jobs)
            for state in engine.run(workflows):
                if state.status is Status.SKIPPED:
                    continue
                if code := record_end(RunFolder(runs / state.name), state, env):
                    text = "%s: its outcome could not be recorded, exit code %d"
                    console.log.warning(text, state.name, code)
            count += len(workflows)
            if not workflows:
                time.sleep(TICK_S)
    return {"ran": count}


def record_end(folder: RunFolder, state: RunState, env: Mapping[str, str]) -> int:
    """Run `contimg record` for a pipeline that has ended; return its exit code."""
    template = state.pipeline.removeprefix(PREFIX)
    if template not in {*PIPELINES, *DRIVERS}:
        return 0
    failures = []
    for name in state.failed:
        task = state.tasks[name]
        last = task.tries[-1]
        end = f"{last.ended:%Y-%m-%dT%H:%M:%SZ}" if last.ended else None
        message = f"Error (exit code {last.exit}): {task.reason}"
        names = {"displayName": name, "templateName": name}
        failures.append({**names, "message": message, "finishedAt": end})
    given = {
        **exit_arguments(template, state.arguments),
        "uid": f"local-{state.name}",
        "workflow": state.name,
        "status": PHASES.get(state.status, "Error"),
        "failures": json.dumps(failures),
        "workflows": "none",  # a cluster may be reachable, but this workflow is not there
    }
    argv = [str(Path(sys.executable).parent / "contimg"), "record"]
    argv += [f"{flag(name)}={value}" for name, value in given.items()]
    with (folder.path / EXIT_LOG).open("wb") as log:
        try:
            done = subprocess.run(  # noqa: S603 - never through a shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                timeout=RECORD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:  # an unreachable store must not hold up the other runs
            return Exit.CHILD_TIMED_OUT
    return done.returncode


if __name__ == "__main__":
    code = "contimg_workflows.local:run_backlog"
    sys.exit(run_command(Command(name="backlog", options=BacklogOptions, run=code)))
