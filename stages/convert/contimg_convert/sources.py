"""The files of a group: used in place where the store is a directory, copied into scratch where it is not; and their digests."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contimg.runtime.directory import DirectoryStore
from contimg.runtime.errors import BadFileError, InconsistentGroupError, MissingError
from contimg.runtime.store import fetch_file, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contimg.records.groups import GroupRecord, Subband
    from contimg.runtime.context import Context

AT_ONCE = 4
"""Downloads at a time."""


@dataclass(frozen=True)
class Source:
    """One subband's file, ready to be read."""

    index: int
    uri: str
    path: Path
    size: int
    fetched_sha256: str = ""
    """Digest if the file was copied here; otherwise it is yet to be made."""


def bring(record: GroupRecord, context: Context) -> list[Source]:
    """Make the files of a group readable and check their sizes.

    Raises
    ------
    InconsistentGroupError
        If there is no subband, or two of one index.
    BadFileError
        If a size is not that of the record.
    """
    if not record.subbands:
        raise InconsistentGroupError(
            record.name, "expected subbands, found none.", "Wait for the telescope's files."
        )
    known: dict[int, str] = {}
    for subband in record.subbands:
        if subband.index in known:
            remedy = "Take one of them out of the group."
            expected = f"one subband {subband.index}, {known[subband.index]}"
            raise InconsistentGroupError(
                subband.uri, f"expected {expected}, found another one.", remedy
            )
        known[subband.index] = subband.uri
    far = [s for s in record.subbands if local_path(s.uri) is None]
    if far:
        context.need(sum(s.size for s in far))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(
            pool.map(
                lambda subband: _bring_one(subband, context.scratch / "incoming"), record.subbands
            )
        )


def local_path(uri: str) -> Path | None:
    """Return the path of an object whose store is a directory, else None."""
    store, key = split(uri)
    return Path(store.root) / key if isinstance(store, DirectoryStore) else None


def _bring_one(subband: Subband, folder: Path) -> Source:
    store, key = split(subband.uri)
    path, digest = local_path(subband.uri), ""
    if path is None:
        path = folder / f"sb{subband.index:02d}.hdf5"
        _, digest = fetch_file(store, key, path)
    elif not path.is_file():
        raise MissingError(
            subband.uri,
            "expected a subband, found none.",
            "Check the store, or let watch make the group's record again.",
        )
    size = path.stat().st_size
    if size != subband.size:
        remedy = "Copy the subband again from the telescope's disk, then run watch."
        raise BadFileError(
            subband.uri,
            f"expected {subband.size} bytes, as the group's record says, found {size} bytes.",
            remedy,
        )
    return Source(subband.index, subband.uri, path, size, digest)


class Digests:
    """sha256 of the sources, made in a thread beside the conversion; a context manager."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._found = {s.index: self._pool.submit(_digest, s) for s in sources}

    def __enter__(self) -> Digests:  # noqa: PYI034 - nobody derives from it
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def results(self) -> dict[int, str]:
        """Wait for the digests, by subband."""
        return {index: future.result() for index, future in self._found.items()}


def _digest(source: Source) -> str:
    if source.fetched_sha256:
        return source.fetched_sha256
    with source.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
