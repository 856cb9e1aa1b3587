"""Directions in the sky: apparent hour angle and Declination, ICRS, sidereal time, offline.

The raw data are phased to directions in the *apparent* (HADEC) frame: hour angle and Declination
that an observer at the site measures without refraction, in the Earth-fixed axes of ITRF. It
contains precession, nutation, annual aberration, light deflection by the Sun, diurnal aberration
(up to 0.25" here) and polar motion (up to 0.5"). CASA's HADEC, astropy's HADec (at zero pressure)
and pyuvdata's apparent coordinates are the same frame. All angles are radians, all times UTC.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import erfa
import numpy as np
import numpy.typing as npt

from contimg.records.groups import MJD_ZERO_JD
from contimg.runtime.errors import BadInputError

FloatArray = npt.NDArray[np.float64]

SIDEREAL_RATE = 1.00273781191135448
"""Turns of the Earth relative to the stars per UT1 day (IAU 2000 Earth rotation angle)."""
ARCSEC_RAD = np.radians(1 / 3600)


@dataclass(frozen=True)
class Site:
    """The position of an array, WGS84."""

    lat_deg: float
    lon_deg: float
    """East positive."""
    height_m: float

    @property
    def itrf_m(self) -> FloatArray:
        """Geocentric position, shape (3,), m."""
        lon, lat = np.radians(self.lon_deg), np.radians(self.lat_deg)
        return np.asarray(erfa.gd2gc(erfa.WGS84, lon, lat, self.height_m), np.float64)


def use_offline_iers() -> None:
    """Make astropy use the installed Earth orientation (astropy-iers-data), never the network.

    Call it before astropy's own ``Time.ut1``, ``sidereal_time`` or ``AltAz`` are used; the
    functions of this module do not need it.
    """
    from astropy.utils import iers

    iers.conf.auto_download = False
    iers.conf.auto_max_age = None
    iers.earth_orientation_table.set(earth_orientation())


@functools.cache
def earth_orientation() -> Any:  # noqa: ANN401 - astropy has no types
    """Return the installed IERS-A table (measured values and predictions for a year)."""
    import astropy_iers_data
    from astropy.utils import iers

    return iers.IERS_A.open(astropy_iers_data.IERS_A_FILE)


def earth_rotation(mjd_utc: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return UT1-UTC (s) and the polar motion x, y (rad), each of the shape of `mjd_utc` (days).

    Raises BadInputError if a date is outside the installed table.
    """
    mjd = np.atleast_1d(np.asarray(mjd_utc, np.float64))
    days, dut1, x, y = _finals()
    if not np.all((mjd >= days[0]) & (mjd < days[-1])):
        asked = f"{np.nanmin(mjd):.5f} to {np.nanmax(mjd):.5f}"
        problem = f"It is known from MJD {days[0]:.0f} to {days[-1]:.0f}, not at MJD {asked}."
        remedy = "Correct the times, or install a newer astropy-iers-data."
        raise BadInputError("Earth orientation", problem, remedy)
    low = np.searchsorted(days, mjd, side="right") - 1
    part = (mjd - days[low]) / (days[low + 1] - days[low])
    step = dut1[low + 1] - dut1[low]
    # A step of a second is a leap second at the end of the day.
    ut1_utc = dut1[low] + part * (step - np.round(step))
    shape = np.shape(mjd_utc)
    x_rad, y_rad = (np.interp(mjd, days, arcsec) * ARCSEC_RAD for arcsec in (x, y))
    return ut1_utc.reshape(shape), x_rad.reshape(shape), y_rad.reshape(shape)


def earth_orientation_end() -> float:
    """Return the MJD at which the installed table ends: later groups cannot be converted."""
    return float(_finals()[0][-1])


@functools.cache
def _finals() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return MJD, UT1-UTC (s) and polar motion (arcsec) of the installed IERS-A table.

    The bulletins are combined as in astropy, which takes 1.5 s to read the table.
    """
    import astropy_iers_data

    content = Path(astropy_iers_data.IERS_A_FILE).read_bytes()
    width = content.index(b"\n") + 1
    table = np.frombuffer(content[: len(content) // width * width], "S1").reshape(-1, width)

    # finals2000A: MJD, then UT1-UTC, x and y of bulletin A and the same of bulletin B.
    bulletin_a, bulletin_b = ((59, 68), (19, 27), (38, 46)), ((155, 165), (135, 144), (145, 154))
    columns = []
    for first, last in ((8, 15), *bulletin_a, *bulletin_b):
        letters = np.ascontiguousarray(table[:, first - 1 : last])
        words = np.char.strip(letters.view(f"S{last - first + 1}").ravel())
        words[words == b""] = b"nan"
        columns.append(words.astype(np.float64))
    mjd, *values = columns
    known = ~np.isnan(values[0])
    dut1, x, y = (
        np.where(np.isnan(b), a, b)[known] for a, b in zip(values[:3], values[3:], strict=True)
    )
    return mjd[known], dut1, x, y


def apparent_hadec(
    ra_rad: npt.ArrayLike, dec_rad: npt.ArrayLike, mjd_utc: npt.ArrayLike, site: Site
) -> tuple[FloatArray, FloatArray]:
    """Return the apparent hour angle (-pi to pi, west positive) and Declination, unrefracted.

    Arguments are ICRS (epoch of date: no proper motion) and UTC; they broadcast. The slow part is
    done once per element of `mjd_utc`, so give it as (T, 1) and the sources as (S,). It is SOFA's
    chain apco13, atciqz, atioq, whose precession and nutation are IAU 2006/2000A.
    """
    astrom = _astrometry(mjd_utc, site)
    cirs_ra, cirs_dec = erfa.atciqz(ra_rad, dec_rad, astrom)
    _, _, hour_angle, dec, _ = erfa.atioq(cirs_ra, cirs_dec, astrom)
    return np.asarray(hour_angle), np.asarray(dec)


def icrs_of_hadec(
    ha_rad: npt.ArrayLike, dec_rad: npt.ArrayLike, mjd_utc: npt.ArrayLike, site: Site
) -> tuple[FloatArray, FloatArray]:
    """Return ICRS RA (0 to 2 pi) and Dec of apparent directions; inverts `apparent_hadec`."""
    astrom = _astrometry(mjd_utc, site)
    cirs_ra, cirs_dec = erfa.atoiq("H", ha_rad, dec_rad, astrom)
    ra, dec = erfa.aticq(cirs_ra, cirs_dec, astrom)
    return np.asarray(ra), np.asarray(dec)


def direction_cosines(
    ra_rad: npt.ArrayLike, dec_rad: npt.ArrayLike, ra0_rad: npt.ArrayLike, dec0_rad: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return l (east), m (north) and n - 1 of directions about a centre (SIN projection).

    All arguments broadcast. n - 1 is computed from l and m where that is exact, so that it does
    not lose digits near the centre.
    """
    dra = np.asarray(ra_rad, np.float64) - np.asarray(ra0_rad, np.float64)
    sin_dec, cos_dec = np.sin(dec_rad), np.cos(dec_rad)
    sin0, cos0 = np.sin(dec0_rad), np.cos(dec0_rad)
    east = cos_dec * np.sin(dra)
    north = sin_dec * cos0 - cos_dec * sin0 * np.cos(dra)
    along = sin_dec * sin0 + cos_dec * cos0 * np.cos(dra)
    towards = np.where(along > 0, -(east**2 + north**2) / (1.0 + np.abs(along)), along - 1.0)
    return np.asarray(east), np.asarray(north), towards


def drift_offsets(
    ra_rad: FloatArray,
    dec_rad: FloatArray,
    mjd_utc: FloatArray,
    pointing_dec_rad: float,
    site: Site,
) -> FloatArray:
    """Return where sources, (S,), are in the beam of a drifting array at moments (T,): (S, T, 3).

    These are l, m and n - 1 about the meridian at an apparent Declination.
    """
    hour_angle, dec = apparent_hadec(ra_rad, dec_rad, mjd_utc[:, None], site)
    cosines = direction_cosines(-hour_angle, dec, 0.0, pointing_dec_rad)
    return np.asarray(np.stack(cosines, axis=-1).transpose(1, 0, 2))


def separation_rad(
    ra1_rad: npt.ArrayLike, dec1_rad: npt.ArrayLike, ra2_rad: npt.ArrayLike, dec2_rad: npt.ArrayLike
) -> FloatArray:
    """Return the angle between directions, 0 to pi, exact at every distance; all broadcast."""
    return np.asarray(erfa.seps(ra1_rad, dec1_rad, ra2_rad, dec2_rad), np.float64)


def circular_mean_rad(angle_rad: npt.ArrayLike) -> float:
    """Return the direction of the mean unit vector of angles, 0 to 2 pi; valid for RA near 0h.

    Raises BadInputError if the angles cancel, or there are none: then they have no mean.
    """
    angle = np.asarray(angle_rad, np.float64)
    total = complex(np.sum(np.exp(1j * angle)))
    if not abs(total) > 1e-9 * angle.size:
        problem = "The angles have no mean direction: there are none, or they cancel."
        raise BadInputError("circular mean", problem, "Check the positions.")
    return float(np.angle(total) % (2 * np.pi))


def _astrometry(mjd_utc: npt.ArrayLike, site: Site) -> Any:  # noqa: ANN401 - SOFA's structured array
    mjd = np.asarray(mjd_utc, np.float64)
    dut1, x, y = earth_rotation(mjd)
    place = np.radians(site.lon_deg), np.radians(site.lat_deg), site.height_m
    refraction = (0.0, 0.0, 0.0, 1e5)  # no pressure, degrees Celsius, humidity, wavelength in um
    astrom, _ = erfa.apco13(MJD_ZERO_JD, mjd, dut1, *place, x, y, *refraction)
    return astrom
