"""The flux scale that the field's catalogue sources tell together, although each may vary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import DAY_S, MAD_TO_SIGMA
from contimg.astro.gains import Factors, FloatArray
from contimg.astro.predict import PointSources, SkyModel, antenna_positions, predict_rows
from contimg.records.calibration import FieldPhase, ScaleBudget
from contimg.records.ms import MeasurementSet
from contimg_calibrate.scale_error import NVSS_SCALE_ERROR, SOURCE_SCATTER

if TYPE_CHECKING:  # numba is slow to import, and the stage itself needs none of it
    from contimg_calibrate.visibilities import Ratio

MAX_CHANNELS, MAX_TIMES = 48, 8
"""Data that amplitudes are measured on, evenly taken: at full size sources of 10 mJy get a
signal-to-noise ratio of 6."""
MAX_NOISE, MAX_BEAM_ERROR = 0.25, 0.27
"""A source whose amplitude (by noise alone) or whose place in the beam is less certain is no
member."""
FIT_NAMES = ("amplitude", "error", "noise")
"""What a solve tells of each source's flux, relative to the catalogue's."""
MIN_MEMBERS = 5
"""Fewer sources tell no scale: two variable ones may be all."""
HUBER = 1.345
"""Deviations beyond this many sigma count linearly: 95 % of the efficiency of a mean, and extremes
move little (Huber 1981)."""
MEDIAN_ERROR = 1.25
"""Error of a median over that of a mean, for normal errors."""
MAX_SCATTER = 0.4
"""Sources that scatter more about the scale than this do not follow the catalogue."""
MIN_SCALE_SNR = 5.0
"""A sum over sources of a lower significance tells no scale."""
SIGMAS = 3.0
"""A scale farther from 1 than this many times its budget fails the gate `flux_scale`."""
USUAL_GROUP_ERROR, MAX_GROUP_ERROR = 0.03, 0.05
"""Of the scale of a single group, common to its sources: elevation, weather, system temperature. A
scale within the limit by the larger one only is marked; beyond that the set is refused."""
MAX_USUAL = 0.2
"""A larger |ln(scale)| is always marked, however large the expected error of an old set is, so that
factors of 1.3 and 0.77 are noticed. A field is marked too if it has too few sources for that, less
than about 15."""

MAX_ALLOWED = 0.7
"""A larger |ln(scale)| is always refused, however uncertain: the field is not where it should be,
or the data are not of this sky."""


@dataclass(frozen=True)
class EnsembleScale:
    """Measured over catalogue fluxes of a field."""

    scale: float
    error: float
    """1 sigma of `scale` by noise, by what single sources differ, and by the beam at each."""
    sources: int
    scatter: float
    """Relative, of single sources about the scale, 1.4826 x the median deviation."""


def measure_amplitudes(
    path: Path, ratio: Ratio, sky: SkyModel, factors: Factors
) -> tuple[FloatArray, FloatArray]:
    """Return calibrated over model flux of each source, and its error from noise, shape (K,).

    It is the least-squares fit of all sources together to some channels and integrations.
    `ratio` is of the Measurement Set at `path` and of `sky`; `factors` are its gains.
    """
    count, sources = sky.sources.ra_rad.size, sky.sources
    channels = slice(None, None, max(1, -(-sky.freq_hz.size // MAX_CHANNELS)))
    times = range(0, ratio.times_s.size, max(1, -(-ratio.times_s.size // MAX_TIMES)))
    band = np.where(factors.bandpass_flag, 0, factors.bandpass)[:, channels]
    gain = np.where(factors.gain_flag, 0, factors.gain)
    part = replace(
        sky, freq_hz=sky.freq_hz[channels], sources=_pick(sources, slice(None), channels)
    )
    normal, side = np.zeros((count, count)), np.zeros(count)
    with MeasurementSet(path) as ms:
        uvw_m = ms.rows.uvw_m[ms.rows.antenna1 != ms.rows.antenna2]  # the rows of `ratio`
    for time in times:
        here = np.flatnonzero(ratio.slot == time)
        ant1, ant2 = ratio.ant1[here], ratio.ant2[here]
        mjd = float(ratio.times_s[time]) / DAY_S
        positions = antenna_positions(uvw_m[here], ant1, ant2, ratio.antennas)
        # The model M that `ratio.product` was multiplied by, not the sum of the single sources'
        # models: `predict` decides by the flux of all its sources which of them it smears.
        total = predict_rows(part, positions, mjd, ant1, ant2)
        model = np.empty((count, total.size), np.complex64)
        for k in range(count):
            single = replace(part, sources=_pick(part.sources, slice(k, k + 1), slice(None)))
            model[k] = predict_rows(single, positions, mjd, ant1, ant2).ravel()
        g = (gain[time, ant1] * gain[time, ant2].conj())[:, None]
        g = g * band[ant1] * band[ant2].conj()
        power = ratio.power[here][:, channels]
        use = (power > 0) & (g != 0)
        weight = np.where(use, ratio.weight[ratio.pair[here]][:, None] * np.abs(g) ** 2, 0)
        data = ratio.product[here][:, channels] / np.where(use, g * total.conj()[..., None], 1)
        whole = weight.sum(axis=2).ravel()
        mean = np.sum(weight * np.where(use, data, 0), axis=2).ravel()
        root = np.sqrt(np.where(whole > 0, whole, 1)).astype(np.float32)
        mean, model = (mean / root).astype(np.complex64), model * np.where(whole > 0, root, 0)
        normal += (model.conj() @ model.T).real
        side += (model.conj() @ mean).real
    ridge = 1e-9 * np.trace(normal) / count * np.eye(count)
    inverse = np.linalg.inv(normal + ridge)
    return inverse @ side, np.sqrt(np.diag(inverse))


def _pick(sources: PointSources, which: slice, channels: slice) -> PointSources:
    """Return some sources at some channels."""
    flux_jy = sources.flux_jy[which, channels]
    return PointSources(sources.ra_rad[which], sources.dec_rad[which], flux_jy)


def ensemble_scale(
    amplitude: FloatArray, error: FloatArray, noise: FloatArray, beam_error: FloatArray
) -> EnsembleScale | None:
    """Return the common factor of sources whose fluxes scatter about the catalogue's.

    A robust mean (Huber's) with weights 1/sigma^2, in which each source has its `error`, its own
    scatter of `SOURCE_SCATTER` and the relative error of the beam at its place. Members are chosen
    by `noise`, the part of `error` that does not come from sources in no catalogue: those lower the
    weights of all sources of a field. None if there are fewer than `MIN_MEMBERS`.
    """
    spread = np.hypot(SOURCE_SCATTER, beam_error)
    member = np.isfinite(amplitude) & (noise < MAX_NOISE) & (beam_error < MAX_BEAM_ERROR)
    if np.count_nonzero(member) < MIN_MEMBERS:
        return None
    value, error, spread = amplitude[member], error[member], spread[member]
    scale = float(np.median(value))
    weight = np.ones(value.size)
    for _ in range(30):
        sigma = np.hypot(error, scale * spread)
        pull = np.abs(value - scale) / sigma
        weight = np.minimum(1.0, HUBER / np.maximum(pull, HUBER)) / sigma**2
        scale = float(np.average(value, weights=weight))
    expected = 1.03 * np.sum(sigma**-2) ** -0.5
    found = np.sqrt(np.sum((weight * (value - scale)) ** 2)) / np.sum(weight)
    # A catalogue of which half is wrong has two groups of values; the mean lies between them.
    # Good fields have no such scatter, and their error is left alone.
    typical = MAD_TO_SIGMA * float(np.median(np.abs(value - scale)))
    wide = MEDIAN_ERROR * typical / np.sqrt(value.size)
    doubtful = typical > MAX_SCATTER * abs(scale)
    whole = float(max(expected, found, wide if doubtful else 0.0))
    return EnsembleScale(scale, whole, value.size, typical / abs(scale))


def total_scale(residuals: Mapping[str, float], apparent_jy: FloatArray) -> EnsembleScale | None:
    """Return the scale of all sources of a field together, for fields with few members.

    `residuals` are those of `quality.measure_residuals`, whose scale weights sources by their
    apparent fluxes squared, so that the scatter of the brightest ones dominates its error. None if
    it is not significant.
    """
    scale, noise = residuals["scale"], residuals["scale_error"]
    if not noise * MIN_SCALE_SNR < max(abs(scale), 1.0):
        return None
    share = np.sqrt(np.sum(apparent_jy**4)) / np.sum(apparent_jy**2)
    error = float(np.hypot(noise, SOURCE_SCATTER * share * abs(scale)))
    return EnsembleScale(scale, error, 0, np.nan)


@dataclass(frozen=True)
class ScaleCheck:
    """The gate `flux_scale`: whether the field's sources agree with the scale of the gains."""

    told: EnsembleScale
    usual: float
    """Largest |ln scale| that is not marked."""
    allowed: float
    """Largest |ln scale| that is not refused."""
    resolution: float
    """Smallest |ln scale| that the field tells from 1."""

    @property
    def deviation(self) -> float:
        """Measured |ln scale|."""
        return abs(math.log(self.told.scale)) if self.told.scale > 0 else math.inf

    @property
    def holds(self) -> bool:
        """Whether the scale is within its budget."""
        return self.deviation <= self.allowed

    @property
    def good(self) -> bool:
        """Whether it is usual, and a wrong scale would be noticed."""
        return self.deviation <= self.usual and self.resolution <= MAX_USUAL

    def __str__(self) -> str:
        """Return numbers for a reader."""
        told, limits = self.told, f"{np.exp(-self.usual):.2f} to {np.exp(self.usual):.2f}"
        members = f"{told.sources} sources" if told.sources else "all sources together"
        words = f"{told.scale:.3g} +- {told.error:.2g} x the model by {members}; {limits} is usual"
        if self.deviation <= self.usual and self.resolution > MAX_USUAL:
            words += f", but here only a factor beyond {np.exp(self.resolution):.2f} would show"
        return words


def check_scale(phase: FieldPhase, budget: ScaleBudget) -> ScaleCheck | None:
    """Compare a field's scale with 1, given the expected error of the gains; None if unmeasured.

    The limits also allow for the field's own error, that of NVSS and that of a single group.
    """
    if phase.scale is None or phase.scale_error is None:
        return None
    told = EnsembleScale(phase.scale, phase.scale_error, phase.scale_sources, np.nan)
    own = told.error / abs(told.scale) if told.scale else np.inf
    usual, allowed, resolution = (
        SIGMAS * math.hypot(own, NVSS_SCALE_ERROR, *others)
        for others in (
            (budget.total, USUAL_GROUP_ERROR),
            (budget.total, MAX_GROUP_ERROR),
            (USUAL_GROUP_ERROR,),
        )
    )
    return ScaleCheck(told, min(usual, MAX_USUAL), min(allowed, MAX_ALLOWED), resolution)
