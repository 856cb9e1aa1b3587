"""The grid of an image: square, SIN projection about the phase centre, ICRS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.coordinates import direction_cosines

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """Where the pixels of an image are; the phase centre is pixel (size / 2, size / 2), counted from zero."""

    ra_deg: float
    dec_deg: float
    size: int
    cell_arcsec: float

    @property
    def cell_deg(self) -> float:
        """Pixel, degrees."""
        return self.cell_arcsec / 3600

    @property
    def cell_rad(self) -> float:
        """Pixel, radians."""
        return float(np.radians(self.cell_deg))

    @property
    def radius_deg(self) -> float:
        """Distance of the corners from the centre, degrees."""
        return float(self.size * self.cell_deg / np.sqrt(2))

    def pixels(self, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return x (towards decreasing RA) and y of ICRS positions, counted from zero; a direction behind gets NaN."""
        east, north, towards = direction_cosines(
            np.radians(ra_deg),
            np.radians(dec_deg),
            np.radians(self.ra_deg),
            np.radians(self.dec_deg),
        )
        before = towards > -1
        middle = self.size // 2
        x, y = middle - east / self.cell_rad, middle + north / self.cell_rad
        return np.where(before, x, np.nan), np.where(before, y, np.nan)

    def inside(self, x: Floats, y: Floats, margin: float = 0.0) -> npt.NDArray[np.bool_]:
        """Say which positions are in the image, a margin in pixels away from its edge."""
        last = self.size - 1 - margin
        return np.asarray((x >= margin) & (y >= margin) & (x <= last) & (y <= last))
