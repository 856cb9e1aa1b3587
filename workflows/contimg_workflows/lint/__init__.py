"""``contimg lint``: check rendered YAML without a cluster: schemas, references, options, sizes.

Argo's own JSON schema and Hera's models accept unknown fields, so that a misspelt field would be
ignored silently.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from contimg.runtime.config import UniqueKeyLoader
from contimg.runtime.console import Console
from contimg.runtime.errors import UsageError
from contimg_workflows.lint import references, rules, schema
from contimg_workflows.lint.documents import Document, DocumentSet, name_of
from contimg_workflows.options import LintOptions
from contimg_workflows.render import render_all

__all__ = ["find_problems", "lint", "run"]
FAILED = 1
"""Exit code when something is wrong."""


def run(options: LintOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Check the templates of this version, or other YAML, such as what a chart renders."""
    documents = read_documents(options.path)
    problems = lint(documents, complete=options.complete)
    for problem in problems:
        console.log.error("%s", problem)
    without = [str(one.get("kind")) for one in documents if not schema.has_schema(one)]
    unchecked = sorted(set(without))
    if unchecked:
        console.log.warning("NOT CHECKED, no schema here: %s", ", ".join(unchecked))
    return {
        "documents": len(documents),
        "checked": len(documents) - len(without),
        "unchecked": unchecked,
        "problems": problems,
        **({"exit": FAILED} if problems else {}),
    }


def lint(documents: Iterable[Document], *, complete: bool = False) -> list[str]:
    """Return what is wrong with documents that may refer to each other; empty if nothing is.

    Parameters
    ----------
    complete
        Nothing is left for the chart: every required argument must have its value.
    """
    among = DocumentSet(documents, complete=complete)
    found = [one for document in among.documents for one in find_problems(document, among)]
    named = [(one.get("kind", "?"), name_of(one)) for one in among.documents]
    twice = [pair for number, pair in enumerate(named) if pair in named[:number]]
    return [*found, *(f"{kind} {name}: occurs twice" for kind, name in twice)]


def find_problems(document: Document, among: DocumentSet) -> list[str]:
    """Return what is wrong with one document among others."""
    problems = list(schema.find_problems(document))
    if not problems:
        problems += references.find_problems(document, among)
        problems += rules.find_problems(document, among)
    kind = document.get("kind", "?")
    title = name_of(document) if kind == "WorkflowTemplate" else f"{kind} {name_of(document)}"
    return [f"{title}: {problem}" for problem in problems]


def read_documents(path: str | None) -> list[Document]:
    """Read the documents of a file, of a folder, of stdin (-), or the templates of this version.

    UsageError if there are none, or one is not YAML.
    """
    if path is None:
        sources = render_all()
    elif path == "-":
        sources = {"stdin": sys.stdin.read()}
    else:
        files = sorted(Path(path).rglob("*.y*ml")) if Path(path).is_dir() else [Path(path)]
        sources = {str(file): file.read_text() for file in files if file.exists()}
    found: list[Document] = []
    for name, text in sources.items():
        try:
            documents = list(filter(None, yaml.load_all(text, UniqueKeyLoader)))
        except yaml.YAMLError as error:
            raise UsageError(name, f"This is not YAML: {error}.", "Correct the file.") from error
        for document in documents:
            if not isinstance(document, dict):
                problem = f"A document of keys and values is expected, not {str(document)[:40]}."
                raise UsageError(name, problem, "Name what kubectl would take.")
        found += documents
    if not found:
        raise UsageError(str(path), "There are no YAML documents.", "Name a file, a folder or -.")
    return found
