"""The local noise of an image, from a coarse mesh of robust deviations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_image.meshes import refine

if TYPE_CHECKING:
    import numpy.typing as npt

    Singles = npt.NDArray[np.float32]
    Floats = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]

BOX_BEAMS = 14.0
"""Side of a box of the mesh, beams: 200 beams in it give an rms to 6 %."""
MIN_SHARE = 0.25
"""Share of a box that must be free of sources for it to be used."""


def robust_rms(values: npt.NDArray[np.floating]) -> float:
    """Return 1.4826 times the median absolute deviation from the median; NaN of nothing."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan")
    return float(MAD_TO_SIGMA * np.median(np.abs(finite - np.median(finite))))


def rms_map(residual: Singles, sources: Mask, beam_px: float) -> Singles:
    """Return the local rms of an image, of its shape, NaN nowhere.

    Parameters
    ----------
    residual
        Shape (n, n): the image with its sources cleaned away.
    sources
        Pixels to leave out: cleaning takes noise away where it cleans.
    beam_px
        Geometric mean of the beam's axes, pixels.
    """
    size = residual.shape[0]
    boxes = max(1, round(size / (BOX_BEAMS * beam_px)))
    edges = np.linspace(0, size, boxes + 1).astype(int)
    # Pixels within a beam say the same thing; every third of a beam is enough.
    step = max(1, int(beam_px / 3))
    mesh = np.full((boxes, boxes), np.nan)
    for row in range(boxes):
        for column in range(boxes):
            part = (
                slice(edges[row], edges[row + 1], step),
                slice(edges[column], edges[column + 1], step),
            )
            free = residual[part][~sources[part]]
            if free.size >= MIN_SHARE * sources[part].size:
                mesh[row, column] = robust_rms(free)
    mesh = _filled(mesh, robust_rms(residual[::step, ::step]))
    if boxes == 1:
        return np.full(residual.shape, mesh[0, 0], np.float32)
    middle = (edges[:-1] + edges[1:] - 1) / 2
    return refine(mesh, middle, np.arange(size, dtype=np.float64), degree=1)


def _filled(mesh: Floats, otherwise: float) -> Floats:
    """Replace the boxes that are all source by the median of the others."""
    known = np.isfinite(mesh)
    return np.where(known, mesh, np.median(mesh[known]) if known.any() else otherwise)
