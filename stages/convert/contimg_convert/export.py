"""``contimg export-ms URI FOLDER``: a classic Measurement Set of a group, for people who go on in CASA."""

from __future__ import annotations

import itertools
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from contimg.astro.constants import NVSS_HZ
from contimg.runtime.contract import command, scratch_root
from contimg.runtime.errors import BadInputError, Exit, NoSourcesError, UsageError
from contimg.runtime.options import ArtifactURI, Options
from contimg.runtime.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from contimg.astro.gains import Gains
    from contimg.astro.predict import SkyModel
    from contimg.records.ms import MeasurementSet, Writer
    from contimg.runtime.console import Console
    from contimg.runtime.context import Context

    BoolArray = npt.NDArray[np.bool_]

COLUMNS = ("DATA", "MODEL_DATA", "CORRECTED_DATA", "WEIGHT_SPECTRUM")
USAGE = "usage: contimg export-ms URI FOLDER [--flags URI] [--calibration URI] [--model point|field] [--least-mjy MJY]"
MODEL_RADIUS_DEG = 4.5
"""Sources of the model reach to the first null of the primary beam at the lowest channel, and the drift beyond it."""


class ExportOptions(Options):
    """Write a group as a classic MS: DATA, CORRECTED_DATA (calibrated), MODEL_DATA, WEIGHT_SPECTRUM and FLAG with all flags."""

    ms: ArtifactURI
    """URI of the convert artifact (the first word, without --ms)."""
    folder: Path
    """Where to make GROUP.ms (the second word, without --folder)."""
    flags: ArtifactURI | None = None
    """URI of the flag artifact to take over into FLAG."""
    calibration: ArtifactURI | None = None
    """URI of the calibrate artifact to apply; without it CORRECTED_DATA equals DATA, as after CASA's clearcal."""
    model: Literal["point", "field"] = "point"
    """1 Jy at the phase centre, as CASA's clearcal leaves it, or the field's NVSS sources with beam and smearing."""
    least_mjy: float = Field(default=10.0, ge=0)
    """Apparent flux of the faintest source in a field model, mJy."""


@dataclass(frozen=True)
class Additions:
    """What an exported MS has besides the group's own."""

    flags: BoolArray | None
    gains: Gains | None
    sky: SkyModel | None


def main(argv: Sequence[str]) -> int:
    """Run ``contimg export-ms URI FOLDER``; return the exit code."""
    words = list(argv)
    if words[:1] in ([], ["-h"], ["--help"]):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return Exit.DONE if words else Exit.USAGE
    for place, name in ((0, "--ms"), (2, "--folder")):
        if len(words) > place and not words[place].startswith("-"):
            words.insert(place, name)
    return command("contimg export-ms", ExportOptions, run, words)


def run(options: ExportOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Make the MS and return what was done; it appears under its name only when it is whole.

    Raises
    ------
    UsageError
        If it is there already.
    BadInputError
        If flags or gains are not of this group.
    """
    from contimg.records.ms import MeasurementSet
    from contimg.runtime.context import Context

    with scratch_folder(scratch_root(env), "export-ms") as scratch:
        context = Context(options.ms, scratch, (), env, console)
        source = context.fetch_tree(options.ms, "ms.tar")
        target = options.folder.absolute() / source.name
        if target.exists():
            raise UsageError(
                str(target),
                "expected no such folder, found one.",
                "Remove it, or name another folder.",
            )
        part = target.with_name(f".part-{target.name}")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with MeasurementSet(source) as ms:
                export(ms, part, additions(options, context, ms), context)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    if options.calibration is None:
        console.log.warning(
            "CORRECTED_DATA is not calibrated: it equals DATA. Give --calibration to apply one."
        )
    return {
        "command": "export-ms",
        "ms": str(target),
        "calibrated": options.calibration is not None,
        "model": options.model,
    }


def additions(options: ExportOptions, context: Context, ms: MeasurementSet) -> Additions:
    """Fetch flags and gains, and make the sky of the model."""
    flags = None
    if options.flags is not None:
        from contimg.records.flagfile import read_flags

        flags = read_flags(context.fetch(options.flags, "flags.bin"))
        wanted = (len(ms), len(ms.header.frequencies_hz), len(ms.header.correlations))
        if flags.shape != wanted:
            raise BadInputError(
                options.flags,
                f"expected flags of shape {wanted}, found {flags.shape!s}.",
                "Name the flags of this group.",
            )
    gains = None
    if options.calibration is not None:
        from contimg.astro.gains import load_gains

        gains = load_gains(context, options.calibration)
    return Additions(
        flags, gains, field_sky(options, context, ms) if options.model == "field" else None
    )


def field_sky(options: ExportOptions, context: Context, ms: MeasurementSet) -> SkyModel:
    """Return the catalogue's sources that the array sees in this group.

    Raises
    ------
    NoSourcesError
        If there is none as bright as asked for: a model of zeros is worse than none.
    """
    from contimg.astro.catalogues import nvss
    from contimg.astro.coordinates import Site
    from contimg.astro.predict import PointSources, SkyModel, power_law

    header, numbers = ms.header, context.manifest(options.ms).metrics
    near = nvss().within(numbers["ra_deg"], numbers["dec_deg"], MODEL_RADIUS_DEG)
    flux = power_law(near.flux_jy, NVSS_HZ, header.frequencies_hz)

    def sky(keep: BoolArray) -> SkyModel:
        sources = PointSources(
            np.radians(near.ra_deg[keep]), np.radians(near.dec_deg[keep]), flux[keep]
        )
        return SkyModel(
            sources,
            header.ra_rad,
            header.dec_rad,
            header.frequencies_hz,
            header.channel_width_hz,
            numbers["integration_s"],
            Site(numbers["lat_deg"], numbers["lon_deg"], numbers["height_m"]),
            float(np.radians(numbers["pointing_dec_deg"])),
        )

    apparent = sky(np.ones(len(near.ra_deg), bool)).apparent_jy(numbers["mjd"]).mean(axis=1)
    keep = apparent >= options.least_mjy / 1e3
    if not keep.any():
        remedy = "Lower --least-mjy, or take --model point."
        raise NoSourcesError(
            options.ms,
            f"expected a source of {options.least_mjy:g} mJy in the beam, found none.",
            remedy,
        )
    return sky(keep)


def export(ms: MeasurementSet, path: Path, more: Additions, context: Context) -> None:
    """Write the classic MS, integration by integration."""
    from contimg.records.ms import create

    with create(path, ms.header, ms.rows, COLUMNS) as writer:
        parts = list(integrations(ms))
        for number, part in enumerate(parts, 1):
            _export_one(ms, part, more, writer)
            context.progress(number, len(parts))


def integrations(ms: MeasurementSet) -> Iterator[slice]:
    """Cut the rows of an MS where its time changes."""
    edges = np.flatnonzero(np.diff(ms.rows.time_s)) + 1
    bounds = [0, *edges.tolist(), len(ms)]
    for first, last in itertools.pairwise(bounds):
        yield slice(first, last)


def _export_one(ms: MeasurementSet, part: slice, more: Additions, writer: Writer) -> None:
    header, rows, count = ms.header, ms.rows, part.stop - part.start
    data, flags = (ms.read(column, part.start, count) for column in ("DATA", "FLAG"))
    flags = flags if more.flags is None else flags | more.flags[part]
    corrected = data.copy()
    if more.gains is not None:
        from contimg.astro.gains import apply_block

        factors = more.gains.evaluate(
            rows.time_s[part.start : part.start + 1], header.frequencies_hz
        )
        one, two = (antenna[part].astype(np.int64) for antenna in (rows.antenna1, rows.antenna2))
        apply_block(corrected, flags, one, two, np.zeros(count, np.int64), factors)
    model = np.ones(data.shape, np.complex64) if more.sky is None else _predict(ms, part, more.sky)
    spectrum = np.repeat(rows.weight[part][:, None, :], data.shape[1], axis=1)
    columns = {
        "DATA": data,
        "MODEL_DATA": model,
        "CORRECTED_DATA": corrected,
        "WEIGHT_SPECTRUM": spectrum,
        "FLAG": flags,
    }
    writer.put(part.start, columns)


def _predict(ms: MeasurementSet, part: slice, sky: SkyModel) -> npt.NDArray[np.complex64]:
    from contimg.astro.predict import antenna_positions, predict_rows

    rows, days = ms.rows, 86400.0
    one, two = rows.antenna1[part].astype(np.int64), rows.antenna2[part].astype(np.int64)
    positions = antenna_positions(rows.uvw_m[part], one, two, len(ms.header.antennas.names))
    predicted = predict_rows(sky, positions, float(rows.time_s[part.start]) / days, one, two)
    return np.repeat(predicted[:, :, None], len(ms.header.correlations), axis=2)
