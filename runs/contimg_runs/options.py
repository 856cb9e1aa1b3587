"""The options of the commands that rule over runs: claim, begin, record, sweep, select, strips."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.runtime.options import Lines, Options

DAY_OR_GROUP = r"^(\d{4}-\d{2}-\d{2}|\d{8}t\d{6})$"
URL = "^https?://[^/]+"
RUN = r"^\d{8}t\d{6}-a[1-9]\d*$"
GROUP_ID = r"^\d{8}t\d{6}$"
CHUNK = 80
"""Groups of one workflow, and chunks of one backfill: a workflow has fewer than 100 nodes."""


class RunOptions(Options):
    """What the commands about one workflow take."""

    store: str
    """Root URI of the store."""
    uid: str = Field(min_length=1)
    """The workflow's uid, as Kubernetes gives it."""
    workflow: str = Field(min_length=1)
    """The workflow's name."""


class RequestOptions(Options):
    """What was asked of a pipeline."""

    pipeline: str = "process-group"
    """Name of the pipeline that the options are for."""
    options: str = ""
    """Options of its stages as YAML, {stage: {option: value}}."""
    profile: str = ""
    """Name of a profile: options under a name, which `options` replace one by one."""
    set: Lines = ()
    """STAGE.OPTION=VALUE or SHORTCUT=VALUE, over the options; a line each."""


class ResolveOptions(RequestOptions):
    """Check the options of a pipeline's stages, and write them as one document."""


class ClaimOptions(RunOptions, RequestOptions):
    """Claim an attempt at a group for one workflow; any other is told that it is done already."""

    run: str = Field(pattern=RUN)
    """The attempt, ID-aN."""


class ClusterOptions(Options):
    """How the workflows of a namespace are looked up."""

    workflows: Literal["api", "none"] = "api"
    """Ask the Kubernetes API which workflows there are, or take none for living."""
    namespace: str | None = None
    """Namespace of the workflows; default: the pod's own."""
    api: str | None = Field(default=None, pattern=URL)
    """URL of the Kubernetes API, such as that of a kubectl proxy; default: the pod's own cluster.
    """


class RecordOptions(RunOptions, ClusterOptions):
    """Record how a workflow ended: its outcome, its stages' time and memory, its group's state."""

    run: str | None = Field(default=None, pattern=RUN)
    """The attempt, ID-aN; empty: the workflow is no attempt at a group, and only its stages are
    recorded."""
    group: str | None = None
    """Id of the group, where the workflow is no attempt of its own but works on one."""
    pipeline: str | None = None
    """What ran, such as process-group; default: the template that the workflow was made from."""
    status: Literal["Succeeded", "Failed", "Error"]
    """The workflow's status, as Argo gives it."""
    failures: str = ""
    """The workflow's failures, JSON as Argo gives it; used where the Kubernetes API cannot be
    asked."""


class SweepOptions(ClusterOptions):
    """Restart what events lost: post unclaimed attempts, close lost runs, start the next ones."""

    store: str
    """Root URI of the store."""
    post: str | None = Field(default=None, pattern=URL)
    """URL that each group is posted to as JSON, such as that of a webhook EventSource; may be empty
    where --workflows is none."""
    grace_s: float = Field(default=600.0, ge=0)
    """Leave alone what is younger, seconds; doubles with each time that an attempt was posted in
    vain."""
    retries: int = Field(default=3, ge=0)
    """How often the same subbands are begun anew after runs that the world ended."""
    days: int = Field(default=30, ge=0)
    """Look at groups observed in so many last days; 0: at all."""
    dry_run: bool = False
    """Only say what would be done."""


class BeginOptions(RunOptions, RequestOptions):
    """Begin the next attempt at a group: claim it, write its record, and name what is reused."""

    group: str = Field(pattern=GROUP_ID)
    """Id of the group."""
    first: str = ""
    """First stage that runs again; the artifacts of the stages before it are reused. Default: all
    run."""


class SelectOptions(RequestOptions):
    """List the groups of some days that are to be processed, in chunks."""

    store: str
    """Root URI of the store."""
    first_day: str = Field(pattern=DAY_OR_GROUP)
    """Groups observed from this UTC day on, YYYY-MM-DD; or the id of the first."""
    last_day: str = Field(pattern=DAY_OR_GROUP)
    """Groups observed up to and with this UTC day; or the id of the last."""
    redo: bool = False
    """Also groups that were processed before, as their next attempts; else only those that nothing
    has begun."""


class StripsOptions(RequestOptions):
    """List the Declination strips of a store."""

    store: str
    """Root URI of the store."""
    days: int = Field(default=0, ge=0)
    """Only strips that were observed in so many last days; 0: all."""
