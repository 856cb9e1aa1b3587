"""What is computed of every visibility: arrays in, flags and sums out.

All flags have shape (rows, channels, correlations) and are changed in place; True is flagged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    IntArray = npt.NDArray[np.int32]
    FloatArray = npt.NDArray[np.float64]
    Float32Array = npt.NDArray[np.float32]
    ComplexArray = npt.NDArray[np.complex64]


@numba.njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def amplitude(value: complex) -> float:
    """Return the modulus; abs() guards against overflows that visibilities do not have, at five times the price."""
    return np.sqrt(value.real * value.real + value.imag * value.imag)  # type: ignore[no-any-return]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def flag_zeros(data: ComplexArray, flags: BoolArray) -> None:
    """Flag what is exactly zero (the correlator's sign of missing data) or not finite."""
    for row in range(data.shape[0]):
        for channel in range(data.shape[1]):
            for product in range(data.shape[2]):
                value = data[row, channel, product]
                if not (np.isfinite(value.real) and np.isfinite(value.imag)) or (
                    value.real == 0 and value.imag == 0
                ):
                    flags[row, channel, product] = True


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def mean_amplitudes(data: ComplexArray, flags: BoolArray, into: Float32Array) -> None:
    """Put the mean amplitude of each row and correlation over its good channels into shape (rows, correlations); 0 if none is good."""
    for row in range(data.shape[0]):
        for product in range(data.shape[2]):
            total, good = 0.0, 0
            for channel in range(data.shape[1]):
                if not flags[row, channel, product]:
                    total += amplitude(data[row, channel, product])
                    good += 1
            into[row, product] = total / good if good else 0.0


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def neighbour_products(
    data: ComplexArray,
    flags: BoolArray,
    product: ComplexArray,
    power: Float32Array,
    pairs: IntArray,
) -> None:
    """Sum over good neighbouring channels V(c) conj V(c+1) and the power of both; each into shape (rows, correlations)."""
    for row in range(data.shape[0]):
        for p in range(data.shape[2]):
            total, both, count = 0j, 0.0, 0
            for channel in range(data.shape[1] - 1):
                if not flags[row, channel, p] and not flags[row, channel + 1, p]:
                    first, second = data[row, channel, p], data[row, channel + 1, p]
                    total += first * second.conjugate()
                    both += first.real**2 + first.imag**2 + second.real**2 + second.imag**2
                    count += 1
            product[row, p], power[row, p], pairs[row, p] = total, both / 2, count


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def count_flags(
    flags: BoolArray,
    cross: BoolArray,
    by_row: npt.NDArray[np.int64],
    by_channel: npt.NDArray[np.int64],
) -> None:
    """Count the flags of cross-correlations: into shapes (rows, correlations) and (channels,)."""
    by_row[:] = 0
    by_channel[:] = 0
    for row in range(flags.shape[0]):
        if cross[row]:
            for channel in range(flags.shape[1]):
                for product in range(flags.shape[2]):
                    if flags[row, channel, product]:
                        by_row[row, product] += 1
                        by_channel[channel] += 1


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def good_amplitudes(data: ComplexArray, flags: BoolArray, into: Float32Array) -> None:
    """Put the amplitudes into an array of the same shape, NaN where flagged."""
    for row in range(data.shape[0]):
        for channel in range(data.shape[1]):
            for product in range(data.shape[2]):
                flagged = flags[row, channel, product]
                into[row, channel, product] = (
                    np.nan if flagged else amplitude(data[row, channel, product])
                )


def clip_level(amplitudes: Float32Array, sigma: float) -> float:
    """Return the amplitude above which the samples of one channel and correlation stand out; NaN are left out.

    The level is the median plus `sigma` × 1.4826 × the median absolute deviation; for noise alone (Rayleigh) and 7 sigma that is
    5.8 times the rms of a real part, which one in 2e7 exceeds. Infinite if there is nothing to go by.
    """
    good = amplitudes[~np.isnan(amplitudes)]
    if not good.size:
        return float("inf")
    # Of an even number the upper middle one: in-place partitions are ten times faster than np.median.
    middle = good.size // 2
    good.partition(middle)
    median = good[middle]
    np.abs(np.subtract(good, median, out=good), out=good)
    good.partition(middle)
    spread = MAD_TO_SIGMA * float(good[middle])
    return float(median) + sigma * spread if spread > 0 else float("inf")
