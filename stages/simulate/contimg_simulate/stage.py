"""The stage: plan, sky, groups, files, truth."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.records.array_files import to_npz
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.store import open_store, put_file
from contimg_simulate import observe, sky, telescope, uvh5
from contimg_simulate.effects import EFFECTS, FAULTS, parse_effects
from contimg_simulate.observe import (
    LEFT_OF_FILE,
    MIDDLE_HZ,
    SimulatedGroup,
    beam_power,
    chord_angle,
    locate,
    read_damage,
)
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import GroupPlan, plan_groups
from contimg_simulate.sky import REFERENCE_HZ, SkySource
from contimg_simulate.telescope import INTEGRATION_S, SUBBANDS, Booleans, Floats, dsa110

SKY_RADIUS_DEG = 7.0
"""How far from the pointing sources are looked for: beyond the second sidelobe."""
MAX_THREADS = 2
"""At most so many subbands are in memory."""
NAMES = 13
"""Stream of random numbers for the names of the files."""


def run(options: SimulateOptions, context: Context) -> StageResult:
    """Write the subbands of all groups, and the truth."""
    plans, damage = plan_groups(options), read_damage(options)
    # One file in scratch, a subband of each thread in memory.
    file_bytes = uvh5.FILE_BYTES if options.scale == "full" else uvh5.FILE_BYTES // 20
    context.need(room=2 * file_bytes, memory=4 * MAX_THREADS * file_bytes)
    own: list[SkySource] = []
    if options.sources:
        own = sky.read_sources(context.read(options.sources), options.sources)
    incoming = open_store(options.incoming)
    groups: list[dict[str, Any]] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    skies: dict[str, SkySource] = {}
    with context.step("groups"):
        for number, plan in enumerate(plans):
            group = observe.prepare_group(plan, options, build_sky(plan, options, own))
            opened_jd = float(plan.written_jd[0]) - INTEGRATION_S / 2 / DAY_S
            rng = np.random.default_rng([options.seed, NAMES, round(plan.middle_mjd * DAY_S)])
            files = []
            stamps, subbands = uvh5.draw_stamps(opened_jd, rng), simulate_subbands(group)
            for index, (stamp, data) in enumerate(zip(stamps, subbands, strict=True)):
                broken = damage.get(index) if number == 0 else None
                if broken != "missing":
                    path = context.scratch / "subband.hdf5"
                    uvh5.write_subband(path, index, plan, data)
                    if broken:
                        os.truncate(path, int(path.stat().st_size * LEFT_OF_FILE[broken]))
                    files.append(f"{stamp[:10]}/{stamp}_sb{index:02d}.hdf5")
                    put_file(incoming, files[-1], path)
                context.progress(number * SUBBANDS + index + 1, len(plans) * SUBBANDS)
            groups.append(describe_group(group, files))
            arrays |= group_arrays(group)
            skies |= {source.name: source for source in group.sources}
    truth = {
        "schema_version": 1,
        "scale": options.scale,
        "seed": options.seed,
        "reference_hz": REFERENCE_HZ,
        "sources": [skies[name].model_dump(mode="json") for name in sorted(skies)],
        "groups": groups,
    }
    written = sum(len(group["files"]) for group in groups)
    context.write("truth.json", json.dumps(truth, indent=1).encode())
    context.write("truth.npz", to_npz(arrays))
    metrics: dict[str, Any] = {"groups": len(groups), "files": written, "sources": len(skies)}
    return StageResult(metrics=metrics | {"ids": [group["id"] for group in groups]})


def simulate_subbands(group: SimulatedGroup) -> Iterator[telescope.Complexes64]:
    """Yield the visibilities of each subband in turn, MAX_THREADS of which are made at a time."""
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, SUBBANDS, threads):
            some = range(first, min(first + threads, SUBBANDS))
            yield from pool.map(functools.partial(observe.simulate_subband, group), some)


def build_sky(plan: GroupPlan, options: SimulateOptions, own: list[SkySource]) -> list[SkySource]:
    """Return the sources that a group sees: near enough, and bright enough through the beam.

    They are the user's, then the flux standards, then those of the catalogue, then those drawn from
    the source count, which are fainter than the catalogue's.

    Raises
    ------
    NoSourcesError
        If there are none.
    """
    (ra, dec), found = plan.centre_deg, own
    if options.campaign == "demo":
        found = sky.merge_sources(own, sky.demo_variables(options))
    if options.nvss:
        catalogue = sky.nvss(ra, dec, SKY_RADIUS_DEG, options.seed)
        found = sky.merge_sources(sky.merge_sources(found, sky.standards()), catalogue)
    # Quiet fluxes: a source that varies must not come and go with its flux.
    quiet = np.array([source.flux_jy for source in found])
    seen = is_seen(plan, options, sky.positions_rad(found), quiet)
    found = [source for source, kept in zip(found, seen, strict=True) if kept]
    if options.nvss and options.counts:
        drawn = sky.draw_counts(ra, dec, SKY_RADIUS_DEG, options.seed, options.faintest_counts_jy)
        places = np.radians([drawn.ra_deg, drawn.dec_deg])
        found += drawn.sources(is_seen(plan, options, places, drawn.flux_jy))
    if not found:
        problem = f"There is no source above {options.faintest_jy} Jy in the beam."
        remedy = "Point elsewhere, lower --faintest-jy, or give --sources."
        raise NoSourcesError(f"RA {ra:.3f}, Dec {dec:.3f}", problem, remedy)
    effects = parse_effects(options.effects, EFFECTS)
    found = sky.apply_effects(found, effects, options.seed)
    far = sky.far_sources(effects, plan.middle_mjd)
    if far:
        ra_rad, dec_rad = sky.positions_rad(far)
        place = telescope.hadec(ra_rad, dec_rad, np.array([plan.middle_mjd]))
        towards = telescope.unit_vectors(*place)[:, 0]
        is_up = towards @ telescope.ground_axes()[2] > 0
        found += [source for source, up in zip(far, is_up, strict=True) if up]
    flare = parse_effects(options.faults, FAULTS).get("flare")
    return brighten(plan, options, found, flare[0]) if flare else found


def brighten(
    plan: GroupPlan, options: SimulateOptions, sources: list[SkySource], factor: float
) -> list[SkySource]:
    """Multiply the flux of the source that is brightest through the beam."""
    _, from_axis = locate(plan, sky.positions_rad(sources), {})
    beam = beam_power(options, from_axis, MIDDLE_HZ).mean(axis=(1, 2))
    near = np.array([source.flux_jy * (source.sidelobe == 0) for source in sources])
    brightest = int(np.argmax(near * beam))
    source, changed = sources[brightest], list(sources)
    values: dict[str, Any] = {"flux_jy": source.flux_jy * factor}
    if source.polynomial:
        values["polynomial"] = (source.polynomial[0] + np.log10(factor), *source.polynomial[1:])
    changed[brightest] = source.model_copy(update=values)
    return changed


def is_seen(
    plan: GroupPlan, options: SimulateOptions, places_rad: Floats, flux_jy: Floats
) -> Booleans:
    """Return which positions (ICRS, (2, N), rad) are near, and bright enough through the beam."""
    _, from_axis = locate(plan, places_rad, parse_effects(options.effects, EFFECTS))
    near = np.rad2deg(chord_angle(from_axis).min(axis=1)) < SKY_RADIUS_DEG
    beam = beam_power(options, from_axis, MIDDLE_HZ).mean(axis=(1, 2))
    return np.asarray(near & (flux_jy * beam >= options.faintest_jy))


def describe_group(group: SimulatedGroup, files: Sequence[str]) -> dict[str, Any]:
    """Return what is true of one group, as JSON holds it.

    Of each source its flux and mean beam in the group, without the flux-scale error.
    """
    plan, scale = group.plan, group.plan.scale
    # The mean beam is taken at the middle of each subband.
    frequency = np.array([scale.frequencies_hz(k).mean() for k in range(SUBBANDS)])
    beam = group.beam(frequency).mean(axis=(1, 2))
    apparent = group.apparent_jy(frequency).mean(axis=(1, 2))
    reference = np.array([REFERENCE_HZ, frequency.mean()])
    sources = []
    for k, source in enumerate(group.sources):
        at_reference, at_middle = source.spectrum_jy(reference, plan.middle_mjd)
        described = source.model_dump(include={"name", "ra_deg", "dec_deg"})
        described |= {"flux_jy": float(at_reference), "flux_mid_jy": float(at_middle)}
        described |= {"beam": float(beam[k]), "apparent_jy": float(apparent[k])}
        described["separation_deg"] = float(np.rad2deg(group.separation_rad[k].mean()))
        sources.append(described | {"curve": source.curve.kind})
    return {
        "id": plan.id,
        "role": plan.role,
        "epoch": plan.epoch,
        "mjd": plan.middle_mjd,
        "mjd_start": float(plan.mjd[0]),
        "mjd_end": float(plan.mjd[-1]),
        "pointing_dec_deg": float(np.rad2deg(plan.dec_rad)),
        "ra_deg": plan.centre_deg[0],
        "dec_deg": plan.centre_deg[1],
        "flux_scale": group.flux_scale,
        "channels": SUBBANDS * scale.channels,
        "width_hz": scale.width_hz,
        "integrations": scale.integrations,
        "files": list(files),
        "dead_antennas": list(group.options.dead_antennas),
        "deaf_antennas": list(group.options.deaf_antennas),
        "effects": {name: list(numbers) for name, numbers in group.effects.items()},
        "faults": {name: list(numbers) for name, numbers in group.faults.items()},
        "sources": sources,
    }


def group_arrays(group: SimulatedGroup) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the truth: those of all groups, and the group's own with its id."""
    rfi = np.zeros((group.plan.scale.integrations, group.bandpass.shape[2]), bool)
    for emitter in group.emitters:
        rfi |= emitter.on
    name = group.plan.id
    return {
        f"mjd_{name}": group.plan.mjd,
        f"gains_{name}": group.gains.astype(np.complex64),
        f"alive_{name}": group.alive,
        f"rfi_{name}": rfi,
        "antennas": dsa110().active,
        "frequency_hz": group.plan.scale.band_hz(),
        "bandpass": group.bandpass.astype(np.complex64),
        "sefd_jy": group.sefd_jy,
    }
