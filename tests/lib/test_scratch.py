"""Scratch folders go with their owner, or at the next chance after it was killed."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contimg.runtime.errors import Stopped
from contimg.runtime.scratch import scratch_folder

HOLD = """
import os, time
from contimg.runtime.scratch import scratch_folder
with scratch_folder(os.environ, "x") as path:
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"CONTIMG_SCRATCH": str(tmp_path)}


@pytest.fixture
def holder(env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", HOLD]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as child:
        yield child
        child.kill()


def held(holder: subprocess.Popen[str]) -> Path:
    assert holder.stdout is not None
    return Path(holder.stdout.readline().strip())


def test_folder_goes_with_the_block(tmp_path: Path, env: dict[str, str]) -> None:
    with scratch_folder(env, "stage") as folder:
        assert list(folder.iterdir()) == []
        assert folder.is_relative_to(tmp_path)
        (folder / "heavy").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_folder_goes_after_an_error(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(RuntimeError), scratch_folder(env, "stage"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_stop_before_lock_leaves_nothing(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        assert list(tmp_path.iterdir())
        raise Stopped

    monkeypatch.setattr(fcntl, "flock", stop)
    with pytest.raises(Stopped), scratch_folder(env, "stage"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_living_owner_keeps_its_folder(env: dict[str, str], holder: subprocess.Popen[str]) -> None:
    folder = held(holder)
    with scratch_folder(env, "next"):
        assert folder.is_dir()
    assert folder.is_dir()


def test_folder_of_killed_owner_is_removed(
    env: dict[str, str], holder: subprocess.Popen[str]
) -> None:
    folder = held(holder)
    holder.kill()
    holder.wait(10)
    assert folder.is_dir()
    with scratch_folder(env, "next"):
        assert not folder.parent.exists()


def test_other_folders_stay(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "contimg-notes").mkdir()
    (tmp_path / "other").mkdir()
    with scratch_folder(env, "next"):
        pass
    assert len(list(tmp_path.iterdir())) == 2
