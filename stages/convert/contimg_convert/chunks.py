"""Datasets read as the chunks that lie in the file: one copy from the page cache, no copy through HDF5's own.

What is compressed, converted or not allocated is read by h5py instead and handed on as one chunk.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from contimg.runtime.errors import BadFileError, StoreError

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_convert.kernels import Chunks


class Workspace:
    """Memory that one thread reads into again and again: it stays in the processor's cache."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)
        self._floats = np.empty(0, np.float32)

    def bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """Return `count` bytes, of any content."""
        if self._bytes.size < count:
            self._bytes = np.empty(count, np.uint8)
        return self._bytes[:count]

    def floats(self, *shape: int) -> npt.NDArray[np.float32]:
        """Return an array of any content."""
        count = int(np.prod(shape))
        if self._floats.size < count:
            self._floats = np.empty(count, np.float32)
        return self._floats[:count].reshape(shape)


class Dataset:
    """Rows of one dataset of shape (rows, [1,] channels, polarizations), read block by block."""

    def __init__(self, name: str, dataset: h5py.Dataset, descriptor: int, dtype: str) -> None:
        self.name = name
        self._dataset, self._descriptor, self._dtype = dataset, descriptor, np.dtype(dtype)
        self.rows, self.channels, self.polarizations = (
            dataset.shape[0],
            dataset.shape[-2],
            dataset.shape[-1],
        )
        self._shape, self._offsets, self._origins = self._map()

    @property
    def whole(self) -> tuple[int, int, int]:
        """Rows, channels and polarizations."""
        return self.rows, self.channels, self.polarizations

    @property
    def raw(self) -> bool:
        """Whether the file's bytes are the values."""
        return self._offsets.size > 0

    def block(self, first: int, last: int, space: Workspace) -> Chunks:
        """Return the chunks that hold the rows from `first` to before `last`; they are valid until `space` is used again.

        Raises
        ------
        BadFileError
            If the file ends before them, or HDF5 cannot decode them.
        """
        if not self.raw:
            return self._decoded(first, last)
        inside = (self._origins[:, 0] < last) & (self._origins[:, 0] + self._shape[0] > first)
        buffer, offsets = self._read_runs(self._offsets[inside], space)
        return buffer, offsets, self._origins[inside], self._shape

    def _map(self) -> tuple[tuple[int, int, int], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Find the shape of a chunk, and offset and origin of each in the order of the file; none if they cannot be read raw."""
        dataset, none = self._dataset, (np.empty(0, np.int64), np.empty((0, 3), np.int64))
        whole = self.whole
        if dataset.dtype != self._dtype or dataset.id.get_create_plist().get_nfilters():
            return whole, *none
        if dataset.chunks is None:
            offset = dataset.id.get_offset()
            return (whole, *none) if offset is None else self._contiguous(offset)
        shape = (dataset.chunks[0], dataset.chunks[-2], dataset.chunks[-1])
        found: list[tuple[int, ...]] = []
        dataset.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, *chunk.chunk_offset)))
        if len(found) != np.prod(
            [-(-size // part) for size, part in zip(whole, shape, strict=True)]
        ):
            return whole, *none
        table = np.array(sorted(found), np.int64)
        return shape, table[:, 0].copy(), np.ascontiguousarray(table[:, [1, -2, -1]])

    def _contiguous(
        self, offset: int
    ) -> tuple[tuple[int, int, int], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cut a dataset without chunks into rows."""
        row = (1, self.channels, self.polarizations)
        number = np.arange(self.rows, dtype=np.int64)
        return (
            row,
            offset + number * int(np.prod(row)) * self._dtype.itemsize,
            number[:, None] * np.array([1, 0, 0]),
        )

    def _read_runs(
        self, offsets: npt.NDArray[np.int64], space: Workspace
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Read chunks, those that adjoin at once; return their bytes, nothing else, and where in them each chunk begins."""
        size = int(np.prod(self._shape)) * self._dtype.itemsize
        first = np.flatnonzero(np.diff(offsets, prepend=-2 * size) != size)
        last = np.append(first[1:], offsets.size) - 1
        starts, lengths = offsets[first], offsets[last] + size - offsets[first]
        places = np.cumsum(lengths) - lengths
        buffer = space.bytes(int(lengths.sum()))
        view = memoryview(buffer)  # type: ignore[arg-type]
        for start, length, place in zip(
            starts.tolist(), lengths.tolist(), places.tolist(), strict=True
        ):
            self._read(view[place : place + length], start)
        return buffer, offsets + np.repeat(places - starts, last - first + 1)

    def _read(self, into: memoryview, offset: int) -> None:
        done = 0
        while done < len(into):
            try:
                count = os.preadv(self._descriptor, [into[done:]], offset + done)
            except OSError as error:
                raise StoreError(
                    self.name,
                    f"expected a readable file, found {error!s}.",
                    "Check the disk and its mounts.",
                ) from error
            if count == 0:
                size = os.fstat(self._descriptor).st_size
                remedy = "Copy the subband again from the telescope's disk."
                raise BadFileError(
                    self.name,
                    f"expected at least {offset + len(into)} bytes, found {size}.",
                    remedy,
                )
            done += count

    def _decoded(self, first: int, last: int) -> Chunks:
        try:
            values: npt.NDArray[Any] = self._dataset[first:last]
        except (OSError, RuntimeError) as error:
            remedy = "Copy the subband again from the telescope's disk."
            raise BadFileError(
                self.name, f"expected readable HDF5 chunks, found {error!s}.", remedy
            ) from error
        if values.dtype.names == ("r", "i"):  # integers of older writers
            values = values["r"] + 1j * values["i"]
        values = np.ascontiguousarray(values, self._dtype)
        shape = (last - first, self.channels, self.polarizations)
        return (
            values.reshape(-1).view(np.uint8),
            np.zeros(1, np.int64),
            np.array([[first, 0, 0]]),
            shape,
        )
