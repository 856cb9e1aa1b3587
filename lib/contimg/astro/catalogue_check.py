"""A new catalogue beside the shipped NVSS: wrong units, frames and signs show at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from contimg.astro.catalogue_positions import FK4, GALACTIC, to_icrs
from contimg.astro.catalogues import Catalogue, nvss
from contimg.astro.constants import NVSS_HZ

FloatArray = npt.NDArray[np.float64]

MATCH_ARCSEC = 15.0
"""A third of the NVSS beam: above its position errors, and those of beams of some arcmin."""
BRIGHT_JY = 0.1
"""Twice the limit of the shipped list: sources as bright at 1.4 GHz should be in it."""
MIN_DEC_DEG = -39.5
"""NVSS ends at -40 deg."""
SHOWN_DEG, DENSE_COUNT = 0.3, 8
"""An NVSS source is in the area of a list if so many sources are so near."""
MIN_POSSIBLE = 10
"""Sources that should match for a verdict on positions."""
MIN_MATCHED_FRACTION = 0.15
MIN_MATCHES = 3
"""Matches for a verdict on the median flux ratio or offset."""
UNIT_RATIO = 100.0
"""No spectrum makes such a median ratio: the unit is wrong."""
WARN_RATIO = 1.5
MAX_OFFSET_ARCSEC = 3.0
ARCSEC_PER_DEG = 3600.0


class NvssComparison(NamedTuple):
    """What a list has in common with the shipped NVSS."""

    matches: int
    """Those of the possible that are within 15 arcsec of each other."""
    possible: int
    """Sources that should be in both, if positions and fluxes are right."""
    compared: int
    """NVSS sources with one of the list within 15 arcsec, which the medians are over."""
    flux_ratio: float | None
    """Median of flux over NVSS, both at 1.4 GHz."""
    flux_ratio_16: float | None
    flux_ratio_84: float | None
    ra_offset_arcsec: float | None
    """Median of the list minus NVSS, on the sky."""
    dec_offset_arcsec: float | None
    scaling_error: float | None
    """Median relative error of the ratio from the distance in frequency."""


def compare_with_nvss(new: Catalogue) -> NvssComparison:
    """Return how positions and fluxes of a list compare with the shipped NVSS."""
    shipped, scaled = nvss(), new.at_frequency(NVSS_HZ)
    tree = cKDTree(new.unit_vectors)
    reach = np.radians(MATCH_ARCSEC / ARCSEC_PER_DEG)
    distance, nearest = tree.query(shipped.unit_vectors, distance_upper_bound=reach)
    matched = np.isfinite(distance)
    theirs, ours = shipped.select(matched), scaled.select(nearest[matched])
    # Which sources should be in both: bright ones of the list, and NVSS's where the list is dense.
    bright = (scaled.flux_jy >= BRIGHT_JY) & (new.dec_deg > MIN_DEC_DEG)
    found = np.isin(np.flatnonzero(bright), nearest[matched])
    number, matches = int(bright.sum()), int(found.sum())
    strong = np.flatnonzero(shipped.flux_jy >= BRIGHT_JY)
    near = tree.query(
        shipped.unit_vectors[strong], k=DENSE_COUNT, distance_upper_bound=np.radians(SHOWN_DEG)
    )[0]
    dense = strong[np.isfinite(near[:, -1])]
    if dense.size > number:
        number, matches = int(dense.size), int(matched[dense].sum())
    values: dict[str, Any] = dict.fromkeys(NvssComparison._fields[3:])
    if len(ours):
        ratio = ours.flux_jy / theirs.flux_jy
        east = (ours.ra_deg - theirs.ra_deg + 180) % 360 - 180
        east = east * np.cos(np.radians(theirs.dec_deg)) * ARCSEC_PER_DEG
        north = (ours.dec_deg - theirs.dec_deg) * ARCSEC_PER_DEG
        low, middle, high = np.percentile(ratio, (16, 50, 84))
        error = np.median(new.scaling_error(NVSS_HZ)[nearest[matched]])
        numbers = (middle, low, high, np.median(east), np.median(north), error)
        values = {n: float(f"{v:.4g}") for n, v in zip(values, numbers, strict=True)}
    return NvssComparison(matches, number, len(ours), **values)


def find_faults(seen: NvssComparison, new: Catalogue) -> tuple[list[str], list[str]]:
    """Return what must be wrong with a list, and what may be, given its comparison."""
    wrong: list[str] = []
    doubtful: list[str] = []
    count, possible = seen.matches, seen.possible
    if possible >= MIN_POSSIBLE and count < MIN_MATCHED_FRACTION * possible:
        text = f"{count} of {possible} sources that should be in NVSS are at its positions"
        wrong.append(text + _suggest_frame(new, count))
    elif possible and not count:
        doubtful.append(f"none of {possible} sources that should be in NVSS is at its positions")
    ratio, error = seen.flux_ratio, seen.scaling_error or 0.0
    if ratio is not None:
        allowed = WARN_RATIO * np.exp(2 * error)
        text = f"the median flux is {ratio:g} of NVSS's at 1.4 GHz"
        if not 1 / UNIT_RATIO < ratio < UNIT_RATIO:
            text = f"{text}: is the unit wrong?"
            wrong.append(text)
        elif seen.compared >= MIN_MATCHES and not 1 / allowed < ratio < allowed:
            doubtful.append(text)
    offset = (seen.ra_offset_arcsec, seen.dec_offset_arcsec)
    is_off = any(abs(x or 0.0) > MAX_OFFSET_ARCSEC for x in offset)
    if seen.compared >= MIN_MATCHES and is_off:
        doubtful.append(
            f"the median offset from NVSS is {offset[0]:g}, {offset[1]:g} arcsec (RA, Dec)"
        )
    return wrong, doubtful


def _suggest_frame(new: Catalogue, count: int) -> str:
    """Return the reading of the positions under which they match NVSS, as the end of a sentence."""
    shipped, reach = cKDTree(nvss().unit_vectors), np.radians(MATCH_ARCSEC / ARCSEC_PER_DEG)
    ra, dec = new.ra_deg, new.dec_deg
    readings: Mapping[str, tuple[FloatArray, FloatArray]] = {
        "in FK4 B1950 (--frame fk4)": to_icrs(ra, dec, FK4),
        "galactic (--frame galactic)": to_icrs(ra, dec, GALACTIC),
        "with RA in hours": (np.mod(ra * 15, 360), dec),
        "with the opposite sign of Dec": (ra, -dec),
    }
    for name, (lon, lat) in readings.items():
        vectors = replace(new, ra_deg=lon, dec_deg=lat).unit_vectors
        hits = int(np.isfinite(shipped.query(vectors, distance_upper_bound=reach)[0]).sum())
        if hits >= max(MIN_POSSIBLE, 4 * count):
            return f"; {hits} are if they are {name}"
    return "; are the frame and the units of the positions right?"
