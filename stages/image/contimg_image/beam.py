"""The effective beam: the flux that the image shows of a source over the flux that it has.

It is the mean of the primary beam over integrations and channels, with the image's weights and with
what smearing leaves. So it is 1 for a source that is always on the axis of the dishes, and about
0.96 at the centre of a drifting field.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from contimg.astro.constants import DAY_S, DEFAULT_SPECTRAL_INDEX, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import SIDEREAL_RATE
from contimg_image import kernels
from contimg_image.averaging import AveragedBaselines
from contimg_image.field import ImagingField
from contimg_image.frame import Floats, Singles, interpolate_mesh

EARTH_RATE_RAD_S = 2 * np.pi * SIDEREAL_RATE / DAY_S
MESH_POINTS = 21
"""Points along each axis at which the beam is computed; cubic interpolation is good to 2e-5."""
BAND_PARTS = 8
"""Parts of the band whose beams are averaged; with their mean frequencies that is good to 1e-5."""
SMEARING_SAMPLES = 24_000
"""Visibilities at which smearing is computed; its mean is good to 1e-4."""


def source_geometry(
    field: ImagingField, part: AveragedBaselines, cosines: Floats
) -> kernels.SourceGeometry:
    """Return how the baselines of a set lie to sources at l, m, n - 1, shape (K, 3)."""
    uvw_s, dec_rad = part.uvw_m / SPEED_OF_LIGHT_M_S, field.data.header.dec_rad
    pole = np.array([0.0, np.cos(dec_rad), np.sin(dec_rad)])
    cycles = float(part.frequencies_hz.mean() * np.median(part.interval_s))
    return kernels.SourceGeometry(
        uvw_s=uvw_s,
        spin_s=np.asarray(EARTH_RATE_RAD_S * np.cross(pole, uvw_s)),
        time_index=part.time_index,
        cosines=np.ascontiguousarray(cosines),
        offsets=cosines[None] - field.pointing[:, None],
        sampling=(part.width_hz, part.factor, cycles),
    )


def effective_beam(field: ImagingField, directions: Floats) -> Floats:
    """Return the effective beam, shape (...), in directions (l, m, n - 1), shape (..., 3).

    It is sum w PB(angle from the pointing, nu) (nu / nu0)^alpha S / sum w, where S is what the sinc
    functions of a channel's width, of the integration and of channel averaging leave. The sum of w
    over baselines is exact; S is the weighted mean over a sample of them. For a
    flat spectrum the result is 0.3 % off at 20 %.
    """
    data, weights = field.data, field.weights
    flat = directions.reshape(-1, 3)
    beams, total = np.zeros(len(flat)), 0.0
    for part, weight in zip(data.sets, weights.of_set, strict=True):
        geometry, freq_hz = source_geometry(field, part, flat), part.frequencies_hz
        bands = np.array_split(np.arange(freq_hz.size), min(BAND_PARTS, freq_hz.size))
        for channels in bands:
            row_weight = weight[:, channels].sum(axis=1, dtype=np.float64)
            by_time = np.bincount(part.time_index, row_weight, data.times_s.size)
            if not by_time.any():
                continue
            column = weight[:, channels].sum(axis=0, dtype=np.float64)
            mean_hz = float(column @ freq_hz[channels] / column.sum())
            slope = (mean_hz / weights.frequency_hz) ** DEFAULT_SPECTRAL_INDEX
            for t in np.flatnonzero(by_time):
                level = np.ones(len(flat))
                if field.primary_beam is not None:
                    level = field.primary_beam.level(flat - field.pointing[t], mean_hz)
                rows = np.flatnonzero(part.time_index == t)
                cells = data.times_s.size * len(bands) * len(data.sets)
                step = max(1, rows.size * cells // SMEARING_SAMPLES)
                rows = rows[(t % step) :: step] if rows.size > step else rows
                # Golden-ratio steps through the channels: every sample takes another one.
                order = np.arange(rows.size) * 0.6180339887 % 1
                channel = channels[(order * channels.size).astype(int)]
                sample = weight[rows, channel].astype(np.float64)
                smeared, sampled = kernels.sum_smearing(
                    geometry.select(rows), freq_hz[channel], sample, part.interval_s[rows]
                )
                left = smeared / sampled if sampled > 0 else np.ones(len(flat))
                beams += by_time[t] * slope * level * left
                total += by_time[t]
    return np.asarray((beams / total).reshape(directions.shape[:-1]))


def beam_map(field: ImagingField) -> Singles:
    """Return the effective beam at the image's pixels, interpolated from a coarse mesh."""
    size, cell_rad = field.frame.size, field.frame.cell_rad
    axis = np.linspace(-0.51, 0.51, MESH_POINTS) * (size * cell_rad)
    east, north = np.meshgrid(axis, axis)
    towards = -(east**2 + north**2) / (1 + np.sqrt(1 - east**2 - north**2))
    mesh = effective_beam(field, np.stack([east, north, towards], axis=-1))
    offset = np.asarray((np.arange(size) - size // 2) * cell_rad, np.float64)
    # East decreases along a row of the image.
    return np.ascontiguousarray(interpolate_mesh(mesh[:, ::-1], axis, offset, degree=3))


def smearing_loss(field: ImagingField, radius_rad: float) -> float:
    """Return the fraction of a source's flux that smearing removes at a distance from the centre.

    It is the mean over position angles, relative to the centre, where the assumed spectrum alone
    makes a level that is 1 to second order.
    """
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    east, north = np.sin(radius_rad) * np.sin(angle), np.sin(radius_rad) * np.cos(angle)
    directions = np.stack([east, north, np.full(angle.size, np.cos(radius_rad) - 1)], axis=-1)
    flat_beam = replace(field, primary_beam=None)
    level = float(effective_beam(flat_beam, np.zeros((1, 3)))[0])
    return float(1 - np.mean(effective_beam(flat_beam, directions) / level))
