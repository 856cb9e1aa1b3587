"""The array as its files describe it, and where a source stands over it: by ERFA alone.

The telescope's frame is the Earth's (ITRS): X points to the meridian of the site, Y to the east, Z
to the pole. This is the simulator's own path, kept apart from `contimg.astro.coordinates`, which
the stages use and which it tests.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import erfa
import numpy as np
import numpy.typing as npt
from astropy_iers_data import IERS_A_FILE

from contimg.astro.constants import DAY_S
from contimg.astro.telescope import stations

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Complexes = npt.NDArray[np.complex128]
Complexes64 = npt.NDArray[np.complex64]

MJD_ZERO = 2400000.5
EARTH_RATE_RAD_S = 7.292115855306589e-5
"""Rotation of the Earth against the stars, rad/s of UT1 (IERS Conventions 2010, ERA slope)."""
LATITUDE_DEG, LONGITUDE_DEG, HEIGHT_M = 37.234, -118.283, 1188.0
"""The site of the DSA-110 as its files state it, WGS84."""
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
    core_parts: tuple[Integers, ...]
    """Indices of the antennas of the arms, by halves of each arm."""
    outriggers: Integers
    """Indices of the other antennas."""

    def uvw_m(self, dec_rad: float) -> Floats:
        """Return second less first antenna along u, v, w towards hour angle 0, (B, 3)."""
        offsets_m = self.stations_m[self.second] - self.stations_m[self.first]
        return np.asarray(offsets_m @ sky_axes(0.0, dec_rad).T)


@functools.cache
def dsa110() -> StationArray:
    """Return the array: 117 stations, of which 96 are correlated in the correlator's order."""
    table = stations()
    longitude, latitude = np.deg2rad(LONGITUDE_DEG), np.deg2rad(LATITUDE_DEG)
    site = erfa.gd2gc(1, longitude, latitude, HEIGHT_M)
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
    arm = np.array(table.arm)[active]
    halves = [
        half for name in ("ew", "ns") for half in np.array_split(np.flatnonzero(arm == name), 2)
    ]
    return StationArray(
        offsets_m=offsets_m,
        stations_m=stations_m,
        active=active,
        positions_m=stations_m[active],
        first=first,
        second=second,
        pairs=(np.searchsorted(active, first), np.searchsorted(active, second)),
        core_parts=tuple(halves),
        outriggers=np.flatnonzero(arm == "outrigger"),
    )


@functools.cache
def _bulletin() -> tuple[Floats, Floats, Floats, Floats]:
    """Read IERS Bulletin A from the package: MJD, UT1-UTC (s), polar motion x and y (rad)."""
    from astropy.utils.iers import IERS_A  # takes a second

    table = IERS_A.open(IERS_A_FILE)
    names = ("MJD", "UT1_UTC", "PM_x", "PM_y")
    days, dut1, x, y = (np.asarray(table[name].value, dtype=np.float64) for name in names)
    known, arcsec = np.isfinite(dut1), np.deg2rad(1 / 3600)
    return days[known], dut1[known], x[known] * arcsec, y[known] * arcsec


def _observer(mjd: Floats) -> tuple[Any, ...]:
    """Return the arguments that describe the observer to ERFA: UTC time, site, poles and air."""
    days, *columns = _bulletin()
    # No leap second has come since 2017, and none is announced, so UT1-UTC is smooth.
    dut1, x, y = (np.interp(mjd, days, column) for column in columns)
    place = (np.deg2rad(LONGITUDE_DEG), np.deg2rad(LATITUDE_DEG), HEIGHT_M)
    # No refraction: pressure, temperature and humidity are 0; then a wavelength in the radio.
    return (MJD_ZERO, mjd, dut1, *place, x, y, 0.0, 0.0, 0.0, 0.2e6)


def hadec(ra_rad: Floats, dec_rad: Floats, mjd: Floats) -> tuple[Floats, Floats]:
    """Return hour angle (west positive, -pi to pi) and Declination of ICRS positions, rad, (N, T).

    Of N positions at T UTC dates; topocentric, about the pole of the ITRS, without refraction.
    """
    # Precession, nutation and the Earth's velocity are computed once per time, not per source.
    earth, _ = erfa.apco13(*_observer(mjd))
    intermediate = erfa.atciq(ra_rad[:, None], dec_rad[:, None], 0.0, 0.0, 0.0, 0.0, earth[None])
    _, _, ha, dec, _ = erfa.atioq(*intermediate, earth[None])
    return np.remainder(np.asarray(ha) + np.pi, 2 * np.pi) - np.pi, np.asarray(dec)


def icrs_of_meridian(dec_rad: float, mjd: Floats) -> tuple[Floats, Floats]:
    """Return the ICRS position (rad, shape (T,)) of hour angle 0 and a Declination at UTC dates."""
    ra, dec = erfa.atoc13("H", 0.0, dec_rad, *_observer(mjd))
    return np.asarray(ra), np.asarray(dec)


def transit_mjd(ra_rad: float, dec_rad: float, after_mjd: float) -> float:
    """Return the first upper transit of an ICRS position from a UTC date on, to a millisecond."""
    place = np.array([ra_rad]), np.array([dec_rad])
    sidereal_day = 2 * np.pi / EARTH_RATE_RAD_S / DAY_S
    first, _ = hadec(*place, np.array([after_mjd]))
    mjd = after_mjd + np.remainder(-first[0, 0], 2 * np.pi) / (2 * np.pi) * sidereal_day
    for _ in range(3):
        angle, _ = hadec(*place, np.array([mjd]))
        mjd -= angle[0, 0] / (2 * np.pi) * sidereal_day
    return float(mjd)


def unit_vectors(ha_rad: Floats | float, dec_rad: Floats | float) -> Floats:
    """Return unit vectors in the telescope's frame, shape (..., 3)."""
    equator = np.cos(dec_rad)
    return np.stack([equator * np.cos(ha_rad), -equator * np.sin(ha_rad), np.sin(dec_rad)], axis=-1)


def sky_axes(ha_rad: float, dec_rad: float) -> Floats:
    """Return unit vectors east, north and towards a direction, telescope's frame, shape (3, 3)."""
    towards = unit_vectors(ha_rad, dec_rad)
    east = np.array([np.sin(ha_rad), np.cos(ha_rad), 0.0])
    return np.array([east, np.cross(towards, east), towards])


def ground_axes() -> Floats:
    """Return unit vectors east, north and up at the site, telescope's frame, shape (3, 3)."""
    return sky_axes(0.0, float(np.deg2rad(LATITUDE_DEG)))
