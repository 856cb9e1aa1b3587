"""Commands of ``contimg`` in the process of the test, which is faster than another process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence


def here(command: Callable[[Sequence[str]], int], *words: str) -> int:
    """Run a command, put the signals back, and return its exit code."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return command(words)
    except SystemExit as ended:
        return int(str(ended.code))
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
