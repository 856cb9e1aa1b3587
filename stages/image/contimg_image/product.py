"""The files of an image: FITS, a picture, its numbers and its row in the table `images`.

FITS have four axes (RA, Dec, frequency, Stokes) as WSClean and CASA write them. The bytes depend on
the content alone.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.astro.primary_beam import PrimaryBeam
from contimg.records.groups import day_of_mjd, utc_of_mjd
from contimg.records.schemas.images import IMAGES
from contimg.runtime.context import Context
from contimg.runtime.versions import tool_version
from contimg_image.cleaning import MIN_EFFECTIVE_BEAM
from contimg_image.field import ImagingField
from contimg_image.frame import Singles
from contimg_image.imagers import Cleaned
from contimg_image.observation import ImagingInput
from contimg_image.options import ImageOptions
from contimg_image.tiers import Settings

if TYPE_CHECKING:
    from astropy.io.fits import Header

STOKES_I = 1.0
PSF_WIDTH_DIVISOR = 4
"""The PSF is cut to the middle of this part of the image's width."""
MIN_PSF_PX = 256
MAX_THUMBNAIL_PX = 900
COLOUR_RANGE_RMS = (-3.0, 25.0)
"""Ends of the colour scale, in units of the rms."""
BEAM_MAGNIFICATION = 10.0
"""The beam's ellipse is drawn this much larger: it would be too small to see."""


def make_header(
    observation: ImagingInput, field: ImagingField, cleaned: Cleaned, robust: float, rms_jy: float
) -> Header:
    """Return what the headers of all files of one image contain.

    The cards BUNIT, BTYPE and PBCOR are for each file to fill.
    """
    from astropy.io import fits

    frequency = ("FREQ", 1.0, float(cleaned.band_hz[0]), float(cleaned.band_hz[1]), "Hz")
    header = fits.Header(field.frame.axis_cards(frequency, ("STOKES", 1.0, STOKES_I, 1.0, "")))
    start, middle, end = observation.mjd_start, observation.mjd, observation.mjd_end
    ours, antennas = observation.pointing_dec_deg is not None, observation.header.antennas
    site_m = observation.site.itrf_m if ours else antennas.positions_m.mean(axis=0)
    record, thermal_jy = observation.calibration, field.weights.thermal_rms_jy
    thermal_jy = thermal_jy if np.isfinite(thermal_jy) else -1.0
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
        "CALDATE": (format_time(observation.calibrated_mjd)[:-4], "UTC of the calibrator"),
        "CALPROV": (record.rung, "rung of the ladder"),
        "CALSRC": (record.calibrator.name, "calibrator"),
        "SCALEERR": (record.scale.total if record.scale else -1.0, "1 sigma; -1 unknown"),
        "PIPEVER": (tool_version("contimg-image"), "version of contimg-image"),
        "RMSMED": (rms_jy, "[Jy/beam] median inside the 20 % beam"),
        "RMSTHERM": (thermal_jy, "[Jy/beam] expected; -1 unknown"),
        "PBMODEL": (field.beam_name, "primary beam in beam.fits"),
        **beam_cards(field.primary_beam, field.weights.frequency_hz),
        "ROBUST": (robust, "Briggs"),
    }
    for key, value in cleaned.keywords.items():
        cards[key] = (value if isinstance(value, (str, float, int)) else str(value), "")
    for key, card in cards.items():
        header[key] = card
    return header


def beam_cards(beam: PrimaryBeam | None, freq_hz: float) -> dict[str, tuple[Any, str]]:
    """Return what describes a primary beam besides its name; nothing if it is not known."""
    if beam is None:
        return {}
    fwhm_deg = 2 * float(np.degrees(beam.radius_rad(0.5, freq_hz)))
    return {
        "PBFWHM": (round(fwhm_deg, 5), "[deg] of the primary beam at RESTFRQ"),
        "PBEAST": (beam.offset_deg[0], "[deg] beam's axis east of the pointing"),
        "PBNORTH": (beam.offset_deg[1], "[deg] beam's axis north of the pointing"),
    }


def format_time(mjd: float) -> str:
    """Return a UTC time as FITS writes it, to the millisecond."""
    return utc_of_mjd(mjd).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def to_fits(plane: Singles, common: Header, unit: str, kind: str, *, corrected: bool) -> bytes:
    """Return a FITS file of the middle of a field, with checksums and without the time of writing.

    The unit of a ratio is empty. `corrected` tells whether the plane is divided by the effective
    beam.
    """
    from astropy.io import fits

    header = common.copy()
    header["BUNIT"], header["PBCOR"] = unit, corrected
    header["BTYPE"] = ("Intensity" if unit else "Ratio", kind)
    for axis in (1, 2):
        # The phase centre is pixel size // 2, counted from zero.
        header[f"CRPIX{axis}"] = float(plane.shape[0] // 2 + 1)
    hdu = fits.PrimaryHDU(np.ascontiguousarray(plane, np.float32)[None, None], header)
    hdu.add_checksum(when="contimg")
    sink = BytesIO()
    hdu.writeto(sink)
    return sink.getvalue()


def cut_psf(psf: Singles) -> Singles:
    """Return the middle of a PSF: the rest says nothing about the beam."""
    size = psf.shape[0]
    kept = max(size // PSF_WIDTH_DIVISOR // 2 * 2, min(size, MIN_PSF_PX))
    middle = slice(size // 2 - kept // 2, size // 2 - kept // 2 + kept)
    return psf[middle, middle]


def write_images(
    context: Context, common: Header, cleaned: Cleaned, effective: Singles, local_rms: Singles
) -> None:
    """Write the FITS files of an image, and its picture."""
    image, unit = cleaned.image, "Jy/beam"
    corrected = np.full_like(image, np.nan)
    np.divide(image, effective, out=corrected, where=effective >= MIN_EFFECTIVE_BEAM)
    files = {
        "image.fits": (image, unit, "clean image, apparent flux"),
        "image.pbcor.fits": (corrected, unit, "clean image over effective beam"),
        "residual.fits": (cleaned.residual, unit, "residual, apparent flux"),
        "psf.fits": (cut_psf(cleaned.psf), unit, "point spread function"),
        "beam.fits": (effective, "", "effective beam"),
        "rms.fits": (local_rms, unit, "local rms, apparent flux"),
    }
    for name, (plane, *words) in files.items():
        context.write(name, to_fits(plane, common, *words, corrected=plane is corrected))
    rms_mjy, frequency_ghz = 1e3 * common["RMSMED"], common["RESTFRQ"] / 1e9
    title = f"{common['OBJECT']}   {frequency_ghz:.3f} GHz   rms {rms_mjy:.2f} mJy/beam"
    context.write("thumbnail.png", draw_thumbnail(cleaned, rms_mjy, title))


def draw_thumbnail(cleaned: Cleaned, rms_mjy: float, title: str) -> bytes:
    """Return a PNG of an image, Jy/beam: apparent flux and, magnified, the beam."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

    small, factor = shrink_to_maxima(cleaned.image)
    half, beam = small.shape[0] * factor * cleaned.cell_deg / 2, cleaned.beam
    low, high = (level * rms_mjy for level in COLOUR_RANGE_RMS)
    figure = Figure(figsize=(7.2, 6.2), dpi=110)
    axes = figure.add_axes((0.1, 0.09, 0.74, 0.86))
    look: dict[str, Any] = {"cmap": "cividis", "interpolation": "nearest", "origin": "lower"}
    shown = axes.imshow(small * 1e3, extent=(half, -half, -half, half), vmin=low, vmax=high, **look)
    bar = figure.add_axes((0.86, 0.09, 0.03, 0.86))
    figure.colorbar(shown, cax=bar, label="mJy/beam", extend="both")
    axes.set(xlabel="offset in RA, deg", ylabel="offset in Dec, deg", title=title)
    corner = 0.88 * half
    width, height = BEAM_MAGNIFICATION * beam.minor_deg, BEAM_MAGNIFICATION * beam.major_deg
    place = (corner, -corner)
    axes.add_patch(Ellipse(place, width, height, angle=-beam.pa_deg, fc="none", ec="white", lw=1.2))
    label = f"beam × {BEAM_MAGNIFICATION:.0f}"
    axes.text(0.72 * half, -corner, label, color="white", va="center", fontsize=8)
    FigureCanvasAgg(figure)
    sink = BytesIO()
    # Noise does not compress: the usual level 6 takes two and a half times as long, to save 5 %.
    quick = {"compress_level": 4}
    figure.savefig(sink, format="png", metadata={"Software": None}, pil_kwargs=quick)
    return sink.getvalue()


def shrink_to_maxima(image: Singles) -> tuple[Singles, int]:
    """Return the brightest pixel of each square, so no point source is lost, and their side."""
    factor = max(1, -(-image.shape[0] // MAX_THUMBNAIL_PX))
    kept = image.shape[0] // factor * factor
    first = (image.shape[0] - kept) // 2
    part = image[first : first + kept, first : first + kept]
    return part.reshape(kept // factor, factor, kept // factor, factor).max(axis=(1, 3)), factor


def image_metrics(
    observation: ImagingInput, field: ImagingField, cleaned: Cleaned, numbers: dict[str, float]
) -> dict[str, Any]:
    """Return the numbers that dashboards and later stages read."""
    weights, header = field.weights, observation.header
    known_noise = np.isfinite(weights.thermal_rms_jy)
    return {
        "group": observation.group,
        "mjd": observation.mjd,
        "mjd_start": observation.mjd_start,
        "mjd_end": observation.mjd_end,
        "pointing_dec_deg": observation.pointing_dec_deg,
        "ra_deg": float(np.degrees(header.ra_rad)),
        "dec_deg": float(np.degrees(header.dec_rad)),
        "frequency_hz": weights.frequency_hz,
        "primary_beam": field.beam_name,
        "bmaj_arcsec": cleaned.beam.major_deg * 3600,
        "bmin_arcsec": cleaned.beam.minor_deg * 3600,
        "bpa_deg": cleaned.beam.pa_deg,
        "thermal_rms_jy": weights.thermal_rms_jy if known_noise else None,
        "antennas": field.data.antennas,
        "natural_rms_jy": weights.natural_rms_jy if known_noise else None,
        **{name: value for name, value in numbers.items() if np.isfinite(value)},
    }


def write_record(
    context: Context, settings: Settings, metrics: dict[str, Any], field: ImagingField
) -> None:
    """Write imaging.json: settings, metrics, averaging; and primary_beam.json, if it is known."""
    sets = [
        {"name": part.name, "rows": len(part.uvw_m), "channels": part.frequencies_hz.size}
        | {"averaged": part.factor, "channel_hz": part.width_hz * part.factor}
        for part in field.data.sets
    ]
    record = {"settings": vars(settings), "metrics": metrics, "sets": sets}
    context.write("imaging.json", json.dumps(record, indent=1).encode())
    if field.primary_beam is not None:
        beam = json.dumps(field.primary_beam.dump(), indent=1)
        context.write("primary_beam.json", beam.encode())


def publish_row(
    context: Context, options: ImageOptions, observation: ImagingInput, known: dict[str, Any]
) -> None:
    """Write the row of this image in the table `images`, if a folder of tables is given.

    `known` are the settings, the metrics and the verdict. A column with such a name holds it; an
    unknown metric is null.
    """
    if options.tables is None:
        return
    band = observation.header.frequencies_hz[observation.channels]
    half_hz = observation.header.channel_width_hz / 2
    names = {"ra": "ra_deg", "dec": "dec_deg", "strip": "pointing_dec_deg", "bpa": "bpa_deg"}
    names |= {"frequency": "frequency_hz", "bmaj": "bmaj_arcsec", "bmin": "bmin_arcsec"}
    in_jy = (("rms", "rms_jy"), ("thermal_rms", "thermal_rms_jy"), ("peak", "peak_jy"))
    levels = {column: known[name] for column, name in in_jy}
    record = observation.calibration
    row = {
        **{column.name: known.get(column.name) for column in IMAGES.columns},
        **{column: known[name] for column, name in names.items()},
        **{column: None if jy is None else 1e3 * jy for column, jy in levels.items()},
        "image": context.key,
        "artifact": context.relative_uri(options.tables),
        "ms": context.manifest(options.ms).key,
        "width": known["size"] * known["cell_arcsec"] / 3600,
        "cell": known["cell_arcsec"],
        "freq_min": float(band.min()) - half_hz,
        "freq_max": float(band.max()) + half_hz,
        "tier": options.tier,
        "backend": options.backend,
        "calibration": observation.calibration_key,
        "calibrator": record.calibrator.name,
        "calibrated": observation.calibrated_mjd,
        "rung": record.rung,
        "flux_anchor": record.flux_anchor,
        "scale_error": record.scale.total if record.scale else None,
    }
    day = day_of_mjd(observation.mjd)
    context.publish(options.tables, IMAGES, day, observation.group, IMAGES.rows([row]))
