"""One try of a task: a process with its own group, log and outputs, which ends with the engine."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from contimg.runtime.errors import Exit, meaning_of

PR_SET_PDEATHSIG = 1
GRACE_S = 10.0
"""Time between SIGTERM and SIGKILL, seconds."""


class Process:
    """A running process of a task."""

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
        own = {"CONTIMG_OUTPUTS": str(self._outputs), "ARGO_PROGRESS_FILE": str(self._progress)}
        with log.open("wb") as sink:
            self._child = subprocess.Popen(  # noqa: S603 - argv comes from our templates, never through a shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=sink,
                env={**env, **own, "CONTIMG_LOG_JSON": "1"},
                start_new_session=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509 - the engine has one thread
            )

    def poll(self) -> int | None:
        """Return the exit code as a shell gives it, None while it runs; enforce the deadline."""
        if (code := self._child.returncode) is None:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            has_ended = os.waitid(os.P_PID, self._child.pid, flags) is not None
            now = time.monotonic()
            if has_ended or (self._kill_at is not None and now > self._kill_at):
                # Of one that has ended, the children are killed before its id can be reused.
                with suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            if not has_ended:
                if now > self._ends and not self._timed_out:
                    self._timed_out = True
                    self.stop()
                return None
            code = self._child.wait()
        if self._timed_out:
            return int(Exit.CHILD_TIMED_OUT)
        return 128 - code if code < 0 else code

    def stop(self) -> None:
        """Ask it to stop; `poll` kills it if it does not."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_S
            if self._child.returncode is None:
                # `send_signal` would reap a child that has just ended, and `poll` would miss it.
                os.kill(self._child.pid, signal.SIGTERM)

    def reason(self, code: int) -> str:
        """Return why it failed: its own reason, or the meaning of its exit code."""
        if self._timed_out:
            return f"took longer than {self._deadline_s:.0f} s"
        try:
            return str(json.loads((self._outputs / "failure.json").read_text())["reason"])
        except (FileNotFoundError, ValueError):  # missing or cut off: a full disk, or a kill
            return f"exit code {code}: {meaning_of(code)}"

    def outputs(self, names: Iterable[str]) -> tuple[dict[str, str], float | None] | None:
        """Return what was handed over, by name, and the seconds that the stage reports.

        None if a file of these names was not written.
        """
        paths = {name: self._outputs / name for name in names}
        if not all(path.exists() for path in paths.values()):
            return None
        summary = self._outputs / "summary.json"
        seconds = json.loads(summary.read_text()).get("seconds") if summary.exists() else None
        return {name: path.read_text().strip() for name, path in paths.items()}, seconds

    def progress(self) -> str:
        """Return the ``N/M`` that the stage wrote last."""
        return self._progress.read_text().strip() if self._progress.exists() else ""
