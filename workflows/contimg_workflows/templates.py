"""Hera's templates of stages, commands and pipelines, made from specs, options and pipelines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from hera.shared.serialization import MISSING
from hera.workflows import DAG, Container, Parameter, Task, WorkflowTemplate
from hera.workflows.models import (
    LabelValueFrom,
    Mutex,
    PodGC,
    Synchronization,
    TemplateRef,
    TTLStrategy,
    ValueFrom,
    WorkflowMetadata,
)

from contimg.runtime.command import Command
from contimg.runtime.options import flag
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.stage import Resources, StageSpec
from contimg_workflows import pods
from contimg_workflows.forms import PREFIX, Form, options_form, pipeline_form
from contimg_workflows.pods import OUTPUTS, labels
from contimg_workflows.tasks import (
    MAIN,
    PROCESS,
    STAGE_OUTPUTS,
    STEPS,
    exit_arguments,
    first_command,
    output_of,
    step_arguments,
)

VERSION = version("contimg")
DAY_S = 86400
EXIT = "exit"
"""The template that Argo runs last, however a workflow ends."""
COMMAND_IMAGE = "contimg-watch"
"""The image that holds all commands."""
UID, NAME = "{{workflow.uid}}", "{{workflow.name}}"


def stage_template(spec: StageSpec) -> WorkflowTemplate:
    """Make the WorkflowTemplate of a stage; the form in the Argo UI is the stage's --help."""
    return _program_template(
        spec,
        spec.resources,
        command=[spec.program],
        image=spec.program,
        outputs=STAGE_OUTPUTS,
    )


def command_template(command: Command) -> WorkflowTemplate:
    """Make the WorkflowTemplate of a command of workflows."""
    if command.resources is None:
        raise ValueError(command.name)
    return _program_template(
        command,
        command.resources,
        command=["contimg", command.name],
        image=COMMAND_IMAGE,
        outputs=command.outputs,
    )


def _program_template(
    program: StageSpec | Command,
    resources: Resources,
    *,
    command: list[str],
    image: str,
    outputs: Iterable[str],
) -> WorkflowTemplate:
    """Make the template of one program.

    Every input's default is empty, which the program takes as not given, so that a task passes only
    what is wired and the program's own defaults hold.
    """
    form, name = options_form(program.options), program.name
    stage = program if isinstance(program, StageSpec) else None
    inputs = [*form, *(["config"] if stage else [])]
    with WorkflowTemplate(
        name=PREFIX + name,
        entrypoint=MAIN,
        arguments=form_parameters(form),
        labels=labels(name, VERSION),
        annotations=describe(PREFIX + name, program.options.__doc__ or ""),
        **run_settings(),
    ) as template:
        Container(
            name=MAIN,
            image=f"{image}:{VERSION}",
            command=command,
            args=[f"{flag(one)}={{{{inputs.parameters.{one}}}}}" for one in inputs],
            env=pods.environment(VERSION),
            inputs=[Parameter(name=one, default="") for one in inputs],
            outputs=[
                *(
                    Parameter(name=one, value_from=ValueFrom(path=f"{OUTPUTS}/{one}"))
                    for one in outputs
                ),
                *pods.artifacts(stage.views if stage else ()),
            ],
            resources=pods.requests_and_limits(resources),
            volumes=pods.folders(resources),
            labels=labels(name, VERSION),
            retry_strategy=pods.retry_strategy(),
            pod_spec_patch=pods.memory_retry_patch(resources),
            synchronization=pods.semaphore(stage.semaphore) if stage and stage.semaphore else None,
            metrics=pods.metrics(name),
            active_deadline_seconds=resources.deadline_s,
            **pods.restricted_security_context(),
        )
    return template


def pipeline_template(pipeline: Pipeline) -> WorkflowTemplate:
    """Make the WorkflowTemplate of a pipeline: a command that checks options, then the steps."""
    form = pipeline_form(pipeline)
    with workflow_template(
        pipeline.name,
        pipeline.title,
        pipeline.description,
        form,
        subject=pipeline.subject,
        is_exclusive=True,
    ) as template:
        steps_dag(pipeline, form)
        with DAG(name=MAIN, inputs=inputs(form), retry_strategy=pods.never_retried()):
            values = references(form)
            command, given = first_command(pipeline.name, values, uid=UID, workflow=NAME)
            process = Task(
                name=PROCESS,
                template=STEPS,
                arguments={
                    name: values[name] if name != "options" else output_of(command.name, name)
                    for name in step_inputs(form)
                },
                when=f"{output_of(command.name, 'claimed')} == true"
                if "claimed" in command.outputs
                else None,
            )
            command_task(command.name, given).next(process)
        exit_dag(pipeline.name, form)
    return template


def steps_dag(pipeline: Pipeline, form: Form) -> None:
    """Add the DAG of a pipeline's steps; `options` is the resolved document."""
    values = references(form)
    with DAG(name=STEPS, inputs=inputs(step_inputs(form)), retry_strategy=pods.never_retried()):
        for stage in pipeline.order:
            Task(
                name=stage,
                template_ref=TemplateRef(name=PREFIX + stage, template=MAIN),
                arguments=step_arguments(pipeline, stage, values),
                depends=" && ".join(pipeline.needs[stage]) or None,
            )


def step_inputs(form: Form) -> list[str]:
    """Return the inputs of a pipeline's steps: its form without the profile, which is resolved."""
    return [name for name in form if name != "profile"]


def workflow_template(
    name: str,
    title: str,
    text: str,
    form: Form,
    *,
    subject: str = "",
    is_exclusive: bool = False,
    deadline_s: int = DAY_S,
) -> WorkflowTemplate:
    """Begin the template of a workflow whose end is recorded.

    Parameters
    ----------
    subject
        The parameter that its runs are about.
    is_exclusive
        No two workflows of one subject run at the same time: their rows are in the same files.
    """
    # The subject comes first, since Argo's list of workflows cuts titles after some twenty letters.
    about = f"{{{{workflow.parameters.{subject}}}}}"
    mutex = Mutex(name=f"{PREFIX}{about}")
    source = LabelValueFrom(expression=f"workflow.parameters.{subject}")
    return WorkflowTemplate(
        name=PREFIX + name,
        entrypoint=MAIN,
        arguments=form_parameters(form),
        labels=labels(name, VERSION),
        annotations=describe(f"{PREFIX}{name}: {title}", text),
        workflow_metadata=WorkflowMetadata(
            labels={**labels(name, VERSION), "contimg/pipeline": name},
            annotations={"workflows.argoproj.io/title": f"{about}: {title}" if subject else title},
            labels_from={f"contimg/{subject}": source} if subject else None,
        ),
        on_exit=EXIT,
        synchronization=Synchronization(mutexes=[mutex]) if is_exclusive else None,
        **run_settings(deadline_s),
    )


def exit_dag(name: str, form: Form) -> None:
    """Add the template that records how the workflow ended."""
    values = {one: f"{{{{workflow.parameters.{one}}}}}" for one in form}
    ended = {"status": "{{workflow.status}}", "failures": "{{workflow.failures}}"}
    with DAG(name=EXIT):
        given = {**exit_arguments(name, values), "uid": UID, "workflow": NAME, **ended}
        command_task("record", given)


def command_task(command: str, given: Mapping[str, str]) -> Task:
    """Add a task of a command."""
    return Task(
        name=command,
        template_ref=TemplateRef(name=PREFIX + command, template=MAIN),
        arguments={name: value for name, value in given.items() if value},
    )


def run_settings(deadline_s: int = DAY_S) -> dict[str, Any]:
    """Return how long a workflow may take, and how long it and its pods are kept."""
    return {
        "active_deadline_seconds": deadline_s,
        "ttl_strategy": TTLStrategy(
            seconds_after_success=3 * DAY_S, seconds_after_failure=14 * DAY_S
        ),
        "pod_gc": PodGC(strategy="OnPodCompletion", delete_delay_duration="600s"),
    }


def describe(title: str, text: str) -> dict[str, str]:
    """Return what the Argo UI shows beside a name."""
    return {
        "workflows.argoproj.io/title": title,
        "workflows.argoproj.io/description": " ".join(text.split()),
    }


def form_parameters(form: Form) -> list[Parameter]:
    """Return the parameters of a form, each with its default and choices."""
    return [
        Parameter(
            name=one.name,
            description=one.description,
            enum=None if one.choices is None else list(one.choices),
            value=MISSING if one.default is None else one.default,
        )
        for one in form.values()
    ]


def inputs(names: Iterable[str]) -> list[Parameter]:
    """Return inputs that must be given."""
    return [Parameter(name=name) for name in names]


def references(names: Iterable[str]) -> dict[str, str]:
    """Return references to inputs by their names."""
    return {name: f"{{{{inputs.parameters.{name}}}}}" for name in names}
