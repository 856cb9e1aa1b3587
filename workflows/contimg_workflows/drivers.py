"""The templates that start pipelines: reprocess, backfill, nightly; options are passed on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml
from hera.workflows import DAG, CronWorkflow, Resource, Task, WorkflowTemplate, models

from contimg.runtime.command import commands
from contimg_runs.pipelines import find_pipeline
from contimg_workflows import forms, pods, templates
from contimg_workflows.forms import BACKFILL, BACKFILL_CHUNK, DRIVERS, NIGHTLY, PREFIX, REPROCESS
from contimg_workflows.tasks import (
    DAY_S,
    MAIN,
    PROCESS,
    STEPS,
    first_command,
    output_of,
    request_arguments,
)
from contimg_workflows.templates import (
    command_task,
    exit_dag,
    inputs,
    references,
    workflow_template,
)

MAX_WORKFLOWS = 8
"""Workflows that one backfill has running at a time; the semaphore limits those of all backfills.
"""
WEEK_S = 7 * DAY_S
# Argo's init container writes the manifest to a /tmp that is missing where roots are read-only;
# main writes it again.
TMP_PATCH = """\
initContainers:
- name: init
  volumeMounts:
  - name: tmp-dir-argo
    mountPath: /tmp
    subPath: init
"""
FAN_OUT: dict[str, Any] = {"name": MAIN, "retry_strategy": pods.NEVER_RETRIED, "fail_fast": False}
"""A DAG that starts a workflow per item; one that fails leaves the others alone."""
_MARK = "@@"


def reprocess() -> WorkflowTemplate:
    """Process one group again from a stage on, with other options, as its next attempt."""
    form, pipeline = forms.driver_form(REPROCESS), find_pipeline(DRIVERS[REPROCESS])
    text, title = reprocess.__doc__ or "", "Process a group again"
    with workflow_template(
        REPROCESS, title, text, form, pipeline.subject, is_exclusive=True
    ) as template:
        with DAG(name=MAIN, inputs=inputs(form), retry_strategy=pods.NEVER_RETRIED):
            command, given = first_command(
                REPROCESS, references(form), uid=templates.UID, workflow=templates.NAME
            )
            own = {"from", "profile", *command.outputs}
            passed = references(name for name in form if name not in own)
            handed_over = {name: output_of(command.name, name) for name in command.outputs}
            process = Task(
                name=PROCESS,
                template_ref=models.TemplateRef(name=PREFIX + pipeline.name, template=STEPS),
                arguments={**passed, **handed_over},
            )
            command_task(command.name, given).next(process)
        exit_dag(REPROCESS, form)
    return template


def backfill() -> WorkflowTemplate:
    """Process the groups of some days, a workflow each, a few at a time.

    Groups with a calibrator in the beam come first; the others take over what they solved.
    """
    form, title = forms.driver_form(BACKFILL), "Process the groups of some days"
    text, subject = backfill.__doc__ or "", forms.SELECTED[0]
    with workflow_template(BACKFILL, title, text, form, subject, deadline_s=4 * WEEK_S) as template:
        _spawn("chunk", BACKFILL_CHUNK, [*form, "only"])
        with DAG(inputs=inputs(form), parallelism=2, **FAN_OUT):
            select, given = _select(form), references(form)
            days = {"first_day": "{{item.first}}", "last_day": "{{item.last}}"}
            first, last = "calibrators", "others"
            _for_each(select, first, "chunk", {**given, **days, "only": first}, name=first)
            ended = f"{first} || {first}.Failed || {first}.Errored"
            chunks = {**given, **days, "only": last}
            _for_each(select, last, "chunk", chunks, name=last, depends=ended)
            # A DAG fails if one of its last tasks does. This one never runs; it is omitted, which
            # counts as failed, if a chunk of the first failed.
            end, never = "calibrators-ended-well", {**given, "only": first}
            Task(name=end, template="chunk", arguments=never, depends=first, when="false")
        exit_dag(BACKFILL, form)
    return template


def backfill_chunk() -> WorkflowTemplate:
    """Process at most 80 groups, a workflow each. Backfill starts one for each chunk."""
    form, pipeline = forms.driver_form(BACKFILL_CHUNK), find_pipeline(DRIVERS[BACKFILL_CHUNK])
    passed = [forms.STORE.name, *forms.request_form(pipeline)]
    group, attempt = (f"{{{{=split(inputs.parameters.run, '-a')[{n}]}}}}" for n in (0, 1))
    text, subject, slot = backfill_chunk.__doc__ or "", pipeline.subject, pods.BACKFILL
    with workflow_template(
        BACKFILL_CHUNK, "Process a few groups", text, form, forms.SELECTED[0], deadline_s=2 * WEEK_S
    ) as template:
        given = {subject: group, "attempt": attempt}
        _spawn("new", pipeline.name, ["run", *passed], given, semaphore=slot)
        given = {subject: group}
        _spawn("again", REPROCESS, ["run", "from", *passed], given, semaphore=slot)
        with DAG(inputs=inputs(form), parallelism=MAX_WORKFLOWS, **FAN_OUT):
            select = _select(form)
            # One of the two lists is empty; `when` would leave a skipped node for each group.
            given = {"run": "{{item}}", **references(passed)}
            _for_each(select, "new", "new", given)
            _for_each(select, "again", "again", {**given, **references(["from"])})
        exit_dag(BACKFILL_CHUNK, form)
    return template


def nightly() -> WorkflowTemplate:
    """Run the epoch of every Declination strip, each as a workflow of its own."""
    form, pipeline = forms.driver_form(NIGHTLY), find_pipeline(DRIVERS[NIGHTLY])
    passed = [forms.STORE.name, *forms.request_form(pipeline)]
    own = [one.name for one in pipeline.parameters]
    text, title = nightly.__doc__ or "", "The epochs of all strips"
    with workflow_template(NIGHTLY, title, text, form) as template:
        _spawn("epoch", pipeline.name, [*passed, *own], prefix="contimg-epoch-")
        with DAG(inputs=inputs(form), parallelism=2, **FAN_OUT):
            names = [forms.STORE.name, "days", forms.OPTIONS.name, forms.PROFILE.name]
            strips = command_task("strips", {**references(names), "pipeline": pipeline.name})
            items = {name: f"{{{{item.{name}}}}}" for name in own}
            _for_each(strips, "strips", "epoch", {**references(passed), **items})
        exit_dag(NIGHTLY, form)
    return template


def all_crons() -> list[CronWorkflow]:
    """Return what runs by the clock, never twice at a time."""
    post = forms.options_form(commands()["sweep"].options)["post"]
    sweep = "Restart what events and accidents lost."
    night = "The light curves of all strips, when the Sun is up at the telescope."
    return [
        CronWorkflow(
            name=PREFIX + name,
            labels=pods.labels(name),
            annotations=templates.describe(PREFIX + name, text),
            schedules=[schedule],
            timezone="Etc/UTC",
            concurrency_policy="Forbid",
            starting_deadline_seconds=300,
            successful_jobs_history_limit=3,
            failed_jobs_history_limit=5,
            workflow_template_ref=models.WorkflowTemplateRef(name=PREFIX + name),
            arguments=templates.form_parameters({one.name: one for one in fields}),
        )
        for name, schedule, text, fields in (
            ("sweep", "*/10 * * * *", sweep, [forms.STORE, post]),
            (NIGHTLY, "30 15 * * *", night, [forms.STORE]),
        )
    ]


def _select(form: forms.Form) -> Task:
    """Add the task that lists groups."""
    names = [forms.STORE.name, *forms.SELECTED, "only"]
    given = references(name for name in names if name in form)
    pipeline = find_pipeline(DRIVERS[BACKFILL])
    return command_task("select", {**given, **request_arguments(pipeline, references(form))})


def _for_each(
    lister: Task,
    output: str,
    template: str,
    given: Mapping[str, str],
    *,
    name: str = "",
    depends: str = "",
) -> None:
    """Add a task for each item of a list that another task hands over.

    Parameters
    ----------
    name
        Of the tasks; default: that of their template.
    depends
        What they wait for; default: the task that hands the list over.
    """
    Task(
        name=name or template,
        template=template,
        with_param=output_of(lister.name or "", output),
        arguments=dict(given),
        depends=depends or lister.name,
    )


def _spawn(
    name: str,
    component: str,
    names: Collection[str],
    given: Mapping[str, str] | None = None,
    *,
    prefix: str = "contimg-backfill-",
    semaphore: str = "",
) -> None:
    """Add a template that starts a workflow of another template and waits for its end.

    Parameters
    ----------
    names
        Inputs of this template; all but `run` are arguments of the other.
    given
        Other arguments: expressions.
    semaphore
        Held as long as the workflow runs.
    """
    passed: dict[str, str | None] = {one: None for one in names if one != "run"}
    arguments = {**passed, **(given or {})}
    Resource(
        name=name,
        inputs=inputs(names),
        action="create",
        manifest=child_manifest(PREFIX + component, prefix, arguments, pods.labels(component)),
        success_condition="status.phase == Succeeded",
        failure_condition="status.phase in (Failed, Error)",
        synchronization=pods.semaphore(semaphore) if semaphore else None,
        labels=pods.labels("spawn"),
        pod_security_context=pods.POD_SECURITY,
        pod_spec_patch=TMP_PATCH,
    )


def child_manifest(
    template: str, prefix: str, given: Mapping[str, str | None], labels: Mapping[str, str]
) -> str:
    """Return the manifest of a workflow as text; each value is JSON, so that any text is safe.

    Parameters
    ----------
    given
        Its arguments: expressions; None: the input of the same name.
    """
    parameters = []
    for name, text in given.items():
        inner = f"inputs.parameters['{name}']" if text is None else text[3:-2]
        parameters.append({"name": name, "value": f"{_MARK}{{{{=toJson({inner})}}}}{_MARK}"})
    spec = {"workflowTemplateRef": {"name": template}, "arguments": {"parameters": parameters}}
    manifest = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": prefix, "labels": dict(labels)},
        "spec": spec,
    }
    text = yaml.safe_dump(manifest, sort_keys=False, width=1000)
    # YAML doubles single quotes within single quotes.
    return re.sub(rf"'?{_MARK}(.*?){_MARK}'?", lambda match: match[1].replace("''", "'"), text)
