"""The forms of templates: fields with defaults and choices, from options and pipelines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from contimg.runtime.command import Command, commands
from contimg.runtime.errors import UsageError
from contimg.runtime.options import Options, choices
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.stage import stage_specs
from contimg_runs.argo import FormField
from contimg_runs.pipelines import PIPELINES, find_pipeline

PREFIX = "contimg-"
REPROCESS, BACKFILL, BACKFILL_CHUNK, NIGHTLY = "reprocess", "backfill", "backfill-chunk", "nightly"
DRIVERS = {
    REPROCESS: "process-group",
    BACKFILL: "process-group",
    BACKFILL_CHUNK: "process-group",
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


def option_field(name: str, field: FieldInfo) -> FormField:
    """Make the form's field of an option."""
    words = ["true", "false"] if field.annotation is bool else choices(field)
    return FormField(
        name=name,
        default=None if field.is_required() else word_of(field.default),
        description=" ".join((field.description or "").split()),
        choices=tuple(words) if words else None,
    )


def word_of(value: Any) -> str:  # noqa: ANN401 - any option's default
    """Return a value as a command line takes it; None and an empty list are the empty word."""
    if isinstance(value, list | tuple):
        return ",".join(word_of(part) for part in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def options_form(model: type[Options]) -> Form:
    """Return the form of a stage or command: the options of its command line."""
    return {name: option_field(name, field) for name, field in model.model_fields.items()}


def pipeline_form(pipeline: Pipeline) -> Form:
    """Return the form of a pipeline."""
    own = [
        FormField(name=one.name, default=one.default, description=one.description)
        for one in pipeline.parameters
    ]
    return _by_name([STORE, *own, *request_form(pipeline).values()])


def request_form(pipeline: Pipeline) -> Form:
    """Return the fields by which options of a pipeline's stages are set."""
    shortcuts = []
    for shortcut in pipeline.shortcuts:
        stage, _, option = shortcut.sets[0].partition(".")
        field = option_field(option, pipeline.specs[stage].options.model_fields[option])
        shortcuts.append(
            FormField(
                name=shortcut.name,
                default="",
                description=f"{field.description} Sets {', '.join(shortcut.sets)}.",
                choices=("", *field.choices) if field.choices else None,
            )
        )
    return _by_name([OPTIONS, PROFILE, *shortcuts])


def driver_form(name: str) -> Form:
    """Return the form of a template that starts pipelines."""
    pipeline = find_pipeline(DRIVERS[name])
    request = list(request_form(pipeline).values())
    if name == NIGHTLY:
        return _by_name([STORE, options_form(commands()["strips"].options)["days"], *request])
    first = FormField(
        name="from",
        default=pipeline.order[0],
        description="First stage that runs again; earlier artifacts are reused.",
        choices=pipeline.order,
    )
    select = options_form(commands()["select"].options)
    subject = (
        [pipeline_form(pipeline)[pipeline.subject]]
        if name == REPROCESS
        else [select[option] for option in SELECTED]
    )
    return _by_name([STORE, *subject, first, *request])


def find_form(template: str) -> Form:
    """Return the form of a template of this version.

    Raises
    ------
    UsageError
        If there is no such template.
    """
    name = template.removeprefix(PREFIX)
    if name in PIPELINES:
        return pipeline_form(PIPELINES[name])
    if name in DRIVERS:
        return driver_form(name)
    if name in stage_specs():
        return options_form(stage_specs()[name].options)
    if name in template_commands():
        return options_form(commands()[name].options)
    known = sorted([*PIPELINES, *DRIVERS, *stage_specs(), *template_commands()])
    problem = f"There is no pipeline or stage of this name; there are {', '.join(known)}."
    raise UsageError(name, problem, "Correct the name.")


def template_commands() -> dict[str, Command]:
    """Return the commands that have a template."""
    return {name: one for name, one in commands().items() if one.resources}


def pipeline_of(template: str) -> Pipeline | None:
    """Return the pipeline that a template's options are for; None for a stage or command."""
    name = template.removeprefix(PREFIX)
    name = DRIVERS.get(name, name)
    return PIPELINES.get(name)


def fill_form(where: str, form: Form, given: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every field of a form.

    Raises
    ------
    UsageError
        If a given field is unknown, a required one is missing, or a value is not among the choices.
    """
    for name in given:
        if name not in form:
            problem = f"There is no parameter {name!r}; the parameters are {', '.join(form)}."
            raise UsageError(where, problem, "Correct the name.")
    values = {name: given.get(name, one.default) for name, one in form.items()}
    for name, value in values.items():
        allowed = form[name].choices
        if value is None:
            raise UsageError(where, f"Parameter {name!r} is required.", form[name].description)
        if allowed and value not in allowed:
            problem = f"{value!r} is not one of {', '.join(filter(None, allowed))}."
            raise UsageError(f"{where}: {name}", problem, form[name].description)
    return {name: value for name, value in values.items() if value is not None}


def _by_name(fields: Iterable[FormField]) -> Form:
    return {one.name: one for one in fields}
