"""What is imaged: a convert artifact's Measurement Set with its flags and its gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import Site
from contimg.astro.gains import Gains
from contimg.astro.telescope import SITE
from contimg.records.calibration import fetch_tables, read_calibration
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet
from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from contimg.records.calibration import Calibration
    from contimg.records.ms import MSHeader
    from contimg.runtime.context import Context
    from contimg_image.options import ImageOptions


@dataclass(frozen=True, eq=False)
class Observation:
    """A Measurement Set in scratch, and what is known of it."""

    path: Path
    header: MSHeader
    group: str
    mjd_start: float
    mjd_end: float
    pointing_dec_deg: float | None
    """Apparent; None for a telescope that is not ours."""
    site: Site
    flags: npt.NDArray[np.bool_]
    """Shape (rows, channels, correlations)."""
    gains: Gains
    calibration: Calibration
    calibration_key: str

    @property
    def site_itrf_m(self) -> tuple[float, float, float]:
        """Geocentric position of the array: for another telescope that of its antennas' middle."""
        known = self.pointing_dec_deg is not None
        x, y, z = self.site.itrf_m if known else self.header.antennas.positions_m.mean(axis=0)
        return float(x), float(y), float(z)

    @property
    def mjd(self) -> float:
        """Midpoint, UTC."""
        return (self.mjd_start + self.mjd_end) / 2


def fetch(options: ImageOptions, context: Context) -> Observation:
    """Bring everything that is imaged into scratch.

    Raises
    ------
    BadInputError
        If an artifact is not of the stage that its option names, or the calibration has no table.
    """
    calibration = read_calibration(context, options.calibration)
    if not calibration.tables:
        raise BadInputError(
            options.calibration,
            "expected caltables to apply, found none.",
            "Calibrate the group; raw data are never imaged.",
        )
    path = context.fetch_tree(options.ms, "ms.tar")
    flags = read_flags(context.fetch(options.flags, "flags.bin"))
    gains = Gains.read(fetch_tables(context, options.calibration, calibration))
    metrics = context.manifest(options.ms).metrics
    with MeasurementSet(path) as ms:
        header = ms.header
        start, end = _span(metrics, ms)
    return Observation(
        path,
        header,
        str(metrics.get("group", path.name.removesuffix(".ms"))),
        start,
        end,
        metrics.get("pointing_dec_deg"),
        _site(metrics),
        flags,
        gains,
        calibration,
        context.manifest(options.calibration).key,
    )


def _span(metrics: dict[str, Any], ms: MeasurementSet) -> tuple[float, float]:
    """Return begin and end, MJD, UTC: those of the first and last integration, not their midpoints."""
    if "mjd_start" in metrics and "mjd_end" in metrics:
        return float(metrics["mjd_start"]), float(metrics["mjd_end"])
    time_s, half_s = ms.rows.time_s, ms.rows.interval_s / 2
    return float(np.min(time_s - half_s)) / DAY_S, float(np.max(time_s + half_s)) / DAY_S


def _site(metrics: dict[str, Any]) -> Site:
    if "lat_deg" in metrics:
        return Site(
            float(metrics["lat_deg"]), float(metrics["lon_deg"]), float(metrics["height_m"])
        )
    return SITE
