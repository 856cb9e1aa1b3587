"""The stage: plan, sky, groups, files, truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.context import Outcome
from contimg.errors import NoSourcesError
from contimg.store import open_store, put_file
from contimg_simulate import defects, demo, truth, uvh5
from contimg_simulate.array import INTEGRATION_S, SUBBANDS
from contimg_simulate.frame import DAY_S
from contimg_simulate.observe import NOISE, Group, prepare, subband
from contimg_simulate.schedule import plans
from contimg_simulate.sky import Source, merge, nvss, read_sources, standards

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from contimg.context import Context
    from contimg.store import Store
    from contimg_simulate.options import SimulateOptions
    from contimg_simulate.schedule import Plan

SKY_RADIUS_DEG = 7.0
"""How far from the pointing sources are looked for: beyond the second sidelobe."""
NAMES = 13


def run(options: SimulateOptions, context: Context) -> Outcome:
    """Write the subbands of all groups, and the truth."""
    planned = plans(options)
    own = read_sources(context.read(options.sources), options.sources) if options.sources else []
    incoming = open_store(options.incoming)
    described: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    skies: dict[str, Source] = {}
    for number, plan in enumerate(planned):
        with context.step("sky"):
            group = prepare(plan, options, _visible(plan, options, own))
        defective = number == 0
        with context.step("groups"):
            files = _write_group(group, incoming, context, (number, len(planned)), defective=defective)
        described.append(truth.describe(group, files))
        arrays |= truth.arrays(group) | truth.common_arrays(group)
        skies |= {source.name: source for source in group.sources}
    everything = [skies[name].model_dump(mode="json") for name in sorted(skies)]
    context.write("truth.json", truth.to_json(options, described, everything))
    context.write("truth.npz", truth.to_npz(arrays))
    written = sum(len(item["files"]) for item in described)
    return Outcome(metrics={"groups": len(described), "files": written, "sources": len(everything), "ids": [d["id"] for d in described]})


def _visible(plan: Plan, options: SimulateOptions, own: Sequence[Source]) -> list[Source]:
    """Return the sources that a group sees: one's own first, then flux standards, then the catalogue."""
    bare = prepare(plan, options, [])
    ra, dec = bare.centre_deg()
    sky = list(own)
    if options.campaign == "demo":
        sky = merge(sky, demo.variables(options))
    if options.nvss:
        sky = merge(merge(sky, standards()), nvss(ra, dec, SKY_RADIUS_DEG, options.seed))
    group = prepare(plan, options, sky)
    near = np.rad2deg(group.separation_rad.min(axis=1)) < SKY_RADIUS_DEG
    # A source that varies must not come and go with its flux: what it is when quiet decides.
    quiet = np.array([source.flux_jy for source in sky]) * group.beam(np.array([1.405e9])).mean(axis=(1, 2))
    seen = [source for source, keep in zip(sky, near & (quiet >= options.faintest_jy), strict=True) if keep]
    if not seen:
        remedy = "Point elsewhere, lower --faintest-jy, or give --sources."
        raise NoSourcesError(f"RA {ra:.3f}, Dec {dec:.3f}", f"a source above {options.faintest_jy} Jy in the beam", "none", remedy)
    return seen


def _write_group(group: Group, incoming: Store, context: Context, part: tuple[int, int], *, defective: bool) -> list[str]:
    """Write a group's files; return their keys below `incoming`."""
    options, plan = group.options, group.plan
    missing = defects.subband_numbers(options.missing_subbands) if defective else set()
    start = float(plan.time_jd[0]) - INTEGRATION_S / 2 / DAY_S
    clocks = uvh5.stamps(start, np.random.default_rng([options.seed, NAMES, round(plan.middle_mjd * DAY_S)]))
    keys = []
    for index, clock in enumerate(clocks):
        if index not in missing:
            path = context.scratch / "subband.hdf5"
            content = uvh5.Subband(index, group.scale, group.array, plan.dec_rad, plan.time_jd, subband(group, index))
            uvh5.write(path, content)
            if defective:
                _damage(path, index, options)
            keys.append(f"{clock[:10]}/{clock}_sb{index:02d}.hdf5")
            put_file(incoming, keys[-1], path)
            path.unlink()
        context.progress(part[0] * SUBBANDS + index + 1, part[1] * SUBBANDS)
    return keys


def _damage(path: Path, index: int, options: SimulateOptions) -> None:
    """Cut a file off, if that was asked for."""
    size = path.stat().st_size
    if index in defects.subband_numbers(options.empty_subbands):
        size = 0
    elif index in defects.subband_numbers(options.truncated_subbands):
        size = int(size * defects.TRUNCATED)
    with path.open("r+b") as file:
        file.truncate(size)
