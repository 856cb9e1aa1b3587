"""The state of a run outlives its engine, and is whole whenever somebody looks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from contimg.runtime.errors import UsageError
from contimg_runs.state import RunState, Status, TaskState, Try
from contimg_workflows.state import RunFolder, all_runs, read_log

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)


def state(
    name: str = "one", status: Status = Status.RUNNING, started: datetime = NOW, **tasks: Status
) -> RunState:
    made = {task: TaskState(status=given) for task, given in tasks.items()}
    return RunState(
        name=name,
        pipeline="p",
        arguments={"store": "/s"},
        started=started,
        status=status,
        tasks=made,
    )


def saved(runs: Path, given: RunState) -> RunFolder:
    folder = RunFolder(runs / given.name)
    with folder.hold():
        folder.save(given)
    return folder


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    given = state(status=Status.FAILED, a=Status.DONE, b=Status.FAILED)
    given.tasks["a"].tries.append(
        Try(started=NOW, ended=NOW + timedelta(seconds=3.5), exit=0, log="a.1.log")
    )
    given.tasks["a"].outputs["artifact"] = "/s/a/KEY"
    given.tasks["b"].reason = "a disk is full"
    folder = saved(tmp_path, given)
    assert folder.load() == given
    assert folder.load().tasks["a"].tries[0].seconds == 3.5
    assert folder.load().failed == ["b"]


def test_running_without_an_engine_is_interrupted(tmp_path: Path) -> None:
    given = state(a=Status.DONE, b=Status.RUNNING, c=Status.WAITING, d=Status.PENDING)
    folder = saved(tmp_path, given)
    found = folder.load()
    assert found.status is Status.INTERRUPTED
    assert [task.status for task in found.tasks.values()] == [
        Status.DONE,
        Status.INTERRUPTED,
        Status.INTERRUPTED,
        Status.PENDING,
    ]
    with folder.hold():
        assert folder.load().status is Status.RUNNING
        assert folder.load().tasks["b"].status is Status.RUNNING


def test_a_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys,time,pathlib; from contimg_workflows.state import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1]) / 'one').hold():\n"
        "  print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    folder = RunFolder(tmp_path / "one")
    with pytest.raises(UsageError, match="Another engine runs this workflow now"), folder.hold():
        pass
    holder.kill()
    holder.wait(10)
    holder.stdout.close()
    with folder.hold():
        pass


def test_a_reader_never_sees_half_a_state(tmp_path: Path) -> None:
    folder = saved(tmp_path, state())
    stop = threading.Event()

    def write() -> None:
        long = state(**{f"task{n}": Status.PENDING for n in range(300)})
        while not stop.is_set():
            folder.save(long)
            folder.save(state())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = {len(folder.load().tasks) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert counts <= {0, 300}


def test_runs_are_listed_by_their_start(tmp_path: Path) -> None:
    for hours, name in enumerate(["c", "a", "b"]):
        saved(tmp_path, state(name, started=NOW + timedelta(hours=hours)))
    (tmp_path / "empty").mkdir()
    assert [folder.path.name for folder in all_runs(tmp_path)] == ["c", "a", "b"]
    assert all_runs(tmp_path / "gone") == []


# The end of a log


def tail(path: Path, lines: int) -> list[str]:
    return list(read_log(path))[-lines:]


def line(message: str, **more: Any) -> str:
    return json.dumps(
        {
            "time": "2026-01-25T22:26:05.123+00:00",
            "level": "info",
            "stage": "x",
            "message": message,
            **more,
        }
    )


def test_the_end_of_a_log_is_plain_words(tmp_path: Path) -> None:
    log = tmp_path / "a.1.log"
    log.write_text(
        "\n".join(
            [line("begin"), line("end", level="error"), "not JSON at all", "[1, 2]", '{"other": 1}']
        )
    )
    assert tail(log, 10) == [
        "22:26:05 info: begin",
        "22:26:05 error: end",
        "not JSON at all",
        "[1, 2]",
        '{"other": 1}',
    ]
    assert tail(log, 2) == ["[1, 2]", '{"other": 1}']


def test_a_trace_is_shown_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "a.1.log"
    log.write_text(line("bang", trace="Traceback:\n  File x\nZeroDivisionError: no"))
    assert tail(log, 2) == ["  File x", "ZeroDivisionError: no"]


def test_the_end_of_a_long_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "a.1.log"
    log.write_text("\n".join(line(f"number {n}") for n in range(20000)))
    assert tail(log, 3) == [f"22:26:05 info: number {n}" for n in (19997, 19998, 19999)]


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "a.1.log"
    log.write_bytes(b"\xff\xfe\x00 broken\nlast")
    assert tail(log, 1) == ["last"]
    assert tail(tmp_path / "gone", 5) == []
