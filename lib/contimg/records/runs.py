"""Runs of attempts at groups: the claim, the outcome, and whether another try may help.

``STORE/runs/ID-aN/claim.json`` names the workflow that has the attempt, ``outcome.json`` how it
ended; each is written once, by a conditional put.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from contimg.records.groups import record_name
from contimg.runtime.errors import retry_of
from contimg.runtime.manifest import Record

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


class FailureCause(StrEnum):
    """What made a run fail, which decides whether another try may help; the values are stored."""

    NONE = ""
    DATA = "data"
    INFRASTRUCTURE = "world"
    BUG = "bug"


class Claim(Record):
    """The one workflow that may run an attempt."""

    schema_version: Literal[1] = 1
    run: str
    """ID-aN."""
    uid: str
    """Of the workflow, as Kubernetes gives it: another workflow of the same name has another."""
    workflow: str
    at: AwareDatetime


class TaskRun(Record):
    """One task of a workflow, with all its tries; times are UTC."""

    task: str
    """Name in the workflow."""
    stage: str
    """Template that it ran, such as convert."""
    phase: Phase
    tries: int
    exit: int | None = None
    """Exit code of the last try; None if there was none, as when the pod was gone."""
    reason: str = ""
    """Why it failed, as the stage said."""
    started: AwareDatetime | None = None
    """When the first try's pod was created."""
    ended: AwareDatetime | None = None
    queue_s: float | None = None
    """From the creation of the last try's pod to the start of its work, seconds."""
    wall_s: float | None = None
    """Of the stage itself, seconds; None if it failed or was cached."""
    cpu_s: float | None = None
    """Of the stage with its children, seconds."""
    peak_memory_bytes: int | None = None
    cached: bool = False
    """Whether the artifact had been made before."""
    artifact: str = ""
    """URI of what it made."""


class Outcome(Record):
    """What became of a run; times are UTC."""

    schema_version: Literal[1] = 1
    run: str
    """ID-aN; the workflow's name if it was no attempt at a group."""
    workflow: str
    uid: str
    pipeline: str = ""
    """Such as process-group."""
    phase: Phase
    blame: FailureCause = FailureCause.NONE
    """The cause; the name is the one in stored records."""
    exit: int | None = None
    """Exit code of the task that failed."""
    reason: str = ""
    """One line for a person."""
    started: AwareDatetime | None = None
    """When the workflow was created."""
    ended: AwareDatetime
    tasks: tuple[TaskRun, ...] = ()

    @property
    def may_be_tried_again(self) -> bool:
        """Whether the next attempt with the same data may succeed."""
        from_infrastructure = self.blame is FailureCause.INFRASTRUCTURE
        return self.phase is Phase.LOST or (self.phase is Phase.FAILED and from_infrastructure)


def workflow_name(run: str) -> str:
    """Return the name of the workflow of an attempt."""
    return f"contimg-{run}"


def run_name(run: str) -> tuple[str, int] | None:
    """Split ID-aN into id and attempt; None for anything else."""
    return record_name(f"{run}.json")


def failure_cause(code: int | None) -> FailureCause:
    """Return the cause that an exit code stands for; None, of a killed program: infrastructure."""
    if code == 0:
        return FailureCause.NONE
    if code in DATA_EXITS:
        return FailureCause.DATA
    return FailureCause.INFRASTRUCTURE if code is None or retry_of(code).limit else FailureCause.BUG
