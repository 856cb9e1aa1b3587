"""Logs as readable lines: a file that grows, or what a pod wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from contimg_runs.state import readable_lines

TICK_S = 0.2


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
