"""Write every template as YAML: ``python -m contimg_workflows.render FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from contimg_workflows.pipelines import all_templates

HEADER = "# Written by `make render` from workflows/contimg_workflows and the stages' options; do not edit.\n"


def rendered() -> dict[str, str]:
    """Return the YAML of every template by its file name."""
    return {f"{template.name}.yaml": HEADER + template.to_yaml() for template in all_templates()}


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
