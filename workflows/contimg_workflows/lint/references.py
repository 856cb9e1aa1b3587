"""Every reference leads somewhere: templates, tasks, arguments, and each {{…}} in the place where Argo fills it in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import yaml

from contimg_workflows.compiled import REFERENCE
from contimg_workflows.lint import schema
from contimg_workflows.lint.library import names, template_of, texts
from contimg_workflows.lint.variables import Scope, unresolved, variables
from contimg_workflows.pods import KINDS, SEMAPHORES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from contimg_workflows.lint.library import Document, Library

__all__ = ["problems"]


@dataclass(frozen=True)
class _Around:
    """Where a template stands."""

    document: Document
    library: Library
    exit: bool = False
    """Whether it is the exit handler, for which alone the workflow's own parameters and its end are known."""
    dags: frozenset[str] = field(default_factory=frozenset)

    @property
    def scope(self) -> Scope:
        asked = (
            frozenset(names(self.document["spec"], "arguments")) if self.exit else frozenset[str]()
        )
        return Scope(arguments=asked, ended=self.exit)


def problems(document: Document, library: Library) -> Iterator[str]:
    """Yield what leads nowhere."""
    kind = document["kind"]
    if kind == "CronWorkflow":
        yield from workflow(document["spec"]["workflowSpec"], library)
    elif kind in {"WorkflowTemplate", "Workflow"}:
        yield from workflow(document["spec"], library)
        yield from _templates(document, library)
    yield from _accounts(document, library)


def workflow(spec: Document, library: Library) -> Iterator[str]:
    """Check what a workflow is made of: the WorkflowTemplate that it refers to, and the arguments for it."""
    reference = spec.get("workflowTemplateRef", {}).get("name")
    if reference is None:
        return
    target = library.get("WorkflowTemplate", reference)
    if target is None:
        yield f"workflowTemplateRef {reference} is nowhere"
        return
    given = {one["name"]: one for one in spec.get("arguments", {}).get("parameters", [])}
    asked = {one["name"]: one for one in target["spec"].get("arguments", {}).get("parameters", [])}
    for name in sorted(given.keys() - asked.keys()):
        yield f"{reference} has no parameter {name}"
    for name, one in asked.items():
        lacks = name not in given or (
            library.complete and "value" not in given[name] and "valueFrom" not in given[name]
        )
        if lacks and "value" not in one:
            yield f"{reference} requires {name}"


# A document with templates


def _templates(document: Document, library: Library) -> Iterator[str]:
    spec = document["spec"]
    if "workflowTemplateRef" in spec:
        return
    if "entrypoint" not in spec:
        yield "there is no entrypoint"
        return
    for key in ("entrypoint", "onExit"):
        if key in spec and template_of(document, spec[key]) is None:
            yield f"{key} {spec[key]} is no template"
            return
    entry = template_of(document, spec["entrypoint"]) or {}
    for name in names(entry, "inputs"):
        if name not in names(spec, "arguments"):
            yield f"the entrypoint's input {name} is no argument of the workflow"
    yield from _metadata(spec)
    for template in spec["templates"]:
        yield from _template(
            template, _Around(document, library, exit=template["name"] == spec.get("onExit"))
        )


def _metadata(spec: Document) -> Iterator[str]:
    """Check what labels and titles of runs refer to; the workflow's own parameters, and no more."""
    scope = Scope(arguments=frozenset(names(spec, "arguments")))
    metadata = spec.get("workflowMetadata", {})
    for text in texts({key: part for key, part in metadata.items() if key != "labelsFrom"}):
        yield from unresolved(text, scope, "workflowMetadata")
    for text in texts(spec.get("synchronization", {})):
        yield from unresolved(text, scope, "synchronization")
    for label, source in metadata.get("labelsFrom", {}).items():
        for name in variables(source["expression"]):
            if not scope.knows(name):
                yield f"workflowMetadata.labelsFrom.{label}: {name} leads nowhere"


def _template(template: Document, around: _Around) -> Iterator[str]:
    where, inputs = template["name"], frozenset(names(template, "inputs"))
    scope = replace(
        around.scope, inputs=inputs, retried="retryStrategy" in template, pod="dag" not in template
    )
    rest = {
        key: part
        for key, part in template.items()
        if key not in {"dag", "metrics", "retryStrategy"}
    }
    for text in texts(rest):
        yield from unresolved(text, scope, where)
    for text in texts(template.get("metrics", {})):
        yield from unresolved(text, replace(scope, measured=True), where)
    for name in variables(template.get("retryStrategy", {}).get("expression", "")):
        if not scope.knows(name):
            yield f"{where}: retryStrategy: {name} leads nowhere"
    yield from _semaphores(template, around.library)
    if "resource" in template:
        yield from _child(template["resource"]["manifest"], around.library, where)
    tasks = {task["name"]: task for task in template.get("dag", {}).get("tasks", [])}
    for task in tasks.values():
        yield from _task(task, tasks, scope, around)


def _semaphores(template: Document, library: Library) -> Iterator[str]:
    """Check that each semaphore is in its ConfigMap; without one, that it is one of ours."""
    for one in template.get("synchronization", {}).get("semaphores", []):
        name, key = one["configMapKeyRef"]["name"], one["configMapKeyRef"]["key"]
        there = library.get("ConfigMap", name)
        known = set(there.get("data", {})) if there else set(KINDS) if name == SEMAPHORES else set()
        if key not in known:
            yield f"{template['name']}: no semaphore {key} in the ConfigMap {name}"
        elif there and not re.fullmatch(r"[1-9]\d*", str(there["data"][key])):
            yield f"{template['name']}: semaphore {key} of the ConfigMap {name} is no number from 1 on"


def _child(manifest: str, library: Library, where: str) -> Iterator[str]:
    """Check the Workflow that a resource template creates."""
    try:
        document = yaml.safe_load(REFERENCE.sub("x", manifest))
    except yaml.YAMLError as error:
        yield f"{where}: the manifest is no YAML: {error}"
        return
    found = [*schema.problems(document)] or [*workflow(document["spec"], library)]
    yield from (f"{where}: manifest: {problem}" for problem in found)


# Tasks


def _task(
    task: Document, tasks: Mapping[str, Document], scope: Scope, around: _Around
) -> Iterator[str]:
    where = f"task {task['name']}"
    for name in _needs(task):
        if name not in tasks:
            yield f"{where} depends on {name}, which is none"
    outputs = {
        name: frozenset(names(_target(tasks[name], around) or {}, "outputs"))
        for name in _before(task, tasks)
    }
    loops = "withParam" in task or "withItems" in task
    inner = replace(scope, outputs=outputs, item=loops)
    for key, part in task.items():
        for text in texts(part):
            yield from unresolved(
                text, replace(inner, item=False) if key == "withParam" else inner, task["name"]
            )
    target = _target(task, around)
    if target is None:
        yield f"{where} refers to {task.get('templateRef') or task.get('template')}, which is nowhere"
        return
    given = set(names(task, "arguments"))
    inputs = {one["name"]: one for one in target.get("inputs", {}).get("parameters", [])}
    for name in sorted(given - inputs.keys()):
        yield f"{where} passes {name}, which its template does not take"
    for name, one in inputs.items():
        if name not in given and "default" not in one and "value" not in one:
            yield f"{where} does not pass {name}, which its template requires"


def _target(task: Document, around: _Around) -> Document | None:
    if "templateRef" in task:
        return around.library.template(task["templateRef"])
    return template_of(around.document, task.get("template", ""))


def _needs(task: Document) -> list[str]:
    return [part.strip() for part in task.get("depends", "").split("&&") if part.strip()]


def _before(task: Document, tasks: Mapping[str, Document]) -> set[str]:
    """Return all tasks that end before this one begins."""
    found: set[str] = set()
    waiting = _needs(task)
    while waiting:
        name = waiting.pop()
        if name in tasks and name not in found:
            found.add(name)
            waiting += _needs(tasks[name])
    return found


def _accounts(document: Document, library: Library) -> Iterator[str]:
    """Check service accounts, where any are among the documents."""
    known = library.names("ServiceAccount")
    if not known:
        return
    for path, name in _named(document.get("spec", {}), "serviceAccountName"):
        if name not in known:
            yield f"{path}: there is no service account {name}"


def _named(value: object, key: str, path: str = "spec") -> Iterator[tuple[str, str]]:
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, part in parts:
        if name == key and isinstance(part, str):
            yield f"{path}.{name}", part
        else:
            yield from _named(part, key, f"{path}.{name}")
