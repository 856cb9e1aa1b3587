"""From the tables of photometry to measurements that may be compared, and their epochs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contimg.astro.telescope import SITE
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.records.tables import Schema, encode_texts
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import Input
from contimg.runtime.store import open_store
from contimg_normalize.options import NormalizeOptions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

SAME_SETUP = ("tier", "primary_beam", "catalogue")
"""What must be equal in groups whose fluxes are compared."""
SIMILAR_SETUP = {"frequency": 0.005, "bmaj": 0.1, "bmin": 0.1}
"""What may differ by this fraction: 0.5 % in frequency, a missing subband, changes the ratio of two
sources by 0.25 % if their spectral indices differ by 0.5."""
ROW_COLUMNS = ("flux_forced", "local_rms", "beam", "compactness", "blend")
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
MIN_SHARED_SOURCES = 0.5
"""Of the smaller of two groups at one time, if both are the same data."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """N fluxes of n sources in u groups."""

    names: NDArray[np.str_]
    """Of the sources, ascending, shape (n,)."""
    ra_deg: Floats
    dec_deg: Floats
    source: Ints
    """Index of each row's source, shape (N,)."""
    group: Ints
    """Index of each row's group, shape (N,)."""
    flux: Floats
    """In the unit of the photometry, shape (N,)."""
    noise: Floats
    """1 sigma, shape (N,)."""
    log_beam: Floats
    """ln of the effective beam, shape (N,); 0 where it is unknown."""
    compactness: Floats
    """Shape (N,); NaN where it was not measured."""
    blend: Ints
    """Sources that were fitted together, shape (N,)."""
    groups: Columns
    """Columns of the groups, shape (u,) each; `mjd` is UTC."""

    def select(self, rows: Bools) -> Measurements:
        """Return some rows, of the same sources and groups."""
        names = ("source", "group", "flux", "noise", "log_beam", "compactness", "blend")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


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
        return np.asarray(np.floor((ra_deg % 360.0) / self.width_deg) == self._number)

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
            found.append(Input(name=PHOTOMETRY.name, uri=uri, digest=digest))
    if not found:
        strip = f"within {options.strip_tolerance} deg of Dec {options.strip:+.2f}"
        problem = f"No photometry of a strip {strip} in the {len(keys)} files of the chosen days."
        raise NoSourcesError(options.tables, problem, "Correct --strip or the days.")
    return found


def read_photometry(context: Context) -> Measurements:
    """Read the measurements of all resolved files that have a flux and an error."""
    return measurements_of(list(read_tables(context, PHOTOMETRY, COLUMNS)))


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


def measurements_of(parts: list[pa.Table]) -> Measurements:
    """Return the measurements in tables of photometry; a group is one name in one table."""
    table = pa.concat_tables(parts)
    file = np.repeat(np.arange(len(parts)), [part.num_rows for part in parts])
    names, source = encode_texts(table["source"])
    texts, label = encode_texts(table["group"])
    _, first, group = np.unique(
        file * max(1, texts.size) + label, return_index=True, return_inverse=True
    )
    row = {name: np.asarray(table[name].to_numpy()) for name in ROW_COLUMNS}
    ra_deg, dec_deg = np.empty(names.size), np.empty(names.size)
    for place, column in ((ra_deg, "ra"), (dec_deg, "dec")):
        place[source[::-1]] = table[column].to_numpy()[::-1]
    groups = {name: np.asarray(table[name].take(first).to_numpy()) for name in UNIT_COLUMNS}
    with np.errstate(divide="ignore", invalid="ignore"):
        log_beam = np.log(row["beam"].astype(np.float64))
    flux, noise = (row[name].astype(np.float64) for name in ("flux_forced", "local_rms"))
    whole = Measurements(
        names=names,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        source=source,
        group=group.astype(np.int64),
        flux=flux,
        noise=noise,
        log_beam=np.where(np.isfinite(log_beam), log_beam, 0.0),
        compactness=row["compactness"].astype(np.float64),
        blend=row["blend"].astype(np.int64),
        groups=groups,
    )
    usable = np.isfinite(flux) & np.isfinite(noise) & (noise > 0)
    _, once = np.unique(source * max(1, first.size) + whole.group, return_index=True)
    single = np.zeros(source.size, bool)
    single[once] = True
    return whole.select(usable & single)


def label_setups(groups: Columns) -> Ints:
    """Return the number of each group's setup, shape (u,): 0 for the one with the most groups.

    Groups of one setup have images of one tier, primary beam and catalogue, and of nearly the same
    frequency and restoring beam. What a group does not say does not separate it.
    """
    count = groups["mjd"].size
    label, number = np.full(count, -1), 0
    while (label < 0).any():
        members = label < 0
        for name in SAME_SETUP:
            said = [str(value) for value in groups[name][members] if value is not None]
            common = max(sorted(set(said)), key=said.count, default=None)
            members &= np.array([v is None or v == common for v in groups[name]], bool)
        for name, tolerance in SIMILAR_SETUP.items():
            value = groups[name].astype(np.float64)
            known = np.sort(value[members & np.isfinite(value)])
            if known.size:
                members &= ~(np.abs(value / known[known.size // 2] - 1) > tolerance)
        label[members] = number
        number += 1
    sizes = np.bincount(label)
    latest = [groups["mjd"][label == k].max() for k in range(number)]
    order = sorted(range(number), key=lambda k: (-sizes[k], -latest[k]))
    return np.asarray(np.argsort(order)[label], np.int64)


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
    return ", ".join(parts) or "not stated"


def find_duplicates(rows: Measurements, groups: Bools) -> Bools:
    """Return which groups are the same data as another, better one of the given groups, shape (u,).

    The same data: less than 2 minutes apart, with at least half of the smaller one's sources.
    Better is what used more of its data, then what has less noise, then the later name.
    """
    mjd = rows.groups["mjd"].astype(np.float64)
    members = np.flatnonzero(groups)
    members = members[np.argsort(mjd[members], kind="stable")]
    parts = np.split(members, np.flatnonzero(np.diff(mjd[members]) > SAME_TIME_DAYS) + 1)
    duplicate = np.zeros(groups.size, bool)
    for part in (part for part in parts if part.size > 1):
        found = {k: rows.group == k for k in part}
        seen = {k: set(rows.source[mine].tolist()) for k, mine in found.items()}
        used = np.nan_to_num(rows.groups["used_fraction"].astype(np.float64))
        noise = {k: float(np.median(rows.noise[mine])) for k, mine in found.items() if mine.any()}
        names = rows.groups["group"]
        order = sorted(part, key=lambda k: str(names[k]), reverse=True)
        order = sorted(order, key=lambda k: (-used[k], noise.get(k, np.inf)))
        for place, k in enumerate(order):
            for better in (b for b in order[:place] if not duplicate[b]):
                least = min(len(seen[k]), len(seen[better]))
                if len(seen[k] & seen[better]) >= MIN_SHARED_SOURCES * least:
                    duplicate[k] = True
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
