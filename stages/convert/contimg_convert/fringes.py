"""Whether visibilities hold any sky: the sky is the same in neighbouring channels, noise is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contimg.records.ms import MeasurementSet

if TYPE_CHECKING:
    from pathlib import Path

EVERY = 16
"""Of the blocks of rows only each so many-th is looked at."""
BLOCK = 512


def coherence(path: Path) -> tuple[float, float]:
    """Return the correlation of cross-correlations with their neighbour in frequency, and its error for noise alone.

    Notes
    -----
    Re sum(V_c conj(V_c+1)) / sum |V_c|^2 over all pairs that are neither zero nor flagged; its error is 1 / sqrt(2 N). It is
    the share of the power that is sky: 1 for a strong source, 0 (and 1 of N = 0) for noise, zeros or a broken correlator.
    """
    product, power, count = 0.0, 0.0, 0
    with MeasurementSet(path) as data:
        cross = data.rows.antenna1 != data.rows.antenna2
        for part in list(data.blocks(BLOCK))[::EVERY]:
            values = data.read("DATA", part.start, part.stop - part.start)[cross[part]]
            good = ~data.read("FLAG", part.start, part.stop - part.start)[cross[part]] & (
                values != 0
            )
            pairs = good[:, 1:] & good[:, :-1]
            one, two = values[:, 1:][pairs], values[:, :-1][pairs]
            product += float(np.sum((one * two.conj()).real, dtype=np.float64))
            power += float(np.sum(np.abs(one) ** 2 + np.abs(two) ** 2, dtype=np.float64)) / 2
            count += one.size
    if not power:
        return 0.0, 1.0
    return product / power, 1 / np.sqrt(2 * count)
