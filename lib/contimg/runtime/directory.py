"""A store in a directory: files are written beside their place, synced and renamed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from contimg.runtime.errors import MissingError, NoRoomError, StoreError, UsageError
from contimg.runtime.store import FILE_VERSION, Entry, Store

PARTIAL = ".part-"
"""Beginning of the names of files that are being written; listings leave them out."""
ACCESS_REMEDY = "Check mounts and permissions."


class DirectoryStore(Store):
    """Objects are files below one directory."""

    def __init__(self, directory: str) -> None:
        self._base = Path(directory).absolute()
        self.root = str(self._base)

    def check(self) -> None:
        """Make sure that the directory exists: a mistyped one looks like an empty store."""
        if not self._base.is_dir():
            found = "a file, not a directory" if self._base.exists() else "missing"
            problem = f"The directory of the store is {found}."
            raise UsageError(self.root, problem, "Correct the path, or mount it.")

    def tidy(self, prefix: str = "") -> int:
        """Remove the partial files of killed writers below a folder; return their number."""
        removed = 0
        for part in list((self._base / prefix).rglob(f"{PARTIAL}*")):
            # Fails if the file is still written, gone, another user's, or cannot be locked.
            with contextlib.suppress(OSError), part.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                removed += 1
        return removed

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List the files whose path begins with `prefix`, sorted by key."""
        folder, _, _ = prefix.rpartition("/")
        paths = []
        for parent, _, names in os.walk(self._base / folder, onerror=_raise_unlistable):
            here = Path(parent).relative_to(self._base)
            paths += [(here / name).as_posix() for name in names if not name.startswith(PARTIAL)]
        for key in sorted(paths):
            if key.startswith(prefix):
                # A file may vanish in the meantime.
                with contextlib.suppress(FileNotFoundError):
                    yield _describe(key, self._base / key)

    def entry(self, key: str) -> Entry | None:
        """Return the entry of one file without a listing; None if it does not exist."""
        path = self._base / key
        try:
            return _describe(key, path) if path.is_file() else None
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[IO[bytes]]:  # noqa: ARG002 - for S3
        """Open a file for reading from `start`."""
        path = self._base / key
        try:
            stream = path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            remedy = "Check the URI, or run the stage that makes it."
            raise MissingError(str(path), "There is no such file.", remedy) from error
        except OSError as error:
            problem = f"The file cannot be read: {error}."
            raise StoreError(str(path), problem, ACCESS_REMEDY) from error
        with stream:
            stream.seek(start)
            yield stream

    @contextlib.contextmanager
    def writer(self, key: str, *, new: bool = False) -> Iterator[IO[bytes]]:
        """Write a locked file beside its place; when it is whole, rename it or, if new, link it."""
        path = self._base / key
        # Named before it is made: a signal in between would leave a file of unknown name.
        part = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
        try:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                while True:
                    stream = part.open("xb")
                    with contextlib.suppress(OSError):  # without locks `tidy` removes nothing
                        fcntl.flock(stream, fcntl.LOCK_EX)
                    if os.fstat(stream.fileno()).st_nlink:
                        break
                    stream.close()  # `tidy` removed it before it was locked
                part.chmod(0o644)  # whatever the umask: a store is shared
            except OSError as error:
                problem = f"The directory cannot be written: {error}."
                raise StoreError(str(path), problem, ACCESS_REMEDY) from error
            with stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                if new:  # the file system makes a hard link only once
                    _link(part, path)
                else:
                    part.replace(path)
        except FileExistsError:
            raise
        except OSError as error:
            problem = f"The file cannot be written: {error}."
            raise NoRoomError(str(path), problem, "Free space, then run again.") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def delete(self, key: str) -> None:
        """Remove a file."""
        path = self._base / key
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problem = f"The file cannot be removed: {error}."
            raise StoreError(str(path), problem, ACCESS_REMEDY) from error


def _describe(key: str, path: Path) -> Entry:
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    version = f"{FILE_VERSION}{stat.st_ino:x}-{stat.st_ctime_ns:x}"
    return Entry(key, stat.st_size, modified, version)


def _link(part: Path, path: Path) -> None:
    """Link a file to a new name; FileExistsError if another file has it.

    A network file system may answer that the name exists because the answer to its first request,
    which made the link, was lost.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        if not path.samefile(part):
            raise


def _raise_unlistable(error: OSError) -> None:
    """Raise if a folder cannot be listed: the store would look empty. It need not exist."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        problem = f"The directory cannot be listed: {error}."
        raise StoreError(str(error.filename), problem, ACCESS_REMEDY) from error
