"""HDF5 datasets read as the raw chunks of the file, without the copy through HDF5's own cache.

Datasets that are compressed, contiguous, of another type or not fully allocated are read by h5py
and handed on as one chunk.
"""

from __future__ import annotations

import os

import h5py
import numpy as np
import numpy.typing as npt

from contimg.runtime.errors import BadFileError, StoreError
from contimg_convert.kernels import AnyArray, Chunks

RECOPY_REMEDY = "Copy the subband again from the telescope's disk."


class Workspace:
    """Buffers that one thread reads into again and again, so that they stay in the CPU cache."""

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, use: str, shape: tuple[int, ...], dtype: str) -> AnyArray:
        """Return an uninitialised array; it is valid until the next call for the same `use`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if use not in self._buffers or self._buffers[use].size < size:
            self._buffers[use] = np.empty(size, np.uint8)
        return self._buffers[use][:size].view(dtype).reshape(shape)


class Dataset:
    """A dataset of shape (rows, [1,] channels, polarizations), read block by block."""

    def __init__(self, uri: str, dataset: h5py.Dataset, descriptor: int, dtype: str) -> None:
        self.uri = uri
        self.shape = (dataset.shape[0], dataset.shape[-2], dataset.shape[-1])
        self.raw = False
        """Whether the bytes of the file are the values, and all its chunks are allocated."""
        self._dataset, self._descriptor, self._dtype = dataset, descriptor, np.dtype(dtype)
        chunks, filters = dataset.chunks, dataset.id.get_create_plist().get_nfilters()
        if not chunks or dataset.dtype != self._dtype or filters:
            return
        self._chunk_shape = (chunks[0], chunks[-2], chunks[-1])
        found: list[tuple[int, ...]] = []
        dataset.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, *chunk.chunk_offset)))
        counts = [-(-n // part) for n, part in zip(self.shape, self._chunk_shape, strict=True)]
        if len(found) == np.prod(counts):
            self.raw, table = True, np.array(sorted(found), np.int64)  # in the order of the file
            self._offsets = table[:, 0].copy()
            self._origins = np.ascontiguousarray(table[:, [1, -2, -1]])

    def read_block(self, first: int, last: int, space: Workspace) -> Chunks:
        """Return the chunks that hold the rows `first` to `last` - 1.

        They are valid until `space` is used again.

        Raises BadFileError if the file ends before them, or HDF5 cannot decode them; StoreError if
        the file cannot be read.
        """
        if self.raw:
            start = self._origins[:, 0]
            inside = (start < last) & (start + self._chunk_shape[0] > first)
            buffer, offsets = self._read_chunks(self._offsets[inside], space)
            return buffer, offsets, self._origins[inside], self._chunk_shape
        try:
            values: AnyArray = self._dataset[first:last]
        except (OSError, RuntimeError) as error:
            problem, remedy = f"HDF5 cannot decode the data: {error!s}.", RECOPY_REMEDY
            filters = self._dataset.id.get_create_plist()
            found = [filters.get_filter(n) for n in range(filters.get_nfilters())]
            names = [f"{name.decode()} ({code})" for code, _, _, name in found]
            if any(not h5py.h5z.filter_avail(code) for code, *_ in found):
                problem = (
                    f"The data are compressed with {', '.join(names)}, which is not installed."
                )
                remedy = "Install the HDF5 plugin (HDF5_PLUGIN_PATH), or write gzip or LZF."
            raise BadFileError(self.uri, problem, remedy) from error
        if values.dtype.names == ("r", "i"):  # integers of older writers
            values = values["r"] + 1j * values["i"]
        buffer = np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8)
        shape = (last - first, *self.shape[1:])
        return buffer, np.zeros(1, np.int64), np.array([[first, 0, 0]]), shape

    def assemble(self, chunks: Chunks, first: int, last: int) -> AnyArray:
        """Return the rows of chunks that `read_block` read, shape (rows, channels, pols)."""
        buffer, offsets, origins, shape = chunks
        size = int(np.prod(shape)) * self._dtype.itemsize
        out = np.empty((last - first, *self.shape[1:]), self._dtype)
        for offset, (row, channel, pol) in zip(offsets.tolist(), origins.tolist(), strict=True):
            part = buffer[offset : offset + size].view(self._dtype).reshape(shape)
            start, skip = max(row - first, 0), max(first - row, 0)
            target = out[start : row - first + shape[0], channel:, pol:][:, : shape[1], : shape[2]]
            target[:] = part[skip : skip + len(target), : target.shape[1], : target.shape[2]]
        return out

    def _read_chunks(
        self, offsets: npt.NDArray[np.int64], space: Workspace
    ) -> tuple[AnyArray, npt.NDArray[np.int64]]:
        """Read chunks, adjacent ones together; return their bytes and where in them each begins."""
        size = int(np.prod(self._chunk_shape)) * self._dtype.itemsize
        first = np.flatnonzero(np.diff(offsets, prepend=-2 * size) != size)
        last = np.append(first[1:], offsets.size) - 1
        starts, lengths = offsets[first], offsets[last] + size - offsets[first]
        places = np.cumsum(lengths) - lengths
        buffer = space.array("chunks", (int(lengths.sum()),), "u1")
        view = memoryview(buffer)  # type: ignore[arg-type]
        for start, length, place in np.stack([starts, lengths, places], axis=1).tolist():
            into, done = view[place : place + length], 0
            while done < length:
                try:
                    count = os.preadv(self._descriptor, [into[done:]], start + done)
                except OSError as error:
                    problem = f"The file cannot be read: {error!s}."
                    remedy = "Check the disk and its mounts."
                    raise StoreError(self.uri, problem, remedy) from error
                if count == 0:
                    size, end = os.fstat(self._descriptor).st_size, start + length
                    problem = f"The file ends after {size} bytes, but has data at {end}."
                    raise BadFileError(self.uri, problem, RECOPY_REMEDY)
                done += count
        return buffer, offsets + np.repeat(places - starts, last - first + 1)
