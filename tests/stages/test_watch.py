"""contimg-watch on real files, in a directory and over HTTP."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from contimg.records.groups import GroupRecord, read_group
from contimg.runtime.console import Console
from contimg.runtime.errors import Exit
from contimg.runtime.store import Store, open_store
from contimg_watch.header import BLOCK_BYTES, RangedFile, read_header
from contimg_watch.options import FULL_SIZE, ServiceOptions
from contimg_watch.plan import SubbandHeader
from contimg_watch.probe import N_WRITERS
from contimg_watch.stage import run
from subbands import T0, fill, name, write_subband
from waiting import wait_for

WATCH = Path(sys.executable).parent / "contimg-watch"
RUN = "20260125t222605-a1"


def watch(store: Store, **options: Any) -> dict[str, Any]:
    """Make one pass, as a process does after it has read its command line."""
    return run(ServiceOptions(store=store.root, **{"size": 0, **options}), Console("watch", {}), {})


def process(store: Store, *words: str, code: int) -> dict[str, Any]:
    argv = [str(WATCH), "--store", store.root, "--size", "0", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout if code == 0 else done.stderr.splitlines()[-1])
    return answer


@pytest.fixture
def store(any_root: str) -> Store:
    return open_store(any_root)


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def full(disk: Store, tmp_path: Path) -> Store:
    """A directory with a complete group."""
    fill(disk, tmp_path)
    return disk


def test_complete_group_is_recorded_once(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path)
    assert process(store, code=0)["written"] == [RUN]
    again = process(store, code=0)
    assert (again["written"], again["recorded"]) == ([], 1)
    record = read_group(f"{store.root}/groups/{RUN}.json")
    assert record.complete
    assert record.dec_deg == pytest.approx(33.0)
    assert record.duration_s == pytest.approx(23 * 12.884902, abs=0.001)
    assert record.subbands[4].uri == f"{store.root}/incoming/{name(4, T0, 1)}"
    assert [entry.key for entry in store.entries("watch/")] == ["watch/headers.json"]


def test_group_is_recorded_partial_then_complete(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, without=(5,))
    waiting = watch(store)["waiting"]
    assert [(one["group"], one["missing"]) for one in waiting] == [("20260125t222605", [5])]
    assert watch(store, timeout_s=0)["written"] == [RUN]
    fill(store, tmp_path)
    assert watch(store)["written"] == ["20260125t222605-a2"]
    assert watch(store)["written"] == []


def test_broken_files_are_quarantined_with_reasons(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path)
    whole = (tmp_path / "subband.hdf5").read_bytes()
    store.put(f"incoming/{name(3, T0, 0)}", b"")
    store.put(f"incoming/{name(4, T0, 1)}", whole[:-700])
    store.put(f"incoming/{name(5, T0, 2)}", b"x" * len(whole))
    store.put("incoming/2026-01-25/2026-01-25T22:26:09_sb06_incomplete.hdf5", whole[:10])
    answer = watch(store, timeout_s=0)
    reasons = {key[-9:-5]: reason for key, reason in answer["quarantined"].items()}
    assert reasons["sb03"] == "is empty (0 bytes)"
    assert f"({len(whole) - 700} bytes)" in reasons["sb04"]
    assert "truncated" in reasons["sb04"]
    assert "is not a UVH5 file" in reasons["sb05"]
    assert len(reasons) == 3
    record = read_group(f"{store.root}/groups/{RUN}.json")
    assert record.missing == (3, 4, 5)


def test_size_of_telescope_is_required_by_default(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path)
    reasons = set(watch(store, size=FULL_SIZE)["quarantined"].values())
    assert ServiceOptions(store="x").size == FULL_SIZE
    size = (tmp_path / "subband.hdf5").stat().st_size
    assert reasons == {f"expected 145348600 bytes, found {size}"}
    assert not list(store.entries("groups/"))


def test_headers_are_read_again_only_if_object_changed(disk: Store, tmp_path: Path) -> None:
    fill(disk, tmp_path, without=(5,))
    watch(disk)
    written = disk.entry("watch/headers.json")
    watch(disk)
    assert disk.entry("watch/headers.json") == written
    path = next((tmp_path / "store" / "incoming").rglob("*.hdf5"))
    stat = path.stat()
    path.write_bytes(b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and time
    assert list(watch(disk)["quarantined"]) == [str(path.relative_to(disk.root))]


def test_kept_file_times_make_one_attempt(disk: Store, tmp_path: Path) -> None:
    for index in range(16):
        fill(disk, tmp_path, without=tuple(n for n in range(16) if n != index))
        path = tmp_path / "store" / "incoming" / name(index, T0, index % 3)
        os.utime(path, (1.7693e9, 1.7693e9))
        written = watch(disk)["written"]
        assert written == ([RUN] if index == 15 else [])


def test_replaced_subband_makes_next_attempt(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path)
    assert watch(store)["written"] == [RUN]
    source = tmp_path / "subband.hdf5"
    with h5py.File(source, "r+") as file:
        file["Data/visdata"][:] = 3
    store.put(f"incoming/{name(4, T0, 1)}", source.read_bytes())
    assert watch(store)["written"] == ["20260125t222605-a2"]
    assert watch(store)["written"] == []


def test_headers_of_deleted_objects_are_forgotten(full: Store) -> None:
    watch(full)
    assert full.read("watch/headers.json").count(b"hdf5") == 16
    for index in range(12):
        full.delete(f"incoming/{name(index, T0, index % 3)}")
    assert watch(full, dates=("2026-01-01",))["recorded"] == 0
    assert full.read("watch/headers.json").count(b"hdf5") == 16
    assert watch(full)["recorded"] == 1
    assert full.read("watch/headers.json").count(b"hdf5") == 4


def test_cache_of_other_version_is_ignored(full: Store) -> None:
    full.put("watch/headers.json", b'{"of another": "version"}')
    assert watch(full)["written"] == [RUN]


def test_dates_limit_pass_but_not_group_around_midnight(disk: Store, tmp_path: Path) -> None:
    midnight = datetime(2026, 1, 26, 0, 0, 1, tzinfo=UTC)
    source = tmp_path / "subband.hdf5"
    write_subband(source, midnight)
    for index in range(16):
        disk.put(f"incoming/{name(index, midnight, -(index % 3))}", source.read_bytes())
    fill(disk, tmp_path, T0)
    assert watch(disk, dates=("2026-01-26",), timeout_s=0)["written"] == ["20260126t000001-a1"]
    assert watch(disk, dates=("2026-01-25",), timeout_s=0)["written"] == [RUN]
    answer = process(disk, "--dates", "25.1.2026", code=Exit.USAGE)
    assert "YYYY-MM-DD" in answer["message"]


def test_follow_records_new_group_and_stops_on_sigterm(disk: Store, tmp_path: Path) -> None:
    fill(disk, tmp_path, without=(5,))
    argv = [str(WATCH), "--store", disk.root, "--size", "0", "--follow", "--interval-s", "0.1"]
    log = tmp_path / "log"
    with log.open("w") as sink:
        watcher = subprocess.Popen(argv, stderr=sink)
    wait_for(lambda: disk.exists("watch/headers.json"))
    assert not list(disk.entries("groups/"))
    fill(disk, tmp_path)
    wait_for(lambda: "16 subbands" in log.read_text())
    assert list(disk.entries("groups/"))
    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(timeout=60) == Exit.TERMINATED
    assert log.read_text().count(f"group {RUN}: 16 subbands") == 1


def test_two_watchers_write_one_record(full: Store) -> None:
    argv = [str(WATCH), "--store", full.root, "--size", "0"]
    both = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    written = [json.loads(one.communicate(timeout=30)[0])["written"] for one in both]
    assert sorted(written) == [[], [RUN]]


def test_store_without_conditional_puts_is_refused(rclone_root: str, tmp_path: Path) -> None:
    store = open_store(rclone_root)
    fill(store, tmp_path)
    answer = process(store, code=Exit.USAGE)
    assert f"of {N_WRITERS} concurrent conditional puts won" in answer["message"]
    assert "If-None-Match" in answer["message"]
    assert not list(store.entries("groups/"))


def test_unreachable_store_exits_with_code_20(s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    answer = process(open_store("s3://contimg/x"), code=Exit.STORE_UNREACHABLE)
    assert answer["code"] == "STORE_UNREACHABLE"


def test_header_is_read_from_few_blocks(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "big.hdf5"
    write_subband(path, rows=2_000_000)
    store.put("big", path.read_bytes())
    size = path.stat().st_size
    raw = RangedFile(store, "big", size)
    with h5py.File(raw, "r") as file:
        assert file["Header/time_array"].shape == (960,)
    assert len(raw._blocks) * BLOCK_BYTES < size / 4  # noqa: SLF001
    header, problem = read_header(store, "big", size)
    assert problem == ""
    assert header is not None
    assert abs(header.t0 - T0) < timedelta(milliseconds=1)


def test_ranged_file_reads_and_seeks_like_file(disk: Store) -> None:
    data = np.random.default_rng(1).bytes(3 * BLOCK_BYTES + 17)
    disk.put("k", data)
    raw = RangedFile(disk, "k", len(data))
    assert raw.read() == data
    assert (raw.seek(-5, 2), raw.read(10), raw.read(1)) == (len(data) - 5, data[-5:], b"")
    places = (raw.seek(BLOCK_BYTES - 2), raw.seek(1, 1), raw.tell())
    assert places == (BLOCK_BYTES - 2, BLOCK_BYTES - 1, BLOCK_BYTES - 1)


TIME, DEC = "Header/time_array", "Header/extra_keywords/phase_center_dec"
GOOD_JD = 2461066.434
GROUP = object()
"""Stands for a group of the HDF5 file in place of a data set."""


def read_changed(folder: Path, name: str, value: object) -> tuple[SubbandHeader | None, str]:
    """Read the header of a subband in which one item has another value; None: it is missing."""
    path = folder / "s.hdf5"
    write_subband(path)
    with h5py.File(path, "a") as file:
        del file[name]
        if value is GROUP:
            file.create_group(name)
        elif value is not None:
            file[name] = value
    return read_header(open_store(str(folder)), "s.hdf5", path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (TIME, np.zeros(4), "from Julian date 0 to 0"),
        (TIME, np.full(4, 1e20), "from Julian date 1e+20"),
        (TIME, np.full(4, -1e9), "from Julian date -1"),
        (TIME, np.full(4, np.nan), "from Julian date nan"),
        (TIME, np.array([GOOD_JD, 0.0]), "to 0, which is not an observation"),
        (TIME, np.array([GOOD_JD, np.inf]), "to inf, which is not an observation"),
        (TIME, np.zeros(0), "holds no time"),
        (TIME, np.float64(GOOD_JD), "holds no numbers"),
        (TIME, np.full((2, 2), GOOD_JD), "holds no numbers"),
        (TIME, np.array([b"a", b"b"]), "holds no numbers"),
        (TIME, GROUP, "holds no numbers"),
        (TIME, None, "time_array"),
        (DEC, "abc", "holds no number"),
        (DEC, np.ones(2), "holds no number"),
        (DEC, GROUP, "holds no number"),
    ],
)
def test_absurd_header_is_described(tmp_path: Path, name: str, value: object, words: str) -> None:
    header, problem = read_changed(tmp_path, name, value)
    assert header is None
    assert value is None or f"{name} " in problem
    assert words in problem


@pytest.mark.parametrize("value", [np.nan, None], ids=["nan", "missing"])
def test_declination_may_be_unknown(tmp_path: Path, value: object) -> None:
    header, problem = read_changed(tmp_path, DEC, value)
    assert problem == ""
    assert header is not None
    assert header.dec_deg is None


def test_record_is_valid_after_store_moved(full: Store, tmp_path: Path) -> None:
    watch(full)
    raw = GroupRecord.model_validate_json(full.read(f"groups/{RUN}.json"))
    assert all(subband.uri.startswith("incoming/") for subband in raw.subbands)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    moved = read_group(str(tmp_path / f"elsewhere/groups/{RUN}.json"))
    assert all(Path(subband.uri).exists() for subband in moved.subbands)
