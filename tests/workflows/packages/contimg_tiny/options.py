"""The options of a stage of few lines that the engine's tests run as real processes."""

from __future__ import annotations

from typing import Literal

from contimg.runtime.options import ArtifactURI, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class TinyOptions(StageOptions):
    """Write a word after what was read, or end in the way that is asked for."""

    word: str = "x"
    """What to write."""
    source: ArtifactURI | None = None
    """An artifact to write first."""
    other: ArtifactURI | None = None
    """Another."""
    do: Literal["write", "data", "world", "crash", "sleep", "deaf", "bug"] = "write"
    """How to end."""
    times: int = 1000000
    """End so only the first few times; then write."""
    nap_s: float = 0.0
    """Sleep so long before writing."""
    after: str = ""
    """Wait, before writing, for a file of this pattern; the task's time limit ends it."""
    store: str = ""
    """Folder that remembers the times, and who ran."""


def spec(name: str, deadline_s: int = 60) -> StageSpec:
    """Make one of the stages: they differ by their names alone."""
    resources = Resources(deadline_s=deadline_s, memory_mi=512)
    return StageSpec(name=name, options=TinyOptions, resources=resources, package="contimg_tiny")
