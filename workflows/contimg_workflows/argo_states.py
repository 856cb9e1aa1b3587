"""The status of an Argo workflow as a RunState, so that both engines are shown alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from contimg.runtime.errors import Exit, meaning_of
from contimg_workflows.state import OPEN, RunState, Status, TaskState, Try

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from hera.workflows.models import NodeStatus, Template, Workflow

PHASES = {
    "": Status.PENDING,
    "Pending": Status.PENDING,
    "Running": Status.RUNNING,
    "Succeeded": Status.DONE,
    "Failed": Status.FAILED,
    "Error": Status.FAILED,
    "Skipped": Status.SKIPPED,
    "Omitted": Status.SKIPPED,
}
ON_EXIT = "onExit"
MAIN = "main"
"""The one task of a workflow that is no DAG."""
TRY = re.compile(r"\(\d+\)$")
LEAVES = {"Pod", "Retry", "Skipped"}
"""Types of nodes that are tasks; the others hold tasks."""
EXIT = re.compile(
    r"(?:[-\w]+: )?(?:\w+ )?\(exit code (?P<code>\d+)\)(?:: (?P<words>.*))?", re.DOTALL
)
"""How Argo tells of a container that failed: the words are what the stage left as its last."""


def run_state(workflow: Workflow) -> RunState:
    """Return what a workflow has come to.

    Raises
    ------
    ValueError
        If the server left out its name or its times.
    """
    status, spec, about = workflow.status, workflow.spec, workflow.metadata
    nodes = (status.nodes if status else None) or {}
    phase = PHASES.get((status.phase if status else None) or "", Status.RUNNING)
    if phase is Status.FAILED and spec.shutdown:
        phase = Status.STOPPED
    created = about.creation_timestamp
    started = (status.started_at if status else None) or created
    if about.name is None or started is None:
        raise ValueError("a workflow without name or time")
    arguments = spec.arguments.parameters if spec.arguments else None
    return RunState(
        name=about.name,
        pipeline=(spec.workflow_template_ref.name if spec.workflow_template_ref else None) or "",
        arguments={one.name: one.value or "" for one in arguments or ()},
        started=started.root,
        ended=status.finished_at.root if status and status.finished_at else None,
        status=phase,
        reason=_words(status.message if status else None),
        tasks={**_tasks(about.name, nodes), **(_awaited(workflow, nodes) if phase in OPEN else {})},
    )


def _tasks(workflow: str, nodes: Mapping[str, NodeStatus]) -> dict[str, TaskState]:
    """Return the tasks in the order in which they began."""
    tries = {
        child for node in nodes.values() if node.type == "Retry" for child in node.children or ()
    }
    leaves = [
        node
        for key, node in nodes.items()
        if node.type in LEAVES and key not in tries and not _holds(node, nodes)
    ]
    leaves.sort(key=lambda node: (_began(node), node.name))
    return {_name(node, nodes): _task(workflow, node, nodes) for node in leaves}


def _awaited(workflow: Workflow, nodes: Mapping[str, NodeStatus]) -> dict[str, TaskState]:
    """Return the tasks of the DAGs at work that have no node yet."""
    begun = {TRY.sub("", node.name) for node in nodes.values()}
    found: dict[str, TaskState] = {}
    for node in nodes.values():
        template = _template(workflow, node) if node.type == "DAG" else None
        for task in (template.dag.tasks if template and template.dag else None) or ():
            fans_out = task.with_param or task.with_items or task.with_sequence
            if f"{node.name}.{task.name}" not in begun and not fans_out:
                around = _name(node, nodes)
                found[task.name if around == MAIN else f"{around}-{task.name}"] = TaskState()
    return found


def _template(workflow: Workflow, node: NodeStatus) -> Template | None:
    """Return the template of a node, as Argo keeps it with the workflow; None if left out."""
    status = workflow.status
    if status is None:
        return None
    reference, spec = node.template_ref, status.stored_workflow_template_spec
    if reference is not None:
        return (status.stored_templates or {}).get(
            f"namespaced/{reference.name}/{reference.template}"
        )
    own = (spec.templates if spec else None) or ()
    return next((one for one in own if one.name == node.template_name), None)


def _holds(node: NodeStatus, nodes: Mapping[str, NodeStatus]) -> bool:
    """Say whether a node's tries are DAGs, which hold tasks."""
    return any(
        nodes[child].type not in LEAVES
        for child in node.children or ()
        if node.type == "Retry" and child in nodes
    )


def _began(node: NodeStatus) -> float:
    return node.started_at.root.timestamp() if node.started_at else float("inf")


def _name(node: NodeStatus, nodes: Mapping[str, NodeStatus]) -> str:
    """Return a task's name as the local engine has it: those of its DAGs, then its own."""
    parts: list[str] = []
    around: NodeStatus | None = node
    while around is not None:
        parts.append(_own_name(around))
        around = nodes.get(around.boundary_id or "")
    return "-".join(part for part in reversed(parts) if part) or MAIN


def _own_name(node: NodeStatus) -> str:
    """Return a node's name without the number of its try; nothing for the workflow's own node."""
    name = TRY.sub("", node.name)
    if "." not in name:
        return ""
    return ON_EXIT if name.endswith(f".{ON_EXIT}") else TRY.sub("", node.display_name or name)


def _task(workflow: str, node: NodeStatus, nodes: Mapping[str, NodeStatus]) -> TaskState:
    children = (
        [nodes[child] for child in node.children or () if child in nodes]
        if node.type == "Retry"
        else [node]
    )
    pods = sorted((child for child in children if child.type == "Pod"), key=_began)
    last = pods[-1] if pods else node
    status = PHASES.get(node.phase or "", Status.RUNNING)
    if node.type == "Retry" and status is Status.RUNNING:
        ended = PHASES.get(last.phase or "", Status.RUNNING)
        status = (
            Status.WAITING if ended is Status.FAILED else ended if ended in OPEN else Status.RUNNING
        )
    outputs = _outputs(last)
    if status is Status.DONE and outputs.get("cached") == "true":
        status = Status.CACHED
    return TaskState(
        status=status,
        tries=[_try(workflow, pod) for pod in pods if pod.started_at],
        outputs=outputs,
        progress=last.progress or "",
        made_s=_seconds(outputs.get("seconds")),
        reason=""
        if status in {Status.DONE, Status.CACHED}
        else _words(last.message or node.message),
    )


def _try(workflow: str, pod: NodeStatus) -> Try:
    ended = pod.finished_at.root if pod.finished_at else None
    failed = PHASES.get(pod.phase or "") is Status.FAILED
    return Try(
        started=_time(pod),
        ended=ended,
        exit=_exit(pod),
        reason=_words(pod.message) if failed else "",
        log=pod_name(workflow, pod),
    )


def _time(pod: NodeStatus) -> datetime:
    if pod.started_at is None:
        raise ValueError(pod.name)
    return pod.started_at.root


def _exit(pod: NodeStatus) -> int | None:
    code = pod.outputs.exit_code if pod.outputs else None
    match = EXIT.fullmatch(pod.message or "")
    return int(code) if code else int(match["code"]) if match else None


def _outputs(node: NodeStatus) -> dict[str, str]:
    parameters = (node.outputs.parameters if node.outputs else None) or ()
    return {one.name: one.value for one in parameters if one.value is not None}


def _words(message: str | None) -> str:
    """Return a reason as the stage gave it, without Argo's; of an exit code its meaning."""
    match = EXIT.fullmatch(message or "")
    if match is None:
        return message or ""
    code, words = int(match["code"]), (match["words"] or "").strip()
    name, colon, reason = words.partition(": ")
    return (
        reason if colon and name in Exit.__members__ else words
    ) or f"exit code {code}: {meaning_of(code)}"


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


# Pods

LONGEST = 253 - 10
"""Letters of a pod's name before its hash, as Argo cuts it."""


def pod_name(workflow: str, node: NodeStatus) -> str:
    """Return the name of a node's pod: workflow, template and the hash that ends the node's id."""
    template = (node.template_ref.template if node.template_ref else node.template_name) or ""
    if node.name == workflow or not template:
        return node.id
    return f"{f'{workflow}-{template}'[:LONGEST]}-{node.id.rpartition('-')[2]}"


def node_of(workflow: Workflow, pod: str) -> NodeStatus | None:
    """Return the node of a pod."""
    name = workflow.metadata.name or ""
    nodes = (workflow.status.nodes if workflow.status else None) or {}
    return next(
        (node for node in nodes.values() if node.type == "Pod" and pod_name(name, node) == pod),
        None,
    )


def archived_log(node: NodeStatus) -> bool:
    """Say whether Argo has put a node's log away."""
    artifacts = (node.outputs.artifacts if node.outputs else None) or ()
    return any(one.name == "main-logs" for one in artifacts)
