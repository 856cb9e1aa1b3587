"""What contimg-flag may be asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.runtime.options import ArtifactURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class FlagOptions(StageOptions):
    """Find the visibilities of a group that must not be used: a flag artifact, the Measurement Set stays as it is."""

    ms: ArtifactURI
    """URI of the convert artifact."""
    rfi: Literal["aoflagger", "casa", "off"] = "aoflagger"
    """Who looks for interference: AOFlagger with the strategy of this telescope, CASA's tfcrop and rflag, or nobody."""
    dead_fraction: float = Field(default=0.95, gt=0, le=1)
    """A receptor with at least this fraction of bad or zero visibilities is dead."""
    clip_sigma: float = Field(default=7.0, gt=0)
    """Cross-correlations this many robust sigma above the median of their channel and polarization are flagged."""


STAGE = StageSpec(
    name="flag",
    options=FlagOptions,
    tools=("aoflagger", "casatasks"),
    resources=Resources(deadline_s=1800, memory_mi=6144, scratch_mi=3072),
    semaphore="casa",
    image_level="casa",
    debian_packages=("aoflagger",),
)
