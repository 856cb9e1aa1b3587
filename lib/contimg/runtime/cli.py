"""``contimg COMMAND …``: runs the commands that distributions bring by an entry point."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import NoReturn

from contimg.runtime import contract
from contimg.runtime.command import Command, command_points
from contimg.runtime.errors import Exit
from contimg.runtime.options import first_sentence
from contimg.runtime.versions import tool_version

USAGE = "usage: contimg COMMAND [--help]"


def main() -> NoReturn:
    """Run the command that the first word names with the rest of the line."""
    points, (name, *words) = command_points(), sys.argv[1:] or ["--help"]
    if name in {"-h", "--help"}:
        print(_help_text())  # noqa: T201 - help goes to stdout
        sys.exit(Exit.DONE)
    if name == "--version":
        print(f"contimg {tool_version('contimg')}")  # noqa: T201 - so does the version
        sys.exit(Exit.DONE)
    if name == "__complete":  # called by the scripts of `contimg completion`
        from contimg.runtime.completion import complete_words

        print("\n".join(complete_words(words)))  # noqa: T201 - read by the shell
        sys.exit(Exit.DONE)
    if name not in points:
        near = get_close_matches(name, points)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(points)}."
        print(  # noqa: T201
            f"{USAGE}\ncontimg: error: There is no command {name!r}. {hint}", file=sys.stderr
        )
        sys.exit(Exit.USAGE)
    command = points[name].load()
    try:
        if isinstance(command, Command):
            code = contract.run_command(command, words)
        else:
            contract.main(command, words)
    except SystemExit as ended:
        contract.leave(int(ended.code or 0))
    contract.leave(int(code))


def _help_text() -> str:
    """Return the list of commands, each with the first sentence of its help."""
    lines = [USAGE, "", "commands:"]
    points = command_points()
    width = max(map(len, points))
    for name, point in points.items():
        command = point.load()
        lines.append(f"  {name:{width}}  {first_sentence(command.options)}")
    return "\n".join([*lines, "", "contimg COMMAND --help describes a command's options."])
