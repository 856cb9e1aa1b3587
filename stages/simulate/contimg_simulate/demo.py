"""The demo's two variable sources: one behind a plasma lens, one that flares."""

from __future__ import annotations

from datetime import UTC, datetime

from contimg.records.groups import mjd_of
from contimg_simulate.lightcurves import Flare, Lens
from contimg_simulate.options import SimulateOptions
from contimg_simulate.sky import SkySource

LENS_DAY, FLARE_DAY = 100.0, 75.0
"""Days after the first epoch: late enough that ten quiet epochs come before."""


def variables(options: SimulateOptions) -> list[SkySource]:
    """Return the demo's variable sources; both are NVSS sources of the target field."""
    start = mjd_of(datetime.fromisoformat(options.date).replace(tzinfo=UTC))
    lens, flare = Lens(centre_mjd=start + LENS_DAY), Flare(peak_mjd=start + FLARE_DAY)
    return [
        SkySource(
            name="NVSS J023312+325651",
            ra_deg=38.30157,
            dec_deg=32.94762,
            flux_jy=0.148,
            alpha=-0.1,
            curve=lens,
        ),
        SkySource(
            name="NVSS J023556+330517",
            ra_deg=38.98424,
            dec_deg=33.08807,
            flux_jy=0.123,
            alpha=-0.2,
            curve=flare,
        ),
    ]
