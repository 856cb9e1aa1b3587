"""The forms of templates: fields with defaults and choices, from options and pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contimg.runtime.command import Command, commands
from contimg.runtime.errors import UsageError
from contimg.runtime.options import Options, choices
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.stage import StageSpec, stage_specs
from contimg_runs.argo import FormField
from contimg_runs.pipelines import PIPELINES, find_pipeline

PREFIX = "contimg-"
REPROCESS, BACKFILL, BACKFILL_CHUNK, NIGHTLY = "reprocess", "backfill", "backfill-chunk", "nightly"
DRIVERS = {
    **dict.fromkeys((REPROCESS, BACKFILL, BACKFILL_CHUNK), "process-group"),
    NIGHTLY: "epoch",
}
"""The templates that start a pipeline, and which."""
SELECTED = ("first_day", "last_day", "redo")
"""Options of `contimg select` that a person sets."""
Form = dict[str, FormField]
STORE = FormField(
    name="store", description="Root URI of the store: s3://bucket/prefix or a directory."
)
OPTIONS = FormField(
    name="options",
    default="",
    description="Options of the stages, a YAML document {stage: {option: value}}.",
)
PROFILE = FormField(
    name="profile",
    default="",
    description="Name of one of the chart's profiles; `options` replaces its options one by one.",
)


def word_of(value: Any) -> str:  # noqa: ANN401 - any option's default
    """Return a value as a command line takes it; None and an empty list are the empty word."""
    if isinstance(value, list | tuple):
        return ",".join(word_of(part) for part in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def options_form(model: type[Options]) -> Form:
    """Return the form of a stage or command: the options of its command line."""
    form = {}
    for name, field in model.model_fields.items():
        words = ["true", "false"] if field.annotation is bool else choices(field)
        form[name] = FormField(
            name=name,
            default=None if field.is_required() else word_of(field.default),
            description=" ".join((field.description or "").split()),
            choices=tuple(words) if words else None,
        )
    return form


def pipeline_form(pipeline: Pipeline) -> Form:
    """Return the form of a pipeline."""
    own = {
        one.name: FormField(name=one.name, default=one.default, description=one.description)
        for one in pipeline.parameters
    }
    return {STORE.name: STORE, **own, **request_form(pipeline)}


def request_form(pipeline: Pipeline) -> Form:
    """Return the fields by which options of a pipeline's stages are set."""
    form = {OPTIONS.name: OPTIONS, PROFILE.name: PROFILE}
    for shortcut in pipeline.shortcuts:
        stage, _, option = shortcut.sets[0].partition(".")
        field = options_form(pipeline.specs[stage].options)[option]
        form[shortcut.name] = FormField(
            name=shortcut.name,
            default="",
            description=f"{field.description} Sets {', '.join(shortcut.sets)}.",
            choices=("", *field.choices) if field.choices else None,
        )
    return form


def driver_form(name: str) -> Form:
    """Return the form of a template that starts pipelines."""
    pipeline = find_pipeline(DRIVERS[name])
    request = request_form(pipeline)
    if name == NIGHTLY:
        days = options_form(commands()["strips"].options)["days"]
        return {STORE.name: STORE, days.name: days, **request}
    first = FormField(
        name="from",
        default=pipeline.order[0],
        description="First stage that runs again; earlier artifacts are reused.",
        choices=pipeline.order,
    )
    select, group = options_form(commands()["select"].options), pipeline_form(pipeline)
    selected = [*SELECTED, "only"] if name == BACKFILL_CHUNK else SELECTED
    subject = [group[pipeline.subject]] if name == REPROCESS else [select[n] for n in selected]
    return {one.name: one for one in (STORE, *subject, first)} | request


def find_form(template: str) -> Form:
    """Return the form of a template of this version; UsageError if there is no such template."""
    name = template.removeprefix(PREFIX)
    if name in PIPELINES:
        return pipeline_form(PIPELINES[name])
    if name in DRIVERS:
        return driver_form(name)
    if program := find_program(template):
        return options_form(program.options)
    known = sorted([*PIPELINES, *DRIVERS, *stage_specs(), *template_commands()])
    problem = f"There is no pipeline or stage of this name; there are {', '.join(known)}."
    raise UsageError(name, problem, "Correct the name.")


def find_program(template: str) -> StageSpec | Command | None:
    """Return the stage or command of a template; None for a pipeline or an unknown name."""
    name = template.removeprefix(PREFIX)
    return stage_specs().get(name) or template_commands().get(name)


def template_commands() -> dict[str, Command]:
    """Return the commands that have a template."""
    return {name: one for name, one in commands().items() if one.resources}


def pipeline_of(template: str) -> Pipeline | None:
    """Return the pipeline that a template's options are for; None for a stage or command."""
    name = template.removeprefix(PREFIX)
    return PIPELINES.get(DRIVERS.get(name, name))


def fill_form(where: str, form: Form, given: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every field of a form.

    Raises
    ------
    UsageError
        If a given field is unknown, a required one is missing, or a value is not among the choices.
    """
    for name in sorted(given.keys() - form.keys()):
        problem = f"There is no parameter {name!r}; the parameters are {', '.join(form)}."
        raise UsageError(where, problem, "Correct the name.")
    values = {}
    for name, field in form.items():
        value = given.get(name, field.default)
        if value is None:
            raise UsageError(where, f"Parameter {name!r} is required.", field.description)
        if field.choices and value not in field.choices:
            problem = f"{value!r} is not one of {', '.join(filter(None, field.choices))}."
            raise UsageError(f"{where}: {name}", problem, field.description)
        values[name] = value
    return values
