"""Loops over raw HDF5 chunks, compiled: gather, rotate, conjugate, flip and count in one pass.

Chunks are a tuple (buffer, offsets, origins, shape): bytes; where in them each chunk begins, (N,); the first row, channel and
polarization of each, (N, 3); and their common shape, of which parts may lie beyond the edges. A window is the first row of a
block of whole integrations and the row after its last. Places are, for each baseline, shape (B, 3): its row within an
integration of the output, 1 if it must be conjugated, 1 if it is an autocorrelation. Channels are (count, top): how many there
are in the file, and which output channel the first one is; the others are below it.
The compiled code is kept beside this file, or in NUMBA_CACHE_DIR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Chunks = tuple[Array, Array, Array, tuple[int, int, int]]
    Function = TypeVar("Function", bound=Callable[..., Any])

ZEROS, INVALID, CROSSES, TALLIES = 0, 1, 2, 3
"""Elements of a tally: exact zeros of cross-correlations, values that are not finite, cross-correlations; and how many there are."""
MOST_SAMPLES = 1e9
"""No nsamples is larger: the correlator takes 3e6 samples of one channel in one integration."""


def compiled(function: Function) -> Function:
    """Compile to machine code that lets other threads run."""
    made: Function = numba.njit(cache=True, nogil=True)(function)
    return made


@compiled
def clear(data: Array, flags: Array, pol0: int, pols: int) -> int:
    """Make flagged zeros of what is not finite in one row; return how many."""
    found = 0
    for channel in range(flags.shape[0]):
        for pol in range(pol0, pol0 + pols):
            a, b = data[channel, 2 * pol], data[channel, 2 * pol + 1]
            if a - a != 0 or b - b != 0:
                data[channel, 2 * pol] = data[channel, 2 * pol + 1] = 0
                flags[channel, pol] = True
                found += 1
    return found


@compiled
def phasors(first: Array, turn: Array, pairs: Array, out: Array) -> None:
    """Fill `out` (rows, channels, 2), real and imaginary part, with the phase of each baseline.

    `first` and `turn`, complex128 of shape (integrations, antennas), are the phasors of each antenna at the first channel and
    of one channel's step; a baseline's is that of its second antenna (`pairs`, shape (B, 2)) over that of its first.
    """
    for r in range(out.shape[0]):
        t, one, two = (
            r // pairs.shape[0],
            pairs[r % pairs.shape[0], 0],
            pairs[r % pairs.shape[0], 1],
        )
        z = first[t, two] * np.conj(first[t, one])
        ratio = turn[t, two] * np.conj(turn[t, one])
        for channel in range(out.shape[1]):
            out[r, channel, 0], out[r, channel, 1] = z.real, z.imag
            z *= ratio


@compiled
def rotate(
    chunks: Chunks,
    window: tuple[int, int],
    places: Array,
    channels: tuple[int, int],
    phase: Array,
    out: tuple[Array, Array],
    tally: Array,
) -> None:
    """Turn the visibilities of complex64 chunks by the `phasors` and put them into `out`: data as (rows, channels, pols x 2), flags.

    What is not finite becomes a flagged zero. Calls for other channels may run at the same time.
    """
    buffer, offsets, origins, shape = chunks
    data, flags = out
    size = shape[0] * shape[1] * shape[2] * 8
    for i in range(offsets.size):
        values = buffer[offsets[i] : offsets[i] + size].view(np.float32)
        row0, channel0, pol0 = origins[i, 0], origins[i, 1], origins[i, 2]
        count, pols = min(shape[1], channels[0] - channel0), min(shape[2], flags.shape[2] - pol0)
        for row in range(max(row0, window[0]), min(row0 + shape[0], window[1])):
            local = row - window[0]
            place = places[local % places.shape[0]]
            to = local - local % places.shape[0] + place[0]
            sign = np.float32(1 - 2 * place[1])
            zeros, odd = 0, np.float32(0)
            for pol in range(pols):
                for channel in range(count):
                    at = 2 * ((row - row0) * shape[1] * shape[2] + channel * shape[2] + pol)
                    a, b = values[at], values[at + 1]
                    c, d = phase[local, channel0 + channel, 0], phase[local, channel0 + channel, 1]
                    zeros += (a == 0) & (b == 0)
                    # Nothing, but for what is not finite.
                    odd += (a - a) + (b - b)
                    target = channels[1] - channel0 - channel
                    data[to, target, 2 * (pol0 + pol)] = a * c - b * d
                    data[to, target, 2 * (pol0 + pol) + 1] = sign * (a * d + b * c)
            if odd != 0:
                top = channels[1] - channel0
                tally[INVALID] += clear(
                    data[to, top - count + 1 : top + 1],
                    flags[to, top - count + 1 : top + 1],
                    pol0,
                    pols,
                )
            if place[2] == 0:
                tally[ZEROS] += zeros
                tally[CROSSES] += count * pols


@compiled
def gather_flags(
    chunks: Chunks, window: tuple[int, int], places: Array, channels: tuple[int, int], flags: Array
) -> None:
    """Put the flags of one-byte chunks where their visibilities go."""
    buffer, offsets, origins, shape = chunks
    for i in range(offsets.size):
        row0, channel0, pol0 = origins[i, 0], origins[i, 1], origins[i, 2]
        count, pols = min(shape[1], channels[0] - channel0), min(shape[2], flags.shape[2] - pol0)
        for row in range(max(row0, window[0]), min(row0 + shape[0], window[1])):
            local = row - window[0]
            to = local - local % places.shape[0] + places[local % places.shape[0], 0]
            base = offsets[i] + (row - row0) * shape[1] * shape[2]
            for channel in range(count):
                for pol in range(pols):
                    flags[to, channels[1] - channel0 - channel, pol0 + pol] = (
                        buffer[base + channel * shape[2] + pol] != 0
                    )


@compiled
def add_samples(
    chunks: Chunks,
    window: tuple[int, int],
    places: Array,
    channels: tuple[int, int],
    sums: Array,
    absurd: Array,
) -> None:
    """Add the nsamples of float32 chunks over their channels to `sums` (rows, polarizations); keep one absurd value, if any."""
    buffer, offsets, origins, shape = chunks
    size = shape[0] * shape[1] * shape[2] * 4
    for i in range(offsets.size):
        values = buffer[offsets[i] : offsets[i] + size].view(np.float32)
        row0, channel0, pol0 = origins[i, 0], origins[i, 1], origins[i, 2]
        count, pols = min(shape[1], channels[0] - channel0), min(shape[2], sums.shape[1] - pol0)
        for row in range(max(row0, window[0]), min(row0 + shape[0], window[1])):
            local = row - window[0]
            to = local - local % places.shape[0] + places[local % places.shape[0], 0]
            base = (row - row0) * shape[1] * shape[2]
            for pol in range(pols):
                total = 0.0
                for channel in range(count):
                    x = values[base + channel * shape[2] + pol]
                    # Written so that what is undefined is absurd, too.
                    if not (x >= 0.0 and x <= MOST_SAMPLES):
                        absurd[0] = x
                        absurd[1] += 1
                    total += x
                sums[to, pol0 + pol] += total
