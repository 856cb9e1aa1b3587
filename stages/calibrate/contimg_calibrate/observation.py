"""The Measurement Set that is calibrated: a convert artifact's, or one field of any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.astro.predict import PointSources, SkyModel
from contimg.records.ms import MeasurementSet, MSHeader
from contimg.runtime.context import Context
from contimg_calibrate.foreign import copy_field
from contimg_calibrate.options import CalibrateOptions
from contimg_calibrate.selection import Target, read_target
from contimg_calibrate.sky import find_field_sources

FloatArray = npt.NDArray[np.float64]

BEAM_MOMENTS = 5
"""Moments at which the beam is averaged to estimate fluxes; models use every integration."""


@dataclass(frozen=True)
class MSObservation:
    """The header of the Measurement Set, and when and where the array pointed."""

    name: str
    path: Path
    flags: Path | None
    header: MSHeader
    mjd_start: float
    mjd_end: float
    integration_s: float
    target: Target | None
    """None: another telescope, whose pointing and beam are unknown."""

    @property
    def mjd(self) -> float:
        """Midpoint, UTC."""
        return (self.mjd_start + self.mjd_end) / 2

    @property
    def dec_deg(self) -> float:
        """Apparent Declination of the pointing; of the phase centre where that is unknown."""
        return self.target.dec_deg if self.target else float(np.degrees(self.header.dec_rad))

    @property
    def beam_mjds(self) -> FloatArray:
        """Moments of the observation at which to evaluate the beam, MJD."""
        part = (np.arange(BEAM_MOMENTS) + 0.5) / BEAM_MOMENTS
        return np.asarray(self.mjd_start + (self.mjd_end - self.mjd_start) * part)

    def make_sky(self, sources: PointSources) -> SkyModel:
        """Return sources as this array sees them: without smearing or beam if it is another one."""
        header, target = self.header, self.target
        return SkyModel(
            sources=sources,
            ra0_rad=header.ra_rad,
            dec0_rad=header.dec_rad,
            freq_hz=header.frequencies_hz,
            width_hz=header.channel_width_hz if target else 0.0,
            integration_s=self.integration_s if target else 0.0,
            site=target.site if target else None,
            pointing_dec_rad=float(np.radians(self.dec_deg)),
        )

    def find_field_sources(self) -> PointSources:
        """Return the NVSS sources out to the beam's null; none for another telescope."""
        freq_hz = self.header.frequencies_hz
        if self.target is None:
            return PointSources(np.zeros(0), np.zeros(0), np.zeros((0, freq_hz.size)))
        dec_rad = float(np.radians(self.dec_deg))
        return find_field_sources(self.mjd_start, self.mjd_end, dec_rad, self.target.site, freq_hz)


def read_observation(options: CalibrateOptions, context: Context) -> MSObservation:
    """Fetch the Measurement Set and its flags into scratch, and read its header and times."""
    if options.ms is not None:
        target = read_target(options.ms)
        path = context.fetch_tree(options.ms, "ms.tar")
        name = target.name if target else path.stem
    else:
        source = Path(str(options.plain_ms))
        target, name = None, source.stem
        path = copy_field(source, options.field, context.scratch / "field.ms")
    with MeasurementSet(path) as ms:
        times, interval = ms.read("TIME"), float(np.median(ms.read("INTERVAL")))
        header = ms.header
    return MSObservation(
        name=name,
        path=path,
        flags=context.fetch(options.flags, "flags.bin") if options.flags else None,
        header=header,
        mjd_start=float(times.min() - interval / 2) / DAY_S,
        mjd_end=float(times.max() + interval / 2) / DAY_S,
        integration_s=interval,
        target=target,
    )
