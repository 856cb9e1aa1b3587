"""From measurements in an image's pixels to rows on the sky, in mJy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from contimg_photometry.measure import Measurements

Floats = NDArray[np.float64]

MJY = 1e3
LIMIT_SIGMA = 3.0
"""An upper limit is this many sigma above the forced flux, or above zero if that is negative."""


@dataclass(frozen=True)
class Targets:
    """The catalogue sources to measure, shape (N,) each."""

    name: NDArray[np.str_]
    ra_deg: Floats
    dec_deg: Floats
    flux_jy: Floats
    beam: Floats
    """Effective beam at the source, 1 at the centre."""


@dataclass(frozen=True)
class Observation:
    """What all rows of an image share."""

    group: str
    image: str
    """Key of the image artifact."""
    mjd: float
    strip_deg: float
    """Declination that the telescope pointed to."""


def source_name(ra_deg: float, dec_deg: float) -> str:
    """Return the IAU name of an ICRS position, ``DSA Jhhmmss.s+ddmmss``: digits are cut off, not rounded."""
    tenths = int(np.floor(ra_deg % 360.0 / 15.0 * 36000.0 + 1e-6))
    arcsec = int(np.floor(abs(dec_deg) * 3600.0 + 1e-6))
    sign = "-" if dec_deg < 0 else "+"
    hours, minutes, seconds = tenths // 36000, tenths // 600 % 60, tenths % 600
    return (
        f"DSA J{hours:02d}{minutes:02d}{seconds // 10:02d}.{seconds % 10}"
        f"{sign}{arcsec // 3600:02d}{arcsec // 60 % 60:02d}{arcsec % 60:02d}"
    )


def photometry_rows(
    targets: Targets,
    found: Measurements,
    sky: tuple[Floats, Floats, Floats, Floats],
    of: Observation,
    detection_snr: float,
    scale_error: float,
) -> dict[str, Any]:
    """Return the columns of the photometry table.

    Parameters
    ----------
    found
        In Jy/beam, apparent: not yet divided by the beam; finite.
    sky
        Fitted minus catalogue position, east and north, and their errors, arcsec; NaN where not fitted.
    scale_error
        1 sigma of the flux scale, a fraction.
    """
    n = targets.ra_deg.size
    factor = MJY / targets.beam
    forced, rms = found.peak * factor, found.peak_noise * factor
    fit, fit_rms = found.fit * factor, found.fit_noise * factor
    detected = found.peak >= detection_snr * found.peak_noise
    peak, fitted = np.where(detected, forced, np.nan), np.where(detected, fit, np.nan)
    catalogue = targets.flux_jy * MJY
    east, north, east_error, north_error = sky
    return {
        "source": [
            source_name(ra, dec) for ra, dec in zip(targets.ra_deg, targets.dec_deg, strict=True)
        ],
        "ra": targets.ra_deg,
        "dec": targets.dec_deg,
        "group": [of.group] * n,
        "image": [of.image] * n,
        "mjd": np.full(n, of.mjd),
        "strip": np.full(n, of.strip_deg),
        "beam": targets.beam,
        "flux_peak": peak,
        "flux_peak_err": np.hypot(rms, scale_error * np.where(detected, forced, np.nan)),
        "flux_fit": fitted,
        "flux_fit_err": np.hypot(fit_rms, scale_error * fitted),
        "flux_forced": forced,
        "local_rms": rms,
        "flux_fit_rms": fit_rms,
        "flux_scale_err": np.full(n, scale_error),
        "background": found.background * factor,
        "snr": found.peak / found.peak_noise,
        "upper_limit": ~detected,
        "flux_limit": np.where(detected, np.nan, np.maximum(forced, 0.0) + LIMIT_SIGMA * rms),
        "compactness": fitted / peak,
        "blend": found.blend,
        "ra_offset": east,
        "dec_offset": north,
        "ra_offset_err": east_error,
        "dec_offset_err": north_error,
        "catalogue_name": targets.name.tolist(),
        "catalogue_flux": catalogue,
        "flux_ratio": peak / catalogue,
    }
