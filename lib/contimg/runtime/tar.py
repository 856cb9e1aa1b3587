"""Folders (Measurement Sets, caltables) as one object: a sorted tar without times and owners.

The same content makes the same bytes, so that digests agree across machines and runs.
"""

from __future__ import annotations

import hashlib
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from contimg.runtime.errors import BadInputError

LOCK_FILES = {"table.lock"}
"""Files that CASA rewrites whenever it opens a table; they hold no data."""
FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python before 3.11.4, as in Debian 12, has no filters."""
COPY_BLOCK_BYTES = 4 << 20
"""Size of the pieces in which files are copied; tarfile's own 16 KiB take three times as long."""


@dataclass
class DigestStream:
    """A stream that counts and digests what is read from it or written to it."""

    stream: IO[bytes]
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    pool: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1))
    closed: bool = False
    """As Arrow asks of a stream; it is closed by whoever opened it."""

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        data = self.stream.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data

    def flush(self) -> None:
        """Do nothing: what is written has been passed on."""

    def write(self, data: bytes | memoryview[Any]) -> None:
        """Pass data on, and digest them in a second thread; the caller may change them then."""
        digested = self.pool.submit(self.digest.update, data)
        try:
            self.stream.write(data)
        finally:
            digested.result()
        self.size += len(data)


def pack(folder: Path, sink: IO[bytes]) -> tuple[int, str]:
    """Write a folder as a tar whose only top member is its name; return bytes and sha256."""
    through = DigestStream(sink)
    for path in [folder, *sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).parts)]:
        if path.name in LOCK_FILES:
            continue
        # Without what differs from machine to machine: times, owners, modes.
        member = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
        if path.is_dir():
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.name += "/"
            through.write(member.tobuf(tarfile.USTAR_FORMAT))
            continue
        left = member.size = path.stat().st_size
        member.mode = 0o644
        through.write(member.tobuf(tarfile.USTAR_FORMAT))
        buffer = memoryview(bytearray(min(COPY_BLOCK_BYTES, left)))
        with path.open("rb", buffering=0) as source:
            while left and (count := source.readinto(buffer[:left])):
                through.write(buffer[:count])
                left -= count
        if left:
            problem = f"The file ended {left} bytes early: it was changed while it was packed."
            raise BadInputError(str(path), problem, "Let nothing else write to it.")
        through.write(bytes(-member.size % tarfile.BLOCKSIZE))
    end = 2 * tarfile.BLOCKSIZE
    through.write(bytes(end + -(through.size + end) % tarfile.RECORDSIZE))
    return through.size, through.digest.hexdigest()


def unpack(source: IO[bytes] | DigestStream, into: Path) -> Path:
    """Unpack a tar, read to its end; return its folder. BadInputError if it is damaged or empty."""
    top = ""
    try:
        block = {"bufsize": COPY_BLOCK_BYTES, "copybufsize": COPY_BLOCK_BYTES}
        with tarfile.open(fileobj=source, mode="r|", **block) as tar:  # type: ignore[call-overload]
            for member in tar:
                parts = member.name.split("/")
                top = top or parts[0]
                outside = member.name.startswith("/") or ".." in parts
                if outside or not (member.isfile() or member.isdir()):
                    problem = "This member is not a file or folder below the tar's own folder."
                    raise BadInputError(member.name, problem, "Make the artifact again.")
                tar.extract(member, into, **FILTER)
        while source.read(COPY_BLOCK_BYTES):
            pass  # what follows the end of the tar is in its digest, too
    except tarfile.TarError as error:
        problem = f"This is not the tar of a folder: {error}."
        raise BadInputError(str(into), problem, "Make the artifact again.") from error
    if not top:
        raise BadInputError(str(into), "The tar is empty.", "Make the artifact again.")
    return into / top
