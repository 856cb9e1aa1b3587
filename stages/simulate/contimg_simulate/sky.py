"""The simulated sky: catalogue sources, flux standards and lists of one's own, with how each changes in time."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contimg.runtime.errors import BadInputError
from contimg_simulate.lightcurves import Curve, Steady

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Floats = npt.NDArray[np.float64]

REFERENCE_HZ = 1.4e9
"""Where a list's fluxes hold, and NVSS's."""
SAME_DEG = 60 / 3600
"""A catalogue row nearer than this to a standard or to a listed source is that source."""
SPECTRAL_INDEX, SPECTRAL_SPREAD = -0.7, 0.2
"""Mean and scatter of the spectral indices that catalogue sources are given, S ~ nu^alpha."""

STANDARDS: Mapping[str, tuple[float, float, tuple[float, ...]]] = {
    "3C48": (24.42208095, 33.15975916, (1.3253, -0.7553, -0.1914, 0.0498)),
    "3C147": (85.65057467, 49.85200943, (1.4516, -0.6961, -0.2007, 0.0640, -0.0464, 0.0289)),
    "3C196": (123.40023, 48.21739, (1.2872, -0.8530, -0.1534, -0.0200, 0.0201)),
    "3C286": (202.78453333, 30.50915556, (1.2481, -0.4507, -0.1798, 0.0357)),
    "3C295": (212.8355, 52.20277, (1.4701, -0.7658, -0.2780, -0.0347, 0.0399)),
}
"""ICRS place (deg) and log10 S(Jy) as a polynomial in log10 nu(GHz): Perley & Butler 2017, ApJS 230, 7, table 6."""


class Source(BaseModel):
    """A point source, unpolarized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ra_deg: float = Field(ge=0, lt=360)
    """ICRS."""
    dec_deg: float = Field(ge=-90, le=90)
    flux_jy: float = Field(ge=0)
    """At 1.4 GHz, when quiet."""
    alpha: float = 0.0
    """Spectral index, S ~ nu^alpha."""
    polynomial: tuple[float, ...] = ()
    """If given, the spectrum is this polynomial (log10 Jy in log10 GHz) instead of a power law."""
    curve: Curve = Steady()

    def spectrum_jy(self, frequency_hz: Floats, mjd: float) -> Floats:
        """Return the flux at each frequency at a UTC date."""
        if self.polynomial:
            quiet = 10 ** np.polynomial.polynomial.polyval(
                np.log10(frequency_hz / 1e9), self.polynomial
            )
        else:
            quiet = self.flux_jy * (frequency_hz / REFERENCE_HZ) ** self.alpha
        return np.asarray(quiet * self.curve.factor(mjd, frequency_hz))


def standards() -> list[Source]:
    """Return the flux standards as sources."""
    made = []
    for name, (ra, dec, polynomial) in STANDARDS.items():
        flux = 10 ** float(
            np.polynomial.polynomial.polyval(np.log10(REFERENCE_HZ / 1e9), polynomial)
        )
        made.append(Source(name=name, ra_deg=ra, dec_deg=dec, flux_jy=flux, polynomial=polynomial))
    return made


def nvss(ra_deg: float, dec_deg: float, radius_deg: float, seed: int) -> list[Source]:
    """Return the NVSS sources around an ICRS place; each has a spectral index of its own that depends on its place and the seed."""
    from contimg.astro.catalogues import nvss as catalogue

    rows = catalogue().within(ra_deg, dec_deg, radius_deg)
    return [
        Source(
            name=str(name),
            ra_deg=float(ra),
            dec_deg=float(dec),
            flux_jy=float(flux),
            alpha=_index(float(ra), float(dec), seed),
        )
        for name, ra, dec, flux in zip(
            rows.name, rows.ra_deg, rows.dec_deg, rows.flux_jy, strict=True
        )
    ]


def merge(first: Sequence[Source], others: Sequence[Source]) -> list[Source]:
    """Return `first` and those of `others` that are none of `first` by place; sorted by name."""
    if first and others:
        nearest = np.max(_vectors(others) @ _vectors(first).T, axis=1)
        others = [
            other
            for other, cosine in zip(others, nearest, strict=True)
            if cosine < np.cos(np.deg2rad(SAME_DEG))
        ]
    return sorted([*first, *others], key=lambda source: source.name)


def read_sources(data: bytes, uri: str) -> list[Source]:
    """Read a list of sources: JSON (a list of objects) or CSV with a header line, with the fields of `Source`.

    A CSV's `curve` column holds JSON, such as ``{"kind": "flare", "peak_mjd": 61100}``; empty means steady.

    Raises
    ------
    BadInputError
        If it is neither, or a row cannot be a source.
    """
    try:
        text = data.decode()
        rows: Any = json.loads(text) if text.lstrip().startswith("[") else _csv_rows(text)
        return TypeAdapter(list[Source]).validate_python(rows)
    except (ValueError, ValidationError) as error:
        wanted = "a JSON list or CSV of sources (name, ra_deg, dec_deg, flux_jy[, alpha, curve])"
        raise BadInputError(
            uri,
            f"expected {wanted}, found {error!s}.",
            "Correct the list; docs/simulate.md has an example.",
        ) from error


def _csv_rows(text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in csv.DictReader(io.StringIO(text)):
        given: dict[str, Any] = {
            key: value for key, value in row.items() if value not in {"", None}
        }
        rows.append({**given, "curve": json.loads(given["curve"])} if "curve" in given else given)
    return rows


def _vectors(sources: Sequence[Source]) -> Floats:
    places = np.deg2rad(np.array([(s.ra_deg, s.dec_deg) for s in sources]).reshape(-1, 2))
    ra, dec = places.T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _index(ra_deg: float, dec_deg: float, seed: int) -> float:
    place = [round(ra_deg * 1e4), round((dec_deg + 90) * 1e4)]
    return round(
        float(np.random.default_rng([seed, 7, *place]).normal(SPECTRAL_INDEX, SPECTRAL_SPREAD)), 3
    )
