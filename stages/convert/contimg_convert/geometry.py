"""From the meridian to one ICRS centre: where the data are phased, where they shall be, and UVW for it.

The correlator stopped the fringes of each integration for a direction that is fixed to the Earth: hour angle 0 and the
pointing Declination, apparent. Everything here is per antenna and integration (96 x 24), not per baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.coordinates import (
    Site,
    apparent_hadec,
    circular_mean_rad,
    icrs_of_hadec,
)
from contimg.records.groups import MJD_ZERO_JD

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

STEP = 1e-4
"""Offset of the numerical derivative, radians: its error, STEP^2, and rounding, 1e-16 / STEP, are both below 1e-7."""
UVW_LIMIT = 1.1
"""No baseline may look longer than this times the longest one."""


@dataclass(frozen=True)
class Geometry:
    """A group's phase centre and what each antenna contributes; T integrations, A antennas."""

    ra_rad: float
    """Phase centre, ICRS."""
    dec_rad: float
    uvw_m: FloatArray
    """Shape (T, A, 3); UVW of an MS row is that of its ANTENNA1 less that of its ANTENNA2."""
    delay_m: FloatArray
    """Shape (T, A): path to the new centre less path to the old one."""


def phase_centre(
    times_jd: FloatArray, ha_rad: float, dec_rad: float, site: Site
) -> tuple[float, float]:
    """Return the ICRS direction in the middle of the pointing centres of a group's integrations."""
    ra, dec = icrs_of_hadec(ha_rad, dec_rad, times_jd - MJD_ZERO_JD, site)
    return circular_mean_rad(ra), float(np.mean(dec))


def rotate_to_icrs(
    times_jd: FloatArray, ha_rad: float, dec_rad: float, site: Site, positions_m: FloatArray
) -> Geometry:
    """Return the geometry that takes data phased to (HA, Dec) to the centre of the group.

    Parameters
    ----------
    times_jd
        Midpoints, UTC, Julian Date, shape (T,).
    ha_rad, dec_rad
        Where the fringes were stopped: apparent, the same for all integrations.
    site
        Where the array stands.
    positions_m
        Antennas relative to the site in ITRF axes, shape (A, 3).

    Notes
    -----
    u and v are the derivatives of the path with respect to the ICRS direction cosines l and m, and w is the path itself. So
    they contain the aberration of the field, which scales offsets from the centre by up to 1e-4 (0.7" at 2 degrees), and
    positions in the image are ICRS all over it. The usual rotation by a position angle leaves that out.
    """
    mjd = times_jd - MJD_ZERO_JD
    ra0, dec0 = phase_centre(times_jd, ha_rad, dec_rad, site)
    antennas = local_axes(positions_m, site)
    axes = sky_axes(ra0, dec0, mjd, site)
    uvw = np.einsum("ak,tik->tai", antennas, axes)
    old = unit_vector(ha_rad, dec_rad)
    return Geometry(ra0, dec0, uvw, uvw[..., 2] - antennas @ old)


def sky_axes(ra_rad: float, dec_rad: float, mjd: FloatArray, site: Site) -> FloatArray:
    """Return the axes u, v, w of an ICRS centre in the local frame of `local_axes`, shape (T, 3, 3): time, axis, component."""
    centre = unit_vector(*apparent_hadec(ra_rad, dec_rad, mjd, site))
    sin_ra, cos_ra, sin_dec, cos_dec = (
        np.sin(ra_rad),
        np.cos(ra_rad),
        np.sin(dec_rad),
        np.cos(dec_rad),
    )
    radial = np.array([cos_dec * cos_ra, cos_dec * sin_ra, sin_dec])
    east = np.array([-sin_ra, cos_ra, 0.0])
    north = np.array([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec])

    def apparent(direction: FloatArray) -> FloatArray:
        ra, dec = (
            np.arctan2(direction[1], direction[0]),
            np.arctan2(direction[2], np.hypot(direction[0], direction[1])),
        )
        return unit_vector(*apparent_hadec(ra, dec, mjd, site))

    slopes = [
        (apparent(radial + STEP * axis) - apparent(radial - STEP * axis)) / (2 * STEP)
        for axis in (east, north)
    ]
    return np.stack([*slopes, centre], axis=1)


def local_axes(positions_m: FloatArray, site: Site) -> FloatArray:
    """Turn ITRF offsets, shape (A, 3), about the pole: x to the site's meridian at the equator, y east, z north."""
    lon = np.radians(site.lon_deg)
    x, y, z = positions_m.T
    return np.stack(
        [x * np.cos(lon) + y * np.sin(lon), y * np.cos(lon) - x * np.sin(lon), z], axis=1
    )


def unit_vector(ha_rad: npt.ArrayLike, dec_rad: npt.ArrayLike) -> FloatArray:
    """Return the unit vectors of hour angles (west positive) and Declinations in the frame of `local_axes`, shape (..., 3)."""
    return np.stack(
        [np.cos(dec_rad) * np.cos(ha_rad), -np.cos(dec_rad) * np.sin(ha_rad), np.sin(dec_rad)],
        axis=-1,
    )


def meridian_uvw(ha_rad: float, dec_rad: float, site: Site, positions_m: FloatArray) -> FloatArray:
    """Return each antenna's UVW towards a direction fixed to the Earth, shape (A, 3): what the raw files carry."""
    sin_ha, cos_ha, sin_dec, cos_dec = (
        np.sin(ha_rad),
        np.cos(ha_rad),
        np.sin(dec_rad),
        np.cos(dec_rad),
    )
    axes = np.array(
        [
            [sin_ha, cos_ha, 0.0],
            [-sin_dec * cos_ha, sin_dec * sin_ha, cos_dec],
            [cos_dec * cos_ha, -cos_dec * sin_ha, sin_dec],
        ]
    )
    uvw: FloatArray = local_axes(positions_m, site) @ axes.T
    return uvw
