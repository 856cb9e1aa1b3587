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
from contimg_image.options import Backend
from contimg_image.tiers import Settings

PADDING = 1.2
"""Without padding, the w-gridder aliases onto the outermost rows."""
CAREFUL_MGAIN = 0.7
"""Fraction of the peak that is cleaned in a cycle where more has diverged."""
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
    backend: Backend
    timeout_s: float
    reuse: tuple[str, ...] = ()
    """Planes that WSClean need not make again: "psf", "dirty"; a dirty run leaves both."""
    careful: bool = False
    """Clean without negative components and with more major cycles, which does not diverge."""


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
    diverged: bool = False
    """Whether cleaning raised the noise."""

    @property
    def beam_px(self) -> float:
        """Geometric mean of the beam's axes, pixels."""
        return float(np.sqrt(self.beam.major_deg * self.beam.minor_deg) / self.cell_deg)

    @property
    def beam_major_px(self) -> float:
        """Major axis of the beam, pixels."""
        return self.beam.major_deg / self.cell_deg


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
        -niter {settings.niter} -auto-threshold {settings.threshold}
    """
    if settings.taper_arcsec:
        text += f" -taper-gaussian {settings.taper_arcsec}asec"
    if not settings.niter and "psf" not in job.reuse:
        text += " -make-psf"
    if job.careful:
        text += " -no-negative"
    text += f" -mgain {CAREFUL_MGAIN if job.careful else settings.mgain}"
    for plane in job.reuse:
        text += f" -reuse-{plane} {scratch / PREFIX}"
    masked = [] if mask is None else ["-fits-mask", str(mask)]
    files = ["-temp-dir", str(scratch), "-name", str(scratch / PREFIX), *masked]
    return ["wsclean", *text.split(), *files, *(str(path) for path in job.paths)]


def run_imager(context: Context, job: ImagerJob, mask: Mask | None) -> Cleaned:
    """Image and clean with WSClean, or with tclean in a child process.

    Raises BadImageError if the imager fitted no beam.
    """
    from astropy.io import fits

    folder, settings, (major, minor, angle) = context.scratch, job.settings, job.beam
    path = None if mask is None else write_mask(folder / "mask.fits", mask, job.frame)
    keywords: dict[str, Any] = {}
    if job.backend == "wsclean":
        context.run(wsclean_command(job, path, folder), job.timeout_s)
    else:
        parameters = {
            "vis": [str(path) for path in job.paths],
            "imsize": [settings.size, settings.size],
            "cell": f"{settings.cell_arcsec}arcsec",
            "robust": settings.robust,
            "uvtaper": [f"{settings.taper_arcsec}arcsec"] if settings.taper_arcsec else [],
            "restoringbeam": [f"{major}arcsec", f"{minor}arcsec", f"{angle}deg"],
            "niter": settings.niter,
            "nsigma": settings.threshold if settings.niter else 0.0,
        }
        given = {"folder": str(folder), "mask": path and str(path), "parameters": parameters}
        function = "contimg_image.imagers:call_tclean"
        keywords["CASAVER"] = call_casa(context, function, job.timeout_s, **given)
    # For a dirty image WSClean writes no residual.
    dirty = job.backend == "wsclean" and not settings.niter
    names = ("image", "image" if dirty else "residual", "psf")
    files = [folder / f"{PREFIX}-{name}.fits" for name in names]
    header = fits.getheader(files[0])
    if "BMAJ" not in header:
        found = "The imager fitted no beam: too few visibilities are left."
        raise BadImageError("the imager's PSF", found, "Look at the flags.")
    axis = next(n for n in (3, 4) if header[f"CTYPE{n}"].startswith("FREQ"))
    if dirty:
        files[:2] = [files[0].rename(folder / f"{PREFIX}-dirty.fits")] * 2
    planes = [np.ascontiguousarray(fits.getdata(file).squeeze(), np.float32) for file in files]
    return Cleaned(
        image=planes[0],
        residual=planes[1],
        psf=planes[2],
        beam=Beam(header["BMAJ"], header["BMIN"], header["BPA"]),
        cell_deg=job.frame.cell_deg,
        band_hz=(header[f"CRVAL{axis}"], header[f"CDELT{axis}"]),
        keywords=keywords or {key: header[key] for key in header if key.startswith("WSC")},
    )


def call_tclean(*, folder: str, mask: str | None, parameters: dict[str, Any]) -> str:
    """Run tclean, export its planes as FITS and return CASA's version; for a child process."""
    from casatasks import casalog, exportfits, importfits, tclean, version_string
    from casatools import image

    casalog.setlogfile(f"{folder}/casa.txt")
    name = f"{folder}/{PREFIX}"
    # tclean would continue from the files of an earlier round.
    for old in Path(folder).glob(f"{PREFIX}.*"):
        shutil.rmtree(old)
    common: dict[str, Any] = {"imagename": name, "datacolumn": "data", "stokes": "I"}
    common |= {"specmode": "mfs", "gridder": "wproject", "wprojplanes": WPLANES}
    common |= {"weighting": "briggs", "deconvolver": "hogbom", "gain": 0.1}
    common |= {"pbcor": False, "pblimit": -0.1, **parameters}
    image_mask = ""
    if mask is not None:
        # The mask needs the coordinates of the image: make an empty image first, then fill it.
        image_mask = f"{name}.clean-mask"
        tclean(**common | {"niter": 0}, savemodel="none")
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
    tclean(**common, mask=image_mask, usemask="user")
    for plane in ("image", "residual", "psf"):
        exportfits(imagename=f"{name}.{plane}", fitsimage=f"{name}-{plane}.fits", overwrite=True)
    return str(version_string())


def write_mask(path: Path, mask: Mask, frame: Frame) -> Path:
    """Write a mask as a FITS file on the grid of the image: not zero where cleaning is allowed."""
    from astropy.io import fits

    header = fits.Header(frame.axis_cards())
    fits.writeto(path, mask.astype(np.float32)[None, None], header, overwrite=True)
    return path
