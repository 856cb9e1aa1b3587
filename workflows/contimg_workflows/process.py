"""One try of a task: a process with its own group, log, progress and outputs, that ends when the engine does."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contimg.runtime.errors import Exit, meaning_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PR_SET_PDEATHSIG = 1
GRACE_S = 10.0
"""A stage that was told to stop has so long."""


class Process:
    """A running stage."""

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        log: Path,
        env: Mapping[str, str],
        deadline_s: float,
    ) -> None:
        self._outputs, self._progress = folder / "outputs", folder / "progress"
        shutil.rmtree(folder, ignore_errors=True)
        self._outputs.mkdir(parents=True)
        self._deadline_s, self._ends = deadline_s, time.monotonic() + deadline_s
        self._kill_at: float | None = None
        self._timed_out = False
        mine = {
            "CONTIMG_OUTPUTS": str(self._outputs),
            "CONTIMG_LOG_JSON": "1",
            "ARGO_PROGRESS_FILE": str(self._progress),
        }
        with log.open("wb") as sink:
            self._child = subprocess.Popen(  # noqa: S603 - argv comes from our templates, never through a shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=sink,
                env={**env, **mine},
                start_new_session=True,
                preexec_fn=_stop_with_parent,  # noqa: PLW1509 - the engine has one thread
            )

    def poll(self) -> int | None:
        """Return the exit code as a shell counts it, None while it runs; enforce the deadline."""
        if self._child.returncode is None and os.waitid(
            os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            # What it left behind goes before its id can be given to another.
            self._sweep()
            self._child.wait()
        code = self._child.returncode
        if code is not None:
            return (
                int(Exit.CHILD_TIMED_OUT) if self._timed_out else (128 - code if code < 0 else code)
            )
        now = time.monotonic()
        if now > self._ends and not self._timed_out:
            self._timed_out = True
            self.stop()
        if self._kill_at is not None and now > self._kill_at:
            self._sweep()
        return None

    def stop(self) -> None:
        """Ask it to stop; `poll` kills it if it does not."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_S
            if self._child.returncode is None:
                # Not `send_signal`: that takes the exit code of one that has just ended, and `poll` would find no child.
                os.kill(self._child.pid, signal.SIGTERM)

    def reason(self, code: int) -> str:
        """Say why it failed: its own words, or the meaning of its exit code."""
        if self._timed_out:
            return f"took longer than {self._deadline_s:.0f} s"
        try:
            return str(json.loads((self._outputs / "failure.json").read_text())["reason"])
        except (
            FileNotFoundError,
            ValueError,
        ):  # not said, or not to its end: the disk was full, or it was killed
            return f"exit code {code}: {meaning_of(code)}"

    def outputs(self, files: Mapping[str, str]) -> dict[str, str] | None:
        """Return the output parameters; None if one was not written."""
        try:
            return {
                name: (self._outputs / file).read_text().strip() for name, file in files.items()
            }
        except FileNotFoundError:
            return None

    def made_s(self) -> float | None:
        """Return the seconds that the stage says it spent."""
        told = self._outputs / "summary.json"
        return json.loads(told.read_text()).get("seconds") if told.exists() else None

    def progress(self) -> str:
        """Return the ``N/M`` that the stage wrote last."""
        try:
            return self._progress.read_text().strip()
        except FileNotFoundError:
            return ""

    def _sweep(self) -> None:
        """Kill what is left of the process group."""
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _stop_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
