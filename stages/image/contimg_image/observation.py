"""The input of an image: the Measurement Set of a convert artifact, its flags and its gains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contimg.astro.beam_files import read_beam
from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import Site
from contimg.astro.gains import Gains
from contimg.astro.primary_beam import PrimaryBeam, check_same_beam
from contimg.astro.telescope import SITE
from contimg.records.calibration import Calibration, fetch_tables, read_calibration
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet, MSHeader
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, UsageError
from contimg_image.averaging import baseline_lengths_m
from contimg_image.frame import Mask
from contimg_image.options import ImageOptions


@dataclass(frozen=True, eq=False)
class ImagingInput:
    """A Measurement Set in scratch, and what is known about it."""

    path: Path
    header: MSHeader
    group: str
    mjd_start: float
    """Start of the first integration, UTC."""
    mjd_end: float
    """End of the last integration, UTC."""
    pointing_dec_deg: float | None
    """Apparent declination; None for another telescope."""
    site: Site
    flags: Mask
    """Shape (rows, channels, correlations)."""
    gains: Gains
    channels: Mask
    """Which channels are imaged, shape (channels,)."""
    longest_m: float
    """Length of the longest baseline."""
    calibration: Calibration
    calibration_key: str
    beam: PrimaryBeam
    """As asked for; not used for another telescope."""

    @property
    def mjd(self) -> float:
        """Midpoint, UTC."""
        return (self.mjd_start + self.mjd_end) / 2

    @property
    def calibrated_mjd(self) -> float:
        """Time of the calibrator observation that the gains come from, UTC."""
        return (self.calibration.source or self.calibration).mjd


def fetch_input(options: ImageOptions, context: Context) -> ImagingInput:
    """Copy everything that is imaged into scratch.

    Raises BadInputError if an artifact is not of the stage that its option names, or the
    calibration has no table or another primary beam.
    """
    calibration = read_calibration(context, options.calibration)
    if not calibration.tables:
        problem = "The calibration has no tables to apply; raw data are never imaged."
        raise BadInputError(options.calibration, problem, "Calibrate the group first.")
    metrics, beam = context.manifest(options.ms).metrics, read_beam(options.beam)
    if metrics.get("pointing_dec_deg") is not None:
        made_with, allowed = calibration.primary_beam, options.other_beam
        check_same_beam(options.calibration, made_with, beam.name, allowed=allowed)
    path = context.fetch_tree(options.ms, "ms.tar")
    start, end = metrics.get("mjd_start"), metrics.get("mjd_end")
    with MeasurementSet(path) as ms:
        header, longest_m = ms.header, float(baseline_lengths_m(ms.header, ms.rows).max())
        if start is None or end is None:
            time_s, half_s = ms.rows.time_s, ms.rows.interval_s / 2
            start = float(np.min(time_s - half_s)) / DAY_S
            end = float(np.max(time_s + half_s)) / DAY_S
    place = ("lat_deg", "lon_deg", "height_m")
    site = Site(*(float(metrics[name]) for name in place)) if "lat_deg" in metrics else SITE
    return ImagingInput(
        path=path,
        header=header,
        group=str(metrics.get("group", path.name.removesuffix(".ms"))),
        mjd_start=float(start),
        mjd_end=float(end),
        pointing_dec_deg=metrics.get("pointing_dec_deg"),
        site=site,
        flags=read_flags(context.fetch(options.flags, "flags.bin")),
        gains=Gains.read(fetch_tables(context, options.calibration, calibration)),
        channels=choose_channels(options, header),
        longest_m=longest_m,
        calibration=calibration,
        calibration_key=context.manifest(options.calibration).key,
        beam=beam,
    )


def choose_channels(options: ImageOptions, header: MSHeader) -> Mask:
    """Return which channels are in the band that was asked for; UsageError if there are none."""
    if not options.band_mhz:
        return np.ones(header.frequencies_hz.size, bool)
    mhz = header.frequencies_hz / 1e6
    low, high = (float(edge) for edge in options.band_mhz.split("-"))
    channels = np.asarray((mhz >= low) & (mhz <= high))
    if not channels.any():
        problem = f"No channel is in {options.band_mhz} MHz."
        remedy = f"The data have channels from {mhz.min():.1f} to {mhz.max():.1f} MHz."
        raise UsageError("--band-mhz", problem, remedy)
    return channels
