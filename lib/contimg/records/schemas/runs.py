"""What ran, how long it took and where each group stands."""

from __future__ import annotations

from enum import StrEnum

from contimg.records.tables import Schema, parse_columns


class GroupState(StrEnum):
    """Where a group stands."""

    COLLECTING = "collecting"
    """Subbands are missing, and there is time yet."""
    PENDING = "pending"
    """Recorded; no workflow has it yet."""
    IN_PROGRESS = "in progress"
    RESUMING = "resuming"
    """Started again after an infrastructure failure."""
    FAILED = "failed"
    COMPLETED = "completed"


STARTED = "mjd_started | float64? | d | time.start | UTC; when its first pod was created"
ENDED = "mjd_ended | float64? | d | time.end | UTC"
REASON = "reason | string? | | meta.note | Why it failed; null if it did not"
EXIT = "exit | int32? | | meta.code.error | Exit code, as in contimg.runtime.errors; \
    null if there was none"

STAGE_RUNS = Schema(
    name="stage_runs",
    version=1,
    sort=("run", "mjd_started", "task"),
    meaning="One row a task of a workflow: what ran, how often, how long and in how much memory.",
    columns=parse_columns(f"""
    run | string | | meta.id | ID-aN, or the workflow's name where it is no attempt at a group
    workflow | string | | meta.id | Name of the workflow
    uid | string | | meta.id | Of the workflow, as Kubernetes gives it
    group | string? | | meta.id;obs | Null where it is no attempt at a group
    attempt | int32? | | meta.number | Null where it is no attempt at a group
    pipeline | string? | | meta.id | Such as process-group; null if unknown
    task | string | | meta.id | Name in the workflow
    stage | string | | meta.id | Template that it ran
    state | string | | meta.code.status | succeeded, failed or stopped
    cached | bool | | meta.code | True: the artifact had been made before
    retries | int32 | | meta.number | Further tries after the first
    {EXIT}
    {REASON}
    {STARTED}
    {ENDED}
    queue_s | float64? | s | time.duration | From the last try's pod to its work; null if unknown
    wall_s | float64? | s | time.duration | Of the stage itself; null if it failed or was cached
    cpu_s | float64? | s | time.duration | Of the stage with its children; null as wall_s
    peak_memory_bytes | int64? | byte | meta.number | Of the stage with its children; null as wall_s
    artifact | string? | | meta.ref.uri | What it made; null if it failed
    """),
)

GROUPS = Schema(
    name="groups",
    version=1,
    sort=("group",),
    meaning="One row a group: where it stands.",
    columns=parse_columns(f"""
    group | string | | meta.id;obs;meta.main | First integration's UTC, such as 20260125t222605
    state | string | | meta.code.status | collecting, pending, in progress, resuming, failed, \
        completed
    attempt | int32 | | meta.number | The latest; 0 while it is collecting
    retries | int32 | | meta.number | How often the same subbands were started again
    n_subbands | int32 | | meta.number | Of 16
    complete | bool | | meta.code | True: all subbands are there
    mjd_start | float64 | d | time.start;obs | UTC midpoint of the first integration
    mjd_end | float64 | d | time.end;obs | UTC midpoint of the last integration
    dec | float64? | deg | pos.eq.dec | Apparent Declination of the pointing, if known
    workflow | string? | | meta.id | That has the latest attempt; null while it is pending
    {EXIT}
    {REASON}
    {STARTED}
    {ENDED}
    """),
)
