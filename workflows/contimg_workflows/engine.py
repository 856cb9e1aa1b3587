"""The local engine: walks compiled workflows with processes, a few at a time, and survives whatever ends it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from contimg.runtime.errors import Exit, UsageError, retry_of
from contimg_workflows import retry
from contimg_workflows.cache import Cache
from contimg_workflows.process import Process
from contimg_workflows.state import GOOD, OPEN, RunFolder, RunState, Status, TaskState, Try

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from contimg_workflows.compiled import Job, Workflow
    from contimg_workflows.display import Display

TICK_S = 0.05
NOTE_S = 2.0
GRACE_S = 11.0
"""After this no process is left, whether it listened or not."""


@dataclass(frozen=True)
class Gate:
    """Tasks of one name wait until the tasks of that name in other workflows have ended, well or badly."""

    task: str
    workflows: frozenset[str]


@dataclass
class _Run:
    """A workflow in hand."""

    workflow: Workflow
    folder: RunFolder
    state: RunState
    processes: dict[str, Process] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    """When a task may try again, on the monotonic clock."""
    gate: Gate | None = None
    saved: float = 0.0
    lock: ExitStack = field(default_factory=ExitStack)
    begun: bool = False

    @property
    def outputs(self) -> dict[str, dict[str, str]]:
        return {name: task.outputs for name, task in self.state.tasks.items()}

    def begin(self) -> bool:
        """Take it in hand, when its first task is looked at: of a thousand workflows few are open at a time.

        Another engine may have it by then; it is left to that one, and this returns False.
        """
        if self.begun:
            return True
        try:
            self.lock.enter_context(self.folder.hold())
        except UsageError as error:
            self.state.status, self.state.reason, self.state.ended = (
                Status.SKIPPED,
                str(error),
                datetime.now(UTC),
            )
            for task in self.state.tasks.values():
                task.status, task.reason = Status.SKIPPED, "another engine has it"
            return False
        self.begun, self.state.started = True, datetime.now(UTC)
        self.save()
        return True

    def end(self, status: Status) -> None:
        """Let go of it."""
        self.state.status, self.state.ended = status, datetime.now(UTC)
        if self.begun:
            self.save()
        self.lock.close()

    def save(self) -> None:
        self.folder.save(self.state)
        self.saved = time.monotonic()

    def note(self, task: str, progress: str) -> None:
        """Keep a task's progress; on disk not too often, it is only for those who look."""
        if self.state.tasks[task].progress != progress:
            self.state.tasks[task].progress = progress
            if time.monotonic() - self.saved > NOTE_S:
                self.save()


class Engine:
    """Runs workflows side by side with at most `jobs` processes."""

    def __init__(
        self, runs: Path, binaries: Path, env: Mapping[str, str], display: Display, jobs: int = 2
    ) -> None:
        self._folder, self._bin, self._env, self._display = runs, binaries, env, display
        self._jobs = jobs
        self._cache = Cache()
        self._runs: dict[str, _Run] = {}
        self.patience = 1.0
        """Factor on every wait before another try; tests are impatient."""

    def run(
        self, workflows: Sequence[Workflow], gates: Mapping[str, Gate] | None = None
    ) -> list[RunState]:
        """Run workflows to their ends; the earlier in the list go first where there is a choice.

        Raises
        ------
        UsageError
            If another engine has one of them in hand, or a stage is not installed. What another takes later is skipped.
        Stopped
            After all processes have ended, if this one was told to stop.
        """
        runs = [self._prepare(workflow, (gates or {}).get(workflow.name)) for workflow in workflows]
        self._runs = {run.workflow.name: run for run in runs}
        try:
            self._loop(runs)
        except BaseException:
            self._stop(runs)
            raise
        return [run.state for run in runs]

    def _prepare(self, workflow: Workflow, gate: Gate | None) -> _Run:
        for job in workflow.jobs.values():
            if not (self._bin / job.program).exists():
                raise UsageError(
                    str(self._bin),
                    f"expected {job.program}, found none.",
                    f"Install the stage: pip install {job.program}.",
                )
        folder = RunFolder(self._folder, workflow.name)
        with folder.hold():  # refused before anything has begun
            pass
        state = RunState(
            name=workflow.name,
            pipeline=workflow.pipeline,
            arguments=dict(workflow.arguments),
            started=datetime.now(UTC),
            tasks={name: TaskState() for name in workflow.jobs},
        )
        return _Run(workflow, folder, state, gate=gate)

    def _loop(self, runs: Sequence[_Run]) -> None:
        while any(run.state.status is Status.RUNNING for run in runs):
            moved = [self._reap(run) for run in runs] + [self._advance(run) for run in runs]
            self._display.show([run.state for run in runs])
            if not any(moved):
                time.sleep(TICK_S)

    # A workflow

    def _advance(self, run: _Run) -> bool:
        """Start or skip what can be; end the workflow when nothing is left; say whether anything moved."""
        if run.state.status is not Status.RUNNING:
            return False
        moved = False
        for name, job in run.workflow.jobs.items():
            if run.state.tasks[name].status in {Status.PENDING, Status.WAITING}:
                moved |= self._consider(run, job)
        if run.state.ended is None and not any(
            task.status in OPEN for task in run.state.tasks.values()
        ):
            run.end(Status.FAILED if run.state.failed else Status.DONE)
            moved = True
        return moved

    def _consider(self, run: _Run, job: Job) -> bool:
        """Look at a task that does not run: skip it, find it made, start it, or leave it."""
        task = run.state.tasks[job.name]
        if run.state.failed:
            # As Argo does: after a failure nothing new begins, what runs goes on.
            return self._set(run, job, Status.SKIPPED, f"{run.state.failed[0]} failed")
        unwanted = job.unwanted(
            {name: one.outputs for name, one in run.state.tasks.items() if one.status in GOOD}
        )
        if unwanted:
            return self._set(run, job, Status.SKIPPED, unwanted)
        if any(run.state.tasks[need].status not in GOOD for need in job.needs) or self._gated(
            run, job
        ):
            return False
        if task.status is Status.WAITING and time.monotonic() < run.due[job.name]:
            return False
        if sum(len(other.processes) for other in self._runs.values()) >= self._jobs:
            return False
        if run.begin() and not self._found(run, job):
            self._start(run, job)
        return True

    def _gated(self, run: _Run, job: Job) -> bool:
        if run.gate is None or run.gate.task != job.name:
            return False
        others = (self._runs[name].state for name in run.gate.workflows if name in self._runs)
        return any(other.tasks[job.name].status in OPEN for other in others)

    # A task

    def _found(self, run: _Run, job: Job) -> bool:
        """Take what was made before, without a process."""
        found = self._cache.find(job, job.values(run.outputs))
        if found is None:
            return False
        task = run.state.tasks[job.name]
        task.outputs, task.made_s = found.outputs, found.seconds
        return self._set(run, job, Status.CACHED)

    def _start(self, run: _Run, job: Job) -> None:
        task = run.state.tasks[job.name]
        log = f"{job.name}.{len(task.tries) + 1}.log"
        argv = job.command(job.values(run.outputs))
        argv[0] = str(self._bin / argv[0])
        folder = run.folder.path / f".{job.name}"
        env = {**self._env, **job.env}
        run.processes[job.name] = Process(argv, folder, run.folder.path / log, env, job.deadline_s)
        task.tries.append(Try(started=datetime.now(UTC), log=log))
        self._set(run, job, Status.RUNNING)

    def _reap(self, run: _Run) -> bool:
        """Look after the processes of a workflow; say whether one ended."""
        ended = False
        for name, process in list(run.processes.items()):
            code = process.poll()
            run.note(name, process.progress())
            if code is not None:
                del run.processes[name]
                self._judge(run, run.workflow.jobs[name], process, code)
                ended = True
        return ended

    def _judge(self, run: _Run, job: Job, process: Process, code: int) -> None:
        task = run.state.tasks[job.name]
        last = task.tries[-1]
        last.ended, last.exit = datetime.now(UTC), code
        outputs = process.outputs(job.outputs) if code == Exit.DONE else None
        if outputs is not None:
            task.outputs, task.made_s = outputs, process.made_s()
            self._set(run, job, Status.DONE)
            return
        last.reason = process.reason(code) if code else "ended well but handed nothing over"
        rule = retry_of(code)
        if job.retried and len(task.tries) <= rule.limit:
            run.due[job.name] = time.monotonic() + self.patience * retry.backoff_s(len(task.tries))
            self._set(run, job, Status.WAITING, last.reason)
        else:
            self._set(run, job, Status.FAILED, last.reason)

    def _set(self, run: _Run, job: Job, status: Status, reason: str = "") -> bool:
        task = run.state.tasks[job.name]
        task.status, task.reason = status, reason
        run.save()
        self._display.changed(run.state, job.name)
        return True

    # The end

    def _stop(self, runs: Sequence[_Run]) -> None:
        """Stop all processes, and leave a state that says so."""
        for _, process in _processes(runs):
            process.stop()
        until = time.monotonic() + GRACE_S
        while any(_processes(runs)) and time.monotonic() < until:
            for run in runs:
                for name, process in list(run.processes.items()):
                    code = process.poll()
                    if code is not None:
                        del run.processes[name]
                        last = run.state.tasks[name].tries[-1]
                        last.ended, last.exit, last.reason = datetime.now(UTC), code, "told to stop"
            time.sleep(TICK_S)
        for run in runs:
            if run.state.status is Status.RUNNING:
                for task in run.state.tasks.values():
                    if task.status in {Status.RUNNING, Status.WAITING}:
                        task.status, task.reason = Status.STOPPED, "the engine was told to stop"
                run.end(Status.STOPPED)


def _processes(runs: Sequence[_Run]) -> Iterator[tuple[_Run, Process]]:
    return ((run, process) for run in runs for process in run.processes.values())
