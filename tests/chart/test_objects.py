"""Every object that helm renders is one that the cluster takes: core objects by Kubernetes' own
schemas, Argo's by closed models."""

from __future__ import annotations

from collections import Counter
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hera.events.models import EventSource, Sensor
from hera.workflows.models import CronWorkflow, Workflow, WorkflowTemplate
from pydantic import BaseModel

from charted import CHART, KUBERNETES, VALUES, Document, helm, of_kind, one, pods, render
from contimg_workflows.lint import lint
from contimg_workflows.lint.schema import unknown_fields

pytestmark = pytest.mark.helm
SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))
WORKFLOWS: dict[str, type[BaseModel]] = {
    "WorkflowTemplate": WorkflowTemplate,
    "CronWorkflow": CronWorkflow,
}
EVENTS: dict[str, type[BaseModel]] = {"EventSource": EventSource, "Sensor": Sensor}
WEBHOOK = {"port", "endpoint", "method"}
"""Hera's model lacks the fields that a webhook has in common with others; and apiVersion and kind,
and a Sensor's free resource."""
EVENT_BUS = {
    "jetstreamExotic": {"url", "accessSecret", "streamConfig", "tls"},
    "jetstream": {
        "version",
        "replicas",
        "containerTemplate",
        "reloaderContainerTemplate",
        "metricsContainerTemplate",
        "persistence",
        "metadata",
        "nodeSelector",
        "tolerations",
        "securityContext",
        "imagePullSecrets",
        "priorityClassName",
        "priority",
        "affinity",
        "serviceAccountName",
        "settings",
        "startArgs",
        "streamConfig",
        "maxPayload",
    },
}
"""Fields of Argo Events 1.9, for which Hera has no model."""
MONITORING = {
    "ServiceMonitor": {"selector", "endpoints"},
    "PodMonitor": {"selector", "podMetricsEndpoints"},
    "PrometheusRule": {"groups"},
}
SECURED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.mark.parametrize("name", SETS)
class TestEverySetOfValues:
    def test_helm_lint_is_content(self, name: str) -> None:
        said = helm(
            "lint",
            "--strict",
            str(CHART),
            "-f",
            str(VALUES / f"{name}.yaml"),
            f"--kube-version={KUBERNETES}.0",
        )
        assert "0 chart(s) failed" in said
        assert "[WARNING]" not in said

    def test_core_objects_are_kubernetes_own(self, name: str) -> None:
        checked = 0
        for document in render(name):
            if (
                "argoproj.io" not in document["apiVersion"]
                and "monitoring" not in document["apiVersion"]
            ):
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
                checked += 1
        assert checked >= 2

    def test_argo_objects_have_no_unknown_field(self, name: str) -> None:
        documents = render(name)
        for kind, model in WORKFLOWS.items():
            for document in of_kind(documents, kind).values():
                assert list(unknown_fields(document, model)) == [], document["metadata"]["name"]
                model.model_validate(document)
        for kind, model in EVENTS.items():
            for document in of_kind(documents, kind).values():
                assert {
                    problem for problem in unknown_fields(document, model) if not known_gap(problem)
                } == set()

    def test_every_reference_of_the_templates_leads_somewhere(self, name: str) -> None:
        assert lint(render(name), complete=name != "bare") == []

    def test_nothing_else_is_made(self, name: str) -> None:
        for document in render(name):
            if document["kind"] == "EventBus":
                ((kind, spec),) = document["spec"].items()
                assert set(spec) <= EVENT_BUS[kind]
            elif "monitoring.coreos.com" in document["apiVersion"]:
                assert set(document["spec"]) == MONITORING[document["kind"]]
            else:
                assert "argoproj" not in document["apiVersion"] or document["kind"] in {
                    *WORKFLOWS,
                    *EVENTS,
                }

    def test_each_object_is_there_once_and_in_the_release_s_namespace(self, name: str) -> None:
        documents = render(name)
        times = Counter((document["kind"], document["metadata"]["name"]) for document in documents)
        assert set(times.values()) == {1}
        assert {document["metadata"].get("namespace", "night") for document in documents} == {
            "night"
        }

    def test_every_pod_is_restricted(self, name: str) -> None:
        seen = 0
        for where, pod in pods(render(name)):
            seen += 1
            assert restricted(pod) == [], where
            for container in [*pod["containers"], *pod.get("initContainers", [])]:
                bounds = container["resources"]
                for part in ("requests", "limits"):
                    assert {"memory", "ephemeral-storage"} <= set(bounds[part]), where
                assert "cpu" in bounds["requests"], where
        assert seen >= 10

    def test_all_objects_say_whose_they_are(self, name: str) -> None:
        for document in render(name):
            labels = document["metadata"]["labels"]
            assert labels["app.kubernetes.io/name"] == "contimg"
            assert labels["app.kubernetes.io/instance"] == "contimg"
            assert labels["app.kubernetes.io/managed-by"] == "Helm"
            assert labels["app.kubernetes.io/component"]
            assert labels["helm.sh/chart"].startswith("contimg-")


def known_gap(problem: str) -> bool:
    """Say whether a problem is a gap of Hera's models of Argo Events."""
    path, _, field = problem.partition(": unknown field ")
    top = path == "." and field in {"apiVersion", "kind"}
    return (
        top
        or (path == ".spec.webhook.group" and field in WEBHOOK)
        or path.endswith(".k8s.source.resource")
    )


def restricted(pod: Document) -> list[str]:
    """Return what Pod Security "restricted" would refuse, and a root that can be written."""
    wrong = []
    whole = pod.get("securityContext", {})
    if (
        not whole.get("runAsNonRoot")
        or whole.get("seccompProfile") != {"type": "RuntimeDefault"}
        or whole.get("runAsUser") != 10001
    ):
        wrong.append(f"pod: {whole}")
    wrong += [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    wrong += [
        f"volume {one}"
        for one in pod.get("volumes", [])
        if set(one) - {"name", "emptyDir", "secret", "configMap"}
    ]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container.get("securityContext", {})
        wrong += [
            f"{key}: {context.get(key)}"
            for key, value in SECURED.items()
            if context.get(key) != value
        ]
        wrong += [key for key in ("privileged", "runAsUser", "procMount") if key in context]
    return wrong


def test_restricted_is_a_test_that_can_fail() -> None:
    good = dict(pods(render()))["Deployment contimg-watch"]
    assert restricted(good) == []
    container = good["containers"][0]
    for bad in (
        {"privileged": True},
        {"capabilities": {"drop": []}},
        {"readOnlyRootFilesystem": False},
    ):
        assert restricted(
            {
                **good,
                "containers": [
                    {**container, "securityContext": {**container["securityContext"], **bad}}
                ],
            }
        )
    assert restricted({**good, "volumes": [{"name": "host", "hostPath": {"path": "/"}}]})
    assert restricted({**good, "hostNetwork": True})


def test_what_a_sensor_creates_is_a_workflow() -> None:
    (sensor,) = of_kind(render(), "Sensor").values()
    workflow: dict[str, Any] = sensor["spec"]["triggers"][0]["template"]["k8s"]["source"][
        "resource"
    ]
    assert list(unknown_fields(workflow, Workflow)) == []
    Workflow.model_validate(workflow)


def test_a_misspelt_field_of_a_sensor_is_found() -> None:
    (sensor,) = of_kind(render(), "Sensor").values()
    spoilt = {
        **sensor,
        "spec": {
            **sensor["spec"],
            "triggers": [{**sensor["spec"]["triggers"][0], "atLeastOne": True}],
        },
    }
    assert [problem for problem in unknown_fields(spoilt, Sensor) if not known_gap(problem)] == [
        ".spec.triggers[0]: unknown field atLeastOne"
    ]


def test_strict_validation_refuses_a_misspelt_field() -> None:
    deployment = one(render(), "Deployment", "contimg-watch")
    spoilt = yaml.safe_load(yaml.safe_dump(deployment))
    spoilt["spec"]["template"]["spec"]["serviceAcountName"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoilt, KUBERNETES, strict=True)


def test_a_bare_release_is_templates_and_configuration() -> None:
    kinds = Counter(document["kind"] for document in render("bare"))
    assert set(kinds) == {"WorkflowTemplate", "ConfigMap"}
    assert kinds["ConfigMap"] == 4


def test_everything_is_everything() -> None:
    kinds = {document["kind"] for document in render("everything")}
    assert kinds >= {
        "EventBus",
        "EventSource",
        "Sensor",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ConfigMap",
        "ServiceMonitor",
        "PodMonitor",
        "PrometheusRule",
        "Job",
        "Pod",
        "WorkflowTemplate",
    }
