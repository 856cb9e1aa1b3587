"""Each check of lint can fail: what is spoilt is found, by name, and nothing else is said."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contimg.runtime.errors import UsageError
from contimg_runs.options import CHUNK
from contimg_workflows.lint import find_problems, lint, read_documents
from contimg_workflows.lint.documents import DocumentSet
from contimg_workflows.lint.references import ALWAYS, find_unresolved, find_variables
from contimg_workflows.lint.rules import MAX_NODES, count_nodes
from contimg_workflows.lint.schema import has_schema
from contimg_workflows.render import render_all

INSTALLED = """
apiVersion: v1
kind: ConfigMap
metadata: {name: contimg-semaphores}
data: {casa: "1", wsclean: "2", backfill: "4"}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: contimg-workflow}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: contimg-watch}
spec:
  selector: {matchLabels: {app: watch}}
  template:
    metadata: {labels: {app: watch}}
    spec:
      serviceAccountName: contimg-workflow
      containers: [{name: watch, image: contimg-watch, ports: [{containerPort: 8080}]}]
---
apiVersion: argoproj.io/v1alpha1
kind: EventBus
metadata: {name: default}
spec: {jetstreamExotic: {url: "nats://nats:4222", streamConfig: "replicas: 1"}}
---
apiVersion: argoproj.io/v1alpha1
kind: EventSource
metadata: {name: contimg}
spec:
  service: {ports: [{port: 12000, targetPort: 12000}]}
  webhook: {group: {port: "12000", endpoint: /group, method: POST}}
---
apiVersion: argoproj.io/v1alpha1
kind: Sensor
metadata: {name: contimg}
spec:
  dependencies: [{name: group, eventSourceName: contimg, eventName: group}]
  triggers:
    - atLeastOnce: true
      retryStrategy: {steps: 5, duration: 2s, factor: 2, jitter: 0.2}
      template:
        name: process
        conditions: group
        k8s:
          operation: create
          source:
            resource:
              apiVersion: argoproj.io/v1alpha1
              kind: Workflow
              metadata: {name: by-the-event, labels: {a: b}}
              spec:
                workflowTemplateRef: {name: contimg-process-group}
                arguments:
                  parameters:
                    [{name: store, value: x}, {name: group, value: x}, {name: attempt, value: x}]
          parameters:
            - {src: {dependencyName: group, dataKey: body.name}, dest: metadata.name}
            - src: {dependencyName: group, dataKey: body.group}
              dest: spec.arguments.parameters.1.value
"""


@cache
def _documents() -> str:
    return json.dumps(
        [*(yaml.safe_load(text) for text in render_all().values()), *yaml.safe_load_all(INSTALLED)]
    )


def documents() -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in json.loads(_documents())}


def spoilt(kind: str, name: str, path: str, value: Any) -> list[str]:
    """Lint after one change; a value of None takes the part away."""
    found = documents()
    part: Any = found[kind, name]
    *steps, last = path.split("/")
    for step in steps:
        part = part[int(step) if step.isdigit() else step]
    key: Any = int(last) if last.isdigit() else last
    if value is None:
        del part[key]
    else:
        part[key] = value
    among = DocumentSet(found.values())
    # Others refer to a ConfigMap, and are wrong with it.
    looked_at = [one for one in among.documents if kind == "ConfigMap" or one is found[kind, name]]
    return [problem for one in looked_at for problem in find_problems(one, among)]


def test_what_we_render_and_install_is_clean() -> None:
    assert lint(documents().values()) == []
    assert all(has_schema(one) for one in documents().values())


TEMPLATE, POD = "WorkflowTemplate", "spec/templates/0"
TASKS = "spec/templates/1/dag/tasks"
IMAGE, NIGHTLY, KEY = "contimg-image", "contimg-nightly", f"{POD}/outputs/artifacts/0/s3/key"
MAIN, GROUP, STEP = f"{POD}/container", "contimg-process-group", f"{POD}/dag/tasks/1"
ARGUMENT = f"{STEP}/arguments/parameters/0"


@pytest.mark.parametrize(
    ("name", "path", "value", "problem"),
    [
        # Closed schemas.
        ("contimg-flag", "spec/entrypont", "main", ".spec: unknown field entrypont"),
        ("contimg-flag", f"{MAIN}/comand", ["x"], ".spec.templates[0].container: unknown field"),
        ("contimg-flag", f"{POD}/retryStrategy/backoff/most", "1", "backoff: unknown field most"),
        ("contimg-flag", f"{MAIN}/env/0/vale", "x", ".container.env[0]: unknown field vale"),
        ("contimg-flag", f"{MAIN}/args", "no list", "valid list"),
        ("contimg-flag", "spec/entrypoint", "other", "entrypoint other is no template"),
        ("contimg-flag", f"{MAIN}/args/0", "--out={{inputs.parameters.no}}", "leads nowhere"),
        # Steps.
        (GROUP, f"{STEP}/templateRef/name", "contimg-flog", "which is nowhere"),
        (GROUP, f"{STEP}/depends", "convret", "depends on convret, which is not a task"),
        (GROUP, f"{STEP}/depends", "", "{{tasks.convert.outputs.parameters.artifact}} leads"),
        (GROUP, f"{ARGUMENT}/name", "outt", "passes outt, which its template does not take"),
        (GROUP, f"{ARGUMENT}/name", "outt", "does not pass out, which its template requires"),
        (GROUP, f"{ARGUMENT}/value", "{{workflow.parameters.store}}", "leads nowhere"),
        (GROUP, f"{ARGUMENT}/value", "{{tasks.convert.outputs.parameters.no}}", "leads nowhere"),
        (GROUP, "spec/arguments/parameters", [], "the entrypoint's input store is no argument"),
        # Pods, by Kubernetes' own schema.
        (IMAGE, f"{MAIN}/resources/limits/memory", {"a": 1}, "memory"),
        (IMAGE, f"{MAIN}/env/0/value", 5, "env"),
        (
            IMAGE,
            f"{POD}/volumes/0/emptyDirr",
            {},
            ".spec.templates[0].volumes[0]: unknown field emptyDirr",
        ),
        (IMAGE, f"{POD}/securityContext/runAsUser", "root", "runAsUser"),
        (IMAGE, f"{POD}/metadata/labelz", {}, ".spec.templates[0].metadata: unknown field labelz"),
        # Variables in their places.
        (
            IMAGE,
            f"{POD}/podSpecPatch",
            "x: {{=lastRetri.exitCode}}",
            "{{=lastRetri.exitCode}} leads nowhere: lastRetri.exitCode",
        ),
        (IMAGE, f"{POD}/podSpecPatch", "x: {{=sprig.env('A')}}", "sprig.env()"),
        (IMAGE, f"{POD}/retryStrategy", None, "leads nowhere: retries"),
        (
            IMAGE,
            f"{POD}/retryStrategy/expression",
            "lastRetry.exitcode == '1'",
            "retryStrategy: {{=lastRetry.exitcode == '1'}} leads",
        ),
        (IMAGE, KEY, "{{workflow.nam}}/x", "{{workflow.nam}} leads nowhere"),
        (IMAGE, KEY, "{{workflow.parameters.ms}}", "leads nowhere"),
        (IMAGE, KEY, "{{workflow.status}}", "leads nowhere"),
        (IMAGE, f"{POD}/metrics/prometheus/0/labels/1/value", "{{stat}}", "{{stat}} leads nowhere"),
        (
            GROUP,
            "spec/workflowMetadata/annotations/x",
            "{{workflow.parameters.nothing}}",
            "workflowMetadata: {{",
        ),
        (
            GROUP,
            "spec/workflowMetadata/labelsFrom/x",
            {"expression": "workflow.parameters.no"},
            "labelsFrom.x: {{=workflow.parameters.no}} leads",
        ),
        (
            GROUP,
            "spec/synchronization/mutexes/0/name",
            "{{workflow.parameters.no}}",
            "synchronization: {{",
        ),
        (
            GROUP,
            "spec/templates/2/dag/tasks/0/arguments/parameters/0/value",
            "{{workflow.parameters.no}}",
            "leads nowhere",
        ),
        (
            NIGHTLY,
            f"{TASKS}/0/arguments/parameters/0/value",
            "{{item}}",
            "strips: {{item}} leads nowhere",
        ),
        (
            NIGHTLY,
            f"{TASKS}/1/withParam",
            "{{tasks.strips.outputs.parameters.no}}",
            "leads nowhere",
        ),
        (NIGHTLY, f"{TASKS}/1/withParam", "{{item}}", "epoch: {{item}} leads nowhere"),
        # What a workflow is made of.
        (GROUP, "spec/onExit", "gone", "onExit gone is no template"),
        (
            GROUP,
            f"{TASKS}/0/when",
            "{{tasks.claim.outputs.parameters.claimd}} == true",
            "leads nowhere",
        ),
        (GROUP, f"{POD}/dag/tasks/1/templateRef/template", "other", "which is nowhere"),
        (NIGHTLY, f"{TASKS}/1/template", "gone", "refers to gone, which is nowhere"),
        (
            IMAGE,
            f"{POD}/synchronization/semaphores/0/configMapKeyRef/key",
            "gpu",
            "no semaphore gpu in the ConfigMap",
        ),
        (GROUP, "spec/serviceAccountName", "default", "there is no service account default"),
        # What a resource template creates.
        (NIGHTLY, f"{POD}/resource/manifest", "a: b: c", "the manifest is not YAML"),
        (
            NIGHTLY,
            f"{POD}/resource/manifest",
            "kind: Workflow\napiVersion: argoproj.io/v1alpha1\nspeck: {}",
            "unknown field speck",
        ),
        # How large it may become.
        (GROUP, f"{POD}/retryStrategy/limit", "3", "a run may have"),
    ],
)
def test_what_is_wrong_with_a_template_is_found(
    name: str, path: str, value: Any, problem: str
) -> None:
    found = spoilt(TEMPLATE, name, path, value)
    assert any(problem in one and one.startswith(f"{name}: ") for one in found), found


def test_a_child_is_checked_as_what_it_refers_to() -> None:
    text = documents()[TEMPLATE, NIGHTLY]["spec"]["templates"][0]["resource"]["manifest"]
    for old, new, problem in [
        (
            "name: contimg-epoch\n",
            "name: contimg-epoc\n",
            "workflowTemplateRef contimg-epoc is nowhere",
        ),
        ("- name: strip\n", "- name: stripe\n", "contimg-epoch has no parameter stripe"),
        ("- name: strip\n", "- name: stripe\n", "contimg-epoch requires strip"),
        (
            "inputs.parameters['strip']",
            "inputs.parameters['stripe']",
            "leads nowhere: inputs.parameters.stripe",
        ),
    ]:
        assert old in text
        found = spoilt(TEMPLATE, NIGHTLY, f"{POD}/resource/manifest", text.replace(old, new))
        assert any(problem in one for one in found), (problem, found)


CRON, TRIGGER, SPEC = "spec/workflowSpec", "spec/triggers/0", "spec/template/spec"
LIMITS, SWEEP, WATCH = "contimg-semaphores", "contimg-sweep", "contimg-watch"
RESOURCE = f"{TRIGGER}/template/k8s/source/resource"


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "problem"),
    [
        ("CronWorkflow", SWEEP, "spec/schedule", "* * * * *", "unknown field schedule"),
        (
            "CronWorkflow",
            SWEEP,
            f"{CRON}/workflowTemplateRef/name",
            "contimg-swoop",
            "contimg-swoop is nowhere",
        ),
        (
            "CronWorkflow",
            SWEEP,
            f"{CRON}/arguments/parameters/0/name",
            "stor",
            "contimg-sweep has no parameter stor",
        ),
        (
            "CronWorkflow",
            SWEEP,
            f"{CRON}/arguments/parameters/0/name",
            "stor",
            "contimg-sweep requires store",
        ),
        (
            "ConfigMap",
            LIMITS,
            "data/casa",
            "many",
            "semaphore casa of the ConfigMap contimg-semaphores is no number",
        ),
        ("ConfigMap", LIMITS, "data/casa", None, "no semaphore casa in the ConfigMap"),
        ("ConfigMap", LIMITS, "dater", {}, "dater"),
        ("Deployment", WATCH, f"{SPEC}/containers/0/imag", "x", "imag"),
        (
            "Deployment",
            WATCH,
            f"{SPEC}/containers/0/ports/0/containerPort",
            "many",
            "containerPort",
        ),
        (
            "Deployment",
            WATCH,
            f"{SPEC}/serviceAccountName",
            "gone",
            "there is no service account gone",
        ),
        ("EventBus", "default", "spec/jetstreamExotic/urll", "x", "urll"),
        ("EventSource", "contimg", "spec/webhook/group/prot", "1", "unknown field prot"),
        ("EventSource", "contimg", "spec/webhooks", {}, "unknown field webhooks"),
        ("Sensor", "contimg", f"{TRIGGER}/retryStrategy/stepz", 1, "unknown field stepz"),
        ("Sensor", "contimg", f"{TRIGGER}/retryStrategy/steps", "x", "steps"),
        ("Sensor", "contimg", f"{TRIGGER}/atLeast", True, "unknown field atLeast"),
        (
            "Sensor",
            "contimg",
            "spec/dependencies/0/eventName",
            "gone",
            "there is no event gone of an EventSource contimg",
        ),
        (
            "Sensor",
            "contimg",
            "spec/dependencies/0/eventSourceName",
            "gone",
            "there is no event group of an EventSource gone",
        ),
        (
            "Sensor",
            "contimg",
            f"{TRIGGER}/template/conditions",
            "group && other",
            "condition other is not a dependency",
        ),
        (
            "Sensor",
            "contimg",
            f"{RESOURCE}/spec/workflowTemplateRef/name",
            "contimg-grup",
            "contimg-grup is nowhere",
        ),
        (
            "Sensor",
            "contimg",
            f"{RESOURCE}/spec/arguments/parameters/1/name",
            "grup",
            "contimg-process-group has no parameter grup",
        ),
        (
            "Sensor",
            "contimg",
            f"{RESOURCE}/spec/arguments/parameters",
            [],
            "contimg-process-group requires group",
        ),
        ("Sensor", "contimg", f"{RESOURCE}/spec/entripoint", "x", "unknown field entripoint"),
        (
            "Sensor",
            "contimg",
            f"{TRIGGER}/template/k8s/parameters/0/src/dataKey",
            "body.nam",
            "no event has body.nam",
        ),
        (
            "Sensor",
            "contimg",
            f"{TRIGGER}/template/k8s/parameters/0/src/dependencyName",
            "x",
            "x is not a dependency",
        ),
        (
            "Sensor",
            "contimg",
            f"{TRIGGER}/template/k8s/parameters/1/dest",
            "spec.arguments.parameters.7.value",
            "is not a part of",
        ),
    ],
)
def test_what_is_wrong_with_what_is_installed_is_found(
    kind: str, name: str, path: str, value: Any, problem: str
) -> None:
    found = spoilt(kind, name, path, value)
    assert any(problem in one for one in found), found


def test_the_same_twice_is_found() -> None:
    every = [*documents().values(), documents()["ServiceAccount", "contimg-workflow"]]
    assert lint(every) == ["ServiceAccount contimg-workflow: occurs twice"]


def test_complete_means_that_no_value_is_missing() -> None:
    found = lint(documents().values(), complete=True)
    assert sorted(found) == [
        "CronWorkflow contimg-nightly: contimg-nightly requires store",
        "CronWorkflow contimg-sweep: contimg-sweep requires store",
    ]


def test_what_has_no_schema_is_told_and_not_passed_over() -> None:
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "x"},
        "spec": {},
    }
    assert not has_schema(monitor)
    assert not has_schema(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun", "metadata": {}}
    )


# Options and profiles


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{image: {tier: best}}", "image --tier: Input should be 'quicklook'"),
        ("{imagee: {tier: quicklook}}", "There is no stage 'imagee'"),
        ("{image: {teir: quicklook}}", "image --teir: there is no such option"),
        ("{variability: {min_epochs: 30}, image: {size: 512}}", ""),
        ("a: b: c", "This is not YAML"),
    ],
)
def test_default_options_of_a_pipeline_are_checked(options: str, problem: str) -> None:
    found = documents()
    fields = found[TEMPLATE, "contimg-process-group"]["spec"]["arguments"]["parameters"]
    (field,) = [one for one in fields if one["name"] == "options"]
    field["value"] = options
    problems = lint(found.values())
    assert bool(problems) is bool(problem)
    assert all(one.startswith("contimg-process-group: ") and problem in one for one in problems)


@pytest.mark.parametrize(
    ("profile", "problem"),
    [
        ({"image": {"tier": "quicklook"}, "variability": {"min_epochs": 30}}, ""),
        ({"image": {"tier": "best"}}, "profile deep: options: image --tier: Input should be"),
        ({"imagee": {}}, "There is no stage 'imagee'"),
    ],
)
def test_profiles_of_an_installation_are_checked(profile: dict[str, Any], problem: str) -> None:
    text = json.dumps({"deep": profile, "empty": {}})
    metadata = {"name": "contimg-profiles"}
    found = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    problems = lint([{**found, "data": {"profiles": text}}])
    assert len(problems) == bool(problem)
    assert all(problem in one for one in problems)


# How many nodes


def test_no_workflow_may_have_a_hundred_nodes() -> None:
    among = DocumentSet(documents().values())
    counts = {
        one["metadata"]["name"]: count_nodes(one, among)
        for one in among.documents
        if one["kind"] == TEMPLATE
    }
    assert max(counts.values()) <= MAX_NODES < 100
    # By hand: six stages of five nodes (a Retry and four tries), the DAG of the steps and its
    # Retry, the claim, the DAG
    # around them and its Retry, the exit handler and its record.
    assert counts["contimg-process-group"] == 6 * 5 + 2 + 5 + 2 + 1 + 5
    assert counts["contimg-backfill"] == 2 + 5 + 1 + CHUNK + 1 + 5


def _dag(fans: list[int], limits: list[int]) -> dict[str, Any]:
    """Make a workflow of tasks with so many items and further tries each."""
    pods = [
        {"name": f"p{n}", "container": {"image": "x"}, "retryStrategy": {"limit": str(limit)}}
        for n, limit in enumerate(limits)
    ]
    tasks = [
        {"name": f"t{n}", "template": f"p{n}", "withItems": list(range(fan))}
        for n, fan in enumerate(fans)
    ]
    return {
        "kind": TEMPLATE,
        "metadata": {"name": "x"},
        "spec": {
            "entrypoint": "main",
            "templates": [{"name": "main", "dag": {"tasks": tasks}}, *pods],
        },
    }


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=5))
def test_nodes_are_counted_as_argo_makes_them(shape: list[tuple[int, int]]) -> None:
    document = _dag([fan for fan, _ in shape], [limit for _, limit in shape])
    # The DAG; a group for each task; for each item a Retry and its pods.
    by_hand = 1 + sum(1 + fan * (1 + 1 + limit) for fan, limit in shape)
    assert count_nodes(document, DocumentSet([document])) == by_hand


# Expressions


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        (
            "4096 * (lastRetry.exitCode in ['22', '137'] ? 1 + asInt(retries) : 1)",
            ["lastRetry.exitCode", "retries"],
        ),
        ("toJson(inputs.parameters['image-tier'])", ["inputs.parameters.image-tier"]),
        ("split(inputs.parameters.run, '-a')[0]", ["inputs.parameters.run"]),
        ("'workflow.nothing' == \"retries\" && true", []),
        ("shell('rm')", ["shell()"]),
    ],
)
def test_the_variables_of_an_expression(expression: str, found: list[str]) -> None:
    assert find_variables(expression) == found


def test_a_text_may_hold_many() -> None:
    known = {*ALWAYS, "inputs.parameters.a"}
    assert list(
        find_unresolved("{{inputs.parameters.a}}/{{ workflow.name }}/{{b}}{{=c}}", known, "x")
    ) == ["x: {{b}} leads nowhere", "x: {{=c}} leads nowhere: c"]


# The command


def run(*words: str, given: str = "") -> tuple[int, dict[str, Any]]:
    program = str(Path(sys.executable).with_name("contimg"))
    done = subprocess.run(
        [program, "lint", *words], input=given, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}


def test_the_command_checks_what_is_rendered_by_default() -> None:
    code, said = run()
    assert (code, said["problems"], said["documents"]) == (0, [], len(render_all()))


def test_the_command_reads_a_folder_a_file_and_a_pipe(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(INSTALLED.partition("---")[0])
    assert run(str(tmp_path))[1]["documents"] == 1
    broken = good.read_text().replace("data:", "dater:")
    code, said = run("-", given=broken)
    assert code == 1
    assert "dater" in said["problems"][0]
    assert run(str(tmp_path / "none.yaml"))[0] == 2
    good.write_text("a: b: c")
    code, said = run(str(good))
    assert code == 2
    assert "This is not YAML" in said["said"]


LOOP = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "WorkflowTemplate",
    "metadata": {"name": "x"},
    "spec": {
        "entrypoint": "main",
        "templates": [{"name": "main", "dag": {"tasks": [{"name": "a", "template": "main"}]}}],
    },
}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (LOOP, "x: a run may have "),
        ({**LOOP, "spec": {"templates": LOOP["spec"]["templates"]}}, "x: there is no entrypoint"),  # type: ignore[index]
        ({**LOOP, "spec": {}}, "x: there is no entrypoint"),
    ],
)
def test_what_leads_nowhere_or_back_to_itself_is_a_problem_and_no_bug(
    document: dict[str, Any], problem: str
) -> None:
    (found,) = lint([document])
    assert found.startswith(problem)


@pytest.mark.parametrize("text", ["- a\n- b\n", '"a word"\n', "3\n"])
def test_yaml_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml: A document of keys and values"):
        read_documents(str(tmp_path))
