"""Immutable objects under one root URI, in a directory or in S3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from contimg.runtime.errors import MissingError, UsageError

Stream = AbstractContextManager[IO[bytes]]
COPY_BLOCK_BYTES = 1 << 20
"""Size of the pieces in which an object is copied or digested."""


@dataclass(frozen=True, order=True)
class Entry:
    """One object of a listing."""

    key: str
    size: int
    """Bytes."""
    modified: datetime
    """UTC, aware."""


class Store(Protocol):
    """Immutable objects under one root URI. Keys use forward slashes and never begin with one."""

    root: str
    """The root URI, without a trailing slash."""

    def check(self) -> None:
        """Raise UsageError unless the bucket or directory exists and may be listed."""
        next(iter(self.entries()), None)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects whose key begins with `prefix`, sorted by key."""

    def exists(self, key: str) -> bool:
        """Return whether an object exists."""
        try:
            with self.open(key):
                return True
        except MissingError:
            return False

    def read(self, key: str) -> bytes:
        """Return a small object whole; MissingError if it does not exist."""
        with self.open(key) as stream:
            return stream.read()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return the bytes `start` to `stop` - 1 (fewer at the end); MissingError as `read`."""
        with self.open(key, start, stop) as stream:
            return stream.read(stop - start)

    def open(self, key: str, start: int = 0, stop: int | None = None) -> Stream:
        """Open an object from byte `start`; none from `stop` on is read. MissingError as `read`."""

    def writer(self, key: str, *, new: bool = False) -> Stream:
        """Open a stream to an object; readers see all of it or, after an error, nothing.

        With `new`, FileExistsError is raised at the end if another writer was first.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write a small object; readers see all of it or nothing."""
        with self.writer(key) as stream:
            stream.write(data)

    def create(self, key: str, data: bytes) -> bool:
        """Write if the key is free; False: another writer was first."""
        try:
            with self.writer(key, new=True) as stream:
                stream.write(data)
        except FileExistsError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object; it need not exist."""


def open_store(root: str) -> Store:
    """Open the store at s3://bucket/prefix, file:///dir or a directory; else UsageError."""
    parts = urlsplit(root)
    if parts.scheme == "s3":
        from contimg.runtime.s3 import S3Store  # boto3 is slow to import

        return S3Store(parts.netloc, parts.path.strip("/"))
    if parts.scheme in {"file", ""}:
        from contimg.runtime.directory import DirectoryStore

        return DirectoryStore(unquote(parts.path) if parts.scheme else root)
    remedy = "Give s3://bucket/prefix, file:///directory or a directory."
    raise UsageError(root, f"A store cannot be at {parts.scheme}://.", remedy)


def split(uri: str) -> tuple[Store, str]:
    """Split an object's URI into the store of its parent and its name."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    return open_store(parent or "/"), name


def put_file(store: Store, key: str, path: Path) -> tuple[int, str]:
    """Upload a file as a stream; return its bytes and sha256."""
    with path.open("rb") as source, store.writer(key) as sink:
        return copy_digest(source, sink)


def fetch_file(store: Store, key: str, path: Path) -> tuple[int, str]:
    """Download an object to a file, which appears only when whole; return bytes and sha256."""
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with store.open(key) as source, part.open("wb") as sink:
            found = copy_digest(source, sink)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return found


def copy_digest(source: IO[bytes], sink: IO[bytes] | None) -> tuple[int, str]:
    """Copy a stream to its end (nowhere, if `sink` is None); return its bytes and sha256."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(COPY_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
        if sink is not None:
            sink.write(block)
    return size, digest.hexdigest()
