"""Directories (Measurement Sets, caltables) as one object: a sorted tar with fixed times and owners.

The same content makes the same bytes, so that digests can be compared across machines and runs.
"""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, TYPE_CHECKING

from contimg.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

TRANSIENT = {"table.lock"}
"""Files that CASA rewrites whenever it looks; their content is no data."""


class DigestWriter:
    """A stream that counts and digests what passes through it."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Pass data on."""
        self._digest.update(data)
        self.size += len(data)
        self._sink.write(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """Digest of all that was written."""
        return self._digest.hexdigest()


def pack(folder: Path, sink: IO[bytes]) -> tuple[int, str]:
    """Write a folder as a tar whose only top member is its name; return bytes and sha256."""
    through = DigestWriter(sink)
    with tarfile.open(fileobj=through, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar:  # type: ignore[call-overload]
        for path in [folder, *sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).parts)]:
            if path.name not in TRANSIENT:
                tar.add(path, path.relative_to(folder.parent).as_posix(), recursive=False, filter=_plain)
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
        with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 20) as tar:
            for member in tar:
                top = top or member.name.split("/")[0]
                tar.extract(member, into, filter="data")
    except tarfile.TarError as error:
        raise BadInputError(str(into), "a tar of a folder", str(error), "Make the artifact again.") from error
    if not top:
        raise BadInputError(str(into), "a tar of a folder", "an empty one", "Make the artifact again.")
    return into / top


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member
