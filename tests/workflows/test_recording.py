"""The exit handler on the local engine, by a real process."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from contimg.runtime.errors import Exit
from contimg_workflows import recording
from contimg_workflows.local import library
from contimg_workflows.recording import record
from contimg_workflows.state import RunFolder, RunState, Status

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def ended(store: Path) -> tuple[RunFolder, RunState]:
    given = {"store": str(store), "group": "20260125t222605", "attempt": "1"}
    state = RunState(
        name="w",
        pipeline="contimg-group",
        arguments=given,
        started=datetime.now(UTC),
        status=Status.DONE,
        tasks={},
    )
    folder = RunFolder(store / "runs", "w")
    folder.path.mkdir(parents=True)
    return folder, state


def test_the_exit_code_of_the_handler_is_told(tmp_path: Path) -> None:
    folder, state = ended(tmp_path)
    assert record(folder, state, library(), os.environ) == Exit.USAGE
    assert "expected the record of an attempt" in (folder.path / recording.LOG).read_text()


def test_a_store_that_does_not_answer_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PATIENCE_S", 0.01)  # no Python begins so fast
    begun = time.monotonic()
    assert record(*ended(tmp_path), library(), os.environ) == Exit.CHILD_TIMED_OUT
    assert time.monotonic() - begun < 10
