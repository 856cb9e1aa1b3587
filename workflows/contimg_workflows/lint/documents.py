"""The documents that are checked together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Document = dict[str, Any]


class DocumentSet:
    """Documents by kind and name; `complete`: every required argument must have its value."""

    def __init__(self, documents: Iterable[Document], *, complete: bool = False) -> None:
        self.documents, self.complete = list(documents), complete
        self.by_name = {(one.get("kind", ""), name_of(one)): one for one in self.documents}

    def target(self, task: Document, document: Document) -> tuple[Document, Document | None]:
        """Return the template that a task of a document runs, and first the document it is in."""
        if reference := task.get("templateRef"):
            home = self.by_name.get(("WorkflowTemplate", reference.get("name", "")), {})
            return home, template_of(home, reference.get("template", ""))
        return document, template_of(document, task.get("template", ""))


def name_of(document: Document) -> str:
    """Return a document's name, or what its name begins with."""
    metadata = document.get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "?")


def template_of(document: Document, name: str) -> Document | None:
    """Return a template of a document by its name, or None."""
    templates: list[Document] = document.get("spec", {}).get("templates", [])
    return next((template for template in templates if template["name"] == name), None)


def parameters(part: Document, kind: str) -> dict[str, Document]:
    """Return the parameters among inputs, outputs or arguments, by name."""
    return {one["name"]: one for one in part.get(kind, {}).get("parameters", [])}


def texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string with its path, such as `spec.templates.0.name`."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(part, f"{path}.{key}")
