"""Rules beyond schemas and references: sensors, options and profiles, numbers of nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from contimg.runtime.config import PROFILES_VARIABLE, read_yaml
from contimg.runtime.errors import UsageError
from contimg_runs.options import CHUNK
from contimg_runs.pipelines import PIPELINES
from contimg_runs.resolve import find_wrong_values, resolve_options
from contimg_workflows.forms import OPTIONS, find_program, pipeline_of
from contimg_workflows.lint import references, schema
from contimg_workflows.lint.documents import Document, DocumentSet, name_of, parameters, template_of

EVENT_BODY = frozenset({"group", "attempt", "run", "store", "name"})
"""What watch posts of a group."""
PROFILES = "contimg-profiles"
"""ConfigMap of the chart's profiles, under the key `profiles`."""
MAX_NODES = 99
"""With more nodes, a workflow outgrows what etcd stores."""
_LISTED = re.compile(r"\{\{tasks\.([-\w]+)\.outputs\.parameters\.[-\w]+\}\}")


def find_problems(document: Document, among: DocumentSet) -> Iterator[str]:
    """Yield what is wrong with a document beyond its schema and its references."""
    kind = document["kind"]
    if kind == "WorkflowTemplate":
        # The chart may set the default of a pipeline's `options`.
        pipeline = pipeline_of(name_of(document))
        arguments = parameters(document["spec"], "arguments")
        given = {name: str(one["value"]) for name, one in arguments.items() if one.get("value")}
        try:
            if pipeline is not None:
                shortcuts = [one.name for one in pipeline.shortcuts if one.name in given]
                settings = [f"{name}={given[name]}" for name in shortcuts]
                resolve_options(pipeline, given.get(OPTIONS.name, ""), settings=settings)
            elif (program := find_program(name_of(document))) and (
                wrong := find_wrong_values(program.options, given)
            ):
                yield f"arguments: {wrong}"
        except UsageError as error:
            yield str(error)
        count = 0 if "workflowTemplateRef" in document["spec"] else count_nodes(document, among)
        if count > MAX_NODES:
            yield f"a run may have {count} nodes; at most {MAX_NODES} are allowed"
    elif kind == "Sensor":
        yield from _sensor(document["spec"], among)
    elif kind == "ConfigMap" and name_of(document) == PROFILES:
        yield from _profiles(document.get("data", {}).get("profiles", ""))


def _profiles(text: str) -> Iterator[str]:
    """Check every profile for every pipeline."""
    profiles = read_yaml(text) or {}
    for name in profiles if isinstance(profiles, dict) else ():
        found: dict[str, None] = {}
        for pipeline in PIPELINES.values():
            try:
                resolve_options(pipeline, profile=name, env={PROFILES_VARIABLE: text})
            except UsageError as error:
                found[f"profile {name}: {error}"] = None
        yield from found


def _sensor(spec: Document, among: DocumentSet) -> Iterator[str]:
    """Check a Sensor: its dependencies, its use of the event, the Workflow that it creates."""
    sources = {name: one for (kind, name), one in among.by_name.items() if kind == "EventSource"}
    for one in spec["dependencies"]:
        source, event = one["eventSourceName"], one["eventName"]
        parts = sources.get(source, {}).get("spec", {}).values()
        if sources and not any(event in part for part in parts if isinstance(part, dict)):
            yield f"dependency {one['name']}: there is no event {event} of an EventSource {source}"
    known = {one["name"] for one in spec["dependencies"]}
    for trigger in spec["triggers"]:
        template = trigger["template"]
        for name in re.findall(r"[^&|()\s]+", template.get("conditions", "")):
            if name not in known:
                yield f"trigger {template['name']}: condition {name} is not a dependency"
        if "k8s" in template:
            for problem in _created(template["k8s"], known, among):
                yield f"trigger {template['name']}: {problem}"


def _created(trigger: Document, known: set[str], among: DocumentSet) -> Iterator[str]:
    resource = trigger["source"]["resource"]
    if resource.get("kind") == "Workflow":
        found = list(schema.find_problems(resource))
        yield from found or references.check_workflow(resource["spec"], among)
    for parameter in trigger.get("parameters", []):
        source, key = parameter["src"], parameter["src"].get("dataKey", "")
        if source["dependencyName"] not in known:
            yield f"{source['dependencyName']} is not a dependency"
        if key and (not key.startswith("body.") or key.removeprefix("body.") not in EVENT_BODY):
            yield f"no event has {key}"
        if not _is_path(resource, parameter["dest"].split(".")):
            yield f"{parameter['dest']} is not a part of the resource"


def _is_path(value: object, path: list[str]) -> bool:
    """Say whether a path leads to a part, or to a field that may be added to one."""
    first, *rest = path
    if isinstance(value, list):
        is_index = first.isdigit() and int(first) < len(value)
        return is_index and (not rest or _is_path(value[int(first)], rest))
    if isinstance(value, dict):
        return not rest or (first in value and _is_path(value[first], rest))
    return False


def count_nodes(document: Document, among: DocumentSet) -> int:
    """Return the most nodes that a run may have: every task runs, as often as it may be tried."""
    spec = document["spec"]
    ends = [template_of(document, spec[key]) for key in ("entrypoint", "onExit") if key in spec]
    return sum(_count_template(one, document, among, frozenset()) for one in ends if one)


def _count_template(
    template: Document, document: Document, among: DocumentSet, above: frozenset[int]
) -> int:
    if id(template) in above:
        return MAX_NODES + 1  # it contains itself
    above |= {id(template)}
    retry = template.get("retryStrategy")
    tries = 1 + int(retry["limit"]) if retry else 1
    counts: dict[str, int] = {}
    for task in template.get("dag", {}).get("tasks", []):
        home, target = among.target(task, document)
        each = _count_template(target, home, among, above) if target else 1
        if "withItems" in task:
            each = 1 + len(task["withItems"]) * each
        elif "withParam" in task:
            each = 1 + CHUNK * each
        # All lists that one of our commands hands over hold at most CHUNK together.
        listed = _LISTED.fullmatch(task.get("withParam", ""))
        key = f"lists of {listed[1]}" if listed else task["name"]
        counts[key] = max(each, counts[key] + 1 if key in counts else 0)
    return bool(retry) + tries * (1 + sum(counts.values()))
