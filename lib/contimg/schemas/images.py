"""Images: one row a group, written by image; what an ObsCore table of them needs is here."""

from __future__ import annotations

import pyarrow as pa

from contimg.tables import FLUX, Column, Schema

NOISE = "instr.det.noise;em.radio.750-1500MHz"

IMAGES = Schema(
    "images",
    version=1,
    sort=("mjd",),
    meaning="Images of groups: where they are, how deep and how sharp, and what they were calibrated with.",
    columns=(
        Column("group", pa.string(), "", "meta.id;obs", "Id of the group", nullable=False),
        Column("image", pa.string(), "", "meta.id;obs.image;meta.main", "Key of the image artifact", nullable=False),
        Column("artifact", pa.string(), "", "meta.ref.uri", "Image artifact, relative to what holds the tables", nullable=False),
        Column("ms", pa.string(), "", "meta.id;obs", "Key of the convert artifact", nullable=False),
        Column("ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "ICRS, centre", nullable=False),
        Column("dec", pa.float64(), "deg", "pos.eq.dec;meta.main", "ICRS, centre", nullable=False),
        Column("strip", pa.float64(), "deg", "pos.eq.dec;instr", "Apparent Declination of the pointing; null if unknown"),
        Column("width", pa.float64(), "deg", "phys.angSize;instr.fov", "Width and height of the image", nullable=False),
        Column("cell", pa.float64(), "arcsec", "phys.angSize;instr.pixel", "Width of a pixel", nullable=False),
        Column("mjd", pa.float64(), "d", "time.epoch", "UTC midpoint of the observation", nullable=False),
        Column("mjd_start", pa.float64(), "d", "time.start;obs", "UTC, begin of the first integration", nullable=False),
        Column("mjd_end", pa.float64(), "d", "time.end;obs", "UTC, end of the last integration", nullable=False),
        Column("frequency", pa.float64(), "Hz", "em.freq;meta.main", "Mean with the image's weights", nullable=False),
        Column("freq_min", pa.float64(), "Hz", "em.freq;stat.min", "Lower edge of the band", nullable=False),
        Column("freq_max", pa.float64(), "Hz", "em.freq;stat.max", "Upper edge of the band", nullable=False),
        Column("bmaj", pa.float64(), "arcsec", "phys.angSize.smajAxis;instr.beam", "Restoring beam, FWHM", nullable=False),
        Column("bmin", pa.float64(), "arcsec", "phys.angSize.sminAxis;instr.beam", "Restoring beam, FWHM", nullable=False),
        Column("bpa", pa.float64(), "deg", "pos.posAng;instr.beam", "North through east", nullable=False),
        Column("rms", pa.float64(), "mJy/beam", NOISE, "Median local rms inside the 20 % beam, apparent flux", nullable=False),
        Column("thermal_rms", pa.float64(), "mJy/beam", f"{NOISE};meta.modelled", "Noise that the weights promise; null if unknown"),
        Column("peak", pa.float64(), "mJy/beam", f"{FLUX};stat.max", "Brightest pixel, apparent flux", nullable=False),
        Column("flux_ratio", pa.float64(), "", "phot.flux.density;arith.ratio", "Bright catalogue sources, found / expected; null if none"),
        Column("smearing_loss", pa.float64(), "", "stat.value;arith.ratio", "Lost to channel averaging at the 20 % beam"),
        Column("used_fraction", pa.float64(), "", "stat.value;arith.ratio", "Visibilities that carry weight", nullable=False),
        Column("antennas", pa.int32(), "", "meta.number;instr", "Antennas with data", nullable=False),
        Column("tier", pa.string(), "", "meta.code;instr.setup", "As asked for with --tier", nullable=False),
        Column("backend", pa.string(), "", "meta.id;meta.software", "wsclean or tclean", nullable=False),
        Column("robust", pa.float64(), "", "stat.weight;instr.setup", "Briggs' robustness", nullable=False),
        Column("calibration", pa.string(), "", "meta.id;obs.calib", "Key of the calibrate artifact", nullable=False),
        Column("calibrator", pa.string(), "", "meta.id;src", "That the tables were solved on", nullable=False),
        Column("calibrated", pa.float64(), "d", "time.epoch;obs.calib", "UTC, midpoint of the calibrator's group", nullable=False),
        Column("rung", pa.string(), "", "meta.code;obs.calib", "Of the ladder of calibrations", nullable=False),
        Column("flux_anchor", pa.string(), "", "meta.code;phot.calib", "What the flux scale rests on", nullable=False),
        Column("verdict", pa.string(), "", "meta.code.qual", "good or warning", nullable=False),
    ),
)  # fmt: skip
"""One file a group: ``images/date=YYYY-MM-DD/GROUP.parquet``."""
