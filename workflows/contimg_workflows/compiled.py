"""From WorkflowTemplates and arguments to tasks that can be run: references followed, every value in its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from contimg.runtime.errors import BadInputError, UsageError
from contimg_workflows import retry
from contimg_workflows.argo import WHEN, read_template
from contimg_workflows.arguments import settled
from contimg_workflows.pods import POD_ENVIRONMENT, VERSION_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from contimg_workflows.argo import Task, Template, WorkflowTemplate

REFERENCE = re.compile(r"\{\{(.*?)\}\}")
_INPUT = re.compile(r"inputs\.parameters\.(?P<name>[-\w]+)")
_OUTPUT = re.compile(r"tasks\.(?P<task>[-\w]+)\.outputs\.parameters\.(?P<name>[-\w]+)")
_WORKFLOW = re.compile(r"workflow\.(?P<name>name|uid)")
_WHEN = re.compile(WHEN)
OUTPUTS_VARIABLE = "CONTIMG_OUTPUTS"
IN_PODS = {*POD_ENVIRONMENT, VERSION_VARIABLE}
"""Variables that say where things lie in a pod, or what its image must be."""


@dataclass(frozen=True)
class Job:
    """One task of a workflow."""

    name: str
    needs: frozenset[str]
    """Tasks that must have succeeded."""
    program: str
    arguments: Mapping[str, str]
    """Value of each option; it may refer to outputs of the tasks that it needs."""
    args: tuple[str, ...]
    """Command line, which refers to the arguments."""
    outputs: Mapping[str, str]
    """Output parameters, and the file below $CONTIMG_OUTPUTS that holds each."""
    env: Mapping[str, str]
    """What the process finds in its environment beside the engine's own."""
    retried: bool
    deadline_s: float
    when: str = ""
    """A word that another task must have handed over, or this one is skipped."""

    def unwanted(self, outputs: Mapping[str, Mapping[str, str]]) -> str:
        """Say why the task is skipped, after the task that decides it; nothing if it is wanted or not decided yet."""
        match = _WHEN.fullmatch(self.when)
        if match is None or match["task"] not in outputs:
            return ""
        word = outputs[match["task"]].get(match["name"], match["word"])
        return "" if word == match["word"] else f"{match['task']}: {match['name']} is {word}"

    def values(self, outputs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return the options with what the tasks before handed over, by task and name."""
        return {
            name: _fill(text, lambda ref: _output(ref, outputs))
            for name, text in self.arguments.items()
        }

    def command(self, values: Mapping[str, str]) -> list[str]:
        """Return the command line for values of the options."""
        return [self.program, *(_fill(word, lambda ref: _input(ref, values)) for word in self.args)]


@dataclass(frozen=True)
class Workflow:
    """A pipeline with arguments, under the name of this run."""

    name: str
    pipeline: str
    arguments: Mapping[str, str]
    jobs: Mapping[str, Job]


class Library:
    """The WorkflowTemplates that may refer to each other."""

    def __init__(self, documents: Iterable[Mapping[str, Any]]) -> None:
        # Read when asked for: those that only start other workflows are not for the local engine.
        self._documents = {document["metadata"]["name"]: document for document in documents}
        self._read: dict[str, WorkflowTemplate] = {}

    def __getitem__(self, name: str) -> WorkflowTemplate:
        """Return a template by its name."""
        if name not in self._documents:
            raise UsageError(
                name,
                f"expected a pipeline, found none; there are {', '.join(sorted(self._documents))}.",
                "Correct the name.",
            )
        if name not in self._read:
            self._read[name] = read_template(self._documents[name])
        return self._read[name]

    def parameters(self, pipeline: str) -> dict[str, str | None]:
        """Return the names of a pipeline's parameters with their defaults."""
        return {one.name: one.value for one in self[pipeline].spec.arguments.parameters}

    def workflow(
        self, name: str, pipeline: str, arguments: Mapping[str, str], uid: str = ""
    ) -> Workflow:
        """Make a workflow of a pipeline; without a uid it is known by its name.

        Raises
        ------
        UsageError
            If an argument is unknown, missing, or none of the few values that its parameter allows.
        BadInputError
            If the templates use what the local engine does not understand.
        """
        template = self[pipeline]
        values = settled(pipeline, template.spec.arguments.parameters, arguments)
        entry = template.spec.template(template.spec.entrypoint)
        scope = _Scope(
            {one.name: values.get(one.name, one.default or "") for one in entry.inputs.parameters},
            name,
            uid,
        )
        jobs = (
            self._jobs(entry, scope)
            if entry.dag
            else [_job("main", frozenset(), entry, scope.inputs)]
        )
        made = Workflow(name, pipeline, values, {job.name: job for job in jobs})
        _check(made)
        return made

    def _jobs(self, template: Template, scope: _Scope) -> list[Job]:
        """Return the tasks of a DAG, those of a DAG within it under the names of both."""
        if template.retry_strategy is not None and template.retry_strategy.expression != "false":
            found = template.retry_strategy.expression
            raise BadInputError(
                f"retryStrategy of {template.name}",
                f"expected that a DAG is not run again, found {found}.",
                "Run it on Argo.",
            )
        return [
            job
            for task in (template.dag.tasks if template.dag else ())
            for job in self._task(task, scope)
        ]

    def _task(self, task: Task, scope: _Scope) -> list[Job]:
        target = self[task.template_ref.name].spec.template(task.template_ref.template)
        given = {one.name: _fill(one.value or "", scope.later) for one in task.arguments.parameters}
        values = {one.name: given.pop(one.name, one.default) for one in target.inputs.parameters}
        lacking = sorted(name for name, value in values.items() if value is None)
        if lacking or given:
            found = f"missing {lacking}, unknown {sorted(given)}"
            raise BadInputError(
                f"task {task.name}",
                f"expected the inputs of {task.template_ref.name}, found {found}.",
                "Render the templates anew.",
            )
        needs = frozenset(
            scope.prefix + part.strip() for part in task.depends.split("&&") if part.strip()
        )
        inputs, when = (
            {name: value or "" for name, value in values.items()},
            task.when or scope.when,
        )
        if target.dag is None:
            return [_job(scope.prefix + task.name, needs or scope.needs, target, inputs, when)]
        inner = _Scope(
            inputs, scope.name, scope.uid, f"{scope.prefix}{task.name}-", needs or scope.needs, when
        )
        return self._jobs(target, inner)


@dataclass(frozen=True)
class _Scope:
    """What the references in a template mean."""

    inputs: Mapping[str, str]
    name: str
    uid: str = ""
    prefix: str = ""
    """Of the names of its tasks."""
    needs: frozenset[str] = frozenset()
    """What its first tasks wait for."""
    when: str = ""
    """Under which condition any of them runs."""

    def later(self, reference: str) -> str:
        """Fill in what is known before anything runs; what another task hands over comes later."""
        output, workflow = _OUTPUT.fullmatch(reference), _WORKFLOW.fullmatch(reference)
        if output:
            return (
                f"{{{{tasks.{self.prefix}{output['task']}.outputs.parameters.{output['name']}}}}}"
            )
        if workflow:
            return self.name if workflow["name"] == "name" else self.uid or f"local-{self.name}"
        return _input(reference, self.inputs)


def _job(
    name: str,
    needs: frozenset[str],
    template: Template,
    arguments: Mapping[str, str],
    when: str = "",
) -> Job:
    container, strategy = template.container, template.retry_strategy
    if container is None or not (
        len(container.command) == 1 or container.command[:-1] == ("contimg",)
    ):
        raise BadInputError(
            f"template of {name}",
            "expected a container with a command of one word, or contimg's, found another.",
            "Run it on Argo.",
        )
    if strategy is not None and strategy.expression != retry.expression():
        raise BadInputError(
            f"retryStrategy of {name}",
            f"expected {retry.expression()}, found {strategy.expression}.",
            "Render the templates anew.",
        )
    return Job(
        name=name,
        needs=needs,
        program=container.command[0],
        arguments=arguments,
        args=(*container.command[1:], *container.args),
        outputs=_output_files(name, template),
        env={one.name: one.value for one in container.env if one.name not in IN_PODS},
        retried=strategy is not None,
        deadline_s=float(template.active_deadline_seconds or 86400),
        when=when,
    )


def _output_files(name: str, template: Template) -> dict[str, str]:
    """Return the file of each output parameter, below the folder that $CONTIMG_OUTPUTS names in the container."""
    env = {one.name: one.value for one in template.container.env} if template.container else {}
    files: dict[str, str] = {}
    for one in template.outputs.parameters:
        path = PurePosixPath(one.value_from.path if one.value_from else "")
        if not path.is_relative_to(env.get(OUTPUTS_VARIABLE, "/none")):
            raise BadInputError(
                f"output {one.name} of {name}",
                f"expected a file below ${OUTPUTS_VARIABLE}, found {path!s}.",
                "Run it on Argo.",
            )
        files[one.name] = path.relative_to(env[OUTPUTS_VARIABLE]).as_posix()
    return files


def _check(workflow: Workflow) -> None:
    """Refuse references to tasks that are not waited for, and circles."""
    for job in workflow.jobs.values():
        before = _before(job, workflow, frozenset())
        for text in job.arguments.values():
            for reference in REFERENCE.findall(text):
                match = _OUTPUT.fullmatch(reference)
                task = match["task"] if match else ""
                if (
                    match is None
                    or task not in before
                    or match["name"] not in workflow.jobs[task].outputs
                ):
                    where = f"{workflow.pipeline}: task {job.name}"
                    raise BadInputError(
                        where,
                        f"expected references to outputs of tasks that it waits for, found {reference}.",
                        "Correct the DAG.",
                    )


def _before(job: Job, workflow: Workflow, seen: frozenset[str]) -> frozenset[str]:
    """Return all tasks that end before this one begins."""
    found: frozenset[str] = frozenset()
    for name in job.needs:
        if name in seen or name not in workflow.jobs:
            where = f"{workflow.pipeline}: task {job.name}"
            raise BadInputError(
                where,
                f"expected to wait for tasks of the DAG, and not for itself, found {name}.",
                "Correct `depends`.",
            )
        found |= {name} | _before(workflow.jobs[name], workflow, seen | {name})
    return found


def _fill(text: str, value: Callable[[str], str]) -> str:
    return REFERENCE.sub(lambda match: value(match[1].strip()), text)


def _input(reference: str, values: Mapping[str, str]) -> str:
    match = _INPUT.fullmatch(reference)
    if match is None or match["name"] not in values:
        raise BadInputError(
            f"{{{{{reference}}}}}",
            "expected inputs.parameters.NAME with a NAME that is given, found another.",
            "Run it on Argo.",
        )
    return values[match["name"]]


def _output(reference: str, outputs: Mapping[str, Mapping[str, str]]) -> str:
    match = _OUTPUT.fullmatch(reference)
    if match is None:
        raise BadInputError(
            f"{{{{{reference}}}}}",
            "expected tasks.NAME.outputs.parameters.NAME, found another.",
            "Run it on Argo.",
        )
    return outputs[match["task"]][match["name"]]
