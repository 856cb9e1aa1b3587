"""Synthetic images: their header, correlated noise, and sources of the beam's shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from contimg.records.images import Beam
from contimg_photometry.noise import BeamProfile

BEAM = Beam(68 / 3600, 37 / 3600, 20.0)
REACH_PX = 40
"""Sources end at this distance along x and y."""


def sky_header(
    shape: tuple[int, int], centre_deg: tuple[float, float], cell_deg: float, naxis: int = 4
) -> fits.Header:
    """Return the header of an image with `BEAM`; its centre is pixel (nx // 2, ny // 2)."""
    wcs = WCS(naxis=naxis)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN", "FREQ", "STOKES"][:naxis]
    wcs.wcs.crval = [*centre_deg, 1.405e9, 1][:naxis]
    wcs.wcs.cdelt = [-cell_deg, cell_deg, 1.875e8, 1][:naxis]
    wcs.wcs.crpix = [shape[1] // 2 + 1, shape[0] // 2 + 1, 1, 1][:naxis]
    made = wcs.to_header()
    beam = {"BMAJ": BEAM.major_deg, "BMIN": BEAM.minor_deg, "BPA": BEAM.pa_deg}
    made.update({**beam, "BUNIT": "JY/BEAM"})
    return made


def wrapped_lags(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets x and y of pixels from the first one, shape (size, size), wrapped."""
    line = np.fft.fftfreq(size) * size
    x, y = np.meshgrid(line, line)
    return x, y


def filter_noise(rng: np.random.Generator, kernel: np.ndarray) -> np.ndarray:
    """Return noise of unit rms, convolved with a kernel about the first pixel."""
    spectrum = np.fft.rfft2(rng.normal(size=kernel.shape)) * np.fft.rfft2(kernel)
    made = np.fft.irfft2(spectrum, s=kernel.shape)
    return np.asarray(made / made.std())


def add_sources(
    image: np.ndarray, profile: BeamProfile, sources: Iterable[Sequence[float]]
) -> None:
    """Add sources, given as x, y and flux, to an image in place."""
    rows, columns = np.indices(image.shape).astype(float)
    for x, y, flux in sources:
        part = tuple(slice(max(0, int(v) - REACH_PX), int(v) + REACH_PX + 1) for v in (y, x))
        image[part] += flux * profile.at(columns[part] - x, rows[part] - y)
