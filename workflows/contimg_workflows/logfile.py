"""Logs as readable lines: a file that grows, or what a pod wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

TICK_S = 0.2
EXECUTOR = " argo=true"
"""Ends or stands within the lines of Argo's executor, which are not the stage's."""


def read_log(path: Path) -> Iterator[str]:
    """Yield the lines of a log from its beginning; nothing if there is no such file."""
    yield from follow_log(path, lambda: True)


def follow_log(path: Path, has_ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of a log as they are written, until its writer has ended."""
    rest, position, over = b"", 0, False
    while not over:
        over = has_ended()  # asked before reading, so that everything written until then is read
        if path.exists():
            with path.open("rb") as log:
                log.seek(position)
                block = log.read()
            position += len(block)
            *whole, rest = (rest + block).split(b"\n")
            yield from readable_lines(line.decode(errors="replace") for line in whole)
        if not over:
            time.sleep(TICK_S)
    if rest:
        yield from readable_lines([rest.decode(errors="replace")])


def readable_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield a log's JSON lines as text, with tracebacks, and others as they are; not Argo's own."""
    for line in lines:
        if line.rstrip().endswith(EXECUTOR) or f"{EXECUTOR} " in line:
            continue
        try:
            entry = json.loads(line)
            yield f"{entry['time'][11:19]} {entry['level']}: {entry['message']}"
        except (ValueError, KeyError, TypeError):
            yield line.rstrip("\r\n")
        else:
            yield from str(entry.get("trace", "")).splitlines()
