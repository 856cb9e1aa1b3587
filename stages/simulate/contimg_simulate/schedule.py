"""Which groups are observed, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.groups import group_id, mjd_of, utc_of_jd
from contimg.runtime.errors import UsageError
from contimg_simulate.array import CADENCE_S, INTEGRATION_S, SCALES
from contimg_simulate.frame import MJD_ZERO, Floats, icrs_of_meridian, transit_mjd
from contimg_simulate.options import SimulateOptions

Role = Literal["calibrator", "target", "single"]


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """One group to be made."""

    time_jd: Floats
    """Integration midpoints, UTC, shape (T,)."""
    dec_rad: float
    """Apparent Declination of the pointing."""
    role: Role
    epoch: int
    """Number of the visit; all groups of one visit share a flux-scale error."""

    @property
    def id(self) -> str:
        """The group's id."""
        return group_id(utc_of_jd(float(self.time_jd[0])))

    @property
    def mjd(self) -> Floats:
        """Integration midpoints, MJD UTC."""
        return self.time_jd - MJD_ZERO

    @property
    def middle_mjd(self) -> float:
        """Middle of the group, MJD UTC."""
        return float(self.mjd.mean())

    @property
    def tick(self) -> int:
        """The second of the first integration: a seed that belongs to the group."""
        return round(float(self.mjd[0]) * DAY_S)

    def centre_deg(self) -> tuple[float, float]:
        """Return the ICRS position of the pointing at the middle of the group."""
        ra, dec = icrs_of_meridian(self.dec_rad, np.array([self.middle_mjd]))
        return float(np.rad2deg(ra[0]) % 360), float(np.rad2deg(dec[0]))


def plan_groups(options: SimulateOptions) -> list[GroupPlan]:
    """Return the groups that the options ask for, in order of time."""
    scale, dec = SCALES[options.scale], float(np.deg2rad(options.dec_deg))
    half = (scale.integrations - 1) / 2 * INTEGRATION_S / DAY_S
    steps = np.arange(scale.integrations) * INTEGRATION_S / DAY_S

    def start_before_transit(ra_deg: float, after_mjd: float) -> float:
        """Return the first midpoint of a group whose middle is at a transit."""
        return transit_mjd(float(np.deg2rad(ra_deg)), dec, after_mjd + half) - half

    def plan(first_mjd: float, role: Role, epoch: int = 0) -> GroupPlan:
        times = np.asarray(first_mjd + MJD_ZERO + steps)
        return GroupPlan(time_jd=times, dec_rad=dec, role=role, epoch=epoch)

    if options.campaign == "single":
        if options.time:
            first = parse_mjd(options.time)
        else:
            first = start_before_transit(options.ra_deg, parse_mjd(options.date))
        starts = first + np.arange(options.groups) * CADENCE_S / DAY_S
        return [plan(float(start), "single") for start in starts]
    plans, day = [], parse_mjd(options.date)
    for epoch, later in enumerate(np.linspace(0, options.days, options.epochs)):
        calibrator = start_before_transit(options.ra_deg, float(day + round(later)))
        if epoch % options.calibrate_every == 0:
            plans.append(plan(calibrator, "calibrator", epoch))
        # After the calibrator, so that a visit is one stretch of time.
        target = start_before_transit(options.target_ra_deg, calibrator)
        plans.append(plan(target, "target", epoch))
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
