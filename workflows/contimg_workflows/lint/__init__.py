"""Check rendered YAML without a cluster: closed schemas, references that lead somewhere, arguments that programs take.

Argo's own JSON schema and Hera's models accept unknown fields, so a misspelt one would be lost without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contimg_workflows.lint import events, nodes, programs, references, schema
from contimg_workflows.lint.library import Library, title

if TYPE_CHECKING:
    from collections.abc import Iterable

    from contimg_workflows.lint.library import Document

__all__ = ["checked", "lint", "problems_of"]


def lint(documents: Iterable[Document], *, complete: bool = False) -> list[str]:
    """Return what is wrong with documents that may refer to each other; empty if nothing is.

    Parameters
    ----------
    complete
        Nothing is left for the chart: every required argument must have its value, too.
    """
    library = Library(documents, complete=complete)
    return [one for document in library.documents for one in problems_of(document, library)] + list(
        library.twice()
    )


def problems_of(document: Document, library: Library) -> list[str]:
    """Return what is wrong with one document among others."""
    problems = list(schema.problems(document))
    if not problems:
        for check in (references, programs, nodes, events):
            problems += check.problems(document, library)
    return [f"{title(document)}: {problem}" for problem in problems]


def checked(documents: Iterable[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return how many documents have a schema here, and the kinds of those that have none."""
    kinds = [(document, schema.has_schema(document)) for document in documents]
    return sum(known for _, known in kinds), sorted(
        {str(document.get("kind")) for document, known in kinds if not known}
    )
