"""The simulated sky: catalogue sources, flux standards and user lists, with their light curves."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import erfa
import numpy as np
import numpy.typing as npt
from numpy.polynomial.polynomial import polyval
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from contimg.astro import counts
from contimg.astro.catalogues import nvss as catalogue
from contimg.records.groups import mjd_of
from contimg.runtime.errors import BadInputError
from contimg.runtime.unique_names import read_csv, read_json
from contimg_simulate.options import SimulateOptions
from contimg_simulate.telescope import MJD_ZERO, Floats, unit_vectors

REFERENCE_HZ = 1.4e9
"""Frequency of a list's fluxes, of NVSS's, and of a lens's strength."""
MATCH_RADIUS_DEG = 60 / 3600
"""A catalogue row nearer than this to a standard or to a listed source is that source."""
SPECTRAL_INDEX, SPECTRAL_SPREAD = -0.7, 0.2
"""Mean and scatter of the spectral indices that catalogue sources are given, S ~ nu^alpha."""
FAINT_SPREAD, CURVATURE_SPREAD = 0.3, 0.1
"""Scatter of the spectral indices and curvatures of sources drawn from the count."""
NVSS_LIMIT_JY = 0.05
"""The shipped NVSS list ends here, and the drawn sources begin."""
COUNTS, EFFECTS_STREAM = 17, 18
"""Streams of random numbers."""
LENS_DAY, FLARE_DAY = 100.0, 75.0
"""Days after the demo's first epoch: late enough that ten quiet epochs come before."""
STANDARDS: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "3C48": (24.42208095, 33.15975916, (1.3253, -0.7553, -0.1914, 0.0498)),
    "3C147": (85.65057467, 49.85200943, (1.4516, -0.6961, -0.2007, 0.0640, -0.0464, 0.0289)),
    "3C196": (123.40023, 48.21739, (1.2872, -0.8530, -0.1534, -0.0200, 0.0201)),
    "3C286": (202.78453333, 30.50915556, (1.2481, -0.4507, -0.1798, 0.0357)),
    "3C295": (212.8355, 52.20277, (1.4701, -0.7658, -0.2780, -0.0347, 0.0399)),
}
"""ICRS position (deg) and log10 S(Jy) as a polynomial in log10 nu(GHz): Perley & Butler 2017, ApJS
230, 7, table 6."""


A_TEAM: dict[str, tuple[float, float, tuple[float, ...], float]] = {
    "Cas A": (350.8664, 58.8117, (3.3584, -0.7518, -0.0347, -0.0705), 230.0),
    "Cyg A": (299.8682, 40.7339, (3.3498, -1.0022, -0.2246, 0.0227, 0.0425), 90.0),
    "Tau A": (83.6331, 22.0145, (2.9516, -0.2173, -0.0473, -0.0674), 240.0),
    "Vir A": (187.7059, 12.3911, (2.4466, -0.8116, -0.0483), 40.0),
}
"""ICRS position (deg), spectrum as of the standards, and the full width (arcsec) of a Gaussian."""
DRAWN_PREFIXES = ("NVSS ", "F+", "F-")
"""Names of sources of the catalogue and of the count."""


class Steady(BaseModel, frozen=True, extra="forbid"):
    """A flux that never changes."""

    kind: Literal["steady"] = "steady"

    def factor(self, _mjd: float, frequency_hz: Floats) -> Floats:
        """Return the flux over its quiet value, one per frequency."""
        return np.ones_like(frequency_hz)


class Flare(BaseModel, frozen=True, extra="forbid"):
    """An intrinsic flare: exponential rise and slower fall, alike at all frequencies."""

    kind: Literal["flare"] = "flare"
    peak_mjd: float
    amplitude: float = Field(default=0.6, gt=-1)
    """Rise at the peak over the quiet flux."""
    rise_days: float = Field(default=5.0, gt=0)
    decay_days: float = Field(default=12.0, gt=0)

    def factor(self, mjd: float, frequency_hz: Floats) -> Floats:
        """Return the flux over its quiet value, one per frequency."""
        since = mjd - self.peak_mjd
        shape = np.exp(since / self.rise_days) if since < 0 else np.exp(-since / self.decay_days)
        return np.full_like(frequency_hz, 1 + self.amplitude * shape)


class Lens(BaseModel, frozen=True, extra="forbid"):
    """A one-dimensional Gaussian plasma lens (Clegg, Fey & Lazio 1998, ApJ 496, 253)."""

    kind: Literal["lens"] = "lens"
    centre_mjd: float
    """When the lens is in front of the source."""
    crossing_days: float = Field(default=13.0, gt=0)
    """Time in which the lens moves by its own 1/e half-width."""
    strength: float = Field(default=1.2, gt=0)
    """Their alpha at 1.4 GHz; it goes with the wavelength squared."""
    source_size: float = Field(default=0.3, gt=0)
    """Gaussian sigma of the source in units of the lens's half-width; smooths the caustics."""

    def factor(self, mjd: float, frequency_hz: Floats) -> Floats:
        """Return the flux over its unlensed value, one per frequency."""
        offset = (mjd - self.centre_mjd) / self.crossing_days
        strength = self.strength * (REFERENCE_HZ / frequency_hz) ** 2
        return lens_gain(np.full_like(frequency_hz, offset), strength, self.source_size)


class Wander(BaseModel, frozen=True, extra="forbid"):
    """Intrinsic variation: one factor per UTC day, alike at all frequencies."""

    kind: Literal["wander"] = "wander"
    rms: float = Field(default=0.2, ge=0)
    """Of the natural logarithm of the flux."""
    seed: int = Field(default=0, ge=0)

    def factor(self, mjd: float, frequency_hz: Floats) -> Floats:
        """Return the flux over its median, one per frequency."""
        draw = np.random.default_rng([self.seed, math.floor(mjd)]).normal()
        return np.full_like(frequency_hz, np.exp(self.rms * draw))


Curve = Annotated[Steady | Flare | Lens | Wander, Field(discriminator="kind")]


def lens_gain(offset: Floats, strength: Floats, source_size: float) -> Floats:
    """Return the magnification of a Gaussian source behind a one-dimensional Gaussian plasma lens.

    `offset`, shape (N,), is the distance of the source from the lens's axis and `source_size` its
    sigma, both in units of the lens's half-width; `strength`, (N,), is the lens's alpha.

    A ray that crosses the lens plane at u comes from u' = u (1 + alpha exp(-u^2)) (their equation
    6). The sum over images of gain times brightness (their equation 10) is the integral over u of
    the source's brightness at u', which has no caustics to step over.
    """
    reach = np.abs(offset).max() + 12 * source_size + 1
    step = source_size / 40
    rays = np.arange(-reach, reach + step, step)
    origin = rays * (1 + strength[:, None] * np.exp(-(rays**2)))
    brightness = np.exp(-0.5 * ((origin - offset[:, None]) / source_size) ** 2)
    return np.asarray(brightness.sum(axis=1) * step / (source_size * np.sqrt(2 * np.pi)))


class SkySource(BaseModel, frozen=True, extra="forbid"):
    """A source: a point or a Gaussian."""

    name: str
    ra_deg: float = Field(ge=0, lt=360)
    """ICRS."""
    dec_deg: float = Field(ge=-90, le=90)
    flux_jy: float = Field(ge=0)
    """At 1.4 GHz, when quiet."""
    alpha: float = 0.0
    """Spectral index, S ~ nu^alpha."""
    curvature: float = 0.0
    """Change of the spectral index per unit of ln(nu)."""
    polynomial: tuple[float, ...] = ()
    """If given, the spectrum is this polynomial (log10 Jy in log10 GHz) instead of a power law."""
    curve: Curve = Steady()
    major_arcsec: float = Field(default=0.0, ge=0)
    """Full width at half maximum; 0 is a point."""
    minor_arcsec: float = Field(default=0.0, ge=0)
    pa_deg: float = 0.0
    """Position angle of the major axis, north through east."""
    polarisation: float = Field(default=0.0, ge=-1, le=1)
    """(XX - YY) / (XX + YY)."""
    sidelobe: float = Field(default=0.0, ge=0)
    """If given, the source is seen at this level, wherever it stands, and not through the beam."""

    def spectrum_jy(self, frequency_hz: Floats, mjd: float) -> Floats:
        """Return the flux at each frequency at a UTC date."""
        if self.polynomial:
            quiet = 10 ** polyval(np.log10(frequency_hz / 1e9), self.polynomial)
        else:
            log_nu = np.log(frequency_hz / REFERENCE_HZ)
            quiet = self.flux_jy * np.exp((self.alpha + self.curvature / 2 * log_nu) * log_nu)
        return np.asarray(quiet * self.curve.factor(mjd, frequency_hz))


class DrawnSources(NamedTuple):
    """Sources from the count, one element each in every array."""

    name: npt.NDArray[Any]
    ra_deg: Floats
    dec_deg: Floats
    flux_jy: Floats
    """At 1.4 GHz."""
    alpha: Floats
    curvature: Floats

    def sources(self, keep: npt.NDArray[np.bool_]) -> list[SkySource]:
        """Return those of a mask as sources."""
        rows = zip(*(column[keep].tolist() for column in self), strict=True)
        return [SkySource(**dict(zip(self._fields, row, strict=True))) for row in rows]


def standards() -> list[SkySource]:
    """Return the flux standards as sources."""
    made = []
    for name, (ra, dec, spectrum) in STANDARDS.items():
        flux = 10 ** float(polyval(np.log10(REFERENCE_HZ / 1e9), spectrum))
        made.append(SkySource(name=name, ra_deg=ra, dec_deg=dec, flux_jy=flux, polynomial=spectrum))
    return made


def demo_variables(options: SimulateOptions) -> list[SkySource]:
    """Return two NVSS sources of the demo's target field: one behind a lens, one that flares."""
    start = mjd_of(datetime.fromisoformat(options.date).replace(tzinfo=UTC))
    rows = (
        ("NVSS J023312+325651", 38.30157, 32.94762, 0.148, -0.1, Lens(centre_mjd=start + LENS_DAY)),
        ("NVSS J023556+330517", 38.98424, 33.08807, 0.123, -0.2, Flare(peak_mjd=start + FLARE_DAY)),
    )
    return [
        SkySource(name=name, ra_deg=ra, dec_deg=dec, flux_jy=flux, alpha=alpha, curve=curve)
        for name, ra, dec, flux, alpha, curve in rows
    ]


def nvss(ra_deg: float, dec_deg: float, radius_deg: float, seed: int) -> list[SkySource]:
    """Return NVSS sources around a position; spectral indices depend on position and seed alone."""
    rows = catalogue().within(ra_deg, dec_deg, radius_deg)
    made = []
    for name, *values in zip(rows.name, rows.ra_deg, rows.dec_deg, rows.flux_jy, strict=True):
        ra, dec, flux = map(float, values)
        rng = np.random.default_rng([seed, 7, round(ra * 1e4), round((dec + 90) * 1e4)])
        alpha = round(float(rng.normal(SPECTRAL_INDEX, SPECTRAL_SPREAD)), 3)
        made.append(SkySource(name=str(name), ra_deg=ra, dec_deg=dec, flux_jy=flux, alpha=alpha))
    return made


def draw_counts(
    ra_deg: float, dec_deg: float, radius_deg: float, seed: int, faintest_jy: float
) -> DrawnSources:
    """Draw the sources below the shipped NVSS list, from the source count, around a position.

    A cell of the sky, 1 degree high, and a factor of two in flux have random numbers of their own:
    groups of one seed share their sources, whatever their pointings and faintest fluxes.
    """
    columns = []
    for row in range(math.floor(dec_deg - radius_deg), math.floor(dec_deg + radius_deg) + 1):
        if -90 <= row < 90:  # noqa: PLR2004 - the poles
            number = math.ceil(360 * math.cos(math.radians(row + 0.5)))
            equator = max(abs(row), abs(row + 1))
            reach = radius_deg / max(math.cos(math.radians(min(equator, 89.9))), 1e-3)
            half = min(math.ceil(reach * number / 360), number // 2)
            middle = math.floor(ra_deg * number / 360)
            cells = sorted({k % number for k in range(middle - half, middle + half + 1)})
            columns += [_draw_cell(seed, row, cell, number, faintest_jy) for cell in cells]
    return DrawnSources(*(np.concatenate(column) for column in zip(*columns, strict=True)))


@functools.lru_cache(maxsize=4096)
def _draw_cell(seed: int, row: int, cell: int, cells: int, faintest_jy: float) -> DrawnSources:
    """Draw the sources of a cell: a row is 1 degree of Declination and has so many cells."""
    low, high = np.sin(np.radians([row, row + 1]))
    area_deg2 = math.degrees(1) * float(high - low) * 360 / cells
    parts, flux_high, octave = [], NVSS_LIMIT_JY, 0
    while flux_high > faintest_jy:
        flux_low = max(flux_high / 2, counts.MIN_JY)
        rng = np.random.default_rng([seed, COUNTS, row + 90, cell, octave])
        number = int(rng.poisson(area_deg2 * counts.count_per_deg2(flux_low, flux_high)))
        flux = counts.draw_fluxes(rng, number, flux_low, flux_high)
        ra = (cell + rng.uniform(size=number)) * 360 / cells
        dec = np.degrees(np.arcsin(rng.uniform(low, high, number)))
        alpha = rng.normal(SPECTRAL_INDEX, FAINT_SPREAD, number)
        name = np.array([f"F{row:+03d}.{cell:03d}.{octave}{k:03d}" for k in range(number)], object)
        curvature = rng.normal(0, CURVATURE_SPREAD, number)
        keep = flux >= faintest_jy
        parts.append([column[keep] for column in (name, ra, dec, flux, alpha, curvature)])
        flux_high, octave = flux_low, octave + 1
    return DrawnSources(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def apply_effects(
    sources: Sequence[SkySource], effects: Mapping[str, tuple[float, ...]], seed: int
) -> list[SkySource]:
    """Make some sources resolved, variable or polarised; standards and listed sources stay.

    A source's draws depend on its name and the seed. Sizes follow Windhorst et al. 1990 (ASP Conf.
    10, 389): the median is 2 arcsec (S/mJy)^0.30, and a fraction exp(-ln 2 (size/median)^0.62) is
    larger. Variable and polarised sources are of the catalogue, so above 50 mJy.
    """
    changed = []
    for source in sources:
        rng = np.random.default_rng([seed, EFFECTS_STREAM, zlib.crc32(source.name.encode())])
        resolved, varies, polarised, size, ratio, angle, sign = rng.uniform(size=7).tolist()
        values: dict[str, Any] = {}
        if resolved < effects.get("resolved", (0.0,))[0]:
            median = 2.0 * (source.flux_jy * 1e3) ** 0.30
            major = median * (-math.log(1 - size) / math.log(2)) ** (1 / 0.62)
            values = {"major_arcsec": major, "minor_arcsec": major * (0.2 + 0.8 * ratio)}
            values |= {"pa_deg": 180 * angle}
        fraction, rms = effects.get("variable", (0.0, 0.0))
        if varies < fraction and source.flux_jy >= NVSS_LIMIT_JY and source.curve == Steady():
            values["curve"] = Wander(rms=rms, seed=zlib.crc32(source.name.encode()) ^ seed)
        fraction, degree = effects.get("polarised", (0.0, 0.0))
        if polarised < fraction and source.flux_jy >= NVSS_LIMIT_JY:
            values["polarisation"] = degree * math.cos(2 * math.pi * sign)
        is_drawn = source.name.startswith(DRAWN_PREFIXES)
        changed.append(source.model_copy(update=values) if is_drawn and values else source)
    return changed


def far_sources(effects: Mapping[str, tuple[float, ...]], mjd: float) -> list[SkySource]:
    """Return the Sun and the A-team, seen through far sidelobes at the levels asked for.

    A-team: Perley & Butler 2017, table 6. Sun: quiet, 50 sfu at 1.4 GHz, a Gaussian of its disc's
    second moment, at its place as seen from the Earth's centre.
    """
    found = []
    if "sun" in effects:
        to_sun = -np.asarray(erfa.epv00(MJD_ZERO, mjd)[0]["p"])
        ra, dec = np.degrees(erfa.c2s(to_sun))
        sun = {"flux_jy": 5e5, "major_arcsec": 1600.0, "minor_arcsec": 1600.0}
        sun |= {"ra_deg": float(ra % 360), "dec_deg": float(dec), "sidelobe": effects["sun"][0]}
        found.append(SkySource(name="Sun", **sun))
    for name, (ra_deg, dec_deg, spectrum, size) in A_TEAM.items():
        if "a-team" in effects:
            place = {"ra_deg": ra_deg, "dec_deg": dec_deg, "sidelobe": effects["a-team"][0]}
            flux = 10 ** float(polyval(np.log10(REFERENCE_HZ / 1e9), spectrum))
            wide = {"major_arcsec": size, "minor_arcsec": size}
            found.append(SkySource(name=name, flux_jy=flux, polynomial=spectrum, **place, **wide))
    return found


def merge_sources(first: Sequence[SkySource], others: Sequence[SkySource]) -> list[SkySource]:
    """Return `first`, and those of `others` that are not in it by position; sorted by name."""
    if first and others:
        # Hour angle is minus Right Ascension here; only angles between sources matter.
        one, two = (unit_vectors(-ra, dec) for ra, dec in map(positions_rad, (first, others)))
        match = np.max(two @ one.T, axis=1) >= np.cos(np.deg2rad(MATCH_RADIUS_DEG))
        others = [other for other, same in zip(others, match, strict=True) if not same]
    return sorted([*first, *others], key=lambda source: source.name)


def positions_rad(sources: Sequence[SkySource]) -> Floats:
    """Return ICRS RA and Dec, shape (2, N)."""
    places = np.array([(s.ra_deg, s.dec_deg) for s in sources], dtype=np.float64)
    return np.asarray(np.deg2rad(places.reshape(-1, 2)).T)


def read_sources(data: bytes, uri: str) -> list[SkySource]:
    """Read a list of sources: JSON (a list of objects) or CSV with a header line.

    Both have the fields of `SkySource`. A CSV's `curve` column holds JSON, such as
    ``{"kind": "flare", "peak_mjd": 61100}``; empty means steady.

    Raises
    ------
    BadInputError
        If it is neither, or a row is no valid source.
    """
    try:
        text = data.decode()
        if text.lstrip().startswith("["):
            rows: list[dict[str, Any]] = read_json(text)
        else:
            rows = [{key: v for key, v in row.items() if v} for row in read_csv(text)]
            rows = [r | {"curve": read_json(r["curve"])} if "curve" in r else r for r in rows]
        return TypeAdapter(list[SkySource]).validate_python(rows)
    except (ValueError, ValidationError) as error:
        columns = "name, ra_deg, dec_deg, flux_jy[, alpha, curve]"
        problem = f"The file is no JSON list or CSV of sources ({columns}): {error}."
        remedy = "Correct the list; docs/stages/simulate.md has an example."
        raise BadInputError(uri, problem, remedy) from error
