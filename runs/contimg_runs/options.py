"""The options of the commands for the life cycle of runs."""

from typing import Literal

from pydantic import Field

from contimg.runtime.options import Lines, Options

DAY_OR_GROUP = r"^(\d{4}-\d{2}-\d{2}|\d{8}t\d{6})$"
URL = "^https?://[^/]+"
RUN = r"^\d{8}t\d{6}-a[1-9]\d*$"
CHUNK = 80
"""Groups of one workflow, and chunks of one backfill: a workflow has fewer than 100 nodes."""
MAX_GROUPS = CHUNK * (CHUNK - 1)
"""Groups of one backfill: those with a calibrator and the others have their own chunks."""


class RequestOptions(Options):
    """Check the options of a pipeline's stages, and write them as one document."""

    pipeline: str = "process-group"
    """Name of the pipeline that the options are for."""
    options: str = ""
    """Options of its stages, {stage: {option: value}}: YAML as text, or the file or URI that holds
    it."""
    profile: str = ""
    """Name of a profile: options under a name in $CONTIMG_PROFILES, which `options` replace one by
    one."""
    set: Lines = ()
    """STAGE.OPTION=VALUE or SHORTCUT=VALUE, which replace values of `options`; a line each."""


class WorkflowRunOptions(Options):
    """The workflow that a command speaks for."""

    store: str
    """Root URI of the store."""
    uid: str = Field(min_length=1)
    """The workflow's uid, as Kubernetes gives it."""
    workflow: str = Field(min_length=1)
    """The workflow's name."""


class ClaimOptions(RequestOptions, WorkflowRunOptions):
    """Claim an attempt at a group for one workflow. Any other workflow learns that it is taken."""

    run: str = Field(pattern=RUN)
    """The attempt, ID-aN."""


class BeginOptions(RequestOptions, WorkflowRunOptions):
    """Begin the next attempt at a group: claim it, record it, keep artifacts of the last one."""

    group: str = Field(pattern=r"^\d{8}t\d{6}$")
    """Id of the group."""
    first: str = ""
    """First step that runs again, with all that read from it; other artifacts are kept. Empty: all
    steps run again."""


class ClusterOptions(Options):
    """How the workflows of a namespace are looked up."""

    workflows: Literal["api", "none"] = "api"
    """Ask the Kubernetes API which workflows there are, or assume that there are none."""
    namespace: str | None = None
    """Namespace of the workflows; default: the pod's own."""
    api: str | None = Field(default=None, pattern=URL)
    """URL of the Kubernetes API, such as a kubectl proxy's; default: the pod's own cluster."""


class RecordOptions(WorkflowRunOptions, ClusterOptions):
    """Record how a workflow ended: outcome, time and memory of its stages, state of its group."""

    run: str | None = Field(default=None, pattern=RUN)
    """The attempt, ID-aN; empty: it is not an attempt at a group; only its stages are recorded."""
    group: str | None = None
    """Id of the group, where the workflow is not an attempt itself but works on one."""
    pipeline: str | None = None
    """What ran, such as process-group; default: the template that the workflow was made from."""
    status: Literal["Succeeded", "Failed", "Error"]
    """The workflow's status, as Argo gives it."""
    failures: str = ""
    """The workflow's failures, Argo's JSON; used where the Kubernetes API cannot be asked."""


class SweepOptions(ClusterOptions):
    """Post attempts that no workflow took, close runs that are gone, start next attempts."""

    store: str
    """Root URI of the store."""
    post: str | None = Field(default=None, pattern=URL)
    """URL that each group is posted to as JSON, such as that of a webhook EventSource; may be empty
    where --workflows is none."""
    grace_s: float = Field(default=600.0, ge=0)
    """Leave alone what is younger, seconds; doubles with each post without effect."""
    retries: int = Field(default=3, ge=0)
    """How often the same subbands are started again after infrastructure failures."""
    days: int = Field(default=30, ge=0)
    """Look only at groups observed in this many last days; 0: at all groups."""
    dry_run: bool = False
    """Only report what would be done."""


class SelectOptions(RequestOptions):
    """List the groups of some days that are to be processed, in chunks."""

    store: str
    """Root URI of the store."""
    first_day: str = Field(pattern=DAY_OR_GROUP)
    """Groups observed from this UTC day on, YYYY-MM-DD; or the id of the first."""
    last_day: str = Field(pattern=DAY_OR_GROUP)
    """Groups observed up to and including this UTC day; or the id of the last."""
    redo: bool = False
    """Also groups that were processed before, as next attempts; else only those not begun."""
    only: Literal["all", "calibrators", "others"] = "all"
    """Hand over the groups with a calibrator in the beam, the others, or all."""


class StripsOptions(RequestOptions):
    """List the Declination strips of a store."""

    pipeline: str = "epoch"
    """Name of the pipeline that the options are for."""
    store: str
    """Root URI of the store."""
    days: int = Field(default=0, ge=0)
    """List only strips observed in this many last days; 0: all."""
