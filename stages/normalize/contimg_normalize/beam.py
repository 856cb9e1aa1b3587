"""Whether the primary beam fits the sky: what the images of many groups say of it together.

An image compares its fluxes with the catalogue, whose scatter hides a beam that is 3 % too wide.
Over many fields it does not.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from contimg.records.schemas.images import IMAGES
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.context import Context
from contimg.runtime.manifest import Input
from contimg.runtime.store import open_store
from contimg_normalize.epochs import Columns, Measurements, find_photometry, read_tables
from contimg_normalize.options import NormalizeOptions

LIMITS = {"beam_width": 0.01, "beam_east_deg": 0.02, "beam_north_deg": 0.02}
"""Errors of the beam by their columns of `images`, and the smallest that is reported: it changes
fluxes by up to 3 % at the 20 % beam."""
ERRORS = ("beam_width_error", "beam_east_error_deg", "beam_north_error_deg")
SETUP = ("group", "tier", "primary_beam")
MAX_SIGMA = 3.5
"""Largest deviation that noise makes, in errors."""
FIELD_DEG = 4.0
"""Groups that point to one such part of the strip see the same sources, so the same scatter."""
MIN_FIELDS = 3
"""In fewer fields a group's own gate tells as much."""
REMEDY = "measure it with `contimg beam fit` and set the option `beam`"


def find_inputs(options: NormalizeOptions) -> list[Input]:
    """Return the photometry of the strip and the days, and the rows of its images."""
    photometry, store = find_photometry(options), open_store(options.tables)
    used = [item for item in photometry if item.name == PHOTOMETRY.name]
    existing = {entry.key for entry in store.entries(f"{IMAGES.name}/")}
    images = []
    for item in used:
        key = f"{IMAGES.name}/{item.uri.rpartition(f'/{PHOTOMETRY.name}/')[2]}"
        if key in existing:
            digest = hashlib.sha256(store.read(key)).hexdigest()
            uri = f"{options.tables.rstrip('/')}/{key}"
            images.append(Input(name=IMAGES.name, uri=uri, digest=digest))
    return photometry + images


def read_images(context: Context, rows: Measurements) -> Columns:
    """Return what the images of the measured groups say of the beam, one element an image.

    Images of another tier or beam than the photometry's are left out.
    """
    groups = np.unique(rows.group)
    wanted = set(zip(*(rows.groups[name][groups] for name in SETUP), strict=True))
    found: list[dict[str, Any]] = []
    for table in read_tables(context, IMAGES, (*SETUP, "ra", "dec", *LIMITS, *ERRORS)):
        found += [r for r in table.to_pylist() if tuple(r[name] for name in SETUP) in wanted]
    names = ("ra", "dec", *LIMITS, *ERRORS)
    return {name: np.array([row[name] for row in found], np.float64) for name in names}


def average_beam(images: Columns) -> dict[str, float]:
    """Return the mean errors of the beam over the fields of the sky, with 1 sigma errors.

    Each field counts with the error of one of its groups, however often it was observed. Where
    fields differ by more, errors grow by as much. Empty if there are too few fields.
    """
    field = np.floor(images["ra"] * np.cos(np.radians(images["dec"])) / FIELD_DEG)
    found: dict[str, float] = {}
    for name, error_name in zip(LIMITS, ERRORS, strict=True):
        value, error = images[name], images[error_name]
        known = np.isfinite(value) & (error > 0)
        _, label, size = np.unique(field[known], return_inverse=True, return_counts=True)
        if size.size < MIN_FIELDS:
            return {}
        group_weight = 1 / error[known] ** 2
        total = np.bincount(label, group_weight)
        mean = np.bincount(label, group_weight * value[known]) / total
        weight = total / size
        average = float(weight @ mean / weight.sum())
        excess = float(weight @ (mean - average) ** 2) / (size.size - 1)
        found[name] = average
        found[error_name] = float(np.sqrt(max(1.0, excess) / weight.sum()))
        found["beam_fields"] = float(size.size)
    return found


def describe_beam(found: dict[str, float]) -> list[str]:
    """Return the reason of a warning, named primary_beam, if the images want another beam."""
    if not found:
        return []
    value, error = (np.array([found[name] for name in names]) for names in (LIMITS, ERRORS))
    if np.all(np.abs(value) <= np.maximum(MAX_SIGMA * error, [*LIMITS.values()])):
        return []
    (width, east, north), (width_error, east_error, north_error) = value, error
    text = f"primary_beam: the images of {found['beam_fields']:.0f} fields want another beam: "
    text += f"its width by {width:+.1%} ± {width_error:.1%}, its axis by {east:+.3f} ± "
    text += f"{east_error:.3f} deg to the east and {north:+.3f} ± {north_error:.3f} to the north"
    return [f"{text}; {REMEDY}"]
