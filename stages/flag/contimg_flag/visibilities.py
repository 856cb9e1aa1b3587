"""The Measurement Set that is flagged, a scratch copy, and how much of it is flagged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.ms import XX, YY, MeasurementSet
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg_flag.steps import BoolArray, ComplexArray, count_flags

BLOCK_BYTES = 64 << 20
"""DATA read at a time."""
CORRELATION_NAMES = {5: "RR", 6: "RL", 7: "LR", 8: "LL", XX: "XX", 10: "XY", 11: "YX", YY: "YY"}
"""Names of casacore's codes of correlations."""
DIGITS = 6
"""Decimals of the fractions in flagging.json."""


class Visibilities:
    """Flags in memory, shape (rows, channels, correlations); data on disk, read in blocks.

    Flagged fractions are of the cross-correlations of antennas that have data.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where
        with MeasurementSet(path) as ms:
            self.header, rows = ms.header, ms.rows
            self.flags: BoolArray = np.array(ms.read("FLAG"), dtype=np.bool_)
        if not self.flags.size:
            problem = "The Measurement Set has no rows."
            raise BadInputError(where, problem, "Convert the group again.")
        codes = self.header.correlations
        self.correlations = tuple(CORRELATION_NAMES.get(code, str(code)) for code in codes)
        self.antenna1, self.antenna2, self.uvw_m = rows.antenna1, rows.antenna2, rows.uvw_m
        self.samples = self.header.channel_width_hz * float(np.median(rows.interval_s))
        """Bandwidth times time of a visibility."""
        self.cross: BoolArray = self.antenna1 != self.antenna2
        self.times_s, self.time_index = np.unique(rows.time_s, return_inverse=True)
        self.steps: list[dict[str, Any]] = []
        self.fraction = 0.0
        """Flagged fraction after the last step."""
        self.by_row, self.by_channel = np.zeros((0, 0)), np.zeros(0)
        """Flagged fractions of each row and correlation (0 for autos), and of each channel."""

    def blocks(self) -> Iterator[tuple[slice, ComplexArray]]:
        """Yield the rows of each block and their DATA, shape (block, channels, correlations)."""
        rows, channels, products = self.flags.shape
        with MeasurementSet(self.path) as ms:
            for block in ms.blocks(max(1, min(rows, BLOCK_BYTES // (8 * channels * products)))):
                yield block, ms.read("DATA", block.start, block.stop - block.start)

    @contextmanager
    def flags_on_disk(self) -> Iterator[None]:
        """Write the flags into the scratch copy; at the end add those that a program left there."""
        import casacore.tables as ct

        with ct.table(str(self.path), readonly=False, ack=False) as table:
            table.putcol("FLAG", self.flags)
        yield
        with MeasurementSet(self.path) as ms:
            self.flags |= ms.read("FLAG")

    def record_step(self, step: str, meaning: str) -> None:
        """Count the flags after a step; raise AllFlaggedError if no visibility is left."""
        rows, channels, products = self.flags.shape
        by_row, by_channel = np.zeros((rows, products), np.int64), np.zeros(channels, np.int64)
        count_flags(self.flags, self.cross, by_row, by_channel)
        self.by_row = by_row / channels
        self.by_channel = by_channel / (self.cross.sum() * products)
        fraction = round(float(self.by_row[self.cross].mean()), DIGITS)
        added = round(fraction - self.fraction, DIGITS)
        self.steps.append({"step": step, "meaning": meaning, "fraction": fraction, "added": added})
        self.fraction = fraction
        if fraction >= 1:
            by_step = ", ".join(f"{item['step']} {item['fraction']:.1%}" for item in self.steps)
            problem = f"All visibilities are flagged (after {by_step})."
            remedy = "Look at the raw data: the correlator may have been off."
            raise AllFlaggedError(self.where, problem, remedy)

    def report(self, dead: BoolArray) -> dict[str, Any]:
        """Return flagging.json: the steps, and final fractions by antenna, channel and integration.

        `dead` has shape (antennas, correlations).
        """
        antennas, one, two = [], self.antenna1, self.antenna2
        for index in np.unique([one[self.cross], two[self.cross]]):
            fractions = self.by_row[self.cross & ((one == index) | (two == index))].mean(axis=0)
            antenna = {
                "index": int(index),
                "name": self.header.antennas.names[index],
                "fraction": [round(float(x), DIGITS) for x in fractions],
                "dead": [self.correlations[product] for product in np.flatnonzero(dead[index])],
            }
            antennas.append(antenna)
        times, count = self.time_index[self.cross], len(self.times_s)
        total = np.bincount(times, self.by_row.mean(axis=1)[self.cross], count)
        integrations = total / np.bincount(times, minlength=count)
        return {
            "steps": self.steps,
            "fraction": self.fraction,
            "cross_rows": int(self.cross.sum()),
            "channels": self.flags.shape[1],
            "correlations": list(self.correlations),
            "antennas": antennas,
            "frequency_first_hz": float(self.header.frequencies_hz[0]),
            "channel_width_hz": self.header.channel_width_hz,
            "channel_fraction": [round(float(x), DIGITS) for x in self.by_channel],
            "integration_mjd": [round(float(x) / DAY_S, 8) for x in self.times_s],
            "integration_fraction": [round(float(x), DIGITS) for x in integrations],
        }
