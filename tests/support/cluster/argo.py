"""Argo's REST API, as the UI uses it, and what a finished workflow's nodes tell."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cluster.kube import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

Workflow = dict[str, Any]
FINISHED = frozenset({"Succeeded", "Failed", "Error"})


@dataclass(frozen=True)
class Argo:
    """The Argo Server, for one namespace."""

    namespace: str

    @property
    def url(self) -> str:
        """The server's address."""
        return environment()["CONTIMG_ARGO_SERVER"].rstrip("/")

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send a request; return status and answer, also of a refusal."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/api/v1/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else {"message": text}

    def submit(
        self, template: str, parameters: Mapping[str, str], *, kind: str = "WorkflowTemplate"
    ) -> str:
        """Submit a template with parameters, as the UI does; return the workflow's name."""
        options = {"parameters": [f"{name}={value}" for name, value in parameters.items()]}
        body = {
            "namespace": self.namespace,
            "resourceKind": kind,
            "resourceName": template,
            "submitOptions": options,
        }
        status, said = self.ask("POST", f"workflows/{self.namespace}/submit", body)
        assert status == 200, said
        return str(said["metadata"]["name"])


def when(stamp: str) -> datetime:
    """Read a time as Kubernetes writes it."""
    return datetime.fromisoformat(stamp)


def seconds(node: Mapping[str, Any]) -> float:
    """Return how long a finished node or workflow took, s."""
    return (when(node["finishedAt"]) - when(node["startedAt"])).total_seconds()


def nodes(workflow: Workflow, kind: str = "") -> list[dict[str, Any]]:
    """Return a workflow's nodes of a type, all by default, as they began."""
    found = [
        node
        for node in workflow.get("status", {}).get("nodes", {}).values()
        if kind in {"", node["type"]}
    ]
    return sorted(found, key=lambda node: str(node["startedAt"]))


def tries(workflow: Workflow, stage: str) -> list[dict[str, Any]]:
    """Return the pods of a stage, as they began."""
    return [node for node in nodes(workflow, "Pod") if f".{stage}" in node["name"]]


def phase(workflow: Workflow | None) -> str:
    """Return a workflow's phase; empty if it has none yet."""
    return str((workflow or {}).get("status", {}).get("phase", ""))


def messages(workflow: Workflow) -> str:
    """Return everything that the UI shows as a reason."""
    said = [
        workflow["status"].get("message", ""),
        *(node.get("message", "") for node in nodes(workflow)),
    ]
    return "\n".join(dict.fromkeys(text for text in said if text))


def exit_codes(workflow: Workflow) -> list[str]:
    """Return the exit code of every pod in the order in which they began."""
    return [str(pod.get("outputs", {}).get("exitCode", "")) for pod in nodes(workflow, "Pod")]
