"""The folder of a run: its state, one JSON file that is replaced as a whole, and its logs."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contimg.runtime.errors import UsageError
from contimg_runs.state import RunState, Status, readable_lines

STATE = "state.json"
LOCK = ".lock"
LOG_TICK_S = 0.2
BACKLOG = ".backlog"
"""Lock of a folder of runs, shared by all processes that will run what was submitted."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run's state and logs."""

    path: Path

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
        for _ in range(2):  # the engine may have ended between the reading and the look at locks
            state = RunState.model_validate_json((self.path / STATE).read_text())
            is_pending, backlog = state.status is Status.PENDING, self.path.parent / BACKLOG
            if not is_pending and state.status is not Status.RUNNING:
                return state
            if is_locked(self.path / LOCK) or (is_pending and is_locked(backlog, fcntl.LOCK_EX)):
                return state
        if is_pending:
            state.reason = "no engine is left to begin it; submit it again"
        for task in state.tasks.values():
            if task.status in {Status.RUNNING, Status.WAITING}:
                task.status, task.reason = Status.INTERRUPTED, "the engine was killed"
        state.status = Status.INTERRUPTED
        return state

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
    started = {path: json.loads(path.read_text())["started"] for path in runs.glob(f"*/{STATE}")}
    return [RunFolder(path.parent) for path in sorted(started, key=started.__getitem__)]


def read_log(path: Path, has_ended: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """Yield the readable lines of a log as they are written, until its writer has ended."""
    rest, position, over = b"", 0, False
    while not over:
        over = has_ended()  # asked before reading, so that everything written until then is read
        if path.exists():
            with path.open("rb") as log:
                log.seek(position)
                block = log.read()
            position += len(block)
            *whole, rest = (rest + block).split(b"\n")
            yield from readable_lines(line.decode(errors="replace") for line in whole)
        if not over:
            time.sleep(LOG_TICK_S)
    if rest:
        yield from readable_lines([rest.decode(errors="replace")])
