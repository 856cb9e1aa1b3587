"""From the tables of photometry to one flux per source and epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contimg.astro.telescope import SITE
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import Input
from contimg.runtime.store import open_store
from contimg_normalize.options import NormalizeOptions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

INPUT_NAME = "photometry"
COLUMNS = ("source", "ra", "dec", "mjd", "flux_forced", "local_rms", "compactness", "blend")
J2000_MJD = 51544.5
ROTATION_AT_J2000_DEG = 280.46061837
"""Greenwich mean sidereal angle at J2000.0 (IAU 1982)."""
ROTATION_DEG_PER_DAY = 360.98564736629
FIELD_GAP_DEG = 5.0
"""Sources further apart in RA belong to different fields; the primary beam is narrower."""
MAX_FIELD_WIDTH_DEG = 15.0
"""Wider stretches of RA are cut: calibration and weather change within an hour."""


@dataclass(frozen=True, kw_only=True)
class LightCurves:
    """n sources in m epochs of one field; shape (n, m), NaN where a source was not measured."""

    source: NDArray[np.str_]
    ra_deg: Floats
    dec_deg: Floats
    epoch: Ints
    """Number of the field's transit since J2000, shape (m,), ascending."""
    mjd: Floats
    flux: Floats
    """In the unit of the photometry."""
    noise: Floats
    """1 sigma."""
    count: Ints
    """Observations that were averaged."""
    compactness: Floats
    """Median, shape (n,)."""
    blend: Ints
    """Largest number of sources that were fitted together, shape (n,)."""

    @property
    def snr(self) -> Floats:
        """Median signal-to-noise ratio, shape (n,)."""
        return np.asarray(np.nanmedian(self.flux / self.noise, axis=1))


def find_photometry(options: NormalizeOptions) -> list[Input]:
    """Return the photometry files of the strip and the days, sorted by key, with their digests.

    Raises NoSourcesError if there are none.
    """
    store = open_store(options.tables)
    first, last = options.first_day or "", options.last_day or "9999-99-99"
    keys = [e.key for e in store.entries(f"{PHOTOMETRY.name}/") if e.key.endswith(".parquet")]
    keys = [key for key in keys if first <= key.partition("date=")[2][:10] <= last]
    found = []
    for key in keys:
        data, uri = store.read(key), f"{options.tables.rstrip('/')}/{key}"
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

    Raises BadInputError if a file is no longer the one that was resolved.
    """
    parts = []
    for item in context.named(INPUT_NAME):
        data = context.read(item.uri)
        digest = hashlib.sha256(data).hexdigest()
        if digest != item.digest:
            problem = "The file was replaced while the stage ran: its sha256 was "
            problem += f"{item.digest[:12]}… and is {digest[:12]}…."
            raise BadInputError(item.uri, problem, "Run the stage again.")
        # Only these columns, so that files with further columns can be read beside older ones.
        parts.append(PHOTOMETRY.read(data, item.uri).select(COLUMNS))
    table = pa.concat_tables(parts)
    columns = {name: np.asarray(table[name].to_numpy()) for name in COLUMNS[1:]}
    return {"source": np.array(table["source"].to_pylist()), **columns}


def label_fields(ra_deg: Floats) -> Ints:
    """Return the number of the field that each source belongs to, shape (N,).

    A field is a stretch of RA without a gap; long stretches are cut into equal parts. The circle
    is opened at its widest gap, so that a field may span RA 0.
    """
    ra = ra_deg % 360.0
    order = np.argsort(ra, kind="stable")
    gaps = np.diff(np.append(ra[order], ra[order[0]] + 360.0))
    order = np.roll(order, -int(np.argmax(gaps)) - 1)
    along = np.where(ra[order] < ra[order[0]], ra[order] + 360.0, ra[order])
    stretch = np.append(0, np.cumsum(np.diff(along) > FIELD_GAP_DEG))
    label, number = np.empty(ra.size, np.int64), 0
    for k in np.unique(stretch):
        offset = along[stretch == k] - along[stretch == k].min()
        pieces = max(1, int(np.ceil(offset.max() / MAX_FIELD_WIDTH_DEG)))
        part = (offset / max(offset.max() / pieces, 1e-9)).astype(np.int64)
        label[order[stretch == k]] = number + np.minimum(part, pieces - 1)
        number += pieces
    return label


def arc_middle(ra_deg: Floats) -> float:
    """Return the middle of the arc that holds all right ascensions, degrees."""
    offset = wrap_angle(ra_deg - ra_deg[0])
    return float((ra_deg[0] + 0.5 * (offset.min() + offset.max())) % 360.0)


def wrap_angle(angle_deg: Floats) -> Floats:
    """Return angles between −180 and 180 degrees."""
    return np.asarray((angle_deg + 180.0) % 360.0 - 180.0)


def transit_number(mjd: Floats, ra_deg: Floats, field_ra_deg: float) -> Ints:
    """Return the number of the transit, since J2000, of each measurement (UTC), shape (N,).

    Right ascensions (ICRS) are counted from the middle of the field, so that all sources of one
    transit have the same number, also across RA 0 and midnight. Precession (0.4 deg in 30 years)
    does not matter: any angle within half a turn gives the same transit.
    """
    rotation = ROTATION_AT_J2000_DEG + ROTATION_DEG_PER_DAY * (mjd - J2000_MJD) + SITE.lon_deg
    turns = (rotation - field_ra_deg - wrap_angle(ra_deg - field_ra_deg)) / 360.0
    return np.round(turns).astype(np.int64)


def average_epochs(rows: Columns) -> LightCurves:
    """Average the rows of one field, every flux with an error, into one flux per source and epoch.

    The mean over the observations of one transit is weighted by beam²/rms², which is
    1 / local_rms², since local_rms is corrected for the beam.
    """
    names = ("ra", "dec", "mjd", "flux_forced", "local_rms")
    ra, dec, row_mjd, row_flux, rms = (np.asarray(rows[name], np.float64) for name in names)
    source, first, i = np.unique(rows["source"], return_index=True, return_inverse=True)
    epoch, e = np.unique(transit_number(row_mjd, ra, arc_middle(ra)), return_inverse=True)
    weight, shape, cell = rms**-2.0, (source.size, epoch.size), i * epoch.size + e
    count, weight_sum, flux_sum, mjd_sum = (
        np.bincount(cell, values, source.size * epoch.size).reshape(shape)
        for values in (np.ones(cell.size), weight, weight * row_flux, weight * row_mjd)
    )
    by_source = [rows["compactness"][i == k] for k in range(source.size)]
    compactness = [np.nanmedian(p) if np.isfinite(p).any() else np.nan for p in by_source]
    blend = np.zeros(source.size, np.int64)
    np.maximum.at(blend, i, rows["blend"].astype(np.int64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return LightCurves(
            source=source.astype(np.str_),
            ra_deg=ra[first],
            dec_deg=dec[first],
            epoch=epoch,
            mjd=mjd_sum / weight_sum,
            flux=flux_sum / weight_sum,
            noise=np.where(count > 0, weight_sum**-0.5, np.nan),
            count=count.astype(np.int64),
            compactness=np.array(compactness),
            blend=blend,
        )
