"""The stage: plan, sky, groups, files, truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.records.array_files import to_npz
from contimg.runtime.context import StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.store import open_store, put_file
from contimg_simulate import defects, demo, truth, uvh5
from contimg_simulate.array import INTEGRATION_S, SUBBANDS
from contimg_simulate.observe import Group, prepare, subband, visible
from contimg_simulate.schedule import plans
from contimg_simulate.sky import Source, merge, nvss, read_sources, standards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contimg.runtime.context import Context
    from contimg.runtime.store import Store
    from contimg_simulate.defects import Damage
    from contimg_simulate.options import SimulateOptions
    from contimg_simulate.schedule import Plan

SKY_RADIUS_DEG = 7.0
"""How far from the pointing sources are looked for: beyond the second sidelobe."""
NAMES = 13


def run(options: SimulateOptions, context: Context) -> StageResult:
    """Write the subbands of all groups, and the truth."""
    planned, damage = plans(options), defects.damage(options)
    _check_room(options, context)
    own = read_sources(context.read(options.sources), options.sources) if options.sources else []
    incoming = open_store(options.incoming)
    described: list[dict[str, Any]] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    skies: dict[str, Source] = {}
    with context.step("groups"):
        for number, plan in enumerate(planned):
            group = prepare(plan, options, _sky(plan, options, own))
            broken = damage if number == 0 else defects.Damage()
            files = _write_group(group, broken, incoming, context, (number, len(planned)))
            described.append(truth.describe(group, files))
            arrays |= truth.arrays(group) | truth.common_arrays(group)
            skies |= {source.name: source for source in group.sources}
            context.progress((number + 1) * SUBBANDS, len(planned) * SUBBANDS)
    everything = [skies[name].model_dump(mode="json") for name in sorted(skies)]
    context.write("truth.json", truth.to_json(options, described, everything))
    context.write("truth.npz", to_npz(arrays))
    written = sum(len(group["files"]) for group in described)
    ids = [group["id"] for group in described]
    return StageResult(
        metrics={"groups": len(ids), "files": written, "sources": len(everything), "ids": ids}
    )


def _check_room(options: SimulateOptions, context: Context) -> None:
    """Refuse early what the machine cannot hold: one file in scratch, one subband in memory."""
    whole = uvh5.FILE_BYTES if options.scale == "full" else uvh5.FILE_BYTES // 20
    context.need(room=2 * whole, memory=4 * whole)


def _sky(plan: Plan, options: SimulateOptions, own: Sequence[Source]) -> list[Source]:
    """Return the sources that a group sees: one's own first, then flux standards, then the catalogue."""
    ra, dec = plan.centre_deg()
    sky = merge(own, demo.variables(options)) if options.campaign == "demo" else list(own)
    if options.nvss:
        sky = merge(merge(sky, standards()), nvss(ra, dec, SKY_RADIUS_DEG, options.seed))
    seen = visible(plan, options, sky, SKY_RADIUS_DEG)
    if not seen:
        remedy = "Point elsewhere, lower --faintest-jy, or give --sources."
        place = f"RA {ra:.3f}, Dec {dec:.3f}"
        raise NoSourcesError(
            place,
            f"expected a source above {options.faintest_jy} Jy in the beam, found none.",
            remedy,
        )
    return seen


def _write_group(
    group: Group, damage: Damage, incoming: Store, context: Context, part: tuple[int, int]
) -> list[str]:
    """Write a group's files; return their keys below `incoming`."""
    plan = group.plan
    opened = float(plan.time_jd[0]) - INTEGRATION_S / 2 / DAY_S
    clocks = uvh5.stamps(
        opened, np.random.default_rng([group.options.seed, NAMES, round(plan.middle_mjd * DAY_S)])
    )
    keys = []
    for index, clock in enumerate(clocks):
        context.progress(part[0] * SUBBANDS + index, part[1] * SUBBANDS)
        if index in damage.missing:
            continue
        path = context.scratch / "subband.hdf5"
        uvh5.write(
            path,
            uvh5.Subband(
                index, group.scale, group.array, plan.dec_rad, plan.time_jd, subband(group, index)
            ),
        )
        damage.apply(path, index)
        keys.append(f"{clock[:10]}/{clock}_sb{index:02d}.hdf5")
        put_file(incoming, keys[-1], path)
    return keys
