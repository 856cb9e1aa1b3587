"""Options of the image stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.astro.beam_text import DEFAULT_BEAM, BeamText
from contimg.runtime.options import ArtifactURI, ObjectURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec

Tier = Literal["quicklook", "development", "standard", "high_precision"]
Backend = Literal["wsclean", "tclean"]


class ImageOptions(StageOptions):
    """Make the calibrated Stokes I image of one group, its effective beam and its rms map."""

    ms: ArtifactURI
    """URI of the convert artifact, which holds ms.tar."""
    flags: ArtifactURI
    """URI of the flag artifact of the same group."""
    calibration: ArtifactURI
    """URI of the calibrate artifact whose tables are applied; raw data are never imaged."""
    tables: str | None = None
    """Folder of tables, for a row in TABLES/images/date=YYYY-MM-DD/GROUP.parquet; none if empty."""
    tier: Tier = "standard"
    """`development` and `quicklook` leave out long baselines; `high_precision` is slow and fine."""
    backend: Backend = "wsclean"
    """`tclean` (w-projection) is slower; it is there for comparison."""
    catalogue: ObjectURI = ""
    """Positions of clean masks, by `contimg catalogue add`; the shipped NVSS if empty."""

    beam: BeamText = DEFAULT_BEAM
    """Primary beam: airy:DIAMETER (m), gaussian:FWHM@FREQUENCY (deg), or the URI of a beam file."""
    other_beam: bool = False
    """Apply a calibration although it was made with another primary beam."""

    band_mhz: str = Field(default="", pattern=r"^(\d+(\.\d+)?-\d+(\.\d+)?)?$")
    """Image only channels between two frequencies, LOW-HIGH in MHz, such as 1311-1358 for four
    subbands; all if empty."""
    size: int | None = Field(default=None, ge=128, le=16384)
    """Width and height, pixels; the tier's if empty."""
    cell_arcsec: float | None = Field(default=None, gt=0)
    """Width of a pixel, arcsec; the tier's if empty."""
    robust: float | None = Field(default=None, ge=-2, le=2)
    """Briggs' robustness; the tier's if empty."""
    niter: int | None = Field(default=None, ge=0)
    """Largest number of minor iterations; the tier's if empty. 0 makes a dirty image."""
    threshold: float | None = Field(default=None, gt=0)
    """Clean down to this multiple of the residual's noise; the tier's if empty."""
    timeout_s: float = Field(default=3600.0, gt=0)
    """Time limit of the imager, seconds."""


STAGE = StageSpec(
    name="image",
    options=ImageOptions,
    tools=(
        *("wsclean", "casatools", "casatasks", "python-casacore"),
        *("numba", "numpy", "scipy", "astropy", "matplotlib"),
    ),
    resources=Resources(deadline_s=4000, memory_mi=8192, scratch_mi=5120),
    semaphore="wsclean",
    image_level="casa",
    debian_packages=("wsclean",),
    views=("thumbnail.png",),
)
