"""Radio catalogues: what lies where in the sky, how bright, and what of it calibrates.

NVSS above 50 mJy and the VLA calibrators are shipped; fuller catalogues are added with ``contimg catalogue add``.
Degrees and Jy; positions are ICRS (J2000 catalogues are taken as ICRS, which holds to 0.03 arcsec).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from contimg.astro.constants import NVSS_HZ
from contimg.astro.coordinates import apparent_hadec, icrs_of_hadec, separation_rad
from contimg.astro.standards import Standard, standard, standard_flux_jy
from contimg.astro.telescope import band_hz, primary_beam
from contimg.records.schemas.shipped import CATALOGUE, NVSS, VLA_CALIBRATORS
from contimg.runtime.errors import BadInputError
from contimg.runtime.store import split

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from contimg.astro.coordinates import Site

    FloatArray = npt.NDArray[np.float64]

__all__ = [
    "CalibratorInBeam",
    "Calibrators",
    "Catalogue",
    "Standard",
    "calibrators",
    "calibrators_in_beam",
    "load",
    "nvss",
    "source_names",
    "standard",
    "standard_flux_jy",
]

L_BAND_HZ, C_BAND_HZ = 1.4649e9, 4.8601e9
"""The VLA's default frequencies of 20 and 6 cm, when its list was made."""
GOOD_CODES = ("P", "S")
"""Closure errors below 3 and 10 %."""
NEVER = {
    "2253+161": "3C454.3 is a violently variable blazar: its flux in any list is of another day"
}
"""Calibrators of the VLA that are none here, with the reason."""
MIN_BEAM = 0.02
"""Mean beam below which a source is no calibrator: above the first sidelobe, whose peak is 0.0175."""
NEAR_DEG = 5.0
"""Farther away the beam is below MIN_BEAM at all frequencies of the band, by far."""
BEAM_SAMPLES = 13
"""Times and frequencies at which the beam is averaged; its mean is then right to 1e-4."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Sources, one element each in every array; make parts of it with `select` and `within`."""

    title: str
    freq_hz: float
    """Frequency of the fluxes; 0 if they are of several (then `freq` of the file has them)."""
    ra_deg: FloatArray
    dec_deg: FloatArray
    flux_jy: FloatArray
    """Integrated flux density; for the shipped NVSS the peak in Jy/beam (45 arcsec), which is all that it has."""
    peak_jy: FloatArray
    """Peak flux density, Jy/beam; NaN where unknown."""
    major_arcsec: FloatArray
    """Deconvolved major axis, FWHM; NaN where unknown."""
    spectral_index: FloatArray
    """NaN where unknown."""
    names: npt.NDArray[Any] | None = None
    """Names that the catalogue gives; `name` makes them from positions where it gives none."""

    def __len__(self) -> int:
        """Return the number of sources."""
        return int(self.ra_deg.size)

    @functools.cached_property
    def name(self) -> npt.NDArray[Any]:
        """Names of the sources."""
        if self.names is not None:
            return self.names
        return source_names(self.title, self.ra_deg, self.dec_deg)

    @functools.cached_property
    def unit_vectors(self) -> FloatArray:
        """Directions, shape (N, 3)."""
        return _unit_vectors(self.ra_deg, self.dec_deg)

    def select(self, which: npt.NDArray[Any]) -> Self:
        """Return the sources of a mask or of a list of indices."""
        per_source = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self,
            **{
                name: value[which]
                for name, value in per_source.items()
                if isinstance(value, np.ndarray)
            },
        )

    def within(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Self:
        """Return the sources nearer to a position than a radius (up to 180 deg), in the catalogue's order."""
        offset = self.unit_vectors - _unit_vectors(np.array([ra_deg]), np.array([dec_deg]))
        chord = 2 * np.sin(np.radians(min(radius_deg, 180.0)) / 2)
        return self.select(np.flatnonzero(np.einsum("ij,ij->i", offset, offset) <= chord**2))

    def separation_deg(self, ra_deg: float, dec_deg: float) -> FloatArray:
        """Return the distance of every source from a position."""
        away = separation_rad(
            np.radians(self.ra_deg),
            np.radians(self.dec_deg),
            np.radians(ra_deg),
            np.radians(dec_deg),
        )
        return np.degrees(away)


@dataclass(frozen=True, eq=False)
class Calibrators(Catalogue):
    """The VLA's calibrators that have a flux density at 20 cm."""

    alias: npt.NDArray[Any] = field(default_factory=lambda: np.array([], object))
    """3C name and the like, or empty."""
    code_c: npt.NDArray[Any] = field(default_factory=lambda: np.array([], object))
    """P, S, W, C, X, ? in the VLA's configuration C at 20 cm, whose longest baseline, 3.4 km, is nearest to ours."""
    code_d: npt.NDArray[Any] = field(default_factory=lambda: np.array([], object))
    """The same in D, 1.0 km."""
    uv_max_klambda: FloatArray = field(default_factory=lambda: np.array([]))
    """The list's advice on the longest baseline, NaN where it has none; ours is 13 kilowavelengths."""

    @functools.cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Whether closure errors stay below 10 % in C or in D, and the flux is no blazar's."""
        good = np.isin(self.code_c, GOOD_CODES) | np.isin(self.code_d, GOOD_CODES)
        return np.asarray(good & ~np.isin(self.name, list(NEVER)))


class CalibratorInBeam(NamedTuple):
    """A calibrator that passes through the beam during an observation."""

    name: str
    """The 3C name of a standard, else the VLA's J2000 name."""
    ra_deg: float
    dec_deg: float
    flux_jy: float
    """At the middle of the band: Perley & Butler 2017 where it has the source, else the VLA's list."""
    beam: float
    """Mean of the primary beam over the observation and the band."""
    apparent_jy: float
    """flux_jy times beam."""
    is_standard: bool
    """Whether the flux scale may hang on it."""
    spectral_index: float
    """At the middle of the band; of the list's 20 and 6 cm fluxes where there is no polynomial; 0 if unknown."""
    compact: bool
    """Whether baselines to 3 km see a point; if not, only the short ones do."""


@functools.cache
def nvss() -> Catalogue:
    """Return NVSS above 50 mJy/beam at 1.4 GHz: 125,309 sources north of Dec -40.4 deg, with positions and peaks only."""
    table = NVSS.read(_shipped("nvss"), "package data nvss.parquet")
    peak = _numbers(table, "flux_peak")
    unknown = np.full(peak.size, np.nan)
    return Catalogue(
        "NVSS", NVSS_HZ, _numbers(table, "ra"), _numbers(table, "dec"), peak, peak, unknown, unknown
    )


@functools.cache
def calibrators() -> Calibrators:
    """Return the VLA's calibrators that have a flux density at 20 cm (1028 of 1865); the others calibrate nothing here."""
    table = VLA_CALIBRATORS.read(
        _shipped("vla_calibrators"), "package data vla_calibrators.parquet"
    )
    # The list writes 0.00 where it knows no flux.
    flux, flux_6cm = (
        np.where(_numbers(table, name) > 0, _numbers(table, name), np.nan)
        for name in ("flux_20cm", "flux_6cm")
    )
    index = np.log(flux_6cm / flux) / np.log(C_BAND_HZ / L_BAND_HZ)
    unknown = np.full(flux.size, np.nan)
    whole = Calibrators(
        "VLA",
        L_BAND_HZ,
        _numbers(table, "ra"),
        _numbers(table, "dec"),
        flux,
        unknown,
        unknown,
        index,
        _words(table, "name"),
        _words(table, "alias"),
        _words(table, "code_c"),
        _words(table, "code_d"),
        _numbers(table, "uv_max"),
    )
    return whole.select(np.isfinite(flux))


def load(uri: str) -> Catalogue:
    """Read a catalogue that ``contimg catalogue add`` made.

    Raises
    ------
    MissingError, BadInputError
        If it is not there, or not such a catalogue.
    """
    store, key = split(uri)
    table = CATALOGUE.read(store.read(key), uri)
    if not table.num_rows:
        raise BadInputError(
            uri, "expected a catalogue with sources, found none.", "Add the catalogue again."
        )
    frequency = _numbers(table, "frequency")
    return Catalogue(
        key.removesuffix(".parquet"),
        float(frequency[0]) if np.all(frequency == frequency[0]) else 0.0,
        _numbers(table, "ra"),
        _numbers(table, "dec"),
        _numbers(table, "flux"),
        _numbers(table, "flux_peak"),
        _numbers(table, "major"),
        _numbers(table, "spectral_index"),
        _words(table, "name"),
    )


def calibrators_in_beam(
    mjd_start: float, mjd_end: float, pointing_dec_deg: float, site: Site
) -> list[CalibratorInBeam]:
    """Return the calibrators in the beam of an observation on the meridian, brightest apparent flux first.

    Parameters
    ----------
    mjd_start, mjd_end
        Begin and end of the observation, UTC, days.
    pointing_dec_deg
        Apparent Declination of the dishes, at hour angle zero.
    """
    middle, length = (mjd_start + mjd_end) / 2, mjd_end - mjd_start
    ra, dec = icrs_of_hadec(0.0, np.radians(pointing_dec_deg), middle, site)
    drift_deg = 361.0 * length / 2
    known = _usable().within(float(np.degrees(ra)), float(np.degrees(dec)), NEAR_DEG + drift_deg)
    beam = _mean_beam(known, mjd_start, mjd_end, pointing_dec_deg, site)
    found = [_in_beam(known, int(i), float(beam[i])) for i in np.flatnonzero(beam >= MIN_BEAM)]
    return sorted(found, key=lambda c: (-c.apparent_jy, c.name))


def source_names(prefix: str, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return names ``PREFIX Jhhmmss+ddmmss`` from positions; digits are cut, not rounded, as the IAU asks."""
    # 2 mas forgive what the rounding of a position to binary digits may have taken.
    seconds = (
        np.floor(np.mod(np.asarray(ra_deg, np.float64), 360.0) * 240.0 + 2e-3 / 15).astype(np.int64)
        % 86400
    )
    arcsec = np.floor(np.abs(np.asarray(dec_deg, np.float64)) * 3600.0 + 2e-3).astype(np.int64)
    sign = np.where(np.asarray(dec_deg) < 0, ord("-"), ord("+"))
    columns = [*_two_digits(seconds // 3600, seconds // 60 % 60, seconds % 60), sign]
    columns += _two_digits(arcsec // 3600, arcsec // 60 % 60, arcsec % 60)
    # A matrix of characters, read row by row: twenty times faster than formatting, and catalogues have millions.
    letters = np.ascontiguousarray(np.stack(columns, axis=-1).astype(np.uint8)).view(
        f"S{len(columns)}"
    )
    return np.char.add(f"{prefix} J", letters[..., 0].astype(np.str_))


def _two_digits(*numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [digit + ord("0") for number in numbers for digit in (number // 10, number % 10)]


@functools.cache
def _usable() -> Calibrators:
    return calibrators().select(calibrators().usable)


def _in_beam(known: Calibrators, i: int, beam: float) -> CalibratorInBeam:
    ra, dec = float(known.ra_deg[i]), float(known.dec_deg[i])
    middle = float(np.mean(band_hz()))
    source = standard((ra, dec))
    index = float(np.nan_to_num(known.spectral_index[i]))
    flux = float(known.flux_jy[i]) * (middle / known.freq_hz) ** index
    name = str(known.name[i])
    if source is not None:
        name, step = source.name, 1.01
        flux = float(source.flux_jy(middle))
        index = float(
            np.log(source.flux_jy(middle * step) / source.flux_jy(middle / step))
            / (2 * np.log(step))
        )
    compact = bool(known.code_c[i] in GOOD_CODES)
    return CalibratorInBeam(
        name, ra, dec, flux, beam, flux * beam, source is not None and source.anchor, index, compact
    )


def _mean_beam(
    known: Catalogue, mjd_start: float, mjd_end: float, pointing_dec_deg: float, site: Site
) -> FloatArray:
    """Return the mean primary beam of each source over an observation and the band."""
    # Midpoints of equal parts: the mean of a smooth function without end effects.
    part = (np.arange(BEAM_SAMPLES) + 0.5) / BEAM_SAMPLES
    times = mjd_start + (mjd_end - mjd_start) * part
    ha, dec = apparent_hadec(
        np.radians(known.ra_deg), np.radians(known.dec_deg), times[:, None], site
    )
    away = separation_rad(ha, dec, 0.0, np.radians(pointing_dec_deg))
    band = band_hz()
    freqs = band[0] + (band[-1] - band[0]) * part
    return np.asarray(primary_beam(away[..., None], freqs).mean(axis=(0, 2)), np.float64)


def _unit_vectors(ra_deg: FloatArray, dec_deg: FloatArray) -> FloatArray:
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _shipped(name: str) -> bytes:
    return (files("contimg.astro") / "data" / f"{name}.parquet").read_bytes()


def _numbers(table: pa.Table, name: str) -> FloatArray:
    # Not to_numpy: that imports pandas where it is installed, which takes longer than all the rest. Nulls become NaN.
    column: Any = table[name].combine_chunks()
    values = np.frombuffer(
        column.buffers()[1],
        column.type.to_pandas_dtype(),
        len(column),
        column.offset * column.type.byte_width,
    )
    return np.asarray(
        np.where(np.asarray(column.is_null().to_pylist(), bool), np.nan, values), np.float64
    )


def _words(table: pa.Table, name: str) -> npt.NDArray[Any]:
    return np.asarray(table[name].to_pylist(), object)
