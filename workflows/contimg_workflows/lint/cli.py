"""``contimg lint``: the templates of this version, or whatever YAML is named, such as what a chart renders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from contimg.runtime.contract import command
from contimg.runtime.errors import UsageError
from contimg.runtime.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contimg.runtime.console import Console

FAILED = 1
"""Exit code when something is wrong."""


class LintOptions(Options):
    """Check workflow templates, and whatever is installed with them, without a cluster."""

    path: str | None = None
    """A file or folder of YAML, or - for stdin; default: the templates of this version."""
    complete: bool = False
    """Nothing is left for a chart to fill in: every required argument must have its value."""


def main(argv: Sequence[str]) -> int:
    """Run ``contimg lint``; 1 if something is wrong."""
    # `contimg lint FOLDER` is what fingers type.
    words = (
        [f"--path={argv[0]}", *argv[1:]]
        if argv and (argv[0] == "-" or not argv[0].startswith("-"))
        else list(argv)
    )
    wrong: list[str] = []

    def work(options: LintOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
        from contimg_workflows.lint import (
            checked,
            lint,
        )  # Hera is slow to import, and --help needs none

        documents = read(options.path)
        wrong.extend(lint(documents, complete=options.complete))
        for problem in wrong:
            console.log.error("%s", problem)
        known, unknown = checked(documents)
        if unknown:
            console.log.warning("NOT CHECKED, no schema here: %s", ", ".join(unknown))
        return {
            "documents": len(documents),
            "checked": known,
            "unchecked": unknown,
            "problems": wrong,
        }

    return command("contimg lint", LintOptions, work, words) or (FAILED if wrong else 0)


def read(path: str | None) -> list[dict[str, Any]]:
    """Read the documents of a path.

    Raises
    ------
    UsageError
        If there are none, or one is no YAML.
    """
    if path is None:
        from contimg_workflows.render import rendered

        named = rendered()
    elif path == "-":
        named = {"stdin": sys.stdin.read()}
    else:
        files = sorted(Path(path).rglob("*.y*ml")) if Path(path).is_dir() else [Path(path)]
        named = {str(file): file.read_text() for file in files if file.exists()}
    found = [document for name, text in named.items() for document in _documents(name, text)]
    if not found:
        raise UsageError(
            str(path), "expected YAML documents, found none.", "Name a file, a folder or -."
        )
    return found


def _documents(name: str, text: str) -> list[dict[str, Any]]:
    try:
        found = [document for document in yaml.safe_load_all(text) if document]
    except yaml.YAMLError as error:
        raise UsageError(name, f"expected YAML, found {error!s}.", "Correct the file.") from error
    for document in found:
        if not isinstance(document, dict):
            raise UsageError(
                name,
                f"expected documents of keys and values, found {str(document)[:40]}.",
                "Name what kubectl would take.",
            )
    return found
