"""How much is flagged after each step, of the cross-correlations of antennas that have data."""

from __future__ import annotations

from typing import Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.runtime.errors import AllFlaggedError
from contimg_flag.steps import BoolArray, count_flags
from contimg_flag.visibilities import Visibilities

DIGITS = 6
"""Decimals of the fractions in flagging.json."""


class FlagCounts:
    """Flagged fractions after each step, of one Measurement Set; autos are not counted."""

    def __init__(self, visibilities: Visibilities, where: str) -> None:
        self.visibilities = visibilities
        self.where = where
        """URI of the convert artifact, for errors."""
        self.steps: list[dict[str, Any]] = []
        self.fraction = 0.0
        """Flagged fraction after the last step."""
        self.by_row, self.by_channel = np.zeros((0, 0)), np.zeros(0)
        """Flagged fractions of each row and correlation (0 for autos), and of each channel."""

    def record_step(self, step: str, meaning: str) -> None:
        """Count the flags after a step.

        Raises AllFlaggedError if no visibility is left.
        """
        vis = self.visibilities
        rows, channels, products = vis.flags.shape
        by_row, by_channel = np.zeros((rows, products), np.int64), np.zeros(channels, np.int64)
        count_flags(vis.flags, vis.cross, by_row, by_channel)
        self.by_row = by_row / channels
        self.by_channel = by_channel / (vis.cross.sum() * products)
        fraction = round(float(self.by_row[vis.cross].mean()), DIGITS)
        added = round(fraction - self.fraction, DIGITS)
        self.steps.append({"step": step, "meaning": meaning, "fraction": fraction, "added": added})
        self.fraction = fraction
        if fraction >= 1:
            by_step = ", ".join(f"{item['step']} {item['fraction']:.1%}" for item in self.steps)
            raise AllFlaggedError(
                self.where,
                f"All visibilities are flagged (after {by_step}).",
                "Look at the raw data: the correlator may have been off.",
            )

    def report(self, dead: BoolArray) -> dict[str, Any]:
        """Return flagging.json: the steps, and final fractions by antenna, channel and integration.

        `dead` has shape (antennas, correlations).
        """
        vis = self.visibilities
        antennas = []
        for index in vis.antennas:
            rows = vis.cross & ((vis.antenna1 == index) | (vis.antenna2 == index))
            antenna = {
                "index": int(index),
                "name": vis.header.antennas.names[index],
                "fraction": [round(float(x), DIGITS) for x in self.by_row[rows].mean(axis=0)],
                "dead": [vis.correlations[product] for product in np.flatnonzero(dead[index])],
            }
            antennas.append(antenna)
        times, count = vis.time_index[vis.cross], len(vis.times_s)
        total = np.bincount(times, self.by_row.mean(axis=1)[vis.cross], count)
        integrations = total / np.bincount(times, minlength=count)
        return {
            "steps": self.steps,
            "fraction": self.fraction,
            "cross_rows": int(vis.cross.sum()),
            "channels": vis.flags.shape[1],
            "correlations": list(vis.correlations),
            "antennas": antennas,
            "frequency_first_hz": float(vis.header.frequencies_hz[0]),
            "channel_width_hz": vis.header.channel_width_hz,
            "channel_fraction": [round(float(x), DIGITS) for x in self.by_channel],
            "integration_mjd": [round(float(x) / DAY_S, 8) for x in vis.times_s],
            "integration_fraction": [round(float(x), DIGITS) for x in integrations],
        }
