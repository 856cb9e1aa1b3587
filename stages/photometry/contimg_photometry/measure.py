"""Forced photometry of positions in one image: arrays in, arrays out, pixel units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from contimg_photometry.kernels import (
    Bools,
    Floats,
    Image,
    Ints,
    fit_position,
    measure_positions,
)
from contimg_photometry.noise import BeamProfile, Correlation, single_source_errors
from contimg_photometry.options import PhotometryOptions

POSITION_ROUNDS = 4
"""Gauss–Newton rounds; from an error of a tenth of a beam three reach a thousandth of a pixel."""
MAX_MISSING = 0.8
"""Largest part of Σ K² without pixels at which a source is still measured."""
MAX_CONDITION = 1e4
"""Beams that overlap more than this cannot be separated: their amplitudes would be noise."""


@dataclass(frozen=True)
class Measurements:
    """Fluxes in the image's unit (amplitudes of the beam), shape (N,), one for each position."""

    peak: Floats
    """Amplitude of the beam at the position."""
    peak_noise: Floats
    """1 sigma of `peak`: the local rms, larger for blended sources."""
    fit: Floats
    """Amplitude of the beam that fits the aperture best."""
    fit_noise: Floats
    """1 sigma of `fit`, from the local rms and the autocorrelation of the noise."""
    background: Floats
    blend: Ints
    """Number of sources fitted together."""
    dx: Floats
    """Fitted minus given position, pixels; NaN where no position was fitted."""
    dy: Floats
    dx_noise: Floats
    dy_noise: Floats
    missing: Floats
    """Part of the aperture, by the weights of the fit, without pixels."""


def annulus_offsets(inner: float, outer: float, step: int) -> Ints:
    """Return the offsets x and y of an annulus, shape (2, M), on a grid of `step`; all pixels."""
    reach = int(np.ceil(outer / step)) * step
    y, x = np.mgrid[-reach : reach + 1 : step, -reach : reach + 1 : step]
    inside = (np.hypot(x, y) >= inner) & (np.hypot(x, y) <= outer)
    return np.stack([x[inside], y[inside]]).astype(np.int64)


def measure(
    pixels: Image,
    x: Floats,
    y: Floats,
    beam: BeamProfile,
    noise: Correlation,
    options: PhotometryOptions,
) -> Measurements:
    """Measure the flux of the beam at positions, shape (N,); NaN where the image lacks pixels.

    The pixels, shape (ny, nx), are restored with `beam`; NaN is not used. `noise` reaches as far as
    two aperture radii. Where pixels are missing, the errors are those of the fit to the others,
    and the fit stands for the peak if that cannot be interpolated.
    """
    major, radius = beam.major, options.aperture * beam.major
    # Half a minor axis is the Nyquist step: noise is correlated over less.
    step = max(1, int(beam.minor / 2))
    offsets = annulus_offsets(options.annulus_inner * major, options.annulus_outer * major, step)
    raw = np.empty((x.size, 5))
    measure_positions(pixels, x, y, beam.form, radius, offsets, raw)
    peak, fit, background, local, missing = np.ascontiguousarray(raw.T)
    fit_error, x_error, y_error = single_source_errors(beam, radius, noise)
    peak_noise, fit_noise, blend = local.copy(), fit_error * local, np.ones(x.size, np.int64)
    for k in np.flatnonzero(missing > 0):
        whole = refit_incomplete(pixels, (x[k], y[k]), beam, noise, radius, raw[k])
        peak[k], peak_noise[k], fit[k], fit_noise[k] = whole
        raw[k, 0] = peak[k]
    for members in find_groups(x, y, options.pair_separation * major):
        places = np.stack([x[members], y[members]])
        found = fit_group(pixels, places, beam, noise, radius, raw[members])
        peak[members], peak_noise[members], fit[members], fit_noise[members] = found
        blend[members] = members.size
    dx, dy = np.full((2, x.size), np.nan)
    alone = (blend == 1) & (missing == 0)
    for k in np.flatnonzero(alone & (peak > options.position_snr * peak_noise)):
        start = (x[k], y[k], beam.form, background[k])
        dx[k], dy[k] = fit_position(pixels, *start, radius, POSITION_ROUNDS)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(np.isfinite(dx), local / peak, np.nan)
    return Measurements(
        peak=peak,
        peak_noise=peak_noise,
        fit=fit,
        fit_noise=fit_noise,
        background=background,
        blend=blend,
        dx=dx,
        dy=dy,
        dx_noise=scale * x_error,
        dy_noise=scale * y_error,
        missing=missing,
    )


def refit_incomplete(
    pixels: Image,
    place: tuple[float, float],
    beam: BeamProfile,
    noise: Correlation,
    radius: float,
    raw: Floats,
) -> Floats:
    """Measure a source at x, y some of whose pixels are missing.

    Returns peak, its noise, fit and its noise, shape (4,). The errors are those of the fit to the
    pixels that exist; it stands for a peak that cannot be interpolated. `raw`, shape (5,), are
    peak, fit, background, noise and missing part. NaN if that is too large, or x, y outside.
    """
    ny, nx = pixels.shape
    inside = -0.5 < place[0] < nx - 0.5 and -0.5 < place[1] < ny - 0.5  # noqa: PLR2004
    if not (inside and raw[4] <= MAX_MISSING and np.isfinite(raw[1:4]).all()):
        return np.full(4, np.nan)
    at = np.array(place)[:, None]
    _, _, fit, fit_noise = fit_group(pixels, at, beam, noise, radius, raw[None])[:, 0]
    if np.isfinite(raw[0]):
        return np.array([raw[0], raw[3], fit, fit_noise])
    return np.array([fit, fit_noise, fit, fit_noise])


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


def cut_out(pixels: Image, places: Floats, radius: float) -> tuple[Ints, Ints, Floats, Bools]:
    """Return the pixels about positions x, y, shape (2, n): their x, y, values, and which to use.

    These are finite and within the radius of a position.
    """
    ny, nx = pixels.shape
    left, low = np.maximum(0, np.floor(places.min(axis=1) - radius)).astype(int)
    right, high = np.minimum((nx, ny), np.ceil(places.max(axis=1) + radius) + 1).astype(int)
    columns, rows = np.meshgrid(np.arange(left, right), np.arange(low, high))
    patch = pixels[low:high, left:right].astype(np.float64)
    x, y = places[:, :, None, None]
    near = (np.hypot(columns - x, rows - y) <= radius).any(axis=0)
    return columns, rows, patch, near & np.isfinite(patch)


def fit_group(
    pixels: Image, places: Floats, beam: BeamProfile, noise: Correlation, radius: float, raw: Floats
) -> Floats:
    """Measure n sources at x, y, shape (2, n), together.

    Returns peak, its noise, fit and its noise, shape (4, n); NaN if they cannot be separated.
    `raw`, shape (n, 5), are peak, fit, background and noise of each source without regard to the
    others; the means of background and noise are used. Peaks solve p_i = Σ_j K(x_i − x_j) s_j; the
    fit solves the least squares over the union of the apertures. The covariances follow from the
    autocorrelation of the noise.
    """
    (x, y), (columns, rows, patch, use) = places, cut_out(pixels, places, radius)
    background, sigma = float(raw[:, 2].mean()), float(raw[:, 3].mean())
    dx, dy = columns - x[:, None, None], rows - y[:, None, None]
    design, data = np.where(use, beam.at(dx, dy), 0.0), np.where(use, patch - background, 0.0)
    flat = design.reshape(x.size, -1)
    normal = flat @ flat.T
    between_x, between_y = x[:, None] - x[None, :], y[:, None] - y[None, :]
    overlap = beam.at(between_x, between_y)
    condition = max(np.linalg.cond(normal), np.linalg.cond(overlap))
    if not np.isfinite(sigma) or condition > MAX_CONDITION:
        return np.full((4, x.size), np.nan)
    solve, part = np.linalg.inv(normal), np.linalg.inv(overlap)
    fit_cov = solve @ noise.covariance(design) @ solve.T
    peak_cov = part @ noise.at(between_x, between_y) @ part.T
    fit_noise = sigma * np.sqrt(np.maximum(np.diag(fit_cov), 0.0))
    peak_noise = sigma * np.sqrt(np.maximum(np.diag(peak_cov), 0.0))
    return np.stack([part @ raw[:, 0], peak_noise, solve @ (flat @ data.ravel()), fit_noise])
