"""The flag stage: find unusable visibilities step by step, and record how much each step flags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contimg.astro.measures import call_casa
from contimg.records.flagfile import pack_flags
from contimg.runtime.context import Context, StageResult
from contimg.runtime.manifest import QA
from contimg_flag import ground, outliers, rfi, steps
from contimg_flag.ground import GroundSignal
from contimg_flag.options import FlagOptions
from contimg_flag.steps import BoolArray, Float32Array, FloatArray
from contimg_flag.visibilities import DIGITS, Visibilities

PROGRESS_STEPS = 7
CLIP_CHANNELS = 16
"""Channels sorted by time together, so that a cache line is used whole."""
SILENT_GAIN = 0.1
"""A receptor has no power below this part of the median amplitude; healthy gains differ by 2."""
MAX_FLAGGED_FRACTION = 0.3
"""Flagged fraction above which the verdict is a warning."""
MAX_DEAD_RECEPTORS = 10
"""Dead receptors above which the verdict is a warning."""
MAX_INTERFERENCE_FRACTION = 0.96
"""Interference in more of a group than this is not flagged, and named in the verdict."""
MIN_NAMED_FRACTION = 0.1
"""Interference in more of a group than this is named in the verdict."""


class Receptors(NamedTuple):
    """What the first pass over the data shows."""

    dead: BoolArray
    """Shape (antennas, correlations)."""
    amplitude: Float32Array
    """Mean of each row, shape (rows, correlations)."""
    gain: Float32Array
    """Product of the gains of its two receptors for each row, of the same shape; 1 if unknown."""
    brightness: float
    """Amplitude of the sky over the noise of a visibility."""


def run(options: FlagOptions, context: Context) -> StageResult:
    """Flag one group."""
    with context.step("read"):
        vis = Visibilities(context.fetch_tree(options.ms, "ms.tar"), options.ms)
        group = context.manifest(options.ms).metrics.get("group")
    meaning = "already flagged in the Measurement Set: missing subbands, not finite"
    vis.record_step("missing", meaning)
    context.progress(1, PROGRESS_STEPS)
    with context.step("zeros, autos, dead antennas"):
        receptors = flag_zeros_and_dead(vis, options.dead_fraction)
    context.progress(4, PROGRESS_STEPS)
    signal = None
    with context.step("interference"):
        if options.rfi != "off":
            signal = flag_array(vis, receptors)
            meaning = "stands out in the mean over all baselines, or does not move with the sky"
            vis.record_step("array", meaning)
        if options.rfi == "aoflagger":
            rfi.run_aoflagger(vis, context, receptors.brightness)
            vis.record_step("rfi", "AOFlagger, each baseline")
        elif options.rfi == "casa":
            ms = str(vis.path)
            with vis.flags_on_disk():
                call_casa(context, "contimg_flag.rfi:call_flagdata", rfi.TIMEOUT_S, ms=ms)
            vis.record_step("rfi", "CASA tfcrop and rflag, each baseline")
    with context.step("radiometer"):
        ratios = _measure_noise(vis, receptors.amplitude)
    context.progress(6, PROGRESS_STEPS)
    with context.step("clip"):
        _clip(vis, receptors.gain, options.clip_sigma)
        meaning = f"amplitude over gains {options.clip_sigma:g} sigma above its channel's median"
        vis.record_step("clip", meaning)
    report = vis.report(receptors.dead)
    with context.step("write"):
        context.write("flags.bin", pack_flags(vis.flags))
        context.write("flagging.json", json.dumps(report, indent=1).encode())
    context.progress(PROGRESS_STEPS, PROGRESS_STEPS)
    lost = [f"{item['name']}{name[0]}" for item in report["antennas"] for name in item["dead"]]
    reasons = _judge(vis.fraction, lost, signal)
    if receptors.brightness < rfi.BRIGHT:
        names = vis.header.antennas.names
        reasons += outliers.judge_radiometer(ratios, names, vis.correlations, receptors.brightness)
    metrics = {"group": group, "fraction": vis.fraction, "dead_receptors": lost}
    if np.isfinite(ratios).any():
        metrics |= {"noise_ratio": round(float(np.nanmedian(ratios)), 4)}
    if signal:
        metrics |= {"interference_fraction": round(signal.fraction, DIGITS)}
        metrics |= {"interference_sigma": round(signal.sigma, 3)}
    metrics |= {f"fraction_{item['step']}": item["fraction"] for item in vis.steps}
    qa = QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
    return StageResult(metrics=metrics, qa=qa)


def _judge(fraction: float, lost: Sequence[str], signal: GroundSignal | None) -> list[str]:
    """Return what makes the verdict a warning: flags, dead receptors, interference."""
    reasons, limit = [], f"expected at most {MAX_FLAGGED_FRACTION:.0%}"
    if fraction > MAX_FLAGGED_FRACTION:
        reasons.append(f"{fraction:.1%} of the visibilities are flagged ({limit})")
    if len(lost) > MAX_DEAD_RECEPTORS:
        reasons.append(f"{len(lost)} receptors are dead (expected at most {MAX_DEAD_RECEPTORS})")
    if signal and (signal.mirrored or signal.fraction > MIN_NAMED_FRACTION):
        reasons.append(signal.describe())
    return reasons


def flag_zeros_and_dead(vis: Visibilities, dead_fraction: float) -> Receptors:
    """Flag zeros, autos and dead receptors."""
    flags, cross = vis.flags, vis.cross
    missing = (vis.by_channel >= 1).mean()
    shape = flags.shape[::2]
    amplitude, power = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    product, pairs = np.zeros(shape, np.complex64), np.zeros(shape, np.int32)
    for block, data in vis.blocks():
        steps.flag_zeros(data, flags[block])
        steps.mean_amplitudes(data, flags[block], amplitude[block])
        steps.neighbour_products(data, flags[block], product[block], power[block], pairs[block])
    vis.record_step("zeros", "exactly zero: the correlator had no data")
    flags[~cross] = True
    vis.record_step("autos", "auto-correlations; they count in no fraction")
    # Channels that are missing for all antennas make no receptor dead.
    bad_fraction = (vis.by_row - missing) / max(1e-9, 1 - float(missing))
    antenna1, antenna2 = vis.antenna1, vis.antenna2
    antennas = len(vis.header.antennas.names)
    rows, bad, amplitudes, products, powers, numbers = (
        outliers.sum_baselines(values[cross], antenna1[cross], antenna2[cross], antennas)
        for values in (np.ones(shape), bad_fraction, amplitude, product, power, pairs)
    )
    dead = outliers.average_baselines(bad.real / rows.real) >= dead_fraction
    gains = outliers.measure_gains(amplitudes.real / rows.real)
    dead |= gains < SILENT_GAIN
    place_m = vis.header.antennas.positions_m
    length_m = np.linalg.norm(place_m[:, None] - place_m[None, :], axis=-1)
    dead |= outliers.find_deaf(products, powers.real, numbers.real, length_m)
    flags |= (dead[antenna1] | dead[antenna2])[:, None, :]
    meaning = f"receptors with at least {dead_fraction:.0%} bad visibilities, no power or no sky"
    vis.record_step("dead", meaning)
    gain = np.nan_to_num((gains[antenna1] * gains[antenna2]).astype(np.float32), nan=1.0)
    brightness = outliers.measure_brightness(products, powers.real)
    return Receptors(dead=dead, amplitude=amplitude, gain=gain, brightness=brightness)


def _measure_noise(vis: Visibilities, amplitude: Float32Array) -> FloatArray:
    """Return the noise over that which autocorrelations predict, (antennas, correlations).

    `amplitude` is the mean of each row, shape (rows, correlations).
    """
    flags, cross, one, two = vis.flags, vis.cross, vis.antenna1, vis.antenna2
    shape, antennas = flags.shape[::2], len(vis.header.antennas.names)
    product, power = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    pairs = np.zeros(shape, np.int32)
    for block, data in vis.blocks():
        steps.neighbour_products(data, flags[block], product[block], power[block], pairs[block])
    products, powers, numbers = (
        outliers.sum_baselines(values[cross], one[cross], two[cross], antennas)
        for values in (product, power, pairs)
    )
    autos, count = np.zeros((antennas, shape[1])), np.bincount(one[~cross], minlength=antennas)
    np.add.at(autos, one[~cross], amplitude[~cross])
    autos /= np.maximum(count, 1)[:, None]
    # XY of an antenna with itself is no power.
    autos[:, [name[0] != name[-1] for name in vis.correlations]] = 0
    return outliers.compare_radiometer(products, powers.real, numbers.real, autos, vis.samples)


def flag_array(vis: Visibilities, receptors: Receptors) -> GroundSignal:
    """Flag interference that all baselines see, on all baselines and correlations.

    A signal that does not move with the sky is returned, and flagged unless it is nearly everywhere
    or the sky itself.
    """
    flags, cross, count = vis.flags, vis.cross, len(vis.times_s)
    shape = (count, *flags.shape[1:])
    total, samples = np.zeros(shape), np.zeros(shape)
    picked, turns = ground.choose_baselines(vis)
    sample = np.full((*picked.shape, *flags.shape[1:]), np.nan, np.complex64)
    for block, data in vis.blocks():
        part = cross[block], receptors.amplitude[block], vis.time_index[block]
        steps.add_rows(data, flags[block], *part, total, samples)
        here = (picked >= block.start) & (picked < block.stop)
        sample[here] = data[picked[here] - block.start]
    level = np.divide(total, samples, out=np.full(shape, np.nan), where=samples > 0)
    found = np.any([outliers.find_interference(x) for x in np.moveaxis(level, -1, 0)], axis=0)
    times = vis.time_index[cross]
    rows = np.bincount(times, minlength=count)
    relative = (receptors.amplitude / receptors.gain)[cross].mean(axis=1)
    loudness = np.bincount(times, relative, count) / rows
    # Of the median channel: a burst in part of the band is no reason to flag the rest.
    found[outliers.find_bursts(loudness * np.nanmedian(level, axis=(1, 2)))] = True
    missing = (picked < 0)[..., None, None]
    sample[flags[picked] | found[:, None, :, None] | missing] = np.nan
    signal = ground.find_ground_signal(sample, turns)
    # What is left would be no observation: the data stay, and the verdict tells.
    if signal.fraction <= MAX_INTERFERENCE_FRACTION and not signal.mirrored:
        found |= signal.found
    for time in np.flatnonzero(found.any(axis=1)):
        flags[vis.time_index == time] |= found[time][None, :, None]
    return signal


def _clip(vis: Visibilities, gain: Float32Array, sigma: float) -> None:
    """Flag single cross-correlations that are too loud for their channel and correlation.

    Over their gains, so that strong antennas are not flagged and hide nothing.
    """
    flags = vis.flags
    _, channels, products = flags.shape
    amplitudes = np.empty(flags.shape, np.float32)
    for block, data in vis.blocks():
        steps.good_amplitudes(data, flags[block], gain[block], amplitudes[block])
    for first in range(0, channels, CLIP_CHANNELS):
        part = amplitudes[:, first : first + CLIP_CHANNELS]
        series = np.ascontiguousarray(part.reshape(len(part), -1).T)
        levels = np.array([steps.clip_level(samples, sigma) for samples in series], np.float32)
        flags[:, first : first + CLIP_CHANNELS] |= part > levels.reshape(-1, products)
