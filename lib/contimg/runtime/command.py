"""A command `contimg NAME`: its options, its work, and what a workflow may ask of it."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contimg.runtime.console import Console
    from contimg.runtime.options import Options
    from contimg.runtime.stage import Resources

ENTRY_POINTS = "contimg.commands"
"""Each distribution names its commands here."""
Work = Callable[[Any, "Console", Mapping[str, str]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that makes no artifact; light enough to import for a list of all commands."""

    name: str
    options: type[Options]
    """Its docstring is the help; the first sentence stands in the list of commands."""
    run: str
    """``module:function``, called with the options, the console and the environment; it returns the summary."""
    positional: tuple[str, ...] = ()
    """Options that may be given without their flags, in this order."""
    plain: bool = False
    """It prints for people: no JSON summary on stdout."""
    outputs: tuple[str, ...] = ()
    """Files that it hands over to a workflow, each an output parameter."""
    resources: Resources | None = None
    """With it the command has a WorkflowTemplate; None: it is for people."""

    @property
    def summary(self) -> str:
        """The first sentence of the help."""
        text = " ".join((self.options.__doc__ or "").split())
        return text.partition(". ")[0].rstrip(".") + "."

    def load(self) -> Work:
        """Import the command's code."""
        module, _, function = self.run.partition(":")
        work: Work = getattr(importlib.import_module(module), function)
        return work


@functools.cache
def commands() -> Mapping[str, Command]:
    """Return all installed commands by name, in alphabetical order."""
    points = sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)
    found = {point.name: point.load() for point in points}
    return {name: one for name, one in found.items() if isinstance(one, Command)}
