"""Options of the report stage."""

from __future__ import annotations

from pydantic import Field

from contimg.runtime.options import ManifestURIs, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class ReportOptions(StageOptions):
    """Make one self-contained HTML page of a group, or of a run over epochs."""

    artifacts: ManifestURIs = Field(min_length=1)
    """URIs of the artifacts of one group, or of one run over epochs; of any stages."""
    groups: ManifestURIs = ()
    """URIs of artifacts of a run's groups, of any stage, for the table of groups."""


STAGE = StageSpec(
    name="report",
    options=ReportOptions,
    tools=("matplotlib", "jinja2"),
    resources=Resources(deadline_s=600, memory_mi=4096, scratch_mi=1024),
    views=("report.html",),
)
