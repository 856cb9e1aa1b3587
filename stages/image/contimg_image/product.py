"""The files of an image: FITS, its numbers and its row in the table `images`.

FITS have four axes (RA, Dec, frequency, Stokes) as WSClean and CASA write them. The bytes depend on
the content alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.groups import utc_of_mjd
from contimg.records.schemas.images import IMAGES
from contimg.runtime.context import Context
from contimg.runtime.versions import tool_version
from contimg_image.averaging import AveragedVisibilities
from contimg_image.cleaning import MIN_EFFECTIVE_BEAM
from contimg_image.field import ImagingField
from contimg_image.frame import Singles
from contimg_image.imagers import Cleaned
from contimg_image.observation import ImagingInput
from contimg_image.options import ImageOptions
from contimg_image.thumbnail import draw_thumbnail
from contimg_image.tiers import Settings

if TYPE_CHECKING:
    from astropy.io.fits import Header

STOKES_I = 1.0
PSF_WIDTH_DIVISOR = 4
"""The PSF is cut to the middle of this part of the image's width."""
MIN_PSF_PX = 256


def common_header(
    observation: ImagingInput, field: ImagingField, cleaned: Cleaned, robust: float, rms_jy: float
) -> Header:
    """Return what the headers of all files of one image contain.

    Empty cards BUNIT, BTYPE and PBCOR are for each file to fill.
    """
    from astropy.io import fits

    frequency = ("FREQ", 1.0, float(cleaned.band_hz[0]), float(cleaned.band_hz[1]), "Hz")
    header = fits.Header(field.frame.axis_cards(frequency, ("STOKES", 1.0, STOKES_I, 1.0, "")))
    start, middle, end = observation.mjd_start, observation.mjd, observation.mjd_end
    ours = observation.pointing_dec_deg is not None
    antennas_m = observation.header.antennas.positions_m
    site_m = observation.site.itrf_m if ours else antennas_m.mean(axis=0)
    record, thermal_jy = observation.calibration, field.weights.thermal_rms_jy
    calibrated = utc_of_mjd(observation.calibrated_mjd).strftime("%Y-%m-%dT%H:%M:%S")
    cards: dict[str, tuple[Any, str]] = {
        "BUNIT": ("", "unit of the pixels"),
        "BTYPE": ("", ""),
        "BMAJ": (cleaned.beam.major_deg, "[deg] restoring beam, FWHM"),
        "BMIN": (cleaned.beam.minor_deg, "[deg]"),
        "BPA": (cleaned.beam.pa_deg, "[deg] from north through east"),
        "RADESYS": ("ICRS", "frame of the positions"),
        "SPECSYS": ("TOPOCENT", "frame of the frequencies"),
        "RESTFRQ": (field.weights.frequency_hz, "[Hz] mean frequency with the image's weights"),
        "TELESCOP": (observation.header.telescope, ""),
        "OBJECT": (observation.group, "group"),
        "DATE-OBS": (format_time(start), "begin of the first integration"),
        "DATE-BEG": (format_time(start), ""),
        "DATE-END": (format_time(end), "end of the last integration"),
        "DATE-AVG": (format_time(middle), "midpoint"),
        "MJD-OBS": (start, "[d] DATE-OBS"),
        "MJD-AVG": (middle, "[d] DATE-AVG"),
        "TIMESYS": ("UTC", ""),
        "XPOSURE": ((end - start) * DAY_S, "[s] first to last integration"),
        "OBSGEO-X": (float(site_m[0]), "[m] ITRF"),
        "OBSGEO-Y": (float(site_m[1]), "[m]"),
        "OBSGEO-Z": (float(site_m[2]), "[m]"),
        "PBCOR": (False, "divided by the effective beam"),
        "GROUPID": (observation.group, "group of subbands"),
        "CALTBL": (observation.calibration_key, "key of the calibrate artifact"),
        "CALDATE": (calibrated, "UTC of the calibrator"),
        "CALPROV": (record.rung, "rung of the ladder"),
        "CALSRC": (record.calibrator.name, "calibrator"),
        "PIPEVER": (tool_version("contimg-image"), "version of contimg-image"),
        "RMSMED": (rms_jy, "[Jy/beam] median inside the 20 % beam"),
        "RMSTHERM": (
            thermal_jy if np.isfinite(thermal_jy) else -1.0,
            "[Jy/beam] expected; -1 unknown",
        ),
        "PBMODEL": ("airy 4.65 m" if ours else "none", "primary beam in beam.fits"),
        "ROBUST": (robust, "Briggs"),
    }
    for key, value in cleaned.keywords.items():
        cards[key] = (value if isinstance(value, (str, float, int)) else str(value), "")
    for key, card in cards.items():
        header[key] = card
    return header


def file_header(common: Header, unit: str, kind: str, *, corrected: bool = False) -> Header:
    """Return the header of one file of a kind; the unit is empty for a ratio.

    `corrected` tells whether it is divided by the effective beam.
    """
    header = common.copy()
    header["BUNIT"], header["PBCOR"] = unit, corrected
    header["BTYPE"] = ("Intensity" if unit else "Ratio", kind)
    return header


def format_time(mjd: float) -> str:
    """Return a UTC time as FITS writes it, to the millisecond."""
    return utc_of_mjd(mjd).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def to_fits(plane: Singles, header: Header) -> bytes:
    """Return a FITS file with CHECKSUM and DATASUM and without the time of writing."""
    from astropy.io import fits

    hdu = fits.PrimaryHDU(np.ascontiguousarray(plane, np.float32)[None, None], header)
    hdu.add_checksum(when="contimg")
    sink = BytesIO()
    hdu.writeto(sink)
    return sink.getvalue()


def cut_psf(psf: Singles, header: Header) -> tuple[Singles, Header]:
    """Return the middle of a PSF with its header: the rest says nothing about the beam."""
    size = psf.shape[0]
    kept = max(size // PSF_WIDTH_DIVISOR // 2 * 2, min(size, MIN_PSF_PX))
    first = size // 2 - kept // 2
    shifted = header.copy()
    for axis in (1, 2):
        shifted[f"CRPIX{axis}"] = header[f"CRPIX{axis}"] - first
    return psf[first : first + kept, first : first + kept], shifted


def write_images(
    context: Context,
    common: Header,
    cleaned: Cleaned,
    effective: Singles,
    local_rms: Singles,
    field: ImagingField,
) -> None:
    """Write the FITS files of an image, and its picture."""
    image, unit = cleaned.image, "Jy/beam"
    corrected = np.full_like(image, np.nan)
    np.divide(image, effective, out=corrected, where=effective >= MIN_EFFECTIVE_BEAM)
    over_beam = file_header(common, unit, "clean image over effective beam", corrected=True)
    psf = file_header(common, unit, "point spread function")
    files = {
        "image.fits": (image, file_header(common, unit, "clean image, apparent flux")),
        "image.pbcor.fits": (corrected, over_beam),
        "residual.fits": (cleaned.residual, file_header(common, unit, "residual, apparent flux")),
        "psf.fits": cut_psf(cleaned.psf, psf),
        "beam.fits": (effective, file_header(common, "", "effective beam")),
        "rms.fits": (local_rms, file_header(common, unit, "local rms, apparent flux")),
    }
    for name, (plane, header) in files.items():
        context.write(name, to_fits(plane, header))
    rms, frequency_ghz = float(common["RMSMED"]), field.weights.frequency_hz / 1e9
    title = f"{common['OBJECT']}   {frequency_ghz:.3f} GHz   rms {rms * 1e3:.2f} mJy/beam"
    context.write("thumbnail.png", draw_thumbnail(image, field.frame, rms, cleaned.beam, title))


def image_metrics(
    observation: ImagingInput, field: ImagingField, cleaned: Cleaned, numbers: dict[str, float]
) -> dict[str, Any]:
    """Return the numbers that dashboards and later stages read."""
    weights = field.weights
    known_noise = np.isfinite(weights.thermal_rms_jy)
    return {
        "group": observation.group,
        "mjd": observation.mjd,
        "mjd_start": observation.mjd_start,
        "mjd_end": observation.mjd_end,
        "pointing_dec_deg": observation.pointing_dec_deg,
        "ra_deg": float(np.degrees(observation.header.ra_rad)),
        "dec_deg": float(np.degrees(observation.header.dec_rad)),
        "frequency_hz": weights.frequency_hz,
        "bmaj_arcsec": cleaned.beam.major_deg * 3600,
        "bmin_arcsec": cleaned.beam.minor_deg * 3600,
        "bpa_deg": cleaned.beam.pa_deg,
        "thermal_rms_jy": weights.thermal_rms_jy if known_noise else None,
        "antennas": field.data.antennas,
        "natural_rms_jy": weights.natural_rms_jy if known_noise else None,
        **{name: value for name, value in numbers.items() if np.isfinite(value)},
    }


def imaging_record(
    settings: Settings, metrics: dict[str, Any], data: AveragedVisibilities
) -> dict[str, Any]:
    """Return the content of imaging.json."""
    sets = [
        {
            "name": part.name,
            "rows": len(part.uvw_m),
            "channels": part.frequencies_hz.size,
            "averaged": part.factor,
            "channel_hz": part.width_hz * part.factor,
        }
        for part in data.sets
    ]
    return {"settings": vars(settings), "metrics": metrics, "sets": sets}


def image_row(
    context: Context,
    options: ImageOptions,
    observation: ImagingInput,
    settings: Settings,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the row of this image in the table `images`, without its verdict.

    A column with the name of a metric holds that metric; an unknown metric is null.
    """
    band, half_hz = observation.header.frequencies_hz, observation.header.channel_width_hz / 2
    names = {"rms": "rms_jy", "thermal_rms": "thermal_rms_jy", "peak": "peak_jy"}
    in_jy = {column: metrics.get(name) for column, name in names.items()}
    record = observation.calibration
    return {
        **{column.name: metrics.get(column.name) for column in IMAGES.columns},
        **{column: None if value is None else 1e3 * value for column, value in in_jy.items()},
        "ra": metrics["ra_deg"],
        "dec": metrics["dec_deg"],
        "strip": metrics["pointing_dec_deg"],
        "frequency": metrics["frequency_hz"],
        "bmaj": metrics["bmaj_arcsec"],
        "bmin": metrics["bmin_arcsec"],
        "bpa": metrics["bpa_deg"],
        "image": context.key,
        "artifact": context.relative_uri(str(options.tables)),
        "ms": context.manifest(options.ms).key,
        "width": settings.size * settings.cell_arcsec / 3600,
        "cell": settings.cell_arcsec,
        "freq_min": float(band.min()) - half_hz,
        "freq_max": float(band.max()) + half_hz,
        "tier": options.tier,
        "backend": options.backend,
        "robust": settings.robust,
        "calibration": observation.calibration_key,
        "calibrator": record.calibrator.name,
        "calibrated": observation.calibrated_mjd,
        "rung": record.rung,
        "flux_anchor": record.flux_anchor,
    }
