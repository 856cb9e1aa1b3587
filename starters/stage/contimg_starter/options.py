"""Options of the starter stage, and its spec. It imports lib alone."""

from __future__ import annotations

from pydantic import Field

from contimg.runtime.options import ArtifactURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class StarterOptions(StageOptions):
    """Find the brightest pixel of an image and its signal-to-noise ratio."""

    image: ArtifactURI
    """URI of the image artifact."""
    min_snr: float = Field(default=5.0, gt=0)
    """Warn if the brightest pixel has a lower signal-to-noise ratio than this."""


STAGE = StageSpec(
    name="starter",
    options=StarterOptions,
    resources=Resources(deadline_s=600, memory_mi=2048, scratch_mi=512),
)
