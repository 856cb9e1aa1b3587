"""Every reference resolves: templates, tasks, arguments, and each {{…}} that Argo fills in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import yaml

from contimg.runtime.config import UniqueKeyLoader
from contimg.runtime.stage import stage_specs
from contimg_workflows.lint import schema
from contimg_workflows.lint.documents import Document, DocumentSet, parameters, template_of, texts
from contimg_workflows.pods import BACKFILL, SEMAPHORES

REFERENCE = re.compile(r"\{\{(.*?)\}\}")
ALWAYS = {
    f"workflow.{name}"
    for name in ("name", "uid", "namespace", "creationTimestamp", "serviceAccountName")
}
ENDED = {f"workflow.{name}" for name in ("status", "failures", "duration")}
RETRIED = {"retries", *(f"lastRetry.{n}" for n in ("exitCode", "status", "duration", "message"))}
MEASURED = {"status", "duration", "exitCode"}
FUNCTIONS = {"asInt", "asFloat", "string", "toJson", "split", "jsonpath"}
KEYWORDS = {"in", "not", "and", "or", "true", "false", "nil"}
_OWN_SEMAPHORES = {SEMAPHORES: {BACKFILL, *(spec.semaphore for spec in stage_specs().values())}}
_INDEX = re.compile(r"\[\s*'([^']*)'\s*\]")
_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"")
_NEED = re.compile(r"(?<![\w.-])[A-Za-z][-\w]*")
_NAME = re.compile(r"(?<![\w.])[A-Za-z_][-\w]*(?:\.[-\w]+)*(?P<call>\s*\()?")


def find_problems(document: Document, among: DocumentSet) -> Iterator[str]:
    """Yield what does not resolve."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "CronWorkflow":
        yield from check_workflow(spec["workflowSpec"], among)
    elif kind in {"WorkflowTemplate", "Workflow"}:
        yield from check_workflow(spec, among)
        if "workflowTemplateRef" not in spec:
            yield from _templates(document, among)
    accounts = {name for kind, name in among.by_name if kind == "ServiceAccount"}
    for path, name in texts(spec, "spec"):
        if path.endswith(".serviceAccountName") and accounts and name not in accounts:
            yield f"{path}: there is no service account {name}"


def check_workflow(spec: Document, among: DocumentSet) -> Iterator[str]:
    """Check the WorkflowTemplate that a workflow refers to, and the arguments for it."""
    reference = spec.get("workflowTemplateRef", {}).get("name")
    if reference is None:
        return
    target = among.by_name.get(("WorkflowTemplate", reference))
    if target is None:
        yield f"workflowTemplateRef {reference} does not exist"
        return
    given, asked = parameters(spec, "arguments"), parameters(target["spec"], "arguments")
    for name in sorted(given.keys() - asked.keys()):
        yield f"{reference} has no parameter {name}"
    for name, one in asked.items():
        lacks = name not in given or (
            among.complete and not {"value", "valueFrom"} & {*given[name]}
        )
        if lacks and "value" not in one:
            yield f"{reference} requires {name}"


def find_variables(expression: str) -> list[str]:
    """Return the variables of an expression, and the functions that we do not use."""
    plain = _LITERAL.sub("''", _INDEX.sub(r".\1", expression))
    found = []
    for match in _NAME.finditer(plain):
        call = match["call"]
        name = match[0].removesuffix(call) if call else match[0]
        if name not in KEYWORDS and not (call and name in FUNCTIONS):
            found.append(f"{name}()" if call else name)
    return found


def find_unresolved(part: object, known: AbstractSet[str], where: str) -> Iterator[str]:
    """Yield each {{…}} in a part of a document that Argo would not fill in.

    `item` among the known names stands for all its parts.
    """
    for reference in (one for _, text in texts(part) for one in REFERENCE.findall(text)):
        inner = reference.strip()
        for name in find_variables(inner[1:]) if inner.startswith("=") else [inner]:
            if name not in known and not ("item" in known and name.partition(".")[0] == "item"):
                rest = f": {name}" if name != inner else ""
                yield f"{where}: {{{{{reference}}}}} is not defined{rest}"


def _templates(document: Document, among: DocumentSet) -> Iterator[str]:
    """Check a document with templates of its own."""
    spec = document["spec"]
    if "entrypoint" not in spec:
        yield "there is no entrypoint"
        return
    for key in ("entrypoint", "onExit"):
        if key in spec and template_of(document, spec[key]) is None:
            yield f"{key} {spec[key]} is not a template"
            return
    asked = parameters(spec, "arguments")
    for name, one in parameters(template_of(document, spec["entrypoint"]) or {}, "inputs").items():
        if name not in asked and "default" not in one:
            yield f"the entrypoint's input {name} is not an argument of the workflow"
    # Labels, titles and locks may refer to the workflow's own parameters; of templates, only the
    # exit handler may.
    own = ALWAYS | {f"workflow.parameters.{name}" for name in asked}
    for key in ("workflowMetadata", "synchronization"):
        yield from find_unresolved(spec.get(key, {}), own, key)
    for label, source in spec.get("workflowMetadata", {}).get("labelsFrom", {}).items():
        text = f"{{{{={source['expression']}}}}}"
        yield from find_unresolved(text, own, f"workflowMetadata.labelsFrom.{label}")
    for template in spec["templates"]:
        is_exit = template["name"] == spec.get("onExit")
        yield from _template(template, document, among, own | ENDED if is_exit else ALWAYS)


def _template(
    template: Document, document: Document, among: DocumentSet, around: AbstractSet[str]
) -> Iterator[str]:
    known = around | {f"inputs.parameters.{name}" for name in parameters(template, "inputs")}
    known |= RETRIED if "retryStrategy" in template else set()
    known |= set() if "dag" in template else {"pod.name"}
    expression = template.get("retryStrategy", {}).get("expression", "true")
    for key, part in template.items():
        text = f"{{{{={expression}}}}}" if key == "retryStrategy" else part
        inner = known | MEASURED if key == "metrics" else known
        if key != "dag":
            yield from find_unresolved(text, inner, f"{template['name']}: {key}")
    for one in template.get("synchronization", {}).get("semaphores", []):
        name, key = one["configMapKeyRef"]["name"], one["configMapKeyRef"]["key"]
        there = among.by_name.get(("ConfigMap", name))
        limits = there.get("data", {}) if there else dict.fromkeys(_OWN_SEMAPHORES.get(name, ()), 1)
        if key not in limits:
            yield f"{template['name']}: no semaphore {key} in the ConfigMap {name}"
        elif not re.fullmatch(r"[1-9]\d*", str(limits[key])):
            problem = f"semaphore {key} of the ConfigMap {name} is not a positive integer"
            yield f"{template['name']}: {problem}"
    try:
        manifest = template.get("resource", {}).get("manifest", "")
        child = yaml.load(REFERENCE.sub("x", manifest), UniqueKeyLoader) or {}  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        child = {}
        yield f"{template['name']}: the manifest is not YAML: {error}"
    if child:
        found = [*schema.find_problems(child)] or check_workflow(child["spec"], among)
        yield from (f"{template['name']}: manifest: {problem}" for problem in found)
    tasks = {task["name"]: task for task in template.get("dag", {}).get("tasks", [])}
    for task in tasks.values():
        yield from _task(task, tasks, document, among, known)


def _task(
    task: Document,
    tasks: Mapping[str, Document],
    document: Document,
    among: DocumentSet,
    known: AbstractSet[str],
) -> Iterator[str]:
    where, inner = f"task {task['name']}", set(known)
    waiting, before = _NEED.findall(task.get("depends", "")), set[str]()
    for name in waiting:
        if name not in tasks:
            yield f"{where} depends on {name}, which is not a task"
    while waiting:
        name = waiting.pop()
        if name in tasks and name not in before:
            before.add(name)
            waiting += _NEED.findall(tasks[name].get("depends", ""))
            outputs = parameters(among.target(tasks[name], document)[1] or {}, "outputs")
            inner |= {f"tasks.{name}.outputs.parameters.{output}" for output in outputs}
    item = {"item"} if {"withParam", "withItems"} & task.keys() else set()
    for key, part in task.items():
        scope = inner if key == "withParam" else inner | item
        yield from find_unresolved(part, scope, task["name"])
    home, target = among.target(task, document)
    if target is None:
        reference = task.get("templateRef") or task.get("template")
        yield f"{where} refers to {reference}, which does not exist"
        return
    given, inputs = parameters(task, "arguments"), parameters(target, "inputs")
    # Inputs of stages and commands have empty defaults; what they require is in their form.
    is_program = "templateRef" in task and "container" in target
    form = parameters(home["spec"], "arguments") if is_program else {}
    for name in sorted(given.keys() - inputs.keys()):
        yield f"{where} passes {name}, which its template does not take"
    for name, one in inputs.items():
        lacks = "value" not in form[name] if name in form else not {"default", "value"} & {*one}
        if name not in given and lacks:
            yield f"{where} does not pass {name}, which its template requires"
