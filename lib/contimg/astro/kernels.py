"""Compiled loops of `gains` and `predict`, in a module of their own as numba is slow to import.

The callers check shapes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from contimg.runtime.compiled import compile_loops

ComplexArray = npt.NDArray[np.complex64]
FlagArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@compile_loops()
def apply(  # noqa: PLR0913, PLR0917 - a kernel
    data: ComplexArray,
    flags: FlagArray,
    ant1: IntArray,
    ant2: IntArray,
    time_index: IntArray,
    band: ComplexArray,
    band_flag: FlagArray,
    gain: ComplexArray,
    gain_flag: FlagArray,
) -> None:
    """Multiply data, shape (rows, channels, polarizations), by inverse gains in place."""
    rows, channels, pols = data.shape
    for r in range(rows):
        i, j, t = ant1[r], ant2[r], time_index[r]
        for p in range(pols):
            both = gain[t, i, p] * np.conj(gain[t, j, p])
            lost = gain_flag[t, i, p] or gain_flag[t, j, p]
            for f in range(channels):
                data[r, f, p] *= both * (band[i, f, p] * np.conj(band[j, f, p]))
                flags[r, f, p] |= lost or band_flag[i, f, p] or band_flag[j, f, p]


@compile_loops()
def turn(
    first: npt.NDArray[np.complex128], by: npt.NDArray[np.complex128], fringes: ComplexArray
) -> None:
    """Fill row f with first * by^f, in double precision."""
    state = first.copy()
    for f in range(fringes.shape[0]):
        for k in range(fringes.shape[1]):
            fringes[f, k] = state[k]
            state[k] *= by[k]


@compile_loops()
def pick(model: ComplexArray, ant1: IntArray, ant2: IntArray, rows: ComplexArray) -> None:
    """Copy (channel, i, j) to (row, channel), 16 channels at a time for the cache's sake."""
    channels = rows.shape[1]
    for first in range(0, channels, 16):
        last = min(first + 16, channels)
        for r in range(rows.shape[0]):
            for f in range(first, last):
                rows[r, f] = model[f, ant1[r], ant2[r]]
