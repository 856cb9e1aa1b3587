"""Options of a small stage, which the tests of the contract run as a real process."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.runtime.options import ArtifactURI, StageOptions, Words
from contimg.runtime.stage import Resources, StageSpec


class ToyOptions(StageOptions):
    """Write a word, or fail in a chosen way."""

    word: str = "hello"
    """What to write, 100 % of it."""
    source: ArtifactURI | None = None
    """An artifact to read first."""
    words: Words = ()
    """A list."""
    count: int = Field(default=1, ge=1, le=9)
    """How often."""
    loud: bool = False
    """Upper case."""
    do: Literal[
        *("write", "bug", "data", "full", "sleep", "child", "killed", "segfault", "view"),
        *("finaliser", "compiled", "swallowed", "tidy"),
    ] = "write"
    """How to end."""


STAGE = StageSpec(
    name="toy", options=ToyOptions, package="toy", resources=Resources(deadline_s=60, memory_mi=512)
)
