"""Each check of lint can fail: a spoilt part is found by its name, and nothing else is reported."""

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
from contimg_runs.pipelines import PROCESS_GROUP
from contimg_workflows.lint import find_problems, lint, read_documents
from contimg_workflows.lint.documents import DocumentSet
from contimg_workflows.lint.references import ALWAYS, find_unresolved, find_variables
from contimg_workflows.lint.rules import MAX_NODES, count_nodes
from contimg_workflows.lint.schema import has_schema
from contimg_workflows.render import render_all

HERE = Path(__file__).parent
INSTALLED = (HERE / "installed.yaml").read_text()
"""What a chart installs beside the templates."""
CASES = yaml.safe_load((HERE / "lint_cases.yaml").read_text())
TEMPLATE, GROUP = "WorkflowTemplate", "contimg-process-group"


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


def test_rendered_and_installed_documents_are_clean() -> None:
    assert lint(documents().values()) == []
    assert all(has_schema(one) for one in documents().values())


@pytest.mark.parametrize(
    ("document", "path", "value", "problem"),
    [(document, *case) for document, cases in CASES.items() for case in cases],
)
def test_spoilt_part_is_found(document: str, path: str, value: Any, problem: str) -> None:
    kind, _, name = document.partition("/")
    found = spoilt(kind, name, path, value)
    title = f"{name}: " if kind == TEMPLATE else ""
    assert any(problem in one and one.startswith(title) for one in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("contimg-epoch\n", "contimg-epoc\n", "workflowTemplateRef contimg-epoc does not exist"),
        ("- name: strip\n", "- name: stripe\n", "contimg-epoch has no parameter stripe"),
        ("- name: strip\n", "- name: stripe\n", "contimg-epoch requires strip"),
        ("['strip']", "['stripe']", "is not defined: inputs.parameters.stripe"),
    ],
)
def test_child_workflow_is_checked(old: str, new: str, problem: str) -> None:
    text = documents()[TEMPLATE, "contimg-nightly"]["spec"]["templates"][0]["resource"]["manifest"]
    assert old in text
    path = "spec/templates/0/resource/manifest"
    found = spoilt(TEMPLATE, "contimg-nightly", path, text.replace(old, new))
    assert any(problem in one for one in found), found


def test_duplicate_document_is_found() -> None:
    every = [*documents().values(), documents()["ServiceAccount", "contimg-workflow"]]
    assert lint(every) == ["ServiceAccount contimg-workflow: occurs twice"]


def test_complete_requires_every_value() -> None:
    found = lint(documents().values(), complete=True)
    assert sorted(found) == [
        "CronWorkflow contimg-nightly: contimg-nightly requires store",
        "CronWorkflow contimg-sweep: contimg-sweep requires store",
    ]


@pytest.mark.parametrize(
    ("version", "kind"),
    [("monitoring.coreos.com/v1", "PodMonitor"), ("argoproj.io/v1alpha1", "AnalysisRun")],
)
def test_unknown_kind_has_no_schema(version: str, kind: str) -> None:
    metadata = {"name": "x"}
    assert not has_schema({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {}})


# Options and profiles


@pytest.mark.parametrize(
    ("template", "name", "value", "problem"),
    [
        ("contimg-image", "robust", "5", "--robust: Input should be less than or equal to 2"),
        ("contimg-image", "niter", "1e6", "--niter: Input should be a valid integer"),
        ("contimg-image", "niter", "1000000", ""),
        ("contimg-watch", "gap_s", "1", "--gap-s: Input should be greater"),
        (GROUP, "tier", "fast", "--tier: Input should be 'quicklook'"),
        (GROUP, "tier", "quicklook", ""),
    ],
)
def test_default_parameter_is_checked(template: str, name: str, value: str, problem: str) -> None:
    fields = documents()[TEMPLATE, template]["spec"]["arguments"]["parameters"]
    number = next(n for n, one in enumerate(fields) if one["name"] == name)
    found = spoilt(TEMPLATE, template, f"spec/arguments/parameters/{number}/value", value)
    assert any(problem in one for one in found) if problem else not found


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
def test_default_options_are_checked(options: str, problem: str) -> None:
    found = documents()
    fields = found[TEMPLATE, GROUP]["spec"]["arguments"]["parameters"]
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
def test_profiles_are_checked(profile: dict[str, Any], problem: str) -> None:
    text = json.dumps({"deep": profile, "empty": {}})
    metadata = {"name": "contimg-profiles"}
    found = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    problems = lint([{**found, "data": {"profiles": text}}])
    assert len(problems) == bool(problem)
    assert all(problem in one for one in problems)


# How many nodes


def test_node_counts_stay_below_limit() -> None:
    among = DocumentSet(documents().values())
    templates = {name: one for (kind, name), one in documents().items() if kind == TEMPLATE}
    counts = {name: count_nodes(one, among) for name, one in templates.items()}
    assert max(counts.values()) <= MAX_NODES < 100
    # By hand: stages of five nodes (a Retry and four tries), the DAG of the steps and its
    # Retry, the claim, the DAG around them and its Retry, the exit handler and its record.
    assert counts["contimg-process-group"] == len(PROCESS_GROUP.steps) * 5 + 2 + 5 + 2 + 1 + 5
    # A backfill's chunks are in two lists, beside a task that never runs.
    assert counts["contimg-backfill"] == 2 + 5 + 2 + CHUNK + 1 + 1 + 5


def workflow_document(*templates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": TEMPLATE,
        "metadata": {"name": "x"},
        "spec": {"templates": list(templates), **more},
    }


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=5))
def test_node_count_matches_argo(shape: list[tuple[int, int]]) -> None:
    pods, tasks = [], []
    for n, (fan, limit) in enumerate(shape):
        pods.append({"name": f"p{n}", "container": {}, "retryStrategy": {"limit": str(limit)}})
        tasks.append({"name": f"t{n}", "template": f"p{n}", "withItems": list(range(fan))})
    main = {"name": "main", "dag": {"tasks": tasks}}
    document = workflow_document(main, *pods, entrypoint="main")
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
def test_expression_variables_are_found(expression: str, found: list[str]) -> None:
    assert find_variables(expression) == found


def test_all_references_of_text_are_checked() -> None:
    text = "{{inputs.parameters.a}}/{{ workflow.name }}/{{b}}{{=c}}"
    found = list(find_unresolved(text, {*ALWAYS, "inputs.parameters.a"}, "x"))
    assert found == ["x: {{b}} is not defined", "x: {{=c}} is not defined: c"]


# The command


def run(*words: str, given: str = "") -> tuple[int, dict[str, Any]]:
    program = str(Path(sys.executable).with_name("contimg"))
    done = subprocess.run(
        [program, "lint", *words], input=given, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}


def test_command_default_checks_rendered_templates() -> None:
    code, said = run()
    assert (code, said["problems"], said["documents"]) == (0, [], len(render_all()))


def test_command_reads_folder_file_stdin(tmp_path: Path) -> None:
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


LOOP = {"name": "main", "dag": {"tasks": [{"name": "a", "template": "main"}]}}
EMPTY = {"apiVersion": "argoproj.io/v1alpha1", "kind": TEMPLATE, "metadata": {"name": "x"}}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (workflow_document(LOOP, entrypoint="main"), "x: a run may have "),
        (workflow_document(LOOP), "x: there is no entrypoint"),
        ({**EMPTY, "spec": {}}, "x: there is no entrypoint"),
    ],
)
def test_loop_or_missing_entrypoint_is_a_problem(document: dict[str, Any], problem: str) -> None:
    (found,) = lint([document])
    assert found.startswith(problem)


@pytest.mark.parametrize("text", ["- a\n- b\n", '"a word"\n', "3\n"])
def test_yaml_without_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml: A document of keys and values"):
        read_documents(str(tmp_path))
