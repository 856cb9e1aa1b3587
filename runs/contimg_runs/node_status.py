"""Argo's JSON of a workflow: the state of its tasks, and what its end means. Pure functions."""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contimg.records.runs import FailureCause, Phase, TaskRun, failure_cause
from contimg.runtime.errors import Exit, meaning_of
from contimg_runs.state import OPEN, RunState, Status, TaskState, Try

Node = Mapping[str, Any]
"""A node of a workflow's status: a pod, or what holds other nodes."""
STATUSES = {
    "": Status.PENDING,
    "Pending": Status.PENDING,
    "Running": Status.RUNNING,
    "Succeeded": Status.DONE,
    "Failed": Status.FAILED,
    "Error": Status.FAILED,
    "Skipped": Status.SKIPPED,
    "Omitted": Status.SKIPPED,
}
"""Our status by Argo's phase."""
ENDED = {"Succeeded", "Failed", "Error"}
"""Argo's phases of a workflow that has ended."""
PHASES = {
    Status.DONE: Phase.SUCCEEDED,
    Status.CACHED: Phase.SUCCEEDED,
    Status.FAILED: Phase.FAILED,
    Status.STOPPED: Phase.STOPPED,
}
"""Phase in the records by the status of a task that ran to an end."""
MAIN = "main"
"""The one task of a workflow that is not a DAG."""
TASK_TYPES = {"Pod", "Retry", "Skipped"}
"""Types of nodes that are tasks; the others hold tasks."""
TEMPLATE_LABEL = "workflows.argoproj.io/workflow-template"
MAX_REASON_LENGTH = 500
MAX_POD_PREFIX_LENGTH = 253 - 10
"""Argo cuts a pod's name to this length before it adds the hash."""
_EXIT_CODE = re.compile(r"\(exit code (-?\d+)\)(?:: )?")
_STOPPED = re.compile(r"(?:shutdown|stopped) with strategy", re.IGNORECASE)
_TRY_NUMBER = re.compile(r"\(\d+\)$")
_DOT_OUTSIDE_PARENTHESES = re.compile(r"\.(?![^()]*\))")


@dataclass(frozen=True, kw_only=True)
class RunVerdict:
    """What the end of a workflow means; fields as in `Outcome`."""

    phase: Phase
    blame: FailureCause = FailureCause.NONE
    exit: int | None = None
    reason: str = ""


def read_nodes(workflow: Node) -> dict[str, Node]:
    """Return the nodes of a workflow by id; Argo compresses them when there are many."""
    status = workflow.get("status") or {}
    nodes, packed = status.get("nodes"), status.get("compressedNodes")
    if packed:
        nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
    return nodes or {}


def read_run_state(workflow: Node) -> RunState:
    """Return the state of a workflow and its tasks; ValueError or KeyError without time or name."""
    meta, spec, status = (workflow.get(part) or {} for part in ("metadata", "spec", "status"))
    name, nodes = meta["name"], read_nodes(workflow)
    state = STATUSES.get(status.get("phase") or "", Status.RUNNING)
    if state is Status.FAILED and spec.get("shutdown"):
        state = Status.STOPPED
    # The tries of a Retry are pods, or DAGs, whose tasks have nodes of their own.
    tries: dict[str, list[Node]] = {}
    for key, node in nodes.items():
        if node["type"] == "Retry":
            own = [nodes[child] for child in node.get("children") or () if child in nodes]
            own = [child for child in own if child["name"].startswith(f"{node['name']}(")]
            tries[key] = sorted(own, key=lambda child: child.get("startedAt") or "~")
    within = {one["id"] for found in tries.values() for one in found}
    tasks = [
        node
        for key, node in nodes.items()
        if node["type"] in TASK_TYPES
        and key not in within
        and all(one["type"] in TASK_TYPES for one in tries.get(key, ()))
    ]
    tasks.sort(key=lambda node: (node.get("startedAt") or "~", node["name"]))
    begun = {
        _task_name(name, node): _task_state(name, node, tries.get(node["id"], [node]))
        for node in tasks
    }
    arguments = (spec.get("arguments") or {}).get("parameters") or ()
    return RunState(
        name=name,
        pipeline=(spec.get("workflowTemplateRef") or {}).get("name") or "",
        arguments={one["name"]: one.get("value") or "" for one in arguments},
        started=status.get("startedAt") or meta["creationTimestamp"],
        ended=status.get("finishedAt") or None,
        status=state,
        reason=_describe_failure(status.get("message")),
        tasks={**begun, **(_tasks_to_come(workflow, nodes) if state in OPEN else {})},
    )


def read_task_runs(workflow: Node) -> tuple[TaskRun, ...]:
    """Return a workflow's tasks that have ended, by their start, without the exit handler's."""
    state = read_run_state(workflow)
    return tuple(
        TaskRun(
            task=state.name if name == MAIN else name,
            # A stage that is a workflow by itself has a template that only says "main".
            stage=(pipeline_of(workflow) if task.stage == MAIN else "") or task.stage,
            phase=PHASES[task.status],
            tries=len(task.tries),
            exit=task.tries[-1].exit,
            reason=task.reason.removeprefix(f"exit code {task.tries[-1].exit}: "),
            started=task.tries[0].started,
            ended=task.tries[-1].ended,
            cached=task.status is Status.CACHED,
            artifact=task.outputs.get("artifact", ""),
        )
        for name, task in state.tasks.items()
        if task.tries and task.status in PHASES and not name.startswith("onExit")
    )


def _task_name(workflow: str, node: Node) -> str:
    """Return a task's name as the local engine has it: the DAGs around it, then its own."""
    parts = _DOT_OUTSIDE_PARENTHESES.split(node["name"].removeprefix(workflow))
    names = [_TRY_NUMBER.sub("", part) for part in parts]
    return "-".join(name for name in names if name) or MAIN


def _task_state(workflow: str, node: Node, attempts: list[Node]) -> TaskState:
    pods = [one for one in attempts if one["type"] == "Pod"]
    last = pods[-1] if pods else node
    status = STATUSES.get(node.get("phase") or "", Status.RUNNING)
    if node["type"] == "Retry" and status is Status.RUNNING:
        status = STATUSES.get(last.get("phase") or "", Status.RUNNING)
        if status not in OPEN:
            status = Status.WAITING if status is Status.FAILED else Status.RUNNING
    if _STOPPED.search(f"{node.get('message')} {last.get('message')}") and status is Status.FAILED:
        status = Status.STOPPED
    outputs = {
        one["name"]: str(one["value"])
        for part in (node, last)
        for one in (part.get("outputs") or {}).get("parameters") or ()
        if one.get("value") is not None
    }
    if status is Status.DONE and outputs.get("cached") == "true":
        status = Status.CACHED
    made_s, message = outputs.get("seconds", ""), last.get("message") or node.get("message")
    reference = (last.get("templateRef") or {}).get("name", "").removeprefix("contimg-")
    tries = []
    for pod in (one for one in pods if one.get("startedAt")):
        code = (pod.get("outputs") or {}).get("exitCode")
        failed = STATUSES.get(pod.get("phase") or "") is Status.FAILED
        tries.append(
            Try(
                started=pod["startedAt"],
                ended=pod.get("finishedAt") or None,
                exit=int(code) if code else read_message(pod.get("message"))[0],
                reason=_describe_failure(pod.get("message")) if failed else "",
                log=pod_name(workflow, pod),
            )
        )
    return TaskState(
        stage=reference or last.get("templateName") or last.get("displayName") or "?",
        status=status,
        tries=tries,
        outputs=outputs,
        progress=last.get("progress") or "",
        made_s=float(made_s) if re.fullmatch(r"[\d.]+(e-?\d+)?", made_s) else None,
        reason="" if PHASES.get(status) is Phase.SUCCEEDED else _describe_failure(message),
    )


def _tasks_to_come(workflow: Node, nodes: Mapping[str, Node]) -> dict[str, TaskState]:
    """Return the tasks of running DAGs that have no node yet, from the stored templates."""
    status, name = workflow.get("status") or {}, workflow["metadata"]["name"]
    own = (status.get("storedWorkflowTemplateSpec") or {}).get("templates") or ()
    templates = {**(status.get("storedTemplates") or {}), **{one["name"]: one for one in own}}
    begun = {_TRY_NUMBER.sub("", node["name"]) for node in nodes.values()}
    found: dict[str, TaskState] = {}
    for node in (one for one in nodes.values() if one["type"] == "DAG"):
        ref, around = node.get("templateRef"), _task_name(name, node)
        key = f"namespaced/{ref['name']}/{ref['template']}" if ref else node.get("templateName")
        for task in ((templates.get(key) or {}).get("dag") or {}).get("tasks") or ():
            fans_out = any(task.get(key) for key in ("withParam", "withItems", "withSequence"))
            if f"{node['name']}.{task['name']}" not in begun and not fans_out:
                found[task["name"] if around == MAIN else f"{around}-{task['name']}"] = TaskState()
    return found


def pod_name(workflow: str, node: Node) -> str:
    """Return the name of a node's pod: workflow, template, and the hash in the node's id."""
    reference = node.get("templateRef")
    template = (reference["template"] if reference else node.get("templateName")) or ""
    if node["name"] == workflow or not template:
        return str(node["id"])
    prefix = f"{workflow}-{template}"[:MAX_POD_PREFIX_LENGTH]
    return f"{prefix}-{node['id'].rpartition('-')[2]}"


def pipeline_of(workflow: Node) -> str:
    """Return the name of the pipeline that a workflow was made from; empty if it does not say."""
    label = (workflow["metadata"].get("labels") or {}).get(TEMPLATE_LABEL)
    reference = (workflow.get("spec") or {}).get("workflowTemplateRef") or {}
    return str(reference.get("name") or label or "").removeprefix("contimg-")


def read_message(message: str | None) -> tuple[int | None, str]:
    """Split Argo's message about a pod into exit code and reason.

    Of ``Error (exit code 12): BAD_FILE: why`` the reason is ``why``; it is one line, perhaps empty.
    """
    text = message or ""
    match = _EXIT_CODE.search(text)
    code = int(match[1]) if match else None
    reason = " ".join((text[match.end() :] if match else text).split())
    name = f"{Exit(code).name}: " if code in list(Exit) else ""
    return code, reason.removeprefix(name)[:MAX_REASON_LENGTH]


def _describe_failure(message: str | None) -> str:
    """Return the reason in a message of Argo's; of a bare exit code its meaning."""
    code, reason = read_message(message)
    return reason if reason or code is None else f"exit code {code}: {meaning_of(code)}"


def judge_run(
    status: str, tasks: Iterable[TaskRun], message: str = "", *, stopped: bool = False
) -> RunVerdict:
    """Say what the end of a workflow means. Bad data count before bugs, bugs before infrastructure.

    `status` and `message` are the workflow's in Argo; `stopped` says that a person stopped it.
    """
    if status == "Succeeded":
        return RunVerdict(phase=Phase.SUCCEEDED)
    line = " ".join(message.split())[:MAX_REASON_LENGTH]
    if stopped or _STOPPED.search(message):
        return RunVerdict(phase=Phase.STOPPED, reason=line or "stopped by a person")
    order = (FailureCause.DATA, FailureCause.BUG, FailureCause.INFRASTRUCTURE)
    failed = [task for task in tasks if task.phase is Phase.FAILED and task.exit != 0]
    if failed:
        first = min(failed, key=lambda task: order.index(failure_cause(task.exit)))
        reason = f"{first.task}: {first.reason or 'ended without giving a reason'}"
        cause = failure_cause(first.exit)
        return RunVerdict(phase=Phase.FAILED, blame=cause, exit=first.exit, reason=reason)
    reason = line or f"the workflow ended as {status}"
    return RunVerdict(phase=Phase.FAILED, blame=FailureCause.INFRASTRUCTURE, reason=reason)


def read_failures(text: str) -> tuple[TaskRun, ...]:
    """Read ``{{workflow.failures}}``, JSON within a JSON string; unreadable text holds no task.

    Of each task the last try remains. DAGs and retries only repeat what their pods say and have no
    exit code: they are left out where something has one.
    """
    try:
        value = json.loads(text) if text.strip() else []
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return ()
    items = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    last: dict[str, TaskRun] = {}
    for item in sorted(items, key=lambda item: str(item.get("finishedAt"))):
        message = str(item.get("message") or "")
        code, reason = read_message(message)
        name = _TRY_NUMBER.sub("", str(item.get("displayName") or "?"))
        if code is not None or name not in last or last[name].exit is None:
            last[name] = TaskRun(
                task=name,
                stage=str(item.get("templateName") or name),
                phase=Phase.STOPPED if _STOPPED.search(message) else Phase.FAILED,
                tries=1,
                exit=code,
                reason=reason if reason or code is None else meaning_of(code),
                ended=item.get("finishedAt") or None,
            )
    return tuple([run for run in last.values() if run.exit is not None] or last.values())
