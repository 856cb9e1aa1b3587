"""Write every template as YAML: ``python -m contimg_workflows.render FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from hera.workflows import WorkflowTemplate

from contimg.runtime.errors import ContimgError
from contimg.runtime.stage import stage_specs
from contimg_runs.pipelines import PIPELINES
from contimg_workflows.drivers import all_crons, all_drivers
from contimg_workflows.forms import template_commands
from contimg_workflows.templates import command_template, pipeline_template, stage_template

HEADER = "# Written by `make render` from specs, options and pipelines; do not edit.\n"


def all_templates() -> list[WorkflowTemplate]:
    """Return every template: of the stages, the commands and the pipelines."""
    for pipeline in PIPELINES.values():
        pipeline.check()
    return [
        *map(stage_template, stage_specs().values()),
        *map(command_template, template_commands().values()),
        *map(pipeline_template, PIPELINES.values()),
        *all_drivers(),
    ]


def render_all() -> dict[str, str]:
    """Return the YAML of every template by its file name."""
    templates = {f"{one.name}.yaml": HEADER + one.to_yaml() for one in all_templates()}
    return templates | {f"{one.name}-cron.yaml": HEADER + one.to_yaml() for one in all_crons()}


def main(folder: Path) -> None:
    """Write the files, and remove those of templates that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    files = render_all()
    for name, text in files.items():
        (folder / name).write_text(text)
    for path in folder.glob("*.yaml"):
        if path.name not in files:
            path.unlink()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ContimgError as error:
        sys.exit(str(error))
