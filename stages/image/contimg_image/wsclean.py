"""WSClean: always the w-gridder, for the w-stacking of 3.1 loses 4 % of a source at 1.1 deg (docs/image.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contimg.runtime.errors import BadImageError

if TYPE_CHECKING:
    import numpy.typing as npt
    from astropy.io.fits import Header

    from contimg.runtime.context import Context
    from contimg_image.frame import Frame
    from contimg_image.tiers import Settings

    Singles = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]

PADDING = 1.2
"""The w-gridder aliases onto the outermost rows without padding."""
NAME = "field"
PLANES = ("image", "residual", "psf", "model")


@dataclass(frozen=True)
class Job:
    """What an imager is asked for."""

    paths: tuple[Path, ...]
    """Measurement Sets that hold Stokes I."""
    settings: Settings
    beam: tuple[float, float, float]
    """Restoring beam: major and minor axis (FWHM, arcsec), position angle (deg)."""
    frame: Frame
    timeout_s: float


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What an imager made, planes of shape (size, size), Jy/beam and (model) Jy/pixel."""

    image: Singles
    residual: Singles
    psf: Singles
    model: Singles
    bmaj_deg: float
    bmin_deg: float
    bpa_deg: float
    frequency_hz: float
    """Middle of the band."""
    bandwidth_hz: float
    keywords: dict[str, object]
    """What the imager says of itself: WSClean's WSC keys."""


def command(job: Job, mask: Path | None, scratch: Path) -> list[str]:
    """Return WSClean's command line."""
    # One thread where bytes must repeat: with two, the w-gridder's sums come in any order (0.7 mJy in a cleaned image).
    settings = job.settings
    threads = "1" if settings.deterministic else "2"
    major, minor, angle = job.beam
    size, cell = str(settings.size), f"{settings.cell_arcsec}asec"
    argv = [
        "wsclean",
        "-j",
        threads,
        "-use-wgridder",
        "-wgridder-accuracy",
        str(settings.accuracy),
        "-padding",
        str(PADDING),
        "-no-update-model-required",
        "-temp-dir",
        str(scratch),
        "-name",
        str(scratch / NAME),
        "-no-dirty",
        "-pol",
        "I",
        "-size",
        size,
        size,
        "-scale",
        cell,
        "-weight",
        "briggs",
        str(settings.robust),
        "-beam-shape",
        f"{major}asec",
        f"{minor}asec",
        f"{angle}deg",
        "-niter",
        str(settings.niter),
        "-mgain",
        str(settings.mgain),
        "-auto-threshold",
        str(settings.threshold),
    ]
    if settings.taper_arcsec:
        argv += ["-taper-gaussian", f"{settings.taper_arcsec}asec"]
    if not settings.niter:
        argv += ["-make-psf"]
    if mask is not None:
        argv += ["-fits-mask", str(mask)]
    return [*argv, *(str(path) for path in job.paths)]


def clean(context: Context, job: Job, mask: Mask | None) -> Cleaned:
    """Image and clean."""
    path = None if mask is None else write_mask(context.scratch / "mask.fits", mask, job.frame)
    context.run(command(job, path, context.scratch), job.timeout_s)
    return read(context.scratch, job.settings)


def write_mask(path: Path, mask: Mask, frame: Frame) -> Path:
    """Write a mask as the FITS file that WSClean reads: a plane of its image's size, not zero where it may clean."""
    from astropy.io import fits

    header = fits.Header()
    half = frame.size // 2 + 1
    axes = (
        ("RA---SIN", frame.ra_deg, -frame.cell_deg, half),
        ("DEC--SIN", frame.dec_deg, frame.cell_deg, half),
    )
    for number, (kind, value, step, pixel) in enumerate(axes, 1):
        header[f"CTYPE{number}"], header[f"CRVAL{number}"] = kind, value
        header[f"CDELT{number}"], header[f"CRPIX{number}"], header[f"CUNIT{number}"] = (
            step,
            pixel,
            "deg",
        )
    fits.writeto(path, mask.astype(np.float32)[None, None], header, overwrite=True)
    return path


def read(folder: Path, settings: Settings) -> Cleaned:
    """Read what WSClean wrote.

    Raises
    ------
    BadImageError
        If it fitted no beam.
    """
    planes: dict[str, Singles] = {}
    header: Header | None = None
    for plane in PLANES:
        # A dirty image has neither model nor residual.
        name = plane if settings.niter or plane in {"image", "psf"} else "image"
        planes[plane], header = _plane(folder / f"{NAME}-{name}.fits", header)
    if not settings.niter:
        planes["model"] = np.zeros_like(planes["image"])
    if header is None or "BMAJ" not in header:
        raise BadImageError(
            "wsclean",
            "expected a fitted beam, found none.",
            "Look at the PSF: too few visibilities are left.",
        )
    return Cleaned(
        planes["image"],
        planes["residual"],
        planes["psf"],
        planes["model"],
        header["BMAJ"],
        header["BMIN"],
        header["BPA"],
        header["CRVAL3"],
        header["CDELT3"],
        {key: header[key] for key in header if key.startswith("WSC")},
    )


def _plane(path: Path, first: Header | None) -> tuple[Singles, Header]:
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        return np.ascontiguousarray(
            file[0].data.squeeze(), np.float32
        ), first if first is not None else file[0].header
