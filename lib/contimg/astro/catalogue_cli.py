"""``contimg catalogue add FILE``: bring a survey's catalogue into the store, in contimg's names and units."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from contimg.runtime.contract import command
from contimg.runtime.errors import BadFileError, Exit, MissingError, UsageError
from contimg.runtime.options import Options
from contimg.runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contimg.astro.catalogue_files import Survey
    from contimg.runtime.console import Console
else:
    from typing import Literal

    Survey = Literal["nvss", "first", "racs", "vlass", "other"]

NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]*$")
USAGE = "usage: contimg catalogue add FILE --store URI [--catalogue SURVEY] [--name NAME] [--frequency-mhz MHZ]"


class CatalogueOptions(Options):
    """Read a catalogue (FITS, VOTable or CSV, perhaps gzipped) and write it to STORE/catalogues/NAME.parquet."""

    file: Path
    """The catalogue's file (the first word, without --file)."""
    store: str
    """Root URI of the store."""
    catalogue: Survey = "other"
    """The survey; it tells units and frequency where the file is silent."""
    name: str | None = None
    """What the catalogue is called in the store; by default the survey's name, or the file's."""
    frequency_mhz: float | None = Field(default=None, gt=0)
    """Frequency of the fluxes, MHz, if neither the file nor the survey tells it."""


def main(argv: Sequence[str]) -> int:
    """Run ``contimg catalogue add FILE``; return the exit code."""
    words = list(argv)
    if words[:1] != ["add"]:
        asked = words[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return Exit.DONE if asked else Exit.USAGE
    words.pop(0)
    if words and not words[0].startswith("-"):
        words.insert(0, "--file")
    return command("contimg catalogue add", CatalogueOptions, run, words)


def run(options: CatalogueOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Read the file, write the table and return what was done.

    Raises
    ------
    MissingError, BadFileError, BadInputError, UsageError
        If the file cannot be read or understood, or the name cannot be a file's.
    """
    from contimg.astro.catalogue_files import read_catalogue
    from contimg.records.schemas.shipped import CATALOGUE

    data = _bytes(options.file)
    name = _name(options)
    mhz = options.frequency_mhz
    columns = read_catalogue(data, str(options.file), options.catalogue, mhz * 1e6 if mhz else None)
    uri = f"{options.store.rstrip('/')}/catalogues/{name}.parquet"
    open_store(options.store).put(f"catalogues/{name}.parquet", CATALOGUE.to_bytes(columns))
    sources = int(columns["ra"].size)
    console.log.info("%d sources in %s", sources, uri)
    return {"command": "catalogue add", "catalogue": uri, "sources": sources}


def _name(options: CatalogueOptions) -> str:
    stem = options.file.name.split(".")[0].lower()
    name = options.name or (options.catalogue if options.catalogue != "other" else stem)
    if not NAME.match(name):
        raise UsageError(
            "--name",
            f"expected lower-case letters, digits, '_', '-' and '.', found {name!r}.",
            "Choose such a name.",
        )
    return name


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(
            str(path), "expected a catalogue file, found none.", "Check the path."
        ) from error
    except OSError as error:
        raise BadFileError(
            str(path), f"expected a readable file, found {error!s}.", "Check its permissions."
        ) from error
