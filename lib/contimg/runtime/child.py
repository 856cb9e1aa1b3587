"""Programs that must not be trusted to end: CASA, WSClean and AOFlagger in children with a time limit.

CASA blocks Python's signal handlers and can wait for ever on a table lock, so it never runs in the stage's own process.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contimg.runtime.errors import ChildFailedError, ChildTimedOutError, NoRoomError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAIL = 2000
"""Characters of a child's log that go into an error message."""
PR_SET_PDEATHSIG = 1
GRACE_S = 3.0
OBJECTS = 100_000
"""Python looks for cyclic garbage after so many new objects."""


def collect_seldom() -> None:
    """Look for cyclic garbage seldom: nearly all that a stage makes is modules, which stay, and the search took a tenth of its time."""
    gc.set_threshold(OBJECTS)


def run(
    argv: Sequence[str],
    log: Path,
    timeout_s: float,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> None:
    """Run a program to its end, its output appended to `log`.

    The child has its own process group, which is killed when the time is over, when this process is
    told to stop, and (by the kernel) when this process dies.

    Raises
    ------
    ChildFailedError, ChildTimedOutError
        With the last lines of the log.
    NoRoomError
        If something else killed it: where a control group runs out of memory, the kernel takes its largest process.
    """
    with log.open("ab") as sink:
        child = subprocess.Popen(  # noqa: S603 - argv comes from the stages, never through a shell
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs Python here
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            remedy = f"Its log ends: {tail(log)}"
            raise ChildTimedOutError(
                argv[0], f"expected an end within {timeout_s:.0f} s, found none.", remedy
            ) from error
        finally:
            _kill(child)
    if code == -signal.SIGKILL:
        raise NoRoomError(
            " ".join(argv[:3]),
            "expected an end, found that it was killed, most often for want of memory.",
            "Give it more.",
        )
    if code != 0:
        raise ChildFailedError(
            " ".join(argv[:3]),
            f"expected exit code 0, found {code!s}.",
            f"Its log ends: {tail(log)}",
        )


def call(
    function: str, arguments: Mapping[str, Any], log: Path, timeout_s: float, env: Mapping[str, str]
) -> Any:  # noqa: ANN401 - JSON
    """Call ``module:function(**arguments)`` in a child Python and return its result; both sides are JSON."""
    with tempfile.TemporaryDirectory(dir=log.parent) as folder:
        given, result = Path(folder) / "arguments.json", Path(folder) / "result.json"
        given.write_text(json.dumps(arguments))
        run(
            [sys.executable, "-m", "contimg.runtime.child", function, str(given), str(result)],
            log,
            timeout_s,
            env,
            cwd=Path(folder),
        )
        return json.loads(result.read_text())


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-TAIL:].strip() if log.exists() else ""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a whole process group; a no-op where it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, number)
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                continue


def _main(function: str, given: str, result: str) -> None:
    module, _, name = function.partition(":")
    answer = getattr(importlib.import_module(module), name)(**json.loads(Path(given).read_text()))
    Path(result).write_text(json.dumps(answer))


if __name__ == "__main__":
    collect_seldom()
    _main(*sys.argv[1:])
