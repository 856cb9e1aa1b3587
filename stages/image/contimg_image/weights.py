"""Imaging weights, as WSClean defines them, and the noise that they predict."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.runtime.errors import BadImageError
from contimg_image import kernels
from contimg_image.averaging import AveragedVisibilities
from contimg_image.frame import ARCSEC_RAD, Floats, Singles

ROBUST_BASE = 5.0
"""Briggs (1995), equation 3.20: natural and uniform weights part at (5 / 10^R)^2 mean weights."""
SAMPLE_COUNT = 10_000
"""Visibilities that the width of the PSF is computed from."""
ANGLE_COUNT, RADIUS_COUNT = 12, 100
"""Directions in which the half-power radius is searched, and radii in each."""


@dataclass(frozen=True, eq=False)
class ImagingWeights:
    """Briggs' weights of every averaged visibility, and what follows from them."""

    of_set: tuple[Singles, ...]
    """One array for each set, of the shape of its visibilities."""
    frequency_hz: float
    """Mean frequency with these weights."""
    natural_rms_jy: float
    """Noise of the image with natural weights; NaN if the noise is unknown."""
    thermal_rms_jy: float
    """Noise of the image with these weights; NaN if the noise is unknown."""


def imaging_weights(
    data: AveragedVisibilities, robust: float, width_rad: float, taper_rad: float = 0.0
) -> ImagingWeights:
    """Return Briggs' weights for a field of `width_rad`, padding included.

    The density is counted in uv cells of 1 / `width_rad`; a cell and its conjugate are one. The
    weight of a visibility of natural weight W in a cell that holds D is W / (1 + D s) with
    s = (5 / 10^R)^2 / (sum D^2 / sum D). A taper multiplies it by the transform of a Gaussian of
    that FWHM. The variance of the image is variance x sum w^2/W / (sum w)^2.
    """
    highest_hz = max(float(part.frequencies_hz[-1]) for part in data.sets)
    half = int(data.longest_m * highest_hz / SPEED_OF_LIGHT_M_S * width_rad) + 2
    density = np.zeros((half, 2 * half))
    for part in data.sets:
        kernels.grid_weights(part.samples, width_rad, density)
    squared = (ROBUST_BASE * 10.0**-robust) ** 2 * float(density.sum() / np.sum(density**2))
    # The transform of a Gaussian of unit area: exp(-taper (u^2 + v^2)), u and v in wavelengths.
    taper = float((np.pi * taper_rad) ** 2 / (4 * np.log(2)))
    weights: list[Singles] = []
    total = natural = spread = moment = 0.0
    for part in data.sets:
        weight = np.empty_like(part.weight)
        kernels.weigh_briggs(part.samples, width_rad, density, (squared, taper), weight)
        weights.append(weight)
        by_channel = weight.sum(axis=0, dtype=np.float64)
        total += float(by_channel.sum())
        moment += float(by_channel @ part.frequencies_hz)
        natural += float(part.weight.sum(dtype=np.float64))
        known = part.weight > 0
        spread += float(np.sum(weight[known].astype(np.float64) ** 2 / part.weight[known]))
    sigma = np.sqrt(data.variance_jy2)
    return ImagingWeights(
        of_set=tuple(weights),
        frequency_hz=moment / total,
        natural_rms_jy=float(sigma / np.sqrt(natural)),
        thermal_rms_jy=float(sigma * np.sqrt(spread) / total),
    )


def half_power_beam(
    data: AveragedVisibilities, weights: ImagingWeights
) -> tuple[float, float, float]:
    """Return the ellipse through the half-power points of the PSF: the restoring beam.

    It comes from the Fourier sum over a sample of the visibilities, before the PSF is made. A
    Gaussian fitted to a PSF with deep sidelobes is narrower than its main lobe, and components
    between pixels then lose flux.

    Returns major and minor axis (FWHM, arcsec) and position angle (deg). Raises BadImageError if
    the PSF has no main lobe.
    """
    step = max(1, sum(weight.size for weight in weights.of_set) // SAMPLE_COUNT) | 1
    sampled: list[Floats] = []
    for part, weight in zip(data.sets, weights.of_set, strict=True):
        row, channel = np.unravel_index(np.arange(0, weight.size, step), weight.shape)
        per_light = part.frequencies_hz[channel] / SPEED_OF_LIGHT_M_S
        uv = part.uvw_m[row, :2].T * per_light
        sampled.append(np.stack([*uv, weight[row, channel].astype(np.float64)]))
    u, v, weights_of_uv = np.concatenate(sampled, axis=1)
    if np.average(u**2 + v**2, weights=weights_of_uv) > 0:
        angle = np.linspace(0, np.pi, ANGLE_COUNT, endpoint=False)
        sin, cos = np.sin(angle), np.cos(angle)
        radius = np.array(
            [
                _half_power_radius(s * u + c * v, weights_of_uv)
                for s, c in zip(sin, cos, strict=True)
            ]
        )
        # 1 / r^2 = a sin^2 + 2 b sin cos + c cos^2 along the position angle.
        terms = np.stack([sin**2, 2 * sin * cos, cos**2], axis=1) * radius[:, None] ** 2
        a, b, c = np.linalg.lstsq(terms, np.ones(ANGLE_COUNT))[0]
        values, vectors = np.linalg.eigh(np.array([[a, b], [b, c]]))
        if values[0] > 0:
            east, north = vectors[:, 0]
            major, minor = (float(axis) for axis in 2 / np.sqrt(values))
            angle_rad = float(np.arctan2(east, north) % np.pi)
            return major / ARCSEC_RAD, minor / ARCSEC_RAD, float(np.degrees(angle_rad))
    raise BadImageError(
        "weights", "The PSF has no main lobe: too few baselines are left.", "Look at the flags."
    )


def _half_power_radius(along: Floats, weight: Floats) -> float:
    """Return the radius at which the PSF first falls to one half in one direction.

    `along` are the spatial frequencies of the visibilities in that direction.
    """
    spread = np.sqrt(np.average(along**2, weights=weight))
    # A Gaussian of this spread falls to one half at 0.19 / spread; a PSF with wings later.
    radius = np.linspace(0, 1.5 / spread, RADIUS_COUNT)
    before = 1.0
    for inner, outer in pairwise(radius):
        here = float(np.average(np.cos(2 * np.pi * outer * along), weights=weight))
        if here < 0.5:  # noqa: PLR2004 - one half
            return float(np.interp(0.5, [here, before], [outer, inner]))
        before = here
    return float(radius[-1])
