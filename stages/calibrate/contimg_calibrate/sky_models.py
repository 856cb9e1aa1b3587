"""Models of the sky: a calibrator with its spectrum, the NVSS sources in the beam, or a list."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from contimg.astro.catalogues import calibrators, move_to_calibrators, nvss
from contimg.astro.constants import DEFAULT_SPECTRAL_INDEX, NVSS_HZ
from contimg.astro.coordinates import Site, icrs_of_hadec, separation_rad
from contimg.astro.gains import FloatArray
from contimg.astro.predict import PointSources, SkyModel, power_law
from contimg.astro.primary_beam import PrimaryBeam
from contimg.astro.standards import POLARIZED, standard
from contimg.runtime.errors import BadInputError, NoSourcesError, UsageError
from contimg.runtime.unique_names import read_csv

MATCH_RADIUS_DEG = 60 / 3600
"""A catalogue source nearer than this to the calibrator is the calibrator, or a part of it."""
MIN_SOURCE_JY = 0.002
"""Field sources of a lower apparent flux are left out of a model: a third of those with
a signal-to-noise ratio of 20. One on a grating lobe of the calibrator (1.4 deg north or south)
looks like the calibrator to the gains, which then take 7 % of its flux from it."""

FAR_DEG, MIN_FAR_JY = 7.0, 5.0
"""Sources of this flux are in the model beyond the beam's null too, out to the second sidelobe:
phases fitted to a field 5.6 deg from Taurus A without it left 0.85 of the field's flux."""


@dataclass(frozen=True)
class Calibrator:
    """A source that gains are solved on."""

    name: str
    ra_deg: float
    dec_deg: float
    spectrum_jy: FloatArray
    """Shape (channels,), before the beam."""
    standard: bool
    """Whether it is a Perley-Butler 2017 flux standard."""
    polarization: float = 0.0
    """Known fraction of linear polarisation at 1.4 GHz."""


def look_up_position(calibrator: str) -> tuple[float, float]:
    """Return RA and Dec (degrees, ICRS) of a calibrator given by its name or as "RA,Dec".

    Raises UsageError if it is neither.
    """
    try:
        ra, dec = (float(part) for part in calibrator.split(","))
    except ValueError:
        found = standard(calibrator)
        if found is not None:
            return found.ra_deg, found.dec_deg
        listed, wanted = calibrators(), calibrator.upper().removeprefix("J")
        for i, names in enumerate(zip(listed.name, listed.alias, strict=True)):
            if wanted in {str(name).upper() for name in names}:
                return float(listed.ra_deg[i]), float(listed.dec_deg[i])
        problem = f"{calibrator} is neither a known calibrator nor RA,Dec in degrees."
        remedy = "Name a Perley-Butler 2017 standard or a VLA calibrator with a 20 cm flux."
        raise UsageError("--calibrator", problem, remedy) from None
    return ra % 360.0, dec


def look_up_calibrator(
    ra_deg: float, dec_deg: float, freq_hz: FloatArray, *, to_be_measured: bool = False
) -> Calibrator:
    """Return the calibrator at a position; its spectrum is Perley & Butler's or the VLA list's.

    Raises UsageError if no list has a flux for it: a flux is never assumed. One that is
    `to_be_measured` begins with that of NVSS instead, so that the other sources of the field do not
    seem too bright beside it, or with 1 Jy.
    """
    known = standard((ra_deg, dec_deg))
    if known is not None:
        spectrum_jy = known.flux_jy(freq_hz)
        return Calibrator(
            name=known.name,
            ra_deg=known.ra_deg,
            dec_deg=known.dec_deg,
            spectrum_jy=spectrum_jy,
            standard=known.anchor,
            polarization=POLARIZED.get(known.name, 0.0),
        )
    listed = calibrators()
    away = listed.separation_deg(ra_deg, dec_deg)
    i = int(np.argmin(away))
    known_flux = away[i] < MATCH_RADIUS_DEG and listed.usable[i]
    if to_be_measured and not known_flux:
        name = str(listed.name[i]) if away[i] < MATCH_RADIUS_DEG else f"{ra_deg:.4f},{dec_deg:.4f}"
        seen_jy = nvss().within(ra_deg, dec_deg, MATCH_RADIUS_DEG).flux_jy.max(initial=0.0) or 1.0
        return Calibrator(name, ra_deg, dec_deg, np.full(freq_hz.shape, seen_jy), standard=False)
    if not known_flux:
        problem = f"No calibrator at {ra_deg:.4f},{dec_deg:.4f} has a known flux."
        remedy = "No flux is ever assumed: name a calibrator of the lists, or give --model-file."
        raise UsageError("--calibrator", problem, remedy)
    index = float(np.nan_to_num(listed.spectral_index[i]))
    spectrum_jy = power_law(listed.flux_jy[i], listed.freq_hz, freq_hz, index)[0]
    place = float(listed.ra_deg[i]), float(listed.dec_deg[i])
    return Calibrator(str(listed.name[i]), *place, spectrum_jy, standard=False)


def name_brightest(sources: PointSources, name: str | None) -> Calibrator:
    """Return the brightest source of a model as the calibrator, under its own or another name."""
    mean_jy = sources.flux_jy.mean(axis=1)
    i = int(np.argmax(mean_jy))
    ra_deg, dec_deg = (float(np.degrees(angle[i])) for angle in (sources.ra_rad, sources.dec_rad))
    return Calibrator(
        name=name or f"{ra_deg:.4f},{dec_deg:.4f}",
        ra_deg=ra_deg % 360.0,
        dec_deg=dec_deg,
        spectrum_jy=sources.flux_jy[i],
        standard=False,
    )


def find_field_sources(
    mjd_start: float,
    mjd_end: float,
    dec_deg: float,
    site: Site,
    freq_hz: FloatArray,
    beam: PrimaryBeam,
) -> PointSources:
    """Return the NVSS sources within the beam's null at any time of a group, with alpha = -0.7.

    The brightest ones beyond it, which its sidelobes let in, are among them.
    Calibrators of the VLA are at their own positions: phases of a field that one of them dominates
    would take over the survey's error.
    """
    dec_rad = float(np.radians(dec_deg))
    moments = np.array([mjd_start, (mjd_start + mjd_end) / 2, mjd_end])
    ra, dec = icrs_of_hadec(0.0, dec_rad, moments, site)
    drift_rad = (moments[2] - moments[0]) * np.pi * np.cos(dec_rad)
    radius_rad = beam.null_rad(float(freq_hz.min())) + drift_rad
    ra_deg, dec_deg, radius_deg = (float(np.degrees(x)) for x in (ra[1], dec[1], radius_rad))
    found = nvss().within(ra_deg, dec_deg, max(radius_deg, FAR_DEG))
    kept = (found.flux_jy >= MIN_FAR_JY) | (found.separation_deg(ra_deg, dec_deg) <= radius_deg)
    found = move_to_calibrators(found.select(kept))
    spectra = power_law(found.flux_jy, NVSS_HZ, freq_hz)
    return PointSources(np.radians(found.ra_deg), np.radians(found.dec_deg), spectra)


def merge_sources(first: PointSources, others: PointSources) -> PointSources:
    """Return `first` and those of `others` that do not coincide with one of them."""
    ra_rad, dec_rad, flux_jy = others.ra_rad, others.dec_rad, others.flux_jy
    away = separation_rad(ra_rad[:, None], dec_rad[:, None], first.ra_rad, first.dec_rad)
    apart = np.all(away > np.radians(MATCH_RADIUS_DEG), axis=1)
    return PointSources(
        ra_rad=np.concatenate([first.ra_rad, ra_rad[apart]]),
        dec_rad=np.concatenate([first.dec_rad, dec_rad[apart]]),
        flux_jy=np.concatenate([first.flux_jy, flux_jy[apart]]),
    )


def keep_bright(sky: SkyModel, mjd_utc: FloatArray, least_jy: float) -> SkyModel:
    """Return a sky with the sources of at least this apparent flux only, brightest first."""
    apparent = sky.apparent_jy(mjd_utc).mean(axis=1)
    order = np.argsort(-apparent, kind="stable")
    order = order[apparent[order] >= least_jy]
    sources = sky.sources
    bright = PointSources(sources.ra_rad[order], sources.dec_rad[order], sources.flux_jy[order])
    return replace(sky, sources=bright)


def read_model(data: bytes, where: str, freq_hz: FloatArray) -> PointSources:
    """Read a CSV of sources: ra_deg, dec_deg, flux_jy[, alpha (-0.7), reference_hz (1.4e9)].

    Raises BadInputError if it is not such a list; NoSourcesError if it is empty.
    """
    numbers = []
    try:
        for row in read_csv(data.decode("utf-8-sig")):
            alpha, hz = (
                row.get("alpha") or DEFAULT_SPECTRAL_INDEX,
                row.get("reference_hz") or NVSS_HZ,
            )
            place_and_flux = row["ra_deg"], row["dec_deg"], row["flux_jy"]
            numbers.append([float(value) for value in (*place_and_flux, alpha, hz)])
    except (ValueError, KeyError, TypeError) as error:
        wanted = "a CSV with columns ra_deg, dec_deg, flux_jy[, alpha, reference_hz]"
        problem = f"The model is not {wanted}: {type(error).__name__} {error}."
        raise BadInputError(where, problem, "Correct the list.") from error
    if not numbers:
        raise NoSourcesError(where, "The model has no sources.", "Give a list with sources.")
    ra_deg, dec_deg, flux_jy, alphas, reference_hz = np.array(numbers).T[..., None]
    spectra = flux_jy * (freq_hz / reference_hz) ** alphas
    return PointSources(np.radians(ra_deg[:, 0]), np.radians(dec_deg[:, 0]), spectra)
