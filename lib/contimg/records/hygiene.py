"""Which samples of a data set may be used, by what it states of itself: one rule for all sources.

The subbands of the telescope (weight: nsamples), an imported Measurement Set and one that is only
calibrated (weight: WEIGHT_SPECTRUM) all ask here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NEGLIGIBLE_WEIGHT = 1e-3
"""Samples of less than this fraction of the median weight were marked as bad, not measured badly:
all together they would add no more than that to the information."""


def usable_samples(
    weight: npt.NDArray[Any], data: npt.NDArray[Any] | None = None, max_weight: float = np.inf
) -> npt.NDArray[np.bool_]:
    """Return which samples have data, in the shape of `weight`.

    A weight must be a positive number of at most `max_weight` and not negligible beside the others;
    data must be finite, and not exactly zero, as correlators and archives fill gaps.
    """
    usable: npt.NDArray[np.bool_] = (weight > 0) & (weight <= max_weight) & np.isfinite(weight)
    if data is not None:
        usable &= np.isfinite(data) & (data != 0)
    if usable.any():
        usable &= weight >= NEGLIGIBLE_WEIGHT * np.median(weight[usable])
    return usable
