"""How many nodes a workflow may come to have; with too many, the object outgrows what etcd keeps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from contimg_runs.options import CHUNK
from contimg_workflows.lint.library import template_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contimg_workflows.lint.library import Document, Library

MOST = 99
_LISTED = re.compile(r"\{\{tasks\.([-\w]+)\.outputs\.parameters\.[-\w]+\}\}")


def problems(document: Document, library: Library) -> Iterator[str]:
    """Yield a workflow that may have too many nodes."""
    if document["kind"] == "WorkflowTemplate" and "workflowTemplateRef" not in document["spec"]:
        count = nodes(document, library)
        if count > MOST:
            yield f"a run may have {count} nodes; at most {MOST} are meant"


def nodes(document: Document, library: Library) -> int:
    """Return the most nodes that a run of a template has: every task runs, each is tried as often as it may be."""
    spec = document["spec"]
    ends = [template_of(document, spec[key]) for key in ("entrypoint", "onExit") if key in spec]
    return sum(_template(template, document, library) for template in ends if template)


def _template(
    template: Document, document: Document, library: Library, above: frozenset[int] = frozenset()
) -> int:
    if id(template) in above:
        return MOST + 1  # it leads back to itself
    above |= {id(template)}
    retry = template.get("retryStrategy")
    tries = 1 + int(retry["limit"]) if retry else 1
    counts: dict[str, int] = {}
    for task in template.get("dag", {}).get("tasks", []):
        # All lists that one of our commands hands over hold at most CHUNK together.
        listed = _LISTED.fullmatch(task.get("withParam", ""))
        key = f"lists of {listed[1]}" if listed else task["name"]
        counts[key] = max(
            _task(task, document, library, above), counts[key] + 1 if key in counts else 0
        )
    return bool(retry) + tries * (1 + sum(counts.values()))


def _task(task: Document, document: Document, library: Library, above: frozenset[int]) -> int:
    reference = task.get("templateRef")
    home = (
        (library.get("WorkflowTemplate", reference["name"]) or document) if reference else document
    )
    target = (
        library.template(reference)
        if reference
        else template_of(document, task.get("template", ""))
    )
    each = _template(target, home, library, above) if target else 1
    if "withItems" in task:
        return 1 + len(task["withItems"]) * each
    return 1 + CHUNK * each if "withParam" in task else each
