# ruff: noqa: INP001 - a script, in no package
"""Write a chart's README from its values.yaml: ``python charts/readme.py FOLDER``.

Every value has a comment that begins with ``# --``, or stands below one that has.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = "README.head.md"
"""What stands before the table."""
MARK = "# -- "


@dataclass(frozen=True)
class Row:
    """One documented value."""

    path: str
    default: Any
    text: str


class UndocumentedError(Exception):
    """A value without a comment."""


def rows(text: str) -> list[Row]:
    """Return the documented values of a values.yaml, in its order.

    Raises
    ------
    UndocumentedError
        If a value has no ``# --`` of its own and stands below none.
    """
    node = yaml.compose(text)
    return list(_rows(node, yaml.safe_load(text), text.splitlines(), "")) if node else []


def _rows(node: yaml.Node, values: Any, lines: list[str], path: str) -> Iterator[Row]:  # noqa: ANN401 - any YAML
    if not isinstance(node, yaml.MappingNode):
        raise UndocumentedError(path)
    for key, child in node.value:
        name = f"{path}.{key.value}".lstrip(".")
        text = comment(lines, key.start_mark.line)
        if text:
            yield Row(name, values[key.value], text)
        else:
            yield from _rows(child, values[key.value], lines, name)


def comment(lines: list[str], line: int) -> str:
    """Return the text of the ``# --`` comment just above a line; empty if there is none."""
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        word = lines[line].strip()
        if word.startswith(MARK):
            return " ".join([word.removeprefix(MARK), *found])
        found.insert(0, word.lstrip("# "))
    return ""


def table(found: list[Row]) -> str:
    """Return the values as a table in Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    lines += [
        f"| `{row.path}` | {default(row.default)} | {row.text.replace('|', chr(92) + '|')} |"
        for row in found
    ]
    return "\n".join(lines) + "\n"


def default(value: Any) -> str:  # noqa: ANN401 - any YAML
    """Return a default as a person reads it; what is long stands in values.yaml."""
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"  # noqa: PLR2004 - the width of a column


def readme(folder: Path) -> str:
    """Return the README of a chart."""
    return (folder / HEAD).read_text() + "\n" + table(rows((folder / "values.yaml").read_text()))


if __name__ == "__main__":
    chart = Path(sys.argv[1])
    (chart / "README.md").write_text(readme(chart))
