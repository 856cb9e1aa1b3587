"""The pixel grid of an image: square, SIN projection about the phase centre, ICRS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contimg.astro.coordinates import direction_cosines

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Complexes = npt.NDArray[np.complex64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ARCSEC_RAD = float(np.radians(1 / 3600))


@dataclass(frozen=True)
class Frame:
    """Where the pixels are; the phase centre is pixel (size / 2, size / 2), counted from zero."""

    ra_deg: float
    dec_deg: float
    size: int
    """Width and height, pixels."""
    cell_arcsec: float

    @property
    def cell_deg(self) -> float:
        """Width of a pixel, degrees."""
        return self.cell_arcsec / 3600

    @property
    def cell_rad(self) -> float:
        """Width of a pixel, radians."""
        return float(np.radians(self.cell_deg))

    def pixels(self, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return x (towards decreasing RA) and y of ICRS positions, counted from zero.

        Positions more than 90 degrees from the phase centre get NaN.
        """
        centre = np.radians(self.ra_deg), np.radians(self.dec_deg)
        east, north, towards = direction_cosines(np.radians(ra_deg), np.radians(dec_deg), *centre)
        visible, middle = towards > -1, self.size // 2
        x, y = middle - east / self.cell_rad, middle + north / self.cell_rad
        return np.where(visible, x, np.nan), np.where(visible, y, np.nan)

    def cosines(self, x: Floats, y: Floats) -> Floats:
        """Return l, m, n - 1 about the phase centre, shape (N, 3), of pixel positions."""
        middle = self.size // 2
        east, north = -(x - middle) * self.cell_rad, (y - middle) * self.cell_rad
        towards = -(east**2 + north**2) / (1 + np.sqrt(1 - east**2 - north**2))
        return np.stack([east, north, towards], axis=-1)

    def inside(self, x: Floats, y: Floats, margin: float) -> Mask:
        """Return which pixel positions are at least `margin` pixels away from the edge."""
        last = self.size - 1 - margin
        return np.asarray((x >= margin) & (y >= margin) & (x <= last) & (y <= last))

    def axis_cards(self, *further: tuple[str, float, float, float, str]) -> dict[str, str | float]:
        """Return the FITS cards of the celestial and `further` axes.

        An axis is its CTYPE, CRPIX, CRVAL, CDELT and CUNIT.
        """
        middle = float(self.size // 2 + 1)
        ra = ("RA---SIN", middle, self.ra_deg, -self.cell_deg, "deg")
        dec = ("DEC--SIN", middle, self.dec_deg, self.cell_deg, "deg")
        cards: dict[str, str | float] = {}
        for n, axis in enumerate((ra, dec, *further), 1):
            names = (f"CTYPE{n}", f"CRPIX{n}", f"CRVAL{n}", f"CDELT{n}", f"CUNIT{n}")
            cards |= zip(names, axis, strict=True)
        return cards


def interpolate_mesh(mesh: Floats, nodes: Floats, positions: Floats, degree: int) -> Singles:
    """Interpolate a mesh by splines along both axes, to shape (m, m).

    The mesh, shape (n, n), has one value at each pair of the ascending nodes, shape (n,). The
    positions, shape (m,), are coordinates along both axes; beyond the nodes the outermost value is
    used. The degree is 1 or 3 (not-a-knot).
    """
    from scipy.interpolate import make_interp_spline

    # A spline is linear in its values. With its basis as a matrix, the plane is two matrix
    # products, 20 times faster than point by point.
    spline = make_interp_spline(nodes, np.eye(nodes.size), k=degree)
    basis = spline(np.clip(positions, nodes[0], nodes[-1]))
    return np.asarray((basis @ mesh).astype(np.float32) @ basis.T.astype(np.float32), np.float32)
