"""Chunks read raw hold what h5py reads, however the file was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from contimg.runtime.errors import BadFileError
from contimg_convert.chunks import Dataset, Workspace

ROWS, CHANNELS, POLS = 101, 10, 2
SHAPE = (ROWS, 1, CHANNELS, POLS)


def values(dtype: str = "<c8") -> np.ndarray:
    rng = np.random.default_rng(4)
    return (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)).astype(dtype)


@contextmanager
def open_dataset(path: Path, dtype: str = "<c8") -> Iterator[Dataset]:
    with h5py.File(path) as file, path.open("rb") as stream:
        yield Dataset("a.hdf5", file["visdata"], stream.fileno(), dtype)


def read(dataset: Dataset, first: int = 10, last: int = 40) -> np.ndarray:
    return dataset.assemble(dataset.read_block(first, last, Workspace()), first, last)


def place_slowly(dataset: Dataset, first: int, last: int) -> np.ndarray:
    """Put the chunks of a block into an array element by element."""
    buffer, offsets, origins, shape = dataset.read_block(first, last, Workspace())
    out = np.full((ROWS, CHANNELS, POLS), np.nan, "<c8")
    for offset, origin in zip(offsets, origins, strict=True):
        chunk = buffer[offset : offset + int(np.prod(shape)) * 8].view("<c8").reshape(shape)
        for place in np.ndindex(shape):
            target = tuple(np.add(origin, place))
            if all(np.less(target, out.shape)):
                out[target] = chunk[place]
    return out[first:last]


def whole(file: h5py.File, **how: Any) -> None:
    file.create_dataset("visdata", data=values(), **how)


def appended(file: h5py.File) -> None:
    """Grow by integrations, in turn with another dataset, as the correlator does."""
    made = [
        file.create_dataset(
            name, (0, *SHAPE[1:]), "<c8", maxshape=(None, *SHAPE[1:]), chunks=(8, 1, 4, 1)
        )
        for name in ("visdata", "other")
    ]
    for first in range(0, ROWS, 25):
        last = min(first + 25, ROWS)
        for dataset in made:
            dataset.resize(last, axis=0)
            dataset[first:last] = values()[first:last]


def backwards(file: h5py.File) -> None:
    dataset = file.create_dataset("visdata", SHAPE, "<c8", chunks=(16, 1, 5, 2))
    for first in range(96, -1, -16):
        dataset[first : first + 16] = values()[first : first + 16]


RAW: dict[str, Callable[[h5py.File], None]] = {
    "chunks as the telescope's": lambda file: whole(file, chunks=(16, 1, 3, 1)),
    "chunks of all polarizations": lambda file: whole(file, chunks=(7, 1, 4, 2)),
    "one chunk": lambda file: whole(file, chunks=SHAPE),
    "without the axis of spectral windows": lambda file: (
        file.create_dataset("visdata", data=values()[:, 0], chunks=(16, 4, 1)).id
    ),
    "appended": appended,
    "backwards": backwards,
}
DECODED: dict[str, Callable[[h5py.File], None]] = {
    "contiguous": whole,
    "gzip": lambda file: whole(file, chunks=(16, 1, 3, 1), compression="gzip"),
    "shuffled with checksums": lambda file: whole(
        file, chunks=(16, 1, 3, 1), shuffle=True, fletcher32=True
    ),
    "double": lambda file: whole(file, dtype="<c16", chunks=(16, 1, 3, 1)),
    "big-endian": lambda file: whole(file, dtype=">c8", chunks=(16, 1, 3, 1)),
}


@pytest.mark.parametrize("way", [*RAW, *DECODED])
@pytest.mark.parametrize("rows", [(0, ROWS), (0, 1), (33, 58), (96, ROWS)], ids=str)
def test_block_equals_what_h5py_reads(tmp_path: Path, way: str, rows: tuple[int, int]) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        (RAW | DECODED)[way](file)
    with open_dataset(tmp_path / "a.hdf5") as dataset:
        assert dataset.raw == (way in RAW)
        expected = values()[slice(*rows), 0]
        np.testing.assert_array_equal(place_slowly(dataset, *rows), expected)
        np.testing.assert_array_equal(read(dataset, *rows), expected)


def test_unwritten_chunks_are_zero(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("visdata", SHAPE, "<c8", chunks=(16, 1, 5, 2))[:16] = values()[:16]
    with open_dataset(tmp_path / "a.hdf5") as dataset:
        assert not dataset.raw
        found = read(dataset, 0, ROWS)
    np.testing.assert_array_equal(found[:16], values()[:16, 0])
    assert not found[16:].any()


def test_integers_of_older_writers_are_read(tmp_path: Path) -> None:
    pairs = np.zeros(SHAPE, [("r", "<i4"), ("i", "<i4")])
    pairs["r"], pairs["i"] = np.arange(pairs.size).reshape(SHAPE), 3
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("visdata", data=pairs, chunks=(16, 1, 3, 1))
    with open_dataset(tmp_path / "a.hdf5") as dataset:
        np.testing.assert_array_equal(read(dataset), (pairs["r"] + 3j)[10:40, 0])


def test_flags_are_bytes(tmp_path: Path) -> None:
    flags = values().real > 0
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("visdata", data=flags, chunks=(16, 1, 3, 1))
    with open_dataset(tmp_path / "a.hdf5", "bool") as dataset:
        assert dataset.raw
        np.testing.assert_array_equal(read(dataset), flags[10:40, 0])


def test_buffer_holds_chunks_alone(tmp_path: Path) -> None:
    """`any` and `min` over it rely on that; B-trees and other datasets lie between the chunks."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        appended(file)
    with open_dataset(tmp_path / "a.hdf5") as dataset:
        space = Workspace()
        space.array("chunks", (1 << 20,), "u1")[:] = 255
        buffer, offsets, _, shape = dataset.read_block(25, 50, space)
    assert buffer.size == offsets.size * np.prod(shape) * 8


def test_file_cut_after_opening_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        whole(file, chunks=(16, 1, 3, 1))
    with open_dataset(path) as dataset:
        with path.open("r+b") as stream:
            stream.truncate(6000)
        with pytest.raises(BadFileError, match=r"a\.hdf5: The file ends after 6000 bytes"):
            dataset.read_block(0, ROWS, Workspace())


def test_damaged_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        whole(file, chunks=(101, 1, 10, 2), fletcher32=True)
        offset = file["visdata"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as stream:
        stream.seek(offset + 100)
        stream.write(b"damage")
    with open_dataset(path) as dataset, pytest.raises(BadFileError, match="HDF5 cannot decode"):
        dataset.read_block(0, ROWS, Workspace())
