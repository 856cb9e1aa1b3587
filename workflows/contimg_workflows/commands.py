"""The commands of this package."""

from __future__ import annotations

from contimg.runtime.command import Command
from contimg.runtime.options import Options
from contimg_workflows import options


def _command(
    name: str, model: type[Options], code: str, *positional: str, plain: bool = False
) -> Command:
    run = f"contimg_workflows.{code}"
    return Command(name=name, options=model, run=run, positional=positional, plain=plain)


RUN = _command("run", options.PipelineRunOptions, "run:run", "pipeline")
SUBMIT = _command("submit", options.SubmitOptions, "submit:run", "pipeline")
REPROCESS = _command("reprocess", options.ReprocessOptions, "submit:run", "group")
STATUS = _command("status", options.StatusOptions, "status:run", "name", plain=True)
LOGS = _command("logs", options.LogsOptions, "logs:run", "name", "task", plain=True)
LINT = _command("lint", options.LintOptions, "lint:run", "path")
DEMO = _command("demo", options.DemoOptions, "demo:run")
