"""NumPy archives of the same bytes everywhere."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt


def to_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return what `numpy.load` reads: the same arrays are the same bytes.

    np.savez leaves to Python's zipfile how its entries look, which changed between 3.11.2 and 3.11.7.
    """
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
    return sink.getvalue()
