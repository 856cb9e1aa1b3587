"""The state of a run outlives its engine and is never half written; logs are readable lines."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
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
    own = {"name": name, "pipeline": "p", "arguments": {"store": "/s"}}
    return RunState(**own, started=started, status=status, tasks=made)


def saved(runs: Path, given: RunState) -> RunFolder:
    folder = RunFolder(runs / given.name)
    with folder.hold():
        folder.save(given)
    return folder


def test_saved_state_is_loaded(tmp_path: Path) -> None:
    given = state(status=Status.FAILED, a=Status.DONE, b=Status.FAILED)
    end = NOW + timedelta(seconds=3.5)
    given.tasks["a"].tries.append(Try(started=NOW, ended=end, exit=0, log="a.1.log"))
    given.tasks["a"].outputs["artifact"] = "/s/a/KEY"
    given.tasks["b"].reason = "a disk is full"
    folder = saved(tmp_path, given)
    assert folder.load() == given
    assert folder.load().tasks["a"].tries[0].seconds == 3.5
    assert folder.load().failed == ["b"]


def test_running_state_without_engine_is_interrupted(tmp_path: Path) -> None:
    given = state(a=Status.DONE, b=Status.RUNNING, c=Status.WAITING, d=Status.PENDING)
    folder = saved(tmp_path, given)
    found = folder.load()
    assert found.status is Status.INTERRUPTED
    states = [found.tasks[name].status for name in "abcd"]
    assert states == [Status.DONE, Status.INTERRUPTED, Status.INTERRUPTED, Status.PENDING]
    with folder.hold():
        assert folder.load().status is Status.RUNNING
        assert folder.load().tasks["b"].status is Status.RUNNING


def test_lock_of_killed_holder_is_free(tmp_path: Path) -> None:
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


def test_concurrent_reader_sees_whole_state(tmp_path: Path) -> None:
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


def test_all_runs_are_in_order_of_start(tmp_path: Path) -> None:
    for hours, name in enumerate(["c", "a", "b"]):
        saved(tmp_path, state(name, started=NOW + timedelta(hours=hours)))
    (tmp_path / "empty").mkdir()
    assert [folder.path.name for folder in all_runs(tmp_path)] == ["c", "a", "b"]
    assert all_runs(tmp_path / "gone") == []


# Logs


def line(message: str, **more: Any) -> str:
    entry = {"time": "2026-01-25T22:26:05.123+00:00", "level": "info", "stage": "x"}
    return json.dumps({**entry, "message": message, **more})


EXECUTOR = 'time="2026-11-22T16:35:36Z" level=info msg="sub-process exited" argo=true error="<nil>"'
TRACE = "Traceback:\n  File x\nZeroDivisionError: no"
FOUND = "22:26:05 error: bang\nTraceback:\n  File x\nZeroDivisionError: no"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (line("begin"), "22:26:05 info: begin"),
        (line("bang", level="error", trace=TRACE), FOUND),
        ("plain\r", "plain"),
        ("[1, 2]", "[1, 2]"),
        ('{"not": "a log"}', '{"not": "a log"}'),
        (EXECUTOR, ""),
        ("mine argo=truest", "mine argo=truest"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\nlast"])
def test_log_lines_are_readable(tmp_path: Path, text: str, found: str, end: str) -> None:
    log = tmp_path / "a.1.log"
    log.write_text(text + end)
    assert list(read_log(log)) == [*found.splitlines(), *end.split()]


def test_long_log_is_read_whole(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert list(read_log(log)) == []
    log.write_text("".join(f"{n}\n" for n in range(100_000)) + "no end")
    found = list(read_log(log))
    assert (len(found), found[0], found[-1]) == (100_001, "0", "no end")


def test_log_with_invalid_utf8_is_read(tmp_path: Path) -> None:
    log = tmp_path / "a.1.log"
    log.write_bytes(b"\xff\xfe\x00 broken\nlast")
    assert list(read_log(log))[1:] == ["last"]


def test_growing_log_line_stays_one_line(tmp_path: Path) -> None:
    path, over = tmp_path / "x.log", threading.Event()

    def write() -> None:
        for part in (b"one\ntw", b"o\n\xc3", b"\xa4\nlast"):
            time.sleep(0.3)
            with path.open("ab") as log:
                log.write(part)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert list(read_log(path, over.is_set)) == ["one", "two", "ä", "last"]
    writer.join()
