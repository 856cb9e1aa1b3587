"""Which photometry a strip's normalisation rests on: a query on the tables, resolved to objects with digests."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import Input
from contimg.runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contimg.runtime.context import Context
    from contimg_normalize.options import NormalizeOptions

NAME = "photometry"


def photometry_objects(options: NormalizeOptions) -> list[Input]:
    """Return the photometry files of the strip and the days, sorted by key, with their digests.

    Raises
    ------
    NoSourcesError
        If there is none.
    """
    store = open_store(options.tables)
    keys = list(_keys(options))
    found = []
    for key in keys:
        data = store.read(key)
        uri = f"{options.tables.rstrip('/')}/{key}"
        if _in_strip(PHOTOMETRY.read(data, uri), options):
            found.append(Input(name=NAME, uri=uri, digest=hashlib.sha256(data).hexdigest()))
    if not found:
        expected = f"photometry within {options.strip_tolerance} deg of Dec {options.strip:+.2f}"
        raise NoSourcesError(
            options.tables,
            f"expected {expected}, found none in {len(keys)} files.",
            "Correct --strip or the days.",
        )
    return found


def read_photometry(context: Context) -> pa.Table:
    """Read the resolved photometry into one table.

    Raises
    ------
    BadInputError
        If a file is no longer the one that was resolved.
    """
    files = []
    for item in context.named(NAME):
        data = context.read(item.uri)
        if hashlib.sha256(data).hexdigest() != item.digest:
            raise BadInputError(
                item.uri,
                f"expected sha256 {item.digest[:12]}…, found another.",
                "It was replaced meanwhile: run again.",
            )
        files.append((data, item.uri))
    return PHOTOMETRY.read_all(files)


def _keys(options: NormalizeOptions) -> Iterator[str]:
    for entry in open_store(options.tables).entries(f"{PHOTOMETRY.name}/"):
        day = entry.key.partition("date=")[2][:10]
        after = options.first_day is None or day >= options.first_day
        before = options.last_day is None or day <= options.last_day
        if entry.key.endswith(".parquet") and after and before:
            yield entry.key


def _in_strip(table: pa.Table, options: NormalizeOptions) -> bool:
    strips = np.asarray(table["strip"].to_numpy(), np.float64)
    return bool(strips.size and np.all(np.abs(strips - options.strip) <= options.strip_tolerance))
