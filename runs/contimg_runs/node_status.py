"""What an Argo workflow's status says of its tasks, and what its end means: pure functions of its JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from contimg.records.runs import Blame, Phase, TaskRun, blame_of
from contimg.runtime.errors import Exit, meaning_of
from contimg_runs.cluster import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ENDS = {"Succeeded": Phase.SUCCEEDED, "Failed": Phase.FAILED, "Error": Phase.FAILED}
"""Argo's phases of a node that ran; one that was skipped, omitted or never began is no run."""
TEMPLATE = "workflows.argoproj.io/workflow-template"
_EXIT = re.compile(r"\(exit code (-?\d+)\)(?:: )?")
_STOPPED = re.compile(r"(?:shutdown|stopped) with strategy", re.IGNORECASE)
_TRY = re.compile(r"\(\d+\)(?=\.)")
MOST = 500
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Verdict:
    """What the end of a workflow means."""

    phase: Phase
    blame: Blame = Blame.NOTHING
    exit: int | None = None
    reason: str = ""


def tasks_of(workflow: Mapping[str, Any]) -> tuple[TaskRun, ...]:
    """Return the tasks of a workflow that ran, each with all its tries, by the time they began; not the exit handler's."""
    nodes = nodes_of(workflow)
    name = workflow["metadata"]["name"]
    ours = {
        key: node for key, node in nodes.items() if not node["name"].startswith(f"{name}.onExit")
    }
    groups = [(node, _tries(node, ours)) for node in ours.values() if node["type"] == "Retry"]
    within = {pod["id"] for _, pods in groups for pod in pods}
    groups += [
        (node, [node]) for key, node in ours.items() if node["type"] == "Pod" and key not in within
    ]
    runs = [_task(name, node, pods) for node, pods in groups if pods and node.get("phase") in ENDS]
    # A stage that is a workflow by itself has a template that only says "main".
    named = [
        run.model_copy(update={"stage": pipeline_of(workflow) or run.stage})
        if run.stage == "main"
        else run
        for run in runs
    ]
    return tuple(sorted(named, key=lambda run: (str(run.started), run.task)))


def _tries(retry: Mapping[str, Any], nodes: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    children = [nodes[key] for key in retry.get("children", []) if key in nodes]
    tries = [
        node
        for node in children
        if node["type"] == "Pod" and node["name"].startswith(f"{retry['name']}(")
    ]
    return sorted(tries, key=lambda node: str(node.get("startedAt")))


def _task(workflow: str, node: Mapping[str, Any], tries: Sequence[Mapping[str, Any]]) -> TaskRun:
    last = tries[-1]
    code, reason = understand(str(last.get("message") or node.get("message") or ""))
    given = last.get("outputs", {}).get("exitCode")
    phase = ENDS[node["phase"]]
    if phase is Phase.FAILED and _STOPPED.search(
        f"{node.get('message', '')} {last.get('message', '')}"
    ):
        phase = Phase.STOPPED
    return TaskRun(
        # A DAG that has a retryStrategy is a try itself: NAME(0).process(0).convert.
        task=_TRY.sub("", node["name"]).removeprefix(f"{workflow}.").replace(".", "-"),
        stage=_stage(last),
        phase=phase,
        tries=len(tries),
        exit=int(given) if given not in {None, ""} else code,
        reason="" if phase is Phase.SUCCEEDED else reason,
        started=_moment(tries[0].get("startedAt")),
        ended=_moment(last.get("finishedAt")),
        cached=(_output(last, "cached") or _output(node, "cached")) == "true",
        artifact=_output(last, "artifact") or _output(node, "artifact"),
    )


def _stage(node: Mapping[str, Any]) -> str:
    reference = node.get("templateRef", {}).get("name", "")
    return str(
        reference.removeprefix("contimg-")
        or node.get("templateName")
        or node.get("displayName")
        or "?"
    )


def _output(node: Mapping[str, Any], name: str) -> str:
    found = [
        one.get("value")
        for one in node.get("outputs", {}).get("parameters", [])
        if one.get("name") == name
    ]
    return str(found[0] or "") if found else ""


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def understand(message: str) -> tuple[int | None, str]:
    """Split Argo's message about a pod, such as ``Error (exit code 12): why``, into exit code and reason."""
    match = _EXIT.search(message)
    if match is None:
        return None, _line(message)
    code = int(match[1])
    name = Exit(code).name if code in list(Exit) else ""
    return code, _line(message[match.end() :].strip().removeprefix(f"{name}: ")) or meaning_of(code)


def _line(text: str) -> str:
    return " ".join(text.split())[:MOST]


def judge(
    status: str, tasks: Iterable[TaskRun], message: str = "", *, stopped: bool = False
) -> Verdict:
    """Say what the end of a workflow means: data that cannot be used weigh more than a bug, and that more than the world.

    Parameters
    ----------
    status
        As Argo gives it: Succeeded, Failed or Error.
    tasks
        The tasks that ran.
    message
        The workflow's own.
    stopped
        Whether a person stopped it.
    """
    if status == "Succeeded":
        return Verdict(Phase.SUCCEEDED)
    if stopped or _STOPPED.search(message):
        return Verdict(Phase.STOPPED, reason=_line(message) or "stopped by a person")
    failed = [(blame_of(task.exit), task) for task in tasks if task.phase is Phase.FAILED]
    for blame in (Blame.DATA, Blame.BUG, Blame.WORLD):
        for found, task in failed:
            if found is blame:
                return Verdict(
                    Phase.FAILED,
                    blame,
                    task.exit,
                    f"{task.task}: {task.reason or 'ended without a word'}",
                )
    return Verdict(
        Phase.FAILED, Blame.WORLD, reason=_line(message) or f"the workflow ended as {status}"
    )


def judge_workflow(workflow: Mapping[str, Any], status: str, tasks: Iterable[TaskRun]) -> Verdict:
    """Say what the end of a workflow means, by its own JSON."""
    message = str(workflow.get("status", {}).get("message") or "")
    return judge(status, tasks, message, stopped=bool(workflow.get("spec", {}).get("shutdown")))


def pipeline_of(workflow: Mapping[str, Any]) -> str:
    """Return the name of the pipeline that a workflow was made from; empty if it does not say."""
    labels = workflow["metadata"].get("labels", {})
    reference = workflow.get("spec", {}).get("workflowTemplateRef", {}).get("name")
    return str(reference or labels.get(TEMPLATE) or "").removeprefix("contimg-")


def failures_of(text: str) -> tuple[TaskRun, ...]:
    """Read ``{{workflow.failures}}``, which Argo gives as JSON within a JSON string; what cannot be read holds nothing.

    Of each task the last try remains; DAGs and retries, which only repeat what their pods say, have no exit code and are left
    out where something has one.
    """
    last: dict[str, TaskRun] = {}
    for item in sorted(_items(text), key=lambda item: str(item.get("finishedAt"))):
        message, shown = str(item.get("message") or ""), str(item.get("displayName") or "?")
        code, reason = understand(message)
        name = re.sub(r"\(\d+\)$", "", shown)
        phase = Phase.STOPPED if _STOPPED.search(message) else Phase.FAILED
        stage = str(item.get("templateName") or name)
        run = TaskRun(
            task=name,
            stage=stage,
            phase=phase,
            tries=1,
            exit=code,
            reason=reason,
            ended=_moment(item.get("finishedAt")),
        )
        if code is not None or name not in last or last[name].exit is None:
            last[name] = run
    coded = [run for run in last.values() if run.exit is not None]
    return tuple(coded or last.values())


def _items(text: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(text) if text.strip() else []
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return []
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
