"""The chart as helm renders it; and hooks: without helm one loud line says how many of its tests
did not run."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.terminal import TerminalReporter

MARK = "helm"
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
        found = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
        ).stdout.strip()
    return found or None


def helm(*words: str) -> str:
    """Run helm; its words if it refuses are the exception."""
    argv = [program() or "helm", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


def render(
    name: str = "minimal", *words: str, namespace: str = "night", **changes: Any
) -> list[Document]:
    """Return all objects of the chart with a set of values and changes to it (keys with dots are
    paths)."""
    given = [f"--set-json={path}={json.dumps(value)}" for path, value in changes.items()]
    return list(_render(name, (*words, *given), namespace))


@functools.cache
def _render(name: str, words: tuple[str, ...], namespace: str) -> tuple[Document, ...]:
    file = str(VALUES / f"{name}.yaml")
    text = helm(
        "template",
        "contimg",
        str(CHART),
        "-n",
        namespace,
        f"--kube-version={KUBERNETES}.0",
        "-f",
        file,
        *words,
    )
    return tuple(document for document in yaml.safe_load_all(text) if document)


def refusal(values: Document) -> str:
    """Return what helm says to values that it must refuse."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        with pytest.raises(HelmError) as refused:
            helm(
                "template",
                "contimg",
                str(CHART),
                f"--kube-version={KUBERNETES}.0",
                "-f",
                str(VALUES / "minimal.yaml"),
                "-f",
                file.name,
            )
    return str(refused.value)


def one(documents: list[Document], kind: str, name: str) -> Document:
    """Return the object of a kind and name."""
    (found,) = (
        document
        for document in documents
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    )
    return found


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    """Return all objects of a kind by name."""
    return {
        document["metadata"]["name"]: document for document in documents if document["kind"] == kind
    }


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
            for template in spec["templates"]:
                if "container" in template:
                    pod = {
                        key: template[key]
                        for key in ("volumes", "securityContext", "serviceAccountName")
                        if key in template
                    }
                    yield (
                        f"{where} {template['name']}",
                        {**pod, "containers": [template["container"]]},
                    )
        elif kind in {"EventSource", "Sensor"}:
            template = spec["template"]
            yield where, {**template, "containers": [template["container"]]}


def pytest_runtest_setup(item: pytest.Item) -> None:
    # From one place, so that pytest counts them in one line.
    if item.get_closest_marker(MARK) and program() is None:
        pytest.skip("there is no helm")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(
        1 for report in skipped if MARK in report.keywords and "no helm" in str(report.longrepr)
    )
    if count:
        terminalreporter.write_line(
            f"CHART NOT PROVEN: {count} tests did not run (there is no helm)", red=True, bold=True
        )
