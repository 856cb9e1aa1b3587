"""What goes wrong at the telescope: interference, dead antennas, lost packets, files that are missing or cut off."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from contimg.runtime.errors import UsageError
from contimg_simulate.array import SUBBANDS, Array, Scale
from contimg_simulate.frame import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from contimg_simulate.options import SimulateOptions

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

CARRIERS, BURSTS = 6, 1
CARRIER_JY, BURST_JY = (30.0, 300.0), (30.0, 100.0)
"""Least and greatest flux of an emitter, as an antenna's sidelobes let it in."""
BURST_SHARE = 0.25
"""Part of the band that a burst covers."""
TRUNCATED = 142_348_126 / 145_348_600
"""Part of a file that is left of a truncated one, as once seen."""


@dataclass(frozen=True)
class Emitter:
    """Something that radiates from the horizon."""

    direction: Floats
    """Unit vector in the telescope's frame, shape (3,)."""
    flux_jy: float
    on: Booleans
    """When and where, shape (T, channels of the band, ascending)."""


def emitters(kind: str, scale: Scale, rng: np.random.Generator) -> list[Emitter]:
    """Return a group's interference."""
    channels = SUBBANDS * scale.channels
    made = []
    if kind in {"narrow", "both"}:
        made += [
            Emitter(_horizon(rng), _flux(CARRIER_JY, rng), _carrier(scale, channels, rng))
            for _ in range(CARRIERS)
        ]
    if kind in {"burst", "both"}:
        made += [
            Emitter(_horizon(rng), _flux(BURST_JY, rng), _burst(scale, channels, rng))
            for _ in range(BURSTS)
        ]
    return made


def alive(
    options: SimulateOptions, array: Array, integrations: int, rng: np.random.Generator
) -> Booleans:
    """Return whether each antenna's data arrive, shape (T, A)."""
    # A cross-correlation needs both antennas.
    lost = 1 - np.sqrt(1 - options.zeros)
    arrives = rng.uniform(size=(integrations, array.antennas)) >= lost
    arrives[:, antenna_indices(options.dead_antennas, array)] = False
    return np.asarray(arrives)


def antenna_indices(stations: Sequence[str], array: Array) -> list[int]:
    """Return the places of stations among the active antennas."""
    numbers = [int(n) + 1 for n in array.active]
    unknown = [word for word in stations if not word.isdigit() or int(word) not in numbers]
    if unknown:
        raise UsageError(
            "antennas",
            f"expected active stations, 1 to 117, found {', '.join(unknown)}.",
            "Name stations as the array has them.",
        )
    return [numbers.index(int(word)) for word in stations]


@dataclass(frozen=True)
class Damage:
    """What happens to the files of the first group, by subband."""

    missing: frozenset[int] = frozenset()
    truncated: frozenset[int] = frozenset()
    empty: frozenset[int] = frozenset()

    def apply(self, path: Path, index: int) -> None:
        """Cut a file off, if it is one of those."""
        if index in self.empty:
            os.truncate(path, 0)
        elif index in self.truncated:
            os.truncate(path, int(path.stat().st_size * TRUNCATED))


def damage(options: SimulateOptions) -> Damage:
    """Return what the options want broken."""
    words = (options.missing_subbands, options.truncated_subbands, options.empty_subbands)
    return Damage(*(_subbands(given) for given in words))


def _subbands(words: Sequence[str]) -> frozenset[int]:
    unknown = [word for word in words if not word.isdigit() or int(word) >= SUBBANDS]
    if unknown:
        raise UsageError(
            "subbands",
            f"expected 0 to {SUBBANDS - 1}, found {', '.join(unknown)}.",
            "Name subbands by their numbers.",
        )
    return frozenset(int(word) for word in words)


def _horizon(rng: np.random.Generator) -> Floats:
    azimuth, latitude = rng.uniform(0, 2 * np.pi), np.deg2rad(SITE.latitude_deg)
    north, east = np.cos(azimuth), np.sin(azimuth)
    return np.array([-np.sin(latitude) * north, east, np.cos(latitude) * north])


def _flux(limits: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _carrier(scale: Scale, channels: int, rng: np.random.Generator) -> Booleans:
    """One or two channels for half of the group or longer."""
    on = np.zeros((scale.integrations, channels), bool)
    first, width = rng.integers(channels - 1), rng.integers(1, 3)
    length = rng.integers((scale.integrations + 1) // 2, scale.integrations + 1)
    start = rng.integers(scale.integrations - length + 1)
    on[start : start + length, first : first + width] = True
    return on


def _burst(scale: Scale, channels: int, rng: np.random.Generator) -> Booleans:
    on = np.zeros((scale.integrations, channels), bool)
    width = round(BURST_SHARE * channels)
    first = rng.integers(channels - width + 1)
    on[rng.integers(scale.integrations), first : first + width] = True
    return on
