"""Integrated fluxes and sizes: an elliptical Gaussian fitted to a source, and the beam taken out.

A peak tells too little of a source that is 20 to 40 arcsec wide, and so does a fit of the beam. The
parameters are amplitude, x, y and the covariance of the Gaussian (xx, xy, yy, pixel^2), in which
taking out the beam is a difference. Errors follow from the autocorrelation of the noise; they agree
with those of Condon (1997, PASP 109, 166) for a source that is as wide as the noise is correlated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from contimg_photometry.kernels import Floats, Image, Ints
from contimg_photometry.measure import cut_out
from contimg_photometry.noise import BeamProfile, Correlation

SIGMA_TO_FWHM = float(np.sqrt(8 * np.log(2)))
MAX_ROUNDS = 30
CONVERGED = 1e-4
"""Relative change of the flux at which the fit ends."""
MAX_WIDTH_BEAMS = 3.0
"""A fit that becomes wider than this has run away into neighbours or background."""
SIZE_SIGMA = 3.0
"""Widths are stated if the source is wider than the beam by this many sigma."""


class ExtendedFit(NamedTuple):
    """A Gaussian fit in the image's unit; NaN if it failed."""

    flux: float = np.nan
    """Integrated flux: amplitude times the fitted area over that of the beam."""
    flux_noise: float = np.nan
    shape: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    """Covariance (xx, xy, yy) of the source without the beam, pixel^2; NaN if unresolved."""


def fit_extended(
    pixels: Image,
    place: tuple[float, float],
    beam: BeamProfile,
    noise: Correlation,
    level: tuple[float, float, float],
    radius: float,
) -> ExtendedFit:
    """Fit a source at a place x, y within a radius, pixels, by damped Gauss-Newton rounds.

    `level` is the amplitude to begin with, the background and the local rms.
    """
    (a, b, c), (peak, background, sigma) = beam.form, level
    columns, rows, patch, use = cut_out(pixels, np.array(place)[:, None], radius)
    beam_shape = np.linalg.inv(2 * np.array([[a, b], [b, c]]))[np.triu_indices(2)]
    now: Floats = np.array([peak, *place, *beam_shape])
    known = np.where(use, patch - background, 0.0)
    design: Floats
    inverse: Floats
    for _ in range(MAX_ROUNDS):
        value, design = _gaussian(now, columns, rows)
        design = np.asarray(np.where(use, design, 0.0), np.float64)
        flat = design.reshape(6, -1)
        normal = flat @ flat.T
        if not np.isfinite(normal).all() or np.linalg.cond(normal) > 1 / np.finfo(float).eps:
            return ExtendedFit()
        inverse = np.asarray(np.linalg.inv(normal), np.float64)
        step = inverse @ (flat @ (known - np.where(use, value, 0.0)).ravel())
        trial, before = now + step, _integral(now)
        # A step to a shape that is no ellipse, or twice as wide, goes too far.
        while not 0 < _area(trial) < 4 * _area(now) or trial[3] <= 0:
            step /= 2
            trial = now + step
            if np.abs(step).max() < CONVERGED * np.abs(now).max() * 1e-4:
                return ExtendedFit()
        now = trial
        if abs(_integral(now) - before) < CONVERGED * abs(before):
            break
    else:
        return ExtendedFit()
    area, away = _area(beam_shape), np.hypot(*(now[1:3] - place))
    if now[0] <= 0 or _area(now) > MAX_WIDTH_BEAMS**2 * area or away > radius / 2:
        return ExtendedFit()
    covariance = sigma**2 * inverse @ noise.covariance(design) @ inverse.T
    ratio, determinant = _area(now) / area, now[3] * now[5] - now[4] ** 2
    amplitude = now[0] * ratio / (2 * determinant)
    gradient = np.array([ratio, 0, 0, *(amplitude * np.array([now[5], -2 * now[4], now[3]]))])
    wider = now[3:] - beam_shape
    wider_noise = float(np.sqrt(np.array([1, 0, 1]) @ covariance[3:, 3:] @ np.array([1, 0, 1])))
    resolved = wider[0] + wider[2] > SIZE_SIGMA * wider_noise
    xx, xy, yy = (float(part) if resolved else np.nan for part in wider)
    return ExtendedFit(
        flux=float(now[0] * ratio),
        flux_noise=float(np.sqrt(gradient @ covariance @ gradient)),
        shape=(xx, xy, yy),
    )


def widths(shape: tuple[float, float, float], cell: Floats) -> tuple[float, float, float]:
    """Return major and minor axis (FWHM) and position angle (deg) on the sky of a covariance.

    `cell`, shape (2, 2), turns pixels into offsets to the east and north, in the unit of the axes.
    An axis along which the source is narrower than the beam is 0.
    """
    xx, xy, yy = shape
    if not np.isfinite(xx):
        return np.nan, np.nan, np.nan
    values, vectors = np.linalg.eigh(cell @ np.array([[xx, xy], [xy, yy]]) @ cell.T)
    minor, major = SIGMA_TO_FWHM * np.sqrt(np.maximum(values, 0.0))
    east, north = vectors[:, 1]
    return float(major), float(minor), float(np.degrees(np.arctan2(east, north)) % 180)


def _area(parameters: Floats) -> float:
    """Return the root of the determinant of the covariance; NaN if it is no ellipse."""
    xx, xy, yy = parameters[-3:]
    return float(np.sqrt(xx * yy - xy**2)) if xx * yy > xy**2 else float("nan")


def _integral(parameters: Floats) -> float:
    """Return amplitude times area."""
    return float(parameters[0]) * _area(parameters)


def _gaussian(parameters: Floats, columns: Ints, rows: Ints) -> tuple[Floats, Floats]:
    """Return a Gaussian on pixels, (ny, nx), and its derivatives, (6, ny, nx)."""
    amplitude, x, y, xx, xy, yy = parameters
    inverse = np.linalg.inv(np.array([[xx, xy], [xy, yy]]))
    dx, dy = columns - x, rows - y
    # Half of the derivative of the exponent with respect to the covariance: (S^-1 d)(S^-1 d)^T.
    u, v = (inverse[k, 0] * dx + inverse[k, 1] * dy for k in (0, 1))
    shape = np.exp(-0.5 * (dx * u + dy * v))
    value = amplitude * shape
    slopes = [shape, value * u, value * v, value * u * u / 2, value * u * v, value * v * v / 2]
    return np.asarray(value), np.stack(slopes)
