"""Our FITS images, beam maps and rms maps: pixels, sky coordinates and restoring beam."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contimg.runtime.errors import BadFileError, BadImageError

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.float32]

FOUR_LN2 = 4.0 * np.log(2.0)


@dataclass(frozen=True)
class Beam:
    """An elliptical Gaussian restoring beam."""

    major_deg: float
    """Full width at half maximum of the major axis."""
    minor_deg: float
    pa_deg: float
    """Position angle of the major axis, from north through east."""

    def form(self, cell_x_deg: float, cell_y_deg: float) -> tuple[float, float, float]:
        """Return a, b, c of the beam exp(−(a dx² + 2 b dx dy + c dy²)) for pixel offsets dx, dy.

        The sizes of a cell are the signed increments of the axes (CDELT).
        """
        sin, cos = np.sin(np.radians(self.pa_deg)), np.cos(np.radians(self.pa_deg))
        along = np.array([cell_x_deg * sin, cell_y_deg * cos]) / self.major_deg
        across = np.array([cell_x_deg * cos, -cell_y_deg * sin]) / self.minor_deg
        matrix = FOUR_LN2 * (np.outer(along, along) + np.outer(across, across))
        return float(matrix[0, 0]), float(matrix[0, 1]), float(matrix[1, 1])


@dataclass(frozen=True)
class SkyImage:
    """One plane of an image with its place on the sky."""

    where: str
    """Path or URI, for messages."""
    pixels: Pixels
    """Shape (ny, nx), C order, native float32; NaN where there is no value."""
    header: Header
    wcs: WCS
    """Celestial axes alone; ICRS."""

    @property
    def cell_deg(self) -> tuple[float, float]:
        """Signed increments along x and y."""
        scale = self.wcs.pixel_scale_matrix
        return float(scale[0, 0]), float(scale[1, 1])

    @property
    def centre_deg(self) -> tuple[float, float]:
        """RA and Dec of the reference position."""
        return float(self.wcs.wcs.crval[0]), float(self.wcs.wcs.crval[1])

    @property
    def frequency_hz(self) -> float | None:
        """Frequency of the fluxes: RESTFRQ, or that of the frequency axis; None without either."""
        axes = range(1, int(self.header.get("NAXIS", 0)) + 1)
        found = [f"CRVAL{n}" for n in axes if str(self.header.get(f"CTYPE{n}")).startswith("FREQ")]
        values = (self.header.get(name) for name in ("RESTFRQ", *found))
        return next((float(value) for value in values if value), None)

    @property
    def beam(self) -> Beam:
        """The restoring beam.

        Raises BadImageError if the header has none, or one without a size.
        """
        values = [self.header.get(name) for name in ("BMAJ", "BMIN", "BPA")]
        if any(value is None for value in values) or min(values[:2]) <= 0:
            problem = f"The header has no valid BMAJ, BMIN and BPA: {values}."
            raise BadImageError(self.where, problem, "Image with a restoring beam.")
        return Beam(*(float(value) for value in values))

    def to_pixels(self, ra_deg: FloatArray, dec_deg: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return zero-based x, y of ICRS positions; NaN where the projection has no such point."""
        # Directions behind the tangent plane have no pixel; astropy gives NaN for them.
        x, y = self.wcs.all_world2pix(np.atleast_1d(ra_deg), np.atleast_1d(dec_deg), 0)
        return np.asarray(x, np.float64), np.asarray(y, np.float64)

    def sample(self, ra_deg: FloatArray, dec_deg: FloatArray) -> FloatArray:
        """Return bilinear values at ICRS positions, NaN outside; for maps smooth over a pixel."""
        return bilinear(self.pixels, *self.to_pixels(ra_deg, dec_deg))


def bilinear(pixels: Pixels, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return bilinear values at zero-based x, y, shape (N,); NaN outside of `pixels`, (ny, nx)."""
    ny, nx = pixels.shape
    inside = (x >= 0) & (y >= 0) & (x <= nx - 1) & (y <= ny - 1)  # False for NaN
    safe_x, safe_y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    left, low = np.minimum(safe_x.astype(int), nx - 2), np.minimum(safe_y.astype(int), ny - 2)
    u, v = safe_x - left, safe_y - low
    value = (1 - v) * ((1 - u) * pixels[low, left] + u * pixels[low, left + 1])
    value = value + v * ((1 - u) * pixels[low + 1, left] + u * pixels[low + 1, left + 1])
    return np.where(inside, value, np.nan)


def read_image(path: Path, where: str = "") -> SkyImage:
    """Read a FITS image of one plane, without axes of length one (WSClean's frequency and Stokes).

    Messages call it `where`, such as its URI; its path if empty.

    Raises
    ------
    BadFileError
        If it is not a whole FITS file.
    BadImageError
        If it is not one plane with celestial coordinates, or has no finite pixel.
    """
    from astropy.io import fits  # takes half a second
    from astropy.wcs import WCS, FITSFixedWarning

    name = where or str(path)
    try:
        with fits.open(path, memmap=False) as file:
            header, data = file[0].header, file[0].data
    except (OSError, ValueError, TypeError, IndexError) as error:
        problem = f"This is not a whole FITS file: {error}."
        raise BadFileError(name, problem, "Make the image again.") from error
    with warnings.catch_warnings():
        # astropy reads the old spellings of CASA and WSClean correctly, but warns each time.
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header, naxis=2)
    plane = np.squeeze(data) if data is not None else np.empty(0)
    if plane.ndim != 2 or min(plane.shape) < 2 or not wcs.has_celestial:  # noqa: PLR2004 - two axes
        problem = f"The image is not one plane with celestial axes; its shape is {plane.shape}."
        raise BadImageError(name, problem, "Name an image of one plane.")
    if not np.isfinite(plane).any():
        raise BadImageError(name, "No pixel is finite.", "Look at the imaging log.")
    return SkyImage(name, np.ascontiguousarray(plane, dtype=np.float32), header, wcs)
