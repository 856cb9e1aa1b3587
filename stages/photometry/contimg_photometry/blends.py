"""Sources nearer to each other than the beam can part: their beams are fitted together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from contimg_photometry.noise import Correlation
    from contimg_photometry.profile import BeamProfile

Floats = NDArray[np.float64]

WORST_CONDITION = 1e4
"""Beams that overlap more than this cannot be told apart: their amplitudes would be noise."""


def groups(x: Floats, y: Floats, separation: float) -> list[NDArray[np.int64]]:
    """Return the indices of each chain of two or more positions with links shorter than `separation` pixels."""
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if known.size < 2 or separation <= 0:  # noqa: PLR2004 - a pair
        return []
    pairs = cKDTree(np.column_stack([x[known], y[known]])).query_pairs(
        separation, output_type="ndarray"
    )
    if pairs.size == 0:
        return []
    links = coo_matrix(
        (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(known.size, known.size)
    )
    _, label = connected_components(links, directed=False)
    return [known[label == chain].astype(np.int64) for chain in np.unique(label[pairs[:, 0]])]


def fit_group(
    pixels: NDArray[np.float32],
    x: Floats,
    y: Floats,
    beam: BeamProfile,
    noise: Correlation,
    radius: float,
    alone: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Measure n sources together; return peak, its noise, fit and its noise, each shape (n,).

    Parameters
    ----------
    x, y
        Positions, pixels.
    radius
        Aperture about each source, pixels.
    alone
        Shape (n, 4): peak, fit, background and noise of each as if the others were not there. The means of background and noise
        are used, since the sources share one place.

    Notes
    -----
    Peaks solve p_i = Σ_j K(x_i − x_j) s_j, the fit solves the least squares over the union of apertures; the covariances follow
    from the noise's autocorrelation. NaN if the sources cannot be told apart.
    """
    bad = np.full(x.size, np.nan)
    background, sigma = float(alone[:, 2].mean()), float(alone[:, 3].mean())
    patch, design = _design(pixels, x, y, beam, radius, background)
    flat = design.reshape(x.size, -1)
    normal = flat @ flat.T
    between_x, between_y = x[:, None] - x[None, :], y[:, None] - y[None, :]
    overlap = beam.at(between_x, between_y)
    if (
        not np.isfinite(sigma)
        or np.linalg.cond(normal) > WORST_CONDITION
        or np.linalg.cond(overlap) > WORST_CONDITION
    ):
        return bad, bad, bad, bad
    solve, part = np.linalg.inv(normal), np.linalg.inv(overlap)
    fit_cov = solve @ noise.covariance(design) @ solve.T
    peak_cov = part @ noise.at(between_x, between_y) @ part.T
    fit_noise, peak_noise = (
        sigma * np.sqrt(np.maximum(np.diag(cov), 0.0)) for cov in (fit_cov, peak_cov)
    )
    return part @ alone[:, 0], peak_noise, solve @ (flat @ patch.ravel()), fit_noise


def _design(
    pixels: NDArray[np.float32],
    x: Floats,
    y: Floats,
    beam: BeamProfile,
    radius: float,
    background: float,
) -> tuple[Floats, Floats]:
    """Return the box of pixels less background, (h, w), and the sources' beams on it, (n, h, w); zero where not used."""
    ny, nx = pixels.shape
    left, right = (
        max(0, int(np.floor(x.min() - radius))),
        min(nx, int(np.ceil(x.max() + radius)) + 1),
    )
    low, high = max(0, int(np.floor(y.min() - radius))), min(ny, int(np.ceil(y.max() + radius)) + 1)
    columns, rows = np.meshgrid(
        np.arange(left, right, dtype=np.float64), np.arange(low, high, dtype=np.float64)
    )
    dx, dy = columns[None] - x[:, None, None], rows[None] - y[:, None, None]
    patch = pixels[low:high, left:right].astype(np.float64) - background
    use = (np.hypot(dx, dy) <= radius).any(axis=0) & np.isfinite(patch)
    return np.where(use, patch, 0.0), np.where(use, beam.at(dx, dy), 0.0)
