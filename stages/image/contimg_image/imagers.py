"""The imagers: WSClean, and CASA's tclean with w-projection to compare it with.

WSClean always uses its w-gridder: the default gridder of WSClean 3.1, w-stacking, loses 4 % of a
source at 1.1 deg (docs/stages/image.md).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contimg.astro.measures import call_casa
from contimg.records.images import Beam
from contimg.runtime.context import Context
from contimg.runtime.errors import BadImageError
from contimg_image.frame import Frame, Mask, Singles
from contimg_image.tiers import Settings

PADDING = 1.2
"""Without padding, the w-gridder aliases onto the outermost rows."""
WPLANES = 64
"""For tclean, 2.6 km of baselines and a field of 4.5 deg."""
PREFIX = "field"
"""Begin of the names of the files that the imagers write."""


@dataclass(frozen=True)
class ImagerJob:
    """The task of an imager."""

    paths: tuple[Path, ...]
    """Measurement Sets that hold Stokes I."""
    settings: Settings
    beam: tuple[float, float, float]
    """Restoring beam: major and minor axis (FWHM, arcsec), position angle (deg)."""
    frame: Frame
    timeout_s: float


@dataclass(frozen=True, eq=False)
class Cleaned:
    """The planes that an imager made, shape (size, size), Jy/beam."""

    image: Singles
    residual: Singles
    psf: Singles
    beam: Beam
    cell_deg: float
    band_hz: tuple[float, float]
    """Middle and width of the band."""
    keywords: dict[str, Any]
    """Further keywords of the imager."""

    @property
    def beam_px(self) -> float:
        """Geometric mean of the beam's axes, pixels."""
        return float(np.sqrt(self.beam.major_deg * self.beam.minor_deg) / self.cell_deg)


def wsclean_command(job: ImagerJob, mask: Path | None, scratch: Path) -> list[str]:
    """Return WSClean's command line."""
    settings = job.settings
    # With two threads the w-gridder adds in any order: a cleaned image then varies by 0.7 mJy.
    threads = 1 if settings.deterministic else 2
    major, minor, angle = job.beam
    text = f"""
        -j {threads} -use-wgridder -wgridder-accuracy {settings.accuracy} -padding {PADDING}
        -no-update-model-required -no-dirty -pol I
        -size {settings.size} {settings.size} -scale {settings.cell_arcsec}asec
        -weight briggs {settings.robust} -beam-shape {major}asec {minor}asec {angle}deg
        -niter {settings.niter} -mgain {settings.mgain} -auto-threshold {settings.threshold}
    """
    if settings.taper_arcsec:
        text += f" -taper-gaussian {settings.taper_arcsec}asec"
    if not settings.niter:
        text += " -make-psf"
    masked = [] if mask is None else ["-fits-mask", str(mask)]
    files = ["-temp-dir", str(scratch), "-name", str(scratch / PREFIX), *masked]
    return ["wsclean", *text.split(), *files, *(str(path) for path in job.paths)]


def run_wsclean(context: Context, job: ImagerJob, mask: Mask | None) -> Cleaned:
    """Image and clean with WSClean."""
    path = None if mask is None else write_mask(context.scratch / "mask.fits", mask, job.frame)
    context.run(wsclean_command(job, path, context.scratch), job.timeout_s)
    # For a dirty image it writes no residual.
    residual = "residual" if job.settings.niter else "image"
    return _read_planes(context.scratch, job.frame, residual)


def run_tclean(context: Context, job: ImagerJob, mask: Mask | None) -> Cleaned:
    """Image and clean with tclean, in a child."""
    path = None if mask is None else write_mask(context.scratch / "mask.fits", mask, job.frame)
    settings, (major, minor, angle) = job.settings, job.beam
    parameters = {
        "vis": [str(path) for path in job.paths],
        "imsize": [settings.size, settings.size],
        "cell": f"{settings.cell_arcsec}arcsec",
        "robust": settings.robust,
        "uvtaper": [f"{settings.taper_arcsec}arcsec"] if settings.taper_arcsec else [],
        "restoringbeam": [f"{major}arcsec", f"{minor}arcsec", f"{angle}deg"],
    }
    version = call_casa(
        context,
        "contimg_image.imagers:call_tclean",
        job.timeout_s,
        folder=str(context.scratch),
        mask=None if path is None else str(path),
        niter=settings.niter,
        nsigma=settings.threshold if settings.niter else 0.0,
        parameters=parameters,
    )
    return _read_planes(context.scratch, job.frame, keywords={"CASAVER": version})


def call_tclean(
    *, folder: str, mask: str | None, niter: int, nsigma: float, parameters: dict[str, Any]
) -> str:
    """Run tclean, export its planes as FITS and return CASA's version; for a child process."""
    from casatasks import casalog, exportfits, importfits, tclean, version_string
    from casatools import image

    casalog.setlogfile(f"{folder}/casa.txt")
    name = f"{folder}/{PREFIX}"
    # tclean would continue from the files of an earlier round.
    for old in Path(folder).glob(f"{PREFIX}.*"):
        shutil.rmtree(old)
    common = {
        "imagename": name,
        "datacolumn": "data",
        "specmode": "mfs",
        "stokes": "I",
        "gridder": "wproject",
        "wprojplanes": WPLANES,
        "weighting": "briggs",
        "pbcor": False,
        "pblimit": -0.1,
        "deconvolver": "hogbom",
        "gain": 0.1,
        **parameters,
    }
    image_mask = ""
    if mask is not None:
        # The mask needs the coordinates of the image: make an empty image first, then fill it.
        image_mask = f"{name}.clean-mask"
        tclean(**common, niter=0, savemodel="none")
        importfits(fitsimage=mask, imagename=f"{name}.discs", overwrite=True)
        shutil.copytree(f"{name}.residual", image_mask)
        discs, target = image(), image()
        discs.open(f"{name}.discs")
        target.open(image_mask)
        target.putchunk(discs.getchunk().reshape(target.shape()))
        discs.close()
        target.close()
        for suffix in ("psf", "residual", "image", "model", "pb", "sumwt", "mask", "weight"):
            shutil.rmtree(f"{name}.{suffix}", ignore_errors=True)
    tclean(**common, niter=niter, nsigma=nsigma, mask=image_mask, usemask="user")
    for plane in ("image", "residual", "psf"):
        exportfits(imagename=f"{name}.{plane}", fitsimage=f"{name}-{plane}.fits", overwrite=True)
    return str(version_string())


def write_mask(path: Path, mask: Mask, frame: Frame) -> Path:
    """Write a mask as a FITS file on the grid of the image: not zero where cleaning is allowed."""
    from astropy.io import fits

    header = fits.Header(frame.axis_cards())
    fits.writeto(path, mask.astype(np.float32)[None, None], header, overwrite=True)
    return path


def _read_planes(
    folder: Path, frame: Frame, residual: str = "residual", keywords: dict[str, Any] | None = None
) -> Cleaned:
    """Read the planes that an imager wrote; `residual` names the plane of the residual.

    Without `keywords`, those of the files that begin with WSC are taken. Raises BadImageError if
    the imager fitted no beam.
    """
    from astropy.io import fits

    planes, header = [], None
    for plane in ("image", residual, "psf"):
        with fits.open(folder / f"{PREFIX}-{plane}.fits", memmap=False) as file:
            planes.append(np.ascontiguousarray(file[0].data.squeeze(), np.float32))
            header = header or file[0].header
    if header is None or "BMAJ" not in header:
        raise BadImageError(
            "the imager's PSF",
            "The imager fitted no beam: too few visibilities are left.",
            "Look at the flags.",
        )
    image, left, psf = planes
    axis = next(n for n in (3, 4) if header[f"CTYPE{n}"].startswith("FREQ"))
    return Cleaned(
        image=image,
        residual=left,
        psf=psf,
        beam=Beam(header["BMAJ"], header["BMIN"], header["BPA"]),
        cell_deg=frame.cell_deg,
        band_hz=(header[f"CRVAL{axis}"], header[f"CDELT{axis}"]),
        keywords=keywords or {key: header[key] for key in header if key.startswith("WSC")},
    )
