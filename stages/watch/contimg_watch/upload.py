"""``contimg upload DIR``: copy finished subbands into a store as they appear, at the telescope."""

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import Any

from contimg.records.groups import INCOMING, subband_name
from contimg.runtime.console import Console
from contimg.runtime.directory import DirectoryStore
from contimg.runtime.errors import BadFileError, StoreError
from contimg.runtime.store import FILE_VERSION, Entry, Store, copy_digest, open_store, put_file
from contimg_watch.options import UploadOptions


def run(options: UploadOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Copy what is there, or keep copying; return what was done."""
    store = open_store(options.store)
    # What a killed uploader left half written in a directory; S3 shows no such files.
    left = store.tidy(INCOMING) if isinstance(store, DirectoryStore) else 0
    if left:
        console.log.info("removed %d half-written files of an upload that was killed", left)
    uploader = Uploader(options, store, console.log)
    while options.follow:
        try:
            uploader.run_pass()
        except StoreError as error:
            console.log.warning("%s", error)
        time.sleep(options.interval_s)
    uploader.run_pass()
    counts = {"copied": uploader.copied, "bytes": uploader.bytes, "already": uploader.already}
    return {"stage": "upload", **counts}


@dataclass(frozen=True)
class LocalSubband:
    """A finished subband on disk, as it was when it was described."""

    path: Path
    key: str
    """Key in the store: the day is that of the name, whichever folder the file lies in."""
    size: int
    changed_ns: tuple[int, int, int]
    """Time of the content, which a copy may keep, time of the file, and its inode."""


@dataclass
class Uploader:
    """Copies one folder into one store, pass after pass."""

    options: UploadOptions
    store: Store
    log: Logger
    copied: int = 0
    bytes: int = 0
    already: int = 0
    done: set[LocalSubband] = field(default_factory=set)

    def run_pass(self) -> None:
        """Copy what is finished and not in the store yet, the oldest first."""
        finished: dict[str, LocalSubband] = {}
        for local in list_finished(Path(self.options.folder)):
            other = finished.setdefault(local.key, local)
            if local.changed_ns > other.changed_ns:  # two folders may hold files of one name
                finished[local.key] = local
        new = [local for local in finished.values() if local not in self.done]
        folders = sorted({local.key.removesuffix(local.path.name) for local in new})
        entries = [entry for folder in folders for entry in self.store.entries(folder)]
        there = {entry.key: entry for entry in entries}
        with ThreadPoolExecutor(self.options.jobs) as pool:
            try:
                list(pool.map(lambda local: self._upload(local, there.get(local.key)), new))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _upload(self, local: LocalSubband, there: Entry | None) -> None:
        """Copy a file unless the store has its content, or its size if that is to suffice.

        The copy is read back; a file that changed or went meanwhile is left to the next pass.
        """
        try:
            if there and there.size == local.size and self._is_same(local, there):
                self.already += 1
                self.done.add(local)
                return
            size, digest = put_file(self.store, local.key, local.path)
        except FileNotFoundError:
            return
        if describe(local.path) != local or size != local.size:
            self.log.warning("%s changed while it was copied", local.path)
            self.store.delete(local.key)
            return
        if self.options.verify != "size":
            found_size, found_digest = self._digest(local.key)
            if (found_size, found_digest) != (local.size, digest):
                self.store.delete(local.key)
                found = f"{found_size} bytes, sha256 {found_digest[:12]}"
                expected = f"{size}, {digest[:12]}"
                problem = f"The copy is damaged: {found} were read back, {expected} were written."
                remedy = "It was removed; it is copied again."
                raise StoreError(f"{self.store.root}/{local.key}", problem, remedy)
        self.copied += 1
        self.bytes += local.size
        self.done.add(local)
        self.log.info("%s: %.1f MB", local.key, local.size / 1e6)

    def _is_same(self, local: LocalSubband, there: Entry) -> bool:
        """Compare with an object of the same size; S3's entity tag saves reading it."""
        if self.options.verify == "size":
            return True
        is_tagged = not there.version.startswith(FILE_VERSION)
        if is_tagged and entity_tag(local.path) == there.version:
            return True
        with local.path.open("rb") as source:
            return copy_digest(source, None) == self._digest(local.key)

    def _digest(self, key: str) -> tuple[int, str]:
        with self.store.open(key) as source:
            return copy_digest(source, None)


def entity_tag(path: Path) -> str:
    """Return the entity tag that S3 gives a file which `put_file` writes, unless it encrypts."""
    from contimg.runtime.s3 import PART_BYTES  # boto3 is slow to import

    parts = []
    with path.open("rb") as source:
        while block := source.read(PART_BYTES):
            parts.append(hashlib.md5(block, usedforsecurity=False).digest())
    if path.stat().st_size < PART_BYTES:
        return f'"{b"".join(parts).hex()}"'
    whole = hashlib.md5(b"".join(parts), usedforsecurity=False)
    return f'"{whole.hexdigest()}-{len(parts)}"'


def list_finished(folder: Path) -> list[LocalSubband]:
    """List the finished subbands below a folder by time; BadFileError if there is no folder."""
    if not folder.is_dir():
        remedy = "Name the folder that the telescope writes to."
        raise BadFileError(str(folder), "There is no such folder.", remedy)
    paths = [path for path in folder.rglob("*.hdf5") if subband_name(path.name)]
    found = map(describe, sorted(paths, key=lambda path: path.name))
    return [local for local in found if local is not None]


def describe(path: Path) -> LocalSubband | None:
    """Describe a file as it is now; None if it is gone."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    key = f"{INCOMING}{path.name[:10]}/{path.name}"
    changed = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return LocalSubband(path, key, stat.st_size, changed)
