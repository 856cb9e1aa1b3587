"""Child processes with a time limit: CASA, WSClean and AOFlagger.

CASA blocks Python's signal handlers and can wait for ever on a table lock, so it never runs in the
stage's own process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from contimg.runtime.errors import ChildFailedError, ChildTimedOutError, NoRoomError

LINEAR_ALGEBRA = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""Environment of every process that computes, so that the same input gives the same bytes.

Threads add in another order each time, and on few cores they wait for each other (15 times slower
was measured). OpenBLAS chooses kernels by processor, and each kind rounds in its own way (gains
differed by 1e-7); those of Haswell run on any x86-64 processor with AVX2.
"""
TAIL_CHARACTERS = 2000
"""Length of the end of a child's log in an error message."""
PR_SET_PDEATHSIG = 1
"""Code of prctl(2)."""
GRACE_S = 3.0
"""Time between SIGTERM and SIGKILL."""
GC_THRESHOLD_OBJECTS = 100_000
"""Number of new objects after which Python looks for cyclic garbage: imports make most objects,
and by default the search took 10 % of the time."""


def run(
    argv: Sequence[str], log: Path, timeout_s: float, env: Mapping[str, str], cwd: Path = Path()
) -> None:
    """Run a program to its end, its output appended to `log`.

    The child has its own process group, which is killed at the time limit, when this process is
    terminated, and (by the kernel) when this process dies.

    ChildFailedError and ChildTimedOutError have the end of the log; NoRoomError if the program was
    killed from outside, as the kernel does where memory runs out.
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
        code = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout_s)
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if child.poll() is None:
                    os.killpg(child.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(GRACE_S)
    if code == 0:
        return
    where, end = " ".join(argv[:3]), log.read_text(errors="replace")[-TAIL_CHARACTERS:].strip()
    if code is None:
        problem = f"The program did not end within {timeout_s:.0f} s."
        raise ChildTimedOutError(where, problem, f"Its log ends: {end}")
    if code == -signal.SIGKILL:
        problem = "The program was killed (SIGKILL), probably out of memory."
        raise NoRoomError(where, problem, "Raise the memory limit.")
    problem = f"The program ended with exit code {code}."
    raise ChildFailedError(where, problem, f"Its log ends: {end}")


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


if __name__ == "__main__":
    gc.set_threshold(GC_THRESHOLD_OBJECTS)
    answer = resolve_name(sys.argv[1])(**json.loads(Path(sys.argv[2]).read_text()))
    Path(sys.argv[3]).write_text(json.dumps(answer))
