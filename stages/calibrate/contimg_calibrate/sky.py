"""The model of the sky that is solved on: a calibrator with its spectrum, NVSS sources out to the beam's null, or a list."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.catalogues import calibrators, nvss
from contimg.astro.constants import NVSS_HZ, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import icrs_of_hadec
from contimg.astro.predict import DEFAULT_SPECTRAL_INDEX, PointSources, power_law
from contimg.astro.standards import standard
from contimg.astro.telescope import DISH_M
from contimg.runtime.errors import BadInputError, NoSourcesError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.coordinates import Site
    from contimg.astro.predict import SkyModel

    FloatArray = npt.NDArray[np.float64]

SAME_DEG = 60 / 3600
"""A catalogue source nearer than this to the calibrator is the calibrator, or a part of it."""
NULL = 1.22
"""First null of the beam in wavelengths over dish diameters."""
KEPT_FLUX = 5e-4
"""Field sources below this share of the brightest one's apparent flux are left out of a model: one on a grating lobe of the calibrator
(1.4 deg north or south) looks like the calibrator to the gains, which then take 7 % of its flux from it (docs/calibrate.md); ..."""
KEPT_FIELD_JY = 0.01
"""... but none above this one is, where there is no calibrator."""


@dataclass(frozen=True)
class Calibrator:
    """What is solved on."""

    name: str
    ra_deg: float
    dec_deg: float
    spectrum_jy: FloatArray
    """Shape (channels,), before the beam."""
    standard: bool

    def sources(self) -> PointSources:
        """Return it as a sky of one source."""
        place = np.radians([[self.ra_deg], [self.dec_deg]])
        return PointSources(place[0], place[1], self.spectrum_jy[None, :])


def position_of(name_or_position: str) -> tuple[float, float]:
    """Return RA and Dec (degrees, ICRS) of a calibrator's name or of "RA,Dec".

    Raises
    ------
    UsageError
        If it is neither.
    """
    try:
        ra, dec = (float(part) for part in name_or_position.split(","))
    except ValueError:
        found = standard(name_or_position)
        if found is not None:
            return found.ra_deg, found.dec_deg
        listed = calibrators()
        wanted = name_or_position.upper().removeprefix("J")
        known = zip(listed.name, listed.alias, strict=True)
        which = np.flatnonzero(
            [wanted in {str(name).upper(), str(alias).upper()} for name, alias in known]
        )
        if not which.size:
            remedy = "Name a Perley-Butler 2017 standard or a VLA calibrator with a 20 cm flux."
            raise UsageError(
                "--calibrator",
                f"expected a known calibrator, or RA,Dec, found {name_or_position}.",
                remedy,
            ) from None
        return float(listed.ra_deg[which[0]]), float(listed.dec_deg[which[0]])
    return ra % 360.0, dec


def calibrator_at(ra_deg: float, dec_deg: float, freq_hz: FloatArray) -> Calibrator:
    """Return the calibrator at a position with its spectrum: Perley & Butler 2017, else the VLA list's 20 and 6 cm fluxes.

    Raises
    ------
    UsageError
        If no list has a flux for it: none is ever assumed.
    """
    known = standard((ra_deg, dec_deg))
    if known is not None:
        return Calibrator(
            known.name, known.ra_deg, known.dec_deg, known.flux_jy(freq_hz), known.anchor
        )
    listed = calibrators()
    away = listed.separation_deg(ra_deg, dec_deg)
    i = int(np.argmin(away))
    if not (away[i] < SAME_DEG and listed.usable[i]):
        remedy = "No flux is ever assumed: name a calibrator of the lists, or give --model-file."
        raise UsageError(
            "--calibrator",
            f"expected a calibrator with a known flux, found none at {ra_deg:.4f},{dec_deg:.4f}.",
            remedy,
        )
    index = float(np.nan_to_num(listed.spectral_index[i]))
    spectrum = power_law(listed.flux_jy[i], listed.freq_hz, freq_hz, index)[0]
    return Calibrator(
        str(listed.name[i]),
        float(listed.ra_deg[i]),
        float(listed.dec_deg[i]),
        spectrum,
        standard=False,
    )


def field_sources(
    mjd_start: float, mjd_end: float, dec_rad: float, site: Site, freq_hz: FloatArray
) -> PointSources:
    """Return the NVSS sources within the beam's null at any time of a group, with a spectral index of -0.7."""
    moments = np.array([mjd_start, (mjd_start + mjd_end) / 2, mjd_end])
    ra, dec = icrs_of_hadec(0.0, dec_rad, moments, site)
    drift_rad = (moments[2] - moments[0]) * np.pi * np.cos(dec_rad)
    radius_rad = NULL * SPEED_OF_LIGHT_M_S / (DISH_M * freq_hz.min()) + drift_rad
    found = nvss().within(
        float(np.degrees(ra[1])), float(np.degrees(dec[1])), float(np.degrees(radius_rad))
    )
    return PointSources(
        np.radians(found.ra_deg),
        np.radians(found.dec_deg),
        power_law(found.flux_jy, NVSS_HZ, freq_hz),
    )


def merge(first: PointSources, others: PointSources) -> PointSources:
    """Return `first` and those of `others` that are not at the place of one of them."""
    towards = _vectors(others) @ _vectors(first).T
    apart = np.flatnonzero(np.all(towards < np.cos(np.radians(SAME_DEG)), axis=1))
    return PointSources(
        *(
            np.concatenate([a, b[apart]])
            for a, b in zip(_columns(first), _columns(others), strict=True)
        )
    )


def keep_bright(sky: SkyModel, mjd_utc: FloatArray, least_jy: float) -> npt.NDArray[np.intp]:
    """Return the sources whose apparent flux is worth predicting, brightest first."""
    apparent = sky.apparent_jy(mjd_utc).mean(axis=1)
    order = np.argsort(-apparent, kind="stable")
    return np.asarray(order[apparent[order] >= least_jy])


def select(sources: PointSources, which: npt.NDArray[np.intp]) -> PointSources:
    """Return some of the sources."""
    return PointSources(*(column[which] for column in _columns(sources)))


def read_model(data: bytes, where: str, freq_hz: FloatArray) -> PointSources:
    """Read a CSV of sources: ra_deg, dec_deg, flux_jy, and if one likes alpha (-0.7) and reference_hz (1.4e9).

    Raises
    ------
    BadInputError, NoSourcesError
        If it is no such list, or empty.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        numbers = np.array(
            [
                [float(row[name]) for name in ("ra_deg", "dec_deg", "flux_jy")]
                + [
                    float(row.get("alpha") or DEFAULT_SPECTRAL_INDEX),
                    float(row.get("reference_hz") or NVSS_HZ),
                ]
                for row in rows
            ]
        )
    except (ValueError, KeyError, TypeError) as error:
        wanted = "a CSV with columns ra_deg, dec_deg, flux_jy[, alpha, reference_hz]"
        raise BadInputError(
            where, f"expected {wanted}, found {type(error).__name__} {error}.", "Correct the list."
        ) from error
    if not rows:
        raise NoSourcesError(where, "expected sources, found none.", "Give a list with sources.")
    spectra = numbers[:, 2:3] * (freq_hz[None, :] / numbers[:, 4:5]) ** numbers[:, 3:4]
    return PointSources(np.radians(numbers[:, 0]), np.radians(numbers[:, 1]), spectra)


def _columns(sources: PointSources) -> tuple[FloatArray, FloatArray, FloatArray]:
    return sources.ra_rad, sources.dec_rad, sources.flux_jy


def _vectors(sources: PointSources) -> FloatArray:
    cos_dec = np.cos(sources.dec_rad)
    return np.stack(
        [
            cos_dec * np.cos(sources.ra_rad),
            cos_dec * np.sin(sources.ra_rad),
            np.sin(sources.dec_rad),
        ],
        axis=1,
    )
