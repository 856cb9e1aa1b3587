"""Commands of ``contimg`` in the process of the test, which is faster than another process."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from contimg.runtime.command import commands
from contimg.runtime.contract import run_command


def run_here(command: str | Callable[[Sequence[str]], int], *words: str) -> int:
    """Run a command, by name or function, and return its exit code; handlers of signals stay."""
    run = partial(run_command, commands()[command]) if isinstance(command, str) else command
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return run(words)
    except SystemExit as ended:
        return int(str(ended.code))
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def contimg(
    command: str, *words: str, code: int = 0, outputs: Path | None = None
) -> dict[str, Any]:
    """Return a command's summary; if it fails, the last line of its log or argparse's message."""
    out, err = io.StringIO(), io.StringIO()
    env = {"CONTIMG_OUTPUTS": str(outputs)} if outputs else {}
    with redirect_stdout(out), redirect_stderr(err), mock.patch.dict(os.environ, env):
        ended = run_here(command, *words)
    assert ended == code, err.getvalue()
    text = out.getvalue() if code == 0 else err.getvalue().splitlines()[-1]
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"message": err.getvalue()}
    return answer
