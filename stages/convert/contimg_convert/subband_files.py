"""The files of a group: read in place from a directory store, else copied into scratch."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contimg.records.groups import GroupRecord, Subband
from contimg.runtime.context import Context
from contimg.runtime.directory import DirectoryStore
from contimg.runtime.errors import BadFileError, InconsistentGroupError, MissingError
from contimg.runtime.store import Store, fetch_file, split

DOWNLOAD_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class SubbandFile:
    """One subband's file on a local disk."""

    subband: Subband
    path: Path
    store: Store
    key: str
    """Where the subband is in the store."""
    fetched_sha256: str
    """Digest from the download; empty if the file is read in place."""

    def digest(self) -> str:
        """Return the sha256 of the file."""
        if self.fetched_sha256:
            return self.fetched_sha256
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def check_unchanged(self) -> None:
        """Raise BadFileError unless the store's object is still the one of the group's record.

        The key of the artifact stands for the recorded objects, so no other content may get it.
        """
        subband, entry = self.subband, self.store.entry(self.key)
        if entry is None:
            remedy = "Check the store, or let watch write the group's record again."
            raise MissingError(subband.uri, "The subband does not exist.", remedy)
        if entry.size != subband.size:
            problem = f"has {entry.size} bytes, but the group's record says {subband.size} bytes."
            remedy = "Copy the subband again from the telescope's disk, then run watch."
            raise BadFileError(subband.uri, f"The file {problem}", remedy)
        if subband.is_replaced(entry):
            times = f"it is of {entry.modified.isoformat()}, not {subband.modified.isoformat()}"
            problem = f"The file was replaced after the group's record was written: {times}."
            remedy = "Run watch or contimg reprocess: the next attempt takes the new file."
            raise BadFileError(subband.uri, problem, remedy)


def fetch_subbands(record: GroupRecord, context: Context) -> list[SubbandFile]:
    """Make the files of a group readable and check that they are the recorded ones.

    Raises InconsistentGroupError if the group has no subband, or two of one index; MissingError if
    a file does not exist; BadFileError if one is not the recorded one any more.
    """
    if not record.subbands:
        remedy = "Wait for the telescope's files."
        raise InconsistentGroupError(record.name, "The group has no subbands.", remedy)
    first: dict[int, Subband] = {}
    for subband in record.subbands:
        other = first.setdefault(subband.index, subband)
        if other is not subband:
            problem = f"The group has subband {subband.index} twice; the other one is {other.uri}."
            remedy = "Take one of them out of the group."
            raise InconsistentGroupError(subband.uri, problem, remedy)
    stores, keys = zip(*(split(subband.uri) for subband in record.subbands), strict=True)
    is_remote = [not isinstance(store, DirectoryStore) for store in stores]
    if any(is_remote):
        context.need(sum(s.size for s, far in zip(record.subbands, is_remote, strict=True) if far))
    with ThreadPoolExecutor(DOWNLOAD_THREADS) as pool:
        fetch = partial(_fetch_one, folder=context.scratch / "incoming")
        return list(pool.map(fetch, record.subbands, stores, keys))


def _fetch_one(subband: Subband, store: Store, key: str, folder: Path) -> SubbandFile:
    path, digest = folder / f"sb{subband.index:02d}.hdf5", ""
    if isinstance(store, DirectoryStore):
        path = Path(store.root) / key
    else:
        _, digest = fetch_file(store, key, path)
    file = SubbandFile(subband=subband, path=path, store=store, key=key, fetched_sha256=digest)
    file.check_unchanged()
    return file
