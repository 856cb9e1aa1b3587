"""A store in a directory: write beside, sync, rename."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from contimg.runtime.errors import MissingError, NoRoomError, StoreError, UsageError
from contimg.runtime.store import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTIAL = ".part-"
"""Names that begin so are being written and are in no listing."""


class DirectoryStore:
    """Objects are files below one directory."""

    def __init__(self, directory: str) -> None:
        self._base = Path(directory).absolute()
        self.root = str(self._base)

    def check(self) -> None:
        """Make sure that the directory is there, since a mistyped one looks like an empty store."""
        if not self._base.is_dir():
            found = "a file" if self._base.exists() else "none"
            raise UsageError(
                self.root,
                f"expected the directory of a store, found {found}.",
                "Correct the path, or mount it.",
            )

    def tidy(self, prefix: str = "") -> int:
        """Remove what writers that were killed left below a folder; return how many. The kernel knows which still write."""
        parts = list((self._base / prefix).rglob(f"{PARTIAL}*"))
        return sum(_abandoned(part) for part in parts)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List the files whose path begins with `prefix`, sorted by key."""
        folder, _, _ = prefix.rpartition("/")
        paths = []
        for parent, _, names in os.walk(self._base / folder, onerror=_unlistable):
            here = Path(parent).relative_to(self._base)
            paths += [(here / name).as_posix() for name in names if not name.startswith(PARTIAL)]
        for key in sorted(paths):
            if key.startswith(prefix):
                # A file may vanish between the listing and the look.
                with contextlib.suppress(FileNotFoundError):
                    stat = (self._base / key).stat()
                    yield Entry(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    def exists(self, key: str) -> bool:
        """Say whether a file is there."""
        return (self._base / key).is_file()

    def read(self, key: str) -> bytes:
        """Return a file's bytes."""
        with self.open(key) as stream:
            return stream.read()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return some of a file's bytes."""
        with self.open(key) as stream:
            stream.seek(start)
            return stream.read(stop - start)

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        """Open a file for reading."""
        path = self._base / key
        try:
            stream = path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise MissingError(
                str(path),
                "expected a file, found none.",
                "Check the URI, or run the stage that makes it.",
            ) from error
        except OSError as error:
            raise StoreError(
                str(path),
                f"expected a readable file, found {error!s}.",
                "Check mounts and permissions.",
            ) from error
        with stream:
            yield stream

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[IO[bytes]]:
        """Write a file beside its place and rename it there when it is whole."""
        with self._beside(key) as (stream, part):
            yield stream
            _finish(stream)
            part.replace(self._base / key)

    def put(self, key: str, data: bytes) -> None:
        """Write a small file whole."""
        with self.writer(key) as stream:
            stream.write(data)

    def create(self, key: str, data: bytes) -> bool:
        """Write if the name is free, by a hard link, which the file system makes only once."""
        with self._beside(key) as (stream, part):
            stream.write(data)
            _finish(stream)
            try:
                (self._base / key).hardlink_to(part)
            except FileExistsError:
                return False
        return True

    def delete(self, key: str) -> None:
        """Remove a file."""
        path = self._base / key
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                str(path),
                f"expected a file that can be removed, found {error!s}.",
                "Check mounts and permissions.",
            ) from error

    @contextlib.contextmanager
    def _beside(self, key: str) -> Iterator[tuple[IO[bytes], Path]]:
        path = self._base / key
        # Named before it is made: a stop that comes in between would leave a file whose name nobody knows.
        part = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            with _held_file(part, path) as stream:
                yield stream, part
        except OSError as error:
            raise NoRoomError(
                str(path),
                f"expected room to write, found {error!s}.",
                "Free space, then run again.",
            ) from error
        finally:
            # What cannot be removed could not be made, and why is on its way already.
            with contextlib.suppress(OSError):
                part.unlink()


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        str(path),
        f"expected a writable directory, found {error!s}.",
        "Check mounts and permissions.",
    )


def _unlistable(error: OSError) -> None:
    """Say so when a folder cannot be listed, lest the store look empty; one that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise StoreError(
            str(error.filename),
            f"expected a readable directory, found {error!s}.",
            "Check mounts and permissions.",
        ) from error


def _held_file(part: Path, path: Path) -> IO[bytes]:
    """Make a file that is locked for as long as it is written; where locks do not work, tidying does not either."""
    while True:
        try:
            stream = part.open("xb")
        except OSError as error:
            raise _unwritable(path, error) from error
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            part.chmod(0o644)  # whatever the umask: a store is shared
            return stream
        stream.close()  # tidied away before it was locked


def _abandoned(part: Path) -> bool:
    """Remove a file that nobody writes any more; say whether it was one."""
    try:
        with part.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
    except OSError:  # still written, gone, another's, or on a file system without locks
        return False
    return True


def _finish(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())
