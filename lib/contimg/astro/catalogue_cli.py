"""``contimg catalogue add FILE``: add a survey's catalogue to the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from contimg.runtime.command import Command
from contimg.runtime.console import Console
from contimg.runtime.errors import BadFileError, BadInputError, MissingError, UsageError
from contimg.runtime.options import Options
from contimg.runtime.store import open_store

CATALOGUE_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]*$")


class CatalogueOptions(Options):
    """Add a catalogue (FITS, VOTable, ECSV or CSV, perhaps gzipped) to the store.

    ``contimg catalogue add FILE --store URI`` writes STORE/catalogues/NAME.parquet and compares it
    with the shipped NVSS.
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
    flux_unit: Literal["", "Jy", "mJy", "uJy"] = ""
    """Unit of the fluxes if the file has none."""
    frame: Literal["", "icrs", "fk5", "fk4", "galactic"] = ""
    """Frame of the positions (J2000, B1950) instead of what the file states."""
    table: str = ""
    """Name or number (from 1) of the table in a file with several."""
    on_mismatch: Literal["refuse", "warn"] = "refuse"
    """What to do with a list whose positions or unit cannot be right beside NVSS."""


RUN = "contimg.astro.catalogue_cli:add_catalogue"
COMMAND = Command(
    name="catalogue", options=CatalogueOptions, run=RUN, positional=("action", "file")
)


def add_catalogue(
    options: CatalogueOptions, console: Console, _env: Mapping[str, str]
) -> dict[str, Any]:
    """Read the file, compare it with NVSS, write the table and return the summary."""
    from contimg.astro.catalogue_check import compare_with_nvss, find_faults
    from contimg.astro.catalogue_files import UserStatements, read_catalogue
    from contimg.astro.catalogues import catalogue_of
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
    notes: list[str] = []
    given = UserStatements(options.table, options.frame, options.flux_unit)
    survey = options.catalogue
    columns = read_catalogue(data, where, survey, frequency_hz, given=given, notes=notes)
    made = CATALOGUE.table(columns)
    listed = catalogue_of(made, name)
    seen = compare_with_nvss(listed)
    wrong, doubtful = find_faults(seen, listed)
    if wrong and options.on_mismatch == "refuse":
        problem = f"Beside NVSS the list cannot be right: {'; '.join(wrong)}."
        raise BadInputError(where, problem, "Correct it, or give --on-mismatch warn.")
    key = f"catalogues/{name}.parquet"
    open_store(options.store).put(key, CATALOGUE.to_bytes(made))
    uri, sources = f"{options.store.rstrip('/')}/{key}", int(made.num_rows)
    for text in (*notes, *wrong, *doubtful):
        console.log.warning("%s", text)
    console.log.info("%d sources in %s", sources, uri)
    console.log.info(
        "beside NVSS: %d of %d possible matches; %d compared: flux ratio %s (%s to %s), "
        "offset %s, %s arcsec in RA and Dec",
        *seen[:-1],
    )
    return {
        "command": "catalogue add",
        "catalogue": uri,
        "sources": sources,
        "nvss": seen._asdict(),
        "warnings": [*notes, *wrong, *doubtful],
    }
