"""Interference that the whole array sees: it shows in the mean amplitude over all baselines.

A source makes fringes, which the mean over thousands of baselines averages out, and a common level,
which is smooth in time and frequency. Interference raises one channel, or some channels of one
integration, above its neighbours (the idea of Wilensky et al. 2019, PASP 131, 114507, with
amplitudes instead of differences, because a group has only a few integrations).
"""

from __future__ import annotations

import warnings

import numba
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_flag.steps import (
    BoolArray,
    ComplexArray,
    Float32Array,
    FloatArray,
    LongArray,
    amplitude,
)

THRESHOLD_SIGMA = 7.0
"""An outlier by this many robust sigma is interference if its excess is above one of these, too:"""
CHANNEL_EXCESS, SAMPLE_EXCESS, INTEGRATION_EXCESS = 0.03, 0.05, 0.25
"""A source that leaves the beam changes an integration by at most 5 %; the mean bandpass of 96
antennas is smooth to 1 %."""
WINDOW_CHANNELS = 11
"""Width of the running median that a channel is compared with."""


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def add_rows(
    data: ComplexArray,
    flags: BoolArray,
    cross: BoolArray,
    mean: Float32Array,
    time: LongArray,
    total: FloatArray,
    count: FloatArray,
) -> None:
    """Add rows to the sums over baselines of the amplitude relative to the row's mean.

    `total` and `count` have shape (integrations, channels, correlations).
    """
    for row in range(data.shape[0]):
        if cross[row]:
            for channel in range(data.shape[1]):
                for product in range(data.shape[2]):
                    if not flags[row, channel, product] and mean[row, product] > 0:
                        total[time[row], channel, product] += (
                            amplitude(data[row, channel, product]) / mean[row, product]
                        )
                        count[time[row], channel, product] += 1


def find_interference(level: FloatArray) -> BoolArray:
    """Return which samples are interference, shape (integrations, channels).

    A sample is compared with the quietest quarter of its channel, which shows a burst of any
    width, and with its neighbours in the same integration, which shows a carrier of any length.
    Interference that is present at all times is sought with a lower threshold in that quarter.

    `level` is the mean over baselines of the amplitude relative to its row's mean, of the same
    shape; NaN where everything is flagged.
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
    return np.asarray(
        np.isfinite(neighbours) & (amplitudes > (1 + INTEGRATION_EXCESS) * neighbours)
    )


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
