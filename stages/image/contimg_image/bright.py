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

from contimg.astro.catalogues import Catalogue, move_to_calibrators
from contimg.astro.constants import DEFAULT_SPECTRAL_INDEX
from contimg.astro.coordinates import direction_cosines
from contimg.records.images import Beam
from contimg_image import kernels
from contimg_image.averaging import AveragedVisibilities
from contimg_image.beam import source_geometry
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

    def add_pixels(self, frame: Frame, x: Floats, y: Floats) -> BrightSources:
        """Return these sources and those at some pixels of the image, each once."""
        every = np.concatenate([self.cosines, frame.cosines(x, y)])
        cosines, first = np.unique(every, axis=0, return_index=True)
        pixels = np.concatenate([self.pixels, np.stack([x, y], axis=1)])[first]
        inside = np.concatenate([self.inside, np.ones(x.size, bool)])[first]
        return BrightSources(cosines, pixels, inside)


Subtracted = list[tuple[BrightSources, Floats]]
"""Sources and the apparent fluxes (Jy) that were subtracted, one element for each round."""


def choose_sources(
    catalogue: Catalogue, field: ImagingField, counts: tuple[int, int]
) -> BrightSources:
    """Return the sources that should appear brightest, `counts` inside the image and beyond it.

    Of two sources close to each other only the brighter counts: a fit cannot separate them.
    """
    frame = field.frame
    near = catalogue.within(frame.ra_deg, frame.dec_deg, MAX_DISTANCE_DEG)
    near = move_to_calibrators(near.at_frequency(field.weights.frequency_hz))
    centre = np.radians(frame.ra_deg), np.radians(frame.dec_deg)
    lmn = direction_cosines(np.radians(near.ra_deg), np.radians(near.dec_deg), *centre)
    cosines = np.stack(lmn, axis=1).reshape(-1, 3)
    expected = near.flux_jy
    if field.primary_beam is not None:
        offset = cosines - field.pointing[:, None]
        level = field.primary_beam.level(offset, field.weights.frequency_hz)
        expected = expected * level.mean(axis=0)
    x, y = frame.pixels(near.ra_deg, near.dec_deg)
    inside = frame.inside(x, y, margin=2)
    chosen: list[int] = []
    remaining = [counts[1], counts[0]]
    for index in np.argsort(-expected, kind="stable"):
        place = int(inside[index])
        if not remaining[place]:
            continue
        distance = np.linalg.norm(cosines[index] - cosines[chosen], axis=1)
        if (distance > MIN_SEPARATION_RAD).all():
            remaining[place] -= 1
            chosen.append(int(index))
    return BrightSources(cosines[chosen], np.stack([x, y], axis=1)[chosen], inside[chosen])


def subtract_bright(field: ImagingField, sources: BrightSources) -> Floats:
    """Subtract sources from the visibilities, in place.

    Returns the apparent flux of each source, shape (K,), Jy: the mean of what was subtracted with
    the weights of the image, which is what the image would show of the source. Zero, and nothing
    subtracted, if the primary beam is not known.
    """
    cosines, data = sources.cosines, field.data
    shown, models = np.zeros(len(cosines)), []
    if not shown.size or field.primary_beam is None:
        return shown
    for part in data.sets:
        log_freq = np.log(part.frequencies_hz / field.weights.frequency_hz)
        offset = (cosines - field.pointing[:, None])[:, :, None]
        level = field.primary_beam.level(offset, part.frequencies_hz)
        level = level * np.exp(DEFAULT_SPECTRAL_INDEX * log_freq)
        models.append((log_freq, level, source_geometry(field, part, cosines)))
    amplitude, slope = _fit_spectra(data, models)
    for part, model, weight in zip(data.sets, models, field.weights.of_set, strict=True):
        log_freq, level, geometry = model
        level = level * (amplitude[:, None] + slope[:, None] * log_freq)
        kernels.subtract_sources(geometry, part.frequencies_hz, level, weight, shown, part.vis)
    total = sum(float(weight.sum(dtype=np.float64)) for weight in field.weights.of_set)
    return np.asarray(shown / total)


def _fit_spectra(
    data: AveragedVisibilities, models: list[tuple[Floats, Floats, kernels.SourceGeometry]]
) -> tuple[Floats, Floats]:
    """Fit the spectra of the sources to a sample of the visibilities.

    The model of a set is the logarithm of its frequencies over the image's, shape (C,), the primary
    beam times the mean spectrum, shape (T, K, C), and the geometry. Returns the flux of each source
    before the beam at the image's frequency, Jy, and its change with the logarithm of frequency
    beyond the mean spectrum; shape (K,).
    """
    count = models[0][1].shape[1]
    normal, right = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    step = max(1, int(np.sqrt(sum(part.vis.size for part in data.sets) / FIT_SAMPLES)))
    channels = slice(step // 2, None, step)
    for part, (log_freq, whole_level, geometry) in zip(data.sets, models, strict=True):
        level, freq_hz = whole_level[:, :, channels].copy(), part.frequencies_hz[channels]
        squares, columns = np.zeros((freq_hz.size, count, count)), np.zeros((freq_hz.size, count))
        for start in range(0, len(part.vis), step * FIT_ROWS):
            rows = slice(start, start + step * FIT_ROWS, step)
            root = np.sqrt(part.weight[rows, channels])
            vis = part.vis[rows, channels] * root
            design = np.empty((freq_hz.size, 2, len(root), count), np.float32)
            kernels.fill_responses(geometry.select(rows), freq_hz, level, root, design)
            for c in range(freq_hz.size):
                # Real and imaginary parts are rows of their own: only the real part of the product
                # is needed, and numpy computes half of X^T X.
                both = design[c].reshape(-1, count)
                squares[c] += both.T @ both
                columns[c] += np.concatenate([vis[:, c].real, vis[:, c].imag]) @ both
        for x, square, column in zip(log_freq[channels], squares, columns, strict=True):
            normal += np.kron(np.array([[1.0, x], [x, x * x]]), square)
            right += np.concatenate([column, x * column])
    damping = 1e-9 * np.trace(normal)
    first = np.linalg.solve(normal[:count, :count] + damping * np.eye(count), right[:count])
    spread = np.maximum(SLOPE_SPREAD * np.abs(first), 1e-6)
    variance = data.variance_jy2 if np.isfinite(data.variance_jy2) else 1.0
    ridge = np.concatenate([np.zeros(count), variance / spread**2])
    both = np.linalg.solve(normal + np.diag(ridge) + damping * np.eye(2 * count), right)
    return both[:count], both[count:]


def restore_bright(image: Singles, subtracted: Subtracted, beam: Beam, cell_deg: float) -> None:
    """Add the sources inside an image to it, in place, convolved with the restoring beam."""
    a, b, c = beam.form(-cell_deg, cell_deg)
    reach = int(RESTORED_RADIUS_BEAMS * beam.major_deg / cell_deg) + 1
    size = image.shape[0]
    for sources, apparent_jy in subtracted:
        for k in np.flatnonzero(sources.inside & (apparent_jy != 0)):
            x, y = (float(value) for value in sources.pixels[k])
            rows = np.arange(max(0, round(y) - reach), min(size, round(y) + reach + 1))
            columns = np.arange(max(0, round(x) - reach), min(size, round(x) + reach + 1))
            dx, dy = columns[None, :] - x, rows[:, None] - y
            point = apparent_jy[k] * np.exp(-(a * dx**2 + 2 * b * dx * dy + c * dy**2))
            image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += point.astype(np.float32)
