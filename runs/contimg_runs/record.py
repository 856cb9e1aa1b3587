"""``contimg record``: the exit handler of a workflow. It stores how the workflow ended, once."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from contimg.records.groups import mjd_of
from contimg.records.runs import RUNS, Claim, Outcome, Phase, TaskRun, run_name
from contimg.records.schemas.runs import STAGE_RUNS
from contimg.runtime.console import Console
from contimg.runtime.contract import hand_over
from contimg.runtime.errors import ContimgError, UsageError
from contimg.runtime.manifest import read_manifest
from contimg.runtime.store import Store, open_store
from contimg_runs.argo import find_kubernetes_api
from contimg_runs.attempt_store import AttemptStore, table_key
from contimg_runs.node_status import Node, judge_run, pipeline_of, read_failures, read_task_runs
from contimg_runs.options import RecordOptions

TASK_FIELDS = {"task", "stage", "cached", "exit", "queue_s", "wall_s", "cpu_s", "peak_memory_bytes"}
"""Fields of a task that are columns as they are."""


def run(options: RecordOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Record how a workflow ended, and hand over the outcome."""
    store = open_store(options.store)
    store.check()
    attempts = AttemptStore(store)
    attempt, workflow = options.run, None
    if attempt is not None:
        attempts.require_record(attempt)
    elif options.group:  # the attempt at the group that the workflow has claimed, if any
        keys = [entry.key for entry in store.entries(f"{RUNS}{options.group}-a")]
        runs = [key.split("/")[1] for key in keys if key.endswith("/claim.json")]
        claims = [attempts.read(Claim, run) for run in runs]
        attempt = next((one.run for one in claims if one and one.uid == options.uid), None)
    name = attempt or options.workflow
    try:
        api = find_kubernetes_api(env, options) if options.workflows == "api" else None
        workflow = api.get_workflow(options.workflow) if api else None
    except ContimgError as error:  # the record lacks details
        console.log.warning("%s", error)
    if workflow is not None and workflow["metadata"]["uid"] == options.uid:
        outcome = read_outcome(name, workflow, options.status, options.pipeline)
    else:  # by Argo's list of its failures
        tasks = () if options.status == "Succeeded" else read_failures(options.failures)
        stopped = any(task.phase is Phase.STOPPED for task in tasks)
        outcome = Outcome(
            run=name,
            workflow=options.workflow,
            uid=options.uid,
            pipeline=options.pipeline or "",
            ended=datetime.now(UTC),
            tasks=tasks,
            **vars(judge_run(options.status, tasks, stopped=stopped)),
        )
    if attempt is None:
        write_rows(store, outcome, options.group)
        phase, reason = str(outcome.phase), outcome.reason
    else:
        phase, reason = record_outcome(attempts, outcome)
    console.log.info("%s: %s%s", name, phase, f": {reason}" if reason else "")
    hand_over(env, "outcome", phase)
    summary = {"run": name, "outcome": phase, "reason": reason}
    return {"stage": "record", **summary, "tasks": len(outcome.tasks)}


def read_outcome(run: str, workflow: Node, status: str, pipeline: str | None = None) -> Outcome:
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
    queued = {"queue_s": round(max(queue_s, 0.0), 3) if task.tries == 1 else None}
    return task.model_copy(update={**queued, **usage.model_dump()})


def record_outcome(attempts: AttemptStore, outcome: Outcome) -> tuple[str, str]:
    """Write the outcome of an attempt if its workflow has the claim; then the rows of the tables.

    An outcome that exists stays; its rows are written again. Return what the store then says: phase
    and reason; the phase is "none" if the workflow does not have the attempt.
    """
    claim = attempts.read(Claim, outcome.run)
    if claim is None:
        return "none", "it was never claimed"
    if claim.uid != outcome.uid:
        return "none", f"{claim.workflow} ({claim.uid}) has it"
    if not attempts.write(outcome):
        existing = attempts.read(Outcome, outcome.run)
        if existing is None:
            problem = "The outcome existed and was removed at once."
            raise UsageError(outcome.run, problem, "Leave the store's runs/ alone.")
        outcome = existing
    group, _ = run_name(outcome.run) or ("", 0)
    write_rows(attempts.store, outcome, group)
    attempts.refresh_row(group)
    return str(outcome.phase), outcome.reason


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
