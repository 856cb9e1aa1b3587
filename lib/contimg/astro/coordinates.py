"""Directions in the sky: apparent hour angle and Declination, ICRS, sidereal time, offline.

The raw data are phased to directions in the *apparent* (HADEC) frame: hour angle and Declination that an observer at the
site measures without refraction, in the Earth-fixed axes of ITRF. So it contains precession, nutation, annual aberration,
light deflection by the Sun, diurnal aberration (up to 0.25" here) and polar motion (up to 0.5"). CASA's HADEC, astropy's
HADec (at zero pressure) and pyuvdata's apparent coordinates are the same frame. All angles are radians, all times UTC.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import erfa
import numpy as np

from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

MJD_ZERO_JD = 2400000.5
"""Julian Date of MJD 0."""
SECONDS_A_DAY = 86400.0
SIDEREAL_RATE = 1.00273781191135448
"""Turns of the Earth to the stars a UT1 day (IAU 2000, the rate of the Earth rotation angle)."""


@dataclass(frozen=True)
class Site:
    """Where an array stands, WGS84."""

    lat_deg: float
    lon_deg: float
    """East positive."""
    height_m: float

    @property
    def itrf_m(self) -> FloatArray:
        """Geocentric position, shape (3,), m."""
        where = erfa.gd2gc(
            erfa.WGS84, np.radians(self.lon_deg), np.radians(self.lat_deg), self.height_m
        )
        return np.asarray(where, np.float64)


def use_offline_iers() -> None:
    """Make astropy use the Earth orientation that is installed (astropy-iers-data) and never the network.

    Call it before any use of astropy's own ``Time.ut1``, ``sidereal_time`` or ``AltAz``; the functions here need no call.
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

    Raises
    ------
    BadInputError
        If a date is outside the installed table.
    """
    mjd = np.atleast_1d(np.asarray(mjd_utc, np.float64))
    days, dut1, x, y = _finals()
    if not np.all((mjd >= days[0]) & (mjd < days[-1])):
        found = f"MJD {np.nanmin(mjd):.5f} to {np.nanmax(mjd):.5f}"
        remedy = "Correct the times, or install a newer astropy-iers-data."
        raise BadInputError(
            "Earth orientation",
            f"expected times within MJD {days[0]:.0f} to {days[-1]:.0f}, found {found}.",
            remedy,
        )
    low = np.searchsorted(days, mjd, side="right") - 1
    part = (mjd - days[low]) / (days[low + 1] - days[low])
    step = dut1[low + 1] - dut1[low]
    # A step of a second is a leap second at the end of the day.
    ut1_utc = dut1[low] + part * (step - np.round(step))
    shape = np.shape(mjd_utc)
    arcsec = np.radians(1 / 3600)
    return tuple(
        v.reshape(shape)
        for v in (ut1_utc, np.interp(mjd, days, x) * arcsec, np.interp(mjd, days, y) * arcsec)
    )  # type: ignore[return-value]


@functools.cache
def _finals() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return MJD, UT1-UTC (s) and the polar motion (arcsec) of the installed IERS-A table, as astropy combines its bulletins.

    Read here because astropy takes 1.5 s for it, which every process would pay that needs one apparent position.
    """
    import astropy_iers_data

    content = Path(astropy_iers_data.IERS_A_FILE).read_bytes()
    width = content.index(b"\n") + 1
    table = np.frombuffer(content[: len(content) // width * width], "S1").reshape(-1, width)

    def column(first: int, last: int) -> FloatArray:
        words = np.char.strip(
            np.ascontiguousarray(table[:, first - 1 : last]).view(f"S{last - first + 1}").ravel()
        )
        words[words == b""] = b"nan"
        return words.astype(np.float64)

    # finals2000A: the columns of bulletin B, where it has a value already, else those of bulletin A.
    bulletin_b = (column(155, 165), column(135, 144), column(145, 154))
    bulletin_a = (column(59, 68), column(19, 27), column(38, 46))
    known = ~np.isnan(bulletin_a[0])
    dut1, x, y = (
        np.where(np.isnan(b), a, b)[known] for a, b in zip(bulletin_a, bulletin_b, strict=True)
    )
    return column(8, 15)[known], dut1, x, y


def apparent_hadec(
    ra_rad: npt.ArrayLike, dec_rad: npt.ArrayLike, mjd_utc: npt.ArrayLike, site: Site
) -> tuple[FloatArray, FloatArray]:
    """Return the apparent hour angle (-pi to pi, west positive) and Declination of ICRS directions, without refraction.

    Parameters
    ----------
    ra_rad, dec_rad, mjd_utc
        ICRS (epoch of date: no proper motion) and UTC; broadcast against each other. The dear part is done once an element of
        `mjd_utc`, so give it as (T, 1) and the sources as (S,).
    site
        The observer.

    Notes
    -----
    SOFA's chain apco13, atciqz, atioq, whose precession and nutation are IAU 2006/2000A.
    """
    astrom = _astrometry(mjd_utc, site)
    cirs_ra, cirs_dec = erfa.atciqz(ra_rad, dec_rad, astrom)
    _, _, hour_angle, dec, _ = erfa.atioq(cirs_ra, cirs_dec, astrom)
    return np.asarray(hour_angle), np.asarray(dec)


def icrs_of_hadec(
    ha_rad: npt.ArrayLike, dec_rad: npt.ArrayLike, mjd_utc: npt.ArrayLike, site: Site
) -> tuple[FloatArray, FloatArray]:
    """Return ICRS RA (0 to 2 pi) and Dec of apparent hour angles and Declinations: the inverse of `apparent_hadec`."""
    astrom = _astrometry(mjd_utc, site)
    cirs_ra, cirs_dec = erfa.atoiq("H", ha_rad, dec_rad, astrom)
    ra, dec = erfa.aticq(cirs_ra, cirs_dec, astrom)
    return np.asarray(ra), np.asarray(dec)


def local_sidereal_time_rad(mjd_utc: npt.ArrayLike, site: Site) -> FloatArray:
    """Return the local apparent sidereal time, 0 to 2 pi, of the shape of `mjd_utc`.

    Greenwich apparent sidereal time (IAU 2006/2000A) plus the geodetic longitude. The RA of HA = 0 in ICRS differs from it by
    precession and aberration since J2000, about 1200": use `icrs_of_hadec` for that.
    """
    mjd = np.asarray(mjd_utc, np.float64)
    dut1, _, _ = earth_rotation(mjd)
    ut1 = erfa.utcut1(MJD_ZERO_JD, mjd, dut1)
    terrestrial = erfa.taitt(*erfa.utctai(MJD_ZERO_JD, mjd))
    return np.asarray(
        erfa.anp(erfa.gst06a(*ut1, *terrestrial) + np.radians(site.lon_deg)), np.float64
    )


def direction_cosines(
    ra_rad: npt.ArrayLike, dec_rad: npt.ArrayLike, ra0_rad: npt.ArrayLike, dec0_rad: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return l (east), m (north) and n - 1 of directions about a centre (SIN projection); all broadcast.

    n - 1 is made from l and m where that is exact, so that it does not lose its digits near the centre.
    """
    dra = np.asarray(ra_rad, np.float64) - np.asarray(ra0_rad, np.float64)
    sin_dec, cos_dec, sin0, cos0 = (
        np.sin(dec_rad),
        np.cos(dec_rad),
        np.sin(dec0_rad),
        np.cos(dec0_rad),
    )
    east = cos_dec * np.sin(dra)
    north = sin_dec * cos0 - cos_dec * sin0 * np.cos(dra)
    along = sin_dec * sin0 + cos_dec * cos0 * np.cos(dra)
    towards = np.where(along > 0, -(east**2 + north**2) / (1.0 + np.abs(along)), along - 1.0)
    return np.asarray(east), np.asarray(north), towards


def direction_of_cosines(
    l_rad: npt.ArrayLike, m_rad: npt.ArrayLike, ra0_rad: npt.ArrayLike, dec0_rad: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return RA (0 to 2 pi) and Dec of direction cosines about a centre; NaN where l and m are beyond the horizon."""
    east, north = np.asarray(l_rad, np.float64), np.asarray(m_rad, np.float64)
    with np.errstate(invalid="ignore"):
        along = np.sqrt(1.0 - east**2 - north**2)
    sin0, cos0 = np.sin(dec0_rad), np.cos(dec0_rad)
    ra = np.asarray(ra0_rad, np.float64) + np.arctan2(east, along * cos0 - north * sin0)
    up = along * sin0 + north * cos0
    dec = np.arctan2(up, np.hypot(east, along * cos0 - north * sin0))
    return np.asarray(np.mod(ra, 2 * np.pi)), np.asarray(dec)


def separation_rad(
    ra1_rad: npt.ArrayLike, dec1_rad: npt.ArrayLike, ra2_rad: npt.ArrayLike, dec2_rad: npt.ArrayLike
) -> FloatArray:
    """Return the angle between directions, 0 to pi; exact at every distance; all broadcast."""
    return np.asarray(erfa.seps(ra1_rad, dec1_rad, ra2_rad, dec2_rad), np.float64)


def circular_mean_rad(angle_rad: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the direction of the mean unit vector of angles, 0 to 2 pi: the only mean that RA near 0h survives.

    Raises
    ------
    BadInputError
        If the angles cancel, or there are none: then they have no mean.
    """
    angle = np.asarray(angle_rad, np.float64)
    heavy = (
        np.ones_like(angle)
        if weight is None
        else np.broadcast_to(np.asarray(weight, np.float64), angle.shape)
    )
    total = complex(np.sum(heavy * np.exp(1j * angle)))
    if not abs(total) > 1e-9 * float(np.sum(np.abs(heavy))):
        raise BadInputError(
            "circular mean",
            "expected angles with a mean direction, found none, or such as cancel.",
            "Check the positions.",
        )
    return float(np.angle(total) % (2 * np.pi))


def _astrometry(mjd_utc: npt.ArrayLike, site: Site) -> Any:  # noqa: ANN401 - a structured array of SOFA's
    mjd = np.asarray(mjd_utc, np.float64)
    dut1, x, y = earth_rotation(mjd)
    no_air, no_matter = 0.0, 0.0
    astrom, _ = erfa.apco13(
        MJD_ZERO_JD,
        mjd,
        dut1,
        np.radians(site.lon_deg),
        np.radians(site.lat_deg),
        site.height_m,
        x,
        y,
        no_air,
        no_matter,
        no_matter,
        1e5,
    )
    return astrom
