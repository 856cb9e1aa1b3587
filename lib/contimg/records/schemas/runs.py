"""What ran, how long it took and where each group stands."""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

from contimg.records.tables import Column, Schema


class GroupState(StrEnum):
    """Where a group stands."""

    COLLECTING = "collecting"
    """Subbands are missing, and there is time yet."""
    PENDING = "pending"
    """Recorded; no workflow has it yet."""
    IN_PROGRESS = "in progress"
    RESUMING = "resuming"
    """Begun again after a run that the world ended."""
    FAILED = "failed"
    COMPLETED = "completed"


GROUP = "meta.id;obs"
STARTED = Column(
    "mjd_started", pa.float64(), "d", "time.start", "UTC; when its first pod was created"
)
ENDED = Column("mjd_ended", pa.float64(), "d", "time.end", "UTC")
REASON = Column("reason", pa.string(), "", "meta.note", "Why it failed; null if it did not")
EXIT = Column(
    "exit",
    pa.int32(),
    "",
    "meta.code.error",
    "Exit code, as in contimg.runtime.errors; null if there was none",
)

STAGE_RUNS = Schema(
    "stage_runs",
    version=1,
    sort=("run", "mjd_started", "task"),
    meaning="One row a task of a workflow: what ran, how often, how long and in how much memory.",
    columns=(
        Column(
            "run",
            pa.string(),
            "",
            "meta.id",
            "ID-aN, or the workflow's name where it is no attempt at a group",
            nullable=False,
        ),
        Column("workflow", pa.string(), "", "meta.id", "Name of the workflow", nullable=False),
        Column(
            "uid",
            pa.string(),
            "",
            "meta.id",
            "Of the workflow, as Kubernetes gives it",
            nullable=False,
        ),
        Column("group", pa.string(), "", GROUP, "Null where it is no attempt at a group"),
        Column("attempt", pa.int32(), "", "meta.number", "Null where it is no attempt at a group"),
        Column("pipeline", pa.string(), "", "meta.id", "Such as process-group; null if unknown"),
        Column("task", pa.string(), "", "meta.id", "Name in the workflow", nullable=False),
        Column("stage", pa.string(), "", "meta.id", "Template that it ran", nullable=False),
        Column(
            "state",
            pa.string(),
            "",
            "meta.code.status",
            "succeeded, failed or stopped",
            nullable=False,
        ),
        Column(
            "cached",
            pa.bool_(),
            "",
            "meta.code",
            "True: the artifact had been made before",
            nullable=False,
        ),
        Column(
            "retries",
            pa.int32(),
            "",
            "meta.number",
            "Further tries after the first",
            nullable=False,
        ),
        EXIT,
        REASON,
        STARTED,
        ENDED,
        Column(
            "queue_s",
            pa.float64(),
            "s",
            "time.duration",
            "From the last try's pod to the start of its work; null if unknown",
        ),
        Column(
            "wall_s",
            pa.float64(),
            "s",
            "time.duration",
            "Of the stage itself; null if it failed or was cached",
        ),
        Column(
            "cpu_s",
            pa.float64(),
            "s",
            "time.duration",
            "Of the stage with its children; null as wall_s",
        ),
        Column(
            "peak_memory_bytes",
            pa.int64(),
            "byte",
            "meta.number",
            "Of the stage with its children; null as wall_s",
        ),
        Column("artifact", pa.string(), "", "meta.ref.uri", "What it made; null if it failed"),
    ),
)

GROUPS = Schema(
    "groups",
    version=1,
    sort=("group",),
    meaning="One row a group: where it stands.",
    columns=(
        Column(
            "group",
            pa.string(),
            "",
            f"{GROUP};meta.main",
            "First integration's UTC, such as 20260125t222605",
            nullable=False,
        ),
        Column("state", pa.string(), "", "meta.code.status", ", ".join(GroupState), nullable=False),
        Column(
            "attempt",
            pa.int32(),
            "",
            "meta.number",
            "The latest; 0 while it is collecting",
            nullable=False,
        ),
        Column(
            "retries",
            pa.int32(),
            "",
            "meta.number",
            "How often the same subbands were begun anew",
            nullable=False,
        ),
        Column("n_subbands", pa.int32(), "", "meta.number", "Of 16", nullable=False),
        Column(
            "complete", pa.bool_(), "", "meta.code", "True: all subbands are there", nullable=False
        ),
        Column(
            "mjd_start",
            pa.float64(),
            "d",
            "time.start;obs",
            "UTC midpoint of the first integration",
            nullable=False,
        ),
        Column(
            "mjd_end",
            pa.float64(),
            "d",
            "time.end;obs",
            "UTC midpoint of the last integration",
            nullable=False,
        ),
        Column(
            "dec",
            pa.float64(),
            "deg",
            "pos.eq.dec",
            "Apparent Declination of the pointing; null if the header does not say",
        ),
        Column(
            "workflow",
            pa.string(),
            "",
            "meta.id",
            "That has the latest attempt; null while it is pending",
        ),
        EXIT,
        REASON,
        STARTED,
        ENDED,
    ),
)
