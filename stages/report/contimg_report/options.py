"""What contimg-report may be asked."""

from __future__ import annotations

from pydantic import model_validator

from contimg.runtime.options import ArtifactURI, ArtifactURIs, StageOptions
from contimg.runtime.stage import Stage


class ReportOptions(StageOptions):
    """Make one HTML page, complete in itself: of a group (give --convert), or of a run over epochs (give --variability)."""

    convert: ArtifactURI | None = None
    """URI of the group's convert artifact."""
    flag: ArtifactURI | None = None
    """URI of the group's flag artifact."""
    calibrate: ArtifactURI | None = None
    """URI of the group's calibrate artifact."""
    image: ArtifactURI | None = None
    """URI of the group's image artifact."""
    photometry: ArtifactURI | None = None
    """URI of the group's photometry artifact."""
    normalize: ArtifactURI | None = None
    """URI of the run's normalize artifact."""
    variability: ArtifactURI | None = None
    """URI of the run's variability artifact."""
    groups: ArtifactURIs = ()
    """URIs of artifacts of the run's groups (of any stage), for the table of groups."""

    @model_validator(mode="after")
    def _one_page(self) -> ReportOptions:
        of_group = [self.convert, self.flag, self.calibrate, self.image, self.photometry]
        of_run = [self.normalize, self.variability]
        if any(of_group) and (any(of_run) or self.groups):
            raise ValueError("give the artifacts of one group or those of a run, not both")
        if any(of_group) and not self.convert:
            raise ValueError("a page of a group needs --convert")
        if not any(of_group) and not any(of_run):
            raise ValueError(
                "give --convert for a group, or --normalize or --variability for a run"
            )
        return self


STAGE = Stage(
    name="report", options=ReportOptions, package="contimg_report", tools=("matplotlib", "jinja2")
)
