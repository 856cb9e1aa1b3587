"""What goes wrong at the telescope: interference, dead antennas, lost packets, broken files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contimg.runtime.errors import UsageError
from contimg_simulate.array import SUBBANDS, DataScale, StationArray
from contimg_simulate.frame import LATITUDE_DEG, Booleans, Floats
from contimg_simulate.options import SimulateOptions

CARRIERS = 6
"""Narrow emitters of a group; there is one burst."""
CARRIER_JY, BURST_JY = (30.0, 300.0), (30.0, 100.0)
"""Least and greatest flux of an emitter, as an antenna's sidelobes let it in."""
BURST_FRACTION = 0.25
"""Part of the band that a burst covers."""
LEFT_OF_FILE = {"empty": 0.0, "truncated": 142_348_126 / 145_348_600}
"""Part of a damaged file that is left; that of a truncated one was once seen."""


@dataclass(frozen=True, kw_only=True)
class Emitter:
    """Something that radiates from the horizon."""

    direction: Floats
    """Unit vector in the telescope's frame, shape (3,)."""
    flux_jy: float
    on: Booleans
    """When and where, shape (T, channels of the band, ascending)."""


def draw_emitters(kind: str, scale: DataScale, rng: np.random.Generator) -> list[Emitter]:
    """Draw a group's interference: carriers, then a burst.

    A carrier has 1 or 2 channels for half of the group or longer, a burst one integration.
    """
    times, channels = scale.integrations, SUBBANDS * scale.channels
    latitude, emitters = np.deg2rad(LATITUDE_DEG), []
    bursts = [False] * CARRIERS * (kind in {"narrow", "both"}) + [True] * (
        kind in {"burst", "both"}
    )
    for burst in bursts:
        azimuth = rng.uniform(0, 2 * np.pi)
        north, east = np.cos(azimuth), np.sin(azimuth)
        flux = float(np.exp(rng.uniform(*np.log(BURST_JY if burst else CARRIER_JY))))
        on = np.zeros((times, channels), bool)
        if burst:
            width = round(BURST_FRACTION * channels)
            first = rng.integers(channels - width + 1)
            on[rng.integers(times), first : first + width] = True
        else:
            first, width = rng.integers(channels - 1), int(rng.integers(1, 3))
            length = rng.integers((times + 1) // 2, times + 1)
            start = rng.integers(times - length + 1)
            on[start : start + length, first : first + width] = True
        direction = np.array([-np.sin(latitude) * north, east, np.cos(latitude) * north])
        emitters.append(Emitter(direction=direction, flux_jy=flux, on=on))
    return emitters


def antenna_indices(stations: Sequence[str], array: StationArray) -> list[int]:
    """Return the indices of stations among the active antennas.

    Raises
    ------
    UsageError
        If one is not active.
    """
    numbers = [int(n) + 1 for n in array.active]
    unknown = [word for word in stations if not word.isdigit() or int(word) not in numbers]
    if unknown:
        problem = f"{', '.join(unknown)} are not among the active stations, 1 to 117."
        raise UsageError("antennas", problem, "Name stations as the array has them.")
    return [numbers.index(int(word)) for word in stations]


def read_damage(options: SimulateOptions) -> dict[int, str]:
    """Return what happens to subbands of the first group: missing, truncated or empty.

    Raises
    ------
    UsageError
        If there is no such subband.
    """
    damage: dict[int, str] = {}
    for kind in ("truncated", "empty", "missing"):
        words: Sequence[str] = getattr(options, f"{kind}_subbands")
        unknown = [word for word in words if not word.isdigit() or int(word) >= SUBBANDS]
        if unknown:
            problem = f"There are no subbands {', '.join(unknown)}; they are 0 to {SUBBANDS - 1}."
            raise UsageError("subbands", problem, "Name subbands by their numbers.")
        damage |= {int(word): kind for word in words}
    return damage
