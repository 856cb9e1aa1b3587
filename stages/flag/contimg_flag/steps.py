"""The steps that look at visibilities one by one, by receptor and by channel: arrays in, flags out.

All flags have shape (rows, channels, correlations) and are changed in place; True is flagged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    IntArray = npt.NDArray[np.int32]
    FloatArray = npt.NDArray[np.float64]
    Float32Array = npt.NDArray[np.float32]
    ComplexArray = npt.NDArray[np.complex64]

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
SILENT = 0.1
"""A receptor whose median amplitude is below this part of the array's median has no signal; healthy gains differ by 2 at most."""


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def flag_zeros(data: ComplexArray, flags: BoolArray) -> None:
    """Flag what is exactly zero (the correlator's sign of missing data) or not finite."""
    for row in range(data.shape[0]):
        for channel in range(data.shape[1]):
            for product in range(data.shape[2]):
                value = data[row, channel, product]
                if not (np.isfinite(value.real) and np.isfinite(value.imag)) or (value.real == 0 and value.imag == 0):
                    flags[row, channel, product] = True


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def mean_amplitudes(data: ComplexArray, flags: BoolArray, into: Float32Array) -> None:
    """Put the mean amplitude of each row and correlation over its good channels into shape (rows, correlations); 0 if none is good."""
    for row in range(data.shape[0]):
        for product in range(data.shape[2]):
            total, good = 0.0, 0
            for channel in range(data.shape[1]):
                if not flags[row, channel, product]:
                    total += abs(data[row, channel, product])
                    good += 1
            into[row, product] = total / good if good else 0.0


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def count_flags(flags: BoolArray, cross: BoolArray, by_row: npt.NDArray[np.int64], by_channel: npt.NDArray[np.int64]) -> None:
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


def dead_receptors(
    bad: FloatArray, amplitude: Float32Array, antenna1: IntArray, antenna2: IntArray, antennas: int, *, limit: float
) -> BoolArray:
    """Return which receptors are dead, shape (antennas, correlations).

    Parameters
    ----------
    bad
        Fraction of bad visibilities of each cross-correlation, of the channels that anyone has, shape (rows, correlations).
    amplitude
        Mean amplitudes of the same rows, 0 if there is none.
    limit
        A receptor with at least this bad fraction is dead. So is one whose median amplitude is below `SILENT` of the median
        receptor's: amplitudes are products of two gains, so that a weak gain shows in all baselines of its antenna.
    """
    products = bad.shape[1]
    fractions, medians = np.zeros((antennas, products)), np.full((antennas, products), np.nan)
    for antenna in range(antennas):
        mine = (antenna1 == antenna) | (antenna2 == antenna)
        for product in range(products):
            fractions[antenna, product] = bad[mine, product].mean() if mine.any() else 0.0
            heard = amplitude[mine, product]
            if (heard > 0).any():
                medians[antenna, product] = np.median(heard[heard > 0])
    alive = (fractions < limit) & np.isfinite(medians)
    typical = np.median(medians[alive]) if alive.any() else 0.0
    silent = np.isfinite(medians) & (medians < SILENT * typical)
    dead: BoolArray = (fractions >= limit) | silent
    return dead


def flag_receptors(flags: BoolArray, dead: BoolArray, antenna1: IntArray, antenna2: IntArray) -> None:
    """Flag every visibility of a dead receptor; `dead` has shape (antennas, correlations)."""
    for product in range(dead.shape[1]):
        rows = dead[antenna1, product] | dead[antenna2, product]
        flags[rows, :, product] = True


def clip(amplitudes: Float32Array, sigma: float) -> tuple[BoolArray, float]:
    """Return which amplitudes of one channel and correlation stand out, and the level above which they do.

    The level is the median plus `sigma` × 1.4826 × the median absolute deviation; for noise alone (Rayleigh) and 7 sigma that is
    5.8 times the rms of a real part, which one in 3e7 exceeds.
    """
    if not amplitudes.size:
        return np.zeros(0, bool), float("inf")
    median = np.median(amplitudes)
    spread = MAD_TO_SIGMA * np.median(np.abs(amplitudes - median))
    level = float(median + sigma * spread) if spread > 0 else float("inf")
    return amplitudes > level, level
