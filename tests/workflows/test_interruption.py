"""The engine as a process that is stopped, interrupted or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contimg_runs.state import Status
from contimg_workflows.state import RunFolder
from waiting import alive, wait_for

if TYPE_CHECKING:
    from tiny_bench import Bench

PACKAGES = Path(__file__).parent / "packages"


def drive(folder: Path, **settings: str) -> subprocess.Popen[str]:
    words = ["--folder", str(folder), "--settings", json.dumps(settings)]
    argv, pipe = [sys.executable, str(PACKAGES / "tiny_bench.py"), *words], subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_terminated_engine_stops_processes(
    bench: Bench, tmp_path: Path, number: signal.Signals
) -> None:
    engine = drive(tmp_path, b_do="sleep", b_times="1")
    wait_for(lambda: "b" in bench.ran())
    engine.send_signal(number)
    assert engine.wait(60) == 21
    assert not any(alive(pid) for pid in bench.pids())
    assert "b" not in bench.made()
    state = RunFolder(bench.runs / "one").load()
    assert state.status is Status.STOPPED
    assert state.tasks["b"].tries[-1].exit == 21
    again(bench, tmp_path)


def test_killed_engine_stops_processes_and_resumes(bench: Bench, tmp_path: Path) -> None:
    engine = drive(tmp_path, b_do="sleep", b_times="1")
    wait_for(lambda: "b" in bench.ran())
    assert RunFolder(bench.runs / "one").load().status is Status.RUNNING
    engine.kill()
    engine.wait(10)
    wait_for(lambda: not any(alive(pid) for pid in bench.pids()))
    assert "b" not in bench.made()
    state = RunFolder(bench.runs / "one").load()
    assert state.status is Status.INTERRUPTED
    assert state.tasks["b"].status is Status.INTERRUPTED
    again(bench, tmp_path)


def again(bench: Bench, folder: Path) -> None:
    """Run to the end; what was done is not done again."""
    engine = drive(folder, b_do="sleep", b_times="1")
    said, _ = engine.communicate(timeout=120)
    assert json.loads(said)["status"] == "done"
    assert bench.word("d") == "a b a c d"
    assert bench.ran().count("a") == 1
    assert bench.ran().count("b") == 2


@pytest.mark.slow
def test_state_is_whole_after_kill(bench: Bench, tmp_path: Path) -> None:
    for delay in (0.9, 1.2, 1.5, 1.8):
        engine = drive(tmp_path)
        time.sleep(delay)
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait(10)
        if (bench.runs / "one" / "state.json").exists():
            assert RunFolder(bench.runs / "one").load().status in {Status.INTERRUPTED, Status.DONE}
    engine = drive(tmp_path)
    assert engine.wait(120) == 0
    assert bench.word("d") == "a b a c d"
