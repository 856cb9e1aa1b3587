"""The local noise of an image, from robust deviations on a coarse mesh."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import MAD_TO_SIGMA
from contimg_image.frame import Mask, Singles, interpolate_mesh

BOX_BEAMS = 14.0
"""Side of a box of the mesh, beams: the 200 beams in it give an rms to 6 %."""
MIN_FREE_FRACTION = 0.25
"""Fraction of a box that must be free of sources for it to be used."""


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
    for row, across in enumerate(sides):
        for column, along in enumerate(sides):
            covered = sources[across, along]
            free = residual[across, along][~covered]
            if free.size >= MIN_FREE_FRACTION * covered.size:
                mesh[row, column] = robust_rms(free)
    known = np.isfinite(mesh)
    other = np.median(mesh[known]) if known.any() else robust_rms(residual[::step, ::step])
    mesh = np.where(known, mesh, other)
    if boxes == 1:
        return np.full(residual.shape, mesh[0, 0], np.float32)
    middle = (edges[:-1] + edges[1:] - 1) / 2
    return interpolate_mesh(mesh, middle, np.arange(size, dtype=np.float64), degree=1)
