"""Checks of the visibilities after imaging: antenna phases, and the power of each baseline.

An error in the phases of any caltable shows as a phase of the antenna that has it, against the
sources that were fitted to all antennas. Only the positions of catalogue sources are used, no
fluxes. The image does not depend on this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.array_files import to_npz
from contimg_image import kernels
from contimg_image.averaging import AveragedVisibilities
from contimg_image.frame import Complexes, Floats

SAMPLE_COUNT = 200_000
"""Visibilities that phases are measured from."""
BAND_PARTS = 8
"""Parts of the band with a phase each: the mean would hide a wrong delay or bandpass."""
COVERAGE_CELLS = 100
"""Cells of the coverage from the middle to the longest baseline."""


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
        return float(np.sqrt(np.maximum(self.rms_deg**2 - self.noise_deg**2, 0.0)))


def sample_slices(data: AveragedVisibilities) -> tuple[slice, slice]:
    """Return the rows and channels of each set that phases are measured from."""
    step = max(1, int(np.sqrt(sum(part.vis.size for part in data.sets) / SAMPLE_COUNT)))
    return slice(None, None, step), slice(step // 2, None, step)


def measure_phases(data: AveragedVisibilities, before: tuple[Complexes, ...]) -> AntennaPhases:
    """Measure antenna phases; `before` is the sample of the visibilities before subtraction.

    Its difference from what is left in `data` is the model of the sources.
    """
    rows, channels = sample_slices(data)
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
    # Weighted by signal: outriggers have few short baselines, and their phases scatter the most.
    rms = np.sqrt(np.average(np.angle(cross[known]) ** 2, weights=power[known]))
    noise = np.sqrt(variance / np.mean(power[known]))
    return AntennaPhases(rms_deg=float(np.degrees(rms)), noise_deg=float(np.degrees(noise)))


def summarise_baselines(
    data: AveragedVisibilities, before: tuple[Complexes, ...], apparent_jy: Floats
) -> bytes:
    """Return uv.npz, the uv coverage, and the power of the data beside that of the model.

    A single visibility is mostly noise, so amplitudes are root mean squares over a baseline's times
    and channels, from which the known noise is subtracted.

    `data` are the visibilities after sources were subtracted, `before` those before, one array for
    each set. `apparent_jy` are the fluxes of the sources, 0 for those that were not subtracted.

    The archive holds arrays of shape (baselines,): `antenna1`, `antenna2` (rows of ANTENNA),
    `uv_wavelengths` (mean uv distance), `samples`, `power_jy2`, `model_jy2`, `left_jy2` (mean
    square of data, model and residual) and `noise_jy2` (subtracted from that of data and residual,
    which may so be negative; NaN, and nothing subtracted, if unknown). A power P has an error of
    sqrt((noise^2 + 2 P noise) / samples). Also `coverage`, shape (n, 2 n), sums of weights in cells
    of `cell_wavelengths` (the other half of the plane is the mirror image), and `sources`, the
    number of sources.
    """
    antennas = len(data.header.antennas.names)
    numbers = [part.antenna1 * antennas + part.antenna2 for part in data.sets]
    pairs, index = np.unique(np.concatenate(numbers), return_inverse=True)
    sums = np.zeros((pairs.size, 6))
    highest_hz = max(float(part.frequencies_hz[-1]) for part in data.sets)
    cell = data.longest_m * highest_hz / SPEED_OF_LIGHT_M_S / COVERAGE_CELLS
    coverage = np.zeros((COVERAGE_CELLS + 2, 2 * (COVERAGE_CELLS + 2)))
    first = 0
    for part, whole in zip(data.sets, before, strict=True):
        baseline = index[first : first + len(part.vis)]
        first += len(part.vis)
        kernels.add_power(part.samples, whole, part.vis, baseline, sums)
        kernels.grid_weights(part.samples, 1 / cell, coverage)
    count, weight = sums[:, 0], sums[:, 1]
    # A visibility of weight w has noise of 2 variance / w in its square.
    noise = 2 * data.variance_jy2 * count / weight
    known_noise = np.nan_to_num(noise)
    columns = {
        "uv_wavelengths": sums[:, 5] / weight,
        "power_jy2": sums[:, 2] / weight - known_noise,
        "model_jy2": sums[:, 3] / weight,
        "left_jy2": sums[:, 4] / weight - known_noise,
        "noise_jy2": noise,
        "coverage": coverage,
    }
    arrays = {name: values.astype(np.float32) for name, values in columns.items()}
    arrays |= {
        "antenna1": (pairs // antennas).astype(np.int16),
        "antenna2": (pairs % antennas).astype(np.int16),
        "samples": count.astype(np.int32),
        "cell_wavelengths": np.array(cell),
        "sources": np.array(np.count_nonzero(apparent_jy)),
    }
    return to_npz(arrays)
