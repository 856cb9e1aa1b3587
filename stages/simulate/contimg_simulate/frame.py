"""Where a source stands over the telescope: ICRS to hour angle and Declination, by ERFA alone.

The telescope's frame is the Earth's (ITRS): X points to the meridian of the site, Y to the east, Z
to the pole. This is the simulator's own path, kept apart from `contimg.astro.coordinates`, which
the stages use and which it tests.
"""

from __future__ import annotations

import functools
from typing import Any

import erfa
import numpy as np
import numpy.typing as npt
from astropy_iers_data import IERS_A_FILE

from contimg.astro.constants import DAY_S

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
VACUUM = (0.0, 0.0, 0.0, 0.2e6)
"""Pressure, temperature and humidity without refraction, and a wavelength in the radio."""


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
    return (MJD_ZERO, mjd, dut1, *place, x, y, *VACUUM)


def hadec(ra_rad: Floats, dec_rad: Floats, mjd: Floats) -> tuple[Floats, Floats]:
    """Return the topocentric hour angle and Declination of ICRS positions, without refraction.

    Parameters
    ----------
    ra_rad, dec_rad
        ICRS, shape (N,).
    mjd
        UTC, shape (T,).

    Returns
    -------
    Hour angle (west positive, -pi to pi) and Declination, rad, shape (N, T), about the pole of the
    ITRS.
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
