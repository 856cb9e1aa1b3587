"""The primary beam of a dish as data: a model, a table or a map, with an offset and widths."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from contimg.astro.beam_text import DEFAULT_BEAM, parse_model
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.runtime.errors import BadInputError

FloatArray = npt.NDArray[np.float64]

MAX_SERIES_X = 1e-4
"""The x below which 1 - x^2/4 is the Airy pattern to every digit."""
AIRY_NULL = 1.22
"""First null of the Airy pattern in wavelengths over diameters."""
NULL_LEVEL = 1e-3
"""Where a beam without a null first falls to this, it ends."""
BAND_HZ = 1.405e9
"""Middle of the band: where a width that has no frequency is noted."""
SEARCH_DEG = np.linspace(0.0, 20.0, 20_001)
"""Radii among which a level is searched."""


@dataclass(frozen=True, eq=False)
class BeamMap:
    """A measured or computed power pattern on a grid of directions."""

    level: FloatArray
    """Shape (F, ny, nx), 1 on the axis."""
    freq_hz: FloatArray
    """Shape (F,), ascending. A single plane is scaled with wavelength."""
    cell_rad: tuple[float, float]
    """Signed steps of l (east) and m (north) along x and y."""
    axis_px: tuple[float, float]
    """Zero-based x and y of the pointing."""

    @functools.cached_property
    def splines(self) -> list[FloatArray]:
        """Coefficients of each plane for cubic interpolation."""
        from scipy.ndimage import spline_filter  # slow to import

        return [np.asarray(spline_filter(plane)) for plane in self.level]

    def sample(self, east: FloatArray, north: FloatArray, freq_hz: FloatArray) -> FloatArray:
        """Return levels at directions l, m (rad) and frequencies (Hz), of one shape; 0 outside."""
        from scipy.ndimage import map_coordinates

        # Beyond the planes' frequencies the pattern scales with wavelength.
        near_hz = np.clip(freq_hz, self.freq_hz[0], self.freq_hz[-1])
        place = [
            axis + offset * (freq_hz / near_hz) / cell
            for axis, offset, cell in zip(self.axis_px, (east, north), self.cell_rad, strict=True)
        ]
        level = np.zeros(east.shape)
        for number, coefficients in enumerate(self.splines):
            at_plane = np.eye(self.freq_hz.size)[number]
            weight = np.interp(near_hz, self.freq_hz, at_plane)
            if weight.any():
                level += weight * map_coordinates(coefficients, place[::-1], prefilter=False)
        return level


@dataclass(frozen=True, eq=False)
class PrimaryBeam:
    """The power pattern of one dish, 1 on its axis; made by `beam_files.read_beam`."""

    name: str
    """The model's text; for a file that says more, with the beginning of its sha256. Beams of one
    name are one beam."""
    kind: Literal["airy", "gaussian", "uniform", "table", "map"]
    diameter_m: float = 0.0
    """Of an unblocked, uniformly lit circular aperture (airy)."""
    fwhm_deg_ghz: float = 0.0
    """Full width at half maximum times frequency (gaussian)."""
    offset_deg: tuple[float, float] = (0.0, 0.0)
    """East and north of the beam's axis from the direction to which the telescope is pointed."""
    widths: tuple[tuple[float, float], ...] = ()
    """Frequency (Hz, ascending) and factor on the width; linear between, constant beyond."""
    table: tuple[tuple[float, float], ...] = ()
    """Radius times frequency (deg GHz, ascending) and level; 0 beyond the last."""
    planes: BeamMap | None = None
    errors: tuple[float, float, float] | None = None
    """1 sigma of the width (relative), of the offset east and north (deg); None: not measured."""

    def level(self, offset: FloatArray, freq_hz: npt.ArrayLike) -> FloatArray:
        """Return the pattern in some directions at some frequencies.

        `offset`, shape (..., 3), are unit vectors towards them minus that of the pointing, with
        axes to the east, to the north and to the pointing: l, m, n - 1. A small angle between
        those axes and the sky's own is allowed. `freq_hz` broadcasts with shape (...).
        """
        if self.kind == "uniform":
            return np.ones(np.broadcast_shapes(offset.shape[:-1], np.shape(freq_hz)))
        away = offset - self.axis
        angle = 2 * np.arcsin(np.clip(np.linalg.norm(away, axis=-1) / 2, 0, 1))
        if self.planes is None:
            return self.at_radius(angle, freq_hz)
        frequency, angle = np.broadcast_arrays(np.asarray(freq_hz, np.float64), angle)
        scale = 1 / self.width_factor(frequency)
        east, north = (np.broadcast_to(away[..., i], angle.shape) * scale for i in (0, 1))
        front = angle < np.pi / 2
        return np.where(front, self.planes.sample(east, north, frequency), 0.0)

    def at_radius(self, radius_rad: npt.ArrayLike, freq_hz: npt.ArrayLike) -> FloatArray:
        """Return the pattern at an angle from the beam's axis (a map's: to the north).

        Airy: (2 J1(x) / x)^2 with x = pi D sin(angle) / wavelength, a uniformly lit circular
        aperture (Born & Wolf, 8.5.2). The arguments broadcast.
        """
        frequency, radius = np.asarray(freq_hz, np.float64), np.abs(radius_rad)
        # The formulae do not hold behind the dish.
        radius = np.where(radius < np.pi / 2, radius, np.pi / 2)
        if self.kind == "uniform":
            return np.ones(np.broadcast_shapes(radius.shape, frequency.shape))
        width = self.width_factor(frequency)
        if self.kind == "airy":
            from scipy.special import j1  # slow to import, and options and watch do without

            scale = np.pi * self.diameter_m / SPEED_OF_LIGHT_M_S
            x = scale * frequency * np.sin(radius) / width
            central = x < MAX_SERIES_X  # where the quotient is 0/0
            safe = np.where(central, 1.0, x)
            return np.asarray(np.where(central, 1.0 - x**2 / 4, (2 * j1(safe) / safe) ** 2))
        scaled = np.degrees(radius) * frequency / 1e9 / width
        if self.kind == "gaussian":
            return np.asarray(np.exp(-4 * np.log(2) * (scaled / self.fwhm_deg_ghz) ** 2))
        if self.planes is not None:
            shape = np.broadcast_shapes(radius.shape, frequency.shape)
            north = np.broadcast_to(np.sin(radius) / width, shape)
            return self.planes.sample(np.zeros(shape), north, np.broadcast_to(frequency, shape))
        return np.where(scaled <= self.table[-1][0], self._table_spline(scaled), 0.0)

    @functools.cached_property
    def axis(self) -> FloatArray:
        """Offset of the beam's axis from the pointing, l, m, n - 1."""
        east, north = np.sin(np.radians(self.offset_deg))
        return np.array([east, north, np.sqrt(1 - east**2 - north**2) - 1])

    @functools.cached_property
    def _table_spline(self) -> Callable[[FloatArray], FloatArray]:
        from scipy.interpolate import PchipInterpolator

        radius, level = zip(*self.table, strict=True)
        spline: Callable[[FloatArray], FloatArray] = PchipInterpolator(radius, level)
        return spline

    def width_factor(self, freq_hz: FloatArray) -> FloatArray:
        """Return the factor on the model's width, of the shape of `freq_hz`."""
        if not self.widths:
            return np.ones(np.shape(freq_hz))
        known_hz, factor = zip(*self.widths, strict=True)
        return np.asarray(np.interp(freq_hz, known_hz, factor))

    def changed(self, width: float = 1.0, east_deg: float = 0.0, north_deg: float = 0.0) -> Self:
        """Return this beam with its width times a factor, and its axis moved."""
        widths = self.widths or ((BAND_HZ, 1.0),)
        return replace(
            self,
            name=f"{self.name}, changed",
            widths=tuple((freq_hz, factor * width) for freq_hz, factor in widths),
            offset_deg=(self.offset_deg[0] + east_deg, self.offset_deg[1] + north_deg),
        )

    def radius_rad(self, level: float, freq_hz: float) -> float:
        """Return the radius at which the beam first falls to a level; the largest one if never."""
        radius = np.radians(SEARCH_DEG)
        found = self.at_radius(radius, freq_hz)
        first = int(np.argmax(found <= level))
        if not first:
            return float(radius[-1] if found[0] > level else 0.0)
        inner, outer = found[first - 1], found[first]
        return float(np.interp(-level, [-inner, -outer], radius[first - 1 : first + 1]))

    def null_rad(self, freq_hz: float) -> float:
        """Return the radius of the first null, or where a beam without one ends."""
        if self.kind == "airy":
            width = float(self.width_factor(np.array(freq_hz)))
            return AIRY_NULL * SPEED_OF_LIGHT_M_S / (self.diameter_m * freq_hz) * width
        return self.radius_rad(NULL_LEVEL, freq_hz)

    def dump(self) -> dict[str, Any]:
        """Return the beam as JSON holds it; `load` reads it."""
        whole = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.planes is not None:
            names = (one.name for one in fields(self.planes))
            whole["planes"] = {
                name: np.asarray(getattr(self.planes, name)).tolist() for name in names
            }
        return whole

    @classmethod
    def load(cls, whole: dict[str, Any]) -> Self:
        """Return the beam that `dump` wrote."""
        pairs: dict[str, Any] = {
            name: tuple(map(tuple, whole[name])) for name in ("widths", "table")
        }
        planes = whole["planes"] and BeamMap(
            level=np.array(whole["planes"]["level"], np.float64),
            freq_hz=np.array(whole["planes"]["freq_hz"], np.float64),
            cell_rad=tuple(whole["planes"]["cell_rad"]),
            axis_px=tuple(whole["planes"]["axis_px"]),
        )
        offset_deg, errors = tuple(whole["offset_deg"]), whole.get("errors")
        pairs |= {"offset_deg": offset_deg, "errors": errors and tuple(errors)}
        return cls(**{**whole, **pairs, "planes": planes})


def model_beam(text: str = DEFAULT_BEAM) -> PrimaryBeam | None:
    """Return the beam of a model's text; None if it has not the form of one.

    Raises BadInputError for a model that no dish of 5 m could have.
    """
    try:
        model = parse_model(text)
    except ValueError as error:
        problem = f"Such a beam is not possible: {error}."
        raise BadInputError(text, problem, "Correct the number or its unit.") from error
    if model is None:
        return None
    return PrimaryBeam(
        name=model.text,
        kind=model.kind,
        diameter_m=model.diameter_m,
        fwhm_deg_ghz=model.fwhm_deg_ghz,
    )


def check_same_beam(where: str, made_with: str, beam: str, *, allowed: bool) -> None:
    """Raise BadInputError if a calibration was made with another beam than is to be used now.

    Its flux scale is right for its own beam alone: 5 % of width are 20 % of a flux far out.
    """
    if made_with != beam and not allowed:
        problem = f"The calibration was made with the primary beam {made_with}, not {beam}."
        remedy = "Use one beam for all stages, calibrate again, or give --other-beam."
        raise BadInputError(where, problem, remedy)
