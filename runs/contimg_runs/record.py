"""``contimg record``: the exit handler of a workflow. What became of it goes into the store, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contimg.records.runs import Outcome, Phase, TaskRun, run_name
from contimg.records.schemas.runs import STAGE_RUNS
from contimg.runtime.contract import hand_over
from contimg.runtime.errors import ContimgError, UsageError
from contimg.runtime.manifest import read_manifest
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import Ledger, mjd_or_none, table_key
from contimg_runs.cluster import find_cluster
from contimg_runs.node_status import failures_of, judge, judge_workflow, pipeline_of, tasks_of
from contimg_runs.options import RecordOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from logging import Logger

    from contimg.runtime.console import Console
    from contimg.runtime.store import Store


@dataclass(frozen=True)
class Settled:
    """What the store says of a run after it was recorded."""

    phase: Phase | None
    """None: it was not ours to record."""
    reason: str = ""


def run(options: RecordOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Record how a workflow ended, and tell the engine."""
    store = open_store(options.store)
    store.check()
    ledger = Ledger(store)
    if options.run is not None:
        ledger.expect(options.run)
    attempt = options.run or ledger.claimed(options.group or "", options.uid)
    outcome = outcome_of(
        options, attempt or options.workflow, workflow_of(options, env, console.log)
    )
    if attempt is None:
        write_rows(store, outcome, options.group)
        settled = Settled(outcome.phase, outcome.reason)
    else:
        settled = settle(ledger, outcome)
    shown = str(settled.phase or "none")
    console.log.info(
        "%s: %s%s", outcome.run, shown, f": {settled.reason}" if settled.reason else ""
    )
    hand_over(env, "outcome", shown)
    return {
        "stage": "record",
        "run": outcome.run,
        "outcome": shown,
        "reason": settled.reason,
        "tasks": len(outcome.tasks),
    }


def workflow_of(
    options: RecordOptions, env: Mapping[str, str], log: Logger
) -> dict[str, Any] | None:
    """Read the workflow, if there is a cluster to ask; what it would say is worth less than the record itself."""
    cluster = (
        find_cluster(env, options.api, options.namespace) if options.workflows == "api" else None
    )
    try:
        found = None if cluster is None else cluster.get(options.workflow)
    except ContimgError as error:
        log.warning("%s", error)
        return None
    return found if found is not None and found["metadata"]["uid"] == options.uid else None


def outcome_of(options: RecordOptions, name: str, workflow: Mapping[str, Any] | None) -> Outcome:
    """Say what became of a workflow, by its own JSON if that could be read, else by what Argo says of its failures."""
    if workflow is not None:
        return outcome_of_workflow(name, workflow, options.status, options.pipeline)
    tasks = () if options.status == "Succeeded" else failures_of(options.failures)
    stopped = any(task.phase is Phase.STOPPED for task in tasks)
    verdict = judge(options.status, tasks, stopped=stopped)
    return Outcome(
        run=name,
        workflow=options.workflow,
        uid=options.uid,
        pipeline=options.pipeline or "",
        phase=verdict.phase,
        blame=verdict.blame,
        exit=verdict.exit,
        reason=verdict.reason,
        ended=datetime.now(UTC),
        tasks=tasks,
    )


def outcome_of_workflow(
    run: str, workflow: Mapping[str, Any], status: str, pipeline: str | None = None
) -> Outcome:
    """Say what became of a workflow, with the time and memory that its stages' manifests tell."""
    meta = workflow["metadata"]
    tasks = tuple(measured(task) for task in tasks_of(workflow))
    verdict = judge_workflow(workflow, status, tasks)
    finished = workflow.get("status", {}).get("finishedAt")
    return Outcome(
        run=run,
        workflow=meta["name"],
        uid=meta["uid"],
        pipeline=pipeline or pipeline_of(workflow),
        phase=verdict.phase,
        blame=verdict.blame,
        exit=verdict.exit,
        reason=verdict.reason,
        started=datetime.fromisoformat(meta["creationTimestamp"]),
        ended=datetime.fromisoformat(finished) if finished else datetime.now(UTC),
        tasks=tasks,
    )


def measured(task: TaskRun) -> TaskRun:
    """Add what the manifest of a task's artifact tells of time and memory; an artifact older than its pod was cached."""
    if not task.artifact or task.started is None or task.cached:
        return task
    try:
        manifest = read_manifest(task.artifact)
    except ContimgError:  # removed since, or of another version: the run is recorded without
        return task
    if manifest.created < task.started:
        return task.model_copy(update={"cached": True})
    usage = manifest.usage
    if usage is None:
        return task.model_copy(update={"wall_s": round(sum(manifest.seconds.values()), 3)})
    queue = (
        (manifest.created - task.started).total_seconds() - usage.wall_s
        if task.tries == 1
        else None
    )
    return task.model_copy(
        update={
            "queue_s": None if queue is None else round(max(queue, 0.0), 3),
            "wall_s": usage.wall_s,
            "cpu_s": usage.cpu_s,
            "peak_memory_bytes": usage.peak_memory_bytes,
        }
    )


def settle(ledger: Ledger, outcome: Outcome) -> Settled:
    """Write the outcome of an attempt, if its claim is the workflow's and nobody has closed it; then the tables' rows."""
    claim = ledger.claim(outcome.run)
    if claim is None or claim.uid != outcome.uid:
        return Settled(
            None, f"{claim.workflow} ({claim.uid}) has it" if claim else "it was never claimed"
        )
    kept = outcome if ledger.close(outcome) else ledger.outcome(outcome.run)
    if kept is None:
        raise UsageError(
            outcome.run,
            "expected an outcome that stays, found one that was removed at once.",
            "Leave runs/ alone.",
        )
    group, _ = run_name(outcome.run) or ("", 0)
    write_rows(ledger.store, kept, group)
    ledger.refresh(group)
    return Settled(kept.phase, kept.reason)


def write_rows(store: Store, outcome: Outcome, group: str | None) -> None:
    """Write the rows of a run's tasks."""
    name = run_name(outcome.run)
    shared = {
        "run": outcome.run,
        "workflow": outcome.workflow,
        "uid": outcome.uid,
        "group": group,
        "attempt": name[1] if name else None,
        "pipeline": outcome.pipeline or None,
    }
    day = outcome.run if name else f"{outcome.started or outcome.ended:%Y%m%d}"
    table = STAGE_RUNS.rows([{**shared, **_row(task)} for task in outcome.tasks])
    store.put(table_key(STAGE_RUNS.name, day, outcome.run), STAGE_RUNS.to_bytes(table))


def _row(task: TaskRun) -> dict[str, Any]:
    plain = task.model_dump(
        include={
            "task",
            "stage",
            "cached",
            "exit",
            "queue_s",
            "wall_s",
            "cpu_s",
            "peak_memory_bytes",
        }
    )
    return {
        **plain,
        "state": str(task.phase),
        "retries": task.tries - 1,
        "reason": task.reason or None,
        "mjd_started": mjd_or_none(task.started),
        "mjd_ended": mjd_or_none(task.ended),
        "artifact": task.artifact or None,
    }
