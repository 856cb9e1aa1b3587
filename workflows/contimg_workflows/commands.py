"""The commands of this package."""

from __future__ import annotations

from contimg.runtime.command import Command
from contimg_workflows import options

RUN = Command(
    name="run",
    options=options.PipelineRunOptions,
    run="contimg_workflows.run:run",
    positional=("pipeline",),
)
SUBMIT = Command(
    name="submit",
    options=options.SubmitOptions,
    run="contimg_workflows.submit:run",
    positional=("pipeline",),
)
REPROCESS = Command(
    name="reprocess",
    options=options.ReprocessOptions,
    run="contimg_workflows.submit:run",
    positional=("group",),
)
STATUS = Command(
    name="status",
    options=options.StatusOptions,
    run="contimg_workflows.status:run",
    positional=("name",),
    plain=True,
)
LOGS = Command(
    name="logs",
    options=options.LogsOptions,
    run="contimg_workflows.logs:run",
    positional=("name", "task"),
    plain=True,
)
LINT = Command(
    name="lint", options=options.LintOptions, run="contimg_workflows.lint:run", positional=("path",)
)
DEMO = Command(name="demo", options=options.DemoOptions, run="contimg_workflows.demo:run")
