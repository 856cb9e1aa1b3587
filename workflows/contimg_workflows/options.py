"""The options of the commands; light, so that --help and the list of commands need no engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contimg.runtime.options import Lines, Options, Words


class SettingOptions(Options):
    """How options of stages are set."""

    set: Lines = ()
    """STAGE.OPTION=VALUE for any option of any stage, or NAME=VALUE for a parameter or shortcut of
    the pipeline; repeatable."""
    config: str = ""
    """Options of stages as YAML, {stage: {option: value}}: a file, a URI or the text itself. --set
    wins."""
    profile: str = ""
    """Name of a profile, options under a name; --config and --set win. Profiles are defined by the
    chart, locally by $CONTIMG_PROFILES."""


class PipelineRunOptions(SettingOptions):
    """Run a pipeline, or all of them, by processes of this machine."""

    pipeline: str
    """process-group, epoch, or all: look for groups, process them, those with a calibrator first,
    then run the epoch of each strip."""
    store: str
    """Root URI of the store."""
    group: Words = ()
    """Of process-group: ids of the groups, with commas between them; the latest attempt at each is
    run."""
    strip: float | None = None
    """Of epoch: pointing Declination, degrees; default: each strip that the store's groups point
    to."""
    epoch: str | None = None
    """Of epoch: name of the products' folder, STORE/products/epoch-NAME, for one strip; default:
    from the strip, as dec-p33.0."""
    jobs: int = Field(default=2, ge=1)
    """Processes side by side."""
    runs: str | None = None
    """Folder of states and logs; default: STORE/runs, or ./contimg-runs where the store is not a
    directory."""


class EngineOptions(Options):
    """Where workflows run."""

    engine: Literal["local", "argo"] | None = None
    """Processes of this machine, or Argo; default: Argo if --argo or ARGO_SERVER names a server and
    --runs no folder."""
    argo: str | None = None
    """URL of the Argo Server; default: ARGO_SERVER, with https if it names no scheme (http if
    ARGO_SECURE is false)."""
    namespace: str | None = None
    """Namespace of the chart; default: ARGO_NAMESPACE, else contimg."""
    token: str | None = None
    """Bearer token for the Argo Server; default: ARGO_TOKEN, which no list of processes shows."""
    store: str | None = None
    """Root URI of the store; on Argo the default is the chart's."""
    runs: str | None = None
    """Folder of the local engine's states and logs; default: STORE/runs, or ./contimg-runs where
    the store is not a directory."""
    jobs: int = Field(default=2, ge=1)
    """Processes side by side that the local engine starts."""


class SubmitOptions(EngineOptions, SettingOptions):
    """Start a pipeline or a stage, and return. contimg status and logs show its progress."""

    pipeline: str
    """Name of a pipeline or a stage: process-group, epoch, reprocess, backfill, image …"""
    wait: bool = False
    """Return when it has ended; exit 1 if it failed."""


class ReprocessOptions(EngineOptions, SettingOptions):
    """Start the next attempt at a group; the artifacts of the stages before --from are reused."""

    group: str
    """Id of the group, such as 20260125t222605."""
    from_: str = ""
    """The first stage that runs again; default: the first of the pipeline."""
    wait: bool = False
    """Return when it has ended; exit 1 if it failed."""


class StatusOptions(EngineOptions):
    """Show what ran, how long it took and why it failed."""

    name: str | None = None
    """One workflow, with its tasks."""
    lines: int = Field(default=10, ge=0)
    """Lines of the log of each failed task."""


class LogsOptions(EngineOptions):
    """Print the logs of a workflow's tasks, or of one task."""

    name: str
    """Name of the workflow."""
    task: str | None = None
    """One task. Without it, each line begins with the task's name."""
    follow: bool = False
    """Continue until the workflow has ended."""


class LintOptions(Options):
    """Check workflow templates, and whatever is installed with them, without a cluster."""

    path: str | None = None
    """A file or folder of YAML, or - for stdin; default: the templates of this version."""
    complete: bool = False
    """Nothing is left for a chart to fill in: every required argument must have its value."""


class DemoOptions(Options):
    """Simulate 26 epochs over 150 days, process them and compare what was found with the truth."""

    folder: str = "demo"
    """Folder of the demo's store."""
    jobs: int = 2
    """Processes side by side."""
    epochs: int = 26
    """How often the target field is observed; an ESE verdict needs more than 20."""
