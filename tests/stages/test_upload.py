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
from waiting import wait_for

if TYPE_CHECKING:
    from contimg.runtime.store import Store

CONTIMG = Path(sys.executable).parent / "contimg"
LOG = logging.getLogger("test")
UNFINISHED, FINISHED = "2026-01-25T22:26:05_sb02_incomplete.hdf5", "2026-01-25T22:26:05_sb02.hdf5"
FIRST, SECOND = "2026-01-25T22:26:05_sb00.hdf5", "2026-01-26T00:00:01_sb01.hdf5"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A telescope's disk: two finished subbands, one that is being written, other files."""
    folder = tmp_path / "disk"
    (folder / "deep").mkdir(parents=True)
    (folder / FIRST).write_bytes(b"first" * 1000)
    (folder / "deep" / SECOND).write_bytes(b"second" * 1000)
    (folder / UNFINISHED).write_bytes(b"half")
    (folder / "notes.txt").write_text("no subband")
    return folder


@pytest.fixture(params=["directory", "moto", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue(f"{request.param}_root"))


def upload(disk: Path, store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(CONTIMG), "upload", str(disk), "--store", store.root, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def read_summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def uploader(disk: Path, store: Store, **options: Any) -> Uploader:
    return Uploader(UploadOptions(folder=str(disk), store=store.root, **options), LOG)


def test_upload_copies_finished_subbands_to_their_day(disk: Path, store: Store) -> None:
    counts = {"copied": 2, "bytes": 11000, "already": 0}
    assert read_summary(upload(disk, store)) == {"stage": "upload", **counts}
    assert [entry.key for entry in store.entries()] == [
        f"incoming/2026-01-25/{FIRST}",
        f"incoming/2026-01-26/{SECOND}",
    ]
    assert store.read(f"incoming/2026-01-26/{SECOND}") == b"second" * 1000


def test_upload_skips_what_store_has(disk: Path, store: Store) -> None:
    uploader(disk, store).run_pass()
    (disk / UNFINISHED).rename(disk / FINISHED)
    again = uploader(disk, store)
    again.run_pass()
    assert (again.copied, again.already) == (1, 2)


def test_copy_of_other_size_is_replaced(disk: Path, store: Store) -> None:
    store.put(f"incoming/2026-01-25/{FIRST}", b"cut")
    uploader(disk, store).run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"first" * 1000


def test_damaged_copy_of_same_size_is_replaced_if_all_is_verified(disk: Path, store: Store) -> None:
    store.put(f"incoming/2026-01-25/{FIRST}", b"worst" * 1000)
    uploader(disk, store).run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"worst" * 1000
    uploader(disk, store, verify="all").run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"first" * 1000


def test_damaged_new_copy_is_removed_and_reported(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "store"))
    one = uploader(disk, store)
    # As with bad memory, what is read back differs from what was written.
    monkeypatch.setattr(one, "_digest", lambda _key: (5000, "0" * 64))
    with pytest.raises(StoreError, match="It was removed"):
        one.run_pass()
    assert not store.exists(f"incoming/2026-01-25/{FIRST}")
    monkeypatch.undo()
    one.run_pass()
    assert store.read(f"incoming/2026-01-25/{FIRST}") == b"first" * 1000


def test_file_that_changes_during_copy_is_left_to_next_pass(disk: Path, tmp_path: Path) -> None:
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


def test_finished_subbands_are_listed_by_time(disk: Path) -> None:
    assert [local.path.name for local in list_finished(disk)] == [FIRST, SECOND]


def test_follow_copies_new_subbands_and_stops_on_sigterm(disk: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    argv = [str(CONTIMG), "upload", str(disk), "--store", store.root]
    follow = ("--follow", "--interval-s", "0.1")
    follower = subprocess.Popen([*argv, *follow], stderr=subprocess.DEVNULL)
    wait_for(lambda: store.exists(f"incoming/2026-01-26/{SECOND}"))
    (disk / UNFINISHED).rename(disk / FINISHED)
    wait_for(lambda: store.exists(f"incoming/2026-01-25/{FINISHED}"))
    follower.send_signal(signal.SIGTERM)
    assert follower.wait(60) == Exit.TERMINATED


def test_killed_upload_leaves_no_partial_copy(disk: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    (disk / FIRST).write_bytes(os.urandom(1 << 20) * 300)
    argv = [str(CONTIMG), "upload", str(disk), "--store", store.root]
    copier = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list((tmp_path / "store").rglob(".part-*")))
    copier.kill()
    copier.wait(10)
    assert not store.exists(f"incoming/2026-01-25/{FIRST}")
    assert read_summary(upload(disk, store))["copied"] >= 1
    assert (tmp_path / "store/incoming/2026-01-25" / FIRST).stat().st_size == 300 << 20
    assert not list((tmp_path / "store").rglob(".part-*"))


def test_upload_of_missing_folder_is_refused(tmp_path: Path) -> None:
    done = upload(tmp_path / "gone", open_store(str(tmp_path / "store")))
    assert done.returncode == Exit.BAD_FILE
    assert "gone: There is no such folder" in done.stderr


def test_unwritable_store_exits_with_code_20(disk: Path) -> None:
    # Even root cannot make a folder there.
    done = upload(disk, open_store("/proc/contimg"))
    assert done.returncode == Exit.STORE_UNREACHABLE
    assert "The directory cannot be written" in done.stderr
