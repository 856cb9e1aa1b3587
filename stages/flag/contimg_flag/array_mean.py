"""Interference that the whole array sees: in the mean amplitude over all baselines it stands out long before one baseline shows it.

A source makes fringes, which the mean over thousands of baselines averages out, and a common level, which is smooth in time and
frequency; interference is one channel, or one integration of some channels, above its neighbours (the idea of Wilensky et al.
2019, PASP 131, 114507, with amplitudes instead of differences, because a few integrations are all that there is).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_flag.steps import amplitude

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.float64]
    Float32Array = npt.NDArray[np.float32]
    ComplexArray = npt.NDArray[np.complex64]

SIGMA = 7.0
"""What stands out by this many robust sigma is interference, if it is also this part above its neighbours:"""
CHANNEL_EXCESS, SAMPLE_EXCESS, INTEGRATION_EXCESS = 0.03, 0.05, 0.25
"""A source leaving the beam changes an integration by 5 % at most; the mean bandpass of 96 antennas is smooth to 1 %."""
NEIGHBOURS = 11
"""Channels of the running median that a channel is compared with."""


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def add_rows(
    data: ComplexArray,
    flags: BoolArray,
    cross: BoolArray,
    mean: Float32Array,
    time: npt.NDArray[np.int64],
    total: FloatArray,
    count: FloatArray,
) -> None:
    """Add rows to the sums over baselines of the amplitude over the row's mean: shapes (integrations, channels, correlations)."""
    for row in range(data.shape[0]):
        if cross[row]:
            for channel in range(data.shape[1]):
                for product in range(data.shape[2]):
                    if not flags[row, channel, product] and mean[row, product] > 0:
                        total[time[row], channel, product] += (
                            amplitude(data[row, channel, product]) / mean[row, product]
                        )
                        count[time[row], channel, product] += 1


def interference(level: FloatArray) -> BoolArray:
    """Return what stands out, shape (integrations, channels).

    A sample is compared with the quietest quarter of its channel, which shows a burst however wide, and with its neighbours in the
    same integration, which shows a carrier however long. What is there at all times is sought deeper, in that quietest quarter.

    Parameters
    ----------
    level
        Mean over baselines of the amplitude relative to its row's mean, shape (integrations, channels); NaN where nothing is good.
    """
    good = np.isfinite(level)
    flat = level / _median(level, axis=1)[:, None]
    channel = _quartile(flat)
    in_time = flat / channel
    in_time = in_time / _median(in_time, axis=1)[:, None] - 1
    in_frequency = flat / _running_median(flat) - 1
    found = _above(in_time, good, SAMPLE_EXCESS) | _above(in_frequency, good, SAMPLE_EXCESS)
    found |= _above(channel / _running_median(channel) - 1, np.isfinite(channel), CHANNEL_EXCESS)
    return np.asarray(found & good)


def bursts(power: FloatArray) -> BoolArray:
    """Return which integrations are louder than both their neighbours by a quarter; `power` is the amplitude of each."""
    padded = np.concatenate([[-np.inf], power, [-np.inf]])
    neighbours = np.maximum(padded[:-2], padded[2:])
    return np.asarray(np.isfinite(neighbours) & (power > (1 + INTEGRATION_EXCESS) * neighbours))


def _above(excess: FloatArray, good: BoolArray, least: float) -> BoolArray:
    if not good.any():
        return np.zeros(excess.shape, bool)
    sigma = MAD_TO_SIGMA * np.median(np.abs(excess[good] - np.median(excess[good])))
    return np.asarray(good & (excess > max(least, SIGMA * sigma)))


def _running_median(values: FloatArray) -> FloatArray:
    half = NEIGHBOURS // 2
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], constant_values=np.nan)
    return _median(sliding_window_view(padded, NEIGHBOURS, axis=-1), axis=-1)


def _quartile(values: FloatArray) -> FloatArray:
    """Return each channel's lower quartile over time, of what is not NaN; one of the values, so that four are not interpolated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanquantile(values, 0.25, axis=0, method="lower"))


def _median(values: FloatArray, axis: int) -> FloatArray:
    """Return the median of what is not NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: a missing subband
        return np.asarray(np.nanmedian(values, axis=axis))
