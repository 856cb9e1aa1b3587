"""The options and the spec of the flag stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.runtime.options import ArtifactURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class FlagOptions(StageOptions):
    """Flag the unusable visibilities of a group; the Measurement Set itself stays as it is."""

    ms: ArtifactURI
    """URI of the convert artifact."""
    rfi: Literal["aoflagger", "casa", "off"] = "aoflagger"
    """How to find interference: AOFlagger with a strategy for this telescope, CASA's tfcrop and
    rflag, or not at all."""
    dead_fraction: float = Field(default=0.95, gt=0, le=1)
    """A receptor with at least this fraction of bad or zero visibilities is dead."""
    clip_sigma: float = Field(default=7.0, gt=0)
    """Flag cross-correlations this many robust sigma above the median of their channel and
    polarization."""


STAGE = StageSpec(
    name="flag",
    options=FlagOptions,
    tools=("aoflagger", "casatasks"),
    resources=Resources(deadline_s=1800, memory_mi=6144, scratch_mi=3072),
    semaphore="casa",
    image_level="casa",
    debian_packages=("aoflagger",),
)
