"""The report stage: read the artifacts, draw, fill the page."""

from __future__ import annotations

import matplotlib as mpl

from contimg.runtime.context import Context, StageResult
from contimg.runtime.manifest import read_manifest
from contimg_report.artifacts import open_artifacts
from contimg_report.figure import STYLE
from contimg_report.options import ReportOptions
from contimg_report.page import make_page


def run(options: ReportOptions, context: Context) -> StageResult:
    """Make the page."""
    with context.step("read"):
        artifacts = open_artifacts(context, options.artifacts)
        group_manifests = [read_manifest(uri) for uri in options.groups]
    with context.step("draw"), mpl.rc_context(fname=STYLE):
        html, kind, banner = make_page(artifacts, group_manifests)
    with context.step("write"):
        context.write("report.html", html.encode())
    reasons = [": ".join(pair) for pair in banner.reasons]
    return StageResult(metrics={"page": kind, "verdict": banner.headline, "reasons": reasons})
