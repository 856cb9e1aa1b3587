"""What is flagged after each step: of the cross-correlations of receptors that exist, autos left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg_flag.steps import count_flags

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg_flag.visibilities import Visibilities

    BoolArray = npt.NDArray[np.bool_]
    FloatArray = npt.NDArray[np.float64]

DIGITS = 6


@dataclass
class Ledger:
    """Fractions after each step; the last one is what the group has lost."""

    visibilities: Visibilities
    steps: list[dict[str, Any]] = field(default_factory=list)
    by_row: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    """Flagged fraction of each row and correlation, shape (rows, correlations); 0 for autos."""
    by_channel: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def fraction(self) -> float:
        """Flagged fraction of the cross-correlations after the last step."""
        return float(self.steps[-1]["fraction"]) if self.steps else 0.0

    def note(self, step: str, meaning: str) -> None:
        """Count anew after a step."""
        self._count()
        before = self.fraction
        fraction = round(float(self.by_row[self.visibilities.cross].mean()), DIGITS)
        self.steps.append(
            {
                "step": step,
                "meaning": meaning,
                "fraction": fraction,
                "added": round(fraction - before, DIGITS),
            }
        )

    def report(self, dead: BoolArray) -> dict[str, Any]:
        """Return flagging.json: the steps, and the final fractions by antenna, channel and integration."""
        seen = self.visibilities
        return {
            "steps": self.steps,
            "fraction": self.fraction,
            "cross_rows": int(seen.cross.sum()),
            "channels": seen.shape[1],
            "correlations": list(seen.correlations),
            "antennas": self._antennas(dead),
            "frequency_first_hz": float(seen.header.frequencies_hz[0]),
            "channel_width_hz": seen.header.channel_width_hz,
            "channel_fraction": [round(float(value), DIGITS) for value in self.by_channel],
            "integration_mjd": [round(float(value) / 86400, 8) for value in seen.times_s],
            "integration_fraction": [round(float(value), DIGITS) for value in self._integrations()],
        }

    def _count(self) -> None:
        seen = self.visibilities
        rows, channels, products = seen.shape
        by_row, by_channel = np.zeros((rows, products), np.int64), np.zeros(channels, np.int64)
        count_flags(seen.flags, seen.cross, by_row, by_channel)
        self.by_row = by_row / channels
        self.by_channel = by_channel / (seen.cross.sum() * products)

    def _antennas(self, dead: BoolArray) -> list[dict[str, Any]]:
        seen = self.visibilities
        found = []
        for index in seen.antennas:
            mine = seen.cross & ((seen.antenna1 == index) | (seen.antenna2 == index))
            by_product = [round(float(value), DIGITS) for value in self.by_row[mine].mean(axis=0)]
            lost = [name for name, gone in zip(seen.correlations, dead[index], strict=True) if gone]
            found.append(
                {
                    "index": int(index),
                    "name": seen.header.antennas.names[index],
                    "fraction": by_product,
                    "dead": lost,
                }
            )
        return found

    def _integrations(self) -> FloatArray:
        seen = self.visibilities
        mean = self.by_row.mean(axis=1)
        total = np.bincount(seen.time_index[seen.cross], mean[seen.cross], len(seen.times_s))
        return np.asarray(
            total / np.bincount(seen.time_index[seen.cross], minlength=len(seen.times_s))
        )
