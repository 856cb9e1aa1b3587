"""Summary of the visibilities by baseline, uv.npz: uv coverage, and power beside that of the model.

A single visibility is mostly noise, so amplitudes are root mean squares over a baseline's times and
channels, from which the known noise is subtracted. The image does not depend on this file.
"""

from __future__ import annotations

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.array_files import to_npz
from contimg_image import kernels
from contimg_image.averaging import AveragedVisibilities
from contimg_image.frame import Complexes, Floats

COVERAGE_CELLS = 100
"""Cells of the coverage from the middle to the longest baseline."""


def summarise_baselines(
    data: AveragedVisibilities, before: tuple[Complexes, ...], apparent_jy: Floats
) -> bytes:
    """Return uv.npz.

    Parameters
    ----------
    data
        The visibilities after sources were subtracted.
    before
        The visibilities before, one array for each set.
    apparent_jy
        Fluxes of the sources; 0 for those that were not subtracted.

    Returns
    -------
    An archive of arrays of shape (baselines,): `antenna1`, `antenna2` (rows of ANTENNA),
    `uv_wavelengths` (mean uv distance), `samples`, `power_jy2`, `model_jy2`, `left_jy2` (mean
    square of data, model and residual) and `noise_jy2` (subtracted from that of data and residual,
    which may so be negative; NaN, and nothing subtracted, if unknown). A power P has an error of
    sqrt((noise^2 + 2 P noise) / samples). Also `coverage`, shape (n, 2 n), sums of weights in cells
    of `cell_wavelengths` (the other half of the plane is the mirror image), and `sources`, the
    number of sources.
    """
    antennas = len(data.header.antennas.names)
    pairs, index = np.unique(
        np.concatenate([part.antenna1 * antennas + part.antenna2 for part in data.sets]),
        return_inverse=True,
    )
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
    }
    return to_npz(
        {
            "antenna1": (pairs // antennas).astype(np.int16),
            "antenna2": (pairs % antennas).astype(np.int16),
            **{name: values.astype(np.float32) for name, values in columns.items()},
            "samples": count.astype(np.int32),
            "coverage": coverage.astype(np.float32),
            "cell_wavelengths": np.array(cell),
            "sources": np.array(np.count_nonzero(apparent_jy)),
        }
    )
