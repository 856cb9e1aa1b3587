"""What is written of an image: its FITS files, its headers, its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.records.groups import utc_of_mjd
from contimg.runtime.versions import tool_version
from contimg_image.product import Description, cut_psf, header, to_bytes
from contimg_image.thumbnail import thumbnail

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.runtime.context import Context
    from contimg_image.averaging import Averaged, Baselines
    from contimg_image.frame import Frame
    from contimg_image.observation import Observation
    from contimg_image.product import Value
    from contimg_image.tiers import Settings
    from contimg_image.weights import ImagingWeights
    from contimg_image.wsclean import Cleaned

    Singles = npt.NDArray[np.float32]

JY_BEAM = "Jy/beam"


def description(
    seen: Observation,
    frame: Frame,
    made: Cleaned,
    weights: ImagingWeights,
    settings: Settings,
    numbers: dict[str, float],
) -> Description:
    """Return what the headers of one image say."""
    known = seen.pointing_dec_deg is not None
    solved = seen.calibration.source.mjd if seen.calibration.source else seen.calibration.mjd
    extra: dict[str, tuple[Value, str]] = {
        "GROUPID": (seen.group, "group of subbands"),
        "CALTBL": (seen.calibration_key, "key of the calibrate artifact"),
        "CALDATE": (utc_of_mjd(solved).strftime("%Y-%m-%dT%H:%M:%S"), "UTC of the calibrator"),
        "CALPROV": (seen.calibration.rung, "rung of the ladder"),
        "CALSRC": (seen.calibration.calibrator.name, "calibrator"),
        "PIPEVER": (tool_version("contimg-image"), "version of contimg-image"),
        "RMSMED": (numbers["rms_jy"], "[Jy/beam] median inside the 20 % beam"),
        "RMSTHERM": (_finite(weights.thermal_rms_jy), "[Jy/beam] expected; -1 unknown"),
        "PBMODEL": ("airy 4.65 m" if known else "none", "primary beam in beam.fits"),
        "ROBUST": (settings.robust, "Briggs"),
    }
    extra |= {key: (_value(value), "") for key, value in made.keywords.items()}
    return Description(
        frame,
        seen.header.telescope,
        seen.site_itrf_m,
        seen.group,
        seen.mjd_start,
        seen.mjd_end,
        (made.frequency_hz, made.bandwidth_hz),
        weights.frequency_hz,
        (made.bmaj_deg, made.bmin_deg, made.bpa_deg),
        extra,
    )


def _finite(value: float) -> float:
    return value if np.isfinite(value) else -1.0


def _value(value: object) -> Value:
    return value if isinstance(value, (str, float, int, bool)) else str(value)


def publish(
    context: Context, of: Description, made: Cleaned, effective: Singles, local: Singles, cut: float
) -> None:
    """Write the files of an image, and its picture."""
    corrected = np.divide(
        made.image, effective, out=np.full_like(made.image, np.nan), where=effective >= cut
    )
    files = {
        "image.fits": (
            made.image,
            header(of, JY_BEAM, "clean image, apparent flux", corrected=False),
        ),
        "image.pbcor.fits": (
            corrected,
            header(of, JY_BEAM, "clean image over effective beam", corrected=True),
        ),
        "residual.fits": (
            made.residual,
            header(of, JY_BEAM, "residual, apparent flux", corrected=False),
        ),
        "psf.fits": cut_psf(
            made.psf, header(of, JY_BEAM, "point spread function", corrected=False)
        ),
        "beam.fits": (effective, header(of, "", "effective beam", corrected=False)),
        "rms.fits": (local, header(of, JY_BEAM, "local rms, apparent flux", corrected=False)),
    }
    for name, (plane, made_header) in files.items():
        context.write(name, to_bytes(plane, made_header))
    rms = float(of.extra["RMSMED"][0])
    title = f"{of.group}   {of.frequency_hz / 1e9:.3f} GHz   rms {rms * 1e3:.2f} mJy/beam"
    context.write("thumbnail.png", thumbnail(made.image, of.frame, rms, of.beam_deg, title))


def metrics(
    seen: Observation,
    data: Averaged,
    made: Cleaned,
    weights: ImagingWeights,
    numbers: dict[str, float],
) -> dict[str, Any]:
    """Return the numbers that dashboards and later stages read."""
    known = {name: value for name, value in numbers.items() if np.isfinite(value)}
    thermal = weights.thermal_rms_jy
    return {
        "group": seen.group,
        "mjd": seen.mjd,
        "mjd_start": seen.mjd_start,
        "mjd_end": seen.mjd_end,
        "pointing_dec_deg": seen.pointing_dec_deg,
        "ra_deg": float(np.degrees(seen.header.ra_rad)),
        "dec_deg": float(np.degrees(seen.header.dec_rad)),
        "frequency_hz": weights.frequency_hz,
        "bmaj_arcsec": made.bmaj_deg * 3600,
        "bmin_arcsec": made.bmin_deg * 3600,
        "bpa_deg": made.bpa_deg,
        "thermal_rms_jy": thermal if np.isfinite(thermal) else None,
        "antennas": data.antennas,
        "natural_rms_jy": weights.natural_rms_jy if np.isfinite(thermal) else None,
        **known,
    }


def of_set(part: Baselines) -> dict[str, Any]:
    """Return what imaging.json says of one averaged Measurement Set."""
    return {
        "name": part.name,
        "rows": len(part.uvw_m),
        "channels": part.frequencies_hz.size,
        "averaged": part.factor,
        "channel_hz": part.width_hz * part.factor,
    }
