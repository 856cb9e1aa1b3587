"""What a run has come to: one JSON file a workflow, written whole at every change, that outlives the engine."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contimg.runtime.errors import UsageError
from contimg_runs.state import GOOD, OPEN, RunState, Status, TaskState, Try

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GOOD", "OPEN", "RunState", "Status", "TaskState", "Try"]
STATE = "state.json"
LOCK = ".lock"
BACKLOG = ".backlog"
"""Lock of a folder of runs, shared by all processes that have yet to begin what was submitted."""


class RunFolder:
    """Where a run keeps its state and its logs."""

    def __init__(self, runs: Path, name: str) -> None:
        self.path = runs / name

    def exists(self) -> bool:
        """Say whether it was ever begun."""
        return (self.path / STATE).exists()

    def save(self, state: RunState) -> None:
        """Write the state; readers see the old one or the new one."""
        part = self.path / f".{STATE}.part"
        part.write_text(state.model_dump_json(indent=1, exclude_defaults=True))
        part.replace(self.path / STATE)

    def load(self) -> RunState:
        """Read the state; a run that says it goes on but has no engine was interrupted."""
        state = self._read()
        if state.status in {Status.RUNNING, Status.PENDING} and not self._has_engine(state):
            state = self._read()  # the engine may have ended well in between
            if not self._has_engine(state):
                _interrupt(state)
        return state

    def _read(self) -> RunState:
        return RunState.model_validate_json((self.path / STATE).read_text())

    def _has_engine(self, state: RunState) -> bool:
        """Say whether a process has the run in hand, or will have; one that has ended needs none."""
        waits = state.status is Status.PENDING and held(self.path.parent / BACKLOG, fcntl.LOCK_EX)
        runs = state.status in {Status.RUNNING, Status.PENDING} and held(self.path / LOCK)
        return waits or runs or state.status not in {Status.RUNNING, Status.PENDING}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other engines from the same run; the kernel lets go when this process ends in whatever way.

        Raises
        ------
        UsageError
            If another engine runs it now.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                remedy = "Wait for it, or stop it; contimg status shows it."
                raise UsageError(
                    str(self.path), "expected no other engine on this run, found one.", remedy
                ) from error
            yield


def _interrupt(state: RunState) -> None:
    if state.status is Status.PENDING:
        state.reason = "no engine is left to begin it; submit it again"
    for task in state.tasks.values():
        if task.status in {Status.RUNNING, Status.WAITING}:
            task.status, task.reason = Status.INTERRUPTED, "the engine ended without a word"
    state.status = Status.INTERRUPTED


def held(lock: Path, mode: int = fcntl.LOCK_SH) -> bool:
    """Say whether a living process holds a lock that keeps this mode out."""
    try:
        with lock.open("r") as file:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def all_runs(runs: Path) -> list[RunFolder]:
    """List the runs of a folder, the earliest start first."""
    found = [RunFolder(runs, path.parent.name) for path in runs.glob(f"*/{STATE}")]
    return sorted(
        found, key=lambda folder: json.loads((folder.path / STATE).read_text())["started"]
    )
