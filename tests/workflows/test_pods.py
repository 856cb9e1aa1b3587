"""Pods: restricted, with more memory after they ran out of it, and with files to look at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg.runtime.contract import VIEWS
from contimg.runtime.errors import MEANING
from contimg.runtime.stage import Resources, stage_specs
from contimg_workflows import pods
from contimg_workflows.drivers import child_manifest
from contimg_workflows.forms import template_commands
from contimg_workflows.render import render_all

ROOT = Path(__file__).parents[2]
SUBBANDS, FULL_MS, CONVERT_PEAK = 16 * 145_348_600, 1_413_000_000, 760_000_000
"""Bytes of a full-size group, of its MS, and of the largest that contimg-convert was, as its
manifest says."""
DOCUMENTS = [yaml.safe_load(text) for text in render_all().values()]
TEMPLATES = [
    (one["metadata"]["name"], part)
    for one in DOCUMENTS
    for part in one["spec"].get("templates", [])
]
PROGRAMS = {**stage_specs(), **template_commands()}
CONTAINERS = [pytest.param(part, id=name) for name, part in TEMPLATES if "container" in part]


@pytest.mark.parametrize("template", CONTAINERS)
def test_pod_is_restricted(template: dict[str, Any]) -> None:
    pod, container = template["securityContext"], template["container"]["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"]) == (True, 10001)
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    assert {tuple(one) for one in template["volumes"]} == {("name", "emptyDir")}


@pytest.mark.parametrize("template", CONTAINERS)
def test_pod_writes_only_to_volumes(template: dict[str, Any]) -> None:
    mounts = {one["mountPath"] for one in template["container"]["volumeMounts"]}
    env = {one["name"]: one["value"] for one in template["container"]["env"]}
    assert mounts == {"/tmp", "/scratch"}
    assert env["CONTIMG_OUTPUTS"].startswith("/tmp/")
    assert env["CONTIMG_SCRATCH"] == "/scratch"
    paths = [one["valueFrom"]["path"] for one in template["outputs"].get("parameters", [])]
    paths += [one["path"] for one in template["outputs"]["artifacts"]]
    assert all(path.startswith(env["CONTIMG_OUTPUTS"] + "/") for path in paths)


@pytest.mark.parametrize("template", CONTAINERS)
def test_pod_limits_are_complete(template: dict[str, Any]) -> None:
    resources = template["container"]["resources"]
    assert set(resources["requests"]) == {"cpu", "memory", "ephemeral-storage"}
    assert set(resources["limits"]) == {"memory", "ephemeral-storage"}
    assert template["activeDeadlineSeconds"] > 0
    assert template["retryStrategy"]["retryPolicy"] == "Always"


@pytest.mark.parametrize("name", PROGRAMS)
def test_scratch_fits_into_memory(name: str) -> None:
    # What is left must hold a Python with its libraries.
    resources = PROGRAMS[name].resources
    assert resources is not None
    assert resources.memory_mi - resources.scratch_mi >= 256


def test_entrypoints_are_not_retried() -> None:
    dags = [part for _, part in TEMPLATES if "dag" in part and part["name"] == "main"]
    assert len(dags) >= 6
    never = {"expression": "false", "limit": "0"}
    assert all(part["retryStrategy"] == never for part in dags)


def test_templates_record_end_and_expire() -> None:
    for document in DOCUMENTS:
        if document["kind"] == "WorkflowTemplate":
            spec = document["spec"]
            assert spec["podGC"] == {"strategy": "OnPodCompletion", "deleteDelayDuration": "600s"}
            assert set(spec["ttlStrategy"]) == {"secondsAfterSuccess", "secondsAfterFailure"}
            assert spec["activeDeadlineSeconds"] > 0
            program = document["metadata"]["name"].removeprefix("contimg-") in PROGRAMS
            assert ("onExit" in spec) is not program


# More memory


def evaluated(text: str, code: str, retries: int) -> int:
    """Evaluate a quantity as Argo's expr does; its ternary is Python's the other way round."""
    match = re.fullmatch(r"\{\{=(.*)\}\}Mi", text)
    assert match
    python = re.sub(
        r"\((\S+ in \[[^]]*\]) \? (.*?) : (.*?)\)", r"((\2) if (\1) else (\3))", match[1]
    )
    names = {"exit": code, "asInt": int, "retries": str(retries)}
    return int(eval(python.replace("lastRetry.exitCode", "exit"), {"__builtins__": {}}, names))  # noqa: S307


@pytest.mark.parametrize("code", [0, *MEANING])
def test_memory_grows_only_after_out_of_memory(code: int) -> None:
    resources = Resources(deadline_s=60, memory_mi=4096, scratch_mi=1024)
    patch = yaml.safe_load(pods.memory_retry_patch(resources))
    memory = patch["containers"][0]["resources"]["limits"]["memory"]
    scratch = patch["volumes"][0]["emptyDir"]["sizeLimit"]
    for retries in range(4):
        factor = 1 + retries if code in {22, 137} else 1
        assert evaluated(memory, str(code), retries) == 4096 * factor
        assert evaluated(scratch, str(code), retries) == 1024 * factor


def test_first_try_has_memory_limit() -> None:
    for name, part in TEMPLATES:
        if "container" in part:
            patched = yaml.safe_load(part["podSpecPatch"])["containers"][0]["resources"]["limits"]
            limit = part["container"]["resources"]["limits"]["memory"]
            assert f"{evaluated(patched['memory'], '0', 0)}Mi" == limit, name


# What a person opens


def test_convert_fits_full_size_group() -> None:
    # From a bucket, the 16 subbands lie in scratch beside the MS; the process has the rest.
    resources = stage_specs()["convert"].resources
    scratch, memory = resources.scratch_mi << 20, resources.memory_mi << 20
    assert scratch >= SUBBANDS + FULL_MS
    assert memory - SUBBANDS - FULL_MS >= CONVERT_PEAK


@pytest.mark.parametrize("stage", [name for name, spec in stage_specs().items() if spec.views])
def test_views_are_written_by_stage(stage: str) -> None:
    source = "".join(path.read_text() for path in (ROOT / "stages" / stage).rglob("*.py"))
    for view in stage_specs()[stage].views:
        assert f'context.write("{view}"' in source
        assert view.endswith(VIEWS)


@pytest.mark.parametrize("template", CONTAINERS)
def test_artifacts_are_plain_and_optional(template: dict[str, Any]) -> None:
    for one in template["outputs"]["artifacts"]:
        assert (one["optional"], one["archive"], set(one["s3"])) == (True, {"none": {}}, {"key"})
        assert "{{workflow.name}}/{{pod.name}}/" in one["s3"]["key"]
    assert not template["inputs"].get("artifacts")


# The workflow that a resource template creates


# Text of a form: anything that prints, with quotes, braces and line ends.
WORDS = st.text(
    st.characters(max_codepoint=0x1FFF, exclude_categories=("Cc", "Cs", "Cn"))
    | st.sampled_from("\n\t\"'\\{}:# ")
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["store", "image-tier", "a_b"]), WORDS, min_size=1))
def test_child_manifest_keeps_any_text(values: dict[str, str]) -> None:
    text = child_manifest("contimg-x", "x-", dict.fromkeys(values), {"a": "b"})
    filled = re.sub(
        r"\{\{=toJson\(inputs\.parameters\['([^']*)'\]\)\}\}",
        lambda match: json.dumps(values[match[1]], ensure_ascii=False),
        text,
    )
    made = yaml.safe_load(filled)
    assert made["spec"]["workflowTemplateRef"] == {"name": "contimg-x"}
    assert {one["name"]: one["value"] for one in made["spec"]["arguments"]["parameters"]} == values
