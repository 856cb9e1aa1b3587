"""Hera's templates of stages, commands and pipelines, made from specs, options and pipelines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hera.shared.serialization import MISSING
from hera.workflows import DAG, Container, Parameter, S3Artifact, Task, WorkflowTemplate, models
from hera.workflows import NoneArchiveStrategy as PlainFile

from contimg.runtime.command import Command
from contimg.runtime.options import flag
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.stage import StageSpec
from contimg_workflows import pods, tasks
from contimg_workflows.forms import PREFIX, Form, options_form, pipeline_form
from contimg_workflows.pods import NEVER_RETRIED, OUTPUTS, VERSION, labels
from contimg_workflows.tasks import DAY_S, MAIN, PROCESS, STEPS, output_of

EXIT = "exit"
"""The template that Argo runs last, however a workflow ends."""
COMMAND_IMAGE = "contimg-watch"
"""The image that holds all commands."""
UID, NAME = "{{workflow.uid}}", "{{workflow.name}}"
KEPT: dict[str, Any] = {
    "ttl_strategy": models.TTLStrategy(
        seconds_after_success=3 * DAY_S, seconds_after_failure=14 * DAY_S
    ),
    "pod_gc": models.PodGC(strategy="OnPodCompletion", delete_delay_duration="600s"),
}
"""How long a workflow and its pods are kept."""


def program_template(program: StageSpec | Command) -> WorkflowTemplate:
    """Make the template of a stage or command; the form in the Argo UI is the program's --help.

    Every input's default is empty, which the program takes as not given, so that a task passes only
    what is wired and the program's own defaults hold.
    """
    form, name, resources = options_form(program.options), program.name, program.resources
    if resources is None:
        raise ValueError(name)
    outputs: tuple[str, ...]
    views: tuple[str, ...]
    if isinstance(program, StageSpec):
        command, image, outputs = [program.program], program.program, tasks.STAGE_OUTPUTS
        inputs, views, limit = [*form, "config"], program.views, program.semaphore
    else:
        command, image, outputs = ["contimg", name], COMMAND_IMAGE, program.outputs
        inputs, views, limit = [*form], (), ""
    # Files that the Argo UI shows: the summary, and the stage's pictures and pages.
    shown = [
        S3Artifact(
            name=view.partition(".")[0],
            path=f"{OUTPUTS}/{view}",
            key=f"argo/{{{{workflow.name}}}}/{{{{pod.name}}}}/{view}",
            archive=PlainFile(),
            optional=True,
        )
        for view in ("summary.json", *views)
    ]
    with WorkflowTemplate(
        name=PREFIX + name,
        entrypoint=MAIN,
        arguments=form_parameters(form),
        labels=labels(name),
        annotations=describe(PREFIX + name, program.options.__doc__ or ""),
        active_deadline_seconds=DAY_S,
        **KEPT,
    ) as template:
        Container(
            name=MAIN,
            image=f"{image}:{VERSION}",
            command=command,
            args=[f"{flag(one)}={text}" for one, text in references(inputs).items()],
            inputs=[Parameter(name=one, default="") for one in inputs],
            outputs=[
                *(
                    Parameter(name=one, value_from=models.ValueFrom(path=f"{OUTPUTS}/{one}"))
                    for one in outputs
                ),
                *shown,
            ],
            labels=labels(name),
            synchronization=pods.semaphore(limit) if limit else None,
            metrics=pods.metrics(name),
            **pods.pod_settings(resources),
        )
    return template


def pipeline_template(pipeline: Pipeline) -> WorkflowTemplate:
    """Make the WorkflowTemplate of a pipeline: a command that checks options, then the steps."""
    form, name = pipeline_form(pipeline), pipeline.name
    with workflow_template(
        name, pipeline.title, pipeline.description, form, pipeline.subject, is_exclusive=True
    ) as template:
        steps_dag(pipeline, form)
        with DAG(name=MAIN, inputs=inputs(form), retry_strategy=NEVER_RETRIED):
            values = references(form)
            command, given = tasks.first_command(name, values, uid=UID, workflow=NAME)
            passed = {**values, "options": output_of(command.name, "options")}
            condition = f"{output_of(command.name, 'claimed')} == true"
            process = Task(
                name=PROCESS,
                template=STEPS,
                arguments={one: passed[one] for one in form if one != "profile"},
                when=condition if "claimed" in command.outputs else None,
            )
            command_task(command.name, given).next(process)
        exit_dag(name, form)
    return template


def steps_dag(pipeline: Pipeline, form: Form) -> None:
    """Add the DAG of a pipeline's steps; `options` is resolved, the profile with it."""
    values, names = references(form), [name for name in form if name != "profile"]
    with DAG(name=STEPS, inputs=inputs(names), retry_strategy=NEVER_RETRIED):
        for stage in pipeline.order:
            Task(
                name=stage,
                template_ref=models.TemplateRef(name=PREFIX + stage, template=MAIN),
                arguments=tasks.step_arguments(pipeline, stage, values),
                depends=" && ".join(pipeline.needs[stage]) or None,
            )


def workflow_template(
    name: str,
    title: str,
    text: str,
    form: Form,
    subject: str = "",
    *,
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
    locks = models.Synchronization(mutexes=[models.Mutex(name=f"{PREFIX}{about}")])
    source = models.LabelValueFrom(expression=f"workflow.parameters.{subject}")
    return WorkflowTemplate(
        name=PREFIX + name,
        entrypoint=MAIN,
        arguments=form_parameters(form),
        labels=labels(name),
        annotations=describe(f"{PREFIX}{name}: {title}", text),
        workflow_metadata=models.WorkflowMetadata(
            labels={**labels(name), "contimg/pipeline": name},
            annotations={"workflows.argoproj.io/title": f"{about}: {title}" if subject else title},
            labels_from={f"contimg/{subject}": source} if subject else None,
        ),
        on_exit=EXIT,
        synchronization=locks if is_exclusive else None,
        active_deadline_seconds=deadline_s,
        **KEPT,
    )


def exit_dag(name: str, form: Form) -> None:
    """Add the template that records how the workflow ended."""
    given = {one: f"{{{{workflow.parameters.{one}}}}}" for one in form}
    ended = {"status": "{{workflow.status}}", "failures": "{{workflow.failures}}"}
    with DAG(name=EXIT):
        own = {"uid": UID, "workflow": NAME, **ended}
        command_task("record", {**tasks.exit_arguments(name, given), **own})


def command_task(command: str, given: Mapping[str, str]) -> Task:
    """Add a task of a command."""
    return Task(
        name=command,
        template_ref=models.TemplateRef(name=PREFIX + command, template=MAIN),
        arguments={name: value for name, value in given.items() if value},
    )


def describe(title: str, text: str) -> dict[str, str]:
    """Return what the Argo UI shows beside a name."""
    shown = {"title": title, "description": " ".join(text.split())}
    return {f"workflows.argoproj.io/{key}": value for key, value in shown.items()}


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
