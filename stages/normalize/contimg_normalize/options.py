"""Options of the normalize stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.runtime.options import StageOptions
from contimg.runtime.stage import Resources, StageSpec

DAY_PATTERN = r"^\d{4}-\d{2}-\d{2}$"


class NormalizeOptions(StageOptions):
    """Put all epochs of a Declination strip on one relative flux scale."""

    tables: str
    """URI of the folder of tables; photometry is read from it, results are published to it."""
    strip: float
    """Pointing Declination of the strip, degrees."""
    strip_tolerance: float = Field(default=0.5, gt=0)
    """Observations that pointed within this of it belong to the strip, degrees."""
    first_day: str | None = Field(default=None, pattern=DAY_PATTERN)
    """First UTC day to use, YYYY-MM-DD."""
    last_day: str | None = Field(default=None, pattern=DAY_PATTERN)
    """Last UTC day to use, YYYY-MM-DD."""
    reference_snr: float = Field(default=50.0, gt=0)
    """Minimum median signal-to-noise ratio of a reference source."""
    max_references: int = Field(default=20, ge=3)
    """Number of reference sources wanted in each group; bright ones, spread over the field."""
    gradient: Literal["auto", "always", "never"] = "auto"
    """Fit a plane over each group instead of one factor: where the references show a slope."""
    setup: int = Field(default=0, ge=0)
    """Which images to use if tiers, bands or beams differ: 0 is the setup with the most groups."""
    systematic: float | None = Field(default=None, ge=0, lt=1)
    """1 sigma of errors that grow with flux, a fraction; default: measured from the references."""
    detection_snr: float = Field(default=5.0, gt=0)
    """An epoch's flux with a lower signal-to-noise ratio is marked as an upper limit."""


STAGE = StageSpec(
    name="normalize",
    options=NormalizeOptions,
    resolver="contimg_normalize.beam:find_inputs",
    resources=Resources(deadline_s=1800, memory_mi=4096, scratch_mi=512),
)
