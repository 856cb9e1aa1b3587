"""Forced photometry of positions in one image: arrays in, arrays out, pixel units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contimg_photometry.blends import fit_group, groups
from contimg_photometry.kernels import measure_all, position_fit
from contimg_photometry.profile import BeamProfile, single_errors

if TYPE_CHECKING:
    from contimg_photometry.noise import Correlation

Floats = NDArray[np.float64]

POSITION_ROUNDS = 4
"""Gauss–Newton rounds; from a catalogue's error of a tenth of a beam three reach a thousandth of a pixel."""


@dataclass(frozen=True)
class Apertures:
    """Radii in beam major axes (FWHM), and from which signal-to-noise ratio up a position is fitted."""

    fit: float = 1.0
    inner: float = 2.0
    outer: float = 6.0
    pair: float = 1.5
    position_snr: float = 20.0


@dataclass(frozen=True)
class Measurements:
    """Fluxes in the image's unit (amplitudes of the beam), one element a position, shape (N,)."""

    peak: Floats
    """Amplitude of the beam at the position."""
    peak_noise: Floats
    """1 sigma of `peak`: the local rms, larger for blended sources."""
    fit: Floats
    """Amplitude of the beam that fits the aperture best."""
    fit_noise: Floats
    """1 sigma of `fit`, from the local rms and the autocorrelation of the noise."""
    background: Floats
    blend: NDArray[np.int64]
    """How many sources were fitted together."""
    dx: Floats
    """Fitted minus given position, pixels; NaN where it was not fitted."""
    dy: Floats
    dx_noise: Floats
    dy_noise: Floats = field(repr=False)


def annulus_offsets(inner: float, outer: float, step: int) -> NDArray[np.int64]:
    """Return pixel offsets x and y, shape (2, M), of an annulus (radii in pixels), one each `step` pixels along both axes."""
    reach = int(np.ceil(outer / step)) * step
    line = np.arange(-reach, reach + 1, step)
    x, y = (part.ravel() for part in np.meshgrid(line, line))
    distance = np.hypot(x, y)
    inside = (distance >= inner) & (distance <= outer)
    return np.stack([x[inside], y[inside]]).astype(np.int64)


def measure(
    pixels: NDArray[np.float32],
    x: Floats,
    y: Floats,
    beam: BeamProfile,
    noise: Correlation,
    apertures: Apertures,
) -> Measurements:
    """Measure the flux of the beam at given positions.

    Parameters
    ----------
    pixels
        Shape (ny, nx), restored with `beam`; NaN does not take part.
    x, y
        Zero-based, shape (N,).
    noise
        Autocorrelation of the noise, as far as two aperture radii.

    Returns
    -------
    Measurements
        NaN where the image does not hold enough pixels.
    """
    radius = apertures.fit * beam.major
    # Half a minor axis is Nyquist's step: more samples of correlated noise say nothing more.
    step = max(1, int(beam.minor / 2))
    offsets = annulus_offsets(apertures.inner * beam.major, apertures.outer * beam.major, step)
    raw = np.empty((x.size, 4))
    measure_all(pixels, x, y, beam.form, radius, offsets, raw)
    peak, fit, background, local = np.ascontiguousarray(raw.T)
    factor, position = single_errors(beam, radius, noise)
    peak_noise, fit_noise, blend = local.copy(), factor * local, np.ones(x.size, np.int64)
    for members in groups(x, y, apertures.pair * beam.major):
        found = fit_group(pixels, x[members], y[members], beam, noise, radius, raw[members])
        peak[members], peak_noise[members], fit[members], fit_noise[members] = found
        blend[members] = members.size
    bright = np.flatnonzero((blend == 1) & (peak > apertures.position_snr * peak_noise))
    dx, dy = np.full(x.size, np.nan), np.full(x.size, np.nan)
    for k in bright:
        dx[k], dy[k] = position_fit(
            pixels, x[k], y[k], beam.form, background[k], radius, POSITION_ROUNDS
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(np.isfinite(dx), local / peak, np.nan)
    return Measurements(
        peak,
        peak_noise,
        fit,
        fit_noise,
        background,
        blend,
        dx,
        dy,
        scale * position[0],
        scale * position[1],
    )
