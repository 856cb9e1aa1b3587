"""A WorkflowTemplate per stage and per command, made from its options: the form in the Argo UI is the program's --help."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hera.workflows import Container, Parameter, WorkflowTemplate
from hera.workflows.models import ValueFrom

from contimg.runtime.options import choices, flag
from contimg.runtime.stage import StageSpec, stage_specs
from contimg_workflows import pods, retry
from contimg_workflows.pods import ENVIRONMENT, OUTPUTS, Needs
from contimg_workflows.runs import described, run_settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from contimg.runtime.options import Options

__all__ = [
    "COMMANDS",
    "ENVIRONMENT",
    "NEEDS",
    "Command",
    "Needs",
    "command_of",
    "options_of",
    "stage_of",
    "stage_template",
]

NEEDS = {
    "watch": Needs(600, 1024, cpu="250m"),
    **{
        name: Needs(
            deadline_s=spec.resources.deadline_s,
            memory_mi=spec.resources.memory_mi,
            scratch_mi=spec.resources.scratch_mi,
            cpu=spec.resources.cpu,
            semaphore=spec.semaphore,
            views=spec.views,
        )
        for name, spec in stage_specs().items()
        if name != "simulate"
    },
}
"""The stages that have a template; simulate is for people and tests."""


@dataclass(frozen=True)
class Command:
    """A command `contimg NAME` that rules over workflows; it makes no artifact."""

    options: str
    """``module:Model``."""
    outputs: tuple[str, ...] = ()
    """Files that it hands over, each an output parameter."""


COMMANDS = {
    "claim": Command("contimg_runs.options:ClaimOptions", ("claimed",)),
    "begin": Command(
        "contimg_runs.options:BeginOptions",
        ("attempt", "convert", "flag", "calibrate", "image", "photometry"),
    ),
    "record": Command("contimg_runs.options:RecordOptions"),
    "sweep": Command("contimg_runs.options:SweepOptions"),
    "select": Command("contimg_runs.options:SelectOptions", ("chunks", "new", "again")),
    "strips": Command("contimg_runs.options:StripsOptions", ("strips",)),
}
COMMAND_NEEDS = Needs(600, 512, cpu="100m")
COMMAND_IMAGE = "watch"
"""The image that holds all commands."""


def options_of(name: str) -> type[Options]:
    """Return the options model of a stage, of a command, or of watch, which makes no artifact."""
    path = COMMANDS[name].options if name in COMMANDS else f"contimg_{name}.options:"
    module, _, found = path.partition(":")
    loaded = importlib.import_module(module)
    model: type[Options] = (
        getattr(loaded, found)
        if found
        else loaded.WatchOptions
        if name == "watch"
        else loaded.STAGE.options
    )
    return model


def stage_of(program: str) -> StageSpec | None:
    """Return the stage of an executable's name; None if it makes no artifact."""
    if program == "contimg":
        return None
    module = importlib.import_module(f"{program.replace('-', '_')}.options")
    stage: StageSpec | None = getattr(module, "STAGE", None)
    return stage


def command_of(name: str) -> list[str]:
    """Return the command of a stage's or a command's container."""
    return ["contimg", name] if name in COMMANDS else [f"contimg-{name}"]


def stage_template(name: str, model: type[Options], version: str, needs: Needs) -> WorkflowTemplate:
    """Make the WorkflowTemplate of a stage or a command from its options."""
    with WorkflowTemplate(
        name=f"contimg-{name}",
        entrypoint="main",
        arguments=[parameter(key, field) for key, field in model.model_fields.items()],
        labels=pods.labels(name, version),
        annotations=described(f"contimg-{name}", model.__doc__),
        **run_settings(),
    ) as template:
        Container(
            name="main",
            image=f"contimg-{COMMAND_IMAGE if name in COMMANDS else name}:{version}",
            command=command_of(name),
            args=[f"{flag(key)}={{{{inputs.parameters.{key}}}}}" for key in model.model_fields],
            env=pods.environment(version),
            inputs=[parameter(key, field, form=False) for key, field in model.model_fields.items()],
            outputs=[*_outputs(name), *pods.artifacts(needs)],
            resources=pods.resources(needs),
            volumes=pods.folders(needs),
            labels=pods.labels(name, version),
            retry_strategy=retry.strategy(),
            pod_spec_patch=pods.ramp(needs),
            synchronization=pods.semaphore(needs.semaphore) if needs.semaphore else None,
            metrics=pods.metrics(name),
            active_deadline_seconds=needs.deadline_s,
            **pods.walls(),
        )
    return template


def parameter(name: str, field: FieldInfo, *, form: bool = True) -> Parameter:
    """Make the parameter of an option: for a form with its value and choices, else a template's input with its default."""
    text = " ".join((field.description or "").split())
    given: dict[str, Any] = (
        {} if field.is_required() else {"value" if form else "default": word_of(field.default)}
    )
    enum = words_of(field) if form else None
    return Parameter(name=name, description=text, enum=enum, **given)


def words_of(field: FieldInfo) -> list[str] | None:
    """Return the few words that an option may have, or None."""
    return ["true", "false"] if field.annotation is bool else choices(field)


def word_of(value: Any) -> str:  # noqa: ANN401 - any option's default
    """Return a value as a command line takes it; None and an empty list are the empty word."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(word_of(part) for part in value)
    return str(value)


def _outputs(name: str) -> list[Parameter]:
    """Return what a stage hands to the tasks after it, and what a command does."""
    if name in COMMANDS or name == "watch":
        files = COMMANDS[name].outputs if name in COMMANDS else ()
    else:
        files = ("artifact", "cached", "seconds")
    return [Parameter(name=file, value_from=ValueFrom(path=f"{OUTPUTS}/{file}")) for file in files]
