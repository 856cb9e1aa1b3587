"""The file of flags: round trip, same bytes each time, other content refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contimg.records.flagfile import pack_flags, read_flags, unpack_flags
from contimg.runtime.errors import BadInputError

SHAPES = st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(1, 4))


@given(SHAPES.flatmap(lambda shape: arrays(np.bool_, shape)))
def test_unpack_flags_inverts_pack_flags(flags: np.ndarray) -> None:
    data = pack_flags(flags)
    found = unpack_flags(data)
    assert (found.shape, found.dtype) == (flags.shape, np.bool_)
    assert np.array_equal(found, flags)
    # The bytes do not depend on the array's memory.
    assert pack_flags(flags.copy()) == pack_flags(np.asfortranarray(flags)) == data


def test_read_flags_inverts_pack_flags(tmp_path: Path) -> None:
    flags = np.random.default_rng(1).uniform(size=(300, 48, 2)) < 0.02
    (tmp_path / "flags.bin").write_bytes(pack_flags(flags))
    assert np.array_equal(read_flags(tmp_path / "flags.bin"), flags)
    # One bit a flag, and compressed: 2 % of flags hold 0.14 bits each.
    assert (tmp_path / "flags.bin").stat().st_size < flags.size / 8 / 2


def test_pack_flags_refuses_two_axes() -> None:
    with pytest.raises(BadInputError, match="rows, channels, correlations"):
        pack_flags(np.zeros((3, 4), bool))


@pytest.mark.parametrize("cut", [0, 5, 40, -7])
def test_read_flags_refuses_damaged_file(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "flags.bin"
    path.write_bytes(pack_flags(np.random.default_rng(1).uniform(size=(300, 48, 2)) < 0.5))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInputError, match=r"flags\.bin"):
        read_flags(path)


WHOLE = pack_flags(np.zeros((2, 2, 2), np.bool_)).partition(b"\n")[2]
SIZES = (b"10 2 2 2", b"12 2 2", b"1 2 2", b"1 2 -2 2", b"1 2 2.0 2")


@pytest.mark.parametrize(
    "content",
    [
        *(b"contimg-flags " + sizes + b"\n" + WHOLE for sizes in SIZES),
        *(b"contimg-flags 1 x y z\n", b"contimg-flags 1 3 4\n", b"contimg-flags 2 1 1 1\nabc"),
        *(b"", b"X", b"\x89HDF\n" + WHOLE),
    ],
)
def test_read_flags_refuses_other_content(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "flags.bin"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="flag file"):
        read_flags(path)
