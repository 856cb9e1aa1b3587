"""``contimg catalogue add FILE``: add a survey's catalogue to the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from contimg.runtime.command import Command
from contimg.runtime.console import Console
from contimg.runtime.errors import BadFileError, MissingError, UsageError
from contimg.runtime.options import Options
from contimg.runtime.store import open_store

CATALOGUE_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]*$")


class CatalogueOptions(Options):
    """Add a catalogue (FITS, VOTable or CSV, perhaps gzipped) to the store.

    ``contimg catalogue add FILE --store URI`` writes STORE/catalogues/NAME.parquet.
    """

    action: Literal["add"]
    """What to do."""
    file: Path
    """The catalogue's file."""
    store: str
    """Root URI of the store."""
    catalogue: Literal["nvss", "first", "racs", "vlass", "other"] = "other"
    """The survey, which has units and frequency where the file has none."""
    name: str | None = None
    """Name of the catalogue in the store; by default the survey's or the file's name."""
    frequency_mhz: float | None = Field(default=None, gt=0)
    """Frequency of the fluxes, MHz, if neither the file nor the survey has it."""


RUN = "contimg.astro.catalogue_cli:add_catalogue"
COMMAND = Command(
    name="catalogue", options=CatalogueOptions, run=RUN, positional=("action", "file")
)


def add_catalogue(
    options: CatalogueOptions, console: Console, _env: Mapping[str, str]
) -> dict[str, Any]:
    """Read the file, write the table and return the summary."""
    from contimg.astro.catalogue_files import read_catalogue
    from contimg.records.schemas.shipped import CATALOGUE

    where = str(options.file)
    try:
        data = options.file.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(where, "There is no such catalogue file.", "Check the path.") from error
    except OSError as error:
        raise BadFileError(where, f"The file cannot be read: {error}.", "Check it.") from error
    stem = options.file.name.split(".")[0].lower()
    name = options.name or (options.catalogue if options.catalogue != "other" else stem)
    if not CATALOGUE_NAME.match(name):
        problem = f"{name!r} is not lower-case letters, digits, '_', '-' and '.'."
        raise UsageError("--name", problem, "Choose such a name.")
    frequency_hz = options.frequency_mhz * 1e6 if options.frequency_mhz else None
    columns = read_catalogue(data, where, options.catalogue, frequency_hz)
    key = f"catalogues/{name}.parquet"
    open_store(options.store).put(key, CATALOGUE.to_bytes(columns))
    uri, sources = f"{options.store.rstrip('/')}/{key}", int(columns["ra"].size)
    console.log.info("%d sources in %s", sources, uri)
    return {"command": "catalogue add", "catalogue": uri, "sources": sources}
