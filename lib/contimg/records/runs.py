"""Runs of attempts at groups: which workflow claimed one, and how it ended.

``STORE/runs/ID-aN/claim.json`` names the workflow that has the attempt, ``outcome.json`` says how
it ended; each is written once, by a conditional put.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from contimg.records.groups import record_name
from contimg.runtime.errors import retry_of
from contimg.runtime.record import Record

RUNS = "runs/"
"""Folder of claims and outcomes below the store's root."""
DATA_EXITS = range(10, 20)
"""Exit codes of unusable input data."""


class Phase(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """By a person."""
    LOST = "lost"
    """Its workflow vanished without an outcome."""
    SUPERSEDED = "superseded"
    """It had not begun when the next attempt was recorded."""


class Blame(StrEnum):
    """The kind of cause of a failure, which decides whether another attempt may help."""

    NOTHING = ""
    DATA = "data"
    WORLD = "world"
    BUG = "bug"


class Claim(Record):
    """The one workflow that may run an attempt."""

    schema_version: Literal[1] = 1
    run: str
    """ID-aN."""
    uid: str
    """Of the workflow, as Kubernetes gives it; two workflows of one name have different ones."""
    workflow: str
    at: AwareDatetime
    """UTC."""


class TaskRun(Record):
    """One task of a workflow, with all its tries."""

    task: str
    """Name in the workflow."""
    stage: str
    """Template that it ran, such as convert."""
    phase: Phase
    tries: int
    exit: int | None = None
    """Exit code of the last try; None if there is none, such as for a deleted pod."""
    reason: str = ""
    """Why it failed, as reported by the stage."""
    started: AwareDatetime | None = None
    """UTC; when the first try's pod was created."""
    ended: AwareDatetime | None = None
    """UTC."""
    queue_s: float | None = None
    """From the creation of the last try's pod to the start of its work, seconds."""
    wall_s: float | None = None
    """Of the stage itself, seconds; None if it failed or was cached."""
    cpu_s: float | None = None
    """Of the stage with its children, seconds."""
    peak_memory_bytes: int | None = None
    cached: bool = False
    """Whether the artifact existed already."""
    artifact: str = ""
    """URI of what it made."""


class Outcome(Record):
    """How a run ended."""

    schema_version: Literal[1] = 1
    run: str
    """ID-aN; the workflow's name if it was not an attempt at a group."""
    workflow: str
    uid: str
    pipeline: str = ""
    """Such as process-group."""
    phase: Phase
    blame: Blame = Blame.NOTHING
    exit: int | None = None
    """Exit code of the task that failed."""
    reason: str = ""
    """One line for a person."""
    started: AwareDatetime | None = None
    """UTC; when the workflow was created."""
    ended: AwareDatetime
    """UTC."""
    tasks: tuple[TaskRun, ...] = ()

    @property
    def may_be_tried_again(self) -> bool:
        """Whether the next attempt with the same data may succeed."""
        failed_transiently = self.phase is Phase.FAILED and self.blame is Blame.WORLD
        return self.phase is Phase.LOST or failed_transiently


def claim_key(run: str) -> str:
    """Return the key of the claim of a run."""
    return f"{RUNS}{run}/claim.json"


def outcome_key(run: str) -> str:
    """Return the key of the outcome of a run."""
    return f"{RUNS}{run}/outcome.json"


def workflow_name(run: str) -> str:
    """Return the name of the workflow of an attempt."""
    return f"contimg-{run}"


def run_name(run: str) -> tuple[str, int] | None:
    """Split ID-aN into id and attempt; None for anything else."""
    return record_name(f"{run}.json")


def blame_of(code: int | None) -> Blame:
    """Return the cause of a failure; without an exit code the program was ended from outside."""
    if code == 0:
        return Blame.NOTHING
    if code in DATA_EXITS:
        return Blame.DATA
    return Blame.WORLD if code is None or retry_of(code).limit else Blame.BUG
