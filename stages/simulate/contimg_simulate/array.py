"""The array as its files describe it: stations, baselines, the band, and two scales of data."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import erfa
import numpy as np

from contimg.astro.telescope import stations
from contimg_simulate import frame
from contimg_simulate.frame import Floats, Integers

SUBBANDS = 16
FINE_CHANNELS = 48
"""Channels of a subband as the telescope writes them."""
FINE_WIDTH_HZ = 244140.625
TOP_HZ = 1498.643188e6
INTEGRATION_S = 12.884902000427246
CADENCE_S = 309.24
"""From the start of one group to the start of the next."""
MOVED_STATIONS = (102, 116)
"""Stations whose correlator input is out of order: some of their baselines have ant1 > ant2."""


@dataclass(frozen=True)
class DataScale:
    """How much data a group holds; names, layout, band and beam are the same."""

    name: Literal["small", "full"]
    channels: int
    """Channels of a subband."""
    width_hz: float
    """Width of a channel."""
    integrations: int

    def frequencies_hz(self, subband: int) -> Floats:
        """Return the channel centres of a subband as in its file, descending, (channels,)."""
        top = TOP_HZ + FINE_WIDTH_HZ / 2 - FINE_WIDTH_HZ * FINE_CHANNELS * subband
        return np.asarray(top - self.width_hz * (np.arange(self.channels) + 0.5))

    def band_hz(self) -> Floats:
        """Return all channel centres of the band, ascending as in a Measurement Set."""
        return np.concatenate([self.frequencies_hz(subband) for subband in range(SUBBANDS)])[::-1]


SCALES = {
    "small": DataScale("small", channels=12, width_hz=4 * FINE_WIDTH_HZ, integrations=4),
    "full": DataScale("full", channels=FINE_CHANNELS, width_hz=FINE_WIDTH_HZ, integrations=24),
}


@dataclass(frozen=True, kw_only=True)
class StationArray:
    """Where the S stations are, which A antennas are correlated, and in which B pairs."""

    offsets_m: Floats
    """ITRS offsets of all stations from the site, shape (S, 3)."""
    stations_m: Floats
    """The same in the telescope's frame."""
    active: Integers
    """Antenna numbers (station - 1) that are correlated, ascending, shape (A,)."""
    positions_m: Floats
    """The active antennas in the telescope's frame, shape (A, 3)."""
    first: Integers
    """Antenna number of each baseline's first antenna, in the order of the files, (B,)."""
    second: Integers
    pairs: tuple[Integers, Integers]
    """The same as indices of the active antennas."""

    def uvw_m(self, dec_rad: float) -> Floats:
        """Return second less first antenna along u, v, w towards hour angle 0, (B, 3)."""
        north = np.array([-np.sin(dec_rad), 0.0, np.cos(dec_rad)])
        axes = np.stack([np.array([0.0, 1.0, 0.0]), north, frame.unit_vectors(0.0, dec_rad)])
        return np.asarray((self.stations_m[self.second] - self.stations_m[self.first]) @ axes.T)


@functools.cache
def dsa110() -> StationArray:
    """Return the array: 117 stations, of which 96 are correlated in the correlator's order."""
    table = stations()
    longitude, latitude = np.deg2rad(frame.LONGITUDE_DEG), np.deg2rad(frame.LATITUDE_DEG)
    site = erfa.gd2gc(1, longitude, latitude, frame.HEIGHT_M)
    itrs_m = erfa.gd2gc(1, np.deg2rad(table.lon_deg), np.deg2rad(table.lat_deg), table.height_m)
    offsets_m = np.asarray(itrs_m) - site
    x, y, z = offsets_m.T
    sine, cosine = np.sin(longitude), np.cos(longitude)
    stations_m = np.stack([x * cosine + y * sine, -x * sine + y * cosine, z], axis=-1)
    numbers = np.asarray(table.number, dtype=np.int64)[table.active]
    # The correlator's inputs ascend, but for 102 after 105 and 116 before 114.
    order = [n for n in sorted(numbers.tolist()) if n not in MOVED_STATIONS]
    order.insert(order.index(105) + 1, 102)
    order.insert(order.index(114), 116)
    pairs = [(a - 1, b - 1) for i, a in enumerate(order) for b in order[i:]]
    first, second = np.array(pairs, dtype=np.int64).T.copy()
    active = np.sort(numbers) - 1
    return StationArray(
        offsets_m=offsets_m,
        stations_m=stations_m,
        active=active,
        positions_m=stations_m[active],
        first=first,
        second=second,
        pairs=(np.searchsorted(active, first), np.searchsorted(active, second)),
    )
