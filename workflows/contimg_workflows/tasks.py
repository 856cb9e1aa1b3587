"""From pipeline data to tasks with arguments, for Hera's templates and the local engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from contimg.runtime.command import Command, commands
from contimg.runtime.config import read_document
from contimg.runtime.contract import find_existing
from contimg.runtime.errors import TRANSIENT, ContimgError, UsageError
from contimg.runtime.options import flag
from contimg.runtime.pipeline import Pipeline
from contimg.runtime.stage import StageSpec, stage_specs
from contimg_runs.pipelines import PIPELINES, find_pipeline
from contimg_workflows.forms import DRIVERS, PREFIX, REPROCESS, fill_form, find_form

STAGE_OUTPUTS = ("artifact", "cached", "seconds")
"""What every stage hands over."""
DAY_S = 86400
MAIN, STEPS, PROCESS = "main", "steps", "process"
"""Names of the templates of a pipeline, and of the task that runs its steps."""
RETRY_FACTOR = 2
RETRY_CAP_S = 120.0
"""Longest wait before another try, seconds."""
_REFERENCE = re.compile(r"\{\{tasks\.(?P<task>[-\w]+)\.outputs\.parameters\.(?P<output>[-\w]+)\}\}")


@dataclass(frozen=True, kw_only=True)
class LocalTask:
    """One task of a workflow: a process."""

    name: str
    program: tuple[str, ...]
    arguments: Mapping[str, str]
    """Value of each option; it may refer to what tasks before it hand over."""
    needs: frozenset[str] = frozenset()
    """Tasks that must have succeeded."""
    outputs: tuple[str, ...]
    """Files that it hands over."""
    deadline_s: float
    stage: StageSpec | None = None
    """None: a command, which makes no artifact."""
    condition: str = ""
    """A reference that must come to ``true``, or the task is skipped."""

    def skip_reason(self, outputs: Mapping[str, Mapping[str, str]]) -> str:
        """Say why the task is skipped; empty if it is not, or that is not decided yet."""
        match = _REFERENCE.fullmatch(self.condition)
        if match is None or match["task"] not in outputs:
            return ""
        word = outputs[match["task"]].get(match["output"], "true")
        return "" if word == "true" else f"{match['task']}: {match['output']} is {word}"

    def values(self, outputs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return the value of each option, given the outputs of earlier tasks by task and name."""
        return {
            name: _REFERENCE.sub(
                lambda found: outputs.get(found["task"], {}).get(found["output"], found[0]), text
            )
            for name, text in self.arguments.items()
        }

    def command(self, values: Mapping[str, str]) -> list[str]:
        """Return the command line for values of the options."""
        return [*self.program, *(f"{flag(name)}={value}" for name, value in values.items())]

    def find_made(self, values: Mapping[str, str]) -> dict[str, str] | None:
        """Return what the task would hand over if its artifact exists, without starting it.

        None if it does not exist, and where only the stage itself can say what is wrong.
        """
        if self.stage is None:
            return None
        given = {name: value for name, value in values.items() if value != ""}
        try:
            section = read_document(given.pop("config", "")).get(self.stage.name, {})
            model = self.stage.options
            options = model.model_validate({**model.drop_empty(section), **given})
            inputs = () if options.reuse else self.stage.inputs(options)
            artifact, manifest = find_existing(self.stage, options, inputs)
        except (ContimgError, ValidationError):
            return None
        if manifest is None:
            return None
        seconds = round(sum(manifest.seconds.values()), 3)
        return {"artifact": artifact, "cached": "true", "seconds": str(seconds)}


@dataclass(frozen=True)
class LocalWorkflow:
    """Tasks under the name of a run."""

    name: str
    template: str
    arguments: Mapping[str, str]
    tasks: Mapping[str, LocalTask]


def backoff_s(tries: int) -> float:
    """Return the wait after so many tries, seconds."""
    return min(TRANSIENT.backoff_s * float(RETRY_FACTOR ** (tries - 1)), RETRY_CAP_S)


def output_of(task: str, output: str) -> str:
    """Refer to what another task hands over, as Argo writes it."""
    return f"{{{{tasks.{task}.outputs.parameters.{output}}}}}"


def step_arguments(
    pipeline: Pipeline, stage: str, values: Mapping[str, str], *, prefix: str = ""
) -> dict[str, str]:
    """Return what a step passes to its stage: places, artifacts, shortcuts, options.

    Parameters
    ----------
    values
        Of the pipeline's parameters, shortcuts and `options`: values, or references to them.
    prefix
        Of the names of the other steps' tasks.
    """
    given = pipeline.wired(stage, values)
    for option in pipeline.step(stage).inputs:
        sources = pipeline.sources(stage, option)
        given[option] = ",".join(output_of(prefix + one, "artifact") for one in sources)
    for shortcut in pipeline.shortcuts:
        for path in shortcut.sets:
            owner, _, option = path.partition(".")
            if owner == stage and shortcut.name in values:
                given[option] = values[shortcut.name]
    return {**given, "config": values["options"]}


def request_arguments(pipeline: Pipeline, values: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments by which a command gets the options of a pipeline's stages."""
    return {
        "pipeline": pipeline.name,
        "options": values["options"],
        "profile": values["profile"],
        "set": "\n".join(f"{one.name}={values[one.name]}" for one in pipeline.shortcuts),
    }


def first_command(
    template: str, values: Mapping[str, str], *, uid: str, workflow: str
) -> tuple[Command, dict[str, str]]:
    """Return the command that a workflow of a pipeline begins with, and its arguments.

    It checks the options and hands over the resolved document; it claims the attempt, if there
    are attempts.
    """
    pipeline = find_pipeline(DRIVERS.get(template, template))
    request = request_arguments(pipeline, values)
    owner = {"store": values["store"], "uid": uid, "workflow": workflow}
    if template == REPROCESS:
        subject = {pipeline.subject: values[pipeline.subject], "first": values["from"]}
        return commands()["begin"], {**owner, **request, **subject}
    if "attempt" in values:  # each of the numbered attempts is claimed by one workflow
        run = f"{values[pipeline.subject]}-a{values['attempt']}"
        return commands()["claim"], {**owner, **request, "run": run}
    return commands()["resolve-options"], request


def exit_arguments(template: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments of `contimg record` for a workflow, apart from how it ended."""
    run = group = ""
    if template in PIPELINES and "attempt" in values:
        run = f"{values[PIPELINES[template].subject]}-a{values['attempt']}"
    elif template == REPROCESS:
        group = values[find_pipeline(DRIVERS[REPROCESS]).subject]
    return {"store": values["store"], "run": run, "group": group, "pipeline": template}


def program_task(
    name: str,
    program: StageSpec | Command,
    arguments: Mapping[str, str],
    needs: Iterable[str] = (),
    condition: str = "",
) -> LocalTask:
    """Return the task of a stage or a command."""
    stage = program if isinstance(program, StageSpec) else None
    return LocalTask(
        name=name,
        program=(stage.program,) if stage else ("contimg", program.name),
        arguments=arguments,
        needs=frozenset(needs),
        outputs=program.outputs if isinstance(program, Command) else STAGE_OUTPUTS,
        deadline_s=program.resources.deadline_s if program.resources else DAY_S,
        stage=stage,
        condition=condition,
    )


def steps_workflow(
    name: str, pipeline: Pipeline, values: Mapping[str, str], options: str
) -> LocalWorkflow:
    """Make a workflow of the steps alone, with the resolved document of options as JSON."""
    given = {**values, "options": options}
    tasks = {}
    for stage in pipeline.order:
        arguments = step_arguments(pipeline, stage, given)
        tasks[stage] = program_task(stage, pipeline.specs[stage], arguments, pipeline.needs[stage])
    return LocalWorkflow(name, PREFIX + pipeline.name, given, tasks)


def template_workflow(name: str, template: str, given: Mapping[str, str]) -> LocalWorkflow:
    """Make a workflow of a template as Argo would run it.

    Raises
    ------
    UsageError
        If there is no such template, only Argo can run it, or an argument is unknown or missing.
    """
    short = template.removeprefix(PREFIX)
    values = fill_form(template, find_form(template), given)
    if short in stage_specs():
        tasks = [program_task(MAIN, stage_specs()[short], values)]
    elif short not in PIPELINES and short != REPROCESS:
        if short in DRIVERS:
            problem = f"{template} starts other workflows, which the local engine does not do."
            raise UsageError(template, problem, "Submit it to Argo.")
        tasks = [program_task(MAIN, commands()[short], values)]
    else:
        command, arguments = first_command(short, values, uid=f"local-{name}", workflow=name)
        first = program_task(command.name, command, arguments)
        tasks, handed_over = [first], {"options": output_of(first.name, "options")}
        if short == REPROCESS:
            handed_over["attempt"] = output_of(first.name, "attempt")
        condition = output_of(first.name, "claimed") if "claimed" in first.outputs else ""
        pipeline, prefix = find_pipeline(DRIVERS.get(short, short)), f"{PROCESS}-"
        for stage in pipeline.order:
            passed = step_arguments(pipeline, stage, {**values, **handed_over}, prefix=prefix)
            needs = [prefix + one for one in pipeline.needs[stage]] or [first.name]
            spec = pipeline.specs[stage]
            tasks.append(program_task(prefix + stage, spec, passed, needs, condition))
    return LocalWorkflow(name, PREFIX + short, values, {one.name: one for one in tasks})
