"""Argo's REST API, as its UI uses it, and the nodes of a finished workflow."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.kube import environment

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
        body = {"resourceKind": kind, "resourceName": template, "submitOptions": options}
        status, said = self.ask("POST", f"workflows/{self.namespace}/submit", body)
        assert status == 200, said
        return str(said["metadata"]["name"])


def nodes(workflow: Workflow, kind: str = "") -> list[dict[str, Any]]:
    """Return a workflow's nodes of a type, all by default, in order of their start."""
    found = workflow.get("status", {}).get("nodes", {}).values()
    ours = [node for node in found if kind in {"", node["type"]}]
    return sorted(ours, key=lambda node: str(node["startedAt"]))


def tries(workflow: Workflow, stage: str) -> list[dict[str, Any]]:
    """Return the pods of a stage in order of their start."""
    return [node for node in nodes(workflow, "Pod") if f".{stage}" in node["name"]]


def phase(workflow: Workflow | None) -> str:
    """Return a workflow's phase; empty if it has none yet."""
    return str((workflow or {}).get("status", {}).get("phase", ""))


def messages(workflow: Workflow) -> str:
    """Return everything that the UI shows as a reason."""
    found = [one.get("message", "") for one in (workflow["status"], *nodes(workflow))]
    return "\n".join(dict.fromkeys(filter(None, found)))
