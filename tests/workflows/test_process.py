"""One try of a task, with programs of one line of shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contimg_workflows import process
from contimg_workflows.process import Process
from waiting import alive, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Process]:
    def begin(script: str, deadline_s: float = 20) -> Process:
        env = {"PATH": os.environ["PATH"], "WORD": "hello"}
        argv = ["/bin/sh", "-c", script]
        return Process(argv, tmp_path / "task", tmp_path / "log", env, deadline_s)

    return begin


def end(one: Process) -> int:
    wait_for(lambda: one.poll() is not None)
    code = one.poll()
    assert code is not None
    return code


@pytest.mark.parametrize("code", [0, 2, 10, 21, 70])
def test_exit_code_is_returned(start: Callable[..., Process], code: int) -> None:
    assert end(start(f"exit {code}")) == code


@pytest.mark.parametrize(
    ("signal", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("ABRT", 134)]
)
def test_signal_gives_shell_exit_code(
    start: Callable[..., Process], signal: str, code: int
) -> None:
    assert end(start(f"kill -{signal} $$")) == code


def test_stop_after_end_keeps_code(start: Callable[..., Process], tmp_path: Path) -> None:
    one = start("echo $$ >&2; exit 7")
    pid = int(wait_for((tmp_path / "log").read_text))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, and was not polled yet
    one.stop()
    assert end(one) == 7
    assert end(one) == 7  # the same at every further poll


def test_process_gets_paths_and_environment(start: Callable[..., Process], tmp_path: Path) -> None:
    one = start(
        'echo "$WORD" > $CONTIMG_OUTPUTS/artifact; echo 3/4 > $ARGO_PROGRESS_FILE; '
        "echo out; echo err >&2"
    )
    assert end(one) == 0
    assert one.outputs(["artifact"]) == ({"artifact": "hello"}, None)
    assert one.progress() == "3/4"
    assert (tmp_path / "log").read_text() == "err\n"


def test_next_try_starts_with_empty_folder(start: Callable[..., Process]) -> None:
    end(start("echo x > $CONTIMG_OUTPUTS/artifact"))
    one = start("true")
    assert end(one) == 0
    assert one.outputs(["artifact"]) is None
    assert one.progress() == ""


def test_reason_comes_from_failure_file_or_table(start: Callable[..., Process]) -> None:
    failure = json.dumps({"exit": 10, "name": "BAD_FILE", "reason": "x.hdf5 is empty"})
    one = start(f"echo '{failure}' > $CONTIMG_OUTPUTS/failure.json; exit 10")
    assert one.reason(end(one)) == "x.hdf5 is empty"
    for half in (
        "",
        """echo '{"exit": 10, "rea' > $CONTIMG_OUTPUTS/failure.json;""",
        ": > $CONTIMG_OUTPUTS/failure.json;",
    ):
        one = start(f"{half} exit 22")
        assert one.reason(end(one)) == "exit code 22: not enough disk or memory"


def test_seconds_come_from_summary(start: Callable[..., Process]) -> None:
    one = start("""echo '{"seconds": 12.5}' > $CONTIMG_OUTPUTS/summary.json""")
    end(one)
    assert one.outputs([]) == ({}, 12.5)
    one = start("true")
    end(one)
    assert one.outputs([]) == ({}, None)


def test_deadline_ends_process(start: Callable[..., Process]) -> None:
    one = start("exec sleep 300", deadline_s=0.2)
    assert end(one) == 24
    assert one.reason(24) == "took longer than 0 s"


def test_process_ignoring_sigterm_is_killed(
    start: Callable[..., Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.3)
    one = start("trap '' TERM; echo deaf >&2; sleep 300; sleep 300")
    wait_for((tmp_path / "log").read_text)
    one.stop()
    assert end(one) == 137


def test_grandchildren_are_killed(start: Callable[..., Process], tmp_path: Path) -> None:
    one = start(f"sleep 60 & echo $! > {tmp_path}/pid; exit 0")
    assert end(one) == 0
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(pid))


def test_process_is_terminated_with_engine(tmp_path: Path) -> None:
    code = (
        "import sys,time,pathlib; from contimg_workflows.process import Process\n"
        "p = pathlib.Path(sys.argv[1])\n"
        "Process(['/bin/sh', '-c', f'trap \"echo told > {p}/told; exit\" TERM; echo $$ > {p}/pid; '"
        "'while :; do sleep 0.1; done'],"
        " p / 'task', p / 'log', {'PATH': '/usr/bin:/bin'}, 60)\n"
        "time.sleep(60)"
    )
    engine = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    engine.kill()
    engine.wait(10)
    wait_for((tmp_path / "told").exists)
