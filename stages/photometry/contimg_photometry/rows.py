"""Rows of the photometry table: measurements in pixels become positions and fluxes in mJy."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from contimg_photometry.kernels import Floats
from contimg_photometry.measure import Measurements

ARCSEC_PER_DEG = 3600.0
MJY_PER_JY = 1e3
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
    """Effective beam at the source, 1 on the axis of the dishes."""


@dataclass(frozen=True)
class ImageEpoch:
    """What all rows of an image share."""

    group: str
    image: str
    """Key of the image artifact."""
    mjd: float
    strip_deg: float
    """Declination at which the telescope pointed."""


T = TypeVar("T", Targets, Measurements)


def select_sources(whole: T, selected: NDArray[np.bool_]) -> T:
    """Return some elements of every array of a dataclass."""
    return replace(
        whole, **{item.name: getattr(whole, item.name)[selected] for item in fields(whole)}
    )


def source_name(ra_deg: float, dec_deg: float) -> str:
    """Return the IAU name of an ICRS position, ``DSA Jhhmmss.s+ddmmss``: truncated, not rounded."""
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
    cell_deg: tuple[float, float],
    epoch: ImageEpoch,
    detection_snr: float,
    scale_error: float,
) -> dict[str, Any]:
    """Return the columns of the photometry table.

    Fluxes are found in Jy/beam, apparent and finite. `cell_deg` are the signed increments of the
    image axes: over the width of a beam the tangent plane is east and north to a part in a
    thousand. `scale_error` is 1 sigma of the flux scale, a fraction.
    """
    n = targets.ra_deg.size
    factor = MJY_PER_JY / targets.beam
    forced, rms = found.peak * factor, found.peak_noise * factor
    fit, fit_rms = found.fit * factor, found.fit_noise * factor
    detected = found.peak >= detection_snr * found.peak_noise
    peak, fitted = np.where(detected, forced, np.nan), np.where(detected, fit, np.nan)
    catalogue = targets.flux_jy * MJY_PER_JY
    cell_x, cell_y = (cell * ARCSEC_PER_DEG for cell in cell_deg)
    positions = zip(targets.ra_deg, targets.dec_deg, strict=True)
    return {
        "source": [source_name(ra, dec) for ra, dec in positions],
        "ra": targets.ra_deg,
        "dec": targets.dec_deg,
        "group": [epoch.group] * n,
        "image": [epoch.image] * n,
        "mjd": np.full(n, epoch.mjd),
        "strip": np.full(n, epoch.strip_deg),
        "beam": targets.beam,
        "flux_peak": peak,
        "flux_peak_err": np.hypot(rms, scale_error * peak),
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
        "ra_offset": found.dx * cell_x,
        "dec_offset": found.dy * cell_y,
        "ra_offset_err": found.dx_noise * abs(cell_x),
        "dec_offset_err": found.dy_noise * abs(cell_y),
        "catalogue_name": targets.name.tolist(),
        "catalogue_flux": catalogue,
        "flux_ratio": peak / catalogue,
    }
