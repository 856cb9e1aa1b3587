"""``contimg export-ms URI FOLDER``: a classic Measurement Set of a group, for work in CASA."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from contimg.astro.beam_files import read_beam
from contimg.astro.catalogues import nvss
from contimg.astro.constants import DAY_S, NVSS_HZ
from contimg.astro.coordinates import Site
from contimg.astro.gains import Gains, apply_block, load_gains
from contimg.astro.predict import PointSources, SkyModel, antenna_positions, power_law, predict_rows
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet, create
from contimg.runtime.console import Console
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, NoSourcesError, UsageError
from contimg.runtime.scratch import scratch_folder
from contimg_convert.options import ExportOptions

AnyArray = npt.NDArray[Any]

COLUMNS = ("DATA", "MODEL_DATA", "CORRECTED_DATA", "WEIGHT_SPECTRUM")
MODEL_RADIUS_DEG = 4.5
"""To the first null of the primary beam at the lowest channel, and the drift beyond it."""


def run(options: ExportOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Make the MS and return the summary. The MS gets its name only when it is whole.

    Raises UsageError if it exists already; BadInputError if the flags are not of this group;
    NoSourcesError if a field model has no source.
    """
    with scratch_folder(env, "export-ms") as scratch:
        context = Context(options.ms, scratch, (), env, console.show)
        source = context.fetch_tree(options.ms, "ms.tar")
        target = options.folder.absolute() / source.name
        if target.exists():
            problem, remedy = "The folder exists already.", "Remove it, or name another folder."
            raise UsageError(str(target), problem, remedy)
        part = target.with_name(f".part-{target.name}")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with MeasurementSet(source) as ms:
                flags = fetch_flags(options.flags, context, ms) if options.flags else None
                gains = load_gains(context, options.calibration) if options.calibration else None
                sky = build_field_sky(options, context, ms) if options.model == "field" else None
                # One integration at a time: rows are cut where the time changes.
                edges = np.flatnonzero(np.diff(ms.rows.time_s)) + 1
                bounds = [0, *edges.tolist(), len(ms)]
                with create(part, ms.header, ms.rows, COLUMNS) as writer:
                    for number, (first, last) in enumerate(itertools.pairwise(bounds), 1):
                        writer.put(first, make_columns(ms, slice(first, last), flags, gains, sky))
                        context.progress(number, len(bounds) - 1)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    calibrated = options.calibration is not None
    if not calibrated:
        console.log.warning("CORRECTED_DATA equals DATA: not calibrated. Give --calibration.")
    made = {"command": "export-ms", "ms": str(target)}
    return {**made, "calibrated": calibrated, "model": options.model}


def fetch_flags(uri: str, context: Context, ms: MeasurementSet) -> npt.NDArray[np.bool_]:
    """Fetch a flag artifact's flags, shape (rows, channels, correlations)."""
    flags = read_flags(context.fetch(uri, "flags.bin"))
    shape = (len(ms), len(ms.header.frequencies_hz), len(ms.header.correlations))
    if flags.shape != shape:
        problem = f"The flags have the shape {flags.shape}, but the data have {shape}."
        raise BadInputError(uri, problem, "Name the flags of this group.")
    return flags


def build_field_sky(options: ExportOptions, context: Context, ms: MeasurementSet) -> SkyModel:
    """Return the catalogue sources that the array sees in this group.

    Raises NoSourcesError if none is bright enough: a model of zeros would be useless.
    """
    header, metrics = ms.header, context.manifest(options.ms).metrics
    near = nvss().within(metrics["ra_deg"], metrics["dec_deg"], MODEL_RADIUS_DEG)
    flux_jy = power_law(near.flux_jy, NVSS_HZ, header.frequencies_hz)
    columns = np.radians(near.ra_deg), np.radians(near.dec_deg), flux_jy
    sky = SkyModel(
        sources=PointSources(*columns),
        ra0_rad=header.ra_rad,
        dec0_rad=header.dec_rad,
        freq_hz=header.frequencies_hz,
        width_hz=header.channel_width_hz,
        integration_s=metrics["integration_s"],
        primary_beam=read_beam(options.beam),
        site=Site(metrics["lat_deg"], metrics["lon_deg"], metrics["height_m"]),
        pointing_dec_rad=float(np.radians(metrics["pointing_dec_deg"])),
    )
    keep = sky.apparent_jy(metrics["mjd"]).mean(axis=1) >= options.least_mjy / 1e3
    if not keep.any():
        problem = f"The beam has no source of at least {options.least_mjy:g} mJy."
        raise NoSourcesError(options.ms, problem, "Lower --least-mjy, or take --model point.")
    return replace(sky, sources=PointSources(*(column[keep] for column in columns)))


def make_columns(
    ms: MeasurementSet,
    part: slice,
    more_flags: npt.NDArray[np.bool_] | None,
    gains: Gains | None,
    sky: SkyModel | None,
) -> dict[str, AnyArray]:
    """Return the big columns of one integration; without a sky the model is 1 Jy."""
    header, rows, count = ms.header, ms.rows, part.stop - part.start
    data, flags = (ms.read(column, part.start, count) for column in ("DATA", "FLAG"))
    if more_flags is not None:
        flags = flags | more_flags[part]
    one, two = (antenna[part].astype(np.int64) for antenna in (rows.antenna1, rows.antenna2))
    corrected = data.copy()
    if gains is not None:
        time = rows.time_s[part.start : part.start + 1]
        factors = gains.evaluate(time, header.frequencies_hz)
        apply_block(corrected, flags, one, two, np.zeros(count, np.int64), factors)
    model: AnyArray = np.ones(data.shape, np.complex64)
    if sky is not None:
        positions = antenna_positions(rows.uvw_m[part], one, two, len(header.antennas.names))
        predicted = predict_rows(sky, positions, float(rows.time_s[part.start]) / DAY_S, one, two)
        model = np.repeat(predicted[:, :, None], len(header.correlations), axis=2)
    return {
        "DATA": data,
        "MODEL_DATA": model,
        "CORRECTED_DATA": corrected,
        "WEIGHT_SPECTRUM": np.repeat(rows.weight[part][:, None, :], data.shape[1], axis=1),
        "FLAG": flags,
    }
