"""The report stage: read the artifacts, draw, fill the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contimg.runtime.context import StageResult
from contimg.runtime.manifest import read_manifest
from contimg_report import (
    page,
    plots_calibration,
    plots_flags,
    plots_fluxes,
    plots_image,
    plots_run,
    plots_uv,
    verdict,
)
from contimg_report.figure import style
from contimg_report.material import Artifact, open_artifacts

if TYPE_CHECKING:
    from contimg.runtime.context import Context
    from contimg_report.options import ReportOptions


def run(options: ReportOptions, context: Context) -> StageResult:
    """Make the page."""
    with context.step("read"):
        artifacts = open_artifacts(context, options.artifacts)
    with context.step("draw"), style():
        of_group = "convert" in artifacts
        content = group_page(artifacts) if of_group else run_page(artifacts, options)
        html = page.render("group.html.j2" if of_group else "run.html.j2", content)
    with context.step("write"):
        context.write("report.html", html.encode())
    found: verdict.Verdict = content["verdict"]
    metrics = {
        "page": "group" if of_group else "run",
        "verdict": found.headline,
        "reasons": [": ".join(pair) for pair in found.reasons],
    }
    return StageResult(metrics=metrics)


def group_page(artifacts: dict[str, Artifact]) -> dict[str, Any]:
    """Return what the page of a group shows."""
    convert = artifacts["convert"]
    content: dict[str, Any] = {
        **_common(artifacts),
        "verdict": verdict.of_group(artifacts),
        "tiles": verdict.group_tiles(artifacts),
        "title": f"Group {convert.metrics['group']}",
        "seen": convert.metrics,
        "rungs": verdict.RUNGS,
        "anchors": verdict.ANCHORS,
        "subbands": page.subband_rows(convert),
    }
    if "flag" in artifacts:
        flagging = artifacts["flag"].json("flagging.json")
        drawn = [
            plots_flags.over_frequency(flagging),
            plots_flags.over_time(flagging),
            plots_flags.over_array(flagging),
        ]
        content |= {
            "flagging": flagging,
            "flag_pictures": drawn,
            "bad_antennas": plots_flags.bad_antennas(flagging),
        }
    if "calibrate" in artifacts:
        arrays = artifacts["calibrate"].arrays("solutions.npz")
        content["calibration"] = artifacts["calibrate"].json("calibration.json")
        lines, waterfalls = (
            plots_calibration.bandpass_lines(arrays),
            plots_calibration.bandpass(arrays),
        )
        content["calibration_pictures"] = lines + waterfalls + plots_calibration.gains(arrays)
    if "image" in artifacts:
        content["image"] = artifacts["image"].metrics
        content["image_pictures"] = plots_image.pictures(artifacts["image"])
        content["uv_pictures"] = plots_uv.pictures(artifacts["image"])
    if "photometry" in artifacts:
        table = artifacts["photometry"].table("photometry.parquet")
        content |= {
            "photometry": artifacts["photometry"].metrics,
            "flux_pictures": plots_fluxes.pictures(table),
        }
        content["sources"] = plots_fluxes.brightest(table)
    return content


def run_page(artifacts: dict[str, Artifact], options: ReportOptions) -> dict[str, Any]:
    """Return what the page of a run shows."""
    candidates = (
        artifacts["variability"].metrics["candidates"] if "variability" in artifacts else None
    )
    groups = page.group_rows(read_manifest(uri) for uri in options.groups)
    content: dict[str, Any] = {
        **_common(artifacts),
        "verdict": verdict.of_run(artifacts, candidates),
        "tiles": verdict.run_tiles(artifacts, groups),
        "title": page.run_title(artifacts),
        "groups": groups,
    }
    if "normalize" in artifacts:
        table = artifacts["normalize"].table("normalization.parquet")
        content |= {
            "factor_pictures": plots_run.factors(table),
            "normalize": artifacts["normalize"].metrics,
        }
        content["made_from"] = len(artifacts["normalize"].manifest.inputs)
    if "variability" in artifacts:
        one = artifacts["variability"]
        stats, curves = one.table("lightcurve_stats.parquet"), one.table("lightcurves.parquet")
        found, others = plots_run.light_curves(curves, stats)
        content |= {
            "candidate_pictures": found,
            "curve_pictures": others,
            "eta_pictures": plots_run.eta_v(stats),
        }
        content["candidates"] = plots_run.candidate_rows(one.table("ese_candidates.parquet"))
    return content


def _common(artifacts: dict[str, Artifact]) -> dict[str, Any]:
    steps = [(verdict.title(stage), one) for stage, one in artifacts.items()]
    return {
        "steps": steps,
        "slowest": max(one.seconds for _, one in steps),
        "total": sum(one.seconds for _, one in steps),
    }
