from __future__ import annotations

import hashlib
import io

import numpy as np

from contimg.records.array_files import to_npz

ARRAYS = {
    "two": np.arange(6, dtype=np.float32).reshape(2, 3),
    "one": np.array(7),
    "word": np.array(["a", "bc"]),
}
DIGEST = "82adae4a46e762b84da61c34167eac762c1d831e1705e1f8fa55911f4e2daeaf"


def test_numpy_reads_the_file() -> None:
    with np.load(io.BytesIO(to_npz(ARRAYS)), allow_pickle=False) as archive:
        found = {name: archive[name].tolist() for name in archive.files}
    assert found == {name: value.tolist() for name, value in ARRAYS.items()}


def test_bytes_depend_on_the_arrays_alone() -> None:
    """The digest is of Python 3.11.7; another Python or order must give the same."""
    assert to_npz(dict(reversed(ARRAYS.items()))) == to_npz(ARRAYS)
    assert hashlib.sha256(to_npz(ARRAYS)).hexdigest() == DIGEST
