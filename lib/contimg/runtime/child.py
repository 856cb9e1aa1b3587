"""Child processes with a time limit: CASA, WSClean and AOFlagger.

CASA blocks Python's signal handlers and can wait for ever on a table lock, so it never runs in the
stage's own process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contimg.runtime.errors import ChildFailedError, ChildTimedOutError, NoRoomError

TAIL_CHARACTERS = 2000
"""Length of the end of a child's log in an error message."""
PR_SET_PDEATHSIG = 1
"""Code of prctl(2)."""
GRACE_S = 3.0
"""Time between SIGTERM and SIGKILL."""
GC_THRESHOLD_OBJECTS = 100_000
"""Number of new objects after which Python looks for cyclic garbage."""


def collect_seldom() -> None:
    """Look for cyclic garbage seldom: imports make most objects, and the search took 10 %."""
    gc.set_threshold(GC_THRESHOLD_OBJECTS)


def run(
    argv: Sequence[str],
    log: Path,
    timeout_s: float,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> None:
    """Run a program to its end, its output appended to `log`.

    The child has its own process group, which is killed at the time limit, when this process is
    terminated, and (by the kernel) when this process dies.

    Raises
    ------
    ChildFailedError, ChildTimedOutError
        With the last lines of the log.
    NoRoomError
        If it was killed from outside, as the kernel does where memory runs out.
    """
    prctl = ctypes.CDLL(None).prctl
    with log.open("ab") as sink:
        child = subprocess.Popen(  # noqa: S603 - argv comes from the stages, never through a shell
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - no thread runs Python here
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            problem = f"The program did not end within {timeout_s:.0f} s."
            raise ChildTimedOutError(argv[0], problem, f"Its log ends: {tail(log)}") from error
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if child.poll() is None:
                    os.killpg(child.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(GRACE_S)
    where = " ".join(argv[:3])
    if code == -signal.SIGKILL:
        problem = "The program was killed (SIGKILL), probably out of memory."
        raise NoRoomError(where, problem, "Raise the memory limit.")
    if code != 0:
        problem = f"The program ended with exit code {code}."
        raise ChildFailedError(where, problem, f"Its log ends: {tail(log)}")


def call(
    function: str, arguments: Mapping[str, Any], log: Path, timeout_s: float, env: Mapping[str, str]
) -> Any:  # noqa: ANN401 - JSON
    """Call ``module:function(**arguments)`` in a child Python; arguments and result are JSON."""
    with tempfile.TemporaryDirectory(dir=log.parent) as folder:
        given, result = Path(folder) / "arguments.json", Path(folder) / "result.json"
        given.write_text(json.dumps(arguments))
        argv = [sys.executable, "-m", __spec__.name, function, str(given), str(result)]
        run(argv, log, timeout_s, env, cwd=Path(folder))
        return json.loads(result.read_text())


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-TAIL_CHARACTERS:].strip() if log.exists() else ""


if __name__ == "__main__":
    collect_seldom()
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    answer = function(**json.loads(Path(sys.argv[2]).read_text()))
    Path(sys.argv[3]).write_text(json.dumps(answer))
