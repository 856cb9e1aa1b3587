"""Where a source stands over the telescope: ICRS to hour angle and Declination, by ERFA alone.

The telescope's frame is the Earth's (ITRS): X points to the meridian of the site, Y to the east, Z to the pole.
This is the simulator's own path, kept apart from `contimg.astro.coordinates`, which the stages use and which it tests.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import erfa
import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S

Floats = npt.NDArray[np.float64]

MJD_ZERO = 2400000.5
EARTH_RATE_RAD_S = 7.292115855306589e-5
"""Rotation of the Earth against the stars, rad/s of UT1 (IERS Conventions 2010, ERA slope)."""


@dataclass(frozen=True)
class Site:
    """A place on the WGS84 ellipsoid."""

    longitude_deg: float
    """East."""
    latitude_deg: float
    height_m: float

    def itrs_m(self) -> Floats:
        """Return the geocentric position, shape (3,), metres."""
        xyz = erfa.gd2gc(
            1, np.deg2rad(self.longitude_deg), np.deg2rad(self.latitude_deg), self.height_m
        )
        return np.asarray(xyz, dtype=np.float64)


SITE = Site(longitude_deg=-118.283, latitude_deg=37.234, height_m=1188.0)
"""The DSA-110 as its files state it."""


@functools.cache
def _bulletin() -> tuple[Floats, Floats, Floats, Floats]:
    """Read IERS Bulletin A from the package: MJD, UT1-UTC (s), polar motion x and y (rad)."""
    from astropy.utils.iers import IERS_A
    from astropy_iers_data import IERS_A_FILE

    table = IERS_A.open(IERS_A_FILE)
    known = np.isfinite(np.asarray(table["UT1_UTC"].value, dtype=np.float64))
    arcsec = np.deg2rad(1 / 3600)
    columns = [
        np.asarray(table[name].value, dtype=np.float64)[known]
        for name in ("MJD", "UT1_UTC", "PM_x", "PM_y")
    ]
    return columns[0], columns[1], columns[2] * arcsec, columns[3] * arcsec


def earth_orientation(mjd: Floats) -> tuple[Floats, Floats, Floats]:
    """Return UT1-UTC (s) and polar motion (rad) at UTC dates, linear between the daily values."""
    days, dut1, x, y = _bulletin()
    # No leap second has come since 2017, and none is announced, so that UT1-UTC is smooth over every date of ours.
    return np.interp(mjd, days, dut1), np.interp(mjd, days, x), np.interp(mjd, days, y)


def hadec(ra_rad: Floats, dec_rad: Floats, mjd: Floats, site: Site = SITE) -> tuple[Floats, Floats]:
    """Return the topocentric hour angle and Declination of ICRS places, without refraction.

    Parameters
    ----------
    ra_rad, dec_rad
        ICRS, radians, shape (N,).
    mjd
        UTC, days, shape (T,).

    Returns
    -------
    Hour angle (west positive, in -pi to pi) and Declination, radians, shape (N, T), about the pole of the ITRS.
    """
    dut1, x, y = earth_orientation(mjd)
    # The Earth's part (precession, nutation, its velocity) is worked out once for each time, not for each source.
    earth, _ = erfa.apco13(
        MJD_ZERO,
        mjd,
        dut1,
        np.deg2rad(site.longitude_deg),
        np.deg2rad(site.latitude_deg),
        site.height_m,
        x,
        y,
        0.0,
        0.0,
        0.0,
        0.2e6,
    )
    intermediate = erfa.atciq(ra_rad[:, None], dec_rad[:, None], 0.0, 0.0, 0.0, 0.0, earth[None])
    _, _, ha, dec, _ = erfa.atioq(*intermediate, earth[None])
    return np.remainder(np.asarray(ha) + np.pi, 2 * np.pi) - np.pi, np.asarray(dec)


def icrs_of_meridian(dec_rad: float, mjd: Floats, site: Site = SITE) -> tuple[Floats, Floats]:
    """Return the ICRS place (radians, shape (T,)) that stands at hour angle 0 and a Declination at UTC dates."""
    dut1, x, y = earth_orientation(mjd)
    ra, dec = erfa.atoc13(
        "H",
        0.0,
        dec_rad,
        MJD_ZERO,
        mjd,
        dut1,
        np.deg2rad(site.longitude_deg),
        np.deg2rad(site.latitude_deg),
        site.height_m,
        x,
        y,
        0.0,
        0.0,
        0.0,
        0.2e6,
    )
    return np.asarray(ra), np.asarray(dec)


def transit_mjd(ra_rad: float, dec_rad: float, after_mjd: float, site: Site = SITE) -> float:
    """Return the first upper transit of an ICRS place at or after a UTC date, MJD, to a millisecond."""
    place = np.array([ra_rad]), np.array([dec_rad])
    sidereal_day = 2 * np.pi / EARTH_RATE_RAD_S / DAY_S
    first, _ = hadec(*place, np.array([after_mjd]), site)
    mjd = after_mjd + np.remainder(-first[0, 0], 2 * np.pi) / (2 * np.pi) * sidereal_day
    for _ in range(3):
        angle, _ = hadec(*place, np.array([mjd]), site)
        mjd -= angle[0, 0] / (2 * np.pi) * sidereal_day
    return float(mjd)


def unit_vectors(ha_rad: Floats | float, dec_rad: Floats | float) -> Floats:
    """Return unit vectors in the telescope's frame, shape (..., 3)."""
    equator = np.cos(dec_rad)
    return np.stack([equator * np.cos(ha_rad), -equator * np.sin(ha_rad), np.sin(dec_rad)], axis=-1)


def to_meridian(offsets_itrs_m: Floats, site: Site = SITE) -> Floats:
    """Turn ITRS offsets, shape (N, 3), into the telescope's frame."""
    sine, cosine = np.sin(np.deg2rad(site.longitude_deg)), np.cos(np.deg2rad(site.longitude_deg))
    x, y, z = offsets_itrs_m.T
    return np.stack([x * cosine + y * sine, -x * sine + y * cosine, z], axis=-1)
