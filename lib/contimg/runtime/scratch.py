"""Scratch folders, which the next process removes if their owner was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

PREFIX = "contimg-"
LOCK = ".alive"
"""A file in each folder that its owner holds locked; the kernel frees it when the owner dies."""


@contextlib.contextmanager
def scratch_folder(root: str, name: str) -> Iterator[Path]:
    """Make an empty folder below `root` for the block; remove those whose owners were killed."""
    sweep(root)
    # Named before it is made: a signal in between would leave a folder behind.
    folder = Path(root) / f"{PREFIX}{name}-{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700)
        with (folder / "locking").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # It gets its name when it is locked, so that no other process finds it unlocked.
            (folder / "locking").rename(folder / LOCK)
            inner = folder / "work"
            inner.mkdir()
            yield inner
    finally:
        # A child that is being killed may still hold a file open.
        shutil.rmtree(folder, ignore_errors=True)


def sweep(root: str) -> list[str]:
    """Remove scratch folders whose owner is dead; return their names."""
    swept = []
    for path in sorted(Path(root).glob(f"{PREFIX}*/{LOCK}")):
        # Another user's, or just removed by its owner.
        with contextlib.suppress(PermissionError, FileNotFoundError):
            number = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            finally:
                os.close(number)
            shutil.rmtree(path.parent, ignore_errors=True)
            swept.append(path.parent.name)
    return swept
