"""The array as its files describe it: stations, the correlator's baselines, the band, and the two scales of data."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import erfa
import numpy as np
import numpy.typing as npt

from contimg.astro.telescope import stations
from contimg_simulate.frame import SITE, to_meridian, unit_vectors

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SUBBANDS = 16
FINE_CHANNELS = 48
"""Channels of a subband as the telescope writes them."""
FINE_WIDTH_HZ = 244140.625
TOP_HZ = 1498.643188e6
INTEGRATION_S = 12.884902000427246
CADENCE_S = 309.24
"""From the start of one group to the start of the next."""
MOVED_STATIONS = (102, 116)
"""Stations whose correlator input is out of order, so that a few of their baselines have ant1 > ant2."""


@dataclass(frozen=True)
class Scale:
    """How much data a group holds; names, layout, band and beam are the same."""

    name: Literal["small", "full"]
    channels: int
    """Channels of a subband."""
    integrations: int

    @property
    def width_hz(self) -> float:
        """Width of a channel."""
        return FINE_WIDTH_HZ * FINE_CHANNELS / self.channels

    def frequencies_hz(self, subband: int) -> Floats:
        """Return a subband's channel centres in the order of its file, descending, shape (channels,)."""
        top = TOP_HZ + FINE_WIDTH_HZ / 2 - FINE_WIDTH_HZ * FINE_CHANNELS * subband
        return np.asarray(top - self.width_hz * (np.arange(self.channels) + 0.5))

    def band_hz(self) -> Floats:
        """Return all channel centres of the band, ascending as in a Measurement Set."""
        return np.concatenate([self.frequencies_hz(subband) for subband in range(SUBBANDS)])[::-1]


SCALES = {
    "small": Scale("small", channels=12, integrations=4),
    "full": Scale("full", channels=48, integrations=24),
}


@dataclass(frozen=True)
class Array:
    """Where the antennas are and which pairs are correlated."""

    offsets_m: Floats
    """ITRS offsets of all stations from the site, shape (117, 3)."""
    active: Integers
    """Antenna numbers (station - 1) that are correlated, ascending, shape (96,)."""
    first: Integers
    """Antenna number of each baseline's first antenna, in the order of the files, shape (4656,)."""
    second: Integers

    @property
    def antennas(self) -> int:
        """How many antennas are correlated."""
        return len(self.active)

    @property
    def baselines(self) -> int:
        """How many baselines, autocorrelations among them."""
        return len(self.first)

    def positions_m(self) -> Floats:
        """Return the active antennas in the telescope's frame, shape (antennas, 3)."""
        return to_meridian(self.offsets_m[self.active])

    def index(self, numbers: Integers) -> Integers:
        """Turn antenna numbers into places among the active ones."""
        return np.searchsorted(self.active, numbers)

    def uvw_m(self, dec_rad: float) -> Floats:
        """Return second minus first antenna along u, v, w towards hour angle 0, shape (baselines, 3), metres."""
        frame = to_meridian(self.offsets_m)
        towards = unit_vectors(0.0, dec_rad)
        north = np.array([-np.sin(dec_rad), 0.0, np.cos(dec_rad)])
        axes = np.stack([np.array([0.0, 1.0, 0.0]), north, towards])
        return np.asarray((frame[self.second] - frame[self.first]) @ axes.T)


@functools.cache
def dsa110() -> Array:
    """Return the array: 117 stations, of which 96 are correlated in the correlator's order."""
    table = stations()
    xyz = np.asarray(
        erfa.gd2gc(1, np.deg2rad(table.lon_deg), np.deg2rad(table.lat_deg), table.height_m)
    )
    numbers = np.asarray(table.number, dtype=np.int64)
    order = correlator_order([int(n) for n in numbers[table.active]])
    pairs = np.array(
        [(a - 1, b - 1) for i, a in enumerate(order) for b in order[i:]], dtype=np.int64
    )
    return Array(
        xyz - SITE.itrs_m(),
        np.sort(numbers[table.active] - 1),
        pairs[:, 0].copy(),
        pairs[:, 1].copy(),
    )


def correlator_order(numbers: list[int]) -> list[int]:
    """Return stations in the order of the correlator's inputs: ascending but for two (102 after 105, 116 before 114)."""
    order = [n for n in sorted(numbers) if n not in MOVED_STATIONS]
    order.insert(order.index(105) + 1, 102)
    order.insert(order.index(114), 116)
    return order
