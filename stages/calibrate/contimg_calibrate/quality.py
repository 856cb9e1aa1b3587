"""Checks of solutions: how many are flagged, how amplitudes scatter, what is left of the model."""

from __future__ import annotations

import numpy as np

from contimg.astro.gains import CalTable, ComplexArray, FlagArray, FloatArray
from contimg.runtime.errors import SolveFailedError
from contimg_calibrate.visibilities import Float32Array, Ratio

MIN_STEP_SNR = 10.0
"""An integration whose scale is less certain is not compared with its neighbours."""
MAX_DISAGREEMENT = 0.1
"""Phases turn if the amplitudes of baselines change otherwise than their sum by more than this."""
ODD_FACTOR = 5.0
"""An antenna is odd if its amplitude differs from the median by more than this factor."""
MAX_ODD_FRACTION = 0.1
"""A solve with more odd antennas fails: they indicate a wrong model or no signal."""
MAX_AMPLITUDE_RMS, MAX_PHASE_RMS_DEG = 0.3, 20.0
"""A solve fails if the mean over the group of calibrated data over model scatters more than this
from baseline to baseline, beyond its noise."""


def measure_residuals(ratio: Ratio, x: ComplexArray, y: Float32Array) -> dict[str, float]:
    """Return how calibrated data over model scatter from baseline to baseline, weighted.

    `x`, `y` are X and Y of each row after all gains, shape (R, P). ``gain_step`` is the largest
    relative change of the scale from one integration to the next.
    """
    shape = len(ratio.pairs), y.shape[1]
    x_sum, y_sum = np.zeros(shape, complex), np.zeros(shape)
    np.add.at(x_sum, ratio.pair, x)
    np.add.at(y_sum, ratio.pair, y)
    have = y_sum > 0
    if not have.any():
        names = ("scale_error", "amplitude_rms", "phase_rms_deg", "expected_rms")
        return {"scale": 0.0, "gain_step": 0.0, **dict.fromkeys(names, np.inf)}
    mean, weight = x_sum[have] / y_sum[have], y_sum[have]
    scale = float(np.average(mean.real, weights=weight))
    phase_rms = np.sqrt(np.average(np.angle(mean) ** 2, weights=weight))
    return {
        "scale": scale,
        "scale_error": float(weight.sum() ** -0.5),
        "amplitude_rms": float(np.sqrt(np.average((np.abs(mean) - scale) ** 2, weights=weight))),
        "phase_rms_deg": float(np.degrees(phase_rms)),
        "expected_rms": float(np.sqrt(weight.size / weight.sum())),
        "gain_step": _measure_step(ratio, x, y),
    }


def _measure_step(ratio: Ratio, x: ComplexArray, y: Float32Array) -> float:
    """Return the largest relative change of the scale X/Y between neighbouring integrations.

    A trend of the whole group is no step: a beam that points elsewhere makes one as sources drift.
    Nor is a change of phases, such as an atmosphere makes within a solution interval: where single
    baselines stand out of the noise, their amplitudes must change as their sum does.
    """
    count = ratio.times_s.size
    signal, power, square, weight = (
        np.bincount(ratio.slot, values.sum(axis=1, dtype=float), count)
        for values in (x.real, y, np.abs(x) ** 2 - 2 * y, y.astype(float) ** 2)
    )
    told = signal > MIN_STEP_SNR * np.sqrt(power)
    change = np.diff(np.log(signal[told] / power[told]))
    if not change.size:
        return 0.0
    change -= np.median(change)
    if np.all(square[told] > MIN_STEP_SNR * 2 * np.sqrt(weight[told])):
        amplitude = np.diff(np.log(square[told] / weight[told])) / 2
        amplitude -= np.median(amplitude)
        change = np.where(np.abs(amplitude - change) > MAX_DISAGREEMENT, amplitude, change)
    return float(np.expm1(change[np.abs(change).argmax()]))


def check_solution(
    where: str,
    tables: dict[str, CalTable],
    health: FloatArray,
    residuals: dict[str, float],
    max_flagged: float,
    band: FlagArray,
) -> dict[str, float]:
    """Return quality.json of a solution of the group `where`.

    `tables` has at least the roles bandpass and gain; `health` is the fraction of unflagged data of
    each antenna, `residuals` what `measure_residuals` returns after all tables, `max_flagged` the
    largest acceptable fraction of flagged solutions, and `band` the channels that have data.

    Raises SolveFailedError if the solution cannot be trusted. There is no identity table to fall
    back to.
    """
    alive, flagged = health > 0, {}
    for role, table in tables.items():
        flags = table.flag[:, alive]
        if table.kind == "B":
            flags = flags[:, :, band]
        flagged[role] = float(flags.mean()) if flags.size else 1.0
    worst = max(flagged, key=lambda role: flagged[role])
    gain = tables["gain"]
    size = np.abs(gain.value[:, alive, 0, :])[~gain.flag[:, alive, 0, :]]
    amplitude, odd = 0.0, 1.0
    if size.size and 0 < np.median(size) < np.inf:
        amplitude = float(np.median(size))
        odd = float(np.mean((size > ODD_FACTOR * amplitude) | (size < amplitude / ODD_FACTOR)))
    names = ("expected_rms", "amplitude_rms", "phase_rms_deg")
    noise, rms, rms_deg = (residuals[name] for name in names)
    max_rms, max_rms_deg = MAX_AMPLITUDE_RMS + 3 * noise, MAX_PHASE_RMS_DEG + 3 * np.degrees(noise)
    problem = ""
    if flagged[worst] > max_flagged:
        limit = f"at most {max_flagged:.0%} flagged solutions are accepted"
        problem = f"{flagged[worst]:.1%} of the {worst} solutions are flagged; {limit}."
    elif odd > MAX_ODD_FRACTION:
        limit = f"within a factor {ODD_FACTOR:g} of their median"
        problem = f"{odd:.1%} of the antenna gains are not {limit} (limit {MAX_ODD_FRACTION:.0%})."
    elif rms > max_rms or rms_deg > max_rms_deg:
        limit = f"{MAX_AMPLITUDE_RMS} and {MAX_PHASE_RMS_DEG:g} deg are accepted"
        found = f"{rms:.2f} and {rms_deg:.0f} deg rms about the model"
        problem = f"Calibrated baselines scatter by {found}; {limit}."
    if problem:
        remedy = "Look at the flags, the model's flux and solutions.npz of an earlier set."
        raise SolveFailedError(where, problem, remedy)
    fractions = {f"flagged_{role}": fraction for role, fraction in flagged.items()}
    return {"amplitude_median": amplitude, "odd_antennas": odd, **fractions, **residuals}


def phase_error_rad(ratio: Ratio, y: Float32Array) -> float:
    """Return the error of one antenna's phase from noise, if all rows share one solution.

    It is the median over antennas and polarizations. The curvature of chi square in one antenna's
    phase is the sum of Y over its baselines.
    """
    curvature = np.zeros((ratio.antennas, y.shape[1]))
    for antenna in (ratio.ant1, ratio.ant2):
        np.add.at(curvature, antenna, y)
    known = curvature[curvature > 0]
    return float(np.median(known) ** -0.5) if known.size else np.inf
