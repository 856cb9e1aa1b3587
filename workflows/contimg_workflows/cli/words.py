"""What the commands' lines have in common."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from contimg.runtime.directory import DirectoryStore
from contimg.runtime.errors import UsageError
from contimg.runtime.options import flag
from contimg.runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contimg.runtime.options import Options


def _lines(value: object) -> object:
    return tuple(value.split("\n")) if isinstance(value, str) else value


ALONE = {"-h", "--help", "--version"}
"""What every command has and takes no value."""
Settings = Annotated[tuple[str, ...], BeforeValidator(_lines)]
"""What ``--set`` gathered, an element each."""


def joined(argv: Sequence[str]) -> list[str]:
    """Gather every ``--set`` into one word, so that none hides another and values may hold commas."""
    rest: list[str] = []
    settings: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--set":
            settings.append(next(words, ""))
        elif word.startswith("--set="):
            settings.append(word.removeprefix("--set="))
        else:
            rest.append(word)
    return [*rest, *(["--set=" + "\n".join(settings)] if settings else [])]


def flagged(argv: Sequence[str], model: type[Options], *flags: str) -> list[str]:
    """Give the words that belong to no option their flags: ``logs NAME TASK`` is ``logs --name=NAME --task=TASK``."""
    switches = {
        flag(name) for name, field in model.model_fields.items() if field.annotation is bool
    } | ALONE
    free = list(flags)
    found: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            found.append(f"{free.pop(0)}={word}" if free else word)
        elif "=" in word or word in switches:
            found.append(word)
        else:
            found += [word, *islice(words, 1)]
    return found


def runs_folder(prog: str, store: str | None, runs: str | None) -> Path:
    """Return where states and logs lie.

    Raises
    ------
    UsageError
        If neither a store nor a folder is named.
    """
    if runs is not None:
        return Path(runs).absolute()
    if store is None:
        remedy = "Name the store that was run on; or an Argo Server, by --argo or ARGO_SERVER."
        raise UsageError(prog, "expected --store or --runs, found neither.", remedy)
    opened = open_store(store)
    return (
        Path(opened.root) / "runs"
        if isinstance(opened, DirectoryStore)
        else Path("contimg-runs").absolute()
    )
