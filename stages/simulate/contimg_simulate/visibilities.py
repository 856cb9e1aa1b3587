"""Exact visibilities of point sources for an array that is fringe-stopped on the meridian.

Convention of the telescope's files: vis = conj(A) B with uvw = B - A. A plane wave from direction s reaches an antenna at
p by (p . s) / c earlier than the origin, so that vis = sum of S exp(+2 pi i nu (p_B - p_A) . (s - s0) / c), where s0 is the
phase centre (hour angle 0 and the pointing's Declination), which moves with the sky inside each integration.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from contimg_simulate.beam import LIGHT_M_S
from contimg_simulate.frame import EARTH_RATE_RAD_S

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Complexes64 = npt.NDArray[np.complex64]


def delays(positions_m: Floats, offsets: Floats, turning: Floats) -> tuple[Floats, Floats]:
    """Return each source's residual delay at each antenna and its rate.

    Parameters
    ----------
    positions_m
        Antennas in the telescope's frame, shape (A, 3).
    offsets
        Unit vector of the source minus that of the phase centre, shape (N, 3).
    turning
        The part of `offsets` that turns with the sky about the pole, shape (N, 3): all of it for a source in the sky.

    Returns
    -------
    Delay, seconds, and its rate, s/s, both of shape (N, A).
    """
    x, y, _ = turning.T
    moved = np.stack([y, -x, np.zeros_like(x)], axis=1) * EARTH_RATE_RAD_S
    return offsets @ positions_m.T / LIGHT_M_S, moved @ positions_m.T / LIGHT_M_S


def predict(
    delay_s: Floats, rate: Floats, flux_jy: Floats32, frequency_hz: Floats, pairs: tuple[Integers, Integers], smear: tuple[float, float]
) -> Complexes64:
    """Return the visibilities of one integration, shape (baselines, channels), Jy.

    Parameters
    ----------
    delay_s, rate
        From `delays`, shape (N, A).
    flux_jy
        Apparent flux, shape (N, channels).
    frequency_hz
        Channel centres, shape (channels,).
    pairs
        Index of the first and of the second antenna of each baseline.
    smear
        Length of the integration (s) and width of a channel (Hz) over which the signal was averaged; 0 for none.

    Notes
    -----
    The mean of exp(i phase) over an integration and a channel in which the phase is linear is the product of two sinc
    functions (Thompson, Moran & Swenson 2017, sections 6.3 and 6.4); the second derivative of the phase is 1e-6 of that.
    """
    out = np.zeros((len(pairs[0]), len(frequency_hz)), np.complex64)
    if len(delay_s):
        real, imaginary = _phasors(delay_s, frequency_hz)
        half = math.pi * smear[0], math.pi * smear[1]
        _accumulate(delay_s, rate, flux_jy, real, imaginary, frequency_hz, pairs[0], pairs[1], half, out)
    return out


@njit(cache=True)  # type: ignore[untyped-decorator]
def _phasors(delay_s: Floats, frequency_hz: Floats) -> tuple[Floats32, Floats32]:
    """Return cosine and sine of each antenna's phase, shape (N, A, channels)."""
    sources, antennas = delay_s.shape
    real = np.empty((sources, antennas, frequency_hz.size), np.float32)
    imaginary = np.empty((sources, antennas, frequency_hz.size), np.float32)
    for s in range(sources):
        for a in range(antennas):
            for c in range(frequency_hz.size):
                turns = delay_s[s, a] * frequency_hz[c]
                phase = 2 * math.pi * (turns - math.floor(turns))
                real[s, a, c] = math.cos(phase)
                imaginary[s, a, c] = math.sin(phase)
    return real, imaginary


@njit(cache=True)  # type: ignore[untyped-decorator]
def _sinc(x: float) -> float:
    return 1.0 - x * x / 6 if abs(x) < 1e-4 else math.sin(x) / x  # noqa: PLR2004 - the series is exact there


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _accumulate(
    delay_s: Floats, rate: Floats, flux: Floats32, real: Floats32, imaginary: Floats32, frequency_hz: Floats,
    first: Integers, second: Integers, half: tuple[float, float], out: Complexes64,
) -> None:  # fmt: skip
    """Add every source to every baseline; the inner loop runs along channels so that the compiler makes it SIMD."""
    channels = frequency_hz.size
    centre = frequency_hz.mean()
    detune = ((frequency_hz - centre) / centre).astype(np.float32)
    re, im = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for b in range(first.size):
        i, j = first[b], second[b]
        re[:] = 0
        im[:] = 0
        for s in range(delay_s.shape[0]):
            x = half[0] * (rate[s, j] - rate[s, i]) * centre
            in_time, in_band = _sinc(x), _sinc(half[1] * (delay_s[s, j] - delay_s[s, i]))
            # x goes with frequency: to first order across the subband, which is 0.4 % either way.
            level, slope = np.float32(in_time * in_band), np.float32((math.cos(x) - in_time) * in_band)
            for c in range(channels):
                weight = flux[s, c] * (level + slope * detune[c])
                re[c] += weight * (real[s, i, c] * real[s, j, c] + imaginary[s, i, c] * imaginary[s, j, c])
                im[c] += weight * (real[s, i, c] * imaginary[s, j, c] - imaginary[s, i, c] * real[s, j, c])
        for c in range(channels):
            out[b, c] = complex(re[c], im[c])


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def receive(
    sky: Complexes64, gain: Complexes64, noise: Floats32, sigma: Floats32, system: Floats32, first: Integers, second: Integers, out: Complexes64
) -> None:
    """Turn one integration's visibilities into what the correlator writes: gains, system temperature and noise.

    Parameters
    ----------
    sky
        Shape (baselines, channels), Jy.
    gain
        Voltage gains, shape (A, channels, 2), correlator units per square root of Jy; an antenna's voltage is gain times
        field, so that vis = conj(gain_A) gain_B sky.
    noise
        Normal numbers, shape (baselines, channels, 2, 2): polarization, then real and imaginary part.
    sigma
        Square root of each antenna's noise of a visibility's real part, shape (A,): the product of two is that of their baseline, Jy.
    system
        Each antenna's system equivalent flux density, which its autocorrelation shows, shape (A,), Jy.
    out
        Shape (baselines, channels, 2), filled.
    """
    root = np.float32(math.sqrt(2.0))
    for b in range(first.size):
        i, j = first[b], second[b]
        spread = sigma[i] * sigma[j]
        for c in range(sky.shape[1]):
            for p in range(2):
                if i == j:
                    # A power is real, and its scatter is that of a complex visibility's both parts together.
                    power = sky[b, c].real + system[i] + root * spread * noise[b, c, p, 0]
                    level = gain[i, c, p].real ** 2 + gain[i, c, p].imag ** 2
                    out[b, c, p] = complex(power * level, np.float32(0))
                else:
                    field = sky[b, c] + complex(spread * noise[b, c, p, 0], spread * noise[b, c, p, 1])
                    out[b, c, p] = gain[i, c, p].conjugate() * gain[j, c, p] * field
