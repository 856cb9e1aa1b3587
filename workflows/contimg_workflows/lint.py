"""Check rendered templates without a cluster: a closed schema, and every reference leads somewhere.

Argo's own JSON schema and Hera's models accept unknown fields, so a misspelt one would be lost without a word.
"""

from __future__ import annotations

import re
import types
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from hera.workflows.models import WorkflowTemplate
from pydantic import BaseModel, RootModel, ValidationError

from contimg.options import flag
from contimg_workflows.compiled import REFERENCE
from contimg_workflows.stages import options_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Document = dict[str, Any]
_INPUT = re.compile(r"inputs\.parameters\.([-\w]+)")
_OUTPUT = re.compile(r"tasks\.([-\w]+)\.outputs\.parameters\.([-\w]+)")
_ARGUMENT = re.compile(r"(?P<flag>--[-\w]+)=\{\{inputs\.parameters\.(?P<name>[-\w]+)\}\}")


def lint(documents: Mapping[str, Document]) -> list[str]:
    """Return what is wrong with WorkflowTemplates that may refer to each other, by name; empty if nothing is."""
    found: list[str] = []
    for name, document in documents.items():
        problems = list(unknown_fields(document, WorkflowTemplate)) + list(_invalid(document))
        if not problems:
            problems = list(_references(document, documents)) + list(_arguments(document))
        found += [f"{name}: {problem}" for problem in problems]
    return found


# The schema, closed


def unknown_fields(value: Any, annotation: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401 - any part of YAML
    """Yield the path of every field that Hera's generated models do not know."""
    model = _model_of(annotation)
    if isinstance(value, dict) and model is not None and not issubclass(model, RootModel):
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        for key, part in value.items():
            if key not in fields:
                yield f"{path or '.'}: unknown field {key}"
            else:
                yield from unknown_fields(part, fields[key].annotation, f"{path}.{key}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from unknown_fields(part, _item_of(annotation), f"{path}[{number}]")
    elif isinstance(value, dict) and get_origin(_bare(annotation)) is dict:
        for key, part in value.items():
            yield from unknown_fields(part, get_args(_bare(annotation))[1], f"{path}.{key}")


def _bare(annotation: Any) -> Any:  # noqa: ANN401 - typing's own
    """Return an annotation without its None."""
    if get_origin(annotation) in {Union, types.UnionType}:
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return parts[0] if len(parts) == 1 else annotation
    return annotation


def _model_of(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - typing's own
    bare = _bare(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def _item_of(annotation: Any) -> Any:  # noqa: ANN401 - typing's own
    bare = _bare(annotation)
    return get_args(bare)[0] if get_origin(bare) is list else None


def _invalid(document: Document) -> Iterator[str]:
    try:
        WorkflowTemplate.model_validate(document)
    except ValidationError as error:
        for item in error.errors():
            yield f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"


# References


def _references(document: Document, documents: Mapping[str, Document]) -> Iterator[str]:
    spec = document["spec"]
    asked = {one["name"] for one in spec.get("arguments", {}).get("parameters", [])}
    templates = {template["name"]: template for template in spec["templates"]}
    if spec["entrypoint"] not in templates:
        yield f"entrypoint {spec['entrypoint']} is no template"
        return
    for name in _names(templates[spec["entrypoint"]], "inputs"):
        if name not in asked:
            yield f"the entrypoint's input {name} is no argument of the workflow"
    for template in templates.values():
        yield from _template(template, documents)


def _template(template: Document, documents: Mapping[str, Document]) -> Iterator[str]:
    inputs = set(_names(template, "inputs"))
    tasks = {task["name"]: task for task in template.get("dag", {}).get("tasks", [])}
    for text in _texts({key: part for key, part in template.items() if key != "dag"}):
        yield from _unresolved(text, inputs, {}, template["name"])
    for task in tasks.values():
        before = {name: _target(tasks[name], documents) for name in _before(task, tasks)}
        for text in _texts(task):
            yield from _unresolved(text, inputs, before, task["name"])
        yield from _task(task, tasks, documents)


def _task(task: Document, tasks: Mapping[str, Document], documents: Mapping[str, Document]) -> Iterator[str]:
    for name in _needs(task):
        if name not in tasks:
            yield f"task {task['name']} depends on {name}, which is none"
    target = _target(task, documents)
    if target is None:
        yield f"task {task['name']} refers to {task.get('templateRef')}, which is nowhere"
        return
    given = set(_names(task, "arguments"))
    inputs = {one["name"]: one for one in target.get("inputs", {}).get("parameters", [])}
    for name in sorted(given - inputs.keys()):
        yield f"task {task['name']} passes {name}, which its template does not take"
    for name, one in inputs.items():
        if name not in given and "default" not in one:
            yield f"task {task['name']} does not pass {name}, which its template requires"


def _unresolved(text: str, inputs: set[str], before: Mapping[str, Document | None], where: str) -> Iterator[str]:
    for reference in REFERENCE.findall(text):
        one, other = _INPUT.fullmatch(reference), _OUTPUT.fullmatch(reference)
        target = before.get(other[1]) if other else None
        known = (one and one[1] in inputs) or (other and target and other[2] in _names(target, "outputs"))
        if not known:
            yield f"{where}: {{{{{reference}}}}} leads nowhere"


def _target(task: Document, documents: Mapping[str, Document]) -> Document | None:
    reference = task.get("templateRef", {})
    templates = documents.get(reference.get("name", ""), {}).get("spec", {}).get("templates", [])
    return next((template for template in templates if template["name"] == reference.get("template")), None)


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


def _names(part: Document, kind: str) -> list[str]:
    return [one["name"] for one in part.get(kind, {}).get("parameters", [])]


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any part of YAML
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


# Arguments


def _arguments(document: Document) -> Iterator[str]:
    """Check a stage's command line against its options."""
    for template in document["spec"]["templates"]:
        container = template.get("container")
        if container is None:
            continue
        program = container["command"][0]
        options = options_of(program.removeprefix("contimg-")).model_fields
        passed = set()
        for word in container["args"]:
            match = _ARGUMENT.fullmatch(word)
            if match is None or match["name"] not in options or match["flag"] != flag(match["name"]):
                yield f"{program} takes no {word}"
            else:
                passed.add(match["name"])
        for name, field in options.items():
            if field.is_required() and name not in passed:
                yield f"{program} requires {flag(name)}"
