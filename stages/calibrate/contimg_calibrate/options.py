"""Options of the calibrate stage and of ``contimg import-ms``, and how contimg runs both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from contimg.astro.beam_text import DEFAULT_BEAM, BeamText
from contimg.runtime.options import ArtifactURI, ObjectURI, StageOptions, Words
from contimg.runtime.stage import Resources, StageSpec


class CalibrateOptions(StageOptions):
    """Make caltables for one Measurement Set.

    They are solved on it if a calibrator is in its beam, else the best set of the store is taken.
    """

    ms: ArtifactURI | None = None
    """URI of the convert artifact whose Measurement Set is calibrated."""
    plain_ms: str | None = None
    """Instead of --ms: a folder with any Measurement Set, of any telescope."""
    field: str = "0"
    """Field of a plain Measurement Set, by number or name."""
    column: Literal["DATA", "CORRECTED_DATA"] = "DATA"
    """Data of a plain Measurement Set; CORRECTED_DATA: as CASA has calibrated them."""
    windows: Words = ()
    """Spectral windows of a plain Measurement Set, by number or name; default: all of the field,
    which are joined to one."""
    flags: ArtifactURI | None = None
    """URI of the flag artifact of the Measurement Set."""
    store: str | None = None
    """Root URI of the store whose registry of calibration sets is searched and extended."""
    calibration: ArtifactURI | None = None
    """Take this calibrate artifact instead of searching the store."""
    beam: BeamText = DEFAULT_BEAM
    """Primary beam: airy:DIAMETER (m), gaussian:FWHM@FREQUENCY (deg), or the URI of a beam file."""
    other_beam: bool = False
    """Use sets although they were solved with another primary beam."""
    solve: Literal["auto", "always", "never"] = "auto"
    """Solve on a calibrator in the beam; auto: on that or on the field's NVSS sources, if the flux
    scale is expected to be better than that of a set."""
    calibrator: str | None = None
    """Solve on this calibrator: its name, "RA,Dec" in degrees (ICRS), or nvss: all NVSS sources in
    the beam; default: the one with the smallest expected error."""
    flux_from: ArtifactURI | None = None
    """Measure the flux of --calibrator, which need not be listed, with the gains of this calibrate
    artifact, and take over its flux scale and its bandpass, as CASA's fluxscale."""
    min_primary_jy: float = Field(default=2.0, gt=0)
    """Minimum apparent flux of a flux standard to solve on, Jy."""
    min_bright_jy: float = Field(default=5.0, gt=0)
    """Minimum apparent flux of any other calibrator to solve on, Jy."""
    model_source: Literal["nvss", "calibrator", "file"] = "nvss"
    """Model: the calibrator with NVSS sources out to the beam's null, the calibrator alone, or the
    sources of --model-file."""
    model_file: ObjectURI | None = None
    """CSV with columns ra_deg, dec_deg, flux_jy, alpha, reference_hz: the whole model, before the
    beam."""
    field_fluxes: Literal["solve", "catalogue"] = "solve"
    """Fluxes of the field's sources in the model: fitted together with the gains, so that those of
    the catalogue do not reach the image, or the catalogue's. The calibrator's are never fitted."""
    do_k: bool = False
    """Solve delays before the bandpass."""
    prephase_solint_s: float = Field(default=30.0, gt=0)
    """Interval of the phases that only the bandpass solve uses, seconds."""
    phase_solint_s: float = Field(default=60.0, gt=0)
    """Interval of the gains' phases, seconds; amplitudes are solved once per Measurement Set."""
    minsnr: float = Field(default=3.0, gt=0)
    """Solutions of a lower signal-to-noise ratio are flagged."""
    fillgaps: int = Field(default=3, ge=0)
    """Widest gap of flagged bandpass channels that is interpolated, channels."""
    minblperant: int = Field(default=4, ge=1)
    """Baselines that an antenna needs for a solution."""
    reference_antenna: str | None = None
    """Name of the antenna whose phase is 0; default: the outrigger with the most data."""
    max_flagged: float = Field(default=0.3, gt=0, le=1)
    """A solve fails if a larger fraction of its solutions is flagged, of antennas with data."""
    valid_hours: float = Field(default=12.0, gt=0)
    """A solved set may be used this long before and after without a check of its date, hours."""
    borrow_days: float = Field(default=30.0, gt=0)
    """A set of another date is borrowed at most this long before or after, days."""
    strip_deg: float = Field(default=5.0, gt=0)
    """A set is used only for pointings this near to its own Declination, degrees."""
    field_phase: Literal["auto", "always", "never"] = "auto"
    """Solve phases on the field with a model from NVSS after a set is selected; auto: if the signal
    suffices."""

    @model_validator(mode="after")
    def _coherent(self) -> CalibrateOptions:
        if (self.ms is None) == (self.plain_ms is None):
            raise ValueError("give either --ms or --plain-ms")
        if (self.model_source == "file") != (self.model_file is not None):
            raise ValueError("--model-source file and --model-file belong together")
        if self.flux_from is not None and (
            self.calibrator in {None, "nvss"}
            or self.calibration
            or self.model_file
            or self.do_k
            or self.solve == "never"
        ):
            raise ValueError(
                "--flux-from needs the name or place of a --calibrator, and excludes --calibration,"
                " --model-file, --do-k and --solve never"
            )
        return self


class ImportOptions(StageOptions):
    """Import one field of any Measurement Set. Give the artifact as --ms and as --flags."""

    path: str
    """Folder of the Measurement Set."""
    field: str = "0"
    """The field, by number or name."""
    column: Literal["DATA", "CORRECTED_DATA"] = "DATA"
    """The data; CORRECTED_DATA: as CASA has calibrated them."""
    windows: Words = ()
    """Spectral windows, by number or name; default: all of the field, which are joined to one."""


STAGE = StageSpec(
    name="calibrate",
    options=CalibrateOptions,
    tools=("casatools", "python-casacore"),
    resolver="contimg_calibrate.selection:resolve",
    resources=Resources(deadline_s=2400, memory_mi=8192, scratch_mi=4096),
    semaphore="casa",
    image_level="casa",
)
IMPORT_MS = StageSpec(
    name="import-ms",
    options=ImportOptions,
    resources=Resources(deadline_s=2400, memory_mi=8192),
    package="contimg_calibrate",
    module="contimg_calibrate.foreign",
    tools=("python-casacore",),
    resolver="contimg_calibrate.selection:resolve",
)
