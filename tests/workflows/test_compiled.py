"""What the local engine understands, and what it refuses by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from contimg.runtime.errors import MEANING, BadInputError, UsageError, retry_of
from contimg_workflows import retry
from contimg_workflows.compiled import Library


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    from tiny_bench import diamond, tiny_template

    read = [yaml.safe_load(template.to_yaml()) for template in (tiny_template(), diamond())]
    return {one["metadata"]["name"]: one for one in read}


def spoil(documents: dict[str, dict[str, Any]], name: str, path: str, value: Any) -> None:
    part: Any = documents[name]
    *steps, last = path.split(".")
    for step in steps:
        part = part[int(step) if step.isdigit() else step]
    part[last] = value


def compiled(documents: dict[str, dict[str, Any]], **arguments: str) -> Any:
    return Library(copy.deepcopy(documents).values()).workflow(
        "x", "contimg-diamond", {"store": "/s", **arguments}
    )


def test_the_diamond_is_understood(documents: dict[str, dict[str, Any]]) -> None:
    made = compiled(documents)
    assert made.jobs["d"].needs == {"b", "c"}
    assert made.jobs["b"].arguments["source"] == "{{tasks.a.outputs.parameters.artifact}}"
    values = made.jobs["b"].values({"a": {"artifact": "/s/a/KEY"}})
    assert values["source"] == "/s/a/KEY"
    assert "--source=/s/a/KEY" in made.jobs["b"].command(values)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("contimg-diamond", "spec.templates.0.dag.tasks.0.withItems", ["1"]),
        ("contimg-diamond", "spec.templates.0.dag.tasks.0.withParam", "x"),
        ("contimg-diamond", "spec.templates.0.dag.tasks.0.when", "true"),
        ("contimg-diamond", "spec.templates.0.dag.tasks.0.continueOn", {"failed": True}),
        ("contimg-diamond", "spec.templates.0.dag.tasks.0.dependencies", ["a"]),
        ("contimg-diamond", "spec.templates.0.dag.failFast", False),
        ("contimg-diamond", "spec.templates.0.steps", []),
        ("contimg-diamond", "spec.onExit", "x"),
        ("contimg-diamond", "spec.parallelism", 3),
        ("contimg-tiny", "spec.templates.0.script", {"image": "x", "source": "y"}),
        ("contimg-tiny", "spec.templates.0.podSpecPatch", "x"),
        ("contimg-tiny", "spec.templates.0.inputs.artifacts", []),
        ("contimg-tiny", "spec.templates.0.container.volumeMounts", []),
        ("contimg-tiny", "spec.templates.0.container.envFrom", [{"secretRef": {"name": "x"}}]),
        ("contimg-tiny", "spec.templates.0.volumes.0.hostPath", {"path": "/"}),
        ("contimg-tiny", "spec.templates.0.outputs.artifacts.0.optional", False),
        ("contimg-tiny", "spec.templates.0.resource", {"action": "create"}),
        ("contimg-tiny", "spec.templates.0.synchronization", {}),
        ("contimg-diamond", "spec.templates.0.synchronization", {"semaphores": []}),
        ("contimg-tiny", "spec.templates.0.retryStrategy.affinity", {}),
        ("contimg-tiny", "spec.volumes", []),
    ],
)
def test_another_field_is_refused_by_its_name(
    documents: dict[str, dict[str, Any]], name: str, path: str, value: Any
) -> None:
    spoil(documents, name, path, value)
    with pytest.raises(BadInputError, match=path.replace(".", r"\.")):
        compiled(documents)


@pytest.mark.parametrize(
    ("name", "path", "value", "words"),
    [
        ("contimg-diamond", "kind", "CronWorkflow", "kind"),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.3.depends",
            "b || c",
            "to wait for tasks of the DAG",
        ),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.3.depends",
            "b.Succeeded",
            "to wait for tasks of the DAG",
        ),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.0.depends",
            "d",
            "to wait for tasks of the DAG, and not for itself",
        ),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.1.depends",
            "",
            "references to outputs of tasks that it waits for",
        ),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.0.arguments.parameters.0.value",
            "{{workflow.status}}",
            "workflow.status",
        ),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.0.arguments.parameters.0.name",
            "outt",
            "unknown ['outt']",
        ),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.0.templateRef.name",
            "contimg-gone",
            "contimg-gone: expected a pipeline",
        ),
        ("contimg-diamond", "spec.entrypoint", "gone", "template gone"),
        (
            "contimg-diamond",
            "spec.templates.0.retryStrategy",
            {"limit": "3", "expression": "true"},
            "that a DAG is not run again",
        ),
        (
            "contimg-diamond",
            "spec.templates.0.dag.tasks.0.when",
            "{{tasks.d.outputs.parameters.x}} != true",
            "when",
        ),
        (
            "contimg-tiny",
            "spec.templates.0.container.command",
            ["sh", "-c"],
            "a command of one word",
        ),
        (
            "contimg-tiny",
            "spec.templates.0.container.env",
            [{"name": "KEY", "valueFrom": {}}],
            "env.0.valueFrom",
        ),
        (
            "contimg-tiny",
            "spec.templates.0.outputs.parameters.0.valueFrom.path",
            "/etc/x",
            "a file below $CONTIMG_OUTPUTS",
        ),
        ("contimg-tiny", "spec.templates.0.retryStrategy.expression", "true", "retryStrategy of"),
        ("contimg-tiny", "spec.templates.0.retryStrategy.retryPolicy", "OnFailure", "retryPolicy"),
    ],
)
def test_another_meaning_is_refused(
    documents: dict[str, dict[str, Any]], name: str, path: str, value: Any, words: str
) -> None:
    spoil(documents, name, path, value)
    with pytest.raises((BadInputError, UsageError)) as caught:
        compiled(documents)
    assert words in str(caught.value)


def test_arguments_are_checked(documents: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="b-worrd"):
        compiled(documents, **{"b-worrd": "x"})
    with pytest.raises(UsageError, match="one of write, data, world"):
        compiled(documents, **{"b-do": "dance"})
    with pytest.raises(UsageError, match="a value of store, found none"):
        Library(documents.values()).workflow("x", "contimg-diamond", {})
    with pytest.raises(UsageError, match="expected a pipeline"):
        Library(documents.values()).workflow("x", "contimg-heart", {})


# The retry rule


def argo_would_retry(code: int, retries: int) -> bool:
    """Evaluate the expression as Argo's expr does, whose `&&`, `||` and `in` mean what Python's do."""
    text = (
        retry.expression()
        .replace("&&", "and")
        .replace("||", "or")
        .replace("lastRetry.exitCode", "exit_code")
    )
    return bool(
        eval(  # noqa: S307
            text,
            {"__builtins__": {}},
            {"asInt": int, "retries": str(retries), "exit_code": str(code)},
        )
    )


@pytest.mark.parametrize("code", [*MEANING, 1, 3, 99])
def test_argo_retries_what_the_table_says(code: int) -> None:
    for retries in range(6):
        assert argo_would_retry(code, retries) is (retries < retry_of(code).limit)
    assert int(str(retry.strategy().limit)) == max(rule.limit for _, rule in MEANING.values())


def test_waits_double_up_to_a_cap() -> None:
    assert [retry.backoff_s(tries) for tries in (1, 2, 3, 4, 5, 9)] == [10, 20, 40, 80, 120, 120]
    rules = {rule.backoff_s for _, rule in MEANING.values() if rule.limit}
    assert rules == {10.0}, "Argo knows one backoff a template"
