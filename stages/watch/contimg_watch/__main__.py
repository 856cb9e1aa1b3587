"""The executable."""

from collections.abc import Mapping
from typing import Any

from contimg.runtime.console import Console
from contimg.runtime.contract import command, leave
from contimg_watch.commands import WATCH
from contimg_watch.options import ServiceOptions


def main() -> None:
    """Run ``contimg-watch``."""
    leave(command("contimg-watch", ServiceOptions, _watch))


def _watch(options: ServiceOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    return WATCH.load()(
        options, console, env
    )  # h5py is slow to import, and --help does not need it


if __name__ == "__main__":
    main()
