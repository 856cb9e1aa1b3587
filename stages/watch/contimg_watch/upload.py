"""``contimg upload DIR``: the telescope's side. Copies finished subbands into a store as they appear."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contimg.records.groups import INCOMING, subband_name
from contimg.runtime.contract import command
from contimg.runtime.directory import DirectoryStore
from contimg.runtime.errors import BadFileError, StoreError
from contimg.runtime.store import copy_digest, open_store, put_file
from contimg_watch.options import UploadOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from logging import Logger

    from contimg.runtime.console import Console
    from contimg.runtime.store import Store


@dataclass(frozen=True)
class Local:
    """A finished subband on disk, as it was when it was looked at."""

    path: Path
    size: int
    modified_ns: int

    @property
    def key(self) -> str:
        """Where it goes: the day is that of its name, whichever folder it lies in."""
        return f"{INCOMING}{self.path.name[:10]}/{self.path.name}"


def main(argv: Sequence[str]) -> int:
    """Run ``contimg upload DIR --store URI``."""
    words = list(argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--folder")
    return command("contimg upload", UploadOptions, run, words)


def run(options: UploadOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Copy what is there, or go on copying; return what was done."""
    uploader = Uploader(options, console.log)
    while True:
        try:
            uploader.once()
        except StoreError as error:
            if not options.follow:
                raise
            console.log.warning("%s", error)
        if not options.follow:
            return {
                "stage": "upload",
                "copied": uploader.copied,
                "bytes": uploader.bytes,
                "already": uploader.already,
            }
        time.sleep(options.interval_s)


class Uploader:
    """Copies one folder into one store, again and again."""

    def __init__(self, options: UploadOptions, log: Logger) -> None:
        self.copied, self.bytes, self.already = 0, 0, 0
        self._options, self._log = options, log
        self._folder = Path(options.folder)
        self._store: Store = open_store(options.store)
        self._tidy()
        self._done: set[Local] = set()

    def once(self) -> None:
        """Copy what is finished and not in the store yet, the oldest first."""
        new = [local for local in finished(self._folder) if local not in self._done]
        there = self._there({local.key[: len(INCOMING) + 10] for local in new})
        with ThreadPoolExecutor(self._options.jobs) as pool:
            try:
                list(pool.map(lambda local: self._one(local, there.get(local.key)), new))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _tidy(self) -> None:
        """Remove what an uploader that was killed left half written in a directory; S3 shows nothing of such a thing."""
        left = self._store.tidy(INCOMING) if isinstance(self._store, DirectoryStore) else 0
        if left:
            self._log.info("removed %d half-written files of an upload that was killed", left)

    def _there(self, folders: set[str]) -> dict[str, int]:
        return {
            entry.key: entry.size
            for folder in sorted(folders)
            for entry in self._store.entries(f"{folder}/")
        }

    def _one(self, local: Local, size: int | None) -> None:
        if size == local.size and (self._options.verify != "all" or self._same(local)):
            self.already += 1
            self._done.add(local)
        elif self._copy(local):
            self.copied += 1
            self.bytes += local.size
            self._done.add(local)
            self._log.info("%s: %.1f MB", local.key, local.size / 1e6)

    def _copy(self, local: Local) -> bool:
        """Copy a file and read it back; False if it changed or went meanwhile, so that the next pass sees it as it is then."""
        try:
            size, digest = put_file(self._store, local.key, local.path)
        except FileNotFoundError:
            return False
        if look(local.path) != local or size != local.size:
            self._log.warning("%s changed while it was copied", local.path)
            self._store.delete(local.key)
            return False
        if self._options.verify != "size":
            self._verify(local, digest)
        return True

    def _verify(self, local: Local, digest: str) -> None:
        found = self._digest(local.key)
        if found != (local.size, digest):
            self._store.delete(local.key)
            where, expected = (
                f"{self._store.root}/{local.key}",
                f"{local.size} bytes, sha256 {digest[:12]}",
            )
            raise StoreError(
                where,
                f"expected {expected}, found {found[0]} bytes, {found[1][:12]}.",
                "It was removed; it is copied again.",
            )

    def _same(self, local: Local) -> bool:
        with local.path.open("rb") as source:
            return copy_digest(source, None) == self._digest(local.key)

    def _digest(self, key: str) -> tuple[int, str]:
        with self._store.open(key) as source:
            return copy_digest(source, None)


def finished(folder: Path) -> list[Local]:
    """List the finished subbands below a folder by name, which is by time; one that is being written has another name.

    Raises
    ------
    BadFileError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise BadFileError(
            str(folder),
            "expected a folder of subbands, found none.",
            "Name the folder that the telescope writes to.",
        )
    paths = sorted(
        (path for path in folder.rglob("*.hdf5") if subband_name(path.name)),
        key=lambda path: path.name,
    )
    return [local for local in map(look, paths) if local is not None]


def look(path: Path) -> Local | None:
    """Describe a file as it is now; None if it is gone."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return Local(path, stat.st_size, stat.st_mtime_ns)
