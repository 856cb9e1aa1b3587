"""The stage: plan, sky, groups, files, truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.records.array_files import to_npz
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.store import Store, open_store, put_file
from contimg_simulate import demo
from contimg_simulate.array import INTEGRATION_S, SUBBANDS, dsa110
from contimg_simulate.defects import damage_file, read_damage
from contimg_simulate.observe import (
    SimulatedGroup,
    beam_power,
    prepare_group,
    select_visible,
    simulate_subband,
)
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import GroupPlan, plan_groups
from contimg_simulate.sky import (
    REFERENCE_HZ,
    SkySource,
    merge_sources,
    nvss,
    read_sources,
    standards,
)
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
            broken = damage if number == 0 else {}
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
    sky = merge_sources(own, demo.variables(options)) if options.campaign == "demo" else list(own)
    if options.nvss:
        sky = merge_sources(
            merge_sources(sky, standards()), nvss(ra, dec, SKY_RADIUS_DEG, options.seed)
        )
    seen = select_visible(plan, options, sky, SKY_RADIUS_DEG)
    if not seen:
        problem = f"There is no source above {options.faintest_jy} Jy in the beam."
        remedy = "Point elsewhere, lower --faintest-jy, or give --sources."
        raise NoSourcesError(f"RA {ra:.3f}, Dec {dec:.3f}", problem, remedy)
    return seen


def write_group(
    group: SimulatedGroup,
    damage: Mapping[int, str],
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
        if damage.get(index) != "missing":
            path = context.scratch / "subband.hdf5"
            visibilities = simulate_subband(group, index)
            write_subband(path, index, group.scale, plan.dec_rad, plan.time_jd, visibilities)
            damage_file(path, damage.get(index, ""))
            keys.append(f"{stamp[:10]}/{stamp}_sb{index:02d}.hdf5")
            put_file(incoming, keys[-1], path)
        context.progress(part[0] * SUBBANDS + index + 1, part[1] * SUBBANDS)
    return keys


def describe_group(group: SimulatedGroup, files: Sequence[str]) -> dict[str, Any]:
    """Return what is true of one group, as JSON holds it."""
    plan, scale = group.plan, group.scale
    ra, dec = plan.centre_deg()
    return {
        "id": plan.id,
        "role": plan.role,
        "epoch": plan.epoch,
        "mjd": plan.middle_mjd,
        "mjd_start": float(plan.mjd[0]),
        "mjd_end": float(plan.mjd[-1]),
        "pointing_dec_deg": float(np.rad2deg(plan.dec_rad)),
        "ra_deg": ra,
        "dec_deg": dec,
        "flux_scale": group.flux_scale,
        "channels": SUBBANDS * scale.channels,
        "width_hz": scale.width_hz,
        "integrations": scale.integrations,
        "files": list(files),
        "dead_antennas": list(group.options.dead_antennas),
        "deaf_antennas": list(group.options.deaf_antennas),
        "sources": describe_sources(group),
    }


def describe_sources(group: SimulatedGroup) -> list[dict[str, Any]]:
    """Return flux and mean beam of each source in the group, without the flux-scale error."""
    # The mean beam is taken at the middle of each subband.
    frequency = np.array([group.scale.frequencies_hz(k).mean() for k in range(SUBBANDS)])
    beam = beam_power(group.options, group.separation_rad, frequency).mean(axis=(1, 2))
    apparent = group.apparent_jy(frequency).mean(axis=(1, 2))
    reference = np.array([REFERENCE_HZ, frequency.mean()])
    made = []
    for k, source in enumerate(group.sources):
        at_reference, at_middle = source.spectrum_jy(reference, group.plan.middle_mjd)
        made.append(
            {
                "name": source.name,
                "ra_deg": source.ra_deg,
                "dec_deg": source.dec_deg,
                "flux_jy": float(at_reference),
                "flux_mid_jy": float(at_middle),
                "beam": float(beam[k]),
                "apparent_jy": float(apparent[k]),
                "separation_deg": float(np.rad2deg(group.separation_rad[k].mean())),
                "curve": source.curve.kind,
            }
        )
    return made


def group_arrays(group: SimulatedGroup) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the truth: those of all groups, and the group's own with its id."""
    rfi = np.zeros((group.scale.integrations, group.bandpass.shape[2]), bool)
    for emitter in group.emitters:
        rfi |= emitter.on
    return {
        f"mjd_{group.plan.id}": group.plan.mjd,
        f"gains_{group.plan.id}": group.gains.astype(np.complex64),
        f"alive_{group.plan.id}": group.alive,
        f"rfi_{group.plan.id}": rfi,
        "antennas": dsa110().active,
        "frequency_hz": group.scale.band_hz(),
        "bandpass": group.bandpass.astype(np.complex64),
        "sefd_jy": group.sefd_jy,
    }
