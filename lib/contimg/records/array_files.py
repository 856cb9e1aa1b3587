"""NumPy archives whose bytes depend on their arrays alone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def to_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the bytes of a file for `numpy.load`: the same arrays, the same bytes.

    Those of np.savez depend on Python's zipfile, which changed between 3.11.2 and 3.11.7.
    """
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
    return sink.getvalue()
