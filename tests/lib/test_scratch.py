"""Scratch folders go with their owner, or at the next chance after it was killed."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from contimg.runtime.errors import Stopped
from contimg.runtime.scratch import scratch_folder, sweep

HOLD = """
import sys, time
from contimg.runtime.scratch import scratch_folder
with scratch_folder(sys.argv[1], "x") as path:
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def test_gone_with_the_block(tmp_path: Path) -> None:
    with scratch_folder(str(tmp_path), "stage") as folder:
        assert list(folder.iterdir()) == []
        (folder / "heavy").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch_folder(str(tmp_path), "stage"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_gone_if_a_stop_comes_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        assert list(tmp_path.iterdir())
        raise Stopped

    monkeypatch.setattr(fcntl, "flock", stop)
    with pytest.raises(Stopped), scratch_folder(str(tmp_path), "stage"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_living_owner_keeps_its_own(
    tmp_path: Path, holder: tuple[subprocess.Popen[str], Path]
) -> None:
    child, folder = holder
    assert sweep(str(tmp_path)) == []
    assert folder.is_dir()
    child.kill()
    child.wait(10)


def test_a_killed_owner_is_cleaned_up_after(
    tmp_path: Path, holder: tuple[subprocess.Popen[str], Path]
) -> None:
    child, folder = holder
    child.kill()
    child.wait(10)
    assert folder.is_dir()
    with scratch_folder(str(tmp_path), "next"):
        assert not folder.parent.exists()


def test_other_folders_stay(tmp_path: Path) -> None:
    (tmp_path / "contimg-notes").mkdir()
    (tmp_path / "other").mkdir()
    assert sweep(str(tmp_path)) == []
    assert len(list(tmp_path.iterdir())) == 2
