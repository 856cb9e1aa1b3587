"""JSON and CSV that people write: a name that stands twice is refused, not overwritten."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any


def read_json(text: str | bytes) -> Any:  # noqa: ANN401 - JSON
    """Read JSON; ValueError if it is not JSON, or an object has a key twice."""
    return json.loads(text, object_pairs_hook=_make_object)


def read_csv(text: str) -> list[dict[str, str]]:
    """Read a CSV with names in its first line, a mapping a row; missing cells are empty.

    Raises ValueError if two columns have one name, or a row has more cells than there are names.
    """
    rows = csv.reader(io.StringIO(text))
    names = [name.strip() for name in next(rows, [])]
    _refuse_repeated(names, "column")
    found = []
    for number, row in enumerate(filter(None, rows), 1):
        if len(row) > len(names):
            raise ValueError(f"row {number} has {len(row)} cells under {len(names)} names")
        cells = [*row, *[""] * (len(names) - len(row))]
        found.append(dict(zip(names, cells, strict=True)))
    return found


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated((key for key, _ in pairs), "key")
    return dict(pairs)


def _refuse_repeated(names: Iterable[str], kind: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"the {kind} {name!r} is given {count} times")
