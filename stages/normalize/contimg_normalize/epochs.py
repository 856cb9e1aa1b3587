"""From the tables of photometry to measurements that may be compared, and their epochs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contimg.astro.telescope import SITE
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.records.tables import Schema
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoSourcesError, list_names
from contimg.runtime.manifest import Input
from contimg.runtime.store import open_store
from contimg_normalize.options import NormalizeOptions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]
Numbers = NDArray[Any]
"""Float32 or int32 where a whole strip is held, else float64 or int64."""

SAME_SETUP = ("tier", "primary_beam", "catalogue")
"""What must be equal in groups whose fluxes are compared."""
SIMILAR_SETUP = {"frequency": 0.005, "bmaj": 0.1, "bmin": 0.1}
"""What may differ by this fraction: 0.5 % in frequency, a missing subband, changes the ratio of two
sources by 0.25 % if their spectral indices differ by 0.5."""
ROW_COLUMNS = ("flux_forced", "local_rms", "beam", "compactness", "blend")
ROW_ARRAYS = ("source", "group", "flux", "noise", "log_beam", "compactness", "blend")
UNIT_COLUMNS = ("group", "mjd", "used_fraction", *SAME_SETUP, *SIMILAR_SETUP)
COLUMNS = ("source", "ra", "dec", *ROW_COLUMNS, *UNIT_COLUMNS)
J2000_MJD = 51544.5
ROTATION_AT_J2000_DEG = 280.46061837
"""Greenwich mean sidereal angle at J2000.0 (IAU 1982)."""
ROTATION_DEG_PER_DAY = 360.98564736629
CELL_DEG = 7.5
"""Least width of a cell of the sky, true degrees."""
REACH = 1.2
"""Cells take references from as many widths to both sides of their middle: all of every image that
touches the cell, so that a group has the same references on both sides of a border."""
TRANSIT_GAP_DAYS = 0.25
"""Groups of a cell further apart belong to different transits."""
SAME_TIME_DAYS = 120 / 86400
"""Groups nearer in time are the same data: a telescope's groups are 309 s apart."""
UNPLACED = "unplaced photometry"
MIN_SHARED_SOURCES = 0.5
"""Of the smaller of two groups at one time, if both are the same data."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """N fluxes of n sources in u groups, ordered by source.

    Those of a whole strip have the types of the tables, 28 bytes a row; `select` makes float64 and
    int64 of a part, for calculations.
    """

    names: NDArray[np.str_]
    """Of the sources, ascending, shape (n,)."""
    ra_deg: Floats
    dec_deg: Floats
    source: Numbers
    """Index of each row's source, ascending, shape (N,)."""
    group: Numbers
    """Index of each row's group, shape (N,)."""
    flux: Numbers
    """In the unit of the photometry, shape (N,)."""
    noise: Numbers
    """1 sigma, shape (N,)."""
    log_beam: Numbers
    """ln of the effective beam, shape (N,); 0 where it is unknown."""
    compactness: Numbers
    """Shape (N,); NaN where it was not measured."""
    blend: Numbers
    """Sources that were fitted together, shape (N,)."""
    groups: Columns
    """Columns of the groups, shape (u,) each; `mjd` is UTC."""

    def select(self, rows: Bools | slice) -> Measurements:
        """Return some rows in double precision, of the same sources and groups."""
        part = {name: getattr(self, name)[rows] for name in ROW_ARRAYS}
        double = {"i": np.int64, "f": np.float64}
        part = {name: values.astype(double[values.dtype.kind]) for name, values in part.items()}
        return replace(self, **part)

    def without_groups(self, dropped: Bools) -> Measurements:
        """Return the rows of all groups but some, (u,), in the types that they have."""
        if not dropped.any():
            return self
        rows = ~dropped[self.group]
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_ARRAYS})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A part of the strip, fixed on the sky."""

    name: str
    ra_deg: float
    """Its middle."""
    dec_deg: float
    width_deg: float
    """In RA."""

    def holds(self, ra_deg: Floats) -> Bools:
        """Return which positions lie in the cell."""
        # Modulo: −1e-15 % 360 is 360.
        number = np.floor((ra_deg % 360.0) / self.width_deg) % round(360.0 / self.width_deg)
        return np.asarray(number == self._number)

    def uses(self, ra_deg: Floats) -> Bools:
        """Return at which positions sources may define the scale of the cell."""
        return np.asarray(np.abs(wrap_angle(ra_deg - self.ra_deg)) <= REACH * self.width_deg)

    def offsets(self, ra_deg: Floats, dec_deg: Floats) -> Floats:
        """Return offsets east and north of the middle, degrees, shape (2, …)."""
        east = wrap_angle(ra_deg - self.ra_deg) * np.cos(np.radians(self.dec_deg))
        return np.stack([east, dec_deg - self.dec_deg])

    @property
    def _number(self) -> int:
        return int(self.ra_deg / self.width_deg)


def find_photometry(options: NormalizeOptions) -> list[Input]:
    """Return the photometry files of the strip and the days, sorted by key, with their digests.

    Those that do not state one strip for all of their rows are named UNPLACED, and not used.
    Raises NoSourcesError if there are no others.
    """
    store = open_store(options.tables)
    first, last = options.first_day or "", options.last_day or "9999-99-99"
    keys = [e.key for e in store.entries(f"{PHOTOMETRY.name}/") if e.key.endswith(".parquet")]
    keys = [key for key in keys if first <= key.partition("date=")[2][:10] <= last]
    found: dict[str, list[Input]] = {PHOTOMETRY.name: [], UNPLACED: []}
    for key in keys:
        data, uri = store.read(key), f"{options.tables.rstrip('/')}/{key}"
        strip_deg = np.asarray(PHOTOMETRY.read(data, uri)["strip"].to_numpy(), np.float64)
        near = np.abs(strip_deg - options.strip) <= options.strip_tolerance
        unknown = np.isnan(strip_deg).any()
        if near.any() or unknown:
            name = UNPLACED if unknown or not near.all() else PHOTOMETRY.name
            digest = hashlib.sha256(data).hexdigest()
            found[name].append(Input(name=name, uri=uri, digest=digest))
    if not found[PHOTOMETRY.name]:
        strip = f"within {options.strip_tolerance} deg of Dec {options.strip:+.2f}"
        problem = f"No photometry of a strip {strip} in the {len(keys)} files of the chosen days"
        lost, remedy = describe_unplaced(found[UNPLACED]), "Correct --strip or the days."
        raise NoSourcesError(options.tables, "; ".join([problem, *lost]) + ".", remedy)
    return [*found[PHOTOMETRY.name], *found[UNPLACED]]


def describe_unplaced(files: Sequence[Input]) -> list[str]:
    """Return the reason of a warning if there are files of photometry that were not used."""
    if not files:
        return []
    text = f"{len(files)} files do not state one strip for all of their rows and were left out"
    names = list_names([item.uri.rpartition("/")[2] for item in files])
    return [f"{text} ({names}); measure their images again with contimg-photometry"]


def read_photometry(context: Context) -> Measurements:
    """Read the measurements of all resolved files that have a flux and an error."""
    return measurements_of(read_tables(context, PHOTOMETRY, COLUMNS))


def read_tables(context: Context, schema: Schema, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of the resolved files of a table.

    Raises BadInputError if a file is no longer the one that was resolved.
    """
    for item in context.named(schema.name):
        data = context.read(item.uri)
        digest = hashlib.sha256(data).hexdigest()
        if digest != item.digest:
            problem = "The file was replaced while the stage ran: its sha256 was "
            problem += f"{item.digest[:12]}… and is {digest[:12]}…."
            raise BadInputError(item.uri, problem, "Run the stage again.")
        # Only these columns, so that files with further columns can be read beside older ones.
        yield schema.read(data, item.uri).select(columns)


def measurements_of(tables: Iterable[pa.Table]) -> Measurements:
    """Return the measurements in tables of photometry; a group is one name in one table.

    One table is in memory at a time. A repeated row counts once; rows without a flux or an error
    are left out. A source is where its first row says.
    """
    number: dict[str, int] = {}
    rows: dict[str, list[Numbers]] = {name: [] for name in ROW_ARRAYS}
    units: dict[str, list[Numbers]] = {name: [] for name in UNIT_COLUMNS}
    places: list[Floats] = []
    for table in tables:
        known, made = len(number), len(units["mjd"])
        texts = table["source"].combine_chunks().dictionary_encode()
        texts_here: list[Any] = texts.dictionary.to_pylist()
        numbers = [number.setdefault(name, len(number)) for name in texts_here]
        source = np.array(numbers, np.int32)[texts.indices.to_numpy()]
        _, first = np.unique(source, return_index=True)
        place = np.stack([table[name].to_numpy()[first] for name in ("ra", "dec")])
        places.append(place[:, source[first] >= known])
        label = table["group"].combine_chunks().dictionary_encode().indices.to_numpy()
        _, first = np.unique(label, return_index=True)
        for name, column in units.items():
            column += list(table[name].take(first).to_numpy()[:, None])
        part = _row_arrays(table) | {"source": source, "group": (made + label).astype(np.int32)}
        usable = np.isfinite(part["flux"]) & np.isfinite(part["noise"]) & (part["noise"] > 0)
        usable = np.flatnonzero(usable)
        key = source[usable].astype(np.int64) * first.size + label[usable]
        usable = usable[np.sort(np.unique(key, return_index=True)[1])]
        for name, values in part.items():
            rows[name].append(values[usable])
    names = np.array(list(number), np.str_)
    ascending = np.argsort(names)
    ra_deg, dec_deg = np.concatenate(places, axis=1)[:, ascending]
    rank = np.empty(names.size, np.int32)
    rank[ascending] = np.arange(names.size)
    # Column by column, so that only one is in memory twice.
    source = rank[np.concatenate(rows.pop("source"))]
    order = np.argsort(source, kind="stable")
    columns = {name: np.concatenate(rows.pop(name))[order] for name in list(rows)}
    return Measurements(
        names=names[ascending],
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        source=source[order],
        groups={name: np.concatenate(values) for name, values in units.items()},
        **columns,
    )


def _row_arrays(table: pa.Table) -> dict[str, Numbers]:
    row = {name: table[name].to_numpy() for name in ROW_COLUMNS}
    with np.errstate(divide="ignore", invalid="ignore"):
        log_beam = np.log(row["beam"].astype(np.float64))
    return {
        "flux": row["flux_forced"].astype(np.float32),
        "noise": row["local_rms"].astype(np.float32),
        "log_beam": np.where(np.isfinite(log_beam), log_beam, 0.0).astype(np.float32),
        "compactness": row["compactness"].astype(np.float32),
        "blend": row["blend"].astype(np.int16),
    }


def label_setups(groups: Columns) -> Ints:
    """Return the number of each group's setup, shape (u,): 0 for the one with the most groups.

    Groups of one setup have images of one tier, primary beam and catalogue, and of nearly the same
    frequency and restoring beam. Groups that do not state one of them, as rows of older tables, are
    a setup of their own.
    """
    count = groups["mjd"].size
    texts = {name: np.array([str(v or "") for v in groups[name]]) for name in SAME_SETUP}
    sizes = {name: groups[name].astype(np.float64) for name in SIMILAR_SETUP}
    label, number = np.full(count, -1), 0
    while (label < 0).any():
        members = label < 0
        for text in texts.values():
            said, times = np.unique(text[members], return_counts=True)
            members &= text == said[np.argmax(times)]
        for name, value in sizes.items():
            known = np.sort(value[members & np.isfinite(value)])
            if 2 * known.size < members.sum():
                members &= ~np.isfinite(value)
            else:
                members &= np.abs(value / known[known.size // 2] - 1) <= SIMILAR_SETUP[name]
        label[members] = number
        number += 1
    size = np.bincount(label)
    latest = [groups["mjd"][label == k].max() for k in range(number)]
    order = sorted(range(number), key=lambda k: (-size[k], -latest[k]))
    return np.asarray(np.argsort(order)[label], np.int64)


def unstated(groups: Columns, members: Bools) -> list[str]:
    """Return what the images of some groups do not state of their setup, in words."""
    return [
        name.replace("_", " ")
        for name in (*SAME_SETUP, *SIMILAR_SETUP)
        if not any(value and value == value for value in groups[name][members])  # noqa: PLR0124 - NaN
    ]


def describe_setup(groups: Columns, members: Bools) -> str:
    """Return the setup of some groups in words."""
    parts = []
    for name in SAME_SETUP:
        said = {str(value) for value in groups[name][members] if value is not None}
        parts += [f"{name.replace('_', ' ')} {value}" for value in sorted(said)]
    for name, unit, scale in (("frequency", "MHz", 1e-6), ("bmaj", '"', 1.0), ("bmin", '"', 1.0)):
        value = groups[name][members].astype(np.float64)
        if np.isfinite(value).any():
            parts.append(f"{name} {scale * float(np.nanmedian(value)):.1f} {unit}")
    return ", ".join([*parts, *(f"{name} not stated" for name in unstated(groups, members))])


def find_duplicates(rows: Measurements, groups: Bools) -> Bools:
    """Return which groups are the same data as another, better one of the given groups, shape (u,).

    The same data: less than 2 minutes apart, with at least half of the smaller one's sources.
    Better is what used more of its data, then what has less noise, then the later name.
    """
    mjd, names = rows.groups["mjd"].astype(np.float64), rows.groups["group"]
    members = np.flatnonzero(groups)
    members = members[np.argsort(mjd[members], kind="stable")]
    parts = np.split(members, np.flatnonzero(np.diff(mjd[members]) > SAME_TIME_DAYS) + 1)
    parts = [part for part in parts if part.size > 1]
    near = np.zeros(groups.size, bool)
    near[[k for part in parts for k in part]] = True
    mine = np.flatnonzero(near[rows.group])
    mine = mine[np.argsort(rows.group[mine], kind="stable")]
    ends = np.searchsorted(rows.group[mine], np.arange(groups.size + 1))
    noise = grouped_median(rows.noise[mine], rows.group[mine], groups.size)
    used = np.nan_to_num(rows.groups["used_fraction"].astype(np.float64))
    duplicate = np.zeros(groups.size, bool)
    for part in parts:
        order = sorted(part, key=lambda k: str(names[k]), reverse=True)
        order.sort(key=lambda k: (-used[k], np.nan_to_num(noise[k], nan=np.inf)))
        seen = [rows.source[mine[ends[k] : ends[k + 1]]] for k in order]
        size = np.array([one.size for one in seen])
        _, place = np.unique(np.concatenate(seen), return_inverse=True)
        holds = np.zeros((part.size, 1 + place.max(initial=0)), np.float32)
        holds[np.repeat(np.arange(part.size), size), place] = 1
        same = holds @ holds.T >= MIN_SHARED_SOURCES * np.minimum.outer(size, size)
        same &= np.abs(np.subtract.outer(mjd[order], mjd[order])) <= SAME_TIME_DAYS
        for n, k in enumerate(order):
            duplicate[k] = (same[n, :n] & ~duplicate[order[:n]]).any()
    return duplicate


def make_cells(strip_deg: float) -> list[Cell]:
    """Return the cells of a strip, in the order of RA; they depend on nothing but the strip."""
    count = max(1, int(360.0 * np.cos(np.radians(round(strip_deg))) / CELL_DEG))
    width = 360.0 / count
    middles = (np.arange(count) + 0.5) * width
    return [
        Cell(name=f"{ra:05.1f}{strip_deg:+05.1f}", ra_deg=ra, dec_deg=strip_deg, width_deg=width)
        for ra in middles.tolist()
    ]


def wrap_angle(angle_deg: Floats) -> Floats:
    """Return angles between −180 and 180 degrees."""
    return np.asarray((angle_deg + 180.0) % 360.0 - 180.0)


def transit_numbers(mjd: Floats, ra_deg: float) -> Ints:
    """Return the number, since J2000, of the transit of an RA to which each group belongs, (u,).

    Groups (UTC) without a gap of 6 hours between them are one transit. Precession (0.4 deg in 30
    years) does not matter: any angle within half a turn gives the same transit.
    """
    order = np.argsort(mjd, kind="stable")
    part = np.append(0, np.cumsum(np.diff(mjd[order]) > TRANSIT_GAP_DAYS))
    middle = np.bincount(part, mjd[order]) / np.bincount(part)
    rotation = ROTATION_AT_J2000_DEG + ROTATION_DEG_PER_DAY * (middle - J2000_MJD) + SITE.lon_deg
    number = np.empty(mjd.size, np.int64)
    number[order] = np.round((rotation - ra_deg) / 360.0).astype(np.int64)[part]
    return number


def grouped_median(values: Numbers, label: Numbers, count: int) -> Floats:
    """Return the median of the values with each label, (count,); NaN without values."""
    order = np.lexsort((values, label))
    size = np.bincount(label, minlength=count)
    first = np.cumsum(size) - size
    found, any_ = np.full(count, np.nan), size > 0
    low, high = (first + (size - 1) // 2)[any_], (first + size // 2)[any_]
    ordered = values[order]
    found[any_] = 0.5 * (ordered[low] + ordered[high])
    return found
