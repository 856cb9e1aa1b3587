"""Scratch folders, which the next process removes if their owner was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 - private folders are made in it
MIN_MEMORY_SCRATCH_BYTES = 6 << 30
"""Free memory with which scratch is in memory by default; a full-size MS and its averages fit."""
PREFIX = "contimg-"
LOCK = ".alive"
"""A file in each folder that its owner holds locked; the kernel frees it when the owner dies."""


def available_memory() -> int:
    """Return the memory that a new program could get, bytes: the machine's or its cgroup's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


@contextlib.contextmanager
def scratch_folder(env: Mapping[str, str], name: str) -> Iterator[Path]:
    """Make an empty folder for the block; remove those whose owners were killed.

    It lies below CONTIMG_SCRATCH, else in memory where there is plenty of it, else in the
    temporary folder.
    """
    root = Path(env.get("CONTIMG_SCRATCH") or tempfile.gettempdir())
    root.mkdir(parents=True, exist_ok=True)
    if not env.get("CONTIMG_SCRATCH") and SHM.is_dir() and os.access(SHM, os.W_OK):
        free = min(shutil.disk_usage(SHM).free, available_memory())
        root = SHM if free > MIN_MEMORY_SCRATCH_BYTES else root
    for path in root.glob(f"{PREFIX}*/{LOCK}"):
        # Another user's, still locked by its owner, or just removed.
        with contextlib.suppress(PermissionError, FileNotFoundError, BlockingIOError):
            with path.open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
    # Named before it is made: a signal in between would leave a folder behind.
    folder = root / f"{PREFIX}{name}-{secrets.token_hex(8)}"
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
