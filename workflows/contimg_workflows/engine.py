"""The local engine: runs workflows by processes, a few at a time, and resumes interrupted ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path

from contimg.runtime.child import LINEAR_ALGEBRA
from contimg.runtime.errors import Exit, UsageError, retry_of
from contimg_runs.state import GOOD, OPEN, RunState, Status, TaskState, Try
from contimg_workflows.display import Display
from contimg_workflows.process import Process
from contimg_workflows.state import RunFolder
from contimg_workflows.tasks import LocalTask, LocalWorkflow, backoff_s

TICK_S = 0.05
PROGRESS_SAVE_S = 2.0
"""Progress is saved no more often than this, because only `contimg status` reads it."""
GRACE_S = 11.0
"""After this time no process is left: `Process` has killed those that ignored the signal."""


@dataclass(frozen=True)
class Gate:
    """Tasks of one name wait until those of the same name in other workflows have ended."""

    task: str
    workflows: frozenset[str]


@dataclass
class _Run:
    """A workflow with its state, processes and tasks that may start."""

    workflow: LocalWorkflow
    folder: RunFolder
    state: RunState
    gate: Gate | None
    sorter: TopologicalSorter[str]
    ready: list[str]
    """Tasks whose predecessors succeeded, and that do not run now."""
    processes: dict[str, Process] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    """When a task may try again, on the monotonic clock."""
    saved: float = 0.0
    lock: ExitStack = field(default_factory=ExitStack)
    begun: bool = False

    def begin(self) -> bool:
        """Lock the run when its first task is considered: a thousand workflows keep few files open.

        Returns False if another engine has it by then; the run is left to that one.
        """
        if self.begun:
            return True
        try:
            self.lock.enter_context(self.folder.hold())
        except UsageError as error:
            self.state.status, self.state.reason = Status.SKIPPED, str(error)
            self.state.ended = datetime.now(UTC)
            for task in self.state.tasks.values():
                task.status, task.reason = Status.SKIPPED, "another engine runs it"
            return False
        self.begun, self.state.started = True, datetime.now(UTC)
        self.save()
        return True

    def end(self, status: Status) -> None:
        """Save the run's end and unlock it."""
        self.state.status, self.state.ended = status, datetime.now(UTC)
        if self.begun:
            self.save()
        self.lock.close()

    def save(self) -> None:
        self.folder.save(self.state)
        self.saved = time.monotonic()


class Engine:
    """Runs workflows side by side with at most `jobs` processes."""

    def __init__(
        self, runs: Path, binaries: Path, env: Mapping[str, str], display: Display, jobs: int = 2
    ) -> None:
        self._folder, self._bin, self._display, self._jobs = runs, binaries, display, jobs
        # Results must not depend on the number of cores.
        self._env = {**env, **LINEAR_ALGEBRA}
        self._runs: dict[str, _Run] = {}
        self.wait_factor = 1.0
        """Factor on every wait before another try; tests set it to nearly 0."""

    def run(
        self, workflows: Sequence[LocalWorkflow], gates: Mapping[str, Gate] | None = None
    ) -> list[RunState]:
        """Run workflows to their ends; the earlier in the list go first where there is a choice.

        Raises
        ------
        UsageError
            If another engine runs one of them, or a stage is not installed. What another engine
            takes later is skipped.
        Stopped
            After all processes have ended, if this process was terminated.
        """
        runs = [self._prepare(one, (gates or {}).get(one.name)) for one in workflows]
        self._runs = {run.workflow.name: run for run in runs}
        try:
            while any(run.state.status is Status.RUNNING for run in runs):
                moved = [self._reap(run) for run in runs] + [self._advance(run) for run in runs]
                self._display.show([run.state for run in runs])
                if not any(moved):
                    time.sleep(TICK_S)
        except BaseException:
            self._stop(runs)
            raise
        return [run.state for run in runs]

    def _prepare(self, workflow: LocalWorkflow, gate: Gate | None) -> _Run:
        for task in workflow.tasks.values():
            if not (self._bin / task.program[0]).exists():
                problem = f"There is no program {task.program[0]}."
                remedy = f"Install the stage: pip install {task.program[0]}."
                raise UsageError(str(self._bin), problem, remedy)
        folder = RunFolder(self._folder / workflow.name)
        with folder.hold():  # refused before anything has begun
            pass
        state = RunState(
            name=workflow.name,
            pipeline=workflow.template,
            arguments=dict(workflow.arguments),
            started=datetime.now(UTC),
            tasks={name: TaskState() for name in workflow.tasks},
        )
        sorter = TopologicalSorter({name: one.needs for name, one in workflow.tasks.items()})
        sorter.prepare()
        return _Run(
            workflow=workflow,
            folder=folder,
            state=state,
            gate=gate,
            sorter=sorter,
            ready=list(sorter.get_ready()),
        )

    def _advance(self, run: _Run) -> bool:
        """Start or skip what can be, or end the workflow; return whether anything changed."""
        if run.state.status is not Status.RUNNING:
            return False
        moved = False
        if run.state.failed:
            # As in Argo: after a failure nothing new begins, what runs goes on.
            reason = f"{run.state.failed[0]} failed"
            for name, task in run.state.tasks.items():
                if task.status in {Status.PENDING, Status.WAITING}:
                    moved = self._set(run, name, Status.SKIPPED, reason)
        else:
            # A cached task lets the next one start at once, so that a cached run is open for a
            # moment only.
            while run.state.status is Status.RUNNING:
                ready = [task for name, task in run.workflow.tasks.items() if name in run.ready]
                changed = [self._consider(run, task) for task in ready]
                if not any(changed):
                    break
                moved = True
        is_open = any(task.status in OPEN for task in run.state.tasks.values())
        if run.state.ended is None and not is_open:
            run.end(Status.FAILED if run.state.failed else Status.DONE)
            moved = True
        return moved

    def _consider(self, run: _Run, task: LocalTask) -> bool:
        """Skip a ready task, find its artifact, start it, or leave it; return if it changed."""
        outputs = {name: one.outputs for name, one in run.state.tasks.items() if one.status in GOOD}
        if reason := task.skip_reason(outputs):
            return self._set(run, task.name, Status.SKIPPED, reason, release=True)
        if run.gate is not None and run.gate.task == task.name:
            others = (self._runs[name].state for name in run.gate.workflows if name in self._runs)
            if any(other.tasks[task.name].status in OPEN for other in others):
                return False
        busy = sum(len(other.processes) for other in self._runs.values())
        if busy >= self._jobs or time.monotonic() < run.due.get(task.name, 0.0):
            return False
        if not run.begin():
            return True
        state, values = run.state.tasks[task.name], task.values(outputs)
        if made := task.find_made(values):
            state.outputs, state.made_s = made, float(made["seconds"])
            return self._set(run, task.name, Status.CACHED, release=True)
        run.ready.remove(task.name)
        log = f"{task.name}.{len(state.tries) + 1}.log"
        argv = task.command(values)
        argv = [str(self._bin / argv[0]), *argv[1:]]
        place, path = run.folder.path / f".{task.name}", run.folder.path / log
        run.processes[task.name] = Process(argv, place, path, self._env, task.deadline_s)
        state.tries.append(Try(started=datetime.now(UTC), log=log))
        return self._set(run, task.name, Status.RUNNING)

    def _reap(self, run: _Run) -> bool:
        """Note how the tries of a workflow go; return whether one ended."""
        ended = False
        for name, process in list(run.processes.items()):
            code, progress, state = process.poll(), process.progress(), run.state.tasks[name]
            if state.progress != progress:
                state.progress = progress
                if time.monotonic() - run.saved > PROGRESS_SAVE_S:
                    run.save()
            if code is None:
                continue
            ended = True
            del run.processes[name]
            last = state.tries[-1]
            last.ended, last.exit = datetime.now(UTC), code
            results = process.outputs(run.workflow.tasks[name].outputs)
            if code == Exit.DONE and results is not None:
                state.outputs, state.made_s = results
                self._set(run, name, Status.DONE, release=True)
                continue
            last.reason = process.reason(code) if code else "It exited with 0 but left no outputs."
            status = Status.FAILED
            if len(state.tries) <= retry_of(code).limit:
                status, wait_s = Status.WAITING, self.wait_factor * backoff_s(len(state.tries))
                run.due[name] = time.monotonic() + wait_s
                run.ready.append(name)
            self._set(run, name, status, last.reason)
        return ended

    def _set(
        self, run: _Run, name: str, status: Status, reason: str = "", *, release: bool = False
    ) -> bool:
        """Note a task's status; `release` lets the tasks start that wait for it alone."""
        task = run.state.tasks[name]
        task.status, task.reason = status, reason
        run.save()
        self._display.show_change(run.state, name)
        if release:
            run.ready = [one for one in run.ready if one != name]
            run.sorter.done(name)
            run.ready += run.sorter.get_ready()
        return True

    def _stop(self, runs: Sequence[_Run]) -> None:
        """Stop all processes, and leave a state that says so."""
        for process in (one for run in runs for one in run.processes.values()):
            process.stop()
        until = time.monotonic() + GRACE_S
        while any(run.processes for run in runs) and time.monotonic() < until:
            for run, name in [(one, task) for one in runs for task in one.processes]:
                code = run.processes[name].poll()
                if code is not None:
                    del run.processes[name]
                    last = run.state.tasks[name].tries[-1]
                    last.ended, last.exit, last.reason = datetime.now(UTC), code, "terminated"
            time.sleep(TICK_S)
        for run in runs:
            if run.state.status is Status.RUNNING:
                for task in run.state.tasks.values():
                    if task.status in {Status.RUNNING, Status.WAITING}:
                        task.status, task.reason = Status.STOPPED, "the engine was terminated"
                run.end(Status.STOPPED)
