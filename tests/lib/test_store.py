"""One set of tests for every store; S3 over HTTP with two servers of others."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

import toys
from contimg.runtime.directory import PARTIAL, DirectoryStore
from contimg.runtime.errors import MissingError, Stopped, StoreError, UsageError
from contimg.runtime.s3 import PART_BYTES
from contimg.runtime.store import Store, copy_digest, fetch_file, open_store, put_file, split
from lossy_proxy import lossy_proxy


def root_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "directory":
        return str(tmp_path / "store")
    return str(request.getfixturevalue(f"{kind}_root"))


@pytest.fixture(params=["directory", "moto", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(root_of(request.param, request, tmp_path))


def test_put_replaces_and_is_read(store: Store) -> None:
    for data in (b"[]", b"{}"):
        store.put("a/b.json", data)
        assert store.read("a/b.json") == data
    assert store.exists("a/b.json")
    assert not store.exists("a/c.json")
    assert not store.exists("a")
    store.check()


def test_listing_is_sorted_and_keeps_to_its_prefix(store: Store) -> None:
    assert list(store.entries()) == []
    for key in ("t/b", "t/a/z", "u/c", "t2"):
        store.put(key, key.encode())
    assert [entry.key for entry in store.entries("t/")] == ["t/a/z", "t/b"]
    assert [entry.size for entry in store.entries("t")] == [5, 3, 2]
    assert all(entry.modified.tzinfo is not None for entry in store.entries())
    assert list(store.entries("nothing/")) == []


def test_missing_object_is_named(store: Store) -> None:
    with pytest.raises(MissingError, match=r"gone/k: There is no such"):
        store.read("gone/k")


def test_range_is_read_without_the_rest(store: Store) -> None:
    store.put("k", b"0123456789")
    assert store.read_range("k", 3, 6) == b"345"
    assert store.read_range("k", 8, 100) == b"89"
    with pytest.raises(MissingError):
        store.read_range("gone", 0, 1)


def test_second_delete_passes(store: Store) -> None:
    store.put("k", b"")
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")


def test_files_of_several_parts_travel_whole(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(range(256)) * (2 * PART_BYTES // 256 + 7))
    digested = (source.stat().st_size, hashlib.sha256(source.read_bytes()).hexdigest())
    assert put_file(store, "big", source) == digested
    assert fetch_file(store, "big", tmp_path / "back") == digested
    with store.open("big") as stream:
        assert copy_digest(stream, None) == digested


def test_failed_writer_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError, match="halfway"), store.writer("half") as stream:
        stream.write(b"x" * (PART_BYTES + 1))
        raise RuntimeError("halfway")
    assert not store.exists("half")
    assert list(store.entries()) == []


def test_failed_overwrite_keeps_old_object(store: Store) -> None:
    store.put("k", b"old")
    with pytest.raises(RuntimeError), store.writer("k") as stream:
        stream.write(b"new" * PART_BYTES)
        raise RuntimeError
    assert store.read("k") == b"old"


def test_fetch_of_missing_object_leaves_no_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        fetch_file(store, "gone", tmp_path / "x")
    assert list(tmp_path.glob("*x*")) == []


@pytest.mark.parametrize("kind", ["directory", "moto"])
def test_only_one_of_many_creates_wins(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # rclone ignores If-None-Match; watch probes for that and refuses such a store.
    store, ready = open_store(root_of(kind, request, tmp_path)), threading.Barrier(16)

    def claim(number: int) -> bool:
        ready.wait()
        return store.create("claims/x", str(number).encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(claim, range(16)))
    assert won.count(True) == 1
    assert store.read("claims/x") == str(won.index(True)).encode()


@pytest.mark.parametrize(
    ("fault", "size", "own"),
    [("lost", 4, True), ("lost", PART_BYTES + 1, True), ("conflict", 4, True), ("late", 4, False)],
)
def test_create_knows_own_object(
    moto_root: str, s3_environment: pytest.MonkeyPatch, *, fault: str, size: int, own: bool
) -> None:
    with lossy_proxy(os.environ["AWS_ENDPOINT_URL"], fault) as url:
        s3_environment.setenv("AWS_ENDPOINT_URL", url)
        store, data = open_store(moto_root), b"x" * size
        assert store.create("k", data) is own
        assert store.read("k") == data
        assert not store.create("k", data)


def test_abandoned_upload_leaves_no_parts(moto_root: str) -> None:
    with pytest.raises(RuntimeError), open_store(moto_root).writer("half") as stream:
        stream.write(b"x" * (2 * PART_BYTES))
        raise RuntimeError
    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket="contimg")


def test_dead_endpoint_names_its_setting(s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3_environment.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        open_store("s3://contimg/x").read("k")


ASKS: dict[str, Callable[[Store], Any]] = {
    "read": lambda store: store.read("k"),
    "check": lambda store: store.check(),
    "entries": lambda store: list(store.entries()),
    "put": lambda store: store.put("k", b"x"),
    "exists": lambda store: store.exists("k"),
}


@pytest.mark.usefixtures("moto_root")
@pytest.mark.parametrize("ask", ["read", "check", "entries", "put"])
def test_missing_bucket_is_a_usage_error(ask: str) -> None:
    with pytest.raises(UsageError, match=r"There is no bucket no-such-bucket \(NoSuchBucket\)"):
        ASKS[ask](open_store("s3://no-such-bucket"))


@pytest.mark.parametrize("ask", ASKS)
def test_unknown_credentials_are_named(
    rclone_root: str, s3_environment: pytest.MonkeyPatch, ask: str
) -> None:
    s3_environment.setenv("AWS_SECRET_ACCESS_KEY", "another")
    s3_environment.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    with pytest.raises(UsageError, match="S3 refused access"):
        ASKS[ask](open_store(rclone_root))


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    bare = {"AWS_SHARED_CREDENTIALS_FILE": none, "AWS_CONFIG_FILE": none}
    bare |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    code = "from contimg.runtime.store import open_store; open_store('s3://contimg').check()"
    told = toys.run(sys.executable, "-c", code, env=bare).stderr
    problem = "There are no credentials for S3: Unable to locate credentials"
    assert f"UsageError: s3://contimg/: {problem}" in told


@pytest.mark.parametrize("bucket", ["UPPER_case", "x"])
def test_invalid_bucket_name_is_refused(
    bucket: str, moto_endpoint: str, s3_environment: pytest.MonkeyPatch
) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", moto_endpoint)
    with pytest.raises(UsageError, match="bucket"):
        open_store(f"s3://{bucket}").check()


@pytest.mark.parametrize(
    ("path", "found"), [("gone", "missing"), ("file", "a file, not a directory")]
)
def test_missing_directory_fails_check(tmp_path: Path, path: str, found: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=rf"{path}: The directory of the store is {found}\."):
        open_store(str(tmp_path / path)).check()


@pytest.mark.parametrize("write", [DirectoryStore.put, DirectoryStore.create])
def test_signal_after_file_creation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., object]
) -> None:
    def stop(*_: object) -> None:
        assert list(tmp_path.rglob(f"{PARTIAL}*"))
        raise Stopped

    monkeypatch.setattr(fcntl, "flock", stop)
    with pytest.raises(Stopped):
        write(DirectoryStore(str(tmp_path)), "a/b", b"x")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_tidy_removes_only_abandoned_files(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    with store.writer("a/b/whole") as stream:
        stream.write(b"x")
        (tmp_path / "other").mkdir()
        for folder in ("a", "other"):
            (tmp_path / folder / f"{PARTIAL}dead").write_bytes(b"half")
        assert store.tidy("a/") == 1
    assert store.read("a/b/whole") == b"x"
    assert [path.parent.name for path in tmp_path.rglob(f"{PARTIAL}*")] == ["other"]
    assert [entry.key for entry in store.entries()] == ["a/b/whole"]
    assert store.tidy("none/") == 0
    assert store.tidy() == 1


def test_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for write in (DirectoryStore.put, DirectoryStore.create):
        with pytest.raises(StoreError):
            write(DirectoryStore(str(tmp_path / "file" / "store")), "k", b"")


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="gopher"):
        open_store("gopher://hole")


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("s3://sky/run#2", "s3://sky/run#2"),
        ("s3://sky/a?b=c/100%25 {x} y/", "s3://sky/a?b=c/100%25 {x} y"),
        ("S3://sky", "s3://sky"),
        ("/tmp/run#2?x%20", "/tmp/run#2?x%20"),
        ("/tmp/T01:02:03", "/tmp/T01:02:03"),
        ("file:///tmp/run#2/", "/tmp/run#2"),
        ("file:///tmp/a%20b%23c?d", "/tmp/a b#c?d"),
        ("file://localhost/tmp", "/tmp"),
    ],
)
@pytest.mark.usefixtures("s3_environment")
def test_uri_keeps_every_character(uri: str, root: str) -> None:
    assert open_store(uri).root == root
    store, name = split(f"{uri.rstrip('/')}/k")
    assert (store.root, name) == (root, "k")


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://", "s3:///x", "s3:/", "s3://sky/a/../b", "s3://sky/a//b", "s3://sky/./a"),
        *("file://sky/tmp", "file://", "", " ", "s3://sky/a\n", "s3://sky/\x7f"),
    ],
)
def test_uri_that_means_another_place_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_store(uri)


def test_names_in_file_uris_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a b#c").write_bytes(b"x")
    store, name = split(f"file://{tmp_path}/a%20b%23c")
    assert store.read(name) == b"x"


def test_link_whose_answer_was_lost_is_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lose_answer(part: Path, path: Path) -> None:
        link(part, path)
        raise FileExistsError(path)

    monkeypatch.setattr(os, "link", lose_answer)
    assert DirectoryStore(str(tmp_path)).create("k", b"x")


def test_file_uris_and_paths_agree(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/s").put("k", b"x")
    store, key = split(f"{tmp_path}/s/k")
    assert (store.read(key), key) == (b"x", "k")
