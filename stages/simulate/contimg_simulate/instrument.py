"""What the instrument does to the sky's signal: beam, bandpass, delays, gains that drift, noise."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import j1

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_simulate.options import SimulateOptions
from contimg_simulate.telescope import Complexes, Floats

DISH_M = 4.65
MEAN_GAIN = 0.07
"""Correlator units per square root of Jy, for one antenna."""
SEFD_SPREAD_JY = 350.0
"""Antennas differ by this much either way."""
POLARIZATIONS = 2
BAND_CENTRE_HZ = 1405.0e6
BAND_HALF_HZ = 93.75e6
HOUR_STEPS = 512
"""Steps of the grid of an hour on which gains are known, 7 s each."""
MAX_MEMORY_TIMES = 12
"""Memory times after which an hour's disturbance is dropped (6e-6 of it is left)."""

# Streams of random numbers, all in one place, so that no two draw the same.
BANDPASS, DRIFT_HOUR, DRIFT_BRIDGE, FLUX_SCALE, SEFDS, POSITIONS = 1, 2, 3, 4, 5, 6


def airy_power(separation_rad: Floats, frequency_hz: Floats, dish_m: float = DISH_M) -> Floats:
    """Return the power of an Airy pattern, 1 on its axis: the beam of an unblocked 4.65 m dish.

    (2 J1(x) / x)^2 with x = pi D sin(separation) / wavelength (Born & Wolf, section 8.5.2); the
    shapes are broadcast.
    """
    x = np.pi * dish_m * np.sin(separation_rad) * frequency_hz / SPEED_OF_LIGHT_M_S
    central = np.abs(x) < 1e-6  # noqa: PLR2004 - the series is 1 - x^2/4 there
    safe = np.where(central, 1.0, x)
    return np.where(central, 1.0, (2 * j1(safe) / safe) ** 2)


@dataclass(frozen=True)
class Instrument:
    """All that a seed determines about the antennas, at any time."""

    options: SimulateOptions
    antennas: int
    """Number of antennas."""

    def bandpass(self, frequency_hz: Floats) -> Complexes:
        """Return the bandpass, (2, antennas, channels): correlator units per square root of Jy."""
        rng = np.random.default_rng([self.options.seed, BANDPASS])
        shape = (POLARIZATIONS, self.antennas, 1)
        x = (frequency_hz - BAND_CENTRE_HZ) / BAND_HALF_HZ
        level, slope, depth, place = (rng.normal(size=shape) for _ in range(4))
        tilt = 1 + 0.05 * slope * x + 0.03 * depth * np.cos(3 * np.pi * (x + place))
        amplitude = np.exp(0.12 * level) * tilt
        offset = rng.uniform(-np.pi, np.pi, shape)
        delay_s = rng.normal(0, self.options.delay_ns * 1e-9, shape)
        ripple = np.deg2rad(2.0) * rng.normal(size=shape)
        wave = ripple * np.sin(2 * np.pi * (x + rng.uniform(size=shape)))
        phase = offset - 2 * np.pi * delay_s * (frequency_hz - BAND_CENTRE_HZ) + wave
        return np.asarray(MEAN_GAIN * np.clip(amplitude, 0.3, 3.0) * np.exp(1j * phase))

    def gains(self, mjd: Floats) -> Complexes:
        """Return the drifting part of the gains at UTC dates, shape (2, antennas, T), near 1.

        Logarithm of amplitude, and phase, are Ornstein-Uhlenbeck processes: a random walk of the
        given drift for times that are short against the memory, and a scatter of drift x
        sqrt(memory / 2) for long ones. One seed is one process, so groups of one campaign agree
        with each other whichever is made first.
        """
        options, walks = self.options, []
        for hours in (24 * mjd).tolist():
            hour = math.floor(hours)
            path = _hour_path(options.seed, self.antennas, options.memory_h, hour)
            step, part = divmod((hours - hour) * HOUR_STEPS, 1)
            walks.append((1 - part) * path[int(step)] + part * path[int(step) + 1])
        walk = np.stack(walks, axis=-1)
        phase = 1j * np.deg2rad(options.phase_drift_deg) * walk[1]
        return np.asarray(np.exp(options.amplitude_drift * walk[0] + phase))

    def flux_scale(self, epoch: int) -> float:
        """Return the factor by which all fluxes of an epoch are off."""
        draw = np.random.default_rng([self.options.seed, FLUX_SCALE, epoch]).normal()
        return float(np.exp(self.options.flux_scale_error * draw))

    def position_errors_m(self, rms_m: float) -> Floats:
        """Return the antennas' true positions less those of the files, (antennas, 3), m."""
        rng = np.random.default_rng([self.options.seed, POSITIONS])
        return rng.normal(0, rms_m, (self.antennas, 3))

    def sefds_jy(self) -> Floats:
        """Return the system equivalent flux density of each antenna, shape (antennas,)."""
        rng = np.random.default_rng([self.options.seed, SEFDS])
        spread = rng.uniform(-SEFD_SPREAD_JY, SEFD_SPREAD_JY, self.antennas)
        mean = self.options.sefd_jy
        return np.asarray(mean + spread * (mean > SEFD_SPREAD_JY))


@functools.lru_cache(maxsize=8)
def _hour_path(seed: int, antennas: int, memory_h: float, hour: int) -> Floats:
    """Return the process of drift 1 per sqrt(hour) on an hour's grid, (513, 2, 2, antennas)."""
    kept = np.exp(-1 / memory_h)
    sigma = np.sqrt(memory_h / 2 * (1 - kept**2))
    ends = []
    for end in (hour, hour + 1):  # what earlier hours have left
        total = np.zeros((2, POLARIZATIONS, antennas))
        for earlier in range(end - math.ceil(MAX_MEMORY_TIMES * memory_h), end + 1):
            rng = np.random.default_rng([seed, DRIFT_HOUR, earlier])
            total = kept * total + rng.normal(0, sigma, total.shape)
        ends.append(total)
    rng = np.random.default_rng([seed, DRIFT_BRIDGE, hour])
    steps = rng.normal(0, HOUR_STEPS**-0.5, (HOUR_STEPS, 2, POLARIZATIONS, antennas))
    walk = np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
    part = np.linspace(0, 1, HOUR_STEPS + 1)[:, None, None, None]
    # A random walk that is tied down at both ends (a Brownian bridge) joins the two hours.
    return np.asarray((1 - part) * ends[0] + part * ends[1] + walk - part * walk[-1])
