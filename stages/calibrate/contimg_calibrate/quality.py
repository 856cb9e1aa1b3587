"""Whether solutions can be trusted: how many are flagged, how their amplitudes scatter, what they leave of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contimg.runtime.errors import SolveFailedError

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.gains import CalTable, Factors
    from contimg_calibrate.visibilities import Ratio

    FloatArray = npt.NDArray[np.float64]
    FlagArray = npt.NDArray[np.bool_]

ODD_FACTOR = 5.0
"""An antenna's amplitude is odd if it is so far from the median, either way."""
MAX_ODD = 0.1
"""A solve fails with a larger share of odd antennas: they mean a wrong model or no signal."""
MAX_AMPLITUDE_RMS, MAX_PHASE_RMS_DEG = 0.3, 20.0
"""A solve fails if what it leaves on a baseline, mean over the group, scatters more than this beyond its noise."""


def flagged(table: CalTable, has_data: FlagArray, has_band: FlagArray | None = None) -> float:
    """Return the flagged share of solutions, of antennas (and channels) that have data: what does not exist is not flagged."""
    flags = table.flag[:, has_data]
    if has_band is not None and table.kind == "B":
        flags = flags[:, :, has_band]
    return float(flags.mean()) if flags.size else 1.0


def leftover(
    ratio: Ratio, top: npt.NDArray[np.complex64], bottom: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Return how calibrated data over model scatter from baseline to baseline, weighted.

    `top`, `bottom` are X and Y of each row after all gains, shape (R, P).
    """
    pairs, pols = len(ratio.pairs), bottom.shape[1]
    x, y = np.zeros((pairs, pols), complex), np.zeros((pairs, pols))
    np.add.at(x, ratio.pair, top)
    np.add.at(y, ratio.pair, bottom)
    have = y > 0
    if not have.any():
        return {
            "scale": 0.0,
            "scale_error": np.inf,
            "amplitude_rms": np.inf,
            "phase_rms_deg": np.inf,
            "expected_rms": np.inf,
        }
    mean, weight = x[have] / y[have], y[have]
    centre = float(np.average(mean.real, weights=weight))
    return {
        "scale": centre,
        "scale_error": float(weight.sum() ** -0.5),
        "amplitude_rms": float(np.sqrt(np.average((np.abs(mean) - centre) ** 2, weights=weight))),
        "phase_rms_deg": float(
            np.degrees(np.sqrt(np.average(np.angle(mean) ** 2, weights=weight)))
        ),
        "expected_rms": float(np.sqrt(weight.size / weight.sum())),
    }


def judge_solution(
    where: str,
    tables: dict[str, CalTable],
    health: FloatArray,
    left: dict[str, float],
    max_flagged: float,
    band: FlagArray,
) -> dict[str, float]:
    """Return what may be said of a solution.

    Parameters
    ----------
    where
        Name of the group.
    tables
        By role; `bandpass` and `gain` at least.
    health
        Share of unflagged data of each antenna.
    left
        What `leftover` says after all tables.
    max_flagged
        Share of flagged solutions that is too many.
    band
        Channels that have data.

    Raises
    ------
    SolveFailedError
        If the solution cannot be trusted. There is no identity table to fall back to.
    """
    alive = health > 0
    remedy = "Look at the flags, the model's flux and solutions.npz of an earlier set."
    shares = {role: flagged(table, alive, band) for role, table in tables.items()}
    worst = max(shares, key=lambda role: shares[role])
    if shares[worst] > max_flagged:
        raise SolveFailedError(
            where,
            f"expected at most {max_flagged:.0%} flagged solutions, found {shares[worst]:.1%} in {worst}.",
            remedy,
        )
    amplitude, odd = amplitudes(tables, alive)
    if odd > MAX_ODD:
        wanted = (
            f"antenna gains within a factor {ODD_FACTOR:g} of their median, but for {MAX_ODD:.0%}"
        )
        raise SolveFailedError(where, f"expected {wanted}, found {odd:.1%} beyond.", remedy)
    noise = left["expected_rms"]
    if left["amplitude_rms"] > MAX_AMPLITUDE_RMS + 3 * noise or left[
        "phase_rms_deg"
    ] > MAX_PHASE_RMS_DEG + 3 * np.degrees(noise):
        wanted = (
            f"baselines within {MAX_AMPLITUDE_RMS} and {MAX_PHASE_RMS_DEG:g} deg rms of the model"
        )
        found = f"{left['amplitude_rms']:.2f} and {left['phase_rms_deg']:.0f} deg"
        raise SolveFailedError(where, f"expected {wanted}, found {found}.", remedy)
    return {
        "amplitude_median": amplitude,
        "odd_antennas": odd,
        **{f"flagged_{role}": share for role, share in shares.items()},
        **left,
    }


def amplitudes(tables: dict[str, CalTable], alive: FlagArray) -> tuple[float, float]:
    """Return the median amplitude of the gain table, and the share of antennas that are odd."""
    gain = tables["gain"]
    size = np.abs(gain.value[:, alive, 0, :])[~gain.flag[:, alive, 0, :]]
    middle = float(np.median(size)) if size.size else 0.0
    if not (np.isfinite(middle) and middle > 0):
        return 0.0, 1.0
    return middle, float(np.mean((size > ODD_FACTOR * middle) | (size < middle / ODD_FACTOR)))


def phase_error_rad(ratio: Ratio, bottom: npt.NDArray[np.float32], antennas: int) -> float:
    """Return the error of one antenna's phase from noise, median over antennas and polarizations, when all rows are one solution.

    The curvature of chi square in one antenna's phase is the sum of Y over its baselines.
    """
    known = np.zeros((antennas, bottom.shape[1]))
    for antenna in (ratio.ant1, ratio.ant2):
        np.add.at(known, antenna, bottom)
    have = known[known > 0]
    return float(np.median(have) ** -0.5) if have.size else np.inf


def gain_factor(
    factors: Factors, rows: tuple[npt.NDArray[np.int64], ...]
) -> npt.NDArray[np.complex64]:
    """Return g_i conj(g_j) of rows (slot, ant1, ant2), shape (R, P), 0 where flagged; the bandpass is not in it."""
    slot, ant1, ant2 = rows
    gain = np.where(factors.gain_flag, 0, factors.gain)
    return np.asarray(gain[slot, ant1] * gain[slot, ant2].conj(), np.complex64)
