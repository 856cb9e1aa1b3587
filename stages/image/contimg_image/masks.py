"""Clean masks: discs around catalogue sources. Their fluxes never enter, only whether the image can show the source at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_image.frame import Frame

    Floats = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]

STRANGER_SIGMA = 12.0
"""A peak in the residual above this multiple of the local rms, outside of all discs, is a source that the catalogue lacks."""
MOST_STRANGERS = 20
LOBE_MARGIN = 1.3
"""The residual's sidelobes are not only those of its highest peak."""


def discs(frame: Frame, x: Floats, y: Floats, radius_px: float) -> Mask:
    """Return a mask, shape (size, size), that is True within a radius of the positions."""
    mask = np.zeros((frame.size, frame.size), bool)
    reach = int(radius_px) + 1
    for x0, y0 in zip(x, y, strict=True):
        left, low = max(0, int(x0) - reach), max(0, int(y0) - reach)
        part = mask[low : int(y0) + reach + 2, left : int(x0) + reach + 2]
        rows, columns = np.ogrid[low : low + part.shape[0], left : left + part.shape[1]]
        part |= (columns - x0) ** 2 + (rows - y0) ** 2 <= radius_px**2
    return mask


def sidelobe(psf: npt.NDArray[np.float32], radius_px: float) -> float:
    """Return the highest sidelobe of a PSF, absolute, further from its middle than a radius."""
    middle = psf.shape[0] // 2
    core = max(1, int(radius_px))
    beyond = np.abs(psf)
    beyond[middle - core : middle + core + 1, middle - core : middle + core + 1] = 0
    return float(beyond.max())


def strangers(
    residual: npt.NDArray[np.float32],
    local: npt.NDArray[np.float32],
    known: Mask,
    radius_px: float,
    lobe: float,
) -> tuple[Floats, Floats]:
    """Return the pixels x, y of sources that no disc covers, brightest first, to a fraction of a pixel.

    Parameters
    ----------
    residual, local
        What cleaning left, and its local rms.
    known
        Pixels where none is looked for: the mask, and where the beam is too low.
    radius_px
        Of a disc; sources are two of them apart.
    lobe
        Highest sidelobe of the PSF: what is below that of the brightest may be its sidelobe.
    """
    left = np.where(known, 0.0, residual)
    candidates = np.argwhere(
        (left > STRANGER_SIGMA * local) & (left > LOBE_MARGIN * lobe * float(left.max()))
    )
    found: list[tuple[int, int]] = []
    for row, column in candidates[np.argsort(-left[tuple(candidates.T)], kind="stable")]:
        if all((row - r) ** 2 + (column - c) ** 2 > (2 * radius_px) ** 2 for r, c in found):
            found.append((int(row), int(column)))
        if len(found) == MOST_STRANGERS:
            break
    places = np.array(
        [_summit(residual, row, column) for row, column in found], np.float64
    ).reshape(-1, 2)
    return places[:, 0], places[:, 1]


def _summit(plane: npt.NDArray[np.float32], row: int, column: int) -> tuple[float, float]:
    """Return x, y of the top of a parabola through a peak and its neighbours along each axis."""
    last = plane.shape[0] - 1
    if not (0 < row < last and 0 < column < last):
        return float(column), float(row)
    return column + _vertex(plane[row, column - 1 : column + 2]), row + _vertex(
        plane[row - 1 : row + 2, column]
    )


def _vertex(three: npt.NDArray[np.float32]) -> float:
    low, top, high = (float(value) for value in three)
    bend = low - 2 * top + high
    return float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5)) if bend < 0 else 0.0
