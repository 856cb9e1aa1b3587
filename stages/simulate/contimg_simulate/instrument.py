"""What the electronics do to the sky's signal: bandpass, delays, gains that drift, and a flux scale that is a little off."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]

MEAN_GAIN = 0.07
"""Correlator units per square root of Jy, for one antenna."""
SEFD_SPREAD_JY = 350.0
"""Antennas differ by this much either way."""
POLARIZATIONS = 2
BAND_CENTRE_HZ = 1405.0e6
BAND_HALF_HZ = 93.75e6
HOUR_STEPS = 512
"""Steps of the grid of an hour on which gains are known, 7 s each."""
FORGOTTEN = 12
"""Memory times after which an hour's disturbance is dropped (6e-6 of it is left)."""

# Streams of random numbers: one place, so that no two draw the same.
BANDPASS, DRIFT_HOUR, DRIFT_BRIDGE, FLUX_SCALE, SEFDS = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Instrument:
    """All that a seed fixes about the antennas, at any time."""

    seed: int
    antennas: int
    amplitude_drift: float
    """Fractional amplitude drift, per square root of an hour."""
    phase_drift_deg: float
    """Phase drift, degrees per square root of an hour."""
    memory_h: float
    """Time after which a gain has forgotten where it was; for less, it is a random walk."""
    delay_ns: float
    """Rms of the antennas' residual delays."""
    flux_scale_error: float
    """Rms of the common flux-scale error of an epoch."""
    sefd_jy: float

    def bandpass(self, frequency_hz: Floats) -> Complexes:
        """Return the bandpass, shape (2, antennas, channels): correlator units per square root of Jy."""
        rng = np.random.default_rng([self.seed, BANDPASS])
        shape = (POLARIZATIONS, self.antennas, 1)
        x = (frequency_hz - BAND_CENTRE_HZ) / BAND_HALF_HZ
        level, slope, depth, place = (rng.normal(size=shape) for _ in range(4))
        amplitude = np.exp(0.12 * level) * (
            1 + 0.05 * slope * x + 0.03 * depth * np.cos(3 * np.pi * (x + place))
        )
        offset, delay_s = (
            rng.uniform(-np.pi, np.pi, shape),
            rng.normal(0, self.delay_ns * 1e-9, shape),
        )
        wave = (
            np.deg2rad(2.0)
            * rng.normal(size=shape)
            * np.sin(2 * np.pi * (x + rng.uniform(size=shape)))
        )
        phase = offset - 2 * np.pi * delay_s * (frequency_hz - BAND_CENTRE_HZ) + wave
        return np.asarray(MEAN_GAIN * np.clip(amplitude, 0.3, 3.0) * np.exp(1j * phase))

    def gains(self, mjd: Floats) -> Complexes:
        """Return the drifting part of the gains at UTC dates, shape (2, antennas, T), near 1.

        Logarithm of amplitude, and phase, are Ornstein-Uhlenbeck processes: a random walk of the given drift for
        times that are short against the memory, and a scatter of drift x sqrt(memory / 2) for long ones. One seed is
        one process, so that groups of one campaign agree with each other whichever is made first.
        """
        walk = np.stack([self._walk(float(t) * 24) for t in mjd], axis=-1)
        return np.asarray(
            np.exp(self.amplitude_drift * walk[0] + 1j * np.deg2rad(self.phase_drift_deg) * walk[1])
        )

    def flux_scale(self, epoch: int) -> float:
        """Return the factor by which all fluxes of an epoch are off."""
        return float(
            np.exp(
                self.flux_scale_error
                * np.random.default_rng([self.seed, FLUX_SCALE, epoch]).normal()
            )
        )

    def sefds_jy(self) -> Floats:
        """Return each antenna's system equivalent flux density, shape (antennas,)."""
        spread = np.random.default_rng([self.seed, SEFDS]).uniform(
            -SEFD_SPREAD_JY, SEFD_SPREAD_JY, self.antennas
        )
        return np.asarray(self.sefd_jy + spread * (self.sefd_jy > SEFD_SPREAD_JY))

    def _walk(self, hours: float) -> Floats:
        """Return the unit process (drift 1 per square root of an hour) at one time, shape (2, 2, antennas)."""
        hour = int(np.floor(hours))
        path = _hour_path(self.seed, self.antennas, self.memory_h, hour)
        step, part = divmod((hours - hour) * HOUR_STEPS, 1)
        return np.asarray((1 - part) * path[int(step)] + part * path[int(step) + 1])


@functools.lru_cache(maxsize=8)
def _hour_path(seed: int, antennas: int, memory_h: float, hour: int) -> Floats:
    """Return the unit process on the grid of one hour, both ends included, shape (HOUR_STEPS + 1, 2, 2, antennas)."""
    ends = [_at_hour(seed, antennas, memory_h, at) for at in (hour, hour + 1)]
    rng = np.random.default_rng([seed, DRIFT_BRIDGE, hour])
    steps = rng.normal(0, HOUR_STEPS**-0.5, (HOUR_STEPS, 2, POLARIZATIONS, antennas))
    walk = np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
    part = np.linspace(0, 1, HOUR_STEPS + 1)[:, None, None, None]
    # A random walk that is tied down at both ends (a Brownian bridge) joins one hour's value to the next one's.
    return np.asarray((1 - part) * ends[0] + part * ends[1] + walk - part * walk[-1])


@functools.lru_cache(maxsize=32)
def _at_hour(seed: int, antennas: int, memory_h: float, hour: int) -> Floats:
    """Return the unit process at a whole hour, shape (2, 2, antennas): the sum of what each earlier hour's disturbance left."""
    kept = np.exp(-1 / memory_h)
    sigma = np.sqrt(memory_h / 2 * (1 - kept**2))
    total = np.zeros((2, POLARIZATIONS, antennas))
    for earlier in range(hour - math.ceil(FORGOTTEN * memory_h), hour + 1):
        total = kept * total + np.random.default_rng([seed, DRIFT_HOUR, earlier]).normal(
            0, sigma, total.shape
        )
    return total
