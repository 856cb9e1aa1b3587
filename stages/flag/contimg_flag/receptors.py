"""Unusable receptors (a receptor is one polarization of an antenna), found from all baselines.

Every matrix here has shape (antennas, antennas, correlations), is symmetric, and is NaN where the
baseline does not exist. Results have shape (antennas, correlations).
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from contimg_flag.steps import BoolArray, FloatArray, IntArray

Matrix = npt.NDArray[np.complex128]

SILENT_FRACTION = 0.1
"""A receptor has no power below this part of the median amplitude; healthy gains differ by 2."""
DEAF_EXCESS, HEARING_EXCESS = 2.0, 10.0
"""Correlated power over that of noise: a receptor is deaf below the first, if the median receptor
is above the second."""


def sum_baselines(
    values: npt.NDArray[np.number], antenna1: IntArray, antenna2: IntArray, antennas: int
) -> Matrix:
    """Sum the rows of each baseline into a matrix.

    `values` has shape (rows, correlations); its rows are cross-correlations.
    """
    sums = np.zeros((antennas, antennas, values.shape[1]), np.complex128)
    np.add.at(sums, (antenna1, antenna2), values)
    exists = np.zeros((antennas, antennas), bool)
    exists[antenna1, antenna2] = True
    sums[~exists] = np.nan
    mirrored = np.where(exists.T[..., None], np.swapaxes(sums, 0, 1), np.nan)
    return np.where(exists[..., None], sums, mirrored)


def average_baselines(matrix: FloatArray) -> FloatArray:
    """Average over the baselines of each antenna; NaN for an antenna without any."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(matrix, axis=1))


def find_silent(amplitude: FloatArray) -> BoolArray:
    """Return which receptors have no power.

    Amplitudes are products of two gains, so that a weak gain shows in all baselines of its antenna.
    `amplitude` is the matrix of mean amplitudes, 0 where everything is flagged.
    """
    with warnings.catch_warnings():
        # All NaN: a receptor that is dead or absent.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        medians = np.nanmedian(np.where(amplitude > 0, amplitude, np.nan), axis=1)
        typical = np.nanmedian(medians)
    return np.asarray(medians < SILENT_FRACTION * typical)


def find_deaf(product: Matrix, power: FloatArray, pairs: FloatArray) -> BoolArray:
    """Return which receptors have noise but no sky.

    The sky is coherent from channel to channel, noise is not: for N pairs of noise |sum V V*|^2 is
    (sum |V|^2)^2 / N. N times the quotient is therefore 1 for noise, and N times the squared
    coherent fraction of the power for a sky. If the whole array receives next to nothing, no
    receptor is called deaf. The matrices are those of `steps.neighbour_products`.
    """
    excess = np.full(power.shape, np.nan)
    heard = power > 0
    excess[heard] = pairs[heard] * np.abs(product[heard]) ** 2 / power[heard] ** 2
    level = average_baselines(excess)
    if not np.isfinite(level).any() or np.nanmedian(level) < HEARING_EXCESS:
        return np.zeros(level.shape, bool)
    return np.asarray(level < DEAF_EXCESS)


def flag_dead(flags: BoolArray, dead: BoolArray, antenna1: IntArray, antenna2: IntArray) -> None:
    """Flag, in place, every visibility of the dead receptors."""
    for product in range(dead.shape[1]):
        flags[dead[antenna1, product] | dead[antenna2, product], :, product] = True
