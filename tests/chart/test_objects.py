"""Every object that helm renders is one that the cluster takes: core objects by Kubernetes' own
schemas, Argo's by closed models."""

from collections import Counter
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
from hera.events.models import EventSource, Sensor
from hera.workflows.models import CronWorkflow, Workflow, WorkflowTemplate
from pydantic import BaseModel

from charted import CHART, KUBERNETES, VALUES, Document, helm, of_kind, one, pods, render
from contimg_workflows.lint import lint
from contimg_workflows.lint.schema import unknown_fields

pytestmark = pytest.mark.helm
SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))
WORKFLOWS: dict[str, type[BaseModel]] = {
    kind.__name__: kind for kind in (WorkflowTemplate, CronWorkflow)
}
EVENTS: dict[str, type[BaseModel]] = {kind.__name__: kind for kind in (EventSource, Sensor)}
WEBHOOK = {"port", "endpoint", "method"}
"""Hera's model lacks the fields that a webhook has in common with others; and apiVersion and kind,
and a Sensor's free resource."""
JETSTREAM = """version replicas containerTemplate reloaderContainerTemplate serviceAccountName
metricsContainerTemplate persistence metadata nodeSelector tolerations securityContext affinity
imagePullSecrets priorityClassName priority settings startArgs streamConfig maxPayload"""
EXOTIC = {"url", "accessSecret", "streamConfig", "tls"}
EVENT_BUS = {"jetstreamExotic": EXOTIC, "jetstream": set(JETSTREAM.split())}
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
    def test_helm_lint_has_no_warning(self, name: str) -> None:
        values = ("-f", str(VALUES / f"{name}.yaml"), f"--kube-version={KUBERNETES}.0")
        said = helm("lint", "--strict", str(CHART), *values)
        assert "0 chart(s) failed" in said
        assert "[WARNING]" not in said

    def test_core_objects_are_valid(self, name: str) -> None:
        own = ("argoproj.io", "monitoring")
        core = [one for one in render(name) if not any(kind in one["apiVersion"] for kind in own)]
        for document in core:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert len(core) >= 2

    def test_argo_objects_have_no_unknown_field(self, name: str) -> None:
        documents = render(name)
        for kind, model in {**WORKFLOWS, **EVENTS}.items():
            for document in of_kind(documents, kind).values():
                assert unknown(document, model) == [], document["metadata"]["name"]
                if kind in WORKFLOWS:
                    model.model_validate(document)

    def test_references_of_templates_exist(self, name: str) -> None:
        assert lint(render(name), complete=name != "bare") == []

    def test_nothing_else_is_made(self, name: str) -> None:
        for document in render(name):
            if document["kind"] == "EventBus":
                ((kind, spec),) = document["spec"].items()
                assert set(spec) <= EVENT_BUS[kind]
            elif "monitoring.coreos.com" in document["apiVersion"]:
                assert set(document["spec"]) == MONITORING[document["kind"]]
            elif "argoproj" in document["apiVersion"]:
                assert document["kind"] in {*WORKFLOWS, *EVENTS}

    def test_object_is_there_once_in_namespace_of_release(self, name: str) -> None:
        documents = render(name)
        times = Counter((document["kind"], document["metadata"]["name"]) for document in documents)
        assert set(times.values()) == {1}
        namespaces = {document["metadata"].get("namespace", "night") for document in documents}
        assert namespaces == {"night"}

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

    def test_objects_are_labelled(self, name: str) -> None:
        for document in render(name):
            labels = document["metadata"]["labels"]
            ours = {"name": "contimg", "instance": "contimg", "managed-by": "Helm"}
            assert {f"app.kubernetes.io/{key}": value for key, value in ours.items()}.items() <= (
                labels.items()
            )
            assert labels["app.kubernetes.io/component"]
            assert labels["helm.sh/chart"].startswith("contimg-")


def unknown(document: Document, model: type[BaseModel]) -> list[str]:
    """Return the unknown fields of an object without the gaps of Hera's models of Argo Events."""
    problems = list(unknown_fields(document, model))
    if model not in EVENTS.values():
        return problems
    gaps = {f".: unknown field {field}" for field in ("apiVersion", "kind")}
    gaps |= {f".spec.webhook.group: unknown field {field}" for field in WEBHOOK}
    return [
        problem
        for problem in problems
        if problem not in gaps and not problem.partition(": ")[0].endswith(".k8s.source.resource")
    ]


def restricted(pod: Document) -> list[str]:
    """Return what Pod Security "restricted" would refuse, and a root that can be written."""
    whole = pod.get("securityContext", {})
    own = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 10001}
    wrong = [f"{key}: {whole.get(key)}" for key, value in own.items() if whole.get(key) != value]
    wrong += [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    volumes = [
        set(one) - {"name", "emptyDir", "secret", "configMap"} for one in pod.get("volumes", [])
    ]
    wrong += [f"volume {kinds}" for kinds in volumes if kinds]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        found = container.get("securityContext", {})
        wrong += [f"{key}: {found.get(key)}" for key in SECURED if found.get(key) != SECURED[key]]
        wrong += [key for key in ("privileged", "runAsUser", "procMount") if key in found]
    return wrong


@pytest.mark.parametrize(
    "bad",
    [{"privileged": True}, {"capabilities": {"drop": []}}, {"readOnlyRootFilesystem": False}],
    ids=str,
)
def test_container_that_is_not_restricted_is_found(bad: dict[str, Any]) -> None:
    good = dict(pods(render()))["Deployment contimg-watch"]
    assert restricted(good) == []
    container = good["containers"][0]
    spoilt = {**container, "securityContext": {**container["securityContext"], **bad}}
    assert restricted({**good, "containers": [spoilt]})


def test_pod_that_is_not_restricted_is_found() -> None:
    good = dict(pods(render()))["Deployment contimg-watch"]
    assert restricted({**good, "volumes": [{"name": "host", "hostPath": {"path": "/"}}]})
    assert restricted({**good, "hostNetwork": True})


def test_resource_of_sensor_is_workflow() -> None:
    (sensor,) = of_kind(render(), "Sensor").values()
    workflow = sensor["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
    assert list(unknown_fields(workflow, Workflow)) == []
    Workflow.model_validate(workflow)


def test_misspelt_field_of_sensor_is_found() -> None:
    (sensor,) = deepcopy(of_kind(render(), "Sensor")).values()
    sensor["spec"]["triggers"][0]["atLeastOne"] = True
    assert unknown(sensor, Sensor) == [".spec.triggers[0]: unknown field atLeastOne"]


def test_misspelt_field_of_core_object_is_found() -> None:
    spoilt = deepcopy(one(render(), "Deployment", "contimg-watch"))
    spoilt["spec"]["template"]["spec"]["serviceAcountName"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoilt, KUBERNETES, strict=True)


def test_bare_release_is_templates_and_configuration() -> None:
    kinds = Counter(document["kind"] for document in render("bare"))
    assert set(kinds) == {"WorkflowTemplate", "ConfigMap"}
    assert kinds["ConfigMap"] == 4


ALL_KINDS = """EventBus EventSource Sensor Deployment Service PodDisruptionBudget NetworkPolicy Job
Pod ServiceAccount Role RoleBinding ConfigMap ServiceMonitor PodMonitor PrometheusRule
WorkflowTemplate"""


def test_everything_has_all_kinds() -> None:
    kinds = {document["kind"] for document in render("everything")}
    assert kinds >= set(ALL_KINDS.split())
