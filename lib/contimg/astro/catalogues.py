"""Radio catalogues: positions and flux densities of sources, and the calibrators among them.

NVSS above 50 mJy and the VLA calibrators are shipped; ``contimg catalogue add`` adds others.
Degrees and Jy; J2000 positions are taken as ICRS, which holds to 0.03 arcsec.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import erfa
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contimg.astro.beam_fit import mean_beam, midpoints
from contimg.astro.constants import DEFAULT_SPECTRAL_INDEX, NVSS_HZ
from contimg.astro.coordinates import (
    Site,
    icrs_of_hadec,
    separation_rad,
)
from contimg.astro.primary_beam import PrimaryBeam
from contimg.astro.standards import standard
from contimg.astro.telescope import band_hz
from contimg.records.schemas.shipped import CATALOGUE, NVSS, VLA_CALIBRATORS, read_shipped
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
FLUX_COLUMNS = {"flux_jy": "flux", "peak_jy": "flux_peak", "spectral_index": "spectral_index"}
COLUMNS = {"ra_deg": "ra", "dec_deg": "dec", "major_arcsec": "major"} | FLUX_COLUMNS
"""Columns of a table by the fields of `Catalogue`."""
SAME_SOURCE_RAD = float(np.radians(10 / 3600))
"""A calibrator this close to a source of a survey is that source."""
SPECTRAL_INDEX_SCATTER = 0.25
"""1 sigma of the spectral indices of single sources (0.22 between 150 and 1400 MHz: Tiwari 2019,
arXiv 1609.01308)."""
KNOWN_INDEX_ERROR = 0.1
"""1 sigma of an index that a catalogue gives."""
BEAM_SAMPLES = 13
"""Number of times and of frequencies at which the beam is averaged; its mean is right to 1e-4."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Sources, one element each in every array; make parts of it with `select` and `within`."""

    title: str
    freq_hz: float
    """Frequency of the fluxes, Hz; 0 if there are several, which `source_hz` has."""
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
    source_hz: FloatArray | None = None
    """Frequency of each source's flux, where there are several."""
    names: npt.NDArray[Any] | None = None
    """Names that the catalogue gives; `name` makes them from positions where it gives none."""

    def __len__(self) -> int:
        """Return the number of sources."""
        return int(self.ra_deg.size)

    @functools.cached_property
    def name(self) -> npt.NDArray[Any]:
        """Names of the sources."""
        if self.names is None:
            return source_names(self.title, self.ra_deg, self.dec_deg)
        return self.names

    @functools.cached_property
    def unit_vectors(self) -> FloatArray:
        """Directions, shape (N, 3)."""
        return np.asarray(erfa.s2c(np.radians(self.ra_deg), np.radians(self.dec_deg)))

    def select(self, which: npt.NDArray[Any]) -> Self:
        """Return the sources of a mask or of a list of indices."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        arrays = {n: value[which] for n, value in values.items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    def at_frequency(self, freq_hz: float) -> Self:
        """Return the catalogue with fluxes and peaks scaled to a frequency, Hz.

        Scaled with the source's spectral index, -0.7 where it is unknown.
        """
        own_hz = self.freq_hz if self.source_hz is None else self.source_hz
        known = np.isfinite(self.spectral_index)
        index = np.where(known, self.spectral_index, DEFAULT_SPECTRAL_INDEX)
        factor = (freq_hz / own_hz) ** index
        flux_jy, peak_jy = self.flux_jy * factor, self.peak_jy * factor
        return replace(self, freq_hz=freq_hz, source_hz=None, flux_jy=flux_jy, peak_jy=peak_jy)

    def scaling_error(self, freq_hz: float) -> FloatArray:
        """Return the relative 1 sigma error that `at_frequency` adds to each flux, shape (N,)."""
        own_hz = self.freq_hz if self.source_hz is None else self.source_hz
        known = np.isfinite(self.spectral_index)
        error = np.where(known, KNOWN_INDEX_ERROR, SPECTRAL_INDEX_SCATTER)
        return np.asarray(error * np.abs(np.log(freq_hz / own_hz)))

    def within(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Self:
        """Return the sources within a radius (up to 180 deg), in the catalogue's order."""
        offset = self.unit_vectors - erfa.s2c(np.radians(ra_deg), np.radians(dec_deg))
        chord = 2 * np.sin(np.radians(min(radius_deg, 180.0)) / 2)
        return self.select(np.flatnonzero(np.einsum("ij,ij->i", offset, offset) <= chord**2))

    def separation_deg(self, ra_deg: float, dec_deg: float) -> FloatArray:
        """Return the distance of every source from a position."""
        here = np.radians(self.ra_deg), np.radians(self.dec_deg)
        return np.degrees(separation_rad(*here, np.radians(ra_deg), np.radians(dec_deg)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibrators(Catalogue):
    """The VLA's calibrators that have a flux density at 20 cm."""

    alias: npt.NDArray[Any]
    """3C name and the like, or empty."""
    code_c: npt.NDArray[Any]
    """P, S, W, C, X, ? at 20 cm in the VLA's configuration C: to 3.4 km, nearest to our array."""
    code_d: npt.NDArray[Any]
    """The same in D, 1.0 km."""
    uv_max_klambda: FloatArray
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
    found = _fields(read_shipped(NVSS))
    return Catalogue(title="NVSS", freq_hz=NVSS_HZ, **{**found, "flux_jy": found["peak_jy"]})


@functools.cache
def calibrators() -> Calibrators:
    """Return the VLA's calibrators that have a flux density at 20 cm (1028 of 1865)."""
    table = read_shipped(VLA_CALIBRATORS)
    fluxes = (_column(table, name) for name in ("flux_20cm", "flux_6cm"))
    # The list has 0.00 where no flux is known.
    flux, flux_6cm = (np.where(values > 0, values, np.nan) for values in fluxes)
    index = np.log(flux_6cm / flux) / np.log(C_BAND_HZ / L_BAND_HZ)
    found = _fields(table) | {"flux_jy": flux, "spectral_index": index}
    names = {"names": "name", "alias": "alias", "code_c": "code_c", "code_d": "code_d"}
    found |= {field: _column(table, name) for field, name in names.items()}
    found["uv_max_klambda"] = _column(table, "uv_max")
    return Calibrators(title="VLA", freq_hz=L_BAND_HZ, **found).select(np.isfinite(flux))


def move_to_calibrators(sources: Catalogue) -> Catalogue:
    """Return sources with the positions of the VLA's calibrators where they are those.

    Gains are solved at these positions. NVSS has 3C48 0.5 arcsec off: that leaves 1 % of it where
    it is subtracted, and turns phases that are fitted to it by 8 deg over 2 km.
    """
    exact = calibrators()
    nearest = np.argmax(sources.unit_vectors @ exact.unit_vectors.T, axis=1)
    chord = np.linalg.norm(sources.unit_vectors - exact.unit_vectors[nearest], axis=1)
    same = chord < SAME_SOURCE_RAD
    ra_deg = np.where(same, exact.ra_deg[nearest], sources.ra_deg)
    dec_deg = np.where(same, exact.dec_deg[nearest], sources.dec_deg)
    return replace(sources, ra_deg=ra_deg, dec_deg=dec_deg)


def load(uri: str) -> Catalogue:
    """Read a catalogue that ``contimg catalogue add`` made.

    Raises MissingError or BadInputError if it does not exist, or is not such a catalogue.
    """
    store, key = split(uri)
    table = CATALOGUE.read(store.read(key), uri)
    if not table.num_rows:
        raise BadInputError(uri, "The catalogue has no sources.", "Add it again.")
    return catalogue_of(table, key.removesuffix(".parquet"))


def catalogue_of(table: pa.Table, title: str) -> Catalogue:
    """Return the catalogue in a table of the schema `CATALOGUE`."""
    frequency = _column(table, "frequency")
    freq_hz = float(frequency[0]) if np.all(frequency == frequency[0]) else 0.0
    found = _fields(table) | {"names": _column(table, "name")}
    found["source_hz"] = None if freq_hz else frequency
    return Catalogue(title=title, freq_hz=freq_hz, **found)


def calibrators_in_beam(
    mjd_start: float, mjd_end: float, pointing_dec_deg: float, site: Site, beam: PrimaryBeam
) -> list[CalibratorInBeam]:
    """Return the calibrators in the beam of an observation on the meridian, brightest first.

    It lasts from `mjd_start` to `mjd_end`, UTC; the dishes point to an apparent Declination.
    """
    middle, length = (mjd_start + mjd_end) / 2, mjd_end - mjd_start
    ra, dec = icrs_of_hadec(0.0, np.radians(pointing_dec_deg), middle, site)
    radius_deg = SEARCH_RADIUS_DEG + 361.0 * length / 2
    usable = calibrators().select(calibrators().usable)
    known = usable.within(float(np.degrees(ra)), float(np.degrees(dec)), radius_deg)
    middle_hz = float(np.mean(band_hz()))
    moments = midpoints(mjd_start, mjd_end, BEAM_SAMPLES)
    level = mean_beam(known.ra_deg, known.dec_deg, moments, pointing_dec_deg, site, beam)
    found = []
    for i in np.flatnonzero(level >= MIN_BEAM):
        name, place = str(known.name[i]), (float(known.ra_deg[i]), float(known.dec_deg[i]))
        index = float(np.nan_to_num(known.spectral_index[i]))
        flux = float(known.flux_jy[i]) * (middle_hz / known.freq_hz) ** index
        source = standard(place)
        if source is not None:
            name, flux = source.name, float(source.flux_jy(middle_hz))
            ratio = source.flux_jy(middle_hz * 1.01) / source.flux_jy(middle_hz / 1.01)
            index = float(np.log(ratio) / (2 * np.log(1.01)))
        found.append(
            CalibratorInBeam(
                name=name,
                ra_deg=place[0],
                dec_deg=place[1],
                flux_jy=flux,
                beam=float(level[i]),
                apparent_jy=flux * float(level[i]),
                is_standard=source is not None and source.anchor,
                spectral_index=index,
                compact=bool(known.code_c[i] in GOOD_CODES),
            )
        )
    return sorted(found, key=lambda c: (-c.apparent_jy, c.name))


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


def _fields(table: pa.Table) -> dict[str, Any]:
    """Return the fields of a Catalogue that a table has; NaN for the others."""
    found = dict.fromkeys(COLUMNS, np.full(table.num_rows, np.nan))
    held = {field: name for field, name in COLUMNS.items() if name in table.column_names}
    return found | {field: _column(table, name) for field, name in held.items()}


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    column: Any = table[name].combine_chunks()
    if pa.types.is_string(column.type):
        return np.asarray(column.to_pylist(), object)
    # Not to_numpy: that imports pandas if installed, which takes longer than all the rest.
    kind, size = column.type.to_pandas_dtype(), column.type.byte_width
    values = np.frombuffer(column.buffers()[1], kind, len(column), column.offset * size)
    is_null = np.asarray(column.is_null().to_pylist(), bool)
    return np.asarray(np.where(is_null, np.nan, values), np.float64)
