"""Receptors (an antenna in one polarization) that are of no use: judged by all baselines of their antenna together.

Every matrix here has shape (antennas, antennas, correlations), is symmetric, and is NaN where there is no such baseline.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    IntArray = npt.NDArray[np.int32]
    FloatArray = npt.NDArray[np.float64]
    ComplexArray = npt.NDArray[np.complex128]

SILENT = 0.1
"""A receptor whose median amplitude is below this part of the array's median has no power; healthy gains differ by 2 at most."""
DEAF, HEARING = 2.0, 10.0
"""Correlated power over what noise alone leaves: below the one a receptor hears no sky, if the array's median is above the other."""


def baseline_sums(
    values: npt.NDArray[np.number], antenna1: IntArray, antenna2: IntArray, antennas: int
) -> ComplexArray:
    """Sum the rows of each baseline; `values` has shape (rows, correlations), the rows are cross-correlations."""
    sums = np.zeros((antennas, antennas, values.shape[1]), np.complex128)
    np.add.at(sums, (antenna1, antenna2), values)
    there = np.zeros((antennas, antennas), bool)
    there[antenna1, antenna2] = True
    sums[~there] = np.nan
    mirrored = np.where(there.T[..., None], np.swapaxes(sums, 0, 1), np.nan)
    return np.where(there[..., None], sums, mirrored)


def bad(fractions: FloatArray, limit: float) -> BoolArray:
    """Return which receptors have at least `limit` bad visibilities; `fractions` is the matrix of bad fractions."""
    return _mean(fractions) >= limit


def silent(amplitude: FloatArray) -> BoolArray:
    """Return which receptors have no power.

    Amplitudes are products of two gains, so that a weak gain shows in all baselines of its antenna. `amplitude` is the matrix of
    mean amplitudes, 0 where nothing is good.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # nothing but NaN: a receptor that is dead or not there
        medians = np.nanmedian(np.where(amplitude > 0, amplitude, np.nan), axis=1)
        typical = np.nanmedian(medians)
    found: BoolArray = medians < SILENT * typical
    return found


def deaf(product: ComplexArray, power: FloatArray, pairs: FloatArray) -> BoolArray:
    """Return which receptors have noise but no sky.

    The sky is coherent from channel to channel, noise is not: for N pairs of noise |sum V V*|^2 is (sum |V|^2)^2 / N, so that N times
    the quotient is 1 for noise, and N times the squared fraction of coherent power for a sky. Where the whole array hears next to
    nothing, nobody is called deaf.

    Parameters
    ----------
    product, power, pairs
        Matrices of the sums over good neighbouring channels of V(c) conj V(c+1), of their mean power, and of their number.
    """
    excess = np.full(power.shape, np.nan)
    heard = power > 0
    excess[heard] = pairs[heard] * np.abs(product[heard]) ** 2 / power[heard] ** 2
    level = _mean(excess)
    if not np.isfinite(level).any() or np.nanmedian(level) < HEARING:
        return np.zeros(level.shape, bool)
    found: BoolArray = level < DEAF
    return found


def flag(flags: BoolArray, dead: BoolArray, antenna1: IntArray, antenna2: IntArray) -> None:
    """Flag, in place, every visibility of a dead receptor; `dead` has shape (antennas, correlations)."""
    for product in range(dead.shape[1]):
        rows = dead[antenna1, product] | dead[antenna2, product]
        flags[rows, :, product] = True


def _mean(matrix: FloatArray) -> FloatArray:
    """Return the mean over the baselines of each antenna, NaN where there is none; shape (antennas, correlations)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(matrix, axis=1))
