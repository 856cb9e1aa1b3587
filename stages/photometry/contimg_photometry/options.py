"""Options of the photometry stage."""

from __future__ import annotations

from pydantic import Field

from contimg.runtime.options import ArtifactURI, ObjectURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class PhotometryOptions(StageOptions):
    """Measure the fluxes of catalogue sources at their known positions in one image."""

    image: ArtifactURI
    """URI of the image artifact."""
    tables: str
    """Folder of tables; rows go to TABLES/photometry/date=YYYY-MM-DD/GROUP.parquet."""
    catalogue: ObjectURI | None = None
    """Catalogue of `contimg catalogue add`; the shipped NVSS sources above 50 mJy if empty."""
    min_beam: float = Field(default=0.2, gt=0, lt=1)
    """Measure where the effective beam is at least this fraction of its centre."""
    detection_snr: float = Field(default=5.0, gt=0)
    """Below this signal-to-noise ratio a row is an upper limit."""
    position_snr: float = Field(default=20.0, gt=0)
    """Signal-to-noise ratio from which positions are fitted, and fluxes compared."""
    aperture: float = Field(default=1.0, gt=0.2, le=3)
    """Radius in which the beam is fitted, in beam major axes (FWHM)."""
    annulus_inner: float = Field(default=2.0, ge=1)
    """Inner radius of the annulus for background and noise, in beam major axes."""
    annulus_outer: float = Field(default=6.0, gt=1)
    """Its outer radius, in beam major axes."""
    pair_separation: float = Field(default=1.5, ge=0)
    """Sources nearer to each other than this many beam major axes are fitted together."""
    flux_scale_error: float = Field(default=0.05, ge=0, lt=1)
    """1 sigma error of a group's flux scale, a fraction, common to all rows; part of flux errors.
    The error of the calibration (SCALEERR of the image) is added in quadrature."""


STAGE = StageSpec(
    name="photometry",
    options=PhotometryOptions,
    tools=("scipy", "numba"),
    resources=Resources(deadline_s=900, memory_mi=4096, scratch_mi=1024),
)
