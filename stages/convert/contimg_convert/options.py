"""Options of the convert stage and of ``contimg export-ms``, and how contimg runs both."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from contimg.astro.beam_text import DEFAULT_BEAM, BeamText
from contimg.records.groups import GroupURI
from contimg.runtime.command import Command
from contimg.runtime.options import ArtifactURI, Options, StageOptions
from contimg.runtime.stage import Resources, StageSpec


class ConvertOptions(StageOptions):
    """Make one Measurement Set of a group of UVH5 subbands.

    It has one field, one phase centre and one spectral window.
    """

    group: GroupURI
    """URI of the group's record, STORE/groups/ID-aN.json."""
    tables: str | None = None
    """URI of the folder of tables. Rows go to TABLES/ms and TABLES/subbands,
    date=YYYY-MM-DD/GROUP.parquet. Without it no rows are written."""
    max_zeros: float = Field(default=0.25, gt=0, le=1)
    """Refuse a group without fringes when at least this fraction of its cross-correlations is
    exactly zero."""
    max_invalid: float = Field(default=0.25, gt=0, le=1)
    """Refuse a group when at least this fraction of its visibilities is not finite.
    Fewer are flagged."""


class ExportOptions(Options):
    """Write a group as a classic Measurement Set for CASA.

    It has DATA, CORRECTED_DATA (calibrated), MODEL_DATA, WEIGHT_SPECTRUM, and FLAG with all flags.
    """

    ms: ArtifactURI
    """URI of the convert artifact."""
    folder: Path
    """Folder in which GROUP.ms is made."""
    flags: ArtifactURI | None = None
    """URI of the flag artifact whose flags are added to FLAG."""
    calibration: ArtifactURI | None = None
    """URI of the calibrate artifact to apply. Without it CORRECTED_DATA equals DATA, as after
    CASA's clearcal."""
    model: Literal["point", "field"] = "point"
    """point: 1 Jy at the phase centre, as CASA's clearcal leaves it. field: the NVSS sources of
    the field with beam and smearing."""
    beam: BeamText = DEFAULT_BEAM
    """Primary beam of a field model: airy:DIAMETER (m), gaussian:FWHM@FREQUENCY (deg), or the URI
    of a beam file."""
    least_mjy: float = Field(default=10.0, ge=0)
    """Apparent flux of the faintest source in a field model, mJy."""


STAGE = StageSpec(
    name="convert",
    options=ConvertOptions,
    tools=("python-casacore", "numba", "h5py", "pyerfa", "astropy-iers-data"),
    resources=Resources(deadline_s=1200, memory_mi=5120, scratch_mi=3840),
)
EXPORT_MS = Command(
    name="export-ms",
    options=ExportOptions,
    run="contimg_convert.export:run",
    positional=("ms", "folder"),
)
