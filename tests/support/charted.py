"""The chart as helm renders it."""

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "contimg"
VALUES = ROOT / "tests" / "chart" / "values"
KUBERNETES = "1.35"
KIT = ROOT.parent / "shared" / "cluster" / "env"
"""Tells where the cluster kit, if there is one, built helm."""

Document = dict[str, Any]


class HelmError(Exception):
    """What helm said when it refused."""


@functools.cache
def program() -> str | None:
    """Return the path of helm, from PATH or as the cluster kit built it."""
    found = shutil.which("helm")
    if found is None and KIT.is_file():
        script = f'eval "$({KIT})" && command -v helm'
        argv = ["bash", "-c", script]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        found = done.stdout.strip()
    return found or None


def missing() -> str:
    """Return why the chart cannot be tested; nothing if it can."""
    return "" if program() else "there is no helm"


def helm(*words: str) -> str:
    """Run helm; its words if it refuses are the exception."""
    argv = [program() or "helm", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


def helm_template(values: Path, *words: str) -> str:
    version = f"--kube-version={KUBERNETES}.0"
    return helm("template", "contimg", str(CHART), version, "-f", str(values), *words)


def render(
    name: str = "minimal", *words: str, namespace: str = "night", **changes: Any
) -> list[Document]:
    """Return all objects of the chart with a set of values and changes to it (keys with dots are
    paths)."""
    given = [f"--set-json={path}={json.dumps(value)}" for path, value in changes.items()]
    return list(_render(name, (*words, *given), namespace))


@functools.cache
def _render(name: str, words: tuple[str, ...], namespace: str) -> tuple[Document, ...]:
    text = helm_template(VALUES / f"{name}.yaml", "-n", namespace, *words)
    return tuple(document for document in yaml.safe_load_all(text) if document)


def refusal(values: Document) -> str:
    """Return what helm says to values that it must refuse."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        with pytest.raises(HelmError) as refused:
            helm_template(VALUES / "minimal.yaml", "-f", file.name)
    return str(refused.value)


def one(documents: list[Document], kind: str, name: str) -> Document:
    """Return the object of a kind and name."""
    return of_kind(documents, kind)[name]


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    """Return all objects of a kind by name."""
    chosen = [document for document in documents if document["kind"] == kind]
    found = {document["metadata"]["name"]: document for document in chosen}
    assert len(found) == len(chosen)
    return found


def parameters(document: Document) -> dict[str, Any]:
    """Return the values of the parameters of a workflow, by name."""
    spec = document["spec"].get("workflowSpec", document["spec"])
    return {
        one["name"]: one.get("value") for one in spec.get("arguments", {}).get("parameters", [])
    }


def env(container: Document) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yield where each pod of ours is described, and its spec: Deployments, Jobs, Pods and the
    containers of workflows."""
    for document in documents:
        kind, spec = document["kind"], document.get("spec", {})
        where = f"{kind} {document['metadata']['name']}"
        if kind == "Pod":
            yield where, spec
        elif kind in {"Deployment", "Job"}:
            yield where, spec["template"]["spec"]
        elif kind == "WorkflowTemplate":
            for template in (one for one in spec["templates"] if "container" in one):
                kept = ("volumes", "securityContext", "serviceAccountName")
                pod = {key: template[key] for key in kept if key in template}
                yield f"{where} {template['name']}", {**pod, "containers": [template["container"]]}
        elif kind in {"EventSource", "Sensor"}:
            yield where, {**spec["template"], "containers": [spec["template"]["container"]]}
