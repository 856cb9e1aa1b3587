"""Options of the variability stage."""

from __future__ import annotations

from pydantic import Field

from contimg.runtime.options import ArtifactURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class VariabilityOptions(StageOptions):
    """Describe the variability of every source, and search for extreme scattering events."""

    normalized: ArtifactURI
    """URI of the normalize artifact."""
    tables: str
    """URI of the folder of tables; statistics and candidates are published to it."""
    min_score: float = Field(default=0.6, ge=0, le=1)
    """A candidate's mission score is above this."""
    min_evidence: float = Field(default=13.0, gt=0)
    """A candidate's penalised log likelihood exceeds that of every rival by this much."""
    min_epochs: int = Field(default=20, ge=5)
    """Sources with more epochs than this get a verdict."""


STAGE = StageSpec(
    name="variability",
    options=VariabilityOptions,
    tools=("scipy",),
    resources=Resources(deadline_s=3600, memory_mi=4096, scratch_mi=1536),
)
