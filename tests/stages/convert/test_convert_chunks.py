"""Chunks read raw hold what h5py reads, and the compiled loops over them do what numpy does."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.runtime.errors import BadFileError
from contimg_convert import kernels
from contimg_convert.chunks import Dataset, Workspace

ROWS, CHANNELS, POLS = 101, 10, 2
SHAPE = (ROWS, 1, CHANNELS, POLS)
TILES = (16, 1, 3, 1)


def values() -> np.ndarray:
    rng = np.random.default_rng(4)
    return (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)).astype("<c8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.hdf5"


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


def whole(path: Path, data: np.ndarray | None = None, **how: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("visdata", data=values() if data is None else data, **how)


def appended(path: Path) -> None:
    """Grow by integrations, in turn with another dataset, as the correlator does."""
    how = {"maxshape": (None, *SHAPE[1:]), "chunks": (8, 1, 4, 1)}
    with h5py.File(path, "w") as file:
        names = ("visdata", "other")
        made = [file.create_dataset(name, (0, *SHAPE[1:]), "<c8", **how) for name in names]
        for first in range(0, ROWS, 25):
            last = min(first + 25, ROWS)
            for dataset in made:
                dataset.resize(last, axis=0)
                dataset[first:last] = values()[first:last]


def backwards(path: Path) -> None:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("visdata", SHAPE, "<c8", chunks=(16, 1, 5, 2))
        for first in range(96, -1, -16):
            dataset[first : first + 16] = values()[first : first + 16]


RAW: dict[str, Callable[[Path], None]] = {
    "chunks as the telescope's": lambda path: whole(path, chunks=TILES),
    "chunks of all polarizations": lambda path: whole(path, chunks=(7, 1, 4, 2)),
    "one chunk": lambda path: whole(path, chunks=SHAPE),
    "without the window axis": lambda path: whole(path, values()[:, 0], chunks=(16, 4, 1)),
    "appended": appended,
    "backwards": backwards,
}
DECODED: dict[str, Callable[[Path], None]] = {
    "contiguous": whole,
    "gzip": lambda path: whole(path, chunks=TILES, compression="gzip"),
    "shuffled": lambda path: whole(path, chunks=TILES, shuffle=True, fletcher32=True),
    "double": lambda path: whole(path, dtype="<c16", chunks=TILES),
    "big-endian": lambda path: whole(path, dtype=">c8", chunks=TILES),
}


@pytest.mark.parametrize("way", [*RAW, *DECODED])
@pytest.mark.parametrize("rows", [(0, ROWS), (0, 1), (33, 58), (96, ROWS)], ids=str)
def test_block_equals_what_h5py_reads(path: Path, way: str, rows: tuple[int, int]) -> None:
    (RAW | DECODED)[way](path)
    with open_dataset(path) as dataset:
        assert dataset.raw == (way in RAW)
        expected = values()[slice(*rows), 0]
        np.testing.assert_array_equal(place_slowly(dataset, *rows), expected)
        np.testing.assert_array_equal(read(dataset, *rows), expected)


def test_unwritten_chunks_are_zero(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("visdata", SHAPE, "<c8", chunks=(16, 1, 5, 2))[:16] = values()[:16]
    with open_dataset(path) as dataset:
        assert not dataset.raw
        found = read(dataset, 0, ROWS)
    np.testing.assert_array_equal(found[:16], values()[:16, 0])
    assert not found[16:].any()


def test_integers_of_older_writers_are_read(path: Path) -> None:
    pairs = np.zeros(SHAPE, [("r", "<i4"), ("i", "<i4")])
    pairs["r"], pairs["i"] = np.arange(pairs.size).reshape(SHAPE), 3
    whole(path, pairs, chunks=TILES)
    with open_dataset(path) as dataset:
        np.testing.assert_array_equal(read(dataset), (pairs["r"] + 3j)[10:40, 0])


def test_flags_are_bytes(path: Path) -> None:
    flags = values().real > 0
    whole(path, flags, chunks=TILES)
    with open_dataset(path, "bool") as dataset:
        assert dataset.raw
        np.testing.assert_array_equal(read(dataset), flags[10:40, 0])


def test_buffer_holds_chunks_alone(path: Path) -> None:
    """`any` and `min` over it rely on that; B-trees and other datasets lie between the chunks."""
    appended(path)
    with open_dataset(path) as dataset:
        space = Workspace()
        space.array("chunks", (1 << 20,), "u1")[:] = 255
        buffer, offsets, _, shape = dataset.read_block(25, 50, space)
    assert buffer.size == offsets.size * np.prod(shape) * 8


def test_file_cut_after_opening_is_refused(path: Path) -> None:
    whole(path, chunks=TILES)
    with open_dataset(path) as dataset:
        os.truncate(path, 6000)
        with pytest.raises(BadFileError, match=r"a\.hdf5: The file ends after 6000 bytes"):
            dataset.read_block(0, ROWS, Workspace())


def test_damaged_chunk_is_refused(path: Path) -> None:
    whole(path, chunks=SHAPE, fletcher32=True)
    with h5py.File(path) as file:
        offset = file["visdata"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as stream:
        stream.seek(offset + 100)
        stream.write(b"damage")
    with open_dataset(path) as dataset, pytest.raises(BadFileError, match="HDF5 cannot decode"):
        dataset.read_block(0, ROWS, Workspace())


BAND = 40
"""Channels of the output."""


def cut(values: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> kernels.Chunks:
    """Cut values (rows, channels, polarizations) into whole chunks, also at the edges."""
    counts = [-(-size // part) for size, part in zip(values.shape, shape, strict=True)]
    padded = np.zeros(np.multiply(counts, shape), values.dtype)
    padded[tuple(slice(size) for size in values.shape)] = values
    origins = np.array([np.multiply(index, shape) for index in np.ndindex(*counts)], np.int64)
    rng.shuffle(origins)
    parts = [
        padded[tuple(slice(a, a + n) for a, n in zip(origin, shape, strict=True))].ravel()
        for origin in origins
    ]
    offsets = np.arange(len(parts), dtype=np.int64) * parts[0].nbytes
    return np.concatenate(parts).view(np.uint8), offsets, origins, shape


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 2)),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 12)),
    earlier=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_rotate_places_every_visibility(
    shape: tuple[int, int, int], sizes: tuple[int, int, int], earlier: int, seed: int
) -> None:
    baselines, integrations, channels = sizes
    rng, first, top = np.random.default_rng(seed), earlier * baselines, BAND - 3
    rows = first + integrations * baselines
    numbers = rng.normal(size=(rows, channels, 2, 2)) * 10
    values = numbers.astype(np.float32).view(np.complex64)[..., 0]
    kind = rng.random(values.shape)
    values[kind < 0.1], values[kind > 0.95] = 0, complex(np.inf, np.nan)
    conjugate, auto = rng.integers(0, 2, (2, baselines))
    places = np.stack([rng.permutation(baselines), conjugate, auto], axis=1)
    phase = rng.uniform(-np.pi, np.pi, (integrations * baselines, channels))
    turned = np.stack([np.cos(phase), np.sin(phase)], axis=-1).astype(np.float32)
    out = np.full((len(phase), BAND, 2), 7j, np.complex64)
    flags, tally = np.zeros(out.shape, bool), np.zeros(kernels.TALLIES, np.int64)
    chunks, target = cut(values, shape, rng), (out.view(np.float32), flags)
    span = channels, top
    kernels.rotate_visibilities(chunks, (first, rows), places, span, turned, target, tally)
    block = values[first:]
    with np.errstate(invalid="ignore"):
        expected = block * np.exp(1j * phase)[..., None]
    conjugate, cross = (np.tile(one == 1, integrations) for one in (conjugate, 1 - auto))
    expected[conjugate] = expected[conjugate].conj()
    bad = ~np.isfinite(block)
    expected[bad] = 0
    order = (np.arange(integrations)[:, None] * baselines + places[:, 0]).ravel()
    mine = slice(top - channels + 1, top + 1)
    np.testing.assert_allclose(out[order, mine][:, ::-1], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(flags[order, mine][:, ::-1], bad)
    assert np.all(np.delete(out, mine, axis=1) == 7j)
    counted = [int((block == 0)[cross].sum()), int(bad.sum()), int(cross.sum()) * channels * 2]
    assert tally.tolist() == counted


def test_phasors_follow_path_of_each_baseline() -> None:
    rng = np.random.default_rng(5)
    paths, frequencies = rng.uniform(-30, 30, (2, 6)), 1.49e9 - 244140.625 * np.arange(48)
    pairs = np.array([(a, b) for a in range(6) for b in range(6)])
    turns = -2j * np.pi / SPEED_OF_LIGHT_M_S * paths
    out = np.empty((2 * len(pairs), 48, 2), np.float32)
    first, step = (np.exp(turns * hz) for hz in (frequencies[0], frequencies[1] - frequencies[0]))
    kernels.fill_phasors(first, step, pairs, out)
    difference = (paths[:, pairs[:, 1]] - paths[:, pairs[:, 0]]).ravel()
    expected = np.exp(-2j * np.pi / SPEED_OF_LIGHT_M_S * difference[:, None] * frequencies)
    # One rounding to float32; the recurrence over 48 channels adds 1e-14.
    np.testing.assert_allclose(out[..., 0] + 1j * out[..., 1], expected, rtol=0, atol=1e-7)
