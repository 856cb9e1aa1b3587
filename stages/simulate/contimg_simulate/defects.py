"""What goes wrong at the telescope: interference, dead antennas, lost packets, broken files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
TRUNCATED_FRACTION = 142_348_126 / 145_348_600
"""Part of a file that is left of a truncated one, as once seen."""


@dataclass(frozen=True, kw_only=True)
class Emitter:
    """Something that radiates from the horizon."""

    direction: Floats
    """Unit vector in the telescope's frame, shape (3,)."""
    flux_jy: float
    on: Booleans
    """When and where, shape (T, channels of the band, ascending)."""


def draw_emitters(kind: str, scale: DataScale, rng: np.random.Generator) -> list[Emitter]:
    """Return a group's interference."""
    carriers = CARRIERS if kind in {"narrow", "both"} else 0
    bursts = 1 if kind in {"burst", "both"} else 0
    made = [_draw_emitter(scale, rng, CARRIER_JY, burst=False) for _ in range(carriers)]
    return made + [_draw_emitter(scale, rng, BURST_JY, burst=True) for _ in range(bursts)]


def _draw_emitter(
    scale: DataScale, rng: np.random.Generator, limits_jy: tuple[float, float], *, burst: bool
) -> Emitter:
    """Draw a burst of one integration, or 1-2 channels for half of the group or longer."""
    azimuth, latitude = rng.uniform(0, 2 * np.pi), np.deg2rad(LATITUDE_DEG)
    north, east = np.cos(azimuth), np.sin(azimuth)
    flux = float(np.exp(rng.uniform(*np.log(limits_jy))))
    times, channels = scale.integrations, SUBBANDS * scale.channels
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
    return Emitter(direction=direction, flux_jy=flux, on=on)


def draw_alive(
    options: SimulateOptions, array: StationArray, integrations: int, rng: np.random.Generator
) -> Booleans:
    """Return whether each antenna's data arrive, shape (T, A)."""
    # A cross-correlation needs both antennas.
    lost = 1 - np.sqrt(1 - options.zeros)
    arrives = rng.uniform(size=(integrations, len(array.active))) >= lost
    arrives[:, antenna_indices(options.dead_antennas, array)] = False
    return np.asarray(arrives)


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


def damage_file(path: Path, kind: str) -> None:
    """Cut off a file that is to be truncated or empty."""
    if kind == "empty":
        os.truncate(path, 0)
    elif kind == "truncated":
        os.truncate(path, int(path.stat().st_size * TRUNCATED_FRACTION))
