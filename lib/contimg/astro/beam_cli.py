"""``contimg beam fit``: measure the primary beam from the fluxes of many groups in a store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from contimg.astro.beam_text import NO_BEAM, UNRECORDED_BEAM, BeamText
from contimg.runtime.command import Command
from contimg.runtime.console import Console
from contimg.runtime.errors import BadInputError, MissingError, UsageError
from contimg.runtime.options import Options, Words

if TYPE_CHECKING:
    from contimg.astro.beam_fit import BeamFit
    from contimg.records.tables import Schema


class BeamOptions(Options):
    """Measure the primary beam from sources that drift through many groups of a store.

    ``contimg beam fit FILE --store URI`` writes a beam file that the option `beam` takes.
    """

    action: Literal["fit"]
    """What to do."""
    file: Path
    """The beam file to write, NAME.json."""
    store: Words
    """Root URI of the store whose tables `images` and `photometry` are read. Several, with images
    of one part of the band each, give a width for each part."""
    beam: BeamText | None = None
    """The beam whose width and offset are fitted: airy:DIAMETER (m), gaussian:FWHM@FREQUENCY (deg),
    or the URI of a beam file of such a model; default: that of the images."""
    strip: float | None = None
    """Use only groups that point to this Declination, degrees (within 1 degree)."""
    first_day: str = Field(default="", pattern=r"^(\d{4}-\d\d-\d\d)?$")
    """Use only groups observed from this UTC day on, YYYY-MM-DD."""
    last_day: str = Field(default="", pattern=r"^(\d{4}-\d\d-\d\d)?$")
    """Use only groups observed up to and including this UTC day."""
    min_snr: float = Field(default=20.0, gt=3)
    """Use fluxes of at least this signal-to-noise ratio."""
    min_beam: float = Field(default=0.1, gt=0, lt=1)
    """Use fluxes where the assumed beam is at least this."""


COMMAND = Command(
    name="beam",
    options=BeamOptions,
    run="contimg.astro.beam_cli:run",
    positional=("action", "file"),
)
IMAGE_COLUMNS = ["image", "artifact", "tier", "primary_beam", "mjd_start", "mjd_end", "strip"]
IMAGE_COLUMNS += ["frequency", "freq_min", "freq_max"]
FLUX_COLUMNS = ["image", "source", "ra", "dec", "beam", "flux_forced", "snr", "blend"]
FLUX_COLUMNS += ["catalogue_flux"]
MAX_STRIP_DEG = 1.0
"""Groups point to one strip if their Declinations differ by less."""


def run(options: BeamOptions, console: Console, _env: Mapping[str, str]) -> dict[str, Any]:
    """Read the tables, fit, write the file and return the summary."""
    import numpy as np

    from contimg.astro.beam_files import read_beam
    from contimg.astro.beam_fit import combine_fits, describe_fit, fit_beam

    if options.file.suffix != ".json":
        raise UsageError(str(options.file), "The name does not end in .json.", "Add it.")
    images = {root: choose_images(options, root, console) for root in options.store}
    beams = {root: assumed_beams(rows, root) for root, rows in images.items()}
    first = images[options.store[0]][0]["primary_beam"]
    base = read_beam(options.beam) if options.beam else beams[options.store[0]][first]
    if base.kind not in {"airy", "gaussian"}:
        problem = f"A beam of kind {base.kind} has no width that could be fitted."
        raise UsageError("--beam", problem, "Name airy:DIAMETER or gaussian:FWHM@FREQUENCY.")
    fits: dict[float, BeamFit] = {}
    for root, rows in images.items():
        freq_hz = sum(row["frequency"] for row in rows) / len(rows)
        fits[freq_hz] = fit_beam(gather_fluxes(options, root, rows, beams[root]), base)
        for line in describe_fit(fits[freq_hz], base, freq_hz):
            console.log.info("%s", line)
    fit = combine_fits([*fits.values()])
    found = base.changed(fit.width, fit.east_deg, fit.north_deg)
    days, widths, bands = [options.first_day, options.last_day], found.widths, []
    if len(fits) > 1:
        own = {freq_hz: float(base.width_factor(np.array(freq_hz))) for freq_hz in sorted(fits)}
        widths = tuple((freq_hz, own[freq_hz] * fits[freq_hz].width) for freq_hz in own)
        bands = [{"mhz": freq_hz / 1e6, **fits[freq_hz]._asdict()} for freq_hz in own]
    content = {
        "schema_version": 1,
        "model": base.name.partition("#")[0],
        "offset_deg": [round(value, 5) for value in found.offset_deg],
        "widths": [[freq_hz / 1e6, round(factor, 6)] for freq_hz, factor in widths],
        "fit": {**fit._asdict(), "days": days, "of": base.name, "bands": bands},
    }
    options.file.write_text(json.dumps(content, indent=1) + "\n")
    numbers = {one: value for one, value in fit._asdict().items() if one != "residuals"}
    return {"command": "beam fit", "beam": str(options.file), "of": base.name, **numbers}


def choose_images(options: BeamOptions, root: str, console: Console) -> list[dict[str, Any]]:
    """Return the rows of comparable images: of our dishes, of the most frequent tier."""
    from contimg.records.schemas.images import IMAGES

    ours = [
        {**row, "primary_beam": row["primary_beam"] or UNRECORDED_BEAM}
        for row in read_rows(options, root, IMAGES, IMAGE_COLUMNS)
        if row["primary_beam"] != NO_BEAM
    ]
    rows = [row for row in ours if row["strip"] is not None]
    if len(rows) < len(ours):
        lost = len(ours) - len(rows)
        console.log.warning("%d images that do not state their strip left out", lost)
    if options.strip is not None:
        rows = [row for row in rows if abs(row["strip"] - options.strip) <= MAX_STRIP_DEG]
    if not rows:
        problem = "There is no image of a group with a known beam in these days and this strip."
        raise MissingError(f"{root}/tables/images", problem, "Process groups first.")
    tier = Counter(row["tier"] for row in rows).most_common(1)[0][0]
    kept = [row for row in rows if row["tier"] == tier]
    if len(kept) < len(rows):
        console.log.warning(
            "%d images of other tiers than %s left out", len(rows) - len(kept), tier
        )
    return kept


def read_rows(
    options: BeamOptions, root: str, schema: Schema, columns: list[str]
) -> list[dict[str, Any]]:
    """Return some columns of a table's rows in the days that were asked for."""
    tables = schema.read_days(root, options.first_day, options.last_day)
    return [row for table in tables for row in table.select(columns).to_pylist()]


def assumed_beams(images: list[dict[str, Any]], root: str) -> dict[str, Any]:
    """Return the beams that fluxes were corrected with, by name; of files as images hold them.

    Raises BadInputError if an image does not hold the beam that it names.
    """
    from contimg.astro.primary_beam import PrimaryBeam, model_beam
    from contimg.runtime.store import absolute_uri, split

    found: dict[str, PrimaryBeam] = {}
    for row in images:
        name, artifact = row["primary_beam"], row["artifact"]
        if name in found:
            continue
        beam = model_beam(name)
        if beam is None:
            uri = absolute_uri(artifact, root)
            store, key = split(f"{uri}/primary_beam.json")
            beam = PrimaryBeam.load(json.loads(store.read(key)))
            if beam.name != name:
                problem = f"The image holds the beam {beam.name}, but its row says {name}."
                raise BadInputError(uri, problem, "Image the group again.")
        found[name] = beam
    return found


def gather_fluxes(
    options: BeamOptions, root: str, images: list[dict[str, Any]], beams: Mapping[str, Any]
) -> Any:  # noqa: ANN401 - DriftingFluxes, whose module is slow to import
    """Return the fluxes of these images, and where their sources were in the beam."""
    import numpy as np

    from contimg.astro import beam_fit
    from contimg.astro.coordinates import drift_offsets
    from contimg.astro.telescope import SITE
    from contimg.records.schemas.photometry import PHOTOMETRY

    by_image: dict[str, list[dict[str, Any]]] = {row["image"]: [] for row in images}
    for row in read_rows(options, root, PHOTOMETRY, FLUX_COLUMNS):
        usable = row["snr"] >= options.min_snr and row["blend"] == 1 and row["flux_forced"]
        if row["image"] in by_image and usable and (row["beam"] or 0) >= options.min_beam:
            by_image[row["image"]].append(row)
    held = [row for row in images if by_image[row["image"]]]
    names = sorted({row["source"] for rows in by_image.values() for row in rows})
    number = {name: i for i, name in enumerate(names)}
    catalogue = np.full(len(names), np.nan)
    source, group, flux, error, assumed = [], [], [], [], []
    offset, freqs, weights = [], [], []
    for index, image in enumerate(held):
        rows = by_image[image["image"]]
        moments = beam_fit.sample_times(image["mjd_start"], image["mjd_end"])
        ra_rad, dec_rad = (np.radians([row[axis] for row in rows]) for axis in ("ra", "dec"))
        at = drift_offsets(ra_rad, dec_rad, moments, float(np.radians(image["strip"])), SITE)
        edges = image["freq_min"], image["freq_max"], image["frequency"]
        band = [np.tile(one, (len(rows), 1)) for one in beam_fit.sample_band(*edges)]
        assumed.append(beam_fit.log_mean_level(beams[image["primary_beam"]], at, *band))
        offset.append(at)
        freqs.append(band[0])
        weights.append(band[1])
        source += [number[row["source"]] for row in rows]
        group += [index] * len(rows)
        flux += [row["flux_forced"] for row in rows]
        error += [1 / row["snr"] for row in rows]
        for row in rows:
            if row["catalogue_flux"]:
                catalogue[number[row["source"]]] = np.log(row["catalogue_flux"])
    if not held:
        where = f"{root}/tables/photometry"
        problem = f"No flux of these images has a signal-to-noise ratio of {options.min_snr:g}."
        raise MissingError(where, problem, "Run photometry, or lower --min-snr.")
    return beam_fit.DriftingFluxes(
        source=np.array(source),
        group=np.array(group),
        log_flux=np.log(np.array(flux, np.float64)),
        error=np.array(error, np.float64),
        log_catalogue=catalogue,
        offset=np.concatenate(offset),
        freq_hz=np.concatenate(freqs),
        weight=np.concatenate(weights),
        log_assumed=np.concatenate(assumed),
    )
