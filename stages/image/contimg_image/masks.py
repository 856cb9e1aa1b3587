"""Clean masks: discs around catalogue sources. Only the positions of the sources are used."""

from __future__ import annotations

import numpy as np

from contimg_image.frame import Floats, Frame, Mask, Singles

UNCATALOGUED_SIGMA = 12.0
"""Residual peaks outside all discs above this multiple of the local rms are sources."""
MAX_UNCATALOGUED_SOURCES = 20
SIDELOBE_MARGIN = 1.3
"""A peak must exceed the sidelobes of the highest peak by this factor: other peaks add theirs."""


def draw_discs(frame: Frame, x: Floats, y: Floats, radius_px: float) -> Mask:
    """Return a mask, shape (size, size), that is True within a radius of the positions."""
    mask = np.zeros((frame.size, frame.size), bool)
    reach = int(radius_px) + 1
    for x0, y0 in zip(x, y, strict=True):
        left, low = max(0, int(x0) - reach), max(0, int(y0) - reach)
        part = mask[low : int(y0) + reach + 2, left : int(x0) + reach + 2]
        rows, columns = np.ogrid[low : low + part.shape[0], left : left + part.shape[1]]
        part |= (columns - x0) ** 2 + (rows - y0) ** 2 <= radius_px**2
    return mask


def highest_sidelobe(psf: Singles, radius_px: float) -> float:
    """Return the largest absolute value of a PSF further from its middle than a radius."""
    middle = psf.shape[0] // 2
    core = max(1, int(radius_px))
    beyond = np.abs(psf)
    beyond[middle - core : middle + core + 1, middle - core : middle + core + 1] = 0
    return float(beyond.max())


def uncatalogued_sources(
    residual: Singles, local_rms: Singles, excluded: Mask, radius_px: float, sidelobe: float
) -> tuple[Floats, Floats]:
    """Return the pixels x, y of sources outside all discs, brightest first, with fractions.

    Parameters
    ----------
    residual, local_rms
        The residual image and its local rms.
    excluded
        Pixels that are not searched: the mask, and where the beam is too low.
    radius_px
        Radius of a disc; sources are at least two of them apart.
    sidelobe
        Highest sidelobe of the PSF: what is below that of the brightest peak may be its sidelobe.
    """
    searched = np.where(excluded, 0.0, residual)
    highest = SIDELOBE_MARGIN * sidelobe * float(searched.max())
    candidates = np.argwhere((searched > UNCATALOGUED_SIGMA * local_rms) & (searched > highest))
    found: list[tuple[int, int]] = []
    for row, column in candidates[np.argsort(-searched[tuple(candidates.T)], kind="stable")]:
        if all((row - r) ** 2 + (column - c) ** 2 > (2 * radius_px) ** 2 for r, c in found):
            found.append((int(row), int(column)))
        if len(found) == MAX_UNCATALOGUED_SOURCES:
            break
    peaks = [_interpolate_peak(residual, row, column) for row, column in found]
    positions = np.array(peaks, np.float64).reshape(-1, 2)
    return positions[:, 0], positions[:, 1]


def _interpolate_peak(plane: Singles, row: int, column: int) -> tuple[float, float]:
    """Return x, y of the vertex of parabolas through a peak and its neighbours along each axis."""
    last = plane.shape[0] - 1
    if not (0 < row < last and 0 < column < last):
        return float(column), float(row)
    position = [float(column), float(row)]
    for axis, three in enumerate(
        (plane[row, column - 1 : column + 2], plane[row - 1 : row + 2, column])
    ):
        low, top, high = (float(value) for value in three)
        bend = low - 2 * top + high
        if bend < 0:
            position[axis] += float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))
    return position[0], position[1]
