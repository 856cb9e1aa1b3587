"""contimg upload: the telescope's side, as a process and against real stores."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contimg.runtime.errors import Exit, StoreError
from contimg.runtime.store import open_store
from contimg_watch.options import UploadOptions
from contimg_watch.upload import Uploader, list_finished

if TYPE_CHECKING:
    from contimg.runtime.store import Store

CONTIMG = Path(sys.executable).parent / "contimg"
LOG = logging.getLogger("test")
FIRST, SECOND = "2026-01-25T22:26:05_sb00.hdf5", "2026-01-26T00:00:01_sb01.hdf5"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A telescope's disk: two finished subbands, one that is being written, other files."""
    folder = tmp_path / "disk"
    (folder / "deep").mkdir(parents=True)
    (folder / FIRST).write_bytes(b"first" * 1000)
    (folder / "deep" / SECOND).write_bytes(b"second" * 1000)
    (folder / "2026-01-25T22:26:05_sb02_incomplete.hdf5").write_bytes(b"half")
    (folder / "notes.txt").write_text("no subband")
    return folder


@pytest.fixture(params=["directory", "moto", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = (
        str(tmp_path / "store")
        if request.param == "directory"
        else request.getfixturevalue(f"{request.param}_root")
    )
    return open_store(root)


def upload(disk: Path, store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(CONTIMG), "upload", str(disk), "--store", store.root, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def uploader(disk: Path, store: Store, **options: Any) -> Uploader:
    return Uploader(UploadOptions(folder=str(disk), store=store.root, **options), LOG)


def test_finished_subbands_and_nothing_else_go_to_their_day(disk: Path, store: Store) -> None:
    assert said(upload(disk, store)) == {
        "stage": "upload",
        "copied": 2,
        "bytes": 11000,
        "already": 0,
    }
    assert [entry.key for entry in store.entries()] == [
        f"incoming/2026-01-25/{FIRST}",
        f"incoming/2026-01-26/{SECOND}",
    ]
    assert store.read(f"incoming/2026-01-26/{SECOND}") == b"second" * 1000


def test_it_resumes_with_what_is_not_there_yet(disk: Path, store: Store) -> None:
    uploader(disk, store).run_pass()
    (disk / "2026-01-25T22:26:05_sb02_incomplete.hdf5").rename(
        disk / "2026-01-25T22:26:05_sb02.hdf5"
    )
    again = uploader(disk, store)
    again.run_pass()
    assert (again.copied, again.already) == (1, 2)


def test_a_copy_of_another_size_is_replaced(disk: Path, store: Store) -> None:
    store.put(f"incoming/2026-01-25/{FIRST}", b"cut")
    uploader(disk, store).run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"first" * 1000


def test_a_damaged_copy_of_the_same_size_is_found_when_asked(disk: Path, store: Store) -> None:
    store.put(f"incoming/2026-01-25/{FIRST}", b"worst" * 1000)
    uploader(disk, store).run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"worst" * 1000
    uploader(disk, store, verify="all").run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"first" * 1000


def test_a_copy_that_came_out_wrong_is_removed_and_said(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "store"))
    one = uploader(disk, store)
    # Bytes turn on the way, as they do on bad memory: what is read back differs.
    monkeypatch.setattr(one, "_digest", lambda _key: (5000, "0" * 64))
    with pytest.raises(StoreError, match="It was removed"):
        one.run_pass()
    assert not store.exists(f"incoming/2026-01-25/{FIRST}")
    monkeypatch.undo()
    one.run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"first" * 1000


def test_a_file_that_changes_meanwhile_is_copied_as_it_ends(disk: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    path = disk / FIRST
    path.write_bytes(b"a" * 50_000_000)
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            with path.open("r+b") as file:
                file.write(b"b" * 64)
            time.sleep(0.002)

    writer = threading.Thread(target=rewrite)
    writer.start()
    one = uploader(disk, store)
    one.run_pass()
    stop.set()
    writer.join()
    assert not store.exists(f"incoming/2026-01-25/{FIRST}")
    one.run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == path.read_bytes()


def test_oldest_first(disk: Path) -> None:
    assert [local.path.name for local in list_finished(disk)] == [FIRST, SECOND]


def test_following_it_copies_what_appears_and_stops_when_told(disk: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    argv = [
        str(CONTIMG),
        "upload",
        str(disk),
        "--store",
        store.root,
        "--follow",
        "--interval-s",
        "0.1",
    ]
    follower = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    _until(lambda: store.exists(f"incoming/2026-01-26/{SECOND}"))
    (disk / "2026-01-25T22:26:05_sb02_incomplete.hdf5").rename(
        disk / "2026-01-25T22:26:05_sb02.hdf5"
    )
    _until(lambda: store.exists("incoming/2026-01-25/2026-01-25T22:26:05_sb02.hdf5"))
    follower.send_signal(signal.SIGTERM)
    assert follower.wait(10) == Exit.TERMINATED


def test_killed_in_the_middle_nothing_half_copied_is_seen(disk: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    (disk / FIRST).write_bytes(os.urandom(1 << 20) * 300)
    argv = [str(CONTIMG), "upload", str(disk), "--store", store.root]
    copier = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: list((tmp_path / "store").rglob(".part-*")))
    copier.kill()
    copier.wait(10)
    assert not store.exists(f"incoming/2026-01-25/{FIRST}")
    assert said(upload(disk, store))["copied"] >= 1
    assert (tmp_path / "store/incoming/2026-01-25" / FIRST).stat().st_size == 300 << 20
    assert not list((tmp_path / "store").rglob(".part-*"))


def _until(what: Any) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = upload(tmp_path / "gone", open_store(str(tmp_path / "store")))
    assert done.returncode == Exit.BAD_FILE
    assert "gone: There is no such folder" in done.stderr


def test_a_store_that_cannot_be_written_is_the_world_s_fault(disk: Path) -> None:
    # Nobody may make a folder there, not even root.
    done = upload(disk, open_store("/proc/contimg"))
    assert done.returncode == Exit.STORE_UNREACHABLE
    assert "expected a writable directory" in done.stderr
