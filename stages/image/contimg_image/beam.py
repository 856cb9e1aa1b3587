"""The effective beam: what the image shows of a source, over what the source has.

It is the mean of the primary beam over integrations and channels, with the image's weights and with what smearing leaves, so it
is 1 for a source on the axis of the dishes all the time, and about 0.96 at the centre of a drifting field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import SIDEREAL_RATE, direction_cosines, icrs_of_hadec
from contimg.astro.telescope import NAMES, primary_beam
from contimg_image import kernels
from contimg_image.meshes import refine

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.coordinates import Site
    from contimg.records.ms import MSHeader
    from contimg_image.averaging import Averaged, Baselines
    from contimg_image.weights import ImagingWeights

    Floats = npt.NDArray[np.float64]

EARTH_RAD_S = 2 * np.pi * SIDEREAL_RATE / DAY_S
COARSE = 21
"""Points along each axis at which the beam is computed; cubic interpolation between them is good to 2e-5."""
SUBBANDS = 8
"""Parts of the band whose beams are averaged; with mean frequencies that is good to 1e-5."""
SAMPLES = 24_000
"""Visibilities at which smearing is computed: its mean is then right to 1e-4."""
SPECTRAL_INDEX = -0.7
"""Of the source that the beam is right for, at the image's frequency: NVSS's mean. A flat one is 0.3 % off at the 20 % point."""


@dataclass(frozen=True, eq=False)
class Pointing:
    """Where the dishes point at each integration."""

    cosines: Floats
    """Shape (T, 3): l, m, n - 1 about the phase centre."""
    known_beam: bool
    """Whether the primary beam is ours; else it is taken as 1."""


def pointing(
    header: MSHeader, times_s: Floats, apparent_dec_deg: float | None, site: Site
) -> Pointing:
    """Return where the dishes point: on the meridian for our telescope, at the phase centre for any other.

    Parameters
    ----------
    apparent_dec_deg
        Declination that the dishes point to at hour angle zero, apparent.
    """
    if header.telescope not in NAMES or apparent_dec_deg is None:
        return Pointing(np.zeros((times_s.size, 3)), known_beam=False)
    ra, dec = icrs_of_hadec(0.0, np.radians(apparent_dec_deg), times_s / DAY_S, site)
    return Pointing(
        np.stack(direction_cosines(ra, dec, header.ra_rad, header.dec_rad), axis=1), known_beam=True
    )


def coarse_grid(width_rad: float) -> tuple[Floats, Floats]:
    """Return the axis of the coarse grid, direction cosines, and its directions (l, m, n - 1), shape (m, l, 3)."""
    axis = np.linspace(-0.51, 0.51, COARSE) * width_rad
    east, north = np.meshgrid(axis, axis)
    along = -(east**2 + north**2) / (1 + np.sqrt(1 - east**2 - north**2))
    return axis, np.stack([east, north, along], axis=-1)


def effective_beam(
    data: Averaged, weights: ImagingWeights, where: Pointing, directions: Floats
) -> Floats:
    """Return the effective beam in directions (l, m, n - 1) about the phase centre.

    Parameters
    ----------
    directions
        Shape (..., 3).

    Returns
    -------
    Shape (...).

    Notes
    -----
    sum w PB(angle from the pointing, nu) (nu / nu0)^alpha S / sum w, where S is what the sinc functions of a channel's width, of
    the integration and of channel averaging leave. w summed over baselines is exact; S is the mean over a sample of them.
    """
    flat = directions.reshape(-1, 3)
    beams = np.zeros(len(flat))
    heavy = 0.0
    for part, weight in zip(data.sets, weights.of_set, strict=True):
        for channels in np.array_split(
            np.arange(part.frequencies_hz.size), min(SUBBANDS, part.frequencies_hz.size)
        ):
            by_time = np.bincount(
                part.time_index,
                weight[:, channels].sum(axis=1, dtype=np.float64),
                data.times_s.size,
            )
            if not by_time.any():
                continue
            column = weight[:, channels].sum(axis=0, dtype=np.float64)
            frequency = float(column @ part.frequencies_hz[channels] / column.sum())
            slope = (frequency / weights.frequency_hz) ** SPECTRAL_INDEX
            for t in np.flatnonzero(by_time):
                offset = flat - where.cosines[t]
                level = (
                    primary_beam(_angle(flat, where.cosines[t]), frequency)
                    if where.known_beam
                    else np.ones(len(flat))
                )
                share = _smear(data, part, weight, (int(t), channels), (flat, offset))
                beams += by_time[t] * slope * level * share
                heavy += by_time[t]
    return np.asarray((beams / heavy).reshape(directions.shape[:-1]))


def smearing_loss(
    data: Averaged, weights: ImagingWeights, where: Pointing, radius_rad: float
) -> float:
    """Return what smearing takes of a source at a distance from the phase centre, the mean over position angles."""
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    east, north = np.sin(radius_rad) * np.sin(angle), np.sin(radius_rad) * np.cos(angle)
    directions = np.stack([east, north, np.full(angle.size, np.cos(radius_rad) - 1)], axis=-1)
    blind = Pointing(where.cosines, known_beam=False)
    return float(
        1
        - np.mean(
            effective_beam(data, weights, blind, directions) / _flat_level(data, weights, blind)
        )
    )


def _flat_level(data: Averaged, weights: ImagingWeights, where: Pointing) -> float:
    """Return the mean of the assumed spectrum, which is 1 to second order."""
    return float(effective_beam(data, weights, where, np.zeros((1, 3)))[0])


def _angle(directions: Floats, towards: Floats) -> Floats:
    """Return the angle between directions (l, m, n - 1), shape (D, 3), and one of them, from the chord."""
    return np.asarray(2 * np.arcsin(np.linalg.norm(directions - towards, axis=1) / 2))


def _smear(
    data: Averaged,
    part: Baselines,
    weight: npt.NDArray[np.float32],
    cell: tuple[int, npt.NDArray[np.int_]],
    directions: tuple[Floats, Floats],
) -> Floats:
    """Return the weighted mean of what smearing leaves, over a sample of one integration's visibilities in some channels."""
    t, channels = cell
    rows = np.flatnonzero(part.time_index == t)
    cells = data.times_s.size * min(SUBBANDS, part.frequencies_hz.size) * len(data.sets)
    step = max(1, rows.size * cells // SAMPLES)
    rows = rows[(t % step) :: step] if rows.size > step else rows
    # A golden-ratio walk through the channels: every sample another one, without a random number.
    channel = channels[(np.arange(rows.size) * 0.6180339887 % 1 * channels.size).astype(int)]
    uvw = np.ascontiguousarray(part.uvw_m[rows]) / SPEED_OF_LIGHT_M_S
    pole = np.array([0.0, np.cos(data.header.dec_rad), np.sin(data.header.dec_rad)])
    left = np.zeros(len(directions[0]))
    heavy = kernels.smearing(
        uvw,
        EARTH_RAD_S * np.cross(pole, uvw),
        part.frequencies_hz[channel],
        weight[rows, channel].astype(np.float64),
        part.interval_s[rows],
        np.ascontiguousarray(directions[0]),
        np.ascontiguousarray(directions[1]),
        (part.width_hz, part.factor),
        left,
    )
    return left / heavy if heavy > 0 else np.ones(len(left))


def on_image(axis: Floats, coarse: Floats, size: int, cell_rad: float) -> npt.NDArray[np.float32]:
    """Interpolate a coarse map, shape (m, l), to the image's pixels: shape (size, size), l decreasing along a row."""
    offset = np.asarray((np.arange(size) - size // 2) * cell_rad, np.float64)
    return np.ascontiguousarray(refine(coarse[:, ::-1], axis, offset, degree=3))
