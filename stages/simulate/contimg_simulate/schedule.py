"""Which groups are observed, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.records.groups import group_id, mjd_of, utc_of_jd
from contimg.runtime.errors import UsageError
from contimg_simulate.array import CADENCE_S, INTEGRATION_S, SCALES, Scale
from contimg_simulate.frame import MJD_ZERO, icrs_of_meridian, transit_mjd

if TYPE_CHECKING:
    from contimg_simulate.options import SimulateOptions

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """One group to be made."""

    time_jd: Floats
    """Integration midpoints, UTC, shape (T,)."""
    dec_rad: float
    """Apparent Declination of the pointing."""
    role: Literal["calibrator", "target", "single"]
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

    def centre_deg(self) -> tuple[float, float]:
        """Return the ICRS place of the pointing at the middle of the group."""
        ra, dec = icrs_of_meridian(self.dec_rad, np.array([self.middle_mjd]))
        return float(np.rad2deg(ra[0]) % 360), float(np.rad2deg(dec[0]))


def plans(options: SimulateOptions) -> list[Plan]:
    """Return the groups that the options ask for, in order of time."""
    return _demo(options) if options.campaign == "demo" else _single(options)


def _single(options: SimulateOptions) -> list[Plan]:
    scale, dec = SCALES[options.scale], np.deg2rad(options.dec_deg)
    if options.time:
        first = _moment(options.time)
    else:
        first = _before_transit(options.ra_deg, options.dec_deg, _moment(options.date), scale)
    starts = first + np.arange(options.groups) * CADENCE_S / DAY_S
    return [Plan(_times(float(start), scale), float(dec), "single", 0) for start in starts]


def _demo(options: SimulateOptions) -> list[Plan]:
    scale, dec = SCALES[options.scale], float(np.deg2rad(options.dec_deg))
    day = _moment(options.date)
    visits = [float(day + round(d)) for d in np.linspace(0, options.days, options.epochs)]
    made = []
    for epoch, visit in enumerate(visits):
        calibrator = _before_transit(options.ra_deg, options.dec_deg, visit, scale)
        if epoch % options.calibrate_every == 0:
            made.append(Plan(_times(calibrator, scale), dec, "calibrator", epoch))
        # After the calibrator, so that a visit is one stretch of time whatever the hour at which it begins.
        target = _before_transit(options.target_ra_deg, options.dec_deg, calibrator, scale)
        made.append(Plan(_times(target, scale), dec, "target", epoch))
    return made


def _before_transit(ra_deg: float, dec_deg: float, after_mjd: float, scale: Scale) -> float:
    """Return the first integration's midpoint of a group whose middle is at a transit."""
    half = (scale.integrations - 1) / 2 * INTEGRATION_S / DAY_S
    return (
        transit_mjd(float(np.deg2rad(ra_deg)), float(np.deg2rad(dec_deg)), after_mjd + half) - half
    )


def _times(first_mjd: float, scale: Scale) -> Floats:
    return np.asarray(first_mjd + MJD_ZERO + np.arange(scale.integrations) * INTEGRATION_S / DAY_S)


def _moment(text: str) -> float:
    """Read a UTC date or moment as MJD."""
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError as error:
        raise UsageError(
            "date or time",
            f"expected an ISO 8601 moment in UTC, found {text}.",
            "Write it as 2026-01-25T22:26:05.",
        ) from error
    return mjd_of(moment.replace(tzinfo=UTC))
