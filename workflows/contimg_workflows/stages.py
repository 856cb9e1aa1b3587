"""A WorkflowTemplate per stage, made from its options: the form in the Argo UI is the stage's --help."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hera.workflows import Container, Env, Parameter, Resources, WorkflowTemplate
from hera.workflows.models import ValueFrom

from contimg.options import choices, flag
from contimg_workflows import retry

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from contimg.options import Options
    from contimg.stage import Stage

OUTPUTS = "/tmp/outputs"  # noqa: S108 - in a pod of its own
# Threads of BLAS on few cores wait for each other: 15 times slower was measured.
ENVIRONMENT = {"CONTIMG_OUTPUTS": OUTPUTS, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
LABELS = {"app.kubernetes.io/name": "contimg", "app.kubernetes.io/part-of": "contimg"}


@dataclass(frozen=True)
class Needs:
    """What a stage may take, for a full-size group."""

    deadline_s: int
    """A try that runs longer is ended."""
    memory: str
    """Request and limit, as Kubernetes writes it."""
    cpu: str = "1"


NEEDS = {
    "watch": Needs(600, "1Gi"),
    "convert": Needs(1200, "4Gi"),
    "flag": Needs(1800, "6Gi"),
    "calibrate": Needs(2400, "8Gi"),
    "image": Needs(4000, "8Gi", cpu="2"),
    "photometry": Needs(900, "4Gi"),
    "report": Needs(600, "4Gi"),
    "normalize": Needs(1800, "4Gi"),
    "variability": Needs(3600, "4Gi"),
}
"""The stages that have a template; simulate is for people and tests."""


def options_of(name: str) -> type[Options]:
    """Return the options model of a stage, or of watch, which makes no artifact."""
    module = importlib.import_module(f"contimg_{name}.options")
    model: type[Options] = module.WatchOptions if name == "watch" else module.STAGE.options
    return model


def stage_of(program: str) -> Stage | None:
    """Return the stage of an executable's name; None if it makes no artifact."""
    module = importlib.import_module(f"{program.replace('-', '_')}.options")
    stage: Stage | None = getattr(module, "STAGE", None)
    return stage


def stage_template(name: str, model: type[Options], version: str, needs: Needs) -> WorkflowTemplate:
    """Make the WorkflowTemplate of a stage from its options."""
    doc = " ".join((model.__doc__ or "").split())
    with WorkflowTemplate(
        name=f"contimg-{name}",
        entrypoint="main",
        arguments=[parameter(key, field) for key, field in model.model_fields.items()],
        labels={**LABELS, "app.kubernetes.io/component": name},
        annotations={"workflows.argoproj.io/title": f"contimg {name}", "workflows.argoproj.io/description": doc},
    ) as template:
        Container(
            name="main",
            image=f"contimg-{name}:{version}",
            command=[f"contimg-{name}"],
            args=[f"{flag(key)}={{{{inputs.parameters.{key}}}}}" for key in model.model_fields],
            env=[Env(name=key, value=value) for key, value in ENVIRONMENT.items()],
            inputs=[parameter(key, field, form=False) for key, field in model.model_fields.items()],
            outputs=[_output(key) for key in (("summary",) if name == "watch" else ("artifact",))],
            resources=Resources(cpu_request=needs.cpu, memory_request=needs.memory, memory_limit=needs.memory),
            retry_strategy=retry.strategy(),
            active_deadline_seconds=needs.deadline_s,
        )
    return template


def parameter(name: str, field: FieldInfo, *, form: bool = True) -> Parameter:
    """Make the parameter of an option: for a form with its value and choices, else a template's input with its default."""
    text = " ".join((field.description or "").split())
    given: dict[str, Any] = {} if field.is_required() else {"value" if form else "default": word_of(field.default)}
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


def _output(name: str) -> Parameter:
    file = f"{OUTPUTS}/summary.json" if name == "summary" else f"{OUTPUTS}/{name}"
    return Parameter(name=name, value_from=ValueFrom(path=file))
