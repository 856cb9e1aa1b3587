"""Read a subband's header from the store by a few ranged reads, once per object."""

import io
import math
from datetime import datetime

import h5py
from pydantic import TypeAdapter, ValidationError

from contimg.records.groups import utc_of_jd
from contimg.runtime.errors import ContimgError, MissingError
from contimg.runtime.store import Entry, Store
from contimg_watch.plan import ListedSubband, SubbandHeader

BLOCK_BYTES = 1 << 18
"""Size of one ranged read; h5py asks for many small pieces that lie close together."""
TIMES, DEC = "Header/time_array", "Header/extra_keywords/phase_center_dec"
FIRST_JD, LAST_JD = 2440587.5, 2488069.5
"""1970 and 2100; h5py reads any number, but not every number is a date."""
CACHE_KEY = "watch/headers.json"
CACHE_FILE = TypeAdapter(list[ListedSubband])


class RangedFile(io.RawIOBase):
    """A read-only file over an object of a store, which fetches only the blocks that are read."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        super().__init__()
        self._store, self._key, self._size, self._at = store, key, size, 0
        self._blocks: dict[int, bytes] = {}
        self.failure: ContimgError | None = None
        """Why the store did not answer; h5py would report a broken file."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read as much as there is."""
        start, stop = self._at, min(self._at + len(buffer), self._size)
        while self._at < stop:
            number, offset = divmod(self._at, BLOCK_BYTES)
            if number not in self._blocks:
                first, end = number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES
                try:
                    block = self._store.read_range(self._key, first, min(end, self._size))
                except ContimgError as error:
                    self.failure = error
                    raise OSError(str(error)) from error
                self._blocks[number] = block
            piece = self._blocks[number][offset : offset + stop - self._at]
            if not piece:  # the object is shorter now
                break
            buffer[self._at - start : self._at - start + len(piece)] = piece
            self._at += len(piece)
        return self._at - start


def read_header(store: Store, key: str, size: int) -> tuple[SubbandHeader | None, str]:
    """Return a subband's header, or None and why not; ContimgError if the store does not answer."""
    raw = RangedFile(store, key, size)
    try:
        with h5py.File(raw, "r") as file:
            times = _read_numbers(file, TIMES, dimensions=1)
            # Rows of a UVH5 file are time-major: the first row is of the first integration.
            ends = [float(times[0]), float(times[-1])] if times.size else []
            dec_rad = float(_read_numbers(file, DEC, dimensions=0)[()]) if DEC in file else math.nan
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        if raw.failure is not None:
            raise raw.failure from error
        return None, " ".join(str(error).split())
    if not ends:
        return None, f"{TIMES} holds no time"
    first, last = ends
    if not FIRST_JD < first <= last < LAST_JD:  # a writer that was killed leaves zeros
        problem = f"{TIMES} goes from Julian date {first:.10g} to {last:.10g}"
        return None, f"{problem}, which is not an observation"
    dec_deg = round(math.degrees(dec_rad), 6) if math.isfinite(dec_rad) else None
    duration_s = round((last - first) * 86400, 3)
    return SubbandHeader(t0=utc_of_jd(first), duration_s=duration_s, dec_deg=dec_deg), ""


def _read_numbers(file: h5py.File, name: str, dimensions: int) -> h5py.Dataset:
    found = file[name]
    is_numeric = isinstance(found, h5py.Dataset) and found.dtype.kind in "fiu"
    if not is_numeric or found.ndim != dimensions:
        raise ValueError(f"{name} holds no {'numbers' if dimensions else 'number'}")
    return found


class HeaderCache:
    """The headers of a store's subbands, kept in the store; read again if an object changes."""

    def __init__(self, store: Store) -> None:
        self._store, self._changed = store, False
        try:
            found = CACHE_FILE.validate_json(store.read(CACHE_KEY))
        except (MissingError, ValidationError):  # a cache of another version is dropped
            found = []
        self._subbands = {one.key: one for one in found}

    def describe(self, entry: Entry, now: datetime) -> ListedSubband:
        """Return an object with its header, from the cache if the object has not changed."""
        found = self._subbands.get(entry.key)
        if found is None or found.entry != entry:
            header, problem = read_header(self._store, entry.key, entry.size)
            found = ListedSubband(**vars(entry), seen=now, header=header, problem=problem)
            self._subbands[entry.key] = found
            self._changed = True
        return found

    def save(self, listed: set[str] | None = None) -> None:
        """Write the cache if it changed, without objects that are gone; the last writer wins."""
        gone = self._subbands.keys() - listed if listed is not None else set()
        for key in gone:
            del self._subbands[key]
        if self._changed or gone:
            self._store.put(CACHE_KEY, CACHE_FILE.dump_json(list(self._subbands.values())))
            self._changed = False
