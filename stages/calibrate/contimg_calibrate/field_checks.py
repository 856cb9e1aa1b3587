"""Gates on a solve from the field's own sources, whose fluxes were fitted together with the gains.

Each mark begins with its gate's name. Faults that spoil every flux of the group, and of all groups
that would take the set, are refused; others are marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from contimg.astro.beam_fit import log_slopes
from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.gains import FlagArray, FloatArray
from contimg.astro.primary_beam import PrimaryBeam
from contimg.records.ms import Antennas
from contimg.runtime.errors import SolveFailedError
from contimg_calibrate.ensemble import ensemble_scale
from contimg_calibrate.scale_error import (
    NVSS_SCALE_ERROR,
    SOURCE_SCATTER,
    UNMEASURED_BEAM_ERRORS,
    beam_error,
    mean_beam,
)
from contimg_calibrate.selection import Target

MIN_MEMBER_SNR, MIN_MEMBER_BEAM = 10.0, 0.15
"""Members of the ensemble are at least so far above the noise, and are in the beam."""
MIN_MEMBERS = 8
MAX_SIGMA = 3.0
"""The flux scale is marked if the ensemble excludes it by this many errors. It is not refused: the
calibrator may flare, or the catalogue be wrong."""
REFUSED_RATIO = 3.0
"""A scale that is off by a larger factor is no scale: the sources are not where they should be."""
MAX_MIRRORED, MIN_DIRECT = 0.5, 0.5
"""A field that matches its mirror image better than this, and itself worse, is mirrored."""
MIN_POINTING_DEG, POINTING_SIGMA, STEP_DEG = 0.08, 4.0, 0.05
"""A pointing offset is marked beyond both; the beam's slope is taken over twice the step."""
MAX_MOTION, MOTION_SIGMA = 0.6, 5.0
"""Arcseconds a minute; at Declination 33 deg, a clock wrong by a minute makes 1.8."""
MAX_GAIN_STEP, MAX_ANTENNA_STEP = 0.05, 0.15
"""Change of amplitude within a group, of all data from one integration to the next and of one
antenna, that is marked."""
REFUSED_GAIN_STEP = 0.15
"""Change of all data that is refused: a set has one amplitude an antenna."""
MIN_ANTENNA_MATCH, MATCH_SIGMA = 0.8, 5.0
"""An antenna that is not where it should be, or is another one, sees less than this of the field's
amplitude on the typical antenna, by so many standard deviations of all antennas."""

MIN_MIRRORED = 0.5
"""Data that do not fit the field are mirrored if conjugated ones have more of its flux."""
REMEDY = "Look at the conjugation, the times and the amplitudes of the data."


@dataclass(frozen=True)
class FieldSources:
    """Sources of the model as the group sees them; arrays of shape (K,)."""

    ra_deg: FloatArray
    dec_deg: FloatArray
    catalogue_jy: FloatArray
    """At the band's centre, before the beam."""
    apparent_jy: FloatArray
    held: FlagArray
    """The calibrator, which sets the scale."""


def check_field(
    where: str,
    sources: FieldSources,
    fluxes: dict[str, Any],
    target: Target,
    primary_beam: PrimaryBeam,
    antennas: Antennas,
) -> tuple[dict[str, float], list[str]]:
    """Return numbers for quality.json, and marks.

    `fluxes` is the answer of the solver; nothing is checked without one.

    Raises SolveFailedError if data are mirrored, or if the field's sources are not there.
    """
    if not fluxes:
        return {}, [
            "field_fluxes: too few short baselines to fit the field's fluxes with the gains"
        ]
    problems: list[str] = []
    marks: list[str] = []
    change = np.array(fluxes["gain_change"])
    typical = float(np.median(change[change > 0])) if np.any(change > 0) else 1.0
    if fluxes["mirrored_match"] > MAX_MIRRORED and fluxes["field_match"] < MIN_DIRECT:
        problems.append("mirrored: the sources are at places mirrored about the calibrator")
    numbers, refused, marked = _check_scale(sources, fluxes, target, primary_beam)
    problems += refused
    marks += marked
    marks += check_motion(fluxes)
    names = [antennas.names[i] for i in fluxes["antennas"]]
    odd = [
        names[k]
        for k in np.flatnonzero((change > 0) & (np.abs(change / typical - 1) > MAX_ANTENNA_STEP))
    ]
    if odd:
        marks.append(f"antenna_gain: amplitudes change within the group: {', '.join(odd)}")
    match, error = np.array(fluxes["antenna_match"]), np.array(fluxes["antenna_error"])
    usual = float(np.median(match))
    error = np.maximum(error, MAD_TO_SIGMA * float(np.median(np.abs(match - usual))))
    away = (
        (match < MIN_ANTENNA_MATCH * usual) & (usual - match > MATCH_SIGMA * error) & (change > 0)
    )
    lost = [names[k] for k in np.flatnonzero(away)]
    if lost and fluxes["field_match"] > MIN_DIRECT:
        words = f"antenna_match: the field's sources do not fit antennas {', '.join(lost)}"
        marks.append(f"{words}; their positions, names or polarizations may be exchanged")
    if problems:
        raise SolveFailedError(where, f"{'; '.join(problems)}.", REMEDY)
    numbers["calibrator_motion_arcsec_min"] = fluxes["moved_arcsec_min"]
    names = ["field_match", "mirrored_match", "polarization", "polarization_error"]
    numbers |= {name: fluxes[name] for name in names}
    return numbers, marks


def check_motion(fluxes: dict[str, Any]) -> list[str]:
    """Return the mark `clock` if the sky moves; `fluxes` is the answer of the solver."""
    motion = fluxes["moved_arcsec_min"]
    if motion <= max(MAX_MOTION, MOTION_SIGMA * fluxes["moved_error"]):
        return []
    words = f"clock: the sky moves by {motion:.1f} arcsec a minute"
    return [f"{words}; the times, the Declination or the array's place are wrong"]


def check_data(where: str, residuals: dict[str, float]) -> list[str]:
    """Return the mark `gain_step`, from the `residuals` of data over the model after all gains.

    Raises SolveFailedError if no gains fit the data: amplitudes change too much within the group,
    or the data fit the field better if they are conjugated (``mirrored_scale``, where measured).
    """
    step, mirrored = residuals["gain_step"], residuals.get("mirrored_scale", 0.0)
    if mirrored > MIN_MIRRORED:
        found = f"the conjugated data have {mirrored:.2f} of the field's flux"
        raise SolveFailedError(where, f"mirrored: {found}, the data do not fit.", REMEDY)
    words = f"gain_step: the amplitudes of the data change by {step:+.0%} within the group"
    if abs(step) > REFUSED_GAIN_STEP:
        raise SolveFailedError(where, f"{words}.", REMEDY)
    return [words] if abs(step) > MAX_GAIN_STEP else []


def _check_scale(
    sources: FieldSources, fluxes: dict[str, Any], target: Target, primary_beam: PrimaryBeam
) -> tuple[dict[str, float], list[str], list[str]]:
    """Compare the fitted fluxes with the catalogue's: their common factor, and the beam's place.

    Return numbers for quality.json, problems for which the solve is refused, and marks.
    """
    amplitude, error, noise = (np.array(fluxes[name]) for name in ("amplitude", "error", "noise"))
    beam = np.divide(sources.apparent_jy, sources.catalogue_jy)
    member = ~sources.held & (noise * MIN_MEMBER_SNR < 1) & (beam > MIN_MEMBER_BEAM)
    count = int(np.count_nonzero(member))
    place = sources.ra_deg[member], sources.dec_deg[member]
    at_place = beam_error(*place, target, primary_beam)
    told = ensemble_scale(amplitude[member], error[member], noise[member], at_place)
    if count < MIN_MEMBERS or told is None:
        return {"field_sources": count}, [], []
    ratio = float(np.log(max(told.scale, 1e-3)))
    width_error = (primary_beam.errors or UNMEASURED_BEAM_ERRORS)[0]
    terms = told.error / max(told.scale, 1e-3), NVSS_SCALE_ERROR, width_error
    sigma = float(np.linalg.norm(terms))
    value = np.log(np.maximum(amplitude[member], 1e-3))
    scatter = max(SOURCE_SCATTER, told.scatter)
    numbers = {"field_sources": count, "field_ratio": float(np.exp(ratio)), "field_sigma": sigma}
    words = f"flux_scale: {count} field sources have {np.exp(ratio):.2f} +- {sigma:.2f} of their"
    words += " catalogue fluxes"
    problems: list[str] = []
    marks: list[str] = []
    if abs(ratio) > np.log(REFUSED_RATIO):
        problems.append(words)
    elif abs(ratio) > MAX_SIGMA * sigma:
        marks.append(words)
    steps = {"east_deg": STEP_DEG, "north_deg": STEP_DEG}
    slopes = log_slopes(primary_beam, steps, lambda one: np.log(mean_beam(*place, target, one)))
    matrix = np.column_stack([np.ones(count), *slopes])
    good = np.abs(value - ratio) < MAX_SIGMA * np.hypot(scatter, error[member])
    weight = 1 / np.hypot(SOURCE_SCATTER, error[member][good])
    matrix, value = matrix[good] * weight[:, None], value[good] * weight
    found, *_ = np.linalg.lstsq(matrix, value, rcond=None)
    spread = max(1.0, float(np.std(value - matrix @ found)))
    errors = spread * np.sqrt(np.diag(np.linalg.pinv(matrix.T @ matrix)))
    for index, name in ((1, "east"), (2, "north")):
        numbers |= {f"beam_{name}_deg": float(found[index])}
        if abs(found[index]) > max(MIN_POINTING_DEG, POINTING_SIGMA * errors[index]):
            offset = f"{found[index]:+.2f} +- {errors[index]:.2f} deg {name}"
            marks.append(f"pointing: the field's fluxes place the beam {offset} of the pointing")
    return numbers, problems, marks
