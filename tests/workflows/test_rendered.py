"""The committed YAML is what the code renders, and it says only what Argo and the stages understand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hera.workflows.models import CronWorkflow, WorkflowTemplate
from pydantic import TypeAdapter

from contimg.runtime.options import flag
from contimg_workflows.compiled import Library
from contimg_workflows.lint import lint, problems_of
from contimg_workflows.lint.library import Library as Lint
from contimg_workflows.lint.schema import unknown_fields
from contimg_workflows.render import all_templates, main, rendered
from contimg_workflows.stages import COMMANDS, NEEDS, options_of, word_of

RENDERED = Path(__file__).parents[2] / "workflows" / "rendered"
FILES = rendered()
EVERYTHING: list[dict[str, Any]] = [yaml.safe_load(text) for text in FILES.values()]
DOCUMENTS: dict[str, dict[str, Any]] = {
    one["metadata"]["name"]: one for one in EVERYTHING if one["kind"] == "WorkflowTemplate"
}
PIPELINES = ("contimg-process-group", "contimg-epoch")
DRIVERS = (
    "contimg-group",
    "contimg-reprocess",
    "contimg-backfill",
    "contimg-backfill-chunk",
    "contimg-nightly",
)


@pytest.mark.parametrize("name", sorted(FILES))
def test_committed_yaml_is_current(name: str) -> None:
    assert (RENDERED / name).read_text() == FILES[name], (
        "run `make render` and commit the difference"
    )


def test_the_engine_walks_what_is_committed() -> None:
    assert {template.name: template.to_dict() for template in all_templates()} == DOCUMENTS


def test_nothing_else_is_committed(tmp_path: Path) -> None:
    assert {path.name for path in RENDERED.iterdir()} == set(FILES)
    (tmp_path / "contimg-gone.yaml").touch()
    main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_lint_finds_nothing() -> None:
    assert lint(EVERYTHING) == []


def test_the_local_engine_understands_all() -> None:
    library = Library(DOCUMENTS.values())
    group = library.workflow(
        "x", "contimg-process-group", {"store": "/s", "group": "20260125t222605"}
    )
    assert list(group.jobs) == ["convert", "flag", "calibrate", "image", "photometry", "report"]
    epoch = library.workflow("x", "contimg-epoch", {"store": "/s", "strip": "33", "epoch": "e"})
    assert list(epoch.jobs) == ["normalize", "variability", "report"]
    assert list(library.workflow("x", "contimg-watch", {"store": "/s"}).jobs) == ["main"]


@pytest.mark.parametrize("name", sorted({**NEEDS, **COMMANDS}))
def test_a_stage_s_form_is_its_help(name: str) -> None:
    form = {
        one["name"]: one for one in DOCUMENTS[f"contimg-{name}"]["spec"]["arguments"]["parameters"]
    }
    for key, field in options_of(name).model_fields.items():
        assert form[key]["description"] == " ".join((field.description or "").split()) != ""
        assert ("value" in form[key]) is not field.is_required()
    args = DOCUMENTS[f"contimg-{name}"]["spec"]["templates"][0]["container"]["args"]
    assert [word.partition("=")[0] for word in args] == [
        flag(key) for key in options_of(name).model_fields
    ]


@pytest.mark.parametrize("name", sorted({**NEEDS, **COMMANDS}))
def test_defaults_survive_as_words(name: str) -> None:
    """What a template passes by default is what the stage takes by default."""
    for field in options_of(name).model_fields.values():
        if not field.is_required() and word_of(field.default):
            assert word_of(field.default) == word_of(_read(field, word_of(field.default)))


def _read(field: Any, word: str) -> Any:
    return TypeAdapter(
        Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    ).validate_python(word)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_option_of_every_stage_can_be_set(pipeline: str) -> None:
    spec = DOCUMENTS[pipeline]["spec"]
    asked = {one["name"] for one in spec["arguments"]["parameters"]}
    for task in spec["templates"][0]["dag"]["tasks"]:
        free = [
            one
            for one in task["arguments"]["parameters"]
            if one["value"] == f"{{{{inputs.parameters.{task['name']}-{one['name']}}}}}"
        ]
        assert {f"{task['name']}-{one['name']}" for one in free} <= asked
        assert all(one["description"] for one in spec["arguments"]["parameters"])


def test_products_lie_where_the_layout_says() -> None:
    job = (
        Library(DOCUMENTS.values())
        .workflow(
            "x",
            "contimg-process-group",
            {"store": "s3://b/p", "group": "20260125t222605", "attempt": "2"},
        )
        .jobs["convert"]
    )
    assert job.arguments["out"] == "s3://b/p/products/20260125t222605/convert"
    assert job.arguments["group"] == "s3://b/p/groups/20260125t222605-a2.json"


# What lint must find


def spoiled(name: str, *path: Any, value: Any = None, drop: bool = False) -> list[str]:
    documents = copy.deepcopy(DOCUMENTS)
    part: Any = documents[name]
    for step in path[:-1]:
        part = part[step]
    if drop:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    library = Lint(
        [*documents.values(), *(one for one in EVERYTHING if one["kind"] != "WorkflowTemplate")]
    )
    return problems_of(documents[name], library)


TEMPLATE = ("spec", "templates", 0)
TASK = (*TEMPLATE, "dag", "tasks", 1)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("spec", "entrypont"), "main", ".spec: unknown field entrypont"),
        (
            (*TEMPLATE, "container", "comand"),
            ["x"],
            ".spec.templates[0].container: unknown field comand",
        ),
        (
            (*TEMPLATE, "retryStrategy", "backoff", "maximum"),
            "1",
            ".spec.templates[0].retryStrategy.backoff: unknown field maximum",
        ),
        (
            (*TEMPLATE, "container", "env", 0, "vale"),
            "x",
            ".spec.templates[0].container.env[0]: unknown field vale",
        ),
        ((*TEMPLATE, "container", "args"), "no list", "valid list"),
        (("spec", "entrypoint"), "other", "entrypoint other is no template"),
        (
            (*TEMPLATE, "container", "args", 0),
            "--out={{inputs.parameters.nowhere}}",
            "{{inputs.parameters.nowhere}} leads nowhere",
        ),
        (
            (*TEMPLATE, "container", "args", 0),
            "--nothing={{inputs.parameters.out}}",
            "contimg-flag takes no --nothing=",
        ),
        (
            (*TEMPLATE, "container", "args"),
            ["--out={{inputs.parameters.out}}"],
            "contimg-flag requires --ms",
        ),
    ],
)
def test_lint_finds_what_is_wrong_with_a_stage(
    path: tuple[Any, ...], value: Any, problem: str
) -> None:
    assert any(
        problem in one and one.startswith("contimg-flag: ")
        for one in spoiled("contimg-flag", *path, value=value)
    )


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ((*TASK, "templateRef", "name"), "contimg-flog", "which is nowhere"),
        ((*TASK, "depends"), "convret", "depends on convret, which is none"),
        ((*TASK, "depends"), "", "{{tasks.convert.outputs.parameters.artifact}} leads nowhere"),
        (
            (*TASK, "arguments", "parameters", 0, "name"),
            "outt",
            "passes outt, which its template does not take",
        ),
        (
            (*TASK, "arguments", "parameters", 0, "name"),
            "outt",
            "does not pass out, which its template requires",
        ),
        (
            (*TASK, "arguments", "parameters", 0, "value"),
            "{{workflow.parameters.store}}",
            "leads nowhere",
        ),
        (
            (*TASK, "arguments", "parameters", 1, "value"),
            "{{tasks.convert.outputs.parameters.nothing}}",
            "leads nowhere",
        ),
        (("spec", "arguments", "parameters"), [], "the entrypoint's input store is no argument"),
    ],
)
def test_lint_finds_what_is_wrong_with_a_pipeline(
    path: tuple[Any, ...], value: Any, problem: str
) -> None:
    found = spoiled("contimg-process-group", *path, value=value)
    assert any(problem in one for one in found), found


def test_the_schema_is_closed_at_every_depth() -> None:
    """An unknown field put anywhere into any template is found."""
    for document in EVERYTHING:
        model = CronWorkflow if document["kind"] == "CronWorkflow" else WorkflowTemplate
        for path in _dicts(document):
            found = list(unknown_fields(_with(document, path), model))
            free = path[-1:] in {
                ("labels",),
                ("annotations",),
                ("limits",),
                ("requests",),
                ("labelsFrom",),
            }
            assert free or any("unknown field zzz" in one for one in found), (
                document["metadata"]["name"],
                path,
            )


def _dicts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    here = [path] if isinstance(value, dict) else []
    # A few of a long list stand for all.
    return here + [deep for key, part in list(items)[:4] for deep in _dicts(part, (*path, key))]


def _with(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    spoilt = copy.deepcopy(document)
    part: Any = spoilt
    for step in path:
        part = part[step]
    part["zzz"] = "x"
    return spoilt
