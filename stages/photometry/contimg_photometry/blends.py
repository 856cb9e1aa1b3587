"""Sources that are closer than the beam can separate: their beams are fitted together."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from contimg_photometry.kernels import Floats, Image, Ints
from contimg_photometry.noise import BeamProfile, Correlation

MAX_CONDITION = 1e4
"""Beams that overlap more than this cannot be separated: their amplitudes would be noise."""


def find_groups(x: Floats, y: Floats, separation: float) -> list[Ints]:
    """Return the indices of chains of positions with links shorter than `separation` pixels."""
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if known.size < 2 or separation <= 0:  # noqa: PLR2004 - a pair
        return []
    tree = cKDTree(np.column_stack([x[known], y[known]]))
    pairs = tree.query_pairs(separation, output_type="ndarray")
    if pairs.size == 0:
        return []
    shape = (known.size, known.size)
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)
    _, label = connected_components(links, directed=False)
    return [known[label == chain].astype(np.int64) for chain in np.unique(label[pairs[:, 0]])]


def fit_group(
    pixels: Image,
    x: Floats,
    y: Floats,
    beam: BeamProfile,
    noise: Correlation,
    radius: float,
    alone: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Measure n sources together; return peak, its noise, fit and its noise, each shape (n,).

    `alone`, shape (n, 4), are peak, fit, background and noise of each source without regard to the
    others; the means of background and noise are used. Peaks solve p_i = Σ_j K(x_i − x_j) s_j; the
    fit solves the least squares over the union of the apertures. The covariances follow from the
    autocorrelation of the noise. All are NaN if the sources cannot be separated.
    """
    background, sigma = float(alone[:, 2].mean()), float(alone[:, 3].mean())
    patch, design = _cut_patch(pixels, x, y, beam, radius)
    data = np.nan_to_num(patch - background).ravel()
    flat = design.reshape(x.size, -1)
    normal = flat @ flat.T
    between_x, between_y = x[:, None] - x[None, :], y[:, None] - y[None, :]
    overlap = beam.at(between_x, between_y)
    condition = max(np.linalg.cond(normal), np.linalg.cond(overlap))
    if not np.isfinite(sigma) or condition > MAX_CONDITION:
        bad = np.full(x.size, np.nan)
        return bad, bad, bad, bad
    solve, part = np.linalg.inv(normal), np.linalg.inv(overlap)
    fit_cov = solve @ noise.covariance(design) @ solve.T
    peak_cov = part @ noise.at(between_x, between_y) @ part.T
    fit_noise = sigma * np.sqrt(np.maximum(np.diag(fit_cov), 0.0))
    peak_noise = sigma * np.sqrt(np.maximum(np.diag(peak_cov), 0.0))
    return part @ alone[:, 0], peak_noise, solve @ (flat @ data), fit_noise


def _cut_patch(
    pixels: Image, x: Floats, y: Floats, beam: BeamProfile, radius: float
) -> tuple[Floats, Floats]:
    """Return a box of pixels, shape (h, w), and the sources' beams on it, shape (n, h, w).

    Pixels outside the union of the apertures are NaN; where a pixel is NaN, the beams are zero.
    """
    ny, nx = pixels.shape
    left, low = max(0, int(np.floor(x.min() - radius))), max(0, int(np.floor(y.min() - radius)))
    right = min(nx, int(np.ceil(x.max() + radius)) + 1)
    high = min(ny, int(np.ceil(y.max() + radius)) + 1)
    columns, rows = np.meshgrid(np.arange(left, right), np.arange(low, high))
    dx, dy = columns - x[:, None, None], rows - y[:, None, None]
    patch = pixels[low:high, left:right].astype(np.float64)
    use = (np.hypot(dx, dy) <= radius).any(axis=0) & np.isfinite(patch)
    return np.where(use, patch, np.nan), np.where(use, beam.at(dx, dy), 0.0)
