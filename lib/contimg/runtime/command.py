"""A command ``contimg NAME``: its options, its code, and what a workflow needs to run it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from contimg.runtime.options import Options
from contimg.runtime.stage import Resources

ENTRY_POINTS = "contimg.commands"
"""Each distribution names its commands here: `Command` objects, or a `StageSpec` that is run so."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that makes no artifact; light enough to import for a list of all commands."""

    name: str
    options: type[Options]
    """Its docstring is the help; the first sentence stands in the list of commands."""
    run: str
    """``module:function``, called with options, console and environment; returns the summary."""
    positional: tuple[str, ...] = ()
    """Options that may be given without their flags, in this order."""
    plain: bool = False
    """It prints for people: no JSON summary on stdout."""
    outputs: tuple[str, ...] = ()
    """Files that it hands over to a workflow, each an output parameter."""
    resources: Resources | None = None
    """With it the command has a WorkflowTemplate; None: it is for people."""


def command_points() -> dict[str, EntryPoint]:
    """Return the entry points of everything that runs as ``contimg NAME``, by name."""
    points = entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in sorted(points, key=lambda point: point.name)}


@functools.cache
def commands() -> Mapping[str, Command]:
    """Return all installed commands by name, in alphabetical order."""
    loaded = {name: point.load() for name, point in command_points().items()}
    return {name: one for name, one in loaded.items() if isinstance(one, Command)}
