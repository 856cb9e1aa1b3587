"""The Measurement Set being flagged: a scratch copy, its flags in memory, its data read block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contimg.records.ms import XX, YY, MeasurementSet
from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    ComplexArray = npt.NDArray[np.complex64]

BLOCK_BYTES = 64 << 20
"""DATA read at a time."""
NAMES = {5: "RR", 6: "RL", 7: "LR", 8: "LL", XX: "XX", 10: "XY", 11: "YX", YY: "YY"}
"""casacore's codes of correlations."""


class Visibilities:
    """Flags in memory (shape (rows, channels, correlations)), data on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with MeasurementSet(path) as ms:
            self.header = ms.header
            rows = ms.rows
            self.flags: BoolArray = np.array(ms.read("FLAG"), dtype=np.bool_)
        if not self.flags.size:
            raise BadInputError(
                str(path), "expected visibilities, found no rows.", "Convert the group again."
            )
        self.antenna1, self.antenna2 = rows.antenna1, rows.antenna2
        self.cross: BoolArray = self.antenna1 != self.antenna2
        self.times_s, self.time_index = np.unique(rows.time_s, return_inverse=True)
        self.antennas = np.unique(
            np.concatenate([self.antenna1[self.cross], self.antenna2[self.cross]])
        )
        """Indices of the antennas that have cross-correlations: those that exist."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, channels, correlations."""
        rows, channels, products = self.flags.shape
        return rows, channels, products

    @property
    def correlations(self) -> tuple[str, ...]:
        """Names of the correlations."""
        return tuple(NAMES.get(code, str(code)) for code in self.header.correlations)

    def blocks(self) -> Iterator[tuple[slice, ComplexArray]]:
        """Read DATA; yield the rows of each block and their data, shape (block, channels, correlations)."""
        rows, channels, products = self.shape
        with MeasurementSet(self.path) as ms:
            for block in ms.blocks(max(1, min(rows, BLOCK_BYTES // (8 * channels * products)))):
                yield block, ms.read("DATA", block.start, block.stop - block.start)

    def store(self) -> None:
        """Write the flags into the scratch copy, for the programs that read them there."""
        import casacore.tables as ct

        with ct.table(str(self.path), readonly=False, ack=False) as table:
            table.putcol("FLAG", self.flags)

    def join(self) -> None:
        """Add the flags that a program left in the scratch copy."""
        with MeasurementSet(self.path) as ms:
            self.flags |= ms.read("FLAG")
