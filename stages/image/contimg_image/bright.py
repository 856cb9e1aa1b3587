"""Bright sources: subtracted from the visibilities, then restored in the image as points.

While a field drifts through the beam, a source off the axis changes by tens of per cent, and across
the band by as much. No constant clean component can follow that: cleaning leaves sidelobes of the
changes, 0.7 mJy rms about 3C48, three times the thermal noise. The position of a source determines
how it changes; its brightness is fitted to the visibilities themselves. The catalogue provides
positions and an order; its fluxes are not used otherwise. What the fit misses (a wrong position, an
extended source) stays in the visibilities and is imaged and cleaned like everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg.astro.catalogues import Catalogue
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import direction_cosines
from contimg.astro.telescope import primary_beam
from contimg.records.images import Beam
from contimg_image import kernels
from contimg_image.averaging import AveragedBaselines, AveragedVisibilities
from contimg_image.beam import SPECTRAL_INDEX, angles_from, earth_spin
from contimg_image.field import ImagingField
from contimg_image.frame import Floats, Frame, Mask, Singles

MAX_DISTANCE_DEG = 6.0
"""Sources out to here are considered: the beam's second sidelobe."""
MIN_SEPARATION_RAD = float(np.radians(40 / 3600))
"""Sources closer than the beam's minor axis are fitted as one; cleaning corrects the difference."""
SLOPE_SPREAD = 0.5
"""Scatter of spectral indices about the mean: the prior of the fitted slope."""
RESTORED_RADIUS_BEAMS = 2.5
"""A restored point ends here, in units of the major axis: 3e-8 of its peak."""
FIT_SAMPLES = 200_000
"""Visibilities of the fit. They give 2 mJy; some per cent of a flux suffice, the rest is imaged."""
FIT_ROWS = 512
"""Rows whose model is computed at a time, all channels together: 30 MB."""


@dataclass(frozen=True, eq=False)
class BrightSources:
    """K sources that are subtracted."""

    cosines: Floats
    """Shape (K, 3): l, m, n - 1 about the phase centre."""
    pixels: Floats
    """Shape (K, 2): x and y in the image, counted from zero."""
    inside: Mask
    """Whether they are in the image; the others are not restored."""

    @classmethod
    def at_pixels(cls, frame: Frame, x: Floats, y: Floats) -> BrightSources:
        """Return sources at pixels of the image."""
        middle = frame.size // 2
        east, north = -(x - middle) * frame.cell_rad, (y - middle) * frame.cell_rad
        cosines = np.stack([east, north, np.sqrt(1 - east**2 - north**2) - 1], axis=1)
        return cls(cosines, np.stack([x, y], axis=1), inside=np.ones(x.size, bool))

    @classmethod
    def merge(cls, parts: list[BrightSources]) -> BrightSources:
        """Return all sources of several lists, each once."""
        every = np.concatenate([part.cosines for part in parts])
        cosines, first = np.unique(every, axis=0, return_index=True)
        pixels = np.concatenate([part.pixels for part in parts])[first]
        return cls(cosines, pixels, np.concatenate([part.inside for part in parts])[first])


def choose_sources(
    catalogue: Catalogue, field: ImagingField, counts: tuple[int, int]
) -> BrightSources:
    """Return the sources that should appear brightest, `counts` inside the image and beyond it.

    Of two sources close to each other only the brighter counts: a fit cannot separate them.
    """
    frame, towards = field.frame, field.pointing.cosines
    near = catalogue.within(frame.ra_deg, frame.dec_deg, MAX_DISTANCE_DEG)
    centre = np.radians(frame.ra_deg), np.radians(frame.dec_deg)
    lmn = direction_cosines(np.radians(near.ra_deg), np.radians(near.dec_deg), *centre)
    cosines = np.stack(lmn, axis=1).reshape(-1, 3)
    level = primary_beam(angles_from(cosines, towards), field.weights.frequency_hz)
    expected = near.flux_jy * level.mean(axis=0)
    x, y = frame.pixels(near.ra_deg, near.dec_deg)
    inside = frame.inside(x, y, margin=2)
    chosen: list[int] = []
    remaining = {True: counts[0], False: counts[1]}
    for index in np.argsort(-expected, kind="stable"):
        if not remaining[bool(inside[index])]:
            continue
        distance = np.linalg.norm(cosines[index] - cosines[chosen], axis=1)
        if (distance > MIN_SEPARATION_RAD).all():
            remaining[bool(inside[index])] -= 1
            chosen.append(int(index))
    return BrightSources(cosines[chosen], np.stack([x, y], axis=1)[chosen], inside[chosen])


@dataclass(frozen=True, eq=False)
class _SourceModel:
    """How one set of baselines sees the sources."""

    level: Floats
    """Shape (T, K, C): primary beam times mean spectrum."""
    log_freq: Floats
    """Shape (C,)."""
    geometry: kernels.SourceGeometry

    @classmethod
    def of(cls, field: ImagingField, part: AveragedBaselines, cosines: Floats) -> _SourceModel:
        towards = field.pointing.cosines
        log_freq = np.log(part.frequencies_hz / field.weights.frequency_hz)
        beams = primary_beam(angles_from(cosines, towards)[:, :, None], part.frequencies_hz)
        uvw_s = part.uvw_m / SPEED_OF_LIGHT_M_S
        cycles = float(part.frequencies_hz.mean() * np.median(part.interval_s))
        geometry = kernels.SourceGeometry(
            uvw_s=uvw_s,
            spin_s=earth_spin(uvw_s, field.data.header.dec_rad),
            time_index=part.time_index,
            cosines=cosines,
            offsets=cosines[None] - towards[:, None],
            sampling=(part.width_hz, part.factor, cycles),
        )
        return cls(beams * np.exp(SPECTRAL_INDEX * log_freq), log_freq, geometry)


def subtract_bright(field: ImagingField, sources: BrightSources) -> Floats:
    """Subtract sources from the visibilities, in place.

    Returns the apparent flux of each source, shape (K,), Jy: the mean of what was subtracted with
    the weights of the image, which is what the image would show of the source. Zero, and nothing
    subtracted, if the primary beam is not known.
    """
    count, sets = len(sources.cosines), field.data.sets
    if not count or not field.pointing.known_beam:
        return np.zeros(count)
    models = [_SourceModel.of(field, part, sources.cosines) for part in sets]
    amplitude, slope = _fit_spectra(field.data, models)
    shown = np.zeros(count)
    for part, model, weight in zip(sets, models, field.weights.of_set, strict=True):
        level = model.level * (amplitude[:, None] + slope[:, None] * model.log_freq)
        freq_hz, vis = part.frequencies_hz, part.vis
        kernels.subtract_sources(model.geometry, freq_hz, level, weight, shown, vis)
    total = sum(float(weight.sum(dtype=np.float64)) for weight in field.weights.of_set)
    return np.asarray(shown / total)


def _fit_spectra(data: AveragedVisibilities, models: list[_SourceModel]) -> tuple[Floats, Floats]:
    """Fit the spectra of the sources to a sample of the visibilities.

    Returns the flux of each source before the beam at the image's frequency, Jy, and its change
    with the logarithm of frequency beyond the mean spectrum; shape (K,).
    """
    count = models[0].level.shape[1]
    normal, right = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    step = max(1, int(np.sqrt(sum(part.vis.size for part in data.sets) / FIT_SAMPLES)))
    for part, model in zip(data.sets, models, strict=True):
        channels = slice(step // 2, None, step)
        squares, columns = _sum_products(part, model, step, channels)
        for x, square, column in zip(model.log_freq[channels], squares, columns, strict=True):
            normal += np.kron(np.array([[1.0, x], [x, x * x]]), square)
            right += np.concatenate([column, x * column])
    damping = 1e-9 * np.trace(normal)
    first = np.linalg.solve(normal[:count, :count] + damping * np.eye(count), right[:count])
    spread = np.maximum(SLOPE_SPREAD * np.abs(first), 1e-6)
    variance = data.variance_jy2 if np.isfinite(data.variance_jy2) else 1.0
    ridge = np.concatenate([np.zeros(count), variance / spread**2])
    both = np.linalg.solve(normal + np.diag(ridge) + damping * np.eye(2 * count), right)
    return both[:count], both[count:]


def _sum_products(
    part: AveragedBaselines, model: _SourceModel, step: int, channels: slice
) -> tuple[Floats, Floats]:
    """Return sums over one in `step` rows for some channels.

    They are of sources times sources, shape (C, K, K), and of sources times data, shape (C, K).
    """
    whole, count = model.geometry, model.level.shape[1]
    level = np.ascontiguousarray(model.level[:, :, channels])
    freq_hz = part.frequencies_hz[channels]
    square, column = np.zeros((freq_hz.size, count, count)), np.zeros((freq_hz.size, count))
    for first in range(0, len(part.vis), step * FIT_ROWS):
        rows = slice(first, first + step * FIT_ROWS, step)
        geometry = whole._replace(
            uvw_s=whole.uvw_s[rows], spin_s=whole.spin_s[rows], time_index=whole.time_index[rows]
        )
        root = np.sqrt(part.weight[rows, channels])
        data = part.vis[rows, channels] * root
        design = np.empty((freq_hz.size, 2, len(root), count), np.float32)
        kernels.fill_responses(geometry, freq_hz, level, root, design)
        for channel in range(freq_hz.size):
            # Real and imaginary parts are rows of their own: only the real part of the product is
            # needed, and numpy computes half of X^T X.
            both = design[channel].reshape(-1, count)
            square[channel] += both.T @ both
            column[channel] += np.concatenate([data[:, channel].real, data[:, channel].imag]) @ both
    return square, column


def restore_bright(
    image: Singles, sources: BrightSources, apparent_jy: Floats, beam: Beam, cell_deg: float
) -> None:
    """Add the sources inside an image to it, in place, convolved with the restoring beam."""
    a, b, c = beam.form(-cell_deg, cell_deg)
    reach = int(RESTORED_RADIUS_BEAMS * beam.major_deg / cell_deg) + 1
    size = image.shape[0]
    for k in np.flatnonzero(sources.inside & (apparent_jy != 0)):
        x, y = (float(value) for value in sources.pixels[k])
        rows = np.arange(max(0, round(y) - reach), min(size, round(y) + reach + 1))
        columns = np.arange(max(0, round(x) - reach), min(size, round(x) + reach + 1))
        dx, dy = columns[None, :] - x, rows[:, None] - y
        point = apparent_jy[k] * np.exp(-(a * dx**2 + 2 * b * dx * dy + c * dy**2))
        image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += point.astype(np.float32)
