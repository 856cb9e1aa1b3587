"""What may be asked of the imager."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.runtime.options import ArtifactURI, ObjectURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec

Tier = Literal["quicklook", "development", "standard", "high_precision"]
Backend = Literal["wsclean", "tclean"]


class ImageOptions(StageOptions):
    """Make the calibrated Stokes I image of one group, with its effective beam, its rms map and its thumbnail."""

    ms: ArtifactURI
    """URI of the convert artifact, which holds ms.tar."""
    flags: ArtifactURI
    """URI of the flag artifact of the same group."""
    calibration: ArtifactURI
    """URI of the calibrate artifact whose tables are applied; nothing is ever imaged without."""
    tables: str | None = None
    """URI of the folder of tables; a row goes to TABLES/images/date=YYYY-MM-DD/GROUP.parquet. Without it, none."""
    tier: Tier = "standard"
    """`standard` is the science image; `high_precision` is slower and finer; `development` and `quicklook` leave the long baselines out."""
    backend: Backend = "wsclean"
    """`tclean` (wproject) is for comparison; it is slower."""
    catalogue: ObjectURI = ""
    """Sources that clean masks are put on, as ``contimg catalogue add`` wrote them; the shipped NVSS if empty. Never a model."""

    size: int | None = Field(default=None, ge=128, le=16384)
    """Width and height, pixels, instead of the tier's."""
    cell_arcsec: float | None = Field(default=None, gt=0)
    """Pixel, arcsec, instead of the tier's."""
    robust: float | None = Field(default=None, ge=-2, le=2)
    """Briggs' robustness, instead of the tier's."""
    niter: int | None = Field(default=None, ge=0)
    """Most minor iterations, instead of the tier's; 0 makes a dirty image."""
    threshold: float | None = Field(default=None, gt=0)
    """Clean down to this multiple of the residual's noise, instead of the tier's."""
    timeout_s: float = Field(default=3600.0, gt=0)
    """Time limit of the imager, seconds."""


STAGE = StageSpec(
    name="image",
    options=ImageOptions,
    tools=(
        "wsclean",
        "casatools",
        "casatasks",
        "python-casacore",
        "numba",
        "numpy",
        "scipy",
        "astropy",
        "matplotlib",
    ),
    resources=Resources(deadline_s=4000, memory_mi=8192, scratch_mi=5120),
    semaphore="wsclean",
    image_level="casa",
    debian_packages=("wsclean",),
    views=("thumbnail.png",),
)
