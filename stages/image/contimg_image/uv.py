"""Where the visibilities that are imaged lie in the uv plane, and how strong each baseline is beside its model: uv.npz.

A single visibility is mostly noise, so amplitudes are root mean squares over a baseline's times and channels, whose noise is known
and taken off. Nothing in the image depends on this; it is for those who look at the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.array_files import to_npz
from contimg_image import kernels

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_image.averaging import Averaged

    Complexes = npt.NDArray[np.complex64]
    Floats = npt.NDArray[np.float64]

CELLS = 100
"""Cells of the coverage from the middle to the longest baseline."""


def copied(data: Averaged) -> tuple[Complexes, ...]:
    """Return the visibilities as they are now, one array a set."""
    return tuple(part.vis.copy() for part in data.sets)


def summary(data: Averaged, before: tuple[Complexes, ...], sources: int) -> bytes:
    """Return uv.npz.

    Parameters
    ----------
    data
        The visibilities after a model of `sources` sources was taken out of them.
    before
        The same before that.

    Returns
    -------
    An archive of: `antenna1`, `antenna2` (rows of the MS's ANTENNA), `uv_wavelengths` (mean distance in the uv plane), `samples`,
    `power_jy2`, `model_jy2`, `left_jy2` (mean square of the data, of the model and of what is left) and `noise_jy2` (what was taken off
    the data and what is left, so that they may be negative; NaN, and nothing taken off, if the noise is unknown), all of shape
    (baselines,). A power P has an error of sqrt((noise^2 + 2 P noise) / samples);
    `coverage`, shape (n, 2 n), sums of weights in cells of `cell_wavelengths`, the other half of the plane is its mirror image; `sources`.
    """
    antennas = len(data.header.antennas.names)
    pairs, index = np.unique(
        np.concatenate([part.antenna1 * antennas + part.antenna2 for part in data.sets]),
        return_inverse=True,
    )
    sums = np.zeros((pairs.size, 6))
    cell = (
        data.longest_m
        * max(float(part.frequencies_hz[-1]) for part in data.sets)
        / SPEED_OF_LIGHT_M_S
        / CELLS
    )
    coverage = np.zeros((CELLS + 2, 2 * (CELLS + 2)))
    first = 0
    for part, whole in zip(data.sets, before, strict=True):
        mine = index[first : first + len(part.vis)]
        first += len(part.vis)
        per_light = part.frequencies_hz / SPEED_OF_LIGHT_M_S
        kernels.add_power(part.uvw_m, per_light, whole, part.vis, part.weight, mine, sums)
        kernels.grid_weights(part.uvw_m, per_light, part.weight, 1 / cell, coverage)
    arrays: dict[str, Any] = {
        "antenna1": (pairs // antennas).astype(np.int16),
        "antenna2": (pairs % antennas).astype(np.int16),
        **{
            name: values.astype(np.float32)
            for name, values in _by_baseline(sums, data.variance_jy2).items()
        },
        "samples": sums[:, 0].astype(np.int32),
        "coverage": coverage.astype(np.float32),
        "cell_wavelengths": np.float64(cell),
        "sources": np.int64(sources),
    }
    return to_npz(arrays)


def _by_baseline(sums: Floats, variance_jy2: float) -> dict[str, Floats]:
    """Return mean squares without their noise: a visibility of weight w has noise of 2 variance / w in its square."""
    count, weight = sums[:, 0], sums[:, 1]
    noise = 2 * variance_jy2 * count / weight
    known = np.nan_to_num(noise)
    return {
        "uv_wavelengths": sums[:, 5] / weight,
        "power_jy2": sums[:, 2] / weight - known,
        "model_jy2": sums[:, 3] / weight,
        "left_jy2": sums[:, 4] / weight - known,
        "noise_jy2": noise,
    }
