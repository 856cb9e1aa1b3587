"""Radio catalogues: positions and flux densities of sources, and the calibrators among them.

NVSS above 50 mJy and the VLA calibrators are shipped; ``contimg catalogue add`` adds others.
Degrees and Jy; J2000 positions are taken as ICRS, which holds to 0.03 arcsec.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contimg.astro.constants import NVSS_HZ
from contimg.astro.coordinates import Site, apparent_hadec, icrs_of_hadec, separation_rad
from contimg.astro.standards import standard
from contimg.astro.telescope import band_hz, primary_beam
from contimg.records.schemas.shipped import CATALOGUE, NVSS, VLA_CALIBRATORS
from contimg.runtime.errors import BadInputError
from contimg.runtime.store import split

FloatArray = npt.NDArray[np.float64]

L_BAND_HZ, C_BAND_HZ = 1.4649e9, 4.8601e9
"""The VLA's default frequencies of 20 and 6 cm, when its list was made."""
GOOD_CODES = ("P", "S")
"""Closure errors below 3 and 10 %."""
EXCLUDED = {"2253+161": "3C454.3 is a violently variable blazar: no list has its present flux"}
"""Calibrators of the VLA that are not used, with the reason."""
MIN_BEAM = 0.02
"""Least mean beam at a calibrator: more than the first sidelobe, whose peak is 0.0175."""
SEARCH_RADIUS_DEG = 5.0
"""Farther away the beam is far below MIN_BEAM at all frequencies of the band."""
BEAM_SAMPLES = 13
"""Number of times and of frequencies at which the beam is averaged; its mean is right to 1e-4."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Sources, one element each in every array; make parts of it with `select` and `within`."""

    title: str
    freq_hz: float
    """Frequency of the fluxes; 0 if there are several (then `freq` of the file has them)."""
    ra_deg: FloatArray
    dec_deg: FloatArray
    flux_jy: FloatArray
    """Integrated flux density; for the shipped NVSS the peak, Jy/beam (45 arcsec)."""
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
        return unit_vectors(self.ra_deg, self.dec_deg)

    def select(self, which: npt.NDArray[Any]) -> Self:
        """Return the sources of a mask or of a list of indices."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        arrays = {n: value[which] for n, value in values.items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    def within(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Self:
        """Return the sources within a radius (up to 180 deg), in the catalogue's order."""
        offset = self.unit_vectors - unit_vectors(np.array([ra_deg]), np.array([dec_deg]))
        chord = 2 * np.sin(np.radians(min(radius_deg, 180.0)) / 2)
        return self.select(np.flatnonzero(np.einsum("ij,ij->i", offset, offset) <= chord**2))

    def separation_deg(self, ra_deg: float, dec_deg: float) -> FloatArray:
        """Return the distance of every source from a position."""
        here = np.radians(self.ra_deg), np.radians(self.dec_deg)
        return np.degrees(separation_rad(*here, np.radians(ra_deg), np.radians(dec_deg)))


@dataclass(frozen=True, eq=False)
class Calibrators(Catalogue):
    """The VLA's calibrators that have a flux density at 20 cm."""

    alias: npt.NDArray[Any] = field(default_factory=lambda: np.array([], object))
    """3C name and the like, or empty."""
    code_c: npt.NDArray[Any] = field(default_factory=lambda: np.array([], object))
    """P, S, W, C, X, ? at 20 cm in the VLA's configuration C: to 3.4 km, nearest to our array."""
    code_d: npt.NDArray[Any] = field(default_factory=lambda: np.array([], object))
    """The same in D, 1.0 km."""
    uv_max_klambda: FloatArray = field(default_factory=lambda: np.array([]))
    """Longest baseline to use, NaN where the list has none; ours is 13 kilowavelengths."""

    @functools.cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Whether closure errors stay below 10 % in C or in D, and the flux is no blazar's."""
        good = np.isin(self.code_c, GOOD_CODES) | np.isin(self.code_d, GOOD_CODES)
        return np.asarray(good & ~np.isin(self.name, list(EXCLUDED)))


class CalibratorInBeam(NamedTuple):
    """A calibrator that passes through the beam during an observation."""

    name: str
    """The 3C name of a standard, else the VLA's J2000 name."""
    ra_deg: float
    dec_deg: float
    flux_jy: float
    """At the middle of the band: of Perley & Butler 2017 if it is there, else the VLA's list."""
    beam: float
    """Mean of the primary beam over the observation and the band."""
    apparent_jy: float
    """flux_jy times beam."""
    is_standard: bool
    """Whether it may set the flux scale."""
    spectral_index: float
    """At the middle of the band; of the 20 and 6 cm fluxes if not a standard; 0 if unknown."""
    compact: bool
    """Whether it is a point for baselines up to 3 km."""


@functools.cache
def nvss() -> Catalogue:
    """Return positions and peaks of NVSS above 50 mJy/beam: 125,309 sources above Dec -40.4 deg."""
    table = NVSS.read(_read_shipped("nvss"), "package data nvss.parquet")
    peak = _numbers(table, "flux_peak")
    unknown = np.full(peak.size, np.nan)
    return Catalogue(
        title="NVSS",
        freq_hz=NVSS_HZ,
        ra_deg=_numbers(table, "ra"),
        dec_deg=_numbers(table, "dec"),
        flux_jy=peak,
        peak_jy=peak,
        major_arcsec=unknown,
        spectral_index=unknown,
    )


@functools.cache
def calibrators() -> Calibrators:
    """Return the VLA's calibrators that have a flux density at 20 cm (1028 of 1865)."""
    data = _read_shipped("vla_calibrators")
    table = VLA_CALIBRATORS.read(data, "package data vla_calibrators.parquet")
    # The list writes 0.00 where it knows no flux.
    flux, flux_6cm = (
        np.where(_numbers(table, name) > 0, _numbers(table, name), np.nan)
        for name in ("flux_20cm", "flux_6cm")
    )
    unknown = np.full(flux.size, np.nan)
    whole = Calibrators(
        title="VLA",
        freq_hz=L_BAND_HZ,
        ra_deg=_numbers(table, "ra"),
        dec_deg=_numbers(table, "dec"),
        flux_jy=flux,
        peak_jy=unknown,
        major_arcsec=unknown,
        spectral_index=np.log(flux_6cm / flux) / np.log(C_BAND_HZ / L_BAND_HZ),
        names=_texts(table, "name"),
        alias=_texts(table, "alias"),
        code_c=_texts(table, "code_c"),
        code_d=_texts(table, "code_d"),
        uv_max_klambda=_numbers(table, "uv_max"),
    )
    return whole.select(np.isfinite(flux))


def load(uri: str) -> Catalogue:
    """Read a catalogue that ``contimg catalogue add`` made.

    Raises
    ------
    MissingError, BadInputError
        If it does not exist, or is not such a catalogue.
    """
    store, key = split(uri)
    table = CATALOGUE.read(store.read(key), uri)
    if not table.num_rows:
        raise BadInputError(uri, "The catalogue has no sources.", "Add it again.")
    frequency = _numbers(table, "frequency")
    return Catalogue(
        title=key.removesuffix(".parquet"),
        freq_hz=float(frequency[0]) if np.all(frequency == frequency[0]) else 0.0,
        ra_deg=_numbers(table, "ra"),
        dec_deg=_numbers(table, "dec"),
        flux_jy=_numbers(table, "flux"),
        peak_jy=_numbers(table, "flux_peak"),
        major_arcsec=_numbers(table, "major"),
        spectral_index=_numbers(table, "spectral_index"),
        names=_texts(table, "name"),
    )


def calibrators_in_beam(
    mjd_start: float, mjd_end: float, pointing_dec_deg: float, site: Site
) -> list[CalibratorInBeam]:
    """Return the calibrators in the beam of an observation on the meridian, brightest first.

    Parameters
    ----------
    mjd_start, mjd_end
        Begin and end of the observation, UTC, days.
    pointing_dec_deg
        Apparent Declination of the dishes, at hour angle zero.

    Returns
    -------
    In the order of apparent flux.
    """
    middle, length = (mjd_start + mjd_end) / 2, mjd_end - mjd_start
    ra, dec = icrs_of_hadec(0.0, np.radians(pointing_dec_deg), middle, site)
    radius_deg = SEARCH_RADIUS_DEG + 361.0 * length / 2
    usable = calibrators().select(calibrators().usable)
    known = usable.within(float(np.degrees(ra)), float(np.degrees(dec)), radius_deg)
    # Midpoints of equal parts: the mean of a smooth function without end effects.
    part = (np.arange(BEAM_SAMPLES) + 0.5) / BEAM_SAMPLES
    times, band = mjd_start + length * part, band_hz()
    ha, apparent_dec = apparent_hadec(
        np.radians(known.ra_deg), np.radians(known.dec_deg), times[:, None], site
    )
    away = separation_rad(ha, apparent_dec, 0.0, np.radians(pointing_dec_deg))
    freqs = band[0] + (band[-1] - band[0]) * part
    beam = np.asarray(primary_beam(away[..., None], freqs).mean(axis=(0, 2)), np.float64)
    found = [_in_beam(known, int(i), float(beam[i])) for i in np.flatnonzero(beam >= MIN_BEAM)]
    return sorted(found, key=lambda c: (-c.apparent_jy, c.name))


def _in_beam(known: Calibrators, i: int, beam: float) -> CalibratorInBeam:
    """Return what is known of a calibrator at the middle of the band."""
    ra, dec, name = float(known.ra_deg[i]), float(known.dec_deg[i]), str(known.name[i])
    middle = float(np.mean(band_hz()))
    index = float(np.nan_to_num(known.spectral_index[i]))
    flux = float(known.flux_jy[i]) * (middle / known.freq_hz) ** index
    source = standard((ra, dec))
    if source is not None:
        name, step = source.name, 1.01
        flux = float(source.flux_jy(middle))
        ratio = source.flux_jy(middle * step) / source.flux_jy(middle / step)
        index = float(np.log(ratio) / (2 * np.log(step)))
    return CalibratorInBeam(
        name=name,
        ra_deg=ra,
        dec_deg=dec,
        flux_jy=flux,
        beam=beam,
        apparent_jy=flux * beam,
        is_standard=source is not None and source.anchor,
        spectral_index=index,
        compact=bool(known.code_c[i] in GOOD_CODES),
    )


def source_names(prefix: str, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return names ``PREFIX Jhhmmss+ddmmss``; digits are cut, not rounded, as the IAU asks."""
    ra, dec = np.asarray(ra_deg, np.float64), np.asarray(dec_deg, np.float64)
    # 2 mas make up for the rounding of positions to binary digits.
    seconds = np.floor(np.mod(ra, 360.0) * 240.0 + 2e-3 / 15).astype(np.int64) % 86400
    arcsec = np.floor(np.abs(dec) * 3600.0 + 2e-3).astype(np.int64)
    columns = []
    for number in (seconds, arcsec):
        for part in (number // 3600, number // 60 % 60, number % 60):
            columns += [part // 10 + ord("0"), part % 10 + ord("0")]
    columns.insert(6, np.where(dec < 0, ord("-"), ord("+")))
    # Characters, row by row: 20 times faster than formatting, and catalogues have millions.
    letters = np.ascontiguousarray(np.stack(columns, axis=-1).astype(np.uint8))
    return np.char.add(f"{prefix} J", letters.view(f"S{len(columns)}")[..., 0].astype(np.str_))


def unit_vectors(ra_deg: FloatArray, dec_deg: FloatArray) -> FloatArray:
    """Return the unit vectors of positions, shape (N, 3)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _read_shipped(name: str) -> bytes:
    return (files("contimg.astro") / "data" / f"{name}.parquet").read_bytes()


def _numbers(table: pa.Table, name: str) -> FloatArray:
    # Not to_numpy: that imports pandas if installed, which takes longer than all the rest.
    column: Any = table[name].combine_chunks()
    kind, size = column.type.to_pandas_dtype(), column.type.byte_width
    values = np.frombuffer(column.buffers()[1], kind, len(column), column.offset * size)
    is_null = np.asarray(column.is_null().to_pylist(), bool)
    return np.asarray(np.where(is_null, np.nan, values), np.float64)


def _texts(table: pa.Table, name: str) -> npt.NDArray[Any]:
    return np.asarray(table[name].to_pylist(), object)
