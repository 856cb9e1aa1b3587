"""The conversion itself: block by block from the raw chunks of 16 files into the tiles of one Measurement Set."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro import telescope
from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.records import ms
from contimg.records.groups import MJD_ZERO_JD, N_SUBBANDS
from contimg.runtime.errors import NoSignalError
from contimg_convert import kernels
from contimg_convert.chunks import Workspace
from contimg_convert.geometry import UVW_LIMIT, Geometry, meridian_uvw, rotate_to_icrs
from contimg_convert.reading import POLARIZATIONS, check_uvw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from contimg_convert.reading import Subband, SubbandHeader

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

BLOCK_BYTES = 128 << 20
"""Bytes of visibilities converted at a time."""
MOST_THREADS = 4
POLS = len(POLARIZATIONS)


@dataclass(frozen=True)
class Baselines:
    """Where each baseline of the files goes: sorted by antenna, ANTENNA1 <= ANTENNA2; B of them."""

    file1: IntArray
    """Index (not number) of the first antenna, in the order of the files."""
    file2: IntArray
    rank: IntArray
    """Row within an integration of the MS."""

    @cached_property
    def places(self) -> IntArray:
        """What the kernels take, shape (B, 3). An MS has the conjugate of the UVH5's order of antennas."""
        return np.stack(
            [self.rank, self.file1 <= self.file2, self.file1 == self.file2], axis=1
        ).astype(np.int64)

    @cached_property
    def pairs(self) -> IntArray:
        """Antennas in the order of the files, shape (B, 2)."""
        return np.stack([self.file1, self.file2], axis=1)

    @cached_property
    def antennas(self) -> tuple[IntArray, IntArray]:
        """ANTENNA1 and ANTENNA2 in the order of the MS."""
        order = np.argsort(self.rank)
        pairs = np.sort(self.pairs, axis=1)[order]
        return pairs[:, 0], pairs[:, 1]


@dataclass(frozen=True)
class Plan:
    """All that is known before the first visibility is read."""

    header: SubbandHeader
    """Of the first subband; what the others share."""
    band_hz: FloatArray
    baselines: Baselines
    geometry: Geometry
    uvw_difference_m: float
    """Largest difference between the header's UVW and ours for the same direction."""

    @property
    def rows(self) -> int:
        """Rows of the MS."""
        return len(self.header.times_jd) * len(self.header.antenna1)

    @property
    def bytes(self) -> int:
        """About how many bytes the MS has."""
        return self.rows * (len(self.band_hz) * POLS * 8 * 65 // 64 + 128) + (4 << 20)


@dataclass(frozen=True)
class Tally:
    """What was counted on the way; fractions of what the subbands that are there hold."""

    zeros: float
    """Of the cross-correlations: exact zeros."""
    invalid: float
    """Of all visibilities: not finite."""


def plan(headers: Mapping[int, SubbandHeader], band_hz: FloatArray) -> Plan:
    """Work out rows and geometry of a checked group."""
    header = headers[min(headers)]
    index = {int(number): row for row, number in enumerate(header.array.numbers)}
    one, two = (
        np.array([index[int(n)] for n in side], np.int64)
        for side in (header.antenna1, header.antenna2)
    )
    rank = np.empty(len(one), np.int64)
    rank[np.lexsort((np.maximum(one, two), np.minimum(one, two)))] = np.arange(len(one))
    positions, site = header.array.positions_m, header.array.site
    at_meridian = meridian_uvw(header.ha_rad, header.dec_rad, site, positions)
    difference = check_uvw(header, at_meridian[two] - at_meridian[one])
    geometry = rotate_to_icrs(header.times_jd, header.ha_rad, header.dec_rad, site, positions)
    return Plan(header, band_hz, Baselines(one, two, rank), geometry, difference)


def write(
    path: Path,
    field: str,
    the: Plan,
    subbands: Mapping[int, Subband],
    show: Callable[[int, int], None],
) -> Tally:
    """Write the MS of a group.

    Raises
    ------
    NoSignalError
        If an nsamples is impossible.
    BadFileError
        If a file cannot be read to its end.
    """
    times, count = len(the.header.times_jd), len(the.header.antenna1)
    each = max(1, BLOCK_BYTES // (count * len(the.band_hz) * POLS * 8))
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    filler = Filler(the, subbands, each, threads)
    with (
        ms.create(path, ms_header(field, the), ms_rows(the)) as writer,
        ThreadPoolExecutor(threads) as pool,
    ):
        for first in range(0, times, each):
            last = min(first + each, times)
            rows = (last - first) * count
            list(pool.map(filler.start(first, last), subbands))
            writer.put(first * count, {"DATA": filler.data[:rows], "FLAG": filler.flags[:rows]})
            writer.put_weight(first * count, filler.weights(rows))
            show(last, times)
    return filler.tally()


class Filler:
    """One block of the MS in memory, filled by one thread a subband."""

    def __init__(
        self, the: Plan, subbands: Mapping[int, Subband], integrations: int, threads: int
    ) -> None:
        self._plan, self._subbands = the, subbands
        shape = (integrations * len(the.header.antenna1), len(the.band_hz), POLS)
        self.data = np.zeros(shape, np.complex64)
        self.flags = np.zeros(shape, bool)
        self._sums = {index: np.zeros((shape[0], POLS)) for index in subbands}
        self._tallies = {index: np.zeros(kernels.TALLIES, np.int64) for index in subbands}
        self._window = (0, 0)
        self._delays = np.empty((0, 0))
        self._spaces = [Workspace() for _ in range(threads)]

    def channels(self, index: int) -> tuple[int, int]:
        """Return how many channels a subband has and where in the band its first one is; the others are below it."""
        count = len(self._plan.header.frequencies_hz)
        return count, len(self._plan.band_hz) - 1 - index * count

    def start(self, first: int, last: int) -> Callable[[int], None]:
        """Begin the block of the integrations from `first` to before `last`; return what fills one subband."""
        each = len(self._plan.header.antenna1)
        self._window = (first * each, last * each)
        self._delays = self._plan.geometry.delay_m[first:last]
        for index in range(N_SUBBANDS):
            count, top = self.channels(index)
            self.flags[:, top - count + 1 : top + 1] = index not in self._subbands
        return self._fill

    def weights(self, rows: int) -> npt.NDArray[np.float32]:
        """Return the mean nsamples over the channels that are there, shape (rows, polarizations)."""
        channels = len(self._sums) * len(self._plan.header.frequencies_hz)
        total = np.sum([self._sums[index][:rows] for index in sorted(self._sums)], axis=0)
        return np.asarray(total / channels, np.float32)

    def tally(self) -> Tally:
        """Return the counts of all blocks."""
        counts = np.sum(list(self._tallies.values()), axis=0)
        values = self._plan.rows * len(self._tallies) * len(self._plan.header.frequencies_hz) * POLS
        crosses = max(1, int(counts[kernels.CROSSES]))
        return Tally(
            zeros=float(counts[kernels.ZEROS]) / crosses,
            invalid=float(counts[kernels.INVALID]) / values,
        )

    def _fill(self, index: int) -> None:
        subband, space = self._subbands[index], self._spaces.pop()
        try:
            self._fill_flags(subband, space)
            self._fill_data(subband, space)
            self._add_samples(subband, space)
        finally:
            self._spaces.append(space)

    def _fill_flags(self, subband: Subband, space: Workspace) -> None:
        chunks = subband.flags.block(*self._window, space)
        # Raw flags are all False in practice; then there is nothing to gather.
        if chunks[0].any():
            places, channels = self._plan.baselines.places, self.channels(subband.header.index)
            kernels.gather_flags(chunks, self._window, places, channels, self.flags)

    def _fill_data(self, subband: Subband, space: Workspace) -> None:
        index, lines = subband.header.index, self._plan.baselines
        frequencies = subband.header.frequencies_hz
        count, step = (
            len(frequencies),
            (frequencies[-1] - frequencies[0]) / max(1, len(frequencies) - 1),
        )
        turns = -2j * np.pi / SPEED_OF_LIGHT_M_S * self._delays
        phase = space.floats(self._window[1] - self._window[0], count, 2)
        kernels.phasors(np.exp(turns * frequencies[0]), np.exp(turns * step), lines.pairs, phase)
        chunks = subband.visibilities.block(*self._window, space)
        out = self.data.view(np.float32), self.flags
        kernels.rotate(
            chunks,
            self._window,
            lines.places,
            self.channels(index),
            phase,
            out,
            self._tallies[index],
        )

    def _add_samples(self, subband: Subband, space: Workspace) -> None:
        index = subband.header.index
        sums, chunks, absurd = (
            self._sums[index],
            subband.samples.block(*self._window, space),
            np.zeros(2),
        )
        values = chunks[0].view(np.float32)
        lowest, highest = values.min(), values.max()
        if lowest == highest and 0 <= lowest <= kernels.MOST_SAMPLES:
            sums[:] = float(lowest) * len(subband.header.frequencies_hz)
            return
        sums[:] = 0
        kernels.add_samples(
            chunks, self._window, self._plan.baselines.places, self.channels(index), sums, absurd
        )
        if absurd[1]:
            wanted = f"nsamples from 0 to {kernels.MOST_SAMPLES:.0e}"
            found = f"{absurd[0]:g} ({absurd[1]:.0f} such values in one block)"
            raise NoSignalError(
                subband.header.where,
                f"expected {wanted}, found {found}.",
                "The correlator failed: leave this group out.",
            )


def ms_header(field: str, the: Plan) -> ms.MSHeader:
    """Return what the MS says once."""
    array = the.header.array
    antennas = ms.Antennas(array.names, array.positions_m + array.site.itrf_m, array.diameters_m)
    centre = the.geometry
    return ms.MSHeader(
        telescope.MS_NAME,
        field,
        centre.ra_rad,
        centre.dec_rad,
        the.band_hz,
        the.header.width_hz,
        antennas,
    )


def ms_rows(the: Plan) -> ms.Rows:
    """Return what the MS says of each row; weights are 1 until they are put."""
    one, two = the.baselines.antennas
    times = (the.header.times_jd - MJD_ZERO_JD) * DAY_S
    uvw = (the.geometry.uvw_m[:, one] - the.geometry.uvw_m[:, two]).reshape(-1, 3)
    _check_length(uvw, the)
    return ms.Rows(
        time_s=np.repeat(times, len(one)),
        interval_s=np.full(the.rows, the.header.integration_s),
        antenna1=np.tile(one.astype(np.int32), len(times)),
        antenna2=np.tile(two.astype(np.int32), len(times)),
        uvw_m=uvw,
        weight=np.ones((the.rows, POLS), np.float32),
    )


def longest_baseline_m(the: Plan) -> float:
    """Return the length of the longest baseline."""
    one, two = the.baselines.antennas
    positions = the.header.array.positions_m
    return float(np.max(np.linalg.norm(positions[one] - positions[two], axis=1)))


def _check_length(uvw_m: FloatArray, the: Plan) -> None:
    found, limit = float(np.max(np.linalg.norm(uvw_m, axis=1))), UVW_LIMIT * longest_baseline_m(the)
    if found > limit:
        raise AssertionError(f"max |uvw| {found:.1f} m > {limit:.1f} m")
