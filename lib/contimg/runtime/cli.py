"""``contimg COMMAND …``: the commands that are no stages; each distribution brings its own by an entry point."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points, version
from typing import NoReturn

from contimg.runtime.command import Command
from contimg.runtime.console import Console
from contimg.runtime.contract import guarded, leave
from contimg.runtime.options import parse


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
        entry = commands[name].load()
        if isinstance(entry, Command):
            options = parse(
                entry.options,
                sys.argv[2:],
                f"contimg {name}",
                version("contimg"),
                positional=entry.positional,
            )
            env = dict(os.environ)
            console = Console(name, env, plain=entry.plain)
            code = guarded(
                lambda: entry.load()(options, console, env), console, env, tell=not entry.plain
            )
        else:
            code = entry(sys.argv[2:])
    except SystemExit as ended:
        code = ended.code
    leave(int(code or 0))
