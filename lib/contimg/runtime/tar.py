"""Directories (Measurement Sets, caltables) as one object: a sorted tar with fixed times and owners.

The same content makes the same bytes, so that digests can be compared across machines and runs.
"""

from __future__ import annotations

import hashlib
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Self

from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

TRANSIENT = {"table.lock"}
"""Files that CASA rewrites whenever it looks; their content is no data."""
FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python before 3.11.4, as Debian 12 has it, knows no filters."""
BLOCK = 4 << 20
"""Bytes copied at a time; tarfile's own 16 KiB make a tar three times as dear as its bytes."""


class DigestWriter:
    """A stream that counts and digests, in a second thread, what passes through it; a context manager."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def write(self, data: bytes | memoryview[Any]) -> int:
        """Pass data on; the caller may change them afterwards."""
        digested = self._pool.submit(self._digest.update, data)
        try:
            self._sink.write(data)
        finally:
            digested.result()
        self.size += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """Digest of all that was written."""
        return self._digest.hexdigest()


def pack(folder: Path, sink: IO[bytes]) -> tuple[int, str]:
    """Write a folder as a tar whose only top member is its name; return bytes and sha256."""
    with DigestWriter(sink) as through:
        for path in [folder, *sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).parts)]:
            if path.name in TRANSIENT:
                continue
            member = _member(path, folder)
            through.write(member.tobuf(tarfile.USTAR_FORMAT))
            if member.isfile():
                _copy(path, member.size, through)
                through.write(bytes(-member.size % tarfile.BLOCKSIZE))
        end = 2 * tarfile.BLOCKSIZE
        through.write(bytes(end + -(through.size + end) % tarfile.RECORDSIZE))
    return through.size, through.sha256


def unpack(source: IO[bytes], into: Path) -> Path:
    """Unpack a tar that `pack` made; return the folder.

    Raises
    ------
    BadInputError
        If the tar is damaged or empty.
    """
    top = ""
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=BLOCK, copybufsize=BLOCK) as tar:  # type: ignore[call-overload]
            for member in tar:
                top = top or member.name.split("/")[0]
                _harmless(member)
                tar.extract(member, into, **FILTER)
    except tarfile.TarError as error:
        raise BadInputError(
            str(into), f"expected a tar of a folder, found {error!s}.", "Make the artifact again."
        ) from error
    if not top:
        raise BadInputError(
            str(into), "expected a tar of a folder, found an empty one.", "Make the artifact again."
        )
    return into / top


def _harmless(member: tarfile.TarInfo) -> None:
    """Refuse what `pack` never writes and what would lead out of the folder."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
        raise BadInputError(
            member.name,
            "expected a file or a folder below the tar's own, found another.",
            "Make the artifact again.",
        )


def _member(path: Path, folder: Path) -> tarfile.TarInfo:
    """Describe a file or folder without what differs from machine to machine."""
    member = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
    if path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        member.name += "/"
    else:
        member.size, member.mode = path.stat().st_size, 0o644
    return member


def _copy(path: Path, size: int, sink: DigestWriter) -> None:
    buffer = memoryview(bytearray(min(BLOCK, size)))
    with path.open("rb", buffering=0) as source:
        while size and (count := source.readinto(buffer[:size])):
            sink.write(buffer[:count])
            size -= count
    if size:
        raise BadInputError(
            str(path),
            f"expected {size} bytes more, found the end of the file.",
            "Let nothing write to it meanwhile.",
        )
