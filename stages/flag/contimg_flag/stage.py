"""The flag stage: what must not be used, step by step, and how much each step takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from contimg.records.flagfile import pack_flags
from contimg.runtime.context import StageResult
from contimg.runtime.errors import AllFlaggedError
from contimg.runtime.manifest import QA
from contimg_flag import array_mean, receptors, rfi, steps
from contimg_flag.ledger import Ledger
from contimg_flag.visibilities import Visibilities

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.runtime.context import Context
    from contimg_flag.options import FlagOptions

    BoolArray = npt.NDArray[np.bool_]
    Float32Array = npt.NDArray[np.float32]

STEPS = 7
CLIP_CHANNELS = 16
"""Channels sorted by time at once, so that a cache line is used whole."""
MANY = 0.3
"""Flagged fraction above which an operator should look."""
MANY_DEAD = 10
"""Dead receptors above which an operator should look."""


def run(options: FlagOptions, context: Context) -> StageResult:
    """Flag one group."""
    with context.step("read"):
        visibilities = Visibilities(context.fetch_tree(options.ms, "ms.tar"))
    ledger = Ledger(visibilities)
    ledger.note("missing", "already flagged in the Measurement Set: missing subbands, not finite")
    context.progress(1, STEPS)
    with context.step("zeros, autos, dead antennas"):
        dead, amplitude = _simple_steps(visibilities, ledger, options)
    _require_some(options.ms, ledger)
    context.progress(4, STEPS)
    with context.step("interference"):
        _interference(visibilities, amplitude, ledger, options, context)
    context.progress(6, STEPS)
    with context.step("clip"):
        _clip(visibilities, options.clip_sigma)
        ledger.note(
            "clip", f"amplitude more than {options.clip_sigma:g} sigma above its channel's median"
        )
    _require_some(options.ms, ledger)
    with context.step("write"):
        context.write("flags.bin", pack_flags(visibilities.flags))
        context.write("flagging.json", json.dumps(ledger.report(dead), indent=1).encode())
    context.progress(STEPS, STEPS)
    # The page of a run puts what all stages say of a group into one row.
    group = context.manifest(options.ms).metrics.get("group")
    return _outcome(group, visibilities, ledger, dead)


def _simple_steps(
    visibilities: Visibilities, ledger: Ledger, options: FlagOptions
) -> tuple[BoolArray, Float32Array]:
    """Zeros, autos, dead receptors; return the dead ones, shape (antennas, correlations), and the mean amplitude of each row."""
    flags, missing = visibilities.flags, ledger.by_channel >= 1
    sums = Sums.zeros(visibilities)
    for block, data in visibilities.blocks():
        steps.flag_zeros(data, flags[block])
        sums.add(block, data, flags[block])
    ledger.note("zeros", "exactly zero: the correlator had no data")
    flags[~visibilities.cross] = True
    ledger.note("autos", "auto-correlations; they count in no fraction")
    there = max(1e-9, 1 - float(missing.mean()))
    dead = sums.dead(visibilities, (ledger.by_row - missing.mean()) / there, options.dead_fraction)
    receptors.flag(flags, dead, visibilities.antenna1, visibilities.antenna2)
    ledger.note(
        "dead",
        f"receptors with at least {options.dead_fraction:.0%} bad visibilities, no power or no sky",
    )
    return dead, sums.amplitude


@dataclass(frozen=True)
class Sums:
    """What is summed over the channels of each row; each has shape (rows, correlations)."""

    amplitude: Float32Array
    product: npt.NDArray[np.complex64]
    power: Float32Array
    pairs: npt.NDArray[np.int32]

    @classmethod
    def zeros(cls, visibilities: Visibilities) -> Self:
        """Return sums of nothing."""
        rows, _, products = visibilities.shape
        shape = (rows, products)
        return cls(
            np.zeros(shape, np.float32),
            np.zeros(shape, np.complex64),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int32),
        )

    def add(self, block: slice, data: npt.NDArray[np.complex64], flags: BoolArray) -> None:
        """Fill in a block of rows."""
        steps.mean_amplitudes(data, flags, self.amplitude[block])
        steps.neighbour_products(
            data, flags, self.product[block], self.power[block], self.pairs[block]
        )

    def dead(
        self, visibilities: Visibilities, fractions: npt.NDArray[np.float64], limit: float
    ) -> BoolArray:
        """Judge the receptors; `fractions` are bad fractions of the rows."""
        cross, antennas = visibilities.cross, len(visibilities.header.antennas.names)
        first, second = visibilities.antenna1[cross], visibilities.antenna2[cross]

        def matrix(values: npt.NDArray[Any]) -> npt.NDArray[np.complex128]:
            return receptors.baseline_sums(values[cross], first, second, antennas)

        rows = matrix(np.ones_like(fractions)).real
        found = receptors.bad(matrix(fractions).real / rows, limit)
        found |= receptors.silent(matrix(self.amplitude).real / rows)
        return found | receptors.deaf(
            matrix(self.product), matrix(self.power).real, matrix(self.pairs).real
        )


def _interference(
    visibilities: Visibilities,
    amplitude: Float32Array,
    ledger: Ledger,
    options: FlagOptions,
    context: Context,
) -> None:
    if options.rfi == "off":
        return
    _array_mean(visibilities, amplitude)
    ledger.note("array", "stands out in the mean over all baselines")
    if options.rfi == "aoflagger":
        rfi.aoflagger(visibilities, context)
        ledger.note("rfi", "AOFlagger, each baseline")
    else:
        rfi.casa(visibilities, context)
        ledger.note("rfi", "CASA tfcrop and rflag, each baseline")


def _array_mean(visibilities: Visibilities, mean: Float32Array) -> None:
    """Flag what the mean over baselines shows, on all baselines and correlations; `mean` is the mean amplitude of each row."""
    flags, times = visibilities.flags, len(visibilities.times_s)
    _, channels, products = visibilities.shape
    total, count = np.zeros((times, channels, products)), np.zeros((times, channels, products))
    for block, data in visibilities.blocks():
        array_mean.add_rows(
            data,
            flags[block],
            visibilities.cross[block],
            mean[block],
            visibilities.time_index[block],
            total,
            count,
        )
    level = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    found = np.any(
        [array_mean.interference(level[..., product]) for product in range(products)], axis=0
    )
    cross = visibilities.cross
    rows_of = np.bincount(visibilities.time_index[cross], minlength=times)
    loudness = (
        np.bincount(visibilities.time_index[cross], mean[cross].mean(axis=1), times) / rows_of
    )
    # The median channel: a burst in part of the band is no reason to lose the rest.
    found[array_mean.bursts(loudness * np.nanmedian(level, axis=(1, 2)))] = True
    for time in np.flatnonzero(found.any(axis=1)):
        mine = visibilities.time_index == time
        flags[mine] |= found[time][None, :, None]


def _clip(visibilities: Visibilities, sigma: float) -> None:
    """Flag single cross-correlations that are too loud for their channel and correlation."""
    flags = visibilities.flags
    _, channels, products = visibilities.shape
    amplitudes = np.empty(flags.shape, np.float32)
    for block, data in visibilities.blocks():
        steps.good_amplitudes(data, flags[block], amplitudes[block])
    for first in range(0, channels, CLIP_CHANNELS):
        some = amplitudes[:, first : first + CLIP_CHANNELS]
        series = np.ascontiguousarray(some.reshape(len(some), -1).T)
        level = np.array([steps.clip_level(one, sigma) for one in series], np.float32).reshape(
            -1, products
        )
        flags[:, first : first + CLIP_CHANNELS] |= some > level


def _require_some(where: str, ledger: Ledger) -> None:
    if ledger.fraction >= 1:
        by_step = ", ".join(f"{item['step']} {item['fraction']:.1%}" for item in ledger.steps)
        remedy = "Look at the raw data: the correlator may have been off."
        raise AllFlaggedError(
            where,
            f"expected some visibilities to use, found all flagged (after {by_step}).",
            remedy,
        )


def _outcome(
    group: str | None, visibilities: Visibilities, ledger: Ledger, dead: BoolArray
) -> StageResult:
    names = visibilities.header.antennas.names
    lost = [
        f"{names[antenna]}{visibilities.correlations[product][0]}"
        for antenna in visibilities.antennas
        for product in np.flatnonzero(dead[antenna])
    ]
    reasons = []
    if ledger.fraction > MANY:
        reasons.append(
            f"{ledger.fraction:.1%} of the visibilities are flagged (expected at most {MANY:.0%})"
        )
    if len(lost) > MANY_DEAD:
        reasons.append(f"{len(lost)} receptors are dead (expected at most {MANY_DEAD})")
    metrics = {"group": group, "fraction": ledger.fraction, "dead_receptors": lost}
    metrics |= {f"fraction_{item['step']}": item["fraction"] for item in ledger.steps}
    return StageResult(
        metrics=metrics, qa=QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
    )
