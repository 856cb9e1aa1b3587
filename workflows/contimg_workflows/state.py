"""The state of a run: one JSON file per workflow, replaced as a whole at every change."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contimg.runtime.errors import UsageError
from contimg_runs.state import RunState, Status

STATE = "state.json"
LOCK = ".lock"
BACKLOG = ".backlog"
"""Lock of a folder of runs, shared by all processes that will run what was submitted."""


class RunFolder:
    """The folder of a run's state and logs."""

    def __init__(self, runs: Path, name: str) -> None:
        self.path = runs / name

    def exists(self) -> bool:
        """Say whether it has a state."""
        return (self.path / STATE).exists()

    def save(self, state: RunState) -> None:
        """Write the state; readers see the old one or the new one."""
        part = self.path / f".{STATE}.part"
        part.write_text(state.model_dump_json(indent=1, exclude_defaults=True))
        part.replace(self.path / STATE)

    def load(self) -> RunState:
        """Read the state; an open run without an engine was interrupted."""
        state = self._read()
        if state.status in {Status.RUNNING, Status.PENDING} and not self._has_engine(state):
            state = self._read()  # the engine may have ended in between
            if not self._has_engine(state):
                if state.status is Status.PENDING:
                    state.reason = "no engine is left to begin it; submit it again"
                for task in state.tasks.values():
                    if task.status in {Status.RUNNING, Status.WAITING}:
                        task.status, task.reason = Status.INTERRUPTED, "the engine was killed"
                state.status = Status.INTERRUPTED
        return state

    def _read(self) -> RunState:
        return RunState.model_validate_json((self.path / STATE).read_text())

    def _has_engine(self, state: RunState) -> bool:
        """Say whether a process runs it, or will; a run that has ended needs none."""
        waits = state.status is Status.PENDING and is_locked(
            self.path.parent / BACKLOG, fcntl.LOCK_EX
        )
        runs = state.status in {Status.RUNNING, Status.PENDING} and is_locked(self.path / LOCK)
        return waits or runs or state.status not in {Status.RUNNING, Status.PENDING}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the run; the kernel unlocks it however this process ends.

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
                problem = "Another engine runs this workflow now."
                raise UsageError(str(self.path), problem, remedy) from error
            yield


def is_locked(lock: Path, mode: int = fcntl.LOCK_SH) -> bool:
    """Say whether a living process holds a lock that excludes this mode."""
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
