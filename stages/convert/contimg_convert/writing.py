"""The conversion: block by block from the raw chunks of 16 files into one Measurement Set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contimg.astro import telescope
from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.records import ms
from contimg.records.groups import MJD_ZERO_JD, N_SUBBANDS, group_id, utc_of_jd
from contimg.records.hygiene import usable_samples
from contimg.runtime.errors import InconsistentGroupError, NoSignalError
from contimg_convert import kernels, reading
from contimg_convert.chunks import Workspace
from contimg_convert.geometry import FloatArray, Geometry, IntArray, meridian_uvw, rotate_to_icrs

BLOCK_BYTES = 128 << 20
"""Bytes of visibilities converted at a time."""
MAX_THREADS = 4
MAX_SAMPLES = 1e9
"""No nsamples is larger: the correlator takes 3e6 samples of a channel in an integration."""
MAX_IMPOSSIBLE = 0.25
"""A subband of which this fraction of the nsamples is impossible is no observation; single ones
are flagged."""
POLS = len(reading.POLARIZATIONS)
MAX_UVW_RATIO = 1.1
"""No |uvw| may exceed this times the longest baseline."""


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """All that is known before the first visibility is read; B baselines.

    The MS has them sorted by antenna, ANTENNA1 <= ANTENNA2.
    """

    header: reading.UVH5Header
    """Of the first subband; the others share it."""
    band_hz: FloatArray
    pairs: IntArray
    """Antenna indices (not numbers) of the baselines in the order of the files, shape (B, 2)."""
    places: IntArray
    """Shape (B, 3), as the kernels take it. The MS has the conjugate of the UVH5 convention."""
    antenna1: IntArray
    """ANTENNA1 in the order of the MS, shape (B,)."""
    antenna2: IntArray
    geometry: Geometry
    uvw_difference_m: float
    """Largest difference between the header's UVW and ours for the same direction."""
    longest_baseline_m: float
    rows: int
    """Rows of the MS."""

    @property
    def bytes(self) -> int:
        """Approximate size of the MS."""
        return self.rows * (len(self.band_hz) * POLS * 8 * 65 // 64 + 128) + (4 << 20)


@dataclass(frozen=True)
class Tally:
    """Fractions counted during the conversion, of the values in the subbands that exist."""

    zeros: float
    """Of the cross-correlations: exact zeros."""
    invalid: float
    """Of all visibilities: not finite."""
    unsampled: float
    """Of all visibilities: without data by their nsamples."""


def plan_conversion(group: str, headers: Mapping[int, reading.UVH5Header]) -> ConversionPlan:
    """Check that the subbands belong together and to a group's id; work out rows and geometry.

    Raises InconsistentGroupError if they do not.
    """
    band_hz = reading.check_group(headers, N_SUBBANDS)
    header = headers[min(headers)]
    array, direction = header.array, (header.ha_rad, header.dec_rad)
    by_number = np.argsort(array.numbers)
    numbers = np.stack([header.antenna1, header.antenna2], axis=1)
    pairs = by_number[np.searchsorted(array.numbers, numbers, sorter=by_number)]
    low, high = np.sort(pairs, axis=1).T
    order = np.lexsort((high, low))
    rank = np.empty(len(pairs), np.int64)
    rank[order] = np.arange(len(pairs))
    conjugate, auto = pairs[:, 0] <= pairs[:, 1], pairs[:, 0] == pairs[:, 1]
    uvw = meridian_uvw(*direction, array.site, array.positions_m)
    ours = uvw[pairs[:, 1]] - uvw[pairs[:, 0]]
    difference = max(reading.check_uvw(one, ours) for one in headers.values())
    vectors = array.positions_m[low] - array.positions_m[high]
    started = group_id(utc_of_jd(header.times_jd[0]))
    if started != group:
        problem = f"The first integration is at {started}, but the record says {group}."
        raise InconsistentGroupError(header.uri, problem, reading.REGROUP_REMEDY)
    return ConversionPlan(
        header=header,
        band_hz=band_hz,
        pairs=pairs,
        places=np.stack([rank, conjugate, auto], axis=1).astype(np.int64),
        antenna1=low[order],
        antenna2=high[order],
        uvw_difference_m=difference,
        longest_baseline_m=float(np.max(np.linalg.norm(vectors, axis=1))),
        rows=len(header.times_jd) * len(header.antenna1),
        geometry=rotate_to_icrs(header.times_jd, *direction, array.site, array.positions_m),
    )


def write_ms(
    path: Path,
    field: str,
    plan: ConversionPlan,
    subbands: Mapping[int, reading.OpenSubband],
    show: Callable[[int, int], None],
) -> Tally:
    """Write the MS of a group; `show` is called with the integrations done and their total.

    Raises NoSignalError if too many nsamples are impossible; BadFileError if a file cannot be read
    to its end.
    """
    times, count = len(plan.header.times_jd), len(plan.header.antenna1)
    channels = len(subbands) * len(plan.header.frequencies_hz)
    step = max(1, BLOCK_BYTES // (count * len(plan.band_hz) * POLS * 8))
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    block = Block(plan, subbands, step, threads)
    with ms.create(path, *describe_ms(field, plan)) as writer, ThreadPoolExecutor(threads) as pool:
        for first in range(0, times, step):
            last = min(first + step, times)
            block.start(first, last)
            list(pool.map(block.fill, subbands))
            rows = (last - first) * count
            writer.put(first * count, {"DATA": block.data[:rows], "FLAG": block.flags[:rows]})
            # The mean nsamples over the channels that have any.
            counts = block.counts[:, :rows].sum(axis=0)
            weight = block.samples[:, :rows].sum(axis=0) / np.maximum(1, counts)
            writer.put_weight(first * count, weight.astype(np.float32))
            show(last, times)
    each = plan.rows * len(plan.header.frequencies_hz) * POLS
    for index, (_, impossible) in enumerate(block.unsampled.tolist()):
        if impossible >= MAX_IMPOSSIBLE * each:
            found = f"{impossible / each:.1%} of them are negative, larger or undefined"
            problem = f"nsamples must be 0 to {MAX_SAMPLES:.0e}; {found}."
            remedy = "The correlator failed: leave this group out."
            raise NoSignalError(subbands[index].header.uri, problem, remedy)
    zeros, invalid, crosses = block.tallies.sum(axis=0).tolist()
    total = plan.rows * channels * POLS
    return Tally(
        zeros=zeros / max(1, crosses),
        invalid=invalid / total,
        unsampled=float(block.unsampled[:, 0].sum()) / total,
    )


class Block:
    """Some integrations of the MS in memory, filled by one thread per subband."""

    def __init__(
        self,
        plan: ConversionPlan,
        subbands: Mapping[int, reading.OpenSubband],
        integrations: int,
        threads: int,
    ) -> None:
        self._plan, self._subbands = plan, subbands
        shape = (integrations * len(plan.header.antenna1), len(plan.band_hz), POLS)
        self.data = np.zeros(shape, np.complex64)
        self.flags = np.zeros(shape, bool)
        self.samples = np.zeros((N_SUBBANDS, shape[0], POLS))
        """Sums of nsamples over the channels of each subband."""
        self.counts = np.zeros((N_SUBBANDS, shape[0], POLS))
        """Number of the channels of each subband that have nsamples."""
        self.unsampled = np.zeros((N_SUBBANDS, 2), np.int64)
        """Visibilities of each subband without nsamples, and those of them with impossible ones, in
        all blocks so far."""
        self.tallies = np.zeros((N_SUBBANDS, kernels.TALLIES), np.int64)
        """Counts of all blocks so far."""
        rank = plan.places[:, 0]
        self._rows = (np.arange(integrations)[:, None] * len(rank) + rank).ravel()
        """Row of the block for each row of the files."""
        each, top = len(plan.header.frequencies_hz), len(plan.band_hz) - 1
        self._channels = {index: (each, top - index * each) for index in range(N_SUBBANDS)}
        """Channels of each subband, and the place of its first one; others are below."""
        self._window = (0, 0)
        self._delays = np.empty((0, 0))
        self._spaces = [Workspace() for _ in range(threads)]

    def start(self, first: int, last: int) -> None:
        """Begin the block of the integrations `first` to `last` - 1; `fill` each subband then."""
        each = len(self._plan.header.antenna1)
        self._window = (first * each, last * each)
        self._delays = self._plan.geometry.delay_m[first:last]
        for index, (count, top) in self._channels.items():
            self.flags[:, top - count + 1 : top + 1] = index not in self._subbands

    def fill(self, index: int) -> None:
        """Read, rotate and place one subband."""
        subband, window, channels = self._subbands[index], self._window, self._channels[index]
        plan, frequencies = self._plan, subband.header.frequencies_hz
        space = self._spaces.pop()
        try:
            chunks = subband.flags.read_block(*window, space)
            # Raw flags are all False in practice; then there is nothing to place.
            if chunks[0].any():
                mine = slice(channels[1] - channels[0] + 1, channels[1] + 1)
                flags = subband.flags.assemble(chunks, *window)
                self.flags[self._rows[: len(flags)], mine] = flags[:, ::-1]
            step = (frequencies[-1] - frequencies[0]) / max(1, len(frequencies) - 1)
            turns = -2j * np.pi / SPEED_OF_LIGHT_M_S * self._delays
            phase = space.array("phase", (window[1] - window[0], channels[0], 2), "f4")
            first, turn = np.exp(turns * frequencies[0]), np.exp(turns * step)
            kernels.fill_phasors(first, turn, plan.pairs, phase)
            chunks = subband.visibilities.read_block(*window, space)
            out, tally = (self.data.view(np.float32), self.flags), self.tallies[index]
            kernels.rotate_visibilities(chunks, window, plan.places, channels, phase, out, tally)
            self._add_samples(subband, space)
        finally:
            self._spaces.append(space)

    def _add_samples(self, subband: reading.OpenSubband, space: Workspace) -> None:
        sums, counts = self.samples[subband.header.index], self.counts[subband.header.index]
        channels = len(subband.header.frequencies_hz)
        chunks = subband.samples.read_block(*self._window, space)
        values = chunks[0].view(np.float32)
        is_constant = _is_constant(values)
        if not is_constant:  # perhaps only by the padding of chunks at the edges
            values = subband.samples.assemble(chunks, *self._window)
            is_constant = _is_constant(values)
        if is_constant:
            sums[:], counts[:] = float(values.flat[0]) * channels, channels
            return
        usable = usable_samples(values, max_weight=MAX_SAMPLES)
        possible = (values >= 0) & (values <= MAX_SAMPLES)
        lost = np.count_nonzero(~usable), np.count_nonzero(~possible)
        self.unsampled[subband.header.index] += lost
        rows, (count, top) = self._rows[: len(values)], self._channels[subband.header.index]
        self.flags[rows, top - count + 1 : top + 1] |= ~usable[:, ::-1]
        sums[rows] = np.where(usable, values, 0).sum(axis=1, dtype=np.float64)
        counts[rows] = usable.sum(axis=1)


def _is_constant(samples: npt.NDArray[np.float32]) -> bool:
    """Return whether all nsamples are the same possible number."""
    lowest, highest = samples.min(), samples.max()
    return bool(0 < lowest == highest <= MAX_SAMPLES)


def describe_ms(field: str, plan: ConversionPlan) -> tuple[ms.MSHeader, ms.Rows]:
    """Return what the MS states once, and for each row; weights are 1 until they are put."""
    array, one, two = plan.header.array, plan.antenna1, plan.antenna2
    times = (plan.header.times_jd - MJD_ZERO_JD) * DAY_S
    uvw = (plan.geometry.uvw_m[:, one] - plan.geometry.uvw_m[:, two]).reshape(-1, 3)
    longest = float(np.max(np.linalg.norm(uvw, axis=1)))
    if longest > MAX_UVW_RATIO * plan.longest_baseline_m:
        raise AssertionError(f"max |uvw| {longest:.1f} m, baseline {plan.longest_baseline_m:.1f} m")
    header = ms.MSHeader(
        telescope=telescope.MS_NAME,
        field=field,
        ra_rad=plan.geometry.ra_rad,
        dec_rad=plan.geometry.dec_rad,
        frequencies_hz=plan.band_hz,
        channel_width_hz=plan.header.width_hz,
        antennas=ms.Antennas(array.names, array.positions_m + array.site.itrf_m, array.diameters_m),
    )
    rows = ms.Rows(
        time_s=np.repeat(times, len(one)),
        interval_s=np.full(plan.rows, plan.header.integration_s),
        antenna1=np.tile(one.astype(np.int32), len(times)),
        antenna2=np.tile(two.astype(np.int32), len(times)),
        uvw_m=uvw,
        weight=np.ones((plan.rows, POLS), np.float32),
    )
    return header, rows
