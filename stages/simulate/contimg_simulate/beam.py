"""The simulator's own primary beam: an unblocked, uniformly lit dish of 4.65 m."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import j1

from contimg.astro.constants import SPEED_OF_LIGHT_M_S

Floats = npt.NDArray[np.float64]

DISH_M = 4.65


def airy_power(separation_rad: Floats, frequency_hz: Floats) -> Floats:
    """Return the power of an Airy pattern, 1 on its axis, with the shapes broadcast.

    (2 J1(x) / x)^2 with x = pi D sin(separation) / wavelength (Born & Wolf, section 8.5.2).
    """
    x = np.pi * DISH_M * np.sin(separation_rad) * frequency_hz / SPEED_OF_LIGHT_M_S
    safe = np.where(np.abs(x) < 1e-6, 1.0, x)  # noqa: PLR2004 - the series is 1 - x^2/4 there
    return np.where(np.abs(x) < 1e-6, 1.0, (2 * j1(safe) / safe) ** 2)  # noqa: PLR2004
