"""From rows of single observations to one flux a source and epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

J2000_MJD = 51544.5
ROTATION_AT_J2000_DEG = 280.46061837
"""Greenwich mean sidereal angle at J2000.0 (IAU 1982)."""
ROTATION_DEG_A_DAY = 360.98564736629
GAP_DEG = 5.0
"""Sources further apart in RA than this belong to different fields: the primary beam is not as wide."""
WIDEST_DEG = 15.0
"""A longer stretch is cut: calibration and weather change within an hour."""


@dataclass(frozen=True)
class LightCurves:
    """Fluxes of n sources in m epochs of one field; NaN where a source was not measured."""

    source: NDArray[np.str_]
    ra_deg: Floats
    dec_deg: Floats
    epoch: Ints
    """Shape (m,), ascending: numbers of the field's transits since J2000."""
    mjd: Floats
    """Shape (n, m)."""
    flux: Floats
    """Shape (n, m), as the photometry's unit."""
    noise: Floats
    """Shape (n, m), 1 sigma."""
    count: Ints
    """Shape (n, m): observations that were averaged."""
    compactness: Floats
    """Shape (n,), median."""
    blend: Ints
    """Shape (n,), largest number of sources that were fitted together."""

    @property
    def snr(self) -> Floats:
        """Median signal-to-noise ratio, shape (n,); NaN for a source that was never measured."""
        return np.array([_median(row) for row in self.flux / self.noise])


def fields_of(ra_deg: Floats) -> Ints:
    """Return the field's number of each source, shape (N,): stretches of RA without a gap, long ones cut into equal parts.

    Parameters
    ----------
    ra_deg
        Shape (N,). The circle is opened at its widest gap, so that a field may span RA 0.
    """
    order = np.argsort(ra_deg % 360.0, kind="stable")
    sorted_ra = (ra_deg % 360.0)[order]
    gaps = np.diff(np.append(sorted_ra, sorted_ra[0] + 360.0))
    start = (int(np.argmax(gaps)) + 1) % sorted_ra.size
    along = np.roll(sorted_ra, -start)
    along = np.where(along < along[0], along + 360.0, along)
    stretch = np.append(0, np.cumsum(np.diff(along) > GAP_DEG))
    label, number = np.empty(along.size, np.int64), 0
    for part in np.unique(stretch):
        members = stretch == part
        first, last = along[members].min(), along[members].max()
        pieces = max(1, int(np.ceil((last - first) / WIDEST_DEG)))
        width = max((last - first) / pieces, 1e-9)
        label[members] = number + np.minimum(
            ((along[members] - first) / width).astype(np.int64), pieces - 1
        )
        number += pieces
    back = np.empty(along.size, np.int64)
    back[np.roll(order, -start)] = label
    return back


def middle_of(ra_deg: Floats) -> float:
    """Return the middle of the arc that holds all right ascensions, degrees."""
    reference = float(ra_deg[0])
    offset = wrapped(ra_deg - reference)
    return float((reference + 0.5 * (offset.min() + offset.max())) % 360.0)


def wrapped(angle_deg: Floats) -> Floats:
    """Return angles between −180 and 180 degrees."""
    return np.asarray((angle_deg + 180.0) % 360.0 - 180.0)


def transit_number(mjd: Floats, ra_deg: Floats, field_ra_deg: float, longitude_deg: float) -> Ints:
    """Return the number of the transit, since J2000, that each measurement belongs to.

    Parameters
    ----------
    mjd
        UTC, shape (N,).
    ra_deg
        Of the sources, ICRS; precession (0.4 deg in 30 years) does not matter, for a transit is recognised within half a turn.
    field_ra_deg
        Middle of the field. Right ascensions are counted from it, so that all sources of one sweep of the sky over the meridian
        have one number, also where the field spans RA 0; and the number does not change at midnight.
    """
    turned = ROTATION_AT_J2000_DEG + ROTATION_DEG_A_DAY * (mjd - J2000_MJD) + longitude_deg
    return np.round((turned - field_ra_deg - wrapped(ra_deg - field_ra_deg)) / 360.0).astype(
        np.int64
    )


def measured(rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the rows that hold a flux with an error."""
    keep = np.isfinite(rows["flux_forced"]) & (rows["local_rms"] > 0)
    return {name: column[keep] for name, column in rows.items()}


def light_curves(rows: dict[str, NDArray[Any]], longitude_deg: float) -> LightCurves:
    """Average the rows of one field into one flux a source and epoch.

    Parameters
    ----------
    rows
        Columns of the photometry table, at least one row, fluxes with errors. The mean over the observations of one transit has the weight beam²/rms², which is
        1 / local_rms², since local_rms is corrected for the beam.
    """
    source, first, i = np.unique(rows["source"], return_index=True, return_inverse=True)
    ra, dec = (np.asarray(rows[name], np.float64) for name in ("ra", "dec"))
    number = transit_number(np.asarray(rows["mjd"], np.float64), ra, middle_of(ra), longitude_deg)
    epoch, e = np.unique(number, return_inverse=True)
    weight = np.asarray(rows["local_rms"], np.float64) ** -2.0
    shape, cell = (source.size, epoch.size), i * epoch.size + e

    def total(values: Floats) -> Floats:
        return np.asarray(
            np.bincount(cell, values, source.size * epoch.size).reshape(shape), np.float64
        )

    summed, count = total(weight), total(np.ones(cell.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        flux = total(weight * np.asarray(rows["flux_forced"], np.float64)) / summed
        mjd = total(weight * np.asarray(rows["mjd"], np.float64)) / summed
        noise = np.where(count > 0, summed**-0.5, np.nan)
    compactness = [_median(rows["compactness"][i == k]) for k in range(source.size)]
    blend = np.zeros(source.size, np.int64)
    np.maximum.at(blend, i, rows["blend"].astype(np.int64))
    return LightCurves(
        source.astype(np.str_),
        ra[first],
        dec[first],
        epoch,
        mjd,
        flux,
        noise,
        count.astype(np.int64),
        np.array(compactness),
        blend,
    )


def _median(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan
