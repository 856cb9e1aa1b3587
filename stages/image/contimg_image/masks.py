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
MOST_STRANGERS = 200


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


def strangers(significance: npt.NDArray[np.float32], known: Mask, radius_px: float) -> tuple[Floats, Floats]:
    """Return the pixels x, y of sources that no disc covers, brightest first.

    Parameters
    ----------
    significance
        Residual over local rms.
    known
        Pixels where none is looked for: the mask, and where the beam is too low.
    """
    left = np.where(known, 0.0, significance)
    candidates = np.argwhere(left > STRANGER_SIGMA)
    found: list[tuple[int, int]] = []
    for row, column in candidates[np.argsort(-left[tuple(candidates.T)], kind="stable")]:
        if all((row - r) ** 2 + (column - c) ** 2 > (2 * radius_px) ** 2 for r, c in found):
            found.append((int(row), int(column)))
        if len(found) == MOST_STRANGERS:
            break
    places = np.array(found, np.float64).reshape(-1, 2)
    return places[:, 1], places[:, 0]
