"""Call a ``contimg`` command in this process: arguments in, exit code and summary out."""

from __future__ import annotations

import io
import json
import os
import signal
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any
from unittest import mock

from contimg.runtime.contract import run_command

if TYPE_CHECKING:
    from pathlib import Path


def contimg(
    command: str, *words: str, code: int = 0, outputs: Path | None = None
) -> dict[str, Any]:
    """Return a command's summary; if it fails the last line of its log or argparse's message."""
    (point,) = entry_points(group="contimg.commands", name=command)
    out, err = io.StringIO(), io.StringIO()
    handed = {"CONTIMG_OUTPUTS": str(outputs)} if outputs else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with redirect_stdout(out), redirect_stderr(err), mock.patch.dict(os.environ, handed):
            ended = run_command(point.load(), words)
    except SystemExit as error:
        ended = error.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended == code, err.getvalue()
    try:
        said: dict[str, Any] = json.loads(
            out.getvalue() if code == 0 else err.getvalue().splitlines()[-1]
        )
    except ValueError:
        return {"message": err.getvalue()}
    return said
