"""A pipeline is data: steps, each a stage and what it reads from other steps.

Hera's templates, the local runner and `contimg begin` are all made from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from pydantic import ValidationError

from contimg.runtime.config import Document
from contimg.runtime.errors import UsageError
from contimg.runtime.options import describe_error, input_mark
from contimg.runtime.stage import StageSpec, stage_spec

ALL_OTHERS = "*"
"""As the source of an input: all other steps whose inputs do not gather all others, too."""
PLACES = {"store": "{store}", "tables": "{store}/tables", "calibrations": "{store}"}
"""Options that name a place; every step whose stage has one of them gets it."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a pipeline's own, such as the group that it works on."""

    name: str
    description: str
    default: str | None = None
    """None: it must be given."""


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """A parameter that sets a frequently used option; it wins over the document of options."""

    name: str
    sets: tuple[str, ...]
    """STAGE.OPTION of each option that it sets."""


@dataclass(frozen=True)
class Step:
    """One task of a pipeline: a stage, once."""

    stage: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Option of the stage → the step whose artifact it reads, or `ALL_OTHERS`."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Option of the stage → value; {NAME} stands for the parameter NAME of the pipeline."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A graph of steps that work on one subject, such as a group or an epoch."""

    name: str
    title: str
    description: str
    subject: str
    """The parameter that names what a run works on; runs of one subject never overlap."""
    products: str
    """Folder of its artifacts below the store; {NAME} stands for the parameter NAME."""
    parameters: tuple[Parameter, ...]
    shortcuts: tuple[Shortcut, ...] = ()
    steps: tuple[Step, ...]

    @cached_property
    def specs(self) -> dict[str, StageSpec]:
        """The spec of each step's stage, by name; UsageError if one is not installed."""
        return {step.stage: stage_spec(step.stage) for step in self.steps}

    def step(self, stage: str) -> Step:
        """Return the step of a stage; UsageError if the pipeline has none."""
        for step in self.steps:
            if step.stage == stage:
                return step
        names = ", ".join(step.stage for step in self.steps)
        problem = f"There is no step {stage!r}; the steps are {names}."
        raise UsageError(f"pipeline {self.name}", problem, "Correct the name.")

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """By step, the steps whose artifacts it reads; UsageError if one is twice or no step."""
        where, names = f"pipeline {self.name}", [step.stage for step in self.steps]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UsageError(where, f"There are two steps {twice[0]!r}.", "Remove one.")
        gathers = {step.stage for step in self.steps if ALL_OTHERS in step.inputs.values()}
        found: dict[str, tuple[str, ...]] = {}
        for step in self.steps:
            read = set(step.inputs.values()) - {ALL_OTHERS}
            unknown = sorted(read - set(names))
            if unknown:
                problem = f"Step {step.stage!r} reads from {unknown[0]!r}, which is not a step."
                raise UsageError(where, problem, f"The steps are {', '.join(names)}.")
            if step.stage in gathers:
                read |= set(names) - gathers
            found[step.stage] = tuple(name for name in names if name in read)
        return found

    def sources(self, stage: str, option: str) -> tuple[str, ...]:
        """Return the steps whose artifacts an option of a step reads."""
        source = self.step(stage).inputs[option]
        return self.needs[stage] if source == ALL_OTHERS else (source,)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The steps, each after those that it reads from; UsageError if they form a cycle."""
        try:
            return tuple(TopologicalSorter(self.needs).static_order())
        except CycleError as error:
            problem = f"The steps form a cycle: {' → '.join(reversed(error.args[1]))}."
            remedy = "Correct the inputs of one of them."
            raise UsageError(f"pipeline {self.name}", problem, remedy) from error

    def after(self, stage: str) -> frozenset[str]:
        """Return a step and all steps that read from it, directly or not."""
        found = {self.step(stage).stage}
        for name in self.order:
            if found & set(self.needs[name]):
                found.add(name)
        return frozenset(found)

    def before(self, stage: str) -> frozenset[str]:
        """Return all steps that a step reads from, directly or not."""
        found: set[str] = set(self.needs[self.step(stage).stage])
        for name in reversed(self.order):
            if name in found:
                found |= set(self.needs[name])
        return frozenset(found)

    def wired(self, stage: str, values: Mapping[str, str]) -> dict[str, str]:
        """Return the options of a step that the pipeline sets, except the artifacts it reads.

        `values`: of the pipeline's parameters and `store`; a template gives references instead.
        """
        step, fields = self.step(stage), self.specs[stage].options.model_fields
        texts = {
            "out": f"{{store}}/{self.products}/{stage}",
            **{name: text for name, text in PLACES.items() if name in fields},
            **step.fixed,
        }
        for name, text in texts.items():
            for parameter, value in values.items():
                text = text.replace(f"{{{parameter}}}", value)  # noqa: PLW2901 - filled in turn
            texts[name] = text
        return texts

    def check(self) -> None:
        """Raise UsageError for a cycle, an unknown stage, step or option, or a missing input."""
        where = f"pipeline {self.name}"
        for step in map(self.step, self.order):
            name, fields = step.stage, self.specs[step.stage].options.model_fields
            for option in [*step.inputs, *step.fixed]:
                if option not in fields:
                    problem = f"Step {name!r} has no option {option!r}."
                    raise UsageError(where, problem, f"contimg-{name} --help lists them.")
            for option, source in step.inputs.items():
                mark = input_mark(fields[option])
                if mark is None or mark.kind != "artifact":
                    problem = f"Option {option!r} of step {name!r} takes no artifact."
                    remedy = f"Name the option by which it reads the artifact of {source!r}."
                    raise UsageError(where, problem, remedy)
            self._check_fixed(step)
            given = {*step.inputs, *self.wired(name, {})}
            missing = sorted(n for n, one in fields.items() if one.is_required() and n not in given)
            if missing:
                problem = f"Step {name!r} lacks its input {missing[0]!r}."
                raise UsageError(where, problem, "Add it to the step's inputs.")
        for shortcut in self.shortcuts:
            for path in shortcut.sets:
                stage, _, option = path.partition(".")
                if option not in self.specs[self.step(stage).stage].options.model_fields:
                    problem = f"Shortcut {shortcut.name!r} sets {path!r}, which is not an option."
                    raise UsageError(where, problem, f"contimg-{stage} --help lists them.")

    def _check_fixed(self, step: Step) -> None:
        where, known = f"pipeline {self.name}", {"store", *(one.name for one in self.parameters)}
        for option, text in step.fixed.items():
            if option in step.inputs:
                problem = f"Option {option!r} of step {step.stage!r} is in its inputs and fixed."
                raise UsageError(where, problem, "Remove it from one of them.")
            unknown = sorted(set(re.findall(r"\{(\w+)\}", text)) - known)
            if unknown:
                problem = f"Step {step.stage!r} fixes {option!r} by {{{unknown[0]}}}, no parameter."
                raise UsageError(where, problem, f"There are {', '.join(sorted(known))}.")

    def check_options(self, document: Document, where: str = "options") -> None:
        """Raise UsageError for options that a stage does not take or that the pipeline sets."""
        for stage in [name for name in document if name not in self.specs]:
            known = ", ".join(self.specs)
            problem = f"There is no stage {stage!r} in this pipeline; its stages are {known}."
            raise UsageError(where, problem, "Correct the stage's name.")
        for step in self.steps:
            stage, given = step.stage, document.get(step.stage, {})
            # A value in place of the real one need not be of its type.
            wired = {**self.wired(stage, {}), **dict.fromkeys(step.inputs, "artifact")}
            for name in [name for name in given if name in wired]:
                problem = f"The pipeline sets {stage}.{name} itself."
                raise UsageError(where, problem, "Remove it from the options.")
            model = self.specs[stage].options
            try:
                model.model_validate({**wired, **model.drop_empty(given)})
            except ValidationError as error:
                wrong = [item for item in error.errors() if not {*item["loc"][:1]} & wired.keys()]
                if wrong:
                    reasons = "; ".join(f"{stage} {describe_error(item)}" for item in wrong)
                    remedy = f"contimg-{stage} --help lists the options."
                    raise UsageError(where, f"{reasons}.", remedy) from error

    def with_shortcuts(self, document: Document, given: Mapping[str, str]) -> Document:
        """Return a document of options with the given shortcuts; an empty value is not given."""
        merged = {stage: dict(options) for stage, options in document.items()}
        for shortcut in self.shortcuts:
            if given.get(shortcut.name):
                for path in shortcut.sets:
                    stage, _, option = path.partition(".")
                    merged.setdefault(stage, {})[option] = given[shortcut.name]
        return merged
