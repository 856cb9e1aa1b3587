"""Whether visibilities hold any sky: it is the same in neighbouring channels, noise is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contimg.records.ms import MeasurementSet
from contimg.runtime.errors import NoSignalError
from contimg_convert.options import ConvertOptions
from contimg_convert.writing import Tally

BLOCK_ROWS = 512
BLOCK_STRIDE = 16
"""One block of rows in this many is looked at."""
MIN_COHERENCE_SIGMA = 5


def check_signal(options: ConvertOptions, group: str, tally: Tally, ms: Path) -> None:
    """Refuse data that are no observation.

    Raises NoSignalError if too many values are not finite, or too many are zeros and the rest shows
    no fringes.
    """
    remedy = "The correlator failed: leave this group out."
    if tally.invalid >= options.max_invalid:
        problem = f"{tally.invalid:.1%} of the visibilities are not finite; the limit is"
        raise NoSignalError(group, f"{problem} {options.max_invalid:.0%}.", remedy)
    if tally.zeros < options.max_zeros:
        return
    coherence, error = measure_coherence(ms)
    if not coherence > MIN_COHERENCE_SIGMA * error:
        problem = (
            f"{tally.zeros:.1%} of the cross-correlations are zeros (the limit is"
            f" {options.max_zeros:.0%}), and the others show no fringes: the coherence of"
            f" neighbouring channels is {coherence:.1e} ± {error:.0e}."
        )
        raise NoSignalError(group, problem, remedy)


def measure_coherence(path: Path) -> tuple[float, float]:
    """Return the correlation of cross-correlations with their neighbour in frequency.

    The second number is its error for noise alone.

    Notes
    -----
    Re sum(V_c conj(V_c+1)) / sum |V_c|^2 over all pairs that are neither zero nor flagged; its
    error is 1 / sqrt(2 N). It is the share of the power that is sky: 1 for a strong source, 0 (and
    1 of N = 0) for noise, zeros or a broken correlator.
    """
    product, power, count = 0.0, 0.0, 0
    with MeasurementSet(path) as data:
        cross = data.rows.antenna1 != data.rows.antenna2
        for part in list(data.blocks(BLOCK_ROWS))[::BLOCK_STRIDE]:
            values, flags = (
                data.read(name, part.start, part.stop - part.start)[cross[part]]
                for name in ("DATA", "FLAG")
            )
            good = ~flags & (values != 0)
            pairs = good[:, 1:] & good[:, :-1]
            one, two = values[:, 1:][pairs], values[:, :-1][pairs]
            product += float(np.sum((one * two.conj()).real, dtype=np.float64))
            power += float(np.sum(np.abs(one) ** 2 + np.abs(two) ** 2, dtype=np.float64)) / 2
            count += one.size
    return (product / power, 1 / np.sqrt(2 * count)) if power else (0.0, 1.0)
