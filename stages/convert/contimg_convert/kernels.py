"""Compiled loops over raw HDF5 chunks: gather, rotate, conjugate, flip and count in one pass.

The compiled code is kept beside this file, or in NUMBA_CACHE_DIR.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from contimg.runtime.compiled import compile_loops

AnyArray = npt.NDArray[Any]
Chunks = tuple[AnyArray, AnyArray, AnyArray, tuple[int, int, int]]
"""Bytes; where in them each chunk begins, (N,); the first row, channel and polarization of each,
(N, 3); the shape of every chunk. Parts of a chunk may lie beyond the edges of the dataset."""

ZEROS, INVALID, CROSSES, TALLIES = 0, 1, 2, 3
"""Elements of a tally: zeros of cross-correlations, non-finite values, cross-correlations."""


@compile_loops(nogil=True)
def flag_invalid(data: AnyArray, flags: AnyArray, pol0: int, pols: int) -> int:
    """Make flagged zeros of the values of one row that are not finite; return their number."""
    found = 0
    for channel in range(flags.shape[0]):
        for pol in range(pol0, pol0 + pols):
            a, b = data[channel, 2 * pol], data[channel, 2 * pol + 1]
            if a - a != 0 or b - b != 0:
                data[channel, 2 * pol] = data[channel, 2 * pol + 1] = 0
                flags[channel, pol] = True
                found += 1
    return found


@compile_loops(nogil=True)
def fill_phasors(first: AnyArray, turn: AnyArray, pairs: AnyArray, out: AnyArray) -> None:
    """Fill `out` (rows, channels, 2), real and imaginary part, with the phase of each baseline.

    `first` and `turn`, complex128 of shape (integrations, antennas), are the phasors of each
    antenna at the first channel and of one channel's step. The phasor of a baseline is that of its
    second antenna (`pairs`, shape (B, 2)) over that of its first.
    """
    for r in range(out.shape[0]):
        t, b = r // pairs.shape[0], r % pairs.shape[0]
        one, two = pairs[b, 0], pairs[b, 1]
        z = first[t, two] * np.conj(first[t, one])
        ratio = turn[t, two] * np.conj(turn[t, one])
        for channel in range(out.shape[1]):
            out[r, channel, 0], out[r, channel, 1] = z.real, z.imag
            z *= ratio


@compile_loops(nogil=True)
def rotate_visibilities(
    chunks: Chunks,
    window: tuple[int, int],
    places: AnyArray,
    channels: tuple[int, int],
    phase: AnyArray,
    out: tuple[AnyArray, AnyArray],
    tally: AnyArray,
) -> None:
    """Multiply the visibilities of complex64 chunks by their phasors and put them into `out`.

    Values that are not finite become flagged zeros. Calls for other channels may run at the same
    time. `window` is the first row of a block of whole integrations and the row after its last.
    `places`, shape (B, 3), has for each baseline its row within an integration of the output, 1 if
    it must be conjugated, and 1 if it is an autocorrelation. `channels` is the number of channels
    in the file and the output channel of the first one; the others are below it. `phase` is from
    `fill_phasors`, `out` the data, (rows, channels, 2 x polarizations) float32, and the flags.
    """
    buffer, offsets, origins, shape = chunks
    data, flags = out
    size = shape[0] * shape[1] * shape[2] * 8
    for i in range(offsets.size):
        values = buffer[offsets[i] : offsets[i] + size].view(np.float32)
        row0, channel0, pol0 = origins[i, 0], origins[i, 1], origins[i, 2]
        count, pols = min(shape[1], channels[0] - channel0), min(shape[2], flags.shape[2] - pol0)
        top = channels[1] - channel0
        for row in range(max(row0, window[0]), min(row0 + shape[0], window[1])):
            local = row - window[0]
            place = places[local % places.shape[0]]
            to = local - local % places.shape[0] + place[0]
            sign = np.float32(1 - 2 * place[1])
            zeros, invalid = 0, np.float32(0)
            for pol in range(pols):
                for channel in range(count):
                    at = 2 * ((row - row0) * shape[1] * shape[2] + channel * shape[2] + pol)
                    a, b = values[at], values[at + 1]
                    c, d = phase[local, channel0 + channel, 0], phase[local, channel0 + channel, 1]
                    zeros += (a == 0) & (b == 0)
                    # 0 for finite values, else NaN.
                    invalid += (a - a) + (b - b)
                    data[to, top - channel, 2 * (pol0 + pol)] = a * c - b * d
                    data[to, top - channel, 2 * (pol0 + pol) + 1] = sign * (a * d + b * c)
            if invalid != 0:
                mine = slice(top - count + 1, top + 1)
                tally[INVALID] += flag_invalid(data[to, mine], flags[to, mine], pol0, pols)
            if place[2] == 0:
                tally[ZEROS] += zeros
                tally[CROSSES] += count * pols
