"""Immutable objects under one root URI, in a directory or in S3."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote

from contimg.runtime.errors import MissingError, UsageError

Stream = AbstractContextManager[IO[bytes]]
COPY_BLOCK_BYTES = 1 << 20
"""Size of the pieces in which an object is copied or digested."""
FILE_VERSION = "file:"
"""Beginning of the version of a file; an entity tag of S3 begins otherwise."""
STORE_REMEDY = "Give s3://bucket/prefix, file:///directory or a directory."
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/(?P<rest>/.*|)", re.DOTALL)


@dataclass(frozen=True, order=True)
class Entry:
    """One object of a listing."""

    key: str
    size: int
    """Bytes."""
    modified: datetime
    """UTC, aware."""
    version: str = ""
    """What changes with the content: S3's entity tag, or ``file:`` with inode and time of change,
    which a change of owner or mode changes, too."""


class Store(Protocol):
    """Immutable objects under one root URI. Keys use forward slashes and never begin with one."""

    root: str
    """The root URI, without a trailing slash."""

    def check(self) -> None:
        """Raise UsageError unless the bucket or directory exists and may be listed."""
        next(iter(self.entries()), None)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects whose key begins with `prefix`, sorted by key."""

    def entry(self, key: str) -> Entry | None:
        """Return the entry of one object in the listing; None if it does not exist."""
        return next((entry for entry in self.entries(key) if entry.key == key), None)

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
    """Open the store at s3://bucket/prefix, file:///directory or a directory.

    All characters of a bucket's prefix and of a directory count as they are, ``#``, ``?`` and ``%``
    included; in file:// alone, %20 is a space.

    Raises UsageError for other schemes, hosts in file://, no bucket, and prefixes that servers
    would normalize to another place: empty segments, ``.``, ``..`` and control characters.
    """
    scheme, path = split_scheme(root)
    if _CONTROL.search(root):
        raise UsageError(repr(root), "A store's URI has a control character.", STORE_REMEDY)
    if scheme == "s3":
        from contimg.runtime.s3 import S3Store  # boto3 is slow to import

        bucket, _, prefix = path.rstrip("/").partition("/")
        if not bucket:
            raise UsageError(root, "The URI names no bucket.", STORE_REMEDY)
        if not {"", ".", ".."}.isdisjoint(prefix.split("/") if prefix else ()):
            problem = "Part of the prefix is empty, '.' or '..'."
            raise UsageError(root, problem, "Write the prefix without it.")
        return S3Store(bucket, prefix)
    if scheme not in {"file", ""}:
        raise UsageError(root, f"A store cannot be at {scheme}://.", STORE_REMEDY)
    from contimg.runtime.directory import DirectoryStore

    if scheme:
        host, slash, path = path.partition("/")
        if host not in {"", "localhost"} or not slash:
            problem = f"The file is said to be on host {host!r}."
            raise UsageError(root, problem, "Write file:/// and an absolute path.")
        path = unquote(f"/{path}")
    if not path.strip():
        raise UsageError(repr(root), "The store's URI is empty.", STORE_REMEDY)
    return DirectoryStore(path)


def split_scheme(uri: str) -> tuple[str, str]:
    """Return the scheme in small letters and what follows ``://``; no scheme: a plain path."""
    found = _SCHEME.fullmatch(uri)
    return (found["scheme"].lower(), found["rest"].removeprefix("/")) if found else ("", uri)


def split(uri: str) -> tuple[Store, str]:
    """Split an object's URI into the store of its parent and its name."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    is_file_uri = split_scheme(uri)[0] == "file"
    return open_store(parent or "/"), unquote(name) if is_file_uri else name


def is_absolute(uri: str) -> bool:
    """Return whether a URI says by itself where the object is."""
    return uri.startswith("/") or "://" in uri


def absolute_uri(uri: str, root: str) -> str:
    """Return a URI as it is, or below a root URI if it is relative."""
    return uri if is_absolute(uri) else f"{root.rstrip('/')}/{uri}"


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
