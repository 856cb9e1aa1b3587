"""Every reference leads somewhere: templates, tasks, arguments, and each {{…}} in the place where Argo fills it in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import yaml

from contimg.runtime.stage import stage_specs
from contimg_workflows.lint import schema
from contimg_workflows.lint.documents import Document, DocumentSet, parameters, template_of, texts
from contimg_workflows.lint.variables import REFERENCE, Scope, unresolved, variables
from contimg_workflows.pods import BACKFILL, SEMAPHORES

_OWN_SEMAPHORES = {SEMAPHORES: {BACKFILL, *(spec.semaphore for spec in stage_specs().values())}}


@dataclass(frozen=True)
class _Around:
    """Where a template stands."""

    document: Document
    among: DocumentSet
    exit: bool = False
    """Whether it is the exit handler, for which alone the workflow's own parameters and its end are known."""

    @property
    def scope(self) -> Scope:
        asked = (
            frozenset(parameters(self.document["spec"], "arguments"))
            if self.exit
            else frozenset[str]()
        )
        return Scope(arguments=asked, ended=self.exit)


def find_problems(document: Document, among: DocumentSet) -> Iterator[str]:
    """Yield what leads nowhere."""
    kind = document["kind"]
    if kind == "CronWorkflow":
        yield from check_workflow(document["spec"]["workflowSpec"], among)
    elif kind in {"WorkflowTemplate", "Workflow"}:
        yield from check_workflow(document["spec"], among)
        yield from _templates(document, among)
    yield from _accounts(document, among)


def check_workflow(spec: Document, among: DocumentSet) -> Iterator[str]:
    """Check what a workflow is made of: the WorkflowTemplate that it refers to, and the arguments for it."""
    reference = spec.get("workflowTemplateRef", {}).get("name")
    if reference is None:
        return
    target = among.get("WorkflowTemplate", reference)
    if target is None:
        yield f"workflowTemplateRef {reference} is nowhere"
        return
    given, asked = parameters(spec, "arguments"), parameters(target["spec"], "arguments")
    for name in sorted(given.keys() - asked.keys()):
        yield f"{reference} has no parameter {name}"
    for name, one in asked.items():
        lacks = name not in given or (
            among.complete and "value" not in given[name] and "valueFrom" not in given[name]
        )
        if lacks and "value" not in one:
            yield f"{reference} requires {name}"


# A document with templates


def _templates(document: Document, among: DocumentSet) -> Iterator[str]:
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
    for name, one in parameters(entry, "inputs").items():
        if name not in parameters(spec, "arguments") and "default" not in one:
            yield f"the entrypoint's input {name} is no argument of the workflow"
    yield from _metadata(spec)
    for template in spec["templates"]:
        yield from _template(
            template, _Around(document, among, exit=template["name"] == spec.get("onExit"))
        )


def _metadata(spec: Document) -> Iterator[str]:
    """Check what labels and titles of runs refer to; the workflow's own parameters, and no more."""
    scope = Scope(arguments=frozenset(parameters(spec, "arguments")))
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
    where, inputs = template["name"], frozenset(parameters(template, "inputs"))
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
    yield from _semaphores(template, around.among)
    if "resource" in template:
        yield from _child(template["resource"]["manifest"], around.among, where)
    tasks = {task["name"]: task for task in template.get("dag", {}).get("tasks", [])}
    for task in tasks.values():
        yield from _task(task, tasks, scope, around)


def _semaphores(template: Document, among: DocumentSet) -> Iterator[str]:
    """Check that each semaphore is in its ConfigMap; without one, that it is one of ours."""
    for one in template.get("synchronization", {}).get("semaphores", []):
        name, key = one["configMapKeyRef"]["name"], one["configMapKeyRef"]["key"]
        there = among.get("ConfigMap", name)
        known = set(there.get("data", {})) if there else _OWN_SEMAPHORES.get(name, set())
        if key not in known:
            yield f"{template['name']}: no semaphore {key} in the ConfigMap {name}"
        elif there and not re.fullmatch(r"[1-9]\d*", str(there["data"][key])):
            yield f"{template['name']}: semaphore {key} of the ConfigMap {name} is no number from 1 on"


def _child(manifest: str, among: DocumentSet, where: str) -> Iterator[str]:
    """Check the Workflow that a resource template creates."""
    try:
        document = yaml.safe_load(REFERENCE.sub("x", manifest))
    except yaml.YAMLError as error:
        yield f"{where}: the manifest is no YAML: {error}"
        return
    found = [*schema.find_problems(document)] or [*check_workflow(document["spec"], among)]
    yield from (f"{where}: manifest: {problem}" for problem in found)


# Tasks


def _task(
    task: Document, tasks: Mapping[str, Document], scope: Scope, around: _Around
) -> Iterator[str]:
    where = f"task {task['name']}"
    for name in _needs(task):
        if name not in tasks:
            yield f"{where} depends on {name}, which is not a task"
    outputs = {
        name: frozenset(parameters(_target(tasks[name], around) or {}, "outputs"))
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
    given, inputs = set(parameters(task, "arguments")), parameters(target, "inputs")
    # Inputs of stages and commands have empty defaults; what they require stands in their form.
    home = around.among.get("WorkflowTemplate", task.get("templateRef", {}).get("name", "")) or {}
    is_entry = home.get("spec", {}).get("entrypoint") == target["name"] and "container" in target
    form = parameters(home["spec"], "arguments") if is_entry else {}
    for name in sorted(given - inputs.keys()):
        yield f"{where} passes {name}, which its template does not take"
    for name, one in inputs.items():
        lacks = "value" not in form[name] if name in form else "default" not in one
        if name not in given and lacks and "value" not in one:
            yield f"{where} does not pass {name}, which its template requires"


def _target(task: Document, around: _Around) -> Document | None:
    if "templateRef" in task:
        return around.among.template(task["templateRef"])
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


def _accounts(document: Document, among: DocumentSet) -> Iterator[str]:
    """Check service accounts, where any are among the documents."""
    known = among.names("ServiceAccount")
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
