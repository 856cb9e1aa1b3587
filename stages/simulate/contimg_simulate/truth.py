"""The truth behind simulated groups, as it is written beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contimg_simulate.sky import REFERENCE_HZ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contimg_simulate.observe import Group
    from contimg_simulate.options import SimulateOptions

BEAM_CHANNELS = 16
"""Frequencies at which the mean beam is taken: the middle of each subband."""


def describe(group: Group, files: Sequence[str]) -> dict[str, Any]:
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
        "channels": 16 * scale.channels,
        "width_hz": scale.width_hz,
        "integrations": scale.integrations,
        "files": list(files),
        "dead_antennas": list(group.options.dead_antennas),
        "deaf_antennas": list(group.options.deaf_antennas),
        "sources": _sources(group),
    }


def arrays(group: Group) -> dict[str, npt.NDArray[Any]]:
    """Return a group's arrays of the truth, named by its id."""
    on = np.zeros((group.scale.integrations, group.bandpass.shape[2]), bool)
    for emitter in group.emitters:
        on |= emitter.on
    times: dict[str, npt.NDArray[Any]] = {
        "mjd": group.plan.mjd,
        "gains": group.gains.astype(np.complex64),
        "alive": group.alive,
        "rfi": on,
    }
    return {f"{name}_{group.plan.id}": value for name, value in times.items()}


def common_arrays(group: Group) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that all groups share."""
    return {
        "antennas": group.array.active,
        "frequency_hz": group.scale.band_hz(),
        "bandpass": group.bandpass.astype(np.complex64),
        "sefd_jy": group.sefd_jy,
    }


def to_json(
    options: SimulateOptions,
    groups: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, Any]],
) -> bytes:
    """Return truth.json."""
    whole = {
        "schema_version": 1,
        "scale": options.scale,
        "seed": options.seed,
        "reference_hz": REFERENCE_HZ,
        "sources": list(sources),
        "groups": list(groups),
    }
    return json.dumps(whole, indent=1).encode()


def _sources(group: Group) -> list[dict[str, Any]]:
    """Return each source as the group sees it: flux of the day and mean beam, without the flux-scale error."""
    frequency = np.array([group.scale.frequencies_hz(k).mean() for k in range(BEAM_CHANNELS)])
    beam = group.beam(frequency).mean(axis=(1, 2)) if group.sources else np.zeros(0)
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
