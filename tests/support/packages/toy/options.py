"""The options of a stage of few lines; the contract's tests run it as a real process."""

from __future__ import annotations

from typing import Literal

from contimg.runtime.options import ArtifactURI, StageOptions, Words
from contimg.runtime.stage import Resources, StageSpec


class ToyOptions(StageOptions):
    """Write a word, or fail in the way that is asked for."""

    word: str = "hello"
    """What to write, 100 % of it."""
    source: ArtifactURI | None = None
    """An artifact to read first."""
    words: Words = ()
    """A list."""
    loud: bool = False
    """Upper case."""
    do: Literal[
        "write",
        "bug",
        "data",
        "full",
        "sleep",
        "child",
        "killed",
        "segfault",
        "view",
        "finaliser",
        "compiled",
        "swallowed",
        "tidy",
    ] = "write"
    """How to end."""


STAGE = StageSpec(
    name="toy", options=ToyOptions, package="toy", resources=Resources(deadline_s=60, memory_mi=512)
)
