"""Our FITS images, beam maps and rms maps: pixels, sky coordinates and restoring beam."""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contimg.runtime.errors import BadFileError, BadImageError

if TYPE_CHECKING:
    from astropy.coordinates import BaseCoordinateFrame
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
        return self.form_of(np.diag([cell_x_deg, cell_y_deg]))

    def form_of(self, pixel_matrix: FloatArray) -> tuple[float, float, float]:
        """Return the same for axes in any direction, as `SkyImage.pixel_matrix` has them."""
        sin, cos = np.sin(np.radians(self.pa_deg)), np.cos(np.radians(self.pa_deg))
        along = np.array([sin, cos]) @ pixel_matrix / self.major_deg
        across = np.array([cos, -sin]) @ pixel_matrix / self.minor_deg
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
    """Celestial axes alone, in the image's own frame."""
    frame: BaseCoordinateFrame | None = None
    """That frame where it is not ICRS: galactic, FK4 or FK5 of another equinox."""

    @functools.cached_property
    def pixel_matrix(self) -> FloatArray:
        """Longitude and latitude, degrees on the sky, per pixel along x and y; shape (2, 2).

        At the reference position, in the image's own frame, to which BPA refers.
        """
        at = self.wcs.wcs.crpix - 1 + 0.5 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        lon, lat = np.radians(self.wcs.wcs_pix2world(at, 0).T)
        lon0, lat0 = np.radians(self.wcs.wcs.crval)
        axes = _east_north(lon - lon0, lat, lat0)
        return np.degrees([[v[0] - v[1], v[2] - v[3]] for v in axes])

    @property
    def cell_deg(self) -> tuple[float, float]:
        """Increments along x and y, x negative unless the image is mirrored; however rotated."""
        x, y = np.hypot(*self.pixel_matrix)
        return float(np.copysign(x, np.linalg.det(self.pixel_matrix))), float(y)

    @property
    def pixel_side_deg(self) -> float:
        """Side of a square with the area of a pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.pixel_matrix))))

    @property
    def centre_deg(self) -> tuple[float, float]:
        """RA and Dec of the reference position, ICRS."""
        ra, dec = self._to_icrs(*(np.array([value]) for value in self.wcs.wcs.crval))
        return float(ra[0]), float(dec[0])

    @property
    def jy_per_unit(self) -> float:
        """What a pixel's value is in Jy/beam, by BUNIT; 1 without one.

        Raises BadImageError if the unit is another, such as K or Jy/pixel.
        """
        unit = re.sub(r"[\s.*]+", "", str(self.header.get("BUNIT", "")))
        # AIPS writes JY/BEAM; the case of a prefix counts, since M is mega.
        found = re.fullmatch(r"([muµμ]?)(?i:jy(/beam|/bm|beam\^?-1))", unit)
        if unit and not found:
            problem = f"The unit of the pixels is {self.header['BUNIT']!r}, not Jy/beam."
            raise BadImageError(self.where, problem, "Convert the image, or correct BUNIT.")
        prefix = found[1] if found else ""
        return {"": 1.0, "m": 1e-3}.get(prefix, 1e-6)

    @property
    def frequency_hz(self) -> float | None:
        """Frequency of the fluxes, by our own RESTFRQ, else the frequency axis, else any RESTFRQ.

        None without one. The rest frequency that CASA writes is that of a line. Raises
        BadImageError if the unit of the axis is not one of frequency.
        """
        from astropy import units

        rest = self.header.get("RESTFRQ") or self.header.get("RESTFREQ")
        values = [rest] if "PBMODEL" in self.header else []
        for n in range(1, int(self.header.get("NAXIS", 0)) + 1):
            if str(self.header.get(f"CTYPE{n}")).startswith("FREQ"):
                unit = str(self.header.get(f"CUNIT{n}") or "Hz")
                try:
                    hz = units.Unit(unit).to("Hz")
                except (ValueError, units.UnitConversionError) as error:
                    problem = f"The unit of the frequency axis is {unit!r}."
                    raise BadImageError(self.where, problem, f"Correct CUNIT{n}.") from error
                values.append(hz * float(self.header.get(f"CRVAL{n}") or 0.0))
        return next((float(value) for value in (*values, rest) if value), None)

    @property
    def beam(self) -> Beam:
        """The restoring beam.

        A circular one needs no position angle. Raises BadImageError if the header has none, or
        one whose size is not between a pixel and the image.
        """
        words = [self.header.get(name) for name in ("BMAJ", "BMIN", "BPA")]
        values = [float(x) if isinstance(x, int | float) else np.nan for x in words]
        major, minor, angle = values
        if major == minor and not np.isfinite(angle):
            angle = 0.0
        largest = self.pixel_side_deg * max(self.pixels.shape)
        if not (0 < minor <= major <= largest and np.isfinite(angle)):  # False for NaN
            problem = f"The header has no valid BMAJ, BMIN and BPA in degrees: {words}."
            raise BadImageError(self.where, problem, "Image with a restoring beam.")
        return Beam(major, minor, angle)

    def to_pixels(self, ra_deg: FloatArray, dec_deg: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return zero-based x, y of ICRS positions; NaN where the projection has no such point."""
        from astropy.coordinates import SkyCoord

        lon, lat = np.atleast_1d(ra_deg), np.atleast_1d(dec_deg)
        if self.frame is not None:
            sky = SkyCoord(lon, lat, unit="deg").transform_to(self.frame)
            lon, lat = sky.spherical.lon.deg, sky.spherical.lat.deg
        # Directions behind the tangent plane have no pixel; astropy gives NaN for them.
        x, y = self.wcs.all_world2pix(lon, lat, 0)
        return np.asarray(x, np.float64), np.asarray(y, np.float64)

    def to_sky(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ICRS positions, degrees, of zero-based x, y; NaN where there is no sky."""
        return self._to_icrs(*self.wcs.all_pix2world(np.atleast_1d(x), np.atleast_1d(y), 0))

    def _to_icrs(self, lon_deg: FloatArray, lat_deg: FloatArray) -> tuple[FloatArray, FloatArray]:
        from astropy.coordinates import SkyCoord

        if self.frame is None:
            return lon_deg, lat_deg
        sky = SkyCoord(lon_deg, lat_deg, unit="deg", frame=self.frame).icrs
        return sky.ra.deg, sky.dec.deg

    def offsets_arcsec(
        self, x: FloatArray, y: FloatArray, dx: FloatArray, dy: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return east and north, ICRS on the sky, of small offsets in pixels at x, y; NaN stays."""
        (ra, dec), (ra0, dec0) = np.radians([self.to_sky(x + dx, y + dy), self.to_sky(x, y)])
        east, north = _east_north(ra - ra0, dec, dec0)
        return np.degrees(east) * 3600, np.degrees(north) * 3600

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
        If it is not one plane with celestial coordinates, or has no finite pixel, or if its Stokes
        parameter is not I.
    """
    from astropy.io import fits  # takes half a second
    from astropy.wcs import WCS, FITSFixedWarning, WcsError

    name = where or str(path)
    try:
        with fits.open(path, memmap=False) as file:
            # A compressed image is in the first extension.
            plane = next((hdu for hdu in file if hdu.is_image and hdu.header["NAXIS"]), file[0])
            header, data = plane.header, plane.data
    except (OSError, ValueError, TypeError, IndexError) as error:
        problem = f"This is not a whole FITS file: {error}."
        raise BadFileError(name, problem, "Make the image again.") from error
    with warnings.catch_warnings():
        # astropy reads the old spellings of CASA and WSClean correctly, but warns each time.
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(header, naxis=2)
        except (WcsError, ValueError) as error:
            text = " ".join(str(error).split())
            problem = f"The header's coordinates are not valid: {text}."
            raise BadImageError(name, problem, "Correct the header.") from error
        frame = _celestial_frame(wcs, name)
    plane = np.squeeze(data) if data is not None else np.empty(0)
    if plane.ndim != 2 or min(plane.shape) < 2 or not wcs.has_celestial:  # noqa: PLR2004 - two axes
        problem = f"The image is not one plane with celestial axes; its shape is {plane.shape}."
        raise BadImageError(name, problem, "Name an image of one plane.")
    if wcs.wcs.lng != 0:
        axes = ", ".join(wcs.wcs.ctype)
        problem = f"The axes are {axes}: the first is not RA or longitude."
        raise BadImageError(name, problem, "Transpose the image.")
    stokes = _stokes(header)
    if stokes != 1:
        problem = f"The image is not of Stokes I: its Stokes axis says {stokes:g}."
        raise BadImageError(name, problem, "Name an image of Stokes I.")
    pixels = np.ascontiguousarray(plane, dtype=np.float32)
    blank = ~np.isfinite(pixels)
    if blank.all():
        raise BadImageError(name, "No pixel is finite.", "Look at the imaging log.")
    pixels[blank] = np.nan
    return SkyImage(name, pixels, header, wcs, frame)


def _stokes(header: Header) -> float:
    """Return the Stokes parameter of the first plane, FITS's number, 1 (I) if it has none."""
    for n in range(1, int(header.get("NAXIS", 0)) + 1):
        if str(header.get(f"CTYPE{n}")).strip() == "STOKES":
            step = float(header.get(f"CDELT{n}", 1.0)) * (1 - float(header.get(f"CRPIX{n}", 1.0)))
            return float(header.get(f"CRVAL{n}", 1.0)) + step
    return 1.0


def _east_north(
    dlon_rad: FloatArray, lat_rad: FloatArray, lat0_rad: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return l and m of directions about a centre (SIN projection)."""
    north = np.sin(lat_rad) * np.cos(lat0_rad)
    north = north - np.cos(lat_rad) * np.sin(lat0_rad) * np.cos(dlon_rad)
    return np.cos(lat_rad) * np.sin(dlon_rad), north


def _celestial_frame(wcs: WCS, where: str) -> BaseCoordinateFrame | None:
    """Return the frame of the celestial axes, None for ICRS and FK5 J2000, and without any.

    Raises BadImageError if it is not one that is converted, such as an ecliptic one.
    """
    from astropy.coordinates import FK4, FK5, ICRS, FK4NoETerms, Galactic
    from astropy.wcs.utils import wcs_to_celestial_frame

    if not wcs.has_celestial:
        return None
    frame, kinds = None, {name[:4].rstrip("-") for name in wcs.wcs.ctype}
    if kinds in ({"RA", "DEC"}, {"GLON", "GLAT"}):
        with contextlib.suppress(ValueError):
            frame = wcs_to_celestial_frame(wcs)
    if isinstance(frame, ICRS) or (isinstance(frame, FK5) and frame.equinox.jyear == 2000.0):  # noqa: PLR2004
        return None  # within 0.03 arcsec
    if not isinstance(frame, FK4 | FK4NoETerms | FK5 | Galactic):
        axes = f"{', '.join(wcs.wcs.ctype)} with RADESYS {wcs.wcs.radesys!r}"
        raise BadImageError(where, f"The axes are {axes}.", "Regrid the image to RA and Dec.")
    return frame
