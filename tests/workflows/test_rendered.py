"""The committed YAML is what the code renders, and only what Argo and the stages understand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hera.workflows.models import CronWorkflow, WorkflowTemplate
from pydantic import Field, TypeAdapter

from contimg.runtime.command import commands
from contimg.runtime.options import Options, flag
from contimg.runtime.stage import stage_specs
from contimg_runs.pipelines import PIPELINES
from contimg_workflows.forms import DRIVERS, options_form, template_commands, word_of
from contimg_workflows.lint import lint
from contimg_workflows.lint.schema import unknown_fields
from contimg_workflows.render import main, render_all
from contimg_workflows.templates import form_parameters

RENDERED = Path(__file__).parents[2] / "charts" / "contimg" / "rendered"
FILES = render_all()
EVERYTHING: list[dict[str, Any]] = [yaml.safe_load(text) for text in FILES.values()]
DOCUMENTS: dict[str, dict[str, Any]] = {
    one["metadata"]["name"]: one for one in EVERYTHING if one["kind"] == "WorkflowTemplate"
}
PROGRAMS = sorted({*stage_specs(), *template_commands()})


def model_of(name: str) -> Any:
    return (stage_specs()[name] if name in stage_specs() else commands()[name]).options


@pytest.mark.parametrize("name", sorted(FILES))
def test_committed_yaml_is_current(name: str) -> None:
    remedy = "run `make render` and commit the difference"
    assert (RENDERED / name).read_text() == FILES[name], remedy


def test_every_program_and_pipeline_has_template() -> None:
    names = [*PROGRAMS, *PIPELINES, *DRIVERS]
    assert set(DOCUMENTS) == {f"contimg-{name}" for name in names}
    # What is made twice is the same, in the same order.
    assert render_all() == FILES


def test_render_removes_other_files(tmp_path: Path) -> None:
    assert {path.name for path in RENDERED.iterdir()} == set(FILES)
    (tmp_path / "contimg-gone.yaml").touch()
    main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_rendered_templates_pass_lint() -> None:
    assert lint(EVERYTHING) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_form_matches_options_and_inputs_are_empty(name: str) -> None:
    spec = DOCUMENTS[f"contimg-{name}"]["spec"]
    form = {one["name"]: one for one in spec["arguments"]["parameters"]}
    fields = model_of(name).model_fields
    for key, field in fields.items():
        assert form[key]["description"] == " ".join((field.description or "").split()) != ""
        assert ("value" in form[key]) is not field.is_required()
        if not field.is_required() and word_of(field.default):
            assert word_of(field.default) == word_of(_read(field, word_of(field.default)))
    (template,) = spec["templates"]
    inputs = [*fields, *(["config"] if name in stage_specs() else [])]
    flags = [word.partition("=")[0] for word in template["container"]["args"]]
    assert flags == [flag(key) for key in inputs]
    assert template["inputs"]["parameters"] == [{"name": key, "default": ""} for key in inputs]


def _read(field: Any, word: str) -> Any:
    kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(kind).validate_python(word)


class Model(Options):
    """Every kind of default."""

    text: str = "x"
    number: float = 0.05
    whole: int = 145348600
    yes: bool = True
    nothing: str | None = None
    words: tuple[str, ...] = ("a", "b")
    none: tuple[str, ...] = ()
    required: str = Field(description="Two\n  lines.")


def test_form_defaults_are_command_line_words() -> None:
    fields = options_form(Model)
    expected = {"text": "x", "number": "0.05", "whole": "145348600", "yes": "true"}
    expected |= {"nothing": "", "words": "a,b", "none": "", "required": None}
    assert {name: field.default for name, field in fields.items()} == expected
    assert {one.name: one.value for one in form_parameters(fields)} == expected
    assert fields["required"].description == "Two lines."
    assert (fields["yes"].choices, fields["text"].choices) == (("true", "false"), None)


def test_backfill_begins_with_calibrators() -> None:
    spec = DOCUMENTS["contimg-backfill"]["spec"]
    main = next(one for one in spec["templates"] if one["name"] == spec["entrypoint"])
    tasks = {one["name"]: one for one in main["dag"]["tasks"]}
    lists = {name: one["withParam"] for name, one in tasks.items() if "withParam" in one}
    names = ("calibrators", "others")
    assert lists == {one: f"{{{{tasks.select.outputs.parameters.{one}}}}}" for one in names}
    for name in lists:
        given = {one["name"]: one["value"] for one in tasks[name]["arguments"]["parameters"]}
        assert given["only"] == name
    # A chunk that failed does not keep the others, but the backfill fails.
    depends = "calibrators || calibrators.Failed || calibrators.Errored"
    assert tasks["others"]["depends"] == depends
    last = tasks["calibrators-ended-well"]
    assert (last["depends"], last["when"]) == ("calibrators", "false")
    child = DOCUMENTS["contimg-backfill-chunk"]["spec"]
    select = next(one for one in child["templates"] if one["name"] == "main")["dag"]["tasks"][0]
    passed = {one["name"]: one["value"] for one in select["arguments"]["parameters"]}
    assert passed["only"] == "{{inputs.parameters.only}}"
    assert "beam={{inputs.parameters.beam}}" in passed["set"].splitlines()


def test_unknown_field_is_found_at_any_depth() -> None:
    for document in EVERYTHING:
        model = CronWorkflow if document["kind"] == "CronWorkflow" else WorkflowTemplate
        for path in _dicts(document):
            if path and path[-1] in {"labels", "annotations", "limits", "requests", "labelsFrom"}:
                continue  # any name is allowed
            spoilt = copy.deepcopy(document)
            part: Any = spoilt
            for step in path:
                part = part[step]
            part["zzz"] = "x"
            found = list(unknown_fields(spoilt, model))
            where = (document["metadata"]["name"], path)
            assert any("unknown field zzz" in one for one in found), where


def _dicts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    here = [path] if isinstance(value, dict) else []
    # A few of a long list stand for all.
    return here + [deep for key, part in list(items)[:4] for deep in _dicts(part, (*path, key))]
