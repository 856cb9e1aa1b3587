"""``contimg record``: the exit handler of a workflow. It stores how the workflow ended, once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import Logger
from typing import Any

from contimg.records.groups import mjd_of
from contimg.records.runs import Claim, Outcome, Phase, TaskRun, run_name
from contimg.records.schemas.runs import STAGE_RUNS
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over
from contimg.runtime.errors import ContimgError, UsageError
from contimg.runtime.manifest import read_manifest
from contimg.runtime.store import Store, open_store
from contimg_runs.argo import find_kubernetes_api
from contimg_runs.attempt_store import AttemptStore, table_key
from contimg_runs.node_status import judge_run, pipeline_of, read_failures, read_task_runs
from contimg_runs.options import RecordOptions

TASK_FIELDS = {"task", "stage", "cached", "exit", "queue_s", "wall_s", "cpu_s", "peak_memory_bytes"}
"""Fields of a task that are columns as they are."""


@dataclass(frozen=True)
class RecordResult:
    """What the store says of a run after it was recorded."""

    phase: Phase | None
    """None: another workflow has the attempt."""
    reason: str = ""


def run(options: RecordOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Record how a workflow ended, and hand over the outcome."""
    store = open_store(options.store)
    store.check()
    attempts = AttemptStore(store)
    if options.run is not None:
        attempts.require_record(options.run)
    attempt = options.run or attempts.find_claimed_run(options.group or "", options.uid)
    name, workflow = attempt or options.workflow, _get_workflow(options, env, console.log)
    if workflow is not None:
        outcome = read_outcome(name, workflow, options.status, options.pipeline)
    else:
        outcome = _outcome_without_workflow(options, name)
    if attempt is None:
        write_rows(store, outcome, options.group)
        result = RecordResult(outcome.phase, outcome.reason)
    else:
        result = record_outcome(attempts, outcome)
    shown = str(result.phase or "none")
    reason = f": {result.reason}" if result.reason else ""
    console.log.info("%s: %s%s", outcome.run, shown, reason)
    hand_over(env, "outcome", shown)
    summary = {"run": outcome.run, "outcome": shown, "reason": result.reason}
    return {"stage": "record", **summary, "tasks": len(outcome.tasks)}


def _get_workflow(
    options: RecordOptions, env: Mapping[str, str], log: Logger
) -> dict[str, Any] | None:
    """Return the workflow's JSON; None if it cannot be had: the record then lacks details."""
    try:
        api = (
            find_kubernetes_api(env, options.api, options.namespace)
            if options.workflows == "api"
            else None
        )
        found = None if api is None else api.get_workflow(options.workflow)
    except ContimgError as error:
        log.warning("%s", error)
        return None
    return found if found is not None and found["metadata"]["uid"] == options.uid else None


def _outcome_without_workflow(options: RecordOptions, name: str) -> Outcome:
    """Return how a workflow ended by Argo's list of its failures."""
    tasks = () if options.status == "Succeeded" else read_failures(options.failures)
    stopped = any(task.phase is Phase.STOPPED for task in tasks)
    return Outcome(
        run=name,
        workflow=options.workflow,
        uid=options.uid,
        pipeline=options.pipeline or "",
        ended=datetime.now(UTC),
        tasks=tasks,
        **vars(judge_run(options.status, tasks, stopped=stopped)),
    )


def read_outcome(
    run: str, workflow: Mapping[str, Any], status: str, pipeline: str | None = None
) -> Outcome:
    """Return how a workflow ended by its JSON, with time and memory from its manifests."""
    meta, found = workflow["metadata"], workflow.get("status") or {}
    tasks = tuple(add_usage(task) for task in read_task_runs(workflow))
    stopped = bool((workflow.get("spec") or {}).get("shutdown"))
    return Outcome(
        run=run,
        workflow=meta["name"],
        uid=meta["uid"],
        pipeline=pipeline or pipeline_of(workflow),
        started=meta["creationTimestamp"],
        ended=found.get("finishedAt") or datetime.now(UTC),
        tasks=tasks,
        **vars(judge_run(status, tasks, found.get("message") or "", stopped=stopped)),
    )


def add_usage(task: TaskRun) -> TaskRun:
    """Add time and memory from the artifact's manifest; one older than its pod was cached."""
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
    queue_s = (manifest.created - task.started).total_seconds() - usage.wall_s
    measured = {
        "queue_s": round(max(queue_s, 0.0), 3) if task.tries == 1 else None,
        "wall_s": usage.wall_s,
        "cpu_s": usage.cpu_s,
        "peak_memory_bytes": usage.peak_memory_bytes,
    }
    return task.model_copy(update=measured)


def record_outcome(attempts: AttemptStore, outcome: Outcome) -> RecordResult:
    """Write the outcome of an attempt if its workflow has the claim; then the rows of the tables.

    An outcome that exists stays; its rows are written again.
    """
    claim = attempts.read(Claim, outcome.run)
    if claim is None:
        return RecordResult(None, "it was never claimed")
    if claim.uid != outcome.uid:
        return RecordResult(None, f"{claim.workflow} ({claim.uid}) has it")
    if not attempts.write(outcome):
        existing = attempts.read(Outcome, outcome.run)
        if existing is None:
            problem = "The outcome existed and was removed at once."
            raise UsageError(outcome.run, problem, "Leave the store's runs/ alone.")
        outcome = existing
    group, _ = run_name(outcome.run) or ("", 0)
    write_rows(attempts.store, outcome, group)
    attempts.refresh_row(group)
    return RecordResult(outcome.phase, outcome.reason)


def write_rows(store: Store, outcome: Outcome, group: str | None) -> None:
    """Write the rows of a run's tasks."""
    name = run_name(outcome.run)
    rows = [
        {
            "run": outcome.run,
            "workflow": outcome.workflow,
            "uid": outcome.uid,
            "group": group,
            "attempt": name[1] if name else None,
            "pipeline": outcome.pipeline or None,
            **task.model_dump(include=TASK_FIELDS),
            "state": str(task.phase),
            "retries": task.tries - 1,
            "reason": task.reason or None,
            "mjd_started": mjd_of(task.started) if task.started else None,
            "mjd_ended": mjd_of(task.ended) if task.ended else None,
            "artifact": task.artifact or None,
        }
        for task in outcome.tasks
    ]
    day = outcome.run if name else f"{outcome.started or outcome.ended:%Y%m%d}"
    key = table_key(STAGE_RUNS.name, day, outcome.run)
    store.put(key, STAGE_RUNS.to_bytes(STAGE_RUNS.rows(rows)))
