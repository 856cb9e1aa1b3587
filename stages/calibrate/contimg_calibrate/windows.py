"""Spectral windows of a foreign Measurement Set: which are read, and how they are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contimg.astro.gains import FlagArray, FloatArray
from contimg.runtime.errors import BadInputError

PARALLEL_HANDS = {5: "RR", 8: "LL", 9: "XX", 12: "YY"}
"""Of casacore's ``Stokes`` enumeration."""
STOKES = {1: "I", 2: "Q", 3: "U", 4: "V"}
WIDTH_TOLERANCE = 0.01
"""Widths of channels may differ by this fraction."""
MAX_FILLED = 1.0
"""Flagged channels that fill gaps between windows, over those with data, at most."""
MIN_STEP = 0.5
"""Windows overlap if the step between their channels is less than this, in widths."""
MAX_MISSING = 0.25
"""Windows that lack a larger part of the rows were not observed together."""
SAME_TIME_S = 1e-3


@dataclass(frozen=True, kw_only=True)
class Window:
    """One spectral window with one set of correlations: a row of DATA_DESCRIPTION."""

    description: int
    """Its DATA_DESC_ID."""
    number: int
    """Its row of SPECTRAL_WINDOW."""
    name: str
    frequencies_hz: FloatArray
    """Channel centres, ascending, in the frame `reference`."""
    widths_hz: FloatArray
    """Of the channels."""
    reference: int
    """Code of casacore's ``MFrequency``."""
    order: npt.NDArray[np.intp]
    """Channels of the set, by frequency."""
    codes: tuple[int, ...]
    """All correlations of the set."""

    @property
    def hands(self) -> npt.NDArray[np.intp]:
        """The parallel hands, as indices of the set's correlations, by their codes."""
        found = [i for i, code in enumerate(self.codes) if code in PARALLEL_HANDS]
        return np.array(sorted(found, key=lambda i: self.codes[i]), np.intp)

    def __str__(self) -> str:
        """Describe it for a message."""
        low, high = self.frequencies_hz[[0, -1]] / 1e6
        names = PARALLEL_HANDS | STOKES
        hands = " ".join(names.get(code, f"code {code}") for code in self.codes)
        channels = f"{self.order.size} channels of {self.widths_hz.min() / 1e6:.6g} MHz"
        return f"{self.number} ({self.name}: {channels}, {low:.6g} to {high:.6g} MHz, {hands})"


def find_windows(
    descriptions: dict[str, Any],
    spectral: dict[str, Any],
    setups: dict[str, Any],
    ids: npt.NDArray[np.intp],
) -> list[Window]:
    """Return the windows of some rows of DATA_DESCRIPTION, by frequency."""
    found = []
    for row in ids:
        number = int(descriptions["SPECTRAL_WINDOW_ID"][row])
        channels = np.asarray(spectral["CHAN_FREQ"][number])
        order = np.argsort(channels)
        found.append(
            Window(
                description=int(row),
                number=number,
                name=str(spectral["NAME"][number]),
                frequencies_hz=channels[order],
                widths_hz=np.abs(spectral["CHAN_WIDTH"][number])[order],
                reference=int(spectral["MEAS_FREQ_REF"][number]),
                order=order,
                codes=tuple(map(int, setups["CORR_TYPE"][descriptions["POLARIZATION_ID"][row]])),
            )
        )
    return sorted(found, key=lambda one: float(one.frequencies_hz[0]))


def choose_windows(source: Path, found: Sequence[Window], wanted: Sequence[str]) -> list[Window]:
    """Return the windows to read and join: the `wanted` ones, by number or name, else all.

    Windows without parallel hands are left out.

    Raises BadInputError if there is none, or if they cannot be joined: if their correlations or
    channel widths differ, or if they overlap or are too far apart. The message lists them.
    """
    listed = f"The field's spectral windows are {'; '.join(map(str, found))}."
    unknown = set(wanted) - {name for one in found for name in (str(one.number), one.name)}
    if unknown:
        problem = f"The field has no spectral window {min(unknown)}. {listed}"
        raise BadInputError(str(source), problem, "Name some of them with --windows.")
    chosen = [one for one in found if not wanted or {str(one.number), one.name} & set(wanted)]
    usable = [one for one in chosen if one.hands.size]
    if not usable:
        names = [STOKES.get(code, f"code {code}") for code in chosen[0].codes]
        problem = f"Its correlations are {', '.join(names)}; XX and YY, or RR and LL, are expected."
        remedy = "Export the data as correlations; gains cannot be solved on Stokes parameters."
        raise BadInputError(str(source), problem, remedy)
    widths = np.concatenate([one.widths_hz for one in usable])
    hands = {tuple(one.codes[i] for i in one.hands) for one in usable}
    edges_hz = np.array([one.frequencies_hz[[0, -1]] for one in usable])
    steps = (edges_hz[1:, 0] - edges_hz[:-1, 1]).tolist()
    filled = sum(count_gap(step, widths[0]) for step in steps)
    problem = ""
    if np.ptp(widths) > WIDTH_TOLERANCE * widths.min():
        problem = f"Its channels are {widths.min():g} to {widths.max():g} Hz wide."
    elif len(hands) > 1:
        problem = "The correlations of its spectral windows differ."
    elif min(steps, default=np.inf) < MIN_STEP * widths[0]:
        problem = "Its spectral windows overlap."
    elif filled > MAX_FILLED * widths.size:
        problem = "Its spectral windows are too far apart to be joined."
    if problem:
        remedy = f"Choose with --windows, such as --windows {usable[0].number}"
        raise BadInputError(str(source), f"{problem} {listed}", f"{remedy}, or split the set.")
    return usable


def count_gap(step_hz: float, width_hz: float) -> int:
    """Return how many channels are missing between two, whose frequencies differ by a step."""
    return max(0, round(step_hz / width_hz) - 1)


def join_frequencies(parts: Sequence[FloatArray], width_hz: float) -> tuple[FloatArray, list[int]]:
    """Return the channels of the joined windows, and the first channel of each.

    Gaps are filled, so that channels can be averaged without leaving one out.
    """
    joined, starts = parts[0], [0]
    for part in parts[1:]:
        gap = count_gap(part[0] - joined[-1], width_hz)
        between = np.linspace(joined[-1], part[0], gap + 2)[1:-1]
        starts.append(joined.size + gap)
        joined = np.concatenate([joined, between, part])
    return joined, starts


def match_rows(
    source: Path,
    times_s: FloatArray,
    rows: Any,  # noqa: ANN401 - casacore has no types
    count: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the first row of each baseline and integration, and which of these each row is of.

    Raises BadInputError if many are not in all of the `count` windows.
    """
    if count == 1:
        every = np.arange(times_s.size)
        return every, every
    key = np.stack([np.round(times_s / SAME_TIME_S), *map(rows.getcol, ("ANTENNA1", "ANTENNA2"))])
    _, first, place = np.unique(key, axis=1, return_index=True, return_inverse=True)
    missing = 1 - times_s.size / (count * first.size)
    if missing > MAX_MISSING:
        problem = f"Its {count} spectral windows were not observed together: {missing:.0%} of the"
        problem += " integrations and baselines are not in all."
        raise BadInputError(str(source), problem, "Choose with --windows, such as --windows 0.")
    return first, place.reshape(-1)


@dataclass(frozen=True)
class Samples:
    """The parallel hands of some rows; arrays of shape (rows, channels, correlations)."""

    frequencies_hz: FloatArray
    data: npt.NDArray[np.complex64]
    flags: FlagArray
    """As the set states them; True where a row has no data in a window."""
    weight: npt.NDArray[np.float32]


def read_samples(
    rows: Any,  # noqa: ANN401 - casacore has no types
    windows: Sequence[Window],
    factors: Sequence[float],
    place: npt.NDArray[np.intp],
    bad_rows: FlagArray,
    column: str,
) -> Samples:
    """Read the data of `column`; frequencies of each window are multiplied by its factor.

    `place` and `bad_rows` say of each row where it goes, and whether it is flagged.
    """
    parts = [one.frequencies_hz * factor for one, factor in zip(windows, factors, strict=True)]
    freq_hz, starts = join_frequencies(parts, windows[0].widths_hz[0] * factors[0])
    shape = int(place.max()) + 1, freq_hz.size, windows[0].hands.size
    data, weight = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    flags, ids = np.ones(shape, np.bool_), rows.getcol("DATA_DESC_ID")
    for window, first in zip(windows, starts, strict=True):
        index = np.flatnonzero(ids == window.description)
        with rows.selectrows(index) as part:
            where = np.s_[place[index], first : first + window.order.size]
            cells = np.s_[:, window.order[:, None], window.hands]
            data[where] = part.getcol(column)[cells]
            flags[where] = part.getcol("FLAG")[cells] | bad_rows[index, None, None]
            weight[where] = read_weights(part, cells, data[where].shape)
    return Samples(freq_hz, data, flags, weight)


def read_weights(rows: Any, cells: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:  # noqa: ANN401 - casacore has no types
    """Return the weight of each sample, shape (rows, channels, correlations); 0 without one.

    It is WEIGHT_SPECTRUM, else SIGMA_SPECTRUM^-2, else WEIGHT, and 0 where WEIGHT is not positive,
    or SIGMA is not although others are.
    """
    by_row, sigma = (rows.getcol(name)[:, None, cells[-1]] for name in ("WEIGHT", "SIGMA"))
    if np.any(sigma > 0):
        by_row = np.where(sigma > 0, by_row, 0)
    columns = [name for name in ("WEIGHT_SPECTRUM", "SIGMA_SPECTRUM") if name in rows.colnames()]
    defined = [name for name in columns if rows.iscelldefined(name, 0)]
    if not defined:
        return np.broadcast_to(by_row, shape)
    values = rows.getcol(defined[0])[cells]
    if defined[0] == "SIGMA_SPECTRUM":
        values = np.power(values, -2.0, out=np.zeros(shape), where=values > 0)
    return np.where(by_row > 0, values, 0)
