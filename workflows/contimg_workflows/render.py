"""Write every template as YAML: ``python -m contimg_workflows.render FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contimg_workflows.drivers import all_crons, all_drivers
from contimg_workflows.pipelines import epoch, process_group
from contimg_workflows.runs import VERSION
from contimg_workflows.stages import COMMAND_NEEDS, COMMANDS, NEEDS, options_of, stage_template

if TYPE_CHECKING:
    from hera.workflows import WorkflowTemplate

HEADER = "# Written by `make render` from workflows/contimg_workflows and the stages' options; do not edit.\n"


def all_templates() -> list[WorkflowTemplate]:
    """Return every template: the stages', the commands' and the pipelines'."""
    needs = {**NEEDS, **dict.fromkeys(COMMANDS, COMMAND_NEEDS)}
    programs = [
        stage_template(name, options_of(name), VERSION, needs) for name, needs in needs.items()
    ]
    return [*programs, process_group(), epoch(), *all_drivers()]


def rendered() -> dict[str, str]:
    """Return the YAML of every template by its file name."""
    templates = {
        f"{template.name}.yaml": HEADER + template.to_yaml() for template in all_templates()
    }
    return templates | {f"{one.name}-cron.yaml": HEADER + one.to_yaml() for one in all_crons()}


def main(folder: Path) -> None:
    """Write the files, and remove those of templates that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    files = rendered()
    for name, text in files.items():
        (folder / name).write_text(text)
    for path in folder.glob("*.yaml"):
        if path.name not in files:
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
