"""Read a subband's header from the store by a few ranged reads."""

import io
import math

import h5py

from contimg.records.groups import utc_of_jd
from contimg.runtime.errors import ContimgError
from contimg.runtime.store import Store
from contimg_watch.plan import SubbandHeader

BLOCK_BYTES = 1 << 18
"""Size of one ranged read; h5py asks for many small pieces that lie close together."""
TIMES, DEC = "Header/time_array", "Header/extra_keywords/phase_center_dec"
FIRST_JD, LAST_JD = 2440587.5, 2488069.5
"""1970 and 2100; h5py reads any number, but not every number is a date."""


class RangedFile(io.RawIOBase):
    """A read-only file over an object of a store, which fetches only the blocks that are read."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        super().__init__()
        self._store, self._key, self._size = store, key, size
        self._blocks: dict[int, bytes] = {}
        self._at = 0
        self.failure: ContimgError | None = None
        """Why the store did not answer; h5py would report a broken file."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to the end of the block."""
        if self._at >= self._size:
            return 0
        number, offset = divmod(self._at, BLOCK_BYTES)
        if number not in self._blocks:
            start = number * BLOCK_BYTES
            stop = min(start + BLOCK_BYTES, self._size)
            try:
                self._blocks[number] = self._store.read_range(self._key, start, stop)
            except ContimgError as error:
                self.failure = error
                raise OSError(str(error)) from error
        piece = self._blocks[number][offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def read_header(store: Store, key: str, size: int) -> tuple[SubbandHeader | None, str]:
    """Return the times and the Declination of a subband; or None and why its header cannot be read.

    Raises
    ------
    ContimgError
        If the store does not answer.
    """
    raw = RangedFile(store, key, size)
    try:
        with h5py.File(io.BufferedReader(raw, BLOCK_BYTES), "r") as file:
            return _parse_header(file), ""
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        if raw.failure is not None:
            raise raw.failure from error
        return None, " ".join(str(error).split())


def _parse_header(file: h5py.File) -> SubbandHeader:
    times = _read_numbers(file, TIMES, dimensions=1)
    if times.size == 0:
        raise ValueError(f"{TIMES} holds no time")
    # Rows of a UVH5 file are time-major: the first row is of the first integration.
    first, last = float(times[0]), float(times[-1])
    if not FIRST_JD < first <= last < LAST_JD:  # a writer that was killed leaves zeros
        problem = f"{TIMES} goes from Julian date {first:.10g} to {last:.10g}"
        raise ValueError(f"{problem}, which is not an observation")
    dec_rad = float(_read_numbers(file, DEC, dimensions=0)[()]) if DEC in file else math.nan
    return SubbandHeader(
        t0=utc_of_jd(first),
        duration_s=round((last - first) * 86400, 3),
        dec_deg=round(math.degrees(dec_rad), 6) if math.isfinite(dec_rad) else None,
    )


def _read_numbers(file: h5py.File, name: str, dimensions: int) -> h5py.Dataset:
    found = file[name]
    is_numeric = isinstance(found, h5py.Dataset) and found.dtype.kind in "fiu"
    if not is_numeric or found.ndim != dimensions:
        raise ValueError(f"{name} holds no {'numbers' if dimensions else 'number'}")
    return found
