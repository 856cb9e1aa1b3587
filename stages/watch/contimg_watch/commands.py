"""The command ``contimg watch``: contimg-watch without its service, as workflows and people run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contimg.runtime.command import Command
from contimg.runtime.console import Console
from contimg.runtime.stage import Resources
from contimg_watch.options import ServiceOptions, WatchOptions

WATCH = Command(
    name="watch",
    options=WatchOptions,
    run="contimg_watch.commands:watch",
    resources=Resources(deadline_s=600, memory_mi=1024, cpu="250m"),
)


def watch(options: WatchOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Look for groups, once or until the process is stopped."""
    from contimg_watch.stage import run  # h5py is slow to import

    return run(ServiceOptions(**options.model_dump()), console, env)
