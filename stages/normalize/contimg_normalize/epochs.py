"""From rows of single observations to one flux per source and epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

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
        """Median signal-to-noise ratio, shape (n,); NaN for a source that was never measured."""
        return np.array([finite_median(row) for row in self.flux / self.noise])


def label_fields(ra_deg: Floats) -> Ints:
    """Return the number of the field that each source belongs to, shape (N,).

    A field is a stretch of RA without a gap; long stretches are cut into equal parts. The circle
    is opened at its widest gap, so that a field may span RA 0.
    """
    order = np.argsort(ra_deg % 360.0, kind="stable")
    sorted_ra = (ra_deg % 360.0)[order]
    gaps = np.diff(np.append(sorted_ra, sorted_ra[0] + 360.0))
    start = (int(np.argmax(gaps)) + 1) % sorted_ra.size
    along = np.roll(sorted_ra, -start)
    along = np.where(along < along[0], along + 360.0, along)
    stretch = np.append(0, np.cumsum(np.diff(along) > FIELD_GAP_DEG))
    label, number = np.empty(along.size, np.int64), 0
    for k in np.unique(stretch):
        members = stretch == k
        offset = along[members] - along[members].min()
        pieces = max(1, int(np.ceil(offset.max() / MAX_FIELD_WIDTH_DEG)))
        width = max(offset.max() / pieces, 1e-9)
        label[members] = number + np.minimum((offset / width).astype(np.int64), pieces - 1)
        number += pieces
    in_input_order = np.empty(along.size, np.int64)
    in_input_order[np.roll(order, -start)] = label
    return in_input_order


def arc_middle(ra_deg: Floats) -> float:
    """Return the middle of the arc that holds all right ascensions, degrees."""
    reference = float(ra_deg[0])
    offset = wrap_angle(ra_deg - reference)
    return float((reference + 0.5 * (offset.min() + offset.max())) % 360.0)


def wrap_angle(angle_deg: Floats) -> Floats:
    """Return angles between −180 and 180 degrees."""
    return np.asarray((angle_deg + 180.0) % 360.0 - 180.0)


def transit_number(mjd: Floats, ra_deg: Floats, field_ra_deg: float, longitude_deg: float) -> Ints:
    """Return the number of the transit, since J2000, of each measurement (UTC), shape (N,).

    Right ascensions (ICRS) are counted from the middle of the field, so that all sources of one
    transit have the same number, also across RA 0 and midnight. Precession (0.4 deg in 30 years)
    does not matter: any angle within half a turn gives the same transit.
    """
    rotation = ROTATION_AT_J2000_DEG + ROTATION_DEG_PER_DAY * (mjd - J2000_MJD) + longitude_deg
    turns = (rotation - field_ra_deg - wrap_angle(ra_deg - field_ra_deg)) / 360.0
    return np.round(turns).astype(np.int64)


def average_epochs(rows: Columns, longitude_deg: float) -> LightCurves:
    """Average the rows of one field, every flux with an error, into one flux per source and epoch.

    The mean over the observations of one transit is weighted by beam²/rms², which is
    1 / local_rms², since local_rms is corrected for the beam.
    """
    ra, dec, row_mjd, row_flux = (
        np.asarray(rows[name], np.float64) for name in ("ra", "dec", "mjd", "flux_forced")
    )
    source, first, i = np.unique(rows["source"], return_index=True, return_inverse=True)
    number = transit_number(row_mjd, ra, arc_middle(ra), longitude_deg)
    epoch, e = np.unique(number, return_inverse=True)
    weight = np.asarray(rows["local_rms"], np.float64) ** -2.0
    shape, cell = (source.size, epoch.size), i * epoch.size + e
    count, weight_sum, flux_sum, mjd_sum = (
        np.bincount(cell, values, source.size * epoch.size).reshape(shape)
        for values in (np.ones(cell.size), weight, weight * row_flux, weight * row_mjd)
    )
    compactness = np.array([finite_median(rows["compactness"][i == k]) for k in np.unique(i)])
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
            compactness=compactness,
            blend=blend,
        )


def finite_median(values: NDArray[Any]) -> float:
    """Return the median of the finite values; NaN without any, and without numpy's warning."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan
