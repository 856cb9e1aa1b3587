"""The restoring beam on the pixel grid, and how well it measures in correlated noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from contimg.records.images import SkyImage
    from contimg_photometry.noise import Correlation

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BeamProfile:
    """A beam exp(−(a dx² + 2 b dx dy + c dy²)) in pixels."""

    form: tuple[float, float, float]
    """a, b, c, pixel⁻²."""
    major: float
    """Full width at half maximum, pixels."""
    minor: float

    def at(self, dx: Floats, dy: Floats) -> Floats:
        """Return the beam at offsets in pixels."""
        a, b, c = self.form
        return np.asarray(np.exp(-(a * dx * dx + 2 * b * dx * dy + c * dy * dy)))


def profile_of(image: SkyImage) -> BeamProfile:
    """Return an image's restoring beam in its pixels."""
    cell_x, cell_y = image.cell_deg
    cell = np.sqrt(abs(cell_x * cell_y))
    return BeamProfile(
        image.beam.form(cell_x, cell_y), image.beam.major_deg / cell, image.beam.minor_deg / cell
    )


def single_errors(
    beam: BeamProfile, radius: float, noise: Correlation
) -> tuple[float, tuple[float, float]]:
    """Return the 1 sigma errors of a single source's fit for unit noise.

    Returns
    -------
    tuple
        Error of the amplitude at a fixed position, and errors of x and y (pixels) for a source of unit amplitude.

    Notes
    -----
    For the least-squares solution (GᵀG)⁻¹ Gᵀ I the covariance is (GᵀG)⁻¹ Gᵀ R G (GᵀG)⁻¹, R being the noise's correlation.
    """
    reach = int(np.ceil(radius))
    line = np.arange(-reach, reach + 1, dtype=np.float64)
    dx, dy = np.meshgrid(line, line)
    a, b, c = beam.form
    value = np.where(np.hypot(dx, dy) <= radius, beam.at(dx, dy), 0.0)
    design = np.stack([value, 2 * (a * dx + b * dy) * value, 2 * (b * dx + c * dy) * value])
    flat = design.reshape(3, -1)
    between = noise.covariance(design)
    inverse = np.linalg.inv(flat @ flat.T)
    error = np.sqrt(np.maximum(np.diag(inverse @ between @ inverse), 0.0))
    amplitude = float(np.sqrt(max(between[0, 0], 0.0)) / (value**2).sum())
    return amplitude, (float(error[1]), float(error[2]))
