"""The executable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contimg.runtime.contract import command, leave
from contimg_watch.options import ServiceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg.runtime.console import Console


def main() -> None:
    """Run ``contimg-watch``."""
    leave(command("contimg-watch", ServiceOptions, _watch))


def _watch(options: ServiceOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    from contimg_watch.stage import run  # h5py is slow to import, and --help needs none

    return run(options, console, env)


if __name__ == "__main__":
    main()
