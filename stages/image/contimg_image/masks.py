"""Clean masks, discs around catalogue sources, and the noise of the image outside them.

Only the positions of the sources are used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_image.frame import Floats, Frame, Mask, Singles, interpolate_mesh

UNCATALOGUED_SIGMA = 12.0
"""Peaks outside all discs above this multiple of the local rms are sources."""
MAX_UNCATALOGUED_SOURCES = 40
BOX_BEAMS = 14.0
"""Side of a box of the mesh, beams: the 200 beams in it give an rms to 6 %."""
MIN_FREE_FRACTION = 0.25
"""Fraction of a box that must be free of sources for it to be used."""


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
    core = slice(middle - max(1, int(radius_px)), middle + max(1, int(radius_px)) + 1)
    beyond = np.abs(psf)
    beyond[core, core] = 0
    return float(beyond.max())


def uncatalogued_sources(
    image: Singles, local_rms: Singles, excluded: Mask, radius_px: float
) -> tuple[Floats, Floats]:
    """Return the pixels x, y of sources outside all discs, brightest first, with fractions.

    `image` has no sidelobes. `excluded` is not searched: the mask, and where the beam is too low.
    Sources are at least two radii of a disc apart.
    """
    searched = np.where(excluded, 0.0, image)
    candidates = np.argwhere(searched > UNCATALOGUED_SIGMA * local_rms)
    found: list[tuple[int, int]] = []
    for row, column in candidates[np.argsort(-searched[tuple(candidates.T)], kind="stable")]:
        if all((row - r) ** 2 + (column - c) ** 2 > (2 * radius_px) ** 2 for r, c in found):
            found.append((int(row), int(column)))
        if len(found) == MAX_UNCATALOGUED_SOURCES:
            break
    peaks = [_interpolate_peak(image, row, column) for row, column in found]
    x, y = np.array(peaks, np.float64).reshape(-1, 2).T
    return x, y


def _interpolate_peak(plane: Singles, row: int, column: int) -> tuple[float, float]:
    """Return x, y of the vertex of parabolas through a peak and its neighbours along each axis."""
    position, last = [float(column), float(row)], plane.shape[0] - 1
    if 0 < row < last and 0 < column < last:
        lines = plane[row, column - 1 : column + 2], plane[row - 1 : row + 2, column]
        for axis, line in enumerate(lines):
            low, top, high = (float(value) for value in line)
            bend = low - 2 * top + high
            if bend < 0:
                position[axis] += float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))
    return position[0], position[1]


def robust_rms(values: npt.NDArray[np.floating]) -> float:
    """Return 1.4826 times the median absolute deviation from the median; NaN without values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan")
    return float(MAD_TO_SIGMA * np.median(np.abs(finite - np.median(finite))))


def rms_map(residual: Singles, sources: Mask, beam_px: float) -> Singles:
    """Return the local rms of a residual image, shape (n, n), never NaN.

    The pixels of `sources` are left out: cleaning removes noise where it cleans. `beam_px` is the
    geometric mean of the beam's axes.
    """
    size = residual.shape[0]
    boxes = max(1, round(size / (BOX_BEAMS * beam_px)))
    edges = np.linspace(0, size, boxes + 1).astype(int)
    # Pixels within a beam are correlated: one in a third of a beam is enough.
    step = max(1, int(beam_px / 3))
    mesh = np.full((boxes, boxes), np.nan)
    sides = [slice(edges[i], edges[i + 1], step) for i in range(boxes)]
    for row, column in np.ndindex(mesh.shape):
        covered = sources[sides[row], sides[column]]
        free = residual[sides[row], sides[column]][~covered]
        if free.size >= MIN_FREE_FRACTION * covered.size:
            mesh[row, column] = robust_rms(free)
    known = np.isfinite(mesh)
    other = np.median(mesh[known]) if known.any() else robust_rms(residual[::step, ::step])
    mesh = np.where(known, mesh, other)
    if boxes == 1:
        return np.full(residual.shape, mesh[0, 0], np.float32)
    middle = (edges[:-1] + edges[1:] - 1) / 2
    return interpolate_mesh(mesh, middle, np.arange(size, dtype=np.float64), degree=1)
