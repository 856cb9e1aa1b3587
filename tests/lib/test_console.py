"""Log and progress: one JSON object a line for machines, words and a bar on a terminal."""

from __future__ import annotations

import json
import logging
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contimg.runtime.console import Console
from contimg.runtime.errors import BadFileError, Exit

Captured = pytest.CaptureFixture[str]
WORDS = """
import os
from contimg.runtime.console import Console
from contimg.runtime.errors import Exit
console = Console("toy", dict(os.environ))
console.log.info("reading 16 subbands")
for done in range(5):
    console.show(done, 4)
console.log.warning("[bold]not[/bold] markup")
console.fail(Exit.BAD_FILE, "x.hdf5: expected 145 bytes", trace=False)
"""


@pytest.fixture(autouse=True)
def _log_is_given_back() -> Iterator[None]:
    log = logging.getLogger("contimg")
    before = (log.level, log.handlers, log.propagate)
    yield
    log.setLevel(before[0])
    log.handlers, log.propagate = before[1:]


def lines(capsys: Captured) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert out == "", "stdout belongs to the summary"
    return [json.loads(line) for line in err.splitlines()]


def on_a_terminal(**env: str) -> str:
    """Return what WORDS write to a terminal of 80 columns; stdout must stay empty."""
    ours, theirs = pty.openpty()
    whole = {"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "80", **env}
    streams: dict[str, Any] = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": theirs}
    child = subprocess.Popen([sys.executable, "-c", WORDS], **streams, env=whole)
    os.close(theirs)
    said = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            block = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the last writer has gone
            break
        said += block
    os.close(ours)
    assert child.communicate(timeout=60)[0] == b""
    assert child.returncode == 0, said.decode()
    return said.decode()


def test_log_lines_are_json_with_time_and_stage(capsys: Captured) -> None:
    console = Console("image", {})
    console.log.info("cleaned to %.1f sigma", 3.5)
    console.log.warning("two\nlines and “signs” µJy")
    first, second = lines(capsys)
    assert first["message"] == "cleaned to 3.5 sigma"
    assert (first["level"], first["stage"]) == ("info", "image")
    assert set(first) == {"time", "level", "stage", "message"}
    assert second["message"] == "two\nlines and “signs” µJy"
    assert abs(datetime.fromisoformat(first["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert first["time"].endswith("+00:00")


def test_failure_has_its_code(capsys: Captured) -> None:
    error = BadFileError("x.hdf5", "expected 145 bytes, found 0 bytes.", "Send it again.")
    Console("convert", {}).fail(error.exit, str(error), trace=False)
    (line,) = lines(capsys)
    assert (line["exit"], line["code"], line["level"]) == (10, "BAD_FILE", "error")
    assert line["message"] == str(error)
    assert "trace" not in line


def test_bug_has_its_trace_in_the_same_line(capsys: Captured) -> None:
    console = Console("convert", {})
    try:
        int("nothing")
    except ValueError as error:
        console.fail(Exit.BUG, repr(error), trace=True)
    (line,) = lines(capsys)
    assert line["exit"] == 70
    assert line["trace"].startswith("Traceback")
    assert "ValueError" in line["trace"]


def test_trace_without_exception_is_left_out(capsys: Captured) -> None:
    Console("convert", {}).fail(Exit.BUG, "no exception is being handled", trace=True)
    (line,) = lines(capsys)
    assert "trace" not in line


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        (None, ["info", "warning"]),
        ("", ["info", "warning"]),
        ("INFO", ["info", "warning"]),
        ("debug", ["debug", "info", "warning"]),
        ("Warning", ["warning"]),
        ("CRITICAL", []),
    ],
)
def test_levels(capsys: Captured, level: str | None, heard: list[str]) -> None:
    console = Console("toy", {} if level is None else {"CONTIMG_LOG_LEVEL": level})
    for name in ("debug", "info", "warning"):
        getattr(console.log, name)("x")
    assert [line["level"] for line in lines(capsys)] == heard


def test_unknown_log_level_warns_and_uses_info(capsys: Captured) -> None:
    console = Console("toy", {"CONTIMG_LOG_LEVEL": "verbose"})
    console.log.debug("x")
    console.log.info("y")
    complaint, said = lines(capsys)
    assert complaint["level"] == "warning"
    assert "verbose" in complaint["message"]
    assert said["message"] == "y"


def test_second_console_replaces_first(capsys: Captured) -> None:
    Console("first", {})
    Console("second", {}).log.info("once")
    assert [line["stage"] for line in lines(capsys)] == ["second"]


def test_argo_file_has_latest_progress(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "progress"
    console = Console("toy", {"ARGO_PROGRESS_FILE": str(file), "CONTIMG_LOG_LEVEL": "DEBUG"})
    for done in (0, 7, 120):
        console.show(done, 120)
        assert file.read_text() == f"{done}/120\n"
    console.close()
    expected = ["progress 0/120", "progress 7/120", "progress 120/120"]
    assert [line["message"] for line in lines(capsys)] == expected


def test_progress_is_not_logged_at_info(tmp_path: Path, capsys: Captured) -> None:
    console = Console("toy", {"ARGO_PROGRESS_FILE": ""})
    console.show(1, 2)
    assert lines(capsys) == []
    assert list(tmp_path.iterdir()) == []


def test_terminal_gets_words_and_a_bar() -> None:
    said = on_a_terminal()
    assert "contimg-toy: INFO reading 16 subbands" in said
    assert "contimg-toy: WARNING [bold]not[/bold] markup" in said
    assert "100%" in said
    assert "contimg-toy: ERROR x.hdf5: expected 145 bytes" in said
    assert "{" not in said
    # Words never stand behind a bar on one line: it is wiped (EL) first.
    assert "\x1b[2K" in said[: said.index("contimg-toy: WARNING")].rpartition("toy")[2]
    # Before its last words the bar is gone and the cursor is back (DECTCEM).
    assert said.index("\x1b[?25l") < said.rindex("\x1b[?25h") < said.rindex("ERROR")


def test_terminal_gets_json_on_request() -> None:
    said = [json.loads(line) for line in on_a_terminal(CONTIMG_LOG_JSON="1").splitlines()]
    assert [line["level"] for line in said] == ["info", "warning", "error"]
    assert said[-1]["code"] == "BAD_FILE"
