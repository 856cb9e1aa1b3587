"""Antenna phases: each antenna's visibilities against the sources that were fitted to all of them.

An error in the phases of any caltable shows as a phase of the antenna that has it. Only the
positions of catalogue sources are used, no fluxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg_image.averaging import AveragedVisibilities
from contimg_image.frame import Complexes

SAMPLE_COUNT = 200_000
"""Visibilities that phases are measured from."""
BAND_PARTS = 8
"""Parts of the band with a phase each: the mean would hide a wrong delay or bandpass."""


@dataclass(frozen=True)
class AntennaPhases:
    """Phases of antennas in parts of the band, relative to the fitted sources."""

    rms_deg: float
    """About 80 for random phases; NaN where no source was fitted."""
    noise_deg: float
    """The part of `rms_deg` that the noise of the visibilities causes."""

    @property
    def error_deg(self) -> float:
        """The rms without the noise."""
        if not np.isfinite(self.rms_deg):
            return float("nan")
        return float(np.sqrt(max(self.rms_deg**2 - self.noise_deg**2, 0.0)))


def sample_visibilities(visibilities: tuple[Complexes, ...]) -> tuple[Complexes, ...]:
    """Return a copy of every so many visibilities, shape (rows, channels), of each set."""
    sampled = _sample_slices(visibilities)
    return tuple(whole[sampled].copy() for whole in visibilities)


def _sample_slices(visibilities: tuple[Complexes, ...]) -> tuple[slice, slice]:
    step = max(1, int(np.sqrt(sum(whole.size for whole in visibilities) / SAMPLE_COUNT)))
    return slice(None, None, step), slice(step // 2, None, step)


def measure_phases(data: AveragedVisibilities, before: tuple[Complexes, ...]) -> AntennaPhases:
    """Measure antenna phases; `before` is a sample of the visibilities before subtraction.

    Its difference from what is left in `data` is the model of the sources.
    """
    rows, channels = _sample_slices(tuple(part.vis for part in data.sets))
    shape = BAND_PARTS, len(data.header.antennas.names)
    cross, power = np.zeros(shape, complex), np.zeros(shape)
    for part, whole in zip(data.sets, before, strict=True):
        model, weight = whole - part.vis[rows, channels], part.weight[rows, channels]
        correlation, strength = weight * whole * model.conj(), weight * np.abs(model) ** 2
        count = part.frequencies_hz.size
        band_part = np.arange(count)[channels] * BAND_PARTS // count
        antenna1, antenna2 = part.antenna1[rows], part.antenna2[rows]
        for number in np.unique(band_part):
            row_cross = correlation[:, band_part == number].sum(axis=1)
            row_power = strength[:, band_part == number].sum(axis=1)
            np.add.at(cross[number], antenna1, row_cross)
            np.add.at(cross[number], antenna2, row_cross.conj())
            np.add.at(power[number], antenna1, row_power)
            np.add.at(power[number], antenna2, row_power)
    known = power > 0
    if not known.any():
        return AntennaPhases(rms_deg=float("nan"), noise_deg=float("nan"))
    variance = data.variance_jy2 if np.isfinite(data.variance_jy2) else 0.0
    rms = np.sqrt(np.mean(np.angle(cross[known]) ** 2))
    noise = np.sqrt(np.mean(variance / power[known]))
    return AntennaPhases(rms_deg=float(np.degrees(rms)), noise_deg=float(np.degrees(noise)))
