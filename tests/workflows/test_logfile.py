"""Logs as lines in plain words, while they are written."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from contimg_runs.state import readable_lines
from contimg_workflows.state import read_log

if TYPE_CHECKING:
    from pathlib import Path

JSON = (
    '{"time": "2026-01-25T22:00:01.500+00:00", "level": "warning", "stage": "x", '
    '"message": "hm", "trace": "a\\nb"}'
)


def test_json_lines_become_words_and_others_stay() -> None:
    assert list(readable_lines([JSON, "plain\r\n", '{"not": "a log"}'])) == [
        "22:00:01 warning: hm",
        "a",
        "b",
        "plain",
        '{"not": "a log"}',
    ]


def test_the_executor_s_lines_are_not_the_stage_s() -> None:
    executor = (
        'time="2026-11-22T16:35:36Z" level=info msg="sub-process exited" argo=true error="<nil>"'
    )
    assert list(readable_lines([executor, "mine argo=truest"])) == ["mine argo=truest"]


def test_a_log_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert list(read_log(path)) == []
    path.write_text("".join(f"{n}\n" for n in range(100_000)) + "no end")
    found = list(read_log(path))
    assert (len(found), found[0], found[-1]) == (100_001, "0", "no end")


def test_a_line_that_grows_is_one_line(tmp_path: Path) -> None:
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
