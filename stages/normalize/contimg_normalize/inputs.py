"""The photometry of a strip: a query on the tables, resolved to objects with digests."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import Input
from contimg.runtime.store import open_store
from contimg_normalize.epochs import Columns
from contimg_normalize.options import NormalizeOptions

INPUT_NAME = "photometry"
COLUMNS = ("source", "ra", "dec", "mjd", "flux_forced", "local_rms", "compactness", "blend")


def find_photometry(options: NormalizeOptions) -> list[Input]:
    """Return the photometry files of the strip and the days, sorted by key, with their digests.

    Raises
    ------
    NoSourcesError
        If there is no such file.
    """
    store = open_store(options.tables)
    first, last = options.first_day or "", options.last_day or "9999-99-99"
    keys = [
        entry.key
        for entry in store.entries(f"{PHOTOMETRY.name}/")
        if entry.key.endswith(".parquet") and first <= entry.key.partition("date=")[2][:10] <= last
    ]
    found = []
    for key in keys:
        data = store.read(key)
        uri = f"{options.tables.rstrip('/')}/{key}"
        strip_deg = np.asarray(PHOTOMETRY.read(data, uri)["strip"].to_numpy(), np.float64)
        if strip_deg.size and np.all(np.abs(strip_deg - options.strip) <= options.strip_tolerance):
            digest = hashlib.sha256(data).hexdigest()
            found.append(Input(name=INPUT_NAME, uri=uri, digest=digest))
    if not found:
        strip = f"within {options.strip_tolerance} deg of Dec {options.strip:+.2f}"
        problem = f"No photometry of a strip {strip} in the {len(keys)} files of the chosen days."
        raise NoSourcesError(options.tables, problem, "Correct --strip or the days.")
    return found


def read_photometry(context: Context) -> Columns:
    """Read the columns that matter of all resolved files; nulls are NaN.

    Raises
    ------
    BadInputError
        If a file is no longer the one that was resolved.
    """
    parts = []
    for item in context.named(INPUT_NAME):
        data = context.read(item.uri)
        digest = hashlib.sha256(data).hexdigest()
        if digest != item.digest:
            problem = f"The file was replaced while the stage ran: its sha256 is {digest[:12]}…, "
            problem += f"but {item.digest[:12]}… was expected."
            raise BadInputError(item.uri, problem, "Run the stage again.")
        # Only these columns, so that files with further columns can be read beside older ones.
        parts.append(PHOTOMETRY.read(data, item.uri).select(COLUMNS))
    table = pa.concat_tables(parts)
    return {
        name: np.asarray(table[name].to_pylist() if name == "source" else table[name].to_numpy())
        for name in COLUMNS
    }
