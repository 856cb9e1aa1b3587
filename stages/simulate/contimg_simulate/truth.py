"""The truth behind simulated groups, as it is written beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contimg_simulate.array import SUBBANDS, dsa110
from contimg_simulate.observe import SimulatedGroup, beam_power
from contimg_simulate.sky import REFERENCE_HZ


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
