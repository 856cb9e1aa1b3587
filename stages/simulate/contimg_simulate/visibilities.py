"""Exact visibilities of point sources for an array that is fringe-stopped on the meridian.

Convention of the telescope's files: vis = conj(A) B with uvw = B - A. A plane wave from direction s
reaches an antenna at p by (p . s) / c earlier than the origin, so vis = sum of
S exp(+2 pi i nu (p_B - p_A) . (s - s0) / c), where s0 is the phase centre (hour angle 0 and the
Declination of the pointing), which moves with the sky inside each integration.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.runtime.compiled import compile_loops
from contimg_simulate.telescope import EARTH_RATE_RAD_S, Complexes64, Floats, Floats32, Integers


class Paths(NamedTuple):
    """How the signals of sources reach the antennas, each of shape (N, A)."""

    delay_s: Floats
    """Residual delays."""
    rate: Floats
    """Their rates, s/s."""
    turns: Floats
    """Phases besides that of the delay, in turns."""
    size_m: Floats
    """Gaussian sources: the visibility is exp(-(size_m nu/c)^2) for the difference of two antennas,
    the projection of a baseline on the axes of the source; shape (N, 2, A)."""

    def select(self, which: npt.NDArray[np.bool_]) -> Paths:
        """Return those of some sources."""
        return Paths(*(values[which] for values in self))


class _Smearing(NamedTuple):
    """Factors to half the phase inside an integration and channel, and to the size."""

    per_rate: float
    per_delay: float
    per_size: float


class Receivers(NamedTuple):
    """What the antennas do to a signal in one integration."""

    gain: Complexes64
    """Voltage gains, shape (A, channels, 2), correlator units per square root of Jy:
    vis = conj(gain_A) gain_B sky."""
    sigma: Floats32
    """Shape (A,): the product of two antennas' is the noise of the real part of their visibility,
    Jy."""
    system: Floats32
    """System equivalent flux density, which the autocorrelations show, shape (A,), Jy."""


def compute_delays(positions_m: Floats, offsets: Floats, turning: Floats) -> tuple[Floats, Floats]:
    """Return the residual delay (s) of each source at each antenna, and its rate (s/s): (N, A).

    From the antennas in the telescope's frame, (A, 3), and the unit vector of each source less that
    of the phase centre, (N, 3); `turning` is the part of it that turns with the sky about the pole,
    (N, 3): all of it for a source in the sky.
    """
    x, y, _ = turning.T
    moved = np.stack([y, -x, np.zeros_like(x)], axis=1) * EARTH_RATE_RAD_S
    return offsets @ positions_m.T / SPEED_OF_LIGHT_M_S, moved @ positions_m.T / SPEED_OF_LIGHT_M_S


def predict(
    paths: Paths,
    flux_jy: Floats32,
    frequency_hz: Floats,
    pairs: tuple[Integers, Integers],
    smear: tuple[float, float],
) -> Complexes64:
    """Return the visibilities of one integration, shape (baselines, channels), Jy.

    From the paths of N sources, apparent fluxes, (N, channels), and channel centres, (channels,).
    `pairs` are the indices of each baseline's first and second antenna; `smear` is the length (s)
    and width (Hz) over which the signal was averaged, 0 for none.

    The mean of exp(i phase) over an integration and a channel in which the phase is linear is the
    product of two sinc functions (Thompson, Moran & Swenson 2017, sections 6.3 and 6.4); the second
    derivative of the phase is 1e-6 of that.
    """
    out = np.zeros((len(pairs[0]), len(frequency_hz)), np.complex64)
    if len(paths.delay_s):
        middle = float(frequency_hz.mean())
        per_delay = math.pi * smear[1]
        smearing = _Smearing(
            per_rate=math.pi * smear[0] * middle,
            per_delay=per_delay,
            per_size=middle / SPEED_OF_LIGHT_M_S,
        )
        phasors = _compute_phasors(paths.delay_s, paths.turns, frequency_hz)
        detune = (frequency_hz / middle - 1).astype(np.float32)
        flux = np.ascontiguousarray(flux_jy.T)
        _add_sources(paths, smearing, flux, phasors, detune, pairs, out)
    return out


@compile_loops(nogil=True)
def _compute_phasors(
    delay_s: Floats, offset: Floats, frequency_hz: Floats
) -> tuple[Floats32, Floats32]:
    """Return cosine and sine of each antenna's phase, shape (A, channels, N)."""
    sources, antennas = delay_s.shape
    real = np.empty((antennas, frequency_hz.size, sources), np.float32)
    imaginary = np.empty((antennas, frequency_hz.size, sources), np.float32)
    for a in range(antennas):
        for c in range(frequency_hz.size):
            for s in range(sources):
                turns = delay_s[s, a] * frequency_hz[c] + offset[s, a]
                phase = 2 * math.pi * (turns - math.floor(turns))
                real[a, c, s] = math.cos(phase)
                imaginary[a, c, s] = math.sin(phase)
    return real, imaginary


@compile_loops()
def sinc_and_slope(x: float) -> tuple[float, float]:
    """Return sin(x)/x and cos(x) - sin(x)/x, x times its slope; a series to 1e-7, for speed."""
    y = x * x
    if y < 1.0:
        value = 1.0 - y / 6 * (1.0 - y / 20 * (1.0 - y / 42 * (1.0 - y / 72)))
        return value, -y / 3 * (1.0 - y / 10 * (1.0 - y / 28 * (1.0 - y / 54)))
    return math.sin(x) / x, math.cos(x) - math.sin(x) / x


@compile_loops(nogil=True, fastmath=True)
def _add_sources(
    paths: Paths,
    smearing: _Smearing,
    flux: Floats32,
    phasors: tuple[Floats32, Floats32],
    detune: Floats32,
    pairs: tuple[Integers, Integers],
    out: Complexes64,
) -> None:
    """Add every source to every baseline; the compiler vectorizes the inner loop over sources."""
    real, imaginary = phasors
    level, slope = np.empty(flux.shape[1], np.float32), np.empty(flux.shape[1], np.float32)
    for b in range(pairs[0].size):
        i, j = pairs[0][b], pairs[1][b]
        for s in range(level.size):
            in_time, bend = sinc_and_slope(
                smearing.per_rate * (paths.rate[s, j] - paths.rate[s, i])
            )
            delay_s = paths.delay_s[s, j] - paths.delay_s[s, i]
            in_band, _ = sinc_and_slope(smearing.per_delay * delay_s)
            # The phase goes with frequency: to first order across a subband, 0.4 % either way.
            level[s], slope[s] = in_time * in_band, bend * in_band
            wide = smearing.per_size * (paths.size_m[s, 0, j] - paths.size_m[s, 0, i])
            narrow = smearing.per_size * (paths.size_m[s, 1, j] - paths.size_m[s, 1, i])
            power = wide * wide + narrow * narrow
            if power > 0.0:
                left = math.exp(-power)
                slope[s] = left * (slope[s] - 2 * power * level[s])
                level[s] *= left
        for c in range(detune.size):
            ri, ii, rj, ij, row = real[i, c], imaginary[i, c], real[j, c], imaginary[j, c], flux[c]
            re, im = np.float32(0), np.float32(0)
            for s in range(level.size):
                weight = row[s] * (level[s] + slope[s] * detune[c])
                re += weight * (ri[s] * rj[s] + ii[s] * ij[s])
                im += weight * (ri[s] * ij[s] - ii[s] * rj[s])
            out[b, c] = complex(re, im)


@compile_loops(nogil=True, fastmath=True)
def receive(
    skies: tuple[Complexes64, Complexes64],
    receivers: Receivers,
    noise: Floats32,
    pairs: tuple[Integers, Integers],
    out: Complexes64,
) -> None:
    """Add system temperature and noise to one integration, and apply the gains.

    From the sky in XX and YY, each (baselines, channels), Jy, and normal numbers, (baselines,
    channels, 2, 2): by polarization, then real and imaginary part. `out`, (baselines, channels, 2),
    is filled.
    """
    gain, sigma, system = receivers
    root = np.float32(math.sqrt(2.0))
    for b in range(out.shape[0]):
        i, j = pairs[0][b], pairs[1][b]
        spread = sigma[i] * sigma[j]
        for c in range(out.shape[1]):
            for p in range(2):
                seen = skies[p][b, c]
                if i == j:
                    # A power is real; its scatter is that of both parts of a visibility together.
                    power = seen.real + system[i] + root * spread * noise[b, c, p, 0]
                    level = gain[i, c, p].real ** 2 + gain[i, c, p].imag ** 2
                    out[b, c, p] = complex(power * level, np.float32(0))
                else:
                    x, y = spread * noise[b, c, p, 0], spread * noise[b, c, p, 1]
                    signal = seen + complex(x, y)
                    out[b, c, p] = gain[i, c, p].conjugate() * gain[j, c, p] * signal
