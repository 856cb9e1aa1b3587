"""Read a subband's header where it lies, by a few ranged reads."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import h5py

from contimg.records.groups import utc_of_jd
from contimg.runtime.errors import ContimgError
from contimg_watch.plan import Header

if TYPE_CHECKING:
    from contimg.runtime.store import Store

BLOCK = 1 << 18
"""Bytes of one ranged read; h5py asks for many small pieces that lie close together."""
TIMES, DEC = "Header/time_array", "Header/extra_keywords/phase_center_dec"
FIRST_JD, LAST_JD = 2440587.5, 2488069.5
"""1970 and 2100; h5py reads any number, but not every number is a date."""


class RangedFile(io.RawIOBase):
    """A read-only file over an object of a store, which fetches only the blocks that are looked at."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        super().__init__()
        self._store, self._key, self._size = store, key, size
        self._blocks: dict[int, bytes] = {}
        self._at = 0
        self.failure: ContimgError | None = None
        """Why the store did not answer; h5py would turn it into words about a broken file."""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to the end of the block."""
        if self._at >= self._size:
            return 0
        number, offset = divmod(self._at, BLOCK)
        piece = self._block(number)[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            try:
                start = number * BLOCK
                self._blocks[number] = self._store.read_range(
                    self._key, start, min(start + BLOCK, self._size)
                )
            except ContimgError as error:
                self.failure = error
                raise OSError(str(error)) from error
        return self._blocks[number]


def read_header(store: Store, key: str, size: int) -> tuple[Header | None, str]:
    """Read the times and the Declination of a subband; or say why that cannot be done.

    Raises
    ------
    ContimgError
        If the store, not the object, is to blame.
    """
    raw = RangedFile(store, key, size)
    try:
        with h5py.File(io.BufferedReader(raw, BLOCK), "r") as file:
            return _header(file), ""
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        if raw.failure is not None:
            raise raw.failure from error
        return None, " ".join(str(error).split())


def _header(file: h5py.File) -> Header:
    # Rows of a UVH5 file are time-major, so the first is the first integration and the last the last.
    times = _numbers(file, TIMES, dimensions=1)
    if times.size == 0:
        raise ValueError(f"{TIMES} holds no time")
    first, last = float(times[0]), float(times[-1])
    # Zeros are what a writer that was killed leaves behind.
    if not FIRST_JD < first <= last < LAST_JD:
        raise ValueError(
            f"{TIMES} goes from Julian date {first:.10g} to {last:.10g}, which is no observation"
        )
    dec_rad = float(_numbers(file, DEC, dimensions=0)[()]) if DEC in file else math.nan
    return Header(utc_of_jd(first), round((last - first) * 86400, 3), _degrees(dec_rad))


def _numbers(file: h5py.File, name: str, dimensions: int) -> h5py.Dataset:
    found = file[name]
    if (
        not isinstance(found, h5py.Dataset)
        or found.ndim != dimensions
        or found.dtype.kind not in "fiu"
    ):
        raise ValueError(f"{name} holds no {'numbers' if dimensions else 'number'}")
    return found


def _degrees(rad: float) -> float | None:
    return round(math.degrees(rad), 6) if math.isfinite(rad) else None
