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
def opened(path: Path, dtype: str = "<c8") -> Iterator[Dataset]:
    with h5py.File(path) as file, path.open("rb") as stream:
        yield Dataset("a.hdf5", file["visdata"], stream.fileno(), dtype)


def gathered(dataset: Dataset, first: int, last: int, dtype: str = "<c8") -> np.ndarray:
    """Put a block's chunks together, slowly and simply."""
    buffer, offsets, origins, shape = dataset.block(first, last, Workspace())
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    out = np.full((ROWS, CHANNELS, POLS), np.nan, dtype)
    for offset, origin in zip(offsets, origins, strict=True):
        chunk = buffer[offset : offset + size].view(dtype).reshape(shape)
        target = tuple(
            slice(start, start + length) for start, length in zip(origin, shape, strict=True)
        )
        inside = tuple(
            slice(0, part.stop - part.start)
            for part in (slice(*axis.indices(n)) for axis, n in zip(target, out.shape, strict=True))
        )
        out[target] = chunk[inside]
    return out[first:last]


def whole(file: h5py.File, **how: Any) -> None:
    file.create_dataset("visdata", data=values(), **how)


def appended(file: h5py.File) -> None:
    """As the correlator does: grown integration by integration, in turn with another dataset."""
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
    "contiguous": whole,
    "without the spectral window's axis": lambda file: (
        file.create_dataset("visdata", data=values()[:, 0], chunks=(16, 4, 1)).id
    ),
    "appended": appended,
    "backwards": backwards,
}
DECODED: dict[str, Callable[[h5py.File], None]] = {
    "gzip": lambda file: whole(file, chunks=(16, 1, 3, 1), compression="gzip"),
    "shuffled with checksums": lambda file: whole(
        file, chunks=(16, 1, 3, 1), shuffle=True, fletcher32=True
    ),
    "double": lambda file: (
        file.create_dataset(
            "visdata", data=values("<c16").astype("<c8").astype("<c16"), chunks=(16, 1, 3, 1)
        ).id
    ),
    "big-endian": lambda file: (
        file.create_dataset("visdata", data=values(">c8"), chunks=(16, 1, 3, 1)).id
    ),
}


@pytest.mark.parametrize("way", [*RAW, *DECODED])
@pytest.mark.parametrize("rows", [(0, ROWS), (0, 1), (33, 58), (96, ROWS)], ids=str)
def test_a_block_is_what_h5py_reads(tmp_path: Path, way: str, rows: tuple[int, int]) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        (RAW | DECODED)[way](file)
    with opened(tmp_path / "a.hdf5") as dataset:
        assert dataset.raw == (way in RAW)
        np.testing.assert_array_equal(gathered(dataset, *rows), values()[slice(*rows), 0])


def test_what_was_never_written_is_zero(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("visdata", SHAPE, "<c8", chunks=(16, 1, 5, 2))[:16] = values()[:16]
    with opened(tmp_path / "a.hdf5") as dataset:
        assert not dataset.raw
        found = gathered(dataset, 0, ROWS)
    np.testing.assert_array_equal(found[:16], values()[:16, 0])
    assert not found[16:].any()


def test_integers_of_older_writers_are_read(tmp_path: Path) -> None:
    pairs = np.zeros(SHAPE, [("r", "<i4"), ("i", "<i4")])
    pairs["r"], pairs["i"] = np.arange(pairs.size).reshape(SHAPE), 3
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("visdata", data=pairs, chunks=(16, 1, 3, 1))
    with opened(tmp_path / "a.hdf5") as dataset:
        np.testing.assert_array_equal(gathered(dataset, 10, 40), (pairs["r"] + 3j)[10:40, 0])


def test_flags_are_bytes(tmp_path: Path) -> None:
    flags = values().real > 0
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("visdata", data=flags, chunks=(16, 1, 3, 1))
    with opened(tmp_path / "a.hdf5", "bool") as dataset:
        assert dataset.raw
        np.testing.assert_array_equal(gathered(dataset, 10, 40, "bool"), flags[10:40, 0])


def test_a_buffer_holds_nothing_but_the_chunks(tmp_path: Path) -> None:
    """So that `any` and `min` over it mean something: B-trees and other datasets lie between the chunks."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        appended(file)
    with opened(tmp_path / "a.hdf5") as dataset:
        space = Workspace()
        space.bytes(1 << 20)[:] = 255
        buffer, offsets, _, shape = dataset.block(25, 50, space)
    assert buffer.size == offsets.size * np.prod(shape) * 8


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    """It may be cut after it was opened."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        whole(file, chunks=(16, 1, 3, 1))
    with opened(path) as dataset:
        with path.open("r+b") as stream:
            stream.truncate(6000)
        with pytest.raises(BadFileError, match=r"a\.hdf5: expected at least \d+ bytes, found 6000"):
            dataset.block(0, ROWS, Workspace())


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        whole(file, chunks=(101, 1, 10, 2), fletcher32=True)
        offset = file["visdata"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as stream:
        stream.seek(offset + 100)
        stream.write(b"damage")
    with opened(path) as dataset, pytest.raises(BadFileError, match="readable HDF5 chunks"):
        dataset.block(0, ROWS, Workspace())
