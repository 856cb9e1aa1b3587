"""Unusable receptors and interference, both found from all baselines.

A receptor is one polarization of an antenna. A matrix has shape (antennas, antennas, correlations),
is symmetric, and is NaN where the baseline does not exist; results have shape (antennas,
correlations).

A source makes fringes, which the mean over thousands of baselines averages out, and a common level,
which is smooth in time and frequency. Interference raises one channel, or some channels of one
integration, above its neighbours (the idea of Wilensky et al. 2019, PASP 131, 114507, with
amplitudes instead of differences, because a group has only a few integrations).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.runtime.errors import list_names
from contimg_flag.steps import BoolArray, FloatArray, IntArray

Matrix = npt.NDArray[np.complex128]

DEAF_EXCESS, HEARING_EXCESS = 2.0, 10.0
"""Correlated power over that of noise: a receptor is deaf below the first, on baselines of lengths
at which the median receptor is above the second."""
LENGTH_BINS = 12
"""Ranges of baseline lengths, of equal numbers: the outriggers' baselines fill the last ones."""
THRESHOLD_SIGMA = 7.0
"""An outlier by this many robust sigma is interference if its excess is above one of these, too:"""
CHANNEL_EXCESS, SAMPLE_EXCESS, INTEGRATION_EXCESS = 0.03, 0.05, 0.25
"""A source that leaves the beam changes an integration by at most 5 %; the mean bandpass of 96
antennas is smooth to 1 %."""
NOISE_RATIO, ODD_RATIO = (0.8, 1.25), 1.5
"""Bounds of the noise over what autocorrelations predict, and of a receptor's over the array's."""
INCOHERENT_FRACTION = 0.1
"""Part of the sky's power that may count as noise on a receptor's baselines: sources outside of the
beam on long ones. In channels of 1 MHz, Taurus A 5 deg away made 0.08."""
COMPARABLE = 0.1, 10.0
"""Outside of this the autocorrelations are no powers of the same units."""
MAX_NAMED = 8
"""Receptors that a verdict names."""
WINDOW_CHANNELS = 11
"""Width of the running median that a channel is compared with."""


def sum_baselines(
    values: npt.NDArray[np.number], antenna1: IntArray, antenna2: IntArray, antennas: int
) -> Matrix:
    """Sum the rows of each baseline, cross-correlations of shape (rows, correlations)."""
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


def measure_gains(amplitude: FloatArray) -> FloatArray:
    """Return the median amplitude of each receptor over that of all; NaN without data.

    Amplitudes are products of two gains, so that a gain shows in all baselines of its antenna.
    `amplitude` is the matrix of mean amplitudes, 0 where everything is flagged.
    """
    with warnings.catch_warnings():
        # All NaN: a receptor that is dead or absent.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        medians = np.nanmedian(np.where(amplitude > 0, amplitude, np.nan), axis=1)
        return np.asarray(medians / np.nanmedian(medians))


def find_deaf(
    product: Matrix, power: FloatArray, pairs: FloatArray, length_m: FloatArray
) -> BoolArray:
    """Return which receptors have noise but no sky.

    The sky is coherent from channel to channel, noise is not: for N pairs of noise |sum V V*|^2 is
    (sum |V|^2)^2 / N. N times the quotient is therefore 1 for noise, and N times the squared
    coherent fraction of the power for a sky. Long baselines may see nothing of a sky of resolved
    sources: only baselines of lengths at which most antennas see the sky are used, and no receptor
    is called deaf if there are no such lengths. `length_m` has the shape (antennas, antennas); the
    other matrices are those of `steps.neighbour_products`.
    """
    excess = np.full(power.shape, np.nan)
    heard = power > 0
    excess[heard] = pairs[heard] * np.abs(product[heard]) ** 2 / power[heard] ** 2
    exists = np.asarray(np.any(heard, axis=2))
    if not exists.any():
        return np.zeros(power.shape[1:], bool)
    # Few antennas make few baselines: a range must hold several of each antenna.
    bins = max(1, min(LENGTH_BINS, int(exists.sum() / np.any(exists, axis=1).sum() / 4)))
    edges = np.quantile(length_m[exists], np.linspace(0, 1, bins + 1))
    place = np.clip(np.searchsorted(edges, length_m, side="right") - 1, 0, bins - 1)
    for index in np.unique(place[exists]):
        level = average_baselines(np.where((place == index)[..., None], excess, np.nan))
        if np.nanmedian(level) < HEARING_EXCESS:
            excess[place == index] = np.nan
    return np.asarray(average_baselines(excess) < DEAF_EXCESS)


def measure_brightness(product: Matrix, power: FloatArray) -> float:
    """Return the median baseline's amplitude of the sky over that of the noise.

    The matrices are those of `steps.neighbour_products`; see `find_deaf`.
    """
    coherent = np.abs(product[power > 0]) / power[power > 0]
    if not coherent.size:
        return 0.0
    fraction = min(float(np.median(coherent)), 1 - 1e-9)
    return float(np.sqrt(fraction / (1 - fraction)))


def compare_radiometer(
    product: Matrix, power: FloatArray, pairs: FloatArray, autos: FloatArray, samples: float
) -> FloatArray:
    """Return each receptor's noise over that which the autocorrelations predict; NaN if unknown.

    The noise of a visibility has the power A_i A_j / (bandwidth x time) for antennas with
    autocorrelations A (Thompson, Moran & Swenson 2017, section 6.2). The matrices are those of
    `steps.neighbour_products`; `autos` has the shape (antennas, correlations), 0 for none, and
    `samples` is bandwidth x time.
    """
    noise, expected = np.full(power.shape, np.nan), autos[:, None] * autos[None, :] / samples
    known = (pairs > 0) & (expected > 0)
    noise[known] = (power[known] - np.abs(product[known])) / pairs[known] / expected[known]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.asarray(np.sqrt(np.nanmedian(noise, axis=1)))


def judge_radiometer(
    ratios: FloatArray, names: Sequence[str], correlations: Sequence[str], brightness: float
) -> list[str]:
    """Return what is wrong with the ratios of `compare_radiometer`, as reasons of a verdict.

    `brightness` is the amplitude of the sky over the noise of a visibility.
    """
    known = np.isfinite(ratios)
    if not known.any():
        return []
    middle = float(np.median(ratios[known]))
    if not COMPARABLE[0] < middle < COMPARABLE[1]:
        return []
    reasons = []
    if not NOISE_RATIO[0] < middle < NOISE_RATIO[1]:
        expected = f"expected {NOISE_RATIO[0]:g} to {NOISE_RATIO[1]:g}"
        reasons.append(
            f"radiometer: the noise is {middle:.2f} of what the autocorrelations predict "
            f"({expected}): the data are scaled, or their channel width or integration is wrong"
        )
    relative = np.where(known, ratios / middle, 1)
    odd = relative > np.sqrt(ODD_RATIO**2 + INCOHERENT_FRACTION * brightness**2)
    odd |= relative < 1 / ODD_RATIO
    if odd.any():
        which = [f"{names[antenna]}{correlations[p][0]}" for antenna, p in np.argwhere(odd)]
        reasons.append(
            f"radiometer: the noise of {list_names(which, MAX_NAMED)} "
            f"differs from the others' by more than {ODD_RATIO:g} times"
        )
    return reasons


def find_interference(level: FloatArray) -> BoolArray:
    """Return which samples are interference, shape (integrations, channels).

    `level`, of the same shape, is the mean over baselines of the amplitude relative to its row's
    mean; NaN where everything is flagged. A sample is compared with the quietest quarter of its
    channel, which shows a burst of any width, and with its neighbours in the same integration,
    which shows a carrier of any length. Interference that is present at all times is sought with a
    lower threshold in that quarter.
    """
    good = np.isfinite(level)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a missing subband
        flat = level / np.nanmedian(level, axis=1)[:, None]
        # One of the values, so that a quartile of four integrations is not interpolated.
        channel = np.nanquantile(flat, 0.25, axis=0, method="lower")
        in_time = flat / channel
        in_time = in_time / np.nanmedian(in_time, axis=1)[:, None] - 1
        in_frequency = flat / _running_median(flat) - 1
        steady = channel / _running_median(channel) - 1
    found = _find_excess(in_time, good, SAMPLE_EXCESS)
    found |= _find_excess(in_frequency, good, SAMPLE_EXCESS)
    found |= _find_excess(steady, np.isfinite(channel), CHANNEL_EXCESS)
    return np.asarray(found & good)


def find_bursts(amplitudes: FloatArray) -> BoolArray:
    """Return which integrations are louder than both their neighbours by a quarter."""
    padded = np.concatenate([[-np.inf], amplitudes, [-np.inf]])
    neighbours = np.maximum(padded[:-2], padded[2:])
    loud = amplitudes > (1 + INTEGRATION_EXCESS) * neighbours
    return np.asarray(np.isfinite(neighbours) & loud)


def _find_excess(excess: FloatArray, good: BoolArray, least: float) -> BoolArray:
    """Return which good samples exceed both `least` and the threshold in robust sigma."""
    if not good.any():
        return np.zeros(excess.shape, bool)
    sigma = MAD_TO_SIGMA * np.median(np.abs(excess[good] - np.median(excess[good])))
    return np.asarray(good & (excess > max(least, THRESHOLD_SIGMA * sigma)))


def _running_median(values: FloatArray) -> FloatArray:
    """Return the running median along the last axis, NaN ignored."""
    half = WINDOW_CHANNELS // 2
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], constant_values=np.nan)
    return np.asarray(np.nanmedian(sliding_window_view(padded, WINDOW_CHANNELS, axis=-1), axis=-1))
