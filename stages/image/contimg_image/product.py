"""The FITS files of an image: four axes (RA, Dec, frequency, Stokes) as WSClean and CASA write them; bytes depend on content alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from contimg.records.groups import utc_of_mjd

if TYPE_CHECKING:
    import numpy.typing as npt
    from astropy.io.fits import Header

    from contimg_image.frame import Frame

    Singles = npt.NDArray[np.float32]
    Value = str | float | int | bool

STOKES_I = 1
PSF_SHARE = 4
"""The PSF is cut to this part of the image's width: what lies beyond says nothing about the beam."""


@dataclass(frozen=True)
class Description:
    """What every header of one image says."""

    frame: Frame
    telescope: str
    site_itrf_m: tuple[float, float, float]
    group: str
    mjd_start: float
    mjd_end: float
    band_hz: tuple[float, float]
    """Middle and width of the band."""
    frequency_hz: float
    """Mean frequency with the image's weights: that of the fluxes."""
    beam_deg: tuple[float, float, float]
    """Major and minor axis (FWHM) and position angle."""
    extra: dict[str, tuple[Value, str]] = field(default_factory=dict)
    """Further keys with their comments: provenance, quality, what the imager says of itself."""


def header(of: Description, unit: str, kind: str, *, corrected: bool) -> Header:
    """Return the header of one of an image's files.

    Parameters
    ----------
    unit
        BUNIT, empty for a ratio.
    kind
        What the file shows, in words.
    corrected
        Whether it is divided by the effective beam.
    """
    from astropy.io import fits

    made = fits.Header()
    _axes(made, of)
    major, minor, angle = of.beam_deg
    middle = (of.mjd_start + of.mjd_end) / 2
    cards: dict[str, tuple[Value, str]] = {
        "BUNIT": (unit, "unit of the pixels"),
        "BTYPE": ("Intensity" if unit else "Ratio", kind),
        "BMAJ": (major, "[deg] restoring beam, FWHM"),
        "BMIN": (minor, "[deg]"),
        "BPA": (angle, "[deg] from north through east"),
        "RADESYS": ("ICRS", "frame of the positions"),
        "SPECSYS": ("TOPOCENT", "frame of the frequencies"),
        "RESTFRQ": (of.frequency_hz, "[Hz] mean frequency with the image's weights"),
        "TELESCOP": (of.telescope, ""),
        "OBJECT": (of.group, "group"),
        "DATE-OBS": (iso(of.mjd_start), "begin of the first integration"),
        "DATE-BEG": (iso(of.mjd_start), ""),
        "DATE-END": (iso(of.mjd_end), "end of the last integration"),
        "DATE-AVG": (iso(middle), "midpoint"),
        "MJD-OBS": (of.mjd_start, "[d] DATE-OBS"),
        "MJD-AVG": (middle, "[d] DATE-AVG"),
        "TIMESYS": ("UTC", ""),
        "XPOSURE": ((of.mjd_end - of.mjd_start) * 86400.0, "[s] first to last integration"),
        "OBSGEO-X": (of.site_itrf_m[0], "[m] ITRF"),
        "OBSGEO-Y": (of.site_itrf_m[1], "[m]"),
        "OBSGEO-Z": (of.site_itrf_m[2], "[m]"),
        "PBCOR": (corrected, "divided by the effective beam"),
        **of.extra,
    }
    for key, card in cards.items():
        made[key] = card
    return made


def _axes(made: Header, of: Description) -> None:
    half = of.frame.size // 2 + 1
    axes = (
        ("RA---SIN", of.frame.ra_deg, -of.frame.cell_deg, half, "deg"),
        ("DEC--SIN", of.frame.dec_deg, of.frame.cell_deg, half, "deg"),
        ("FREQ", of.band_hz[0], of.band_hz[1], 1, "Hz"),
        ("STOKES", STOKES_I, 1, 1, ""),
    )
    for number, (kind, value, step, pixel, unit) in enumerate(axes, 1):
        made[f"CTYPE{number}"], made[f"CRPIX{number}"] = kind, float(pixel)
        made[f"CRVAL{number}"], made[f"CDELT{number}"], made[f"CUNIT{number}"] = (
            float(value),
            float(step),
            unit,
        )


def iso(mjd: float) -> str:
    """Return a UTC time as FITS writes it, to the millisecond."""
    return utc_of_mjd(mjd).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def to_bytes(plane: Singles, made: Header) -> bytes:
    """Return a FITS file with CHECKSUM and DATASUM and without the time of its making."""
    from astropy.io import fits

    hdu = fits.PrimaryHDU(np.ascontiguousarray(plane, np.float32)[None, None], made)
    hdu.add_checksum(when="contimg")
    sink = BytesIO()
    hdu.writeto(sink)
    return sink.getvalue()


def cut_psf(psf: Singles, made: Header) -> tuple[Singles, Header]:
    """Return the middle of a PSF with its header."""
    size = psf.shape[0]
    kept = max(size // PSF_SHARE // 2 * 2, min(size, 256))
    first = size // 2 - kept // 2
    shifted = made.copy()
    for axis in (1, 2):
        shifted[f"CRPIX{axis}"] = made[f"CRPIX{axis}"] - first
    return psf[first : first + kept, first : first + kept], shifted
