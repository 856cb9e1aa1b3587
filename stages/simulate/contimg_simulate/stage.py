"""The stage: plan, sky, groups, files, truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.records.array_files import to_npz
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.store import Store, open_store, put_file
from contimg_simulate import demo
from contimg_simulate.array import INTEGRATION_S, SUBBANDS
from contimg_simulate.defects import Damage, read_damage
from contimg_simulate.observe import (
    SimulatedGroup,
    prepare_group,
    select_visible,
    simulate_subband,
)
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import GroupPlan, plan_groups
from contimg_simulate.sky import REFERENCE_HZ, SkySource, merge, nvss, read_sources, standards
from contimg_simulate.truth import describe_group, group_arrays
from contimg_simulate.uvh5 import FILE_BYTES, draw_stamps, write_subband

SKY_RADIUS_DEG = 7.0
"""How far from the pointing sources are looked for: beyond the second sidelobe."""
NAMES = 13
"""Stream of random numbers for the names of the files."""


def run(options: SimulateOptions, context: Context) -> StageResult:
    """Write the subbands of all groups, and the truth."""
    plans, damage = plan_groups(options), read_damage(options)
    # One file in scratch, one subband in memory.
    file_bytes = FILE_BYTES if options.scale == "full" else FILE_BYTES // 20
    context.need(room=2 * file_bytes, memory=4 * file_bytes)
    own = read_sources(context.read(options.sources), options.sources) if options.sources else []
    incoming = open_store(options.incoming)
    described: list[dict[str, Any]] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    skies: dict[str, SkySource] = {}
    with context.step("groups"):
        for number, plan in enumerate(plans):
            group = prepare_group(plan, options, build_sky(plan, options, own))
            broken = damage if number == 0 else Damage()
            files = write_group(group, broken, incoming, context, (number, len(plans)))
            described.append(describe_group(group, files))
            arrays |= group_arrays(group)
            skies |= {source.name: source for source in group.sources}
    truth = {
        "schema_version": 1,
        "scale": options.scale,
        "seed": options.seed,
        "reference_hz": REFERENCE_HZ,
        "sources": [skies[name].model_dump(mode="json") for name in sorted(skies)],
        "groups": described,
    }
    context.write("truth.json", json.dumps(truth, indent=1).encode())
    context.write("truth.npz", to_npz(arrays))
    metrics = {
        "groups": len(described),
        "files": sum(len(group["files"]) for group in described),
        "sources": len(skies),
        "ids": [group["id"] for group in described],
    }
    return StageResult(metrics=metrics)


def build_sky(
    plan: GroupPlan, options: SimulateOptions, own: Sequence[SkySource]
) -> list[SkySource]:
    """Return the sources that a group sees: the user's, then flux standards, then the catalogue.

    Raises
    ------
    NoSourcesError
        If there are none.
    """
    ra, dec = plan.centre_deg()
    sky = merge(own, demo.variables(options)) if options.campaign == "demo" else list(own)
    if options.nvss:
        sky = merge(merge(sky, standards()), nvss(ra, dec, SKY_RADIUS_DEG, options.seed))
    seen = select_visible(plan, options, sky, SKY_RADIUS_DEG)
    if not seen:
        problem = f"There is no source above {options.faintest_jy} Jy in the beam."
        remedy = "Point elsewhere, lower --faintest-jy, or give --sources."
        raise NoSourcesError(f"RA {ra:.3f}, Dec {dec:.3f}", problem, remedy)
    return seen


def write_group(
    group: SimulatedGroup,
    damage: Damage,
    incoming: Store,
    context: Context,
    part: tuple[int, int],
) -> list[str]:
    """Write the files of group `part[0]` of `part[1]`; return their keys below `incoming`."""
    plan = group.plan
    opened = float(plan.time_jd[0]) - INTEGRATION_S / 2 / DAY_S
    rng = np.random.default_rng([group.options.seed, NAMES, round(plan.middle_mjd * DAY_S)])
    keys = []
    for index, stamp in enumerate(draw_stamps(opened, rng)):
        if index not in damage.missing:
            path = context.scratch / "subband.hdf5"
            visibilities = simulate_subband(group, index)
            write_subband(path, index, group.scale, plan.dec_rad, plan.time_jd, visibilities)
            damage.apply(path, index)
            keys.append(f"{stamp[:10]}/{stamp}_sb{index:02d}.hdf5")
            put_file(incoming, keys[-1], path)
        context.progress(part[0] * SUBBANDS + index + 1, part[1] * SUBBANDS)
    return keys
