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

SPEED_OF_LIGHT = 299792458.0
ZEROS, INVALID, CROSSES, TALLIES = 0, 1, 2, 3
"""Elements of a tally: exact zeros of cross-correlations, values that are not finite, cross-correlations; and how many there are."""
MOST_SAMPLES = 1e9
"""No nsamples is larger: the correlator takes 3e6 samples of one channel in one integration."""


def compiled(function: Function) -> Function:
    """Compile to machine code that lets other threads run."""
    made: Function = numba.njit(cache=True, nogil=True)(function)
    return made


@compiled
def phasors(delay_m: Array, first_hz: float, step_hz: float, every: int, start: Array, turn: Array) -> None:
    """Fill `start` (columns, rows) with exp(-2 pi i f d / c) at every `every`-th channel, `turn` (rows,) with its ratio a channel."""
    scale = -2.0 * np.pi / SPEED_OF_LIGHT
    for r in range(delay_m.size):
        angle = scale * delay_m[r] * step_hz
        turn[r] = complex(np.cos(angle), np.sin(angle))
        for column in range(start.shape[0]):
            angle = scale * delay_m[r] * (first_hz + column * every * step_hz)
            start[column, r] = complex(np.cos(angle), np.sin(angle))


@compiled
def rotate(
    chunks: Chunks, window: tuple[int, int], places: Array, channels: tuple[int, int],
    phase: tuple[Array, Array], out: tuple[Array, Array], tally: Array,
) -> None:  # fmt: skip
    """Turn the visibilities of complex64 chunks by the phasors `phase` and put them into `out`, (data, flags).

    What is not finite becomes a flagged zero. Calls for other channels may run at the same time.
    """
    buffer, offsets, origins, shape = chunks
    start, turn = phase
    data, flags = out
    size = shape[0] * shape[1] * shape[2] * 8
    for i in range(offsets.size):
        values = buffer[offsets[i] : offsets[i] + size].view(np.complex64)
        row0, channel0, pol0 = origins[i, 0], origins[i, 1], origins[i, 2]
        count, pols = min(shape[1], channels[0] - channel0), min(shape[2], data.shape[2] - pol0)
        for row in range(max(row0, window[0]), min(row0 + shape[0], window[1])):
            local = row - window[0]
            place = places[local % places.shape[0]]
            to = local - local % places.shape[0] + place[0]
            sign = 1.0 - 2.0 * place[1]
            z, ratio = start[channel0 // shape[1], local], turn[local]
            base = (row - row0) * shape[1] * shape[2]
            zeros, invalid = 0, 0
            for channel in range(count):
                target = channels[1] - channel0 - channel
                for pol in range(pols):
                    x = values[base + channel * shape[2] + pol]
                    a, b = np.float64(x.real), np.float64(x.imag)
                    # Only what is not finite differs from itself by something else than nothing.
                    if a - a != 0.0 or b - b != 0.0:
                        data[to, target, pol0 + pol] = 0.0
                        flags[to, target, pol0 + pol] = True
                        invalid += 1
                        continue
                    if a == 0.0 and b == 0.0:
                        zeros += 1
                    re, im = a * z.real - b * z.imag, sign * (a * z.imag + b * z.real)
                    data[to, target, pol0 + pol] = complex(np.float32(re), np.float32(im))
                z *= ratio
            tally[INVALID] += invalid
            if place[2] == 0:
                tally[ZEROS] += zeros
                tally[CROSSES] += count * pols


@compiled
def gather_flags(chunks: Chunks, window: tuple[int, int], places: Array, channels: tuple[int, int], flags: Array) -> None:
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
                    flags[to, channels[1] - channel0 - channel, pol0 + pol] = buffer[base + channel * shape[2] + pol] != 0


@compiled
def add_samples(
    chunks: Chunks, window: tuple[int, int], places: Array, channels: tuple[int, int], sums: Array, absurd: Array
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
