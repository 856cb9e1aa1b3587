"""How a source's flux changes: steady, a flare, or a plasma lens that crosses the line of sight."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from contimg_simulate.frame import Floats

LENS_FREQUENCY_HZ = 1.4e9
"""The frequency at which a lens's strength is given."""


class _Curve(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Steady(_Curve):
    """A flux that never changes."""

    kind: Literal["steady"] = "steady"

    def factor(self, _mjd: float, frequency_hz: Floats) -> Floats:
        """Return the flux over its quiet value, one per frequency."""
        return np.ones_like(frequency_hz)


class Flare(_Curve):
    """An intrinsic flare: exponential rise and slower fall, alike at all frequencies."""

    kind: Literal["flare"] = "flare"
    peak_mjd: float
    amplitude: float = Field(default=0.6, gt=-1)
    """Rise at the peak over the quiet flux."""
    rise_days: float = Field(default=5.0, gt=0)
    decay_days: float = Field(default=12.0, gt=0)

    def factor(self, mjd: float, frequency_hz: Floats) -> Floats:
        """Return the flux over its quiet value, one per frequency."""
        since = mjd - self.peak_mjd
        shape = np.exp(since / self.rise_days) if since < 0 else np.exp(-since / self.decay_days)
        return np.full_like(frequency_hz, 1 + self.amplitude * shape)


class Lens(_Curve):
    """A one-dimensional Gaussian plasma lens (Clegg, Fey & Lazio 1998, ApJ 496, 253)."""

    kind: Literal["lens"] = "lens"
    centre_mjd: float
    """When the lens is in front of the source."""
    crossing_days: float = Field(default=13.0, gt=0)
    """Time in which the lens moves by its own 1/e half-width."""
    strength: float = Field(default=1.2, gt=0)
    """Their alpha at 1.4 GHz; it goes with the wavelength squared."""
    source_size: float = Field(default=0.3, gt=0)
    """Gaussian sigma of the source in units of the lens's half-width; smooths the caustics."""

    def factor(self, mjd: float, frequency_hz: Floats) -> Floats:
        """Return the flux over its unlensed value, one per frequency."""
        offset = (mjd - self.centre_mjd) / self.crossing_days
        strength = self.strength * (LENS_FREQUENCY_HZ / frequency_hz) ** 2
        return lens_gain(np.full_like(frequency_hz, offset), strength, self.source_size)


Curve = Annotated[Steady | Flare | Lens, Field(discriminator="kind")]


def lens_gain(offset: Floats, strength: Floats, source_size: float) -> Floats:
    """Return the magnification of a Gaussian source behind a one-dimensional Gaussian plasma lens.

    Parameters
    ----------
    offset
        Distance of the source from the lens's axis in units of the lens's half-width, shape (N,).
    strength
        The lens's alpha, shape (N,).
    source_size
        Gaussian sigma of the source, same unit as `offset`.

    Notes
    -----
    A ray that crosses the lens plane at u comes from u' = u (1 + alpha exp(-u^2)) (their equation
    6). The sum over images of gain times brightness (their equation 10) is the integral over u of
    the source's brightness at u', which has no caustics to step over.
    """
    reach = np.abs(offset).max() + 12 * source_size + 1
    step = source_size / 40
    rays = np.arange(-reach, reach + step, step)
    origin = rays * (1 + strength[:, None] * np.exp(-(rays**2)))
    brightness = np.exp(-0.5 * ((origin - offset[:, None]) / source_size) ** 2)
    return np.asarray(brightness.sum(axis=1) * step / (source_size * np.sqrt(2 * np.pi)))
