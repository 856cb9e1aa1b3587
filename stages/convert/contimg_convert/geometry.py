"""From the meridian to one ICRS phase centre: the rotation of the data, and UVW for the new centre.

The correlator stopped the fringes of each integration for a direction that is fixed to the Earth:
hour angle 0 and the pointing Declination, apparent. Everything here is per antenna and integration
(96 x 24), not per baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contimg.astro.coordinates import Site, apparent_hadec, circular_mean_rad, icrs_of_hadec
from contimg.records.groups import MJD_ZERO_JD

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STEP_RAD = 1e-4
"""Of the numerical derivative: its error, STEP_RAD^2, and rounding, 1e-16 / STEP_RAD, are small."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The phase centre of a group and what each antenna contributes; T integrations, A antennas."""

    ra_rad: float
    """Phase centre, ICRS."""
    dec_rad: float
    uvw_m: FloatArray
    """Shape (T, A, 3); the UVW of an MS row is that of its ANTENNA1 less that of its ANTENNA2."""
    delay_m: FloatArray
    """Shape (T, A): path to the new centre less path to the old one."""


def rotate_to_icrs(
    times_jd: FloatArray, ha_rad: float, dec_rad: float, site: Site, positions_m: FloatArray
) -> Geometry:
    """Return the geometry that takes data phased to (HA, Dec) to the centre of the group.

    The centre is the mean ICRS direction of the pointing centres of the integrations. `times_jd`
    are their midpoints, UTC, Julian Date, shape (T,); HA and Dec, where the fringes were stopped,
    are apparent and the same for all. `positions_m`, shape (A, 3), are relative to the site in
    ITRF axes.

    Notes
    -----
    u and v are the derivatives of the path with respect to the ICRS direction cosines l and m, and
    w is the path itself. So they contain the aberration of the field, which scales offsets from
    the centre by up to 1e-4 (0.7" at 2 degrees), and positions in the image are ICRS all over it.
    The usual rotation by a position angle leaves that out.
    """
    mjd, antennas = times_jd - MJD_ZERO_JD, local_axes(positions_m, site)
    ra, dec = icrs_of_hadec(ha_rad, dec_rad, mjd, site)
    ra0, dec0 = circular_mean_rad(ra), float(np.mean(dec))
    uvw = np.einsum("ak,tik->tai", antennas, sky_axes(ra0, dec0, mjd, site))
    delay = uvw[..., 2] - antennas @ unit_vector(ha_rad, dec_rad)
    return Geometry(ra_rad=ra0, dec_rad=dec0, uvw_m=uvw, delay_m=delay)


def sky_axes(ra_rad: float, dec_rad: float, mjd: FloatArray, site: Site) -> FloatArray:
    """Return u, v, w of an ICRS centre, (T, 3, 3): time, axis, component as in `local_axes`."""
    sin_ra, cos_ra = np.sin(ra_rad), np.cos(ra_rad)
    sin_dec, cos_dec = np.sin(dec_rad), np.cos(dec_rad)
    radial = np.array([cos_dec * cos_ra, cos_dec * sin_ra, sin_dec])
    east = np.array([-sin_ra, cos_ra, 0.0])
    north = np.array([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec])

    def apparent(x: float, y: float, z: float) -> FloatArray:
        ra, dec = np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))
        return unit_vector(*apparent_hadec(ra, dec, mjd, site))

    steps = [(radial + STEP_RAD * axis, radial - STEP_RAD * axis) for axis in (east, north)]
    slopes = [(apparent(*ahead) - apparent(*behind)) / (2 * STEP_RAD) for ahead, behind in steps]
    centre = unit_vector(*apparent_hadec(ra_rad, dec_rad, mjd, site))
    return np.stack([*slopes, centre], axis=1)


def local_axes(positions_m: FloatArray, site: Site) -> FloatArray:
    """Turn ITRF offsets, shape (A, 3), about the pole: x to the meridian, y east, z north."""
    lon = np.radians(site.lon_deg)
    x, y, z = positions_m.T
    meridian = x * np.cos(lon) + y * np.sin(lon)
    return np.stack([meridian, y * np.cos(lon) - x * np.sin(lon), z], axis=1)


def unit_vector(ha_rad: npt.ArrayLike, dec_rad: npt.ArrayLike) -> FloatArray:
    """Return unit vectors of hour angle (west positive) and Dec, (..., 3), as in `local_axes`."""
    sin_ha, cos_ha, cos_dec = np.sin(ha_rad), np.cos(ha_rad), np.cos(dec_rad)
    return np.stack([cos_dec * cos_ha, -cos_dec * sin_ha, np.sin(dec_rad)], axis=-1)


def meridian_uvw(ha_rad: float, dec_rad: float, site: Site, positions_m: FloatArray) -> FloatArray:
    """Return each antenna's UVW towards a direction fixed to the Earth, (A, 3), as in raw files."""
    sin_ha, cos_ha = np.sin(ha_rad), np.cos(ha_rad)
    sin_dec, cos_dec = np.sin(dec_rad), np.cos(dec_rad)
    u = [sin_ha, cos_ha, 0.0]
    v = [-sin_dec * cos_ha, sin_dec * sin_ha, cos_dec]
    w = [cos_dec * cos_ha, -cos_dec * sin_ha, sin_dec]
    uvw: FloatArray = local_axes(positions_m, site) @ np.array([u, v, w]).T
    return uvw
