"""Logs as lines in plain words: a file that grows, or what a pod wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from contimg_runs.state import readable_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TICK_S = 0.2


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a log from its beginning; none if there is no such file."""
    yield from following(path, lambda: True)


def following(path: Path, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of a log as they come, until its writer has ended."""
    rest = b""
    position = 0
    over = False
    while not over:
        over = ended()  # asked before reading: what was written until then is read
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
