"""A Sensor's trigger: its dependencies, what it takes from the event, and the Workflow that it creates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contimg_workflows.lint import references, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contimg_workflows.lint.library import Document, Library

BODY = frozenset({"group", "attempt", "run", "store", "name"})
"""What watch posts of a group."""


def problems(document: Document, library: Library) -> Iterator[str]:
    """Yield what is wrong with a Sensor beyond its schema."""
    if document["kind"] != "Sensor":
        return
    spec = document["spec"]
    known = {one["name"] for one in spec["dependencies"]}
    for one in spec["dependencies"]:
        yield from _source(one, library)
    for trigger in spec["triggers"]:
        template = trigger["template"]
        for name in template.get("conditions", "").replace("&&", " ").replace("||", " ").split():
            if name.strip("()") not in known:
                yield f"trigger {template['name']}: condition {name} is no dependency"
        if "k8s" in template:
            yield from _created(template["name"], template["k8s"], known, library)


def _source(dependency: Document, library: Library) -> Iterator[str]:
    """Check that the event exists, where EventSources are among the documents."""
    source, event = dependency["eventSourceName"], dependency["eventName"]
    if not library.names("EventSource"):
        return
    there = library.get("EventSource", source)
    kinds = [part for part in (there or {}).get("spec", {}).values() if isinstance(part, dict)]
    if there is None or not any(event in part for part in kinds):
        yield f"dependency {dependency['name']}: there is no event {event} of an EventSource {source}"


def _created(name: str, trigger: Document, known: set[str], library: Library) -> Iterator[str]:
    resource = trigger["source"]["resource"]
    if resource.get("kind") == "Workflow":
        found = [*schema.problems(resource)] or [*references.workflow(resource["spec"], library)]
        yield from (f"trigger {name}: {problem}" for problem in found)
    for parameter in trigger.get("parameters", []):
        source = parameter["src"]
        if source["dependencyName"] not in known:
            yield f"trigger {name}: {source['dependencyName']} is no dependency"
        key = source.get("dataKey", "")
        if key and (not key.startswith("body.") or key.removeprefix("body.") not in BODY):
            yield f"trigger {name}: no event has {key}"
        if not _leads(resource, parameter["dest"].split(".")):
            yield f"trigger {name}: {parameter['dest']} is no part of the resource"


def _leads(value: object, path: list[str]) -> bool:
    """Say whether a path leads to a part, or to a field that may be added to one."""
    if len(path) == 1:
        return isinstance(value, dict) or (
            isinstance(value, list) and path[0].isdigit() and int(path[0]) < len(value)
        )
    if isinstance(value, dict):
        return path[0] in value and _leads(value[path[0]], path[1:])
    if isinstance(value, list) and path[0].isdigit() and int(path[0]) < len(value):
        return _leads(value[int(path[0])], path[1:])
    return False
