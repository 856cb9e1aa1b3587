"""Interference that does not move with the sky, however long it lasts.

A Measurement Set is phased to one place on the sky. A signal from the ground or from a satellite
turns against it, on a baseline of 100 m by a third of a turn in 13 s, while the sky of a primary
beam stands still. The difference V(t + 1) - V(t) therefore keeps the interference and loses the
sky, and its product with the next channel's, averaged over baselines, loses the noise.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_flag.steps import BoolArray, ComplexArray, FloatArray, LongArray
from contimg_flag.visibilities import Visibilities

MIN_TURN, MAX_TURN = 0.1, 0.6
"""Turns of a signal from the ground in an integration, on the baselines that are used: more would
be smeared out, less could be the sky's drift."""
MAX_SKY_TURN = 0.75
"""Change of u and v in an integration, wavelengths: a source 1.5 deg off turns by 7 deg."""
MIN_BASELINES, MAX_BASELINES = 10, 500
CELL_CHANNELS = 12
"""Channels that are judged together."""
MIN_POWER, MIN_SKY_FRACTION, MIN_ERRORS = 0.1, 0.02, 7.0
"""Power of interference in units of the noise's, of the sky's, and of its own error."""
LOUD_FRACTION = 0.25
"""A loud integration has this part of the power by which it differs from its neighbours."""
BROAD_FRACTION = 0.5
"""An integration with a signal in more of its band is loud in all of it."""
MIRRORED_RATE = 2
"""Turn of the sky in conjugated data over that of a signal from the ground: the fringes go the
wrong way, and stopping them doubles their rate."""


@dataclass(frozen=True)
class GroundSignal:
    """What does not move with the sky."""

    found: BoolArray
    """Shape (integrations, channels)."""
    sigma: float
    """Median amplitude where it is found, over the noise of a visibility's real part."""
    mirrored: bool = False
    """The sky itself turns, as in conjugated data."""

    @property
    def fraction(self) -> float:
        """Return the part of the group that holds it."""
        return float(self.found.mean())

    def describe(self) -> str:
        """Return what a verdict says of it."""
        if self.mirrored:
            return (
                "mirrored: the sky turns twice as fast as a signal from the ground would, as that "
                "of conjugated visibilities does"
            )
        times, channels = (float(self.found.any(axis=axis).mean()) for axis in (1, 0))
        return (
            f"interference: a signal of {self.sigma:.1f} sigma of a visibility does not move with "
            f"the sky, in {times:.0%} of the integrations and {channels:.0%} of the channels"
        )


def choose_baselines(vis: Visibilities) -> tuple[LongArray, FloatArray]:
    """Return the rows of baselines on which the ground turns against the sky, and by how much.

    The rows have the shape (integrations, baselines); -1 is a row that does not exist. The turns
    from one integration to the next have the shape (integrations - 1, baselines).
    """
    first, second = (numbers.astype(np.int64) for numbers in (vis.antenna1, vis.antenna2))
    pairs, baseline = np.unique(first * (second.max() + 1) + second, return_inverse=True)
    rows = np.full((len(vis.times_s), pairs.size), -1)
    rows[vis.time_index, baseline] = np.arange(first.size)
    wavelength_m = SPEED_OF_LIGHT_M_S / vis.header.frequencies_hz.mean()
    moved = np.diff(vis.uvw_m[rows], axis=0) / wavelength_m
    moved[(rows[1:] < 0) | (rows[:-1] < 0)] = 0
    sky = np.hypot(moved[..., 0], moved[..., 1]).max(axis=0, initial=0)
    turns = np.abs(moved[..., 2]).max(axis=0, initial=0)
    chosen = np.flatnonzero((turns > MIN_TURN) & (turns < MAX_TURN) & (sky < MAX_SKY_TURN))
    chosen = chosen[:: 1 + chosen.size // MAX_BASELINES]
    return rows[:, chosen], moved[:, chosen, 2]


def find_ground_signal(data: ComplexArray, turns: FloatArray) -> GroundSignal:
    """Return which integrations and channels hold a signal that does not move with the sky.

    `data`, (integrations, baselines, channels, correlations), is NaN where flagged. It is divided
    in place by the noise of each baseline. `turns` is that of `choose_baselines`.
    """
    times, count, channels, _ = data.shape
    if times == 1 or count < MIN_BASELINES or channels == 1:
        return GroundSignal(found=np.zeros((times, channels), bool), sigma=0.0)
    with warnings.catch_warnings():
        # All NaN: a missing subband, a dead receptor.
        warnings.filterwarnings("ignore", "All-NaN slice|Mean of empty slice", RuntimeWarning)
        change = np.diff(data, axis=0)
        # Neither sky nor broadband interference is left in the difference of channels.
        both = np.diff(change, axis=2)
        noise = np.nanmedian(both.real**2 + both.imag**2, axis=(0, 2, 3)) / (4 * np.log(2))
        scale = np.sqrt(noise)[:, None, None].astype(np.float32)
        data /= scale
        change /= scale
        sky, _ = _average_cells(data[:, :, :-1], data[:, :, 1:])
        steady, _ = _average_cells(data[:-1], data[1:])
        mirrored = _is_mirrored(steady, turns)
        differs, samples = _average_cells(change[:, :, :-1], change[:, :, 1:])
        # The delay of a signal turns the product, in all cells alike.
        turn = np.nanmean(differs, axis=(0, 2), keepdims=True)
        turn = np.conj(turn) / np.abs(turn)
        power = np.nanmedian((differs * turn).real, axis=1)
        # The difference has twice the noise, which the turn follows; a median is 1.25 times as
        # uncertain as a mean.
        limit = np.maximum(MIN_POWER, MIN_ERRORS * 1.25 * np.sqrt(2 / samples.sum(axis=1)))
        limit += MIN_SKY_FRACTION * np.abs(np.nanmedian(steady.real, axis=1))
        limit += 2 / np.sqrt(np.maximum(1, np.median(samples.sum(axis=(0, 2)))))
        # An integration differs from both neighbours, or from one and has no other.
        ends = ((1, 1), (0, 0))
        loud = np.pad(~(power <= limit), ends, constant_values=True)
        power = np.pad(power, ends, constant_values=np.nan)
        steady = np.pad(steady, ((1, 1), (0, 0), (0, 0)), constant_values=np.nan)
        neighbours = np.nanmean([steady[1:], np.conj(steady[:-1])], axis=0)
        excess = np.nanmedian(((sky - neighbours) * turn).real, axis=1)
        found = excess > LOUD_FRACTION * np.fmax(power[1:], power[:-1])
        found &= loud[1:] & loud[:-1]
        found[found.mean(axis=1) > BROAD_FRACTION] = True
    sigma = float(np.sqrt(2 * np.median(excess[found]))) if found.any() else 0.0
    found = np.repeat(found, CELL_CHANNELS, axis=1)[:, :channels]
    return GroundSignal(found=found, sigma=sigma, mirrored=mirrored)


def _is_mirrored(steady: ComplexArray, turns: FloatArray) -> bool:
    """Return whether most of the power turns as the sky of conjugated data does.

    `steady`, shape (integrations - 1, baselines, cells), is the product of consecutive integrations
    over the noise's power, and NaN where flagged.
    """
    shift = np.exp(-2j * np.pi * turns)[..., None]
    still, ground, mirrored = (
        float(np.nanmean((steady * shift**rate).real)) for rate in (0, 1, MIRRORED_RATE)
    )
    noise = 1 / np.sqrt(CELL_CHANNELS * max(1, np.isfinite(steady).sum()))
    return bool(mirrored > max(still, ground, MIN_ERRORS * noise))


def _average_cells(one: ComplexArray, two: ComplexArray) -> tuple[ComplexArray, LongArray]:
    """Return means of one x conj(two) over each cell's channels and correlations, and the samples.

    Both have the shape (integrations, baselines, cells).
    """
    product = one * np.conj(two)
    times, baselines, channels, _ = product.shape
    cells = -(-channels // CELL_CHANNELS)
    missing = ((0, 0), (0, 0), (0, cells * CELL_CHANNELS - channels), (0, 0))
    padded = np.pad(product, missing, constant_values=np.nan)
    parts = padded.reshape(times, baselines, cells, -1)
    return np.nanmean(parts, axis=3), np.isfinite(parts).sum(axis=3)
