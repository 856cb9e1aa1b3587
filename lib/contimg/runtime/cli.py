"""``contimg COMMAND …``: the commands that are no stages; each distribution brings its own by an entry point."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import NoReturn

from contimg.runtime.command import Command
from contimg.runtime.contract import leave, run_command


def main() -> NoReturn:
    """Find the command and hand the rest of the line to it."""
    commands = {point.name: point for point in entry_points(group="contimg.commands")}
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in {"-h", "--help"}:
        print("usage: contimg COMMAND [--help]\n\ncommands:", *sorted(commands), sep="\n  ")  # noqa: T201 - help goes to stdout
        sys.exit(0)
    if name == "--version":
        print(f"contimg {version('contimg')}")  # noqa: T201 - so does the version
        sys.exit(0)
    if name not in commands:
        print(  # noqa: T201
            f"contimg: no command {name!r}; there are: {', '.join(sorted(commands))}",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        found = commands[name].load()
        argv = sys.argv[2:]
        code = run_command(found, argv) if isinstance(found, Command) else found(argv)
    except SystemExit as ended:
        code = ended.code
    leave(int(code or 0))
