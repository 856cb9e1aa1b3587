"""Bright sources taken out of the visibilities, and put back into the image as points of their mean.

While a field drifts through the beam a source off the axis changes by tens of per cent, and across the band as much again. No
constant component can follow that: cleaning leaves sidelobes of the changes, 0.7 mJy rms about 3C48, three times the thermal
noise. How a source changes is known from its place alone; how bright it is, is fitted to these very visibilities. The catalogue
gives places and an order; its fluxes enter nothing. What the fit misses (a wrong place, a size) stays in the visibilities and is
imaged and cleaned like everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import direction_cosines
from contimg.astro.telescope import primary_beam
from contimg_image import kernels
from contimg_image.beam import EARTH_RAD_S, SPECTRAL_INDEX

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.catalogues import Catalogue
    from contimg.records.images import Beam
    from contimg_image.averaging import Averaged, Baselines
    from contimg_image.beam import Pointing
    from contimg_image.frame import Frame
    from contimg_image.weights import ImagingWeights

    Floats = npt.NDArray[np.float64]
    Geometry = tuple[
        Floats, Floats, npt.NDArray[np.int64], Floats, Floats, tuple[float, int, float]
    ]

REACH_DEG = 6.0
"""Sources out to here are considered: the beam's second sidelobe."""
APART_RAD = float(np.radians(40 / 3600))
"""Sources nearer than the minor axis of the beam are one to the fit; cleaning sees the difference."""
SLOPE_SPREAD = 0.5
"""Spectral indices scatter by this about the mean: a fit that knows less keeps the mean."""
REACH_BEAMS = 2.5
"""A restored point ends here, in units of the major axis: 3e-8 of its peak."""
FIT_SAMPLES = 200_000
"""Visibilities that amplitudes are fitted to: 2 mJy each, where some per cent suffice; the rest is imaged."""
FIT_ROWS = 512
"""Rows of them that are computed at a time, all channels together: 30 MB."""


@dataclass(frozen=True, eq=False)
class Bright:
    """Sources that are taken out, K of them."""

    cosines: Floats
    """Shape (K, 3): l, m, n - 1 about the phase centre."""
    x: Floats
    """Pixels, counted from zero."""
    y: Floats
    inside: npt.NDArray[np.bool_]
    """Whether they are in the image; the others never come back, for nothing there could clean them."""


def choose(
    catalogue: Catalogue,
    frame: Frame,
    where: Pointing,
    frequency_hz: float,
    counts: tuple[int, int],
) -> Bright:
    """Return the sources that should appear brightest: so many inside of the image, so many beyond; only their order uses fluxes."""
    near = catalogue.within(frame.ra_deg, frame.dec_deg, REACH_DEG)
    centre = np.radians(frame.ra_deg), np.radians(frame.dec_deg)
    cosines = np.stack(
        direction_cosines(np.radians(near.ra_deg), np.radians(near.dec_deg), *centre), axis=1
    ).reshape(-1, 3)
    away = _angles(cosines, where.cosines)
    expected = near.flux_jy * primary_beam(away, frequency_hz).mean(axis=0)
    x, y = frame.pixels(near.ra_deg, near.dec_deg)
    inside = frame.inside(x, y, margin=2)
    order = _apart(cosines, np.argsort(-expected, kind="stable"), inside, counts)
    return Bright(cosines[order], x[order], y[order], inside[order])


def _apart(
    cosines: Floats,
    order: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
    counts: tuple[int, int],
) -> npt.NDArray[np.int64]:
    """Return the first of an order, so many inside and beyond, that are not next to an earlier one: a fit cannot tell the two."""
    chosen: list[int] = []
    left = {True: counts[0], False: counts[1]}
    for index in order:
        where = bool(inside[index])
        if left[where] and all(
            np.linalg.norm(cosines[index] - cosines[other]) > APART_RAD for other in chosen
        ):
            left[where] -= 1
            chosen.append(int(index))
    return np.array(chosen, np.int64)


def at(frame: Frame, x: Floats, y: Floats) -> Bright:
    """Return sources at pixels of the image."""
    east, north = -(x - frame.size // 2) * frame.cell_rad, (y - frame.size // 2) * frame.cell_rad
    cosines = np.stack([east, north, np.sqrt(1 - east**2 - north**2) - 1], axis=1)
    return Bright(cosines, x, y, np.ones(x.size, bool))


def together(parts: list[Bright]) -> Bright:
    """Return all sources of several lists, each once."""
    cosines, first = np.unique(
        np.concatenate([part.cosines for part in parts]), axis=0, return_index=True
    )
    x, y, inside = (
        np.concatenate([getattr(part, name) for part in parts])[first]
        for name in ("x", "y", "inside")
    )
    return Bright(cosines, x, y, inside)


def _angles(cosines: Floats, towards: Floats) -> Floats:
    """Return the angles between where the dishes point, shape (T, 3), and sources, shape (K, 3): shape (T, K)."""
    chord = np.linalg.norm(cosines[None] - towards[:, None], axis=2)
    return np.asarray(2 * np.arcsin(np.clip(chord / 2, 0, 1)))


def take_out(data: Averaged, weights: ImagingWeights, where: Pointing, sources: Bright) -> Floats:
    """Subtract sources from the visibilities, in place.

    Returns
    -------
    The apparent flux of each, shape (K,), Jy: the mean of what was subtracted with the image's weights, which is what a point source
    of that brightness shows; nothing of it where the primary beam is not known.
    """
    count = len(sources.cosines)
    if not count or not where.known_beam:
        return np.zeros(count)
    parts = [
        _Seen.of(data, part, weights.frequency_hz, where, sources.cosines) for part in data.sets
    ]
    amplitude, slope = fit(data, parts)
    total = np.zeros(count)
    for part, seen, weight in zip(data.sets, parts, weights.of_set, strict=True):
        level = seen.level * (amplitude[:, None] + slope[:, None] * seen.log_freq)
        kernels.take_out(*seen.geometry(part), part.frequencies_hz, level, weight, total, part.vis)
    return np.asarray(total / sum(float(weight.sum(dtype=np.float64)) for weight in weights.of_set))


def put_back(
    image: npt.NDArray[np.float32],
    sources: Bright,
    apparent_jy: Floats,
    beam: Beam,
    cell_deg: float,
) -> None:
    """Add sources to an image, in place, as the restoring beam has them; those outside of the image are left out."""
    a, b, c = beam.form(-cell_deg, cell_deg)
    reach = int(REACH_BEAMS * beam.major_deg / cell_deg) + 1
    size = image.shape[0]
    for k in np.flatnonzero(sources.inside & (apparent_jy != 0)):
        column, row = round(float(sources.x[k])), round(float(sources.y[k]))
        rows = np.arange(max(0, row - reach), min(size, row + reach + 1))
        columns = np.arange(max(0, column - reach), min(size, column + reach + 1))
        dx, dy = columns[None, :] - sources.x[k], rows[:, None] - sources.y[k]
        shape = np.exp(-(a * dx**2 + 2 * b * dx * dy + c * dy**2))
        image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += (
            apparent_jy[k] * shape
        ).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Seen:
    """How one set of baselines sees the sources."""

    level: Floats
    """Shape (T, K, C): primary beam times mean spectrum."""
    log_freq: Floats
    """Shape (C,)."""
    cosines: Floats
    offsets: Floats
    """Shape (T, K, 3): directions about where the dishes point."""
    pole: Floats

    @classmethod
    def of(
        cls, data: Averaged, part: Baselines, frequency_hz: float, where: Pointing, cosines: Floats
    ) -> _Seen:
        log_freq = np.log(part.frequencies_hz / frequency_hz)
        beams = primary_beam(_angles(cosines, where.cosines)[:, :, None], part.frequencies_hz)
        pole = np.array([0.0, np.cos(data.header.dec_rad), np.sin(data.header.dec_rad)])
        return cls(
            beams * np.exp(SPECTRAL_INDEX * log_freq),
            log_freq,
            cosines,
            cosines[None] - where.cosines[:, None],
            pole,
        )

    def geometry(self, part: Baselines) -> Geometry:
        """Return what the kernels take first: baselines and their turning, s, times, directions and samples."""
        uvw = part.uvw_m / SPEED_OF_LIGHT_M_S
        spin = EARTH_RAD_S * np.cross(self.pole, uvw)
        middle = float(part.frequencies_hz.mean() * np.median(part.interval_s))
        return (
            uvw,
            spin,
            part.time_index,
            self.cosines,
            self.offsets,
            (part.width_hz, part.factor, middle),
        )


def fit(data: Averaged, parts: list[_Seen]) -> tuple[Floats, Floats]:
    """Fit amplitude and its slope with the logarithm of frequency to a sample of the visibilities.

    Returns
    -------
    Flux of each source before the beam at the image's frequency, Jy, and how it changes beyond the mean spectrum; shape (K,).
    """
    count = parts[0].level.shape[1]
    normal, right = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    whole = sum(part.vis.size for part in data.sets)
    step = max(1, int(np.sqrt(whole / FIT_SAMPLES)))
    for part, seen in zip(data.sets, parts, strict=True):
        channels = slice(step // 2, None, step)
        for x, square, column in zip(
            seen.log_freq[channels], *_products(part, seen, step, channels), strict=True
        ):
            normal += np.kron(np.array([[1.0, x], [x, x * x]]), square)
            right += np.concatenate([column, x * column])
    first = np.linalg.solve(
        normal[:count, :count] + 1e-9 * np.trace(normal) * np.eye(count), right[:count]
    )
    spread = np.maximum(SLOPE_SPREAD * np.abs(first), 1e-6)
    unit = data.variance_jy2 if np.isfinite(data.variance_jy2) else 1.0
    ridge = np.concatenate([np.zeros(count), unit / spread**2])
    both = np.linalg.solve(
        normal + np.diag(ridge) + 1e-9 * np.trace(normal) * np.eye(2 * count), right
    )
    return both[:count], both[count:]


def _products(part: Baselines, seen: _Seen, step: int, channels: slice) -> tuple[Floats, Floats]:
    """Return sums over every so many rows, for each of some channels: sources times sources, shape (C, K, K), and times data, (C, K)."""
    uvw, spin, times, cosines, offsets, sampled = seen.geometry(part)
    level, freq_hz = np.ascontiguousarray(seen.level[:, :, channels]), part.frequencies_hz[channels]
    square, column = (
        np.zeros((freq_hz.size, len(cosines), len(cosines))),
        np.zeros((freq_hz.size, len(cosines))),
    )
    for first in range(0, len(uvw), step * FIT_ROWS):
        rows = slice(first, first + step * FIT_ROWS, step)
        root = np.sqrt(part.weight[rows, channels])
        data = part.vis[rows, channels] * root
        design = np.empty((freq_hz.size, 2, len(root), len(cosines)), np.float32)
        kernels.responses(
            uvw[rows],
            spin[rows],
            times[rows],
            cosines,
            offsets,
            sampled,
            freq_hz,
            level,
            root,
            design,
        )
        for channel in range(freq_hz.size):
            # Real and imaginary parts as rows of their own: what is wanted is the real part, and numpy computes half of X^T X.
            both = design[channel].reshape(-1, len(cosines))
            square[channel] += both.T @ both
            column[channel] += np.concatenate([data[:, channel].real, data[:, channel].imag]) @ both
    return square, column
