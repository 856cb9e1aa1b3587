"""The Measurement Set that is flagged: a scratch copy with its flags in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from contimg.records.ms import XX, YY, MeasurementSet
from contimg.runtime.errors import BadInputError
from contimg_flag.steps import BoolArray, ComplexArray

BLOCK_BYTES = 64 << 20
"""DATA read at a time."""
CORRELATION_NAMES = {5: "RR", 6: "RL", 7: "LR", 8: "LL", XX: "XX", 10: "XY", 11: "YX", YY: "YY"}
"""Names of casacore's codes of correlations."""


class Visibilities:
    """Flags in memory, shape (rows, channels, correlations); data on disk, read in blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with MeasurementSet(path) as ms:
            self.header = ms.header
            rows = ms.rows
            self.flags: BoolArray = np.array(ms.read("FLAG"), dtype=np.bool_)
        if not self.flags.size:
            raise BadInputError(
                str(path), "The Measurement Set has no rows.", "Convert the group again."
            )
        self.correlations = tuple(
            CORRELATION_NAMES.get(code, str(code)) for code in self.header.correlations
        )
        self.antenna1, self.antenna2 = rows.antenna1, rows.antenna2
        self.cross: BoolArray = self.antenna1 != self.antenna2
        self.times_s, self.time_index = np.unique(rows.time_s, return_inverse=True)
        pairs = np.concatenate([self.antenna1[self.cross], self.antenna2[self.cross]])
        self.antennas = np.unique(pairs)
        """Indices of the antennas that have cross-correlations."""

    def blocks(self) -> Iterator[tuple[slice, ComplexArray]]:
        """Read DATA in blocks of rows.

        Yields the rows of each block and their data, shape (block, channels, correlations).
        """
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
