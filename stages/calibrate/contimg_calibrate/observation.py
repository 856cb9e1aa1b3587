"""The Measurement Set that is calibrated: a convert artifact's, or one field of any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import Site
from contimg.astro.predict import PointSources, SkyModel
from contimg.records.ms import MeasurementSet
from contimg_calibrate.choose import Target, target_of
from contimg_calibrate.foreign import pick_field
from contimg_calibrate.sky import field_sources

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.records.ms import MSHeader
    from contimg.runtime.context import Context
    from contimg_calibrate.options import CalibrateOptions

    FloatArray = npt.NDArray[np.float64]

MS = "ms.tar"
FLAGS = "flags.bin"
MOMENTS = 5
"""Moments at which a beam is averaged to judge fluxes; models use every integration."""


@dataclass(frozen=True)
class Observation:
    """What is known of the Measurement Set before it is read."""

    path: Path
    flags: Path | None
    header: MSHeader
    mjd_start: float
    mjd_end: float
    integration_s: float
    target: Target | None
    """None: another telescope, whose pointing and beam we do not know."""
    name: str

    @property
    def mjd(self) -> float:
        """Midpoint, UTC."""
        return (self.mjd_start + self.mjd_end) / 2

    @property
    def dec_deg(self) -> float:
        """Apparent Declination of the pointing; of the phase centre where that is unknown."""
        return self.target.dec_deg if self.target else float(np.degrees(self.header.dec_rad))

    @property
    def site(self) -> Site | None:
        """Where the array stands, if its beam is known."""
        return (
            Site(self.target.lat_deg, self.target.lon_deg, self.target.height_m)
            if self.target
            else None
        )

    def moments(self) -> FloatArray:
        """Return some moments of the observation, MJD."""
        part = (np.arange(MOMENTS) + 0.5) / MOMENTS
        return np.asarray(self.mjd_start + (self.mjd_end - self.mjd_start) * part)

    def sky(self, sources: PointSources) -> SkyModel:
        """Return sources as this array sees them."""
        header = self.header
        smeared = self.target is not None
        return SkyModel(
            sources,
            header.ra_rad,
            header.dec_rad,
            header.frequencies_hz,
            header.channel_width_hz if smeared else 0.0,
            self.integration_s if smeared else 0.0,
            self.site,
            float(np.radians(self.dec_deg)),
        )

    def field_sources(self) -> PointSources:
        """Return the NVSS sources out to the beam's null; none for another telescope."""
        if self.site is None:
            return PointSources(
                np.zeros(0), np.zeros(0), np.zeros((0, self.header.frequencies_hz.size))
            )
        return field_sources(
            self.mjd_start,
            self.mjd_end,
            float(np.radians(self.dec_deg)),
            self.site,
            self.header.frequencies_hz,
        )


def observe(options: CalibrateOptions, context: Context) -> Observation:
    """Fetch the Measurement Set and its flags into scratch and read what it says once."""
    target = target_of(options.ms) if options.ms is not None else None
    if options.ms is not None:
        path = context.fetch_tree(options.ms, MS)
    else:
        path = pick_field(Path(str(options.plain_ms)), options.field, context.scratch / "field.ms")
    flags = context.fetch(options.flags, FLAGS) if options.flags else None
    with MeasurementSet(path) as ms:
        times, interval = ms.read("TIME"), float(np.median(ms.read("INTERVAL")))
        header = ms.header
    start, end = (
        float(times.min() - interval / 2) / DAY_S,
        float(times.max() + interval / 2) / DAY_S,
    )
    name = (
        target.name
        if target
        else path.stem
        if options.ms is not None
        else Path(str(options.plain_ms)).stem
    )
    return Observation(path, flags, header, start, end, interval, target, name)
