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
    lines = []
    if name in {"-h", "--help"}:
        width = max(map(len, points))
        helps = {name: first_sentence(point.load().options) for name, point in points.items()}
        lines = [USAGE, "", "commands:", *(f"  {n:{width}}  {text}" for n, text in helps.items())]
        lines += ["", "contimg COMMAND --help describes a command's options."]
    elif name == "--version":
        lines = [f"contimg {tool_version('contimg')}"]
    elif name == "__complete":  # called by the scripts of `contimg completion`
        from contimg.runtime.completion import complete_words

        lines = complete_words(words)
    elif name in points:
        command = points[name].load()
        try:
            if not isinstance(command, Command):
                contract.main(command, words)
            contract.leave(contract.run_command(command, words))
        except SystemExit as ended:
            contract.leave(int(ended.code or 0))
    else:
        near = get_close_matches(name, points)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(points)}."
        problem = f"{USAGE}\ncontimg: error: There is no command {name!r}. {hint}"
        print(problem, file=sys.stderr)  # noqa: T201 - as argparse does
        sys.exit(Exit.USAGE)
    print("\n".join(lines))  # noqa: T201 - help, version and candidates go to stdout
    sys.exit(Exit.DONE)
