"""The documents that are checked together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Document = dict[str, Any]


class DocumentSet:
    """Documents by kind and name."""

    def __init__(self, documents: Iterable[Document], *, complete: bool = False) -> None:
        self.documents = list(documents)
        self.complete = complete
        self._found = {(one.get("kind", ""), name_of(one)): one for one in self.documents}

    def get(self, kind: str, name: str) -> Document | None:
        """Return a document, or None."""
        return self._found.get((kind, name))

    def names(self, kind: str) -> set[str]:
        """Return the names of the documents of a kind."""
        return {name for known, name in self._found if known == kind}

    def template(self, reference: Document) -> Document | None:
        """Return the template that a templateRef names, or None."""
        document = self.get("WorkflowTemplate", reference.get("name", "")) or {}
        return template_of(document, reference.get("template", ""))

    def duplicates(self) -> Iterator[str]:
        """Yield each document that occurs more than once."""
        seen: set[tuple[str, str]] = set()
        for document in self.documents:
            key = (document.get("kind", ""), name_of(document))
            if key in seen:
                yield f"{title(document)}: occurs twice"
            seen.add(key)


def name_of(document: Document) -> str:
    """Return a document's name, or what its name begins with."""
    metadata = document.get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "?")


def title(document: Document) -> str:
    """Return what a document is called in messages."""
    kind = document.get("kind", "?")
    return name_of(document) if kind == "WorkflowTemplate" else f"{kind} {name_of(document)}"


def template_of(document: Document, name: str) -> Document | None:
    """Return a template of a document by its name, or None."""
    templates: list[Document] = document.get("spec", {}).get("templates", [])
    return next((template for template in templates if template["name"] == name), None)


def parameters(part: Document, kind: str) -> dict[str, Document]:
    """Return the parameters among inputs, outputs or arguments, by name."""
    return {one["name"]: one for one in part.get(kind, {}).get("parameters", [])}


def texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any part of YAML
    """Yield every string."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
