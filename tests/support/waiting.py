"""Waiting for what another process does, and looking whether it lives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Ask until the answer is true; return it."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not asked for its code does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
