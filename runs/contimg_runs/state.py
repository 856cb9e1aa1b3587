"""The state of a run on either engine: a workflow, its tasks and their tries."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

EXECUTOR = " argo=true"
"""Argo's executor marks its own log lines with this; they are not the stage's."""


class Status(StrEnum):
    """Where a task or a workflow stands."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting to try again"
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


GOOD = {Status.DONE, Status.CACHED}
OPEN = {Status.PENDING, Status.RUNNING, Status.WAITING}


class Try(BaseModel, extra="forbid"):
    """One process or pod."""

    started: datetime
    ended: datetime | None = None
    exit: int | None = None
    reason: str = ""
    """Why it failed."""
    log: str
    """Name of the log file below the run's folder, or of the pod."""

    @property
    def seconds(self) -> float:
        """Wall time; 0 while it runs."""
        return (self.ended - self.started).total_seconds() if self.ended else 0.0


class TaskState(BaseModel, extra="forbid"):
    """One task."""

    stage: str = ""
    """Template that it runs, such as convert; empty where the task is named after it."""
    status: Status = Status.PENDING
    tries: list[Try] = []
    outputs: dict[str, str] = {}
    """What it handed over."""
    progress: str = ""
    """``N/M``, as the stage reports it."""
    made_s: float | None = None
    """Seconds that the stage took to make the artifact, also where the artifact was found made."""
    reason: str = ""
    """Why it failed or was skipped."""


class RunState(BaseModel, extra="forbid"):
    """One workflow."""

    name: str
    pipeline: str
    arguments: dict[str, str]
    started: datetime
    ended: datetime | None = None
    status: Status = Status.RUNNING
    reason: str = ""
    """Why it waits or failed, where no task can say it."""
    tasks: dict[str, TaskState]

    @property
    def failed(self) -> list[str]:
        """The tasks that failed."""
        return [name for name, task in self.tasks.items() if task.status is Status.FAILED]


def readable_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield JSON lines of a log as text, with traces, others as they are; not Argo's own."""
    for line in lines:
        if line.rstrip().endswith(EXECUTOR) or f"{EXECUTOR} " in line:
            continue
        try:
            entry = json.loads(line)
            yield f"{entry['time'][11:19]} {entry['level']}: {entry['message']}"
            yield from str(entry.get("trace", "")).splitlines()
        except (ValueError, KeyError, TypeError):
            yield line.rstrip("\r\n")
