"""contimg upload: the telescope's side, as a process and against real stores."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from contimg.runtime.errors import Exit, StoreError
from contimg.runtime.s3 import PART_BYTES
from contimg.runtime.store import Store, open_store, put_file
from contimg_watch.options import UploadOptions
from contimg_watch.upload import Uploader, entity_tag, list_finished
from waiting import wait_for

CONTIMG = Path(sys.executable).parent / "contimg"
LOG = logging.getLogger("test")
UNFINISHED, FINISHED = "2026-01-25T22:26:05_sb02_incomplete.hdf5", "2026-01-25T22:26:05_sb02.hdf5"
FIRST, SECOND = "2026-01-25T22:26:05_sb00.hdf5", "2026-01-26T00:00:01_sb01.hdf5"
FIRST_KEY, SECOND_KEY = f"incoming/2026-01-25/{FIRST}", f"incoming/2026-01-26/{SECOND}"


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


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def upload(disk: Path, store: Store) -> subprocess.CompletedProcess[str]:
    argv = [str(CONTIMG), "upload", str(disk), "--store", store.root]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def read_summary(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def uploader(disk: Path, store: Store, **options: Any) -> Uploader:
    return Uploader(UploadOptions(folder=str(disk), store=store.root, **options), store, LOG)


def test_upload_copies_finished_subbands_to_their_day(disk: Path, store: Store) -> None:
    counts = {"copied": 2, "bytes": 11000, "already": 0}
    assert read_summary(upload(disk, store)) == {"stage": "upload", **counts}
    assert [entry.key for entry in store.entries()] == [FIRST_KEY, SECOND_KEY]
    assert store.read(SECOND_KEY) == b"second" * 1000


def test_upload_skips_what_store_has(disk: Path, store: Store) -> None:
    uploader(disk, store).run_pass()
    (disk / UNFINISHED).rename(disk / FINISHED)
    again = uploader(disk, store)
    again.run_pass()
    assert (again.copied, again.already) == (1, 2)


DAMAGED = [(b"cut", "size", b"first"), (b"worst" * 1000, "size", b"worst")]
DAMAGED += [(b"worst" * 1000, "content", b"first")]


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_copy_is_replaced(disk: Path, store: Store, case: tuple[bytes, str, bytes]) -> None:
    found, verify, then = case
    store.put(FIRST_KEY, found)
    uploader(disk, store, verify=verify).run_pass()
    assert store.read(FIRST_KEY) == then * 1000


def test_replaced_file_of_kept_size_and_time_is_copied(disk: Path, local: Store) -> None:
    one = uploader(disk, local)
    one.run_pass()
    old = (disk / FIRST).stat()
    (disk / FIRST).write_bytes(b"other" * 1000)
    os.utime(disk / FIRST, ns=(old.st_atime_ns, old.st_mtime_ns))
    one.run_pass()
    assert (one.copied, local.read(FIRST_KEY)) == (3, b"other" * 1000)


@pytest.mark.parametrize("size", [100, PART_BYTES, PART_BYTES + 1])
def test_entity_tag_is_that_of_the_store(tmp_path: Path, moto_root: str, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    store = open_store(moto_root)
    put_file(store, "k", tmp_path / "file")
    entry = store.entry("k")
    assert entry is not None
    assert entity_tag(tmp_path / "file") == entry.version


def test_newer_of_two_files_of_one_name_is_copied(disk: Path, local: Store) -> None:
    (disk / "deep" / FIRST).write_bytes(b"newer" * 1000)
    for _ in range(2):
        uploader(disk, local).run_pass()
        assert local.read(FIRST_KEY) == b"newer" * 1000


def test_damaged_new_copy_is_removed(disk: Path, local: Store, monkeypatch: Any) -> None:
    one = uploader(disk, local)
    # As with bad memory, what is read back differs from what was written.
    monkeypatch.setattr(one, "_digest", lambda _key: (5000, "0" * 64))
    with pytest.raises(StoreError, match="It was removed"):
        one.run_pass()
    assert not local.exists(FIRST_KEY)
    monkeypatch.undo()
    one.run_pass()
    assert local.read(FIRST_KEY) == b"first" * 1000


def test_file_changed_during_copy_waits(disk: Path, local: Store) -> None:
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
    one = uploader(disk, local)
    one.run_pass()
    stop.set()
    writer.join()
    assert not local.exists(FIRST_KEY)
    one.run_pass()
    assert local.read(FIRST_KEY) == path.read_bytes()


def test_finished_subbands_are_listed_by_time(disk: Path) -> None:
    assert [local.path.name for local in list_finished(disk)] == [FIRST, SECOND]


def test_follow_copies_new_subbands_and_stops_on_sigterm(disk: Path, local: Store) -> None:
    argv = [str(CONTIMG), "upload", str(disk), "--store", local.root]
    follow = ("--follow", "--interval-s", "0.1")
    follower = subprocess.Popen([*argv, *follow], stderr=subprocess.DEVNULL)
    wait_for(lambda: local.exists(SECOND_KEY))
    (disk / UNFINISHED).rename(disk / FINISHED)
    wait_for(lambda: local.exists(f"incoming/2026-01-25/{FINISHED}"))
    follower.send_signal(signal.SIGTERM)
    assert follower.wait(60) == Exit.TERMINATED


def test_killed_upload_leaves_no_partial_copy(disk: Path, tmp_path: Path, local: Store) -> None:
    (disk / FIRST).write_bytes(os.urandom(1 << 20) * 300)
    argv = [str(CONTIMG), "upload", str(disk), "--store", local.root]
    copier = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list((tmp_path / "store").rglob(".part-*")))
    copier.kill()
    copier.wait(10)
    assert not local.exists(FIRST_KEY)
    assert read_summary(upload(disk, local))["copied"] >= 1
    assert (tmp_path / "store/incoming/2026-01-25" / FIRST).stat().st_size == 300 << 20
    assert not list((tmp_path / "store").rglob(".part-*"))


def test_upload_without_folder_or_store_fails(disk: Path, tmp_path: Path, local: Store) -> None:
    gone = upload(tmp_path / "gone", local)
    assert gone.returncode == Exit.BAD_FILE
    assert "gone: There is no such folder" in gone.stderr
    done = upload(disk, open_store("/proc/contimg"))  # even root cannot make a folder there
    assert done.returncode == Exit.STORE_UNREACHABLE
    assert "The directory cannot be written" in done.stderr
