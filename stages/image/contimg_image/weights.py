"""Imaging weights, as WSClean defines them, and the noise that they predict."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.runtime.errors import BadImageError
from contimg_image import kernels

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_image.averaging import Averaged

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

ROBUST_BASE = 5.0
"""Briggs (1995), equation 3.20: the density that divides natural from uniform is (5 / 10^R)^2 times the mean weight."""


@dataclass(frozen=True, eq=False)
class ImagingWeights:
    """Briggs' weights of every averaged visibility, and what follows from them."""

    of_set: tuple[Singles, ...]
    """One array a set, of the shape of its visibilities."""
    frequency_hz: float
    """Mean frequency with these weights."""
    natural_rms_jy: float
    """Noise of the image if every visibility weighed by its variance alone; NaN if the noise is unknown."""
    thermal_rms_jy: float
    """Noise with these weights: the natural radiometer rms x sqrt(N sum w^2) / sum w, for visibilities of one variance."""


SAMPLES = 10_000
"""Visibilities that the width of the PSF is found from."""
NO_LOBE = "Too few baselines are left; look at the flags."
ANGLES, STEPS_TO_HALF = 12, 100


def imaging_weights(
    data: Averaged, robust: float, width_rad: float, taper_rad: float = 0.0
) -> ImagingWeights:
    """Return Briggs' weights for a field of `width_rad`, padding included: density is counted in cells of its reciprocal.

    The weight of a visibility of natural weight W in a cell that holds D is W / (1 + D s), s = (5 / 10^R)^2 / (sum D^2 / sum D);
    a cell and its conjugate are one. A taper multiplies it by the transform of a Gaussian of that FWHM. The image's variance is variance x sum w^2/W / (sum w)^2.
    """
    reach = (
        data.longest_m
        * max(float(part.frequencies_hz[-1]) for part in data.sets)
        / SPEED_OF_LIGHT_M_S
        * width_rad
    )
    half = int(reach) + 2
    density = np.zeros((half, 2 * half))
    scaled = [part.frequencies_hz / SPEED_OF_LIGHT_M_S for part in data.sets]
    for part, per_light in zip(data.sets, scaled, strict=True):
        kernels.grid_weights(part.uvw_m, per_light, part.weight, width_rad, density)
    squared = (ROBUST_BASE * 10.0**-robust) ** 2 * float(density.sum() / np.sum(density**2))
    made: list[Singles] = []
    for part, per_light in zip(data.sets, scaled, strict=True):
        weight = np.empty_like(part.weight)
        kernels.briggs(
            part.uvw_m,
            per_light,
            part.weight,
            width_rad,
            density,
            (squared, _falling(taper_rad)),
            weight,
        )
        made.append(weight)
    return _summary(data, tuple(made))


def _falling(taper_rad: float) -> float:
    """Return a of exp(-a (u^2 + v^2)), u and v in wavelengths, the transform of a Gaussian of unit area and this FWHM."""
    return float((np.pi * taper_rad) ** 2 / (4 * np.log(2)))


def _summary(data: Averaged, weights: tuple[Singles, ...]) -> ImagingWeights:
    total = natural = spread = moment = 0.0
    for part, weight in zip(data.sets, weights, strict=True):
        by_channel = weight.sum(axis=0, dtype=np.float64)
        total += float(by_channel.sum())
        moment += float(by_channel @ part.frequencies_hz)
        natural += float(part.weight.sum(dtype=np.float64))
        known = part.weight > 0
        spread += float(np.sum(weight[known].astype(np.float64) ** 2 / part.weight[known]))
    sigma = np.sqrt(data.variance_jy2)
    return ImagingWeights(
        weights,
        moment / total,
        float(sigma / np.sqrt(natural)),
        float(sigma * np.sqrt(spread) / total),
    )


def half_power_beam(data: Averaged, weights: ImagingWeights) -> tuple[float, float, float]:
    """Return the ellipse through the half-power points of the PSF: major and minor axis (FWHM, rad) and position angle (rad).

    From the Fourier sum over a sample of the visibilities, so that it is there before the PSF is. It is the restoring beam, too: a
    Gaussian fitted to a PSF with deep sidelobes is narrower than its main lobe, and components between pixels then lose flux.
    """
    u, v, heavy = _sample(data, weights)
    angle = np.linspace(0, np.pi, ANGLES, endpoint=False)
    if not np.average(u**2 + v**2, weights=heavy) > 0:
        raise BadImageError(
            "weights", "expected a PSF with a main lobe, found no baseline.", NO_LOBE
        )
    radius = np.array([_half_power(np.sin(a) * u + np.cos(a) * v, heavy) for a in angle])
    # 1 / r^2 = a sin^2 + 2 b sin cos + c cos^2 along the position angle.
    terms = np.stack(
        [np.sin(angle) ** 2, 2 * np.sin(angle) * np.cos(angle), np.cos(angle) ** 2], axis=1
    )
    a, b, c = np.linalg.lstsq(terms * radius[:, None] ** 2, np.ones(ANGLES))[0]
    values, vectors = np.linalg.eigh(np.array([[a, b], [b, c]]))
    if not values[0] > 0:
        raise BadImageError("weights", "expected a PSF with a main lobe, found none.", NO_LOBE)
    east, north = vectors[:, 0]
    return (
        float(2 / np.sqrt(values[0])),
        float(2 / np.sqrt(values[1])),
        float(np.arctan2(east, north) % np.pi),
    )


def _half_power(along: Floats, heavy: Floats) -> float:
    """Return the radius at which the PSF first falls to one half in one direction; `along` are its spatial frequencies."""
    spread = np.sqrt(np.average(along**2, weights=heavy))
    # A Gaussian of this spread falls to one half at 0.19 / spread; a PSF with wings later.
    radius = np.linspace(0, 1.5 / spread, STEPS_TO_HALF)
    before = 1.0
    for inner, outer in pairwise(radius):
        here = float(np.average(np.cos(2 * np.pi * outer * along), weights=heavy))
        if here < 0.5:  # noqa: PLR2004 - one half
            return float(np.interp(0.5, [here, before], [outer, inner]))
        before = here
    return float(radius[-1])


def _sample(data: Averaged, weights: ImagingWeights) -> tuple[Floats, Floats, Floats]:
    """Return u, v (wavelengths) and weights of some visibilities."""
    parts = []
    whole = sum(weight.size for weight in weights.of_set)
    for part, weight in zip(data.sets, weights.of_set, strict=True):
        chosen = np.arange(0, weight.size, max(1, whole // SAMPLES) | 1)
        row, channel = np.unravel_index(chosen, weight.shape)
        per_light = part.frequencies_hz[channel] / SPEED_OF_LIGHT_M_S
        parts.append(
            (
                part.uvw_m[row, 0] * per_light,
                part.uvw_m[row, 1] * per_light,
                weight[row, channel].astype(np.float64),
            )
        )
    u, v, heavy = (np.concatenate(column) for column in zip(*parts, strict=True))
    return u, v, heavy
