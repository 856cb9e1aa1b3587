"""The other imager, CASA's tclean with w-projection, in a child; for comparison with WSClean."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.measures import call_casa
from contimg.runtime.errors import BadImageError
from contimg_image.wsclean import Cleaned, write_mask

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.runtime.context import Context
    from contimg_image.wsclean import Job

    Mask = npt.NDArray[np.bool_]

WPLANES = 64
"""For 2.6 km of baselines and a field of 4.5 deg."""
NAME = "tclean"
PLANES = ("image", "residual", "psf", "model")


def clean(context: Context, job: Job, mask: Mask | None) -> Cleaned:
    """Image and clean."""
    path = None if mask is None else write_mask(context.scratch / "mask.fits", mask, job.frame)
    settings, (major, minor, angle) = job.settings, job.beam
    tuning = {
        "imsize": [settings.size, settings.size],
        "cell": f"{settings.cell_arcsec}arcsec",
        "robust": settings.robust,
        "uvtaper": [f"{settings.taper_arcsec}arcsec"] if settings.taper_arcsec else [],
        "restoringbeam": [f"{major}arcsec", f"{minor}arcsec", f"{angle}deg"],
    }
    answer = call_casa(
        context,
        "contimg_image.tclean:in_casa",
        job.timeout_s,
        paths=[str(path) for path in job.paths],
        folder=str(context.scratch),
        tuning=tuning,
        niter=settings.niter,
        nsigma=settings.threshold,
        mask=None if path is None else str(path),
    )
    return _read(context.scratch, answer)


def in_casa(
    *,
    paths: list[str],
    folder: str,
    tuning: dict[str, Any],
    niter: int,
    nsigma: float,
    mask: str | None,
) -> dict[str, Any]:
    """Run tclean and export its planes as FITS; return its version. Runs in a child."""
    from casatasks import casalog, exportfits, importfits, tclean, version_string

    casalog.setlogfile(f"{folder}/casa.txt")
    name = f"{folder}/{NAME}"
    # It would go on with what an earlier round left.
    for old in Path(folder).glob(f"{NAME}.*"):
        shutil.rmtree(old)
    image_mask = f"{name}.clean-mask"
    common = {
        "vis": paths,
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
        **tuning,
    }
    if mask is not None:
        # The mask must have the image's own coordinates: make an empty image first, then fill it.
        tclean(**common, niter=0, savemodel="none")
        importfits(fitsimage=mask, imagename=f"{name}.discs", overwrite=True)
        _fill(f"{name}.discs", f"{name}.residual", image_mask)
        for suffix in ("psf", "residual", "image", "model", "pb", "sumwt", "mask", "weight"):
            shutil.rmtree(f"{name}.{suffix}", ignore_errors=True)
    tclean(
        **common,
        niter=niter,
        nsigma=nsigma if niter else 0.0,
        mask=image_mask if mask else "",
        usemask="user",
    )
    for plane in PLANES:
        exportfits(
            imagename=f"{name}.{plane}", fitsimage=f"{folder}/{NAME}-{plane}.fits", overwrite=True
        )
    return {"casa": version_string()}


def _fill(discs: str, like: str, into: str) -> None:
    """Copy a mask's pixels into an image with the coordinates of another."""
    from casatools import image

    source, target = image(), image()
    source.open(discs)
    pixels = source.getchunk()
    source.close()
    shutil.copytree(like, into)
    target.open(into)
    target.putchunk(pixels.reshape(target.shape()))
    target.close()


def _read(folder: Path, answer: dict[str, Any]) -> Cleaned:
    from astropy.io import fits

    planes = {}
    for plane in PLANES:
        with fits.open(folder / f"{NAME}-{plane}.fits", memmap=False) as file:
            planes[plane] = np.ascontiguousarray(file[0].data.squeeze(), np.float32)
            if plane == "image":
                header = file[0].header
    if "BMAJ" not in header:
        raise BadImageError(
            "tclean",
            "expected a fitted beam, found none.",
            "Look at the PSF: too few visibilities are left.",
        )
    axis = next(n for n in (3, 4) if header[f"CTYPE{n}"].startswith("FREQ"))
    return Cleaned(
        planes["image"],
        planes["residual"],
        planes["psf"],
        planes["model"],
        header["BMAJ"],
        header["BMIN"],
        header["BPA"],
        header[f"CRVAL{axis}"],
        header[f"CDELT{axis}"],
        {"CASAVER": answer["casa"]},
    )
