"""Forced photometry of positions in one image: arrays in, arrays out, pixel units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg_photometry.blends import find_groups, fit_group
from contimg_photometry.kernels import Floats, Image, Ints, fit_position, measure_positions
from contimg_photometry.noise import BeamProfile, Correlation, single_source_errors
from contimg_photometry.options import PhotometryOptions

POSITION_ROUNDS = 4
"""Gauss–Newton rounds; from an error of a tenth of a beam three reach a thousandth of a pixel."""


@dataclass(frozen=True)
class Measurements:
    """Fluxes in the image's unit (amplitudes of the beam), shape (N,), one for each position."""

    peak: Floats
    """Amplitude of the beam at the position."""
    peak_noise: Floats
    """1 sigma of `peak`: the local rms, larger for blended sources."""
    fit: Floats
    """Amplitude of the beam that fits the aperture best."""
    fit_noise: Floats
    """1 sigma of `fit`, from the local rms and the autocorrelation of the noise."""
    background: Floats
    blend: Ints
    """Number of sources fitted together."""
    dx: Floats
    """Fitted minus given position, pixels; NaN where no position was fitted."""
    dy: Floats
    dx_noise: Floats
    dy_noise: Floats


def annulus_offsets(inner: float, outer: float, step: int) -> Ints:
    """Return the pixel offsets of an annulus (radii in pixels), x and y, shape (2, M).

    Offsets are `step` pixels apart along both axes.
    """
    reach = int(np.ceil(outer / step)) * step
    line = np.arange(-reach, reach + 1, step)
    x, y = (part.ravel() for part in np.meshgrid(line, line))
    distance = np.hypot(x, y)
    inside = (distance >= inner) & (distance <= outer)
    return np.stack([x[inside], y[inside]]).astype(np.int64)


def measure(
    pixels: Image,
    x: Floats,
    y: Floats,
    beam: BeamProfile,
    noise: Correlation,
    options: PhotometryOptions,
) -> Measurements:
    """Measure the flux of the beam at given positions; NaN where the image lacks pixels.

    Parameters
    ----------
    pixels
        Shape (ny, nx), restored with `beam`; NaN pixels are not used.
    x, y
        Zero-based, shape (N,).
    noise
        Autocorrelation of the noise, as far as two aperture radii.
    options
        Sizes of aperture and annulus, separation of pairs, limit of position fits.
    """
    major, radius = beam.major, options.aperture * beam.major
    # Half a minor axis is the Nyquist step: noise is correlated over less.
    step = max(1, int(beam.minor / 2))
    offsets = annulus_offsets(options.annulus_inner * major, options.annulus_outer * major, step)
    raw = np.empty((x.size, 4))
    measure_positions(pixels, x, y, beam.form, radius, offsets, raw)
    peak, fit, background, local = np.ascontiguousarray(raw.T)
    fit_error, x_error, y_error = single_source_errors(beam, radius, noise)
    peak_noise, fit_noise, blend = local.copy(), fit_error * local, np.ones(x.size, np.int64)
    for members in find_groups(x, y, options.pair_separation * major):
        found = fit_group(pixels, x[members], y[members], beam, noise, radius, raw[members])
        peak[members], peak_noise[members], fit[members], fit_noise[members] = found
        blend[members] = members.size
    bright = np.flatnonzero((blend == 1) & (peak > options.position_snr * peak_noise))
    dx, dy = np.full(x.size, np.nan), np.full(x.size, np.nan)
    for k in bright:
        start = (x[k], y[k], beam.form, background[k])
        dx[k], dy[k] = fit_position(pixels, *start, radius, POSITION_ROUNDS)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(np.isfinite(dx), local / peak, np.nan)
    return Measurements(
        peak=peak,
        peak_noise=peak_noise,
        fit=fit,
        fit_noise=fit_noise,
        background=background,
        blend=blend,
        dx=dx,
        dy=dy,
        dx_noise=scale * x_error,
        dy_noise=scale * y_error,
    )
