"""Which groups are observed, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.groups import group_id, mjd_of, utc_of_jd
from contimg.runtime.errors import UsageError
from contimg_simulate import telescope
from contimg_simulate.effects import FAULTS, parse_effects
from contimg_simulate.options import SimulateOptions
from contimg_simulate.telescope import INTEGRATION_S, MJD_ZERO, DataScale, Floats

Role = Literal["calibrator", "target", "single"]


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """One group to be made."""

    id: str
    scale: DataScale
    time_jd: Floats
    """Integration midpoints, UTC, shape (T,)."""
    mjd: Floats
    """The same as MJD."""
    middle_mjd: float
    tick: int
    """The second of the first integration: a seed that belongs to the group."""
    dec_rad: float
    """Apparent Declination of the pointing."""
    centre_deg: tuple[float, float]
    """ICRS position of the pointing at the middle of the group."""
    role: Role
    epoch: int
    """Number of the visit; all groups of one visit share a flux-scale error."""
    written_jd: Floats
    """Integration midpoints as the files state them, (T,)."""
    written_dec_rad: float
    """Declination of the phase centre as the files state it."""


def plan_groups(options: SimulateOptions) -> list[GroupPlan]:
    """Return the groups that the options ask for, in order of time."""
    scale, dec = telescope.SCALES[options.scale], float(np.deg2rad(options.dec_deg))
    half = (scale.integrations - 1) / 2 * INTEGRATION_S / DAY_S
    steps = np.arange(scale.integrations) * INTEGRATION_S / DAY_S

    def start_before_transit(ra_deg: float, after_mjd: float) -> float:
        """Return the first midpoint of a group whose middle is at a transit."""
        return telescope.transit_mjd(float(np.deg2rad(ra_deg)), dec, after_mjd + half) - half

    visits: list[tuple[float, Role, int]] = []
    if options.campaign == "single":
        given = parse_mjd(options.time or options.date)
        first = given if options.time else start_before_transit(options.ra_deg, given)
        starts = first + np.arange(options.groups) * telescope.CADENCE_S / DAY_S
        visits = [(start, "single", 0) for start in starts.tolist()]
    else:
        first_day = parse_mjd(options.date)
        for epoch, later in enumerate(np.linspace(0, options.days, options.epochs)):
            calibrator = start_before_transit(options.ra_deg, float(first_day + round(later)))
            if epoch % options.calibrate_every == 0:
                visits.append((calibrator, "calibrator", epoch))
            # After the calibrator, so that a visit is one stretch of time.
            target = start_before_transit(options.target_ra_deg, calibrator)
            visits.append((target, "target", epoch))
    faults, plans = parse_effects(options.faults, FAULTS), []
    (late_s,), (off_deg,) = (faults.get(name, (0.0,)) for name in ("time", "declination"))
    for start, role, epoch in visits:
        time_jd = np.asarray(start + MJD_ZERO + steps)
        mjd = time_jd - MJD_ZERO
        ra_rad, dec_rad = telescope.icrs_of_meridian(dec, mjd.mean(keepdims=True))
        plans.append(
            GroupPlan(
                id=group_id(utc_of_jd(float(time_jd[0] + late_s / DAY_S))),
                scale=scale,
                time_jd=time_jd,
                mjd=mjd,
                middle_mjd=float(mjd.mean()),
                tick=round(float(mjd[0]) * DAY_S),
                dec_rad=dec,
                centre_deg=(float(np.rad2deg(ra_rad[0]) % 360), float(np.rad2deg(dec_rad[0]))),
                role=role,
                epoch=epoch,
                written_jd=time_jd + late_s / DAY_S,
                written_dec_rad=dec + float(np.deg2rad(off_deg)),
            )
        )
    return plans


def parse_mjd(text: str) -> float:
    """Read a UTC date or time as MJD.

    Raises
    ------
    UsageError
        If it is not in the form of ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError as error:
        problem = f"{text} is not a UTC date or time in the form of ISO 8601."
        raise UsageError("date or time", problem, "Write it as 2026-01-25T22:26:05.") from error
    return mjd_of(moment.replace(tzinfo=UTC))
