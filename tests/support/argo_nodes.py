"""Workflows as the Argo Server tells of them."""

from typing import Any

STARTED, ENDED = "2026-01-25T22:00:00Z", "2026-01-25T22:01:30Z"
OVER = {"Succeeded", "Failed", "Error", "Skipped", "Omitted"}


def fnv(text: str) -> int:
    """Return the 32-bit FNV-1a hash, which ends the ids of Argo's nodes."""
    value = 2166136261
    for byte in text.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def node(workflow: str, path: str, kind: str, phase: str, **more: Any) -> dict[str, Any]:
    """Make a node; its path lies below the workflow, such as process.convert(0)."""
    reference = {"name": "contimg-x", "template": "main"}
    made = {
        "id": f"{workflow}-{fnv(f'{workflow}.{path}')}" if path else workflow,
        "name": f"{workflow}.{path}" if path else workflow,
        "displayName": path.rpartition(".")[2] or workflow,
        "type": kind,
        "phase": phase,
        "startedAt": STARTED,
        "finishedAt": ENDED if phase in OVER else None,
        "templateRef": reference if kind in {"Pod", "Retry"} else None,
        **more,
    }
    return {key: value for key, value in made.items() if value is not None}


def tried(
    workflow: str, path: str, *phases: str, phase: str | None = None, **more: Any
) -> list[dict[str, Any]]:
    """Make a task that may be tried again: a Retry with a pod for each phase; what is more belongs
    to the last pod."""
    pods = []
    for n, one in enumerate(phases):
        own = more if n == len(phases) - 1 else {}
        pod = node(workflow, f"{path}({n})", "Pod", one, **own)
        pods.append({**pod, "startedAt": f"2026-01-25T22:0{n}:00Z"})
    children = [pod["id"] for pod in pods]
    return [node(workflow, path, "Retry", phase or phases[-1], children=children), *pods]


def workflow(
    name: str,
    phase: str,
    *nodes: dict[str, Any],
    uid: str = "u",
    template: str = "contimg-process-group",
    **more: Any,
) -> dict[str, Any]:
    """Make a workflow of nodes."""
    own = {"phase": phase, "startedAt": STARTED, "nodes": {one["id"]: one for one in nodes}}
    ended = {"finishedAt": "2026-01-25T22:05:00Z"} if phase in OVER else {}
    labels = {"workflows.argoproj.io/completed": "true"} if ended else {}
    ids = {"name": name, "namespace": "sky", "uid": uid, "labels": labels}
    arguments = {"parameters": [{"name": "group", "value": "20260125t220000"}]}
    return {
        "metadata": {**ids, "creationTimestamp": STARTED},
        "spec": {"workflowTemplateRef": {"name": template}, "arguments": arguments},
        "status": {**own, **more, **ended} if phase else {},
    }


def said(artifact: str, *, cached: str = "false", seconds: str = "12.5") -> dict[str, Any]:
    """Make what a stage hands over."""
    values = {"artifact": artifact, "cached": cached, "seconds": seconds}
    return {
        "exitCode": "0",
        "parameters": [{"name": name, "value": value} for name, value in values.items()],
        "artifacts": [{"name": "main-logs", "s3": {"key": "argo/x/main.log"}}],
    }
