"""What a page shows of each stage; a stage without its own section gets a general one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from contimg.records.groups import N_SUBBANDS
from contimg_report import plots_calibration, plots_flags, plots_image, plots_run
from contimg_report.artifacts import ReportArtifact
from contimg_report.formatting import describe_metric, number, percent, utc

Content = dict[str, Any]

CALIBRATION_SOURCES = {
    "PRIMARY_TRANSIT_GENERATED": "solved on this group, on a flux standard",
    "BRIGHT_FALLBACK_GENERATED": "solved on this group, on a bright calibrator that is no standard",
    "ENSEMBLE_GENERATED": "solved on this group, on all NVSS sources of its field",
    "SAME_DATE_VALID": "taken from a set of the same transit or date",
    "BORROWED_VALIDATED": "borrowed from another date, checked against the field's sources",
}
FLUX_ANCHORS = {
    "standard": "a Perley–Butler 2017 standard",
    "catalogue": "a catalogue calibrator",
    "nvss": "the ensemble of NVSS sources",
}
BRIGHTEST_SOURCES = 15
MAX_QUIET_FRACTION = 0.3
"""Antennas with a larger flagged fraction are listed by name."""
MAX_PNG_BYTES = 2_000_000
MAX_JSON_BYTES = 8_000
"""Larger files of a stage without its own section are listed, but not shown."""


@dataclass(frozen=True)
class Tile:
    """One number that sums up a step."""

    label: str
    value: str
    note: str = ""
    good: bool = True


def describe_convert(convert: ReportArtifact) -> Content:
    """Return what came in: subbands, highest frequency first, and where each is in the band."""
    metrics = convert.manifest.metrics
    missing = metrics["missing_subbands"]
    note = "missing: " + ", ".join(f"sb{k:02d}" for k in missing) if missing else "all there"
    count = f"{N_SUBBANDS - len(missing)} of {N_SUBBANDS}"
    top = metrics["freq_max_hz"] / 1e6
    width = (metrics["freq_max_hz"] - metrics["freq_min_hz"]) / 1e6 / N_SUBBANDS
    listed = json.loads(convert.read("subbands.json")) if convert.has("subbands.json") else []
    files = {item["index"]: item for item in listed}
    subbands = [
        {"index": k, "high": top - width * k, "low": top - width * (k + 1)}
        | {"missing": k in missing, "file": files.get(k)}
        for k in range(N_SUBBANDS)
    ]
    return {
        "title": f"Group {metrics.get('group')}",
        "tiles": [Tile("Subbands", count, note, not missing)],
        "convert": metrics,
        "subbands": subbands,
    }


def describe_flag(flag: ReportArtifact) -> Content:
    """Return the flags by step, frequency, time and antenna."""
    flagging, metrics = json.loads(flag.read("flagging.json")), flag.manifest.metrics
    dead = len(metrics.get("dead_receptors", ()))
    note = f"{dead} dead receptor{'s' * (dead != 1)}"
    bad = [a for a in flagging["antennas"] if a["dead"] or max(a["fraction"]) > MAX_QUIET_FRACTION]
    return {
        "tiles": [Tile("Flagged", percent(metrics["fraction"]), note, flag.good)],
        "flagging": flagging,
        "flag_pictures": plots_flags.draw_flags(flagging),
        "bad_antennas": sorted(bad, key=lambda antenna: -max(antenna["fraction"])),
    }


def describe_calibrate(calibrate: ReportArtifact) -> Content:
    """Return where the calibration comes from, and its solutions."""
    arrays, metrics = calibrate.arrays("solutions.npz"), calibrate.manifest.metrics
    note = CALIBRATION_SOURCES.get(metrics["provenance"], metrics["provenance"])
    return {
        "tiles": [Tile("Calibrated on", str(metrics["calibrator"]), note, calibrate.good)],
        "calibration": json.loads(calibrate.read("calibration.json")),
        "calibration_sources": CALIBRATION_SOURCES,
        "flux_anchors": FLUX_ANCHORS,
        "calibration_pictures": plots_calibration.draw_bandpass(arrays)
        + plots_calibration.draw_gains(arrays),
    }


def describe_image(image: ReportArtifact) -> Content:
    """Return the image's planes, its depth, and the visibilities behind it."""
    metrics = image.manifest.metrics
    rms, beam = f"{1e3 * metrics['rms_jy']:.2f} mJy", "{bmaj_arcsec:.0f}″ × {bmin_arcsec:.0f}″"
    thermal = metrics.get("thermal_rms_jy")
    note = f", {metrics['rms_jy'] / thermal:.2f} × the thermal noise" if thermal else ""
    return {
        "tiles": [
            Tile("Image rms", rms, f"per beam{note}", image.good),
            Tile("Beam", beam.format(**metrics), f"at {metrics['bpa_deg']:.0f}°", image.good),
        ],
        "image": metrics,
        "image_pictures": plots_image.draw_planes(image),
        "uv_pictures": plots_image.draw_visibilities(image),
    }


def describe_photometry(photometry: ReportArtifact) -> Content:
    """Return the fluxes against the catalogue, and the brightest sources."""
    table, metrics = photometry.table("photometry.parquet"), photometry.manifest.metrics
    ratio, note = number(metrics.get("ratio_median"), 3), "no bright single source"
    if metrics.get("ratio_median") is not None:
        scatter = number(metrics.get("ratio_scatter"))
        note = f"± {scatter} scatter of {metrics.get('bright', 0)} sources"
    brightest = table.sort_by([("flux_forced", "descending")]).slice(0, BRIGHTEST_SOURCES)
    return {
        "tiles": [Tile("Flux / NVSS", ratio, note, photometry.good)],
        "photometry": metrics,
        "flux_pictures": plots_image.draw_fluxes(table),
        "sources": brightest.to_pylist(),
    }


def describe_normalize(normalize: ReportArtifact) -> Content:
    """Return the flux scale of each epoch."""
    metrics, good = normalize.manifest.metrics, normalize.good
    count = f"{metrics['sources']} sources, {metrics['references']} references"
    scale, note = percent(metrics["factor_scatter"]), "scatter that was taken out"
    tiles = [
        Tile("Epochs", str(metrics["epochs"]), count, good),
        Tile("Flux scale from epoch to epoch", scale, note, good),
    ]
    if "scatter_median" in metrics:
        note = f"{number(metrics['scatter_over_noise'])} × what their errors predict"
        scatter = percent(metrics["scatter_median"])
        tiles.append(Tile("Bright references scatter by", scatter, note, good))
    content: Content = {
        "tiles": tiles,
        "factor_pictures": plots_run.draw_factors(normalize.table("normalization.parquet")),
        "photometry_tables": sum(one.name == "photometry" for one in normalize.manifest.inputs),
    }
    if "strip_deg" in metrics:
        strip, day = f"{metrics['strip_deg']:+.2f}°", utc(metrics["last_mjd"])[:10]
        content["title"] = f"Light curves of the strip at Dec {strip} up to {day}"
    return content


def describe_variability(variability: ReportArtifact) -> Content:
    """Return the candidates, how variable the sources are, and light curves."""
    stats = variability.table("lightcurve_stats.parquet")
    candidates = variability.table("ese_candidates.parquet")
    pictures, others = plots_run.draw_light_curves(variability.table("lightcurves.parquet"), stats)
    count, note = str(variability.manifest.metrics["candidates"]), "for extreme scattering events"
    return {
        "tiles": [Tile("Candidates", count, note, variability.good)],
        "candidate_pictures": pictures,
        "curve_pictures": others,
        "eta_pictures": plots_run.draw_eta_v(stats),
        "candidates": sorted(candidates.to_pylist(), key=lambda row: -row["ese_evidence"]),
    }


def describe_other(artifact: ReportArtifact) -> Content:
    """Return what can be shown of any stage: metrics, pictures, links and small JSON files."""
    manifest = artifact.manifest
    described = {name: describe_metric(name, value) for name, value in manifest.metrics.items()}
    tiles = [
        Tile(manifest.stage.capitalize(), text, label, artifact.good)
        for name, (label, text) in described.items()
        if type(manifest.metrics[name]) in {int, float} and not name.endswith("mjd")
    ]
    content: Content = {"artifact": artifact, "tiles": tiles[:1], "metrics": described.values()}
    content |= {"pictures": {}, "pages": {}, "documents": {}, "files": []}
    for output in manifest.outputs:
        name, size = output.name, output.bytes
        if name.endswith(".png") and size <= MAX_PNG_BYTES:
            data = base64.b64encode(artifact.read(name)).decode()
            content["pictures"][name] = f"data:image/png;base64,{data}"
        elif name.endswith(".html"):
            content["pages"][name] = artifact.link(name)
        elif name.endswith(".json") and size <= MAX_JSON_BYTES:
            content["documents"][name] = artifact.read(name).decode(errors="replace")
        else:
            content["files"].append(output)
    return content


Describe = Callable[[ReportArtifact], Content]
GROUP_SECTIONS: Mapping[str, Describe] = {
    "convert": describe_convert,
    "flag": describe_flag,
    "calibrate": describe_calibrate,
    "image": describe_image,
    "photometry": describe_photometry,
}
RUN_SECTIONS: Mapping[str, Describe] = {
    "normalize": describe_normalize,
    "variability": describe_variability,
}
"""Stages that have a section of their own on the page of a group, and on that of a run."""
