"""``contimg upload DIR``: copy finished subbands into a store as they appear, at the telescope."""

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
from contimg.runtime.store import Store, copy_digest, open_store, put_file
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
    modified_ns: int


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
        finished = list_finished(Path(self.options.folder))
        new = [local for local in finished if local not in self.done]
        folders = sorted({local.key.removesuffix(local.path.name) for local in new})
        entries = [entry for folder in folders for entry in self.store.entries(folder)]
        sizes = {entry.key: entry.size for entry in entries}
        with ThreadPoolExecutor(self.options.jobs) as pool:
            try:
                list(pool.map(lambda local: self._upload(local, sizes.get(local.key)), new))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _upload(self, local: LocalSubband, size: int | None) -> None:
        """Copy a file unless the store has it with its size, or its content if all is verified.

        The copy is read back; a file that changed or went meanwhile is left to the next pass.
        """
        is_there = size == local.size
        if is_there and self.options.verify == "all":
            with local.path.open("rb") as source:
                is_there = copy_digest(source, None) == self._digest(local.key)
        if is_there:
            self.already += 1
            self.done.add(local)
            return
        try:
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

    def _digest(self, key: str) -> tuple[int, str]:
        with self.store.open(key) as source:
            return copy_digest(source, None)


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
    return LocalSubband(path, key, stat.st_size, stat.st_mtime_ns)
