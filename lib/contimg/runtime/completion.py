"""``contimg completion SHELL``: completion of commands, options and choices in a shell.

The script of a shell asks ``contimg __complete WORD…`` for candidates, so it never goes stale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from contimg.runtime.command import Command, command_points
from contimg.runtime.console import Console
from contimg.runtime.options import Options, choices, flag
from contimg.runtime.stage import StageSpec, stage_specs

SCRIPTS = {
    "bash": """\
_contimg() {{
    local IFS=$'\\n'
    COMPREPLY=($(contimg __complete "${{COMP_WORDS[@]:0:COMP_CWORD+1}}" 2>/dev/null))
}}
complete -o default -F _contimg {programs}
""",
    "zsh": """\
#compdef {programs}
_contimg() {{
    local -a found
    found=("${{(@f)$(contimg __complete "${{(@)words[1,CURRENT]}}" 2>/dev/null)}}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}}
compdef _contimg {programs}
""",
    "fish": """\
for program in {programs}
    complete -c $program -a '(contimg __complete (commandline -opc) (commandline -ct))'
end
""",
}


class CompletionOptions(Options):
    """Print a shell's script that completes contimg and its stages.

    For bash: ``source <(contimg completion bash)``, for instance in ~/.bashrc.
    """

    shell: Literal["bash", "zsh", "fish"]
    """The shell."""


COMMAND = Command(
    name="completion",
    options=CompletionOptions,
    run="contimg.runtime.completion:print_script",
    positional=("shell",),
    plain=True,
)


def print_script(
    options: CompletionOptions, _console: Console, _env: Mapping[str, str]
) -> dict[str, Any]:
    """Print the script of a shell."""
    programs = " ".join(["contimg", *(spec.program for spec in stage_specs().values())])
    print(SCRIPTS[options.shell].format(programs=programs), end="")  # noqa: T201 - its purpose
    return {}


def complete_words(words: Sequence[str]) -> list[str]:
    """Return the candidates for the last word, which may be empty, of a line up to the cursor.

    The program is the first word. bash gives ``--tier=`` as two words.
    """
    program, *given = words or ["contimg"]
    if given and given[-1] == "=":
        given.append("")
    given = [word for word in given if word != "="] or [""]
    *before, last = given
    target: Any = stage_specs().get(program.rpartition("/")[2].removeprefix("contimg-"))
    if target is None:
        points = command_points()
        if not before:
            return [name for name in [*points, "--help", "--version"] if name.startswith(last)]
        name = before.pop(0)
        target = points[name].load() if name in points else None
    if not isinstance(target, Command | StageSpec):
        return []
    fields = {flag(name): field for name, field in target.options.model_fields.items()}
    name, equals, start = last.partition("=")
    if not equals:
        name, start = before[-1] if before else "", last
    if name in fields and (equals or not last.startswith("-")):
        known = ["true", "false"] if fields[name].annotation is bool else []
        values = choices(fields[name]) or known
        found = [value for value in values if value.startswith(start)]
        # zsh and fish replace the whole word, bash only the part behind "=".
        return [f"{name}={value}" if equals else value for value in found]
    if not last.startswith("-"):
        places = target.positional if isinstance(target, Command) else ()
        place = sum(not word.startswith("-") for word in before)
        field = target.options.model_fields[places[place]] if place < len(places) else None
        return [value for value in choices(field) or [] if value.startswith(last)] if field else []
    extra = ["--config"] if isinstance(target, StageSpec) else []
    return [word for word in [*fields, *extra, "--help", "--version"] if word.startswith(last)]
