"""The file of flags: round trip, same bytes each time, other content refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contimg.records.flagfile import pack_flags, read_flags, unpack_flags, write_flags
from contimg.runtime.errors import BadInputError


@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 4))))
def test_unpack_flags_inverts_pack_flags(flags: np.ndarray) -> None:
    data = pack_flags(flags)
    assert np.array_equal(unpack_flags(data), flags)
    assert unpack_flags(data).dtype == np.bool_
    assert pack_flags(flags.copy()) == data


def test_read_flags_inverts_write_flags(tmp_path: Path) -> None:
    flags = np.random.default_rng(1).uniform(size=(300, 48, 2)) < 0.02
    write_flags(tmp_path / "flags.bin", flags)
    assert np.array_equal(read_flags(tmp_path / "flags.bin"), flags)
    # One bit a flag, and compressed: 2 % of flags hold 0.14 bits each.
    assert (tmp_path / "flags.bin").stat().st_size < flags.size / 8 / 2


def test_pack_flags_refuses_two_axes() -> None:
    with pytest.raises(BadInputError, match="rows, channels, correlations"):
        pack_flags(np.zeros((3, 4), bool))


HALF = pack_flags(np.random.default_rng(1).uniform(size=(300, 48, 2)) < 0.5)


@pytest.mark.parametrize("content", [HALF[:cut] for cut in (0, 5, 40, -7)], ids=len)
def test_read_flags_refuses_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "flags.bin").write_bytes(content)
    with pytest.raises(BadInputError, match=r"flags\.bin"):
        read_flags(tmp_path / "flags.bin")


OTHER = ("", "contimg-flags 1 x y z\n", "contimg-flags 1 3 4\n", "contimg-flags 2 1 1 1\nabc", "X")


@pytest.mark.parametrize("content", OTHER)
def test_read_flags_refuses_other_content(content: str, tmp_path: Path) -> None:
    (tmp_path / "flags.bin").write_text(content)
    with pytest.raises(BadInputError, match="flag file"):
        read_flags(tmp_path / "flags.bin")
