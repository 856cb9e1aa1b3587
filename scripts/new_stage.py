"""Make a new stage from starters/stage: ``make new-stage NAME=hello``. Standard library only.

new_stage.py NAME
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STARTER = "starter"
"""The word that the name replaces, in files and in their names."""
MAX_LENGTH = 20
"""Letters of a name; Argo makes names of pods from it."""
NEXT_STEPS = """\
Stage {name} was made:

  stages/{name}/                 its package: options and spec in options.py, work in stage.py
  tests/stages/test_{name}.py    its tests
  docs/stages/{name}.md          its page

Next steps:

  1. Add it to a pipeline in runs/contimg_runs/pipelines.py:
         Step("{name}", inputs={{"image": "image"}}),
  2. make render                                     installs it, and writes its templates
  3. .venv/bin/python -m pytest tests/stages/test_{name}.py
  4. make lint test                                  checks everything
"""


def check_name(name: str, root: Path) -> str:
    """Return why a stage may not have this name; nothing if it may."""
    if not re.fullmatch(r"[a-z][a-z0-9]*", name):
        return "A stage's name has lower-case letters and digits only, and begins with a letter."
    if len(name) > MAX_LENGTH:
        return f"A stage's name has at most {MAX_LENGTH} letters, because names of pods contain it."
    taken = [*root.glob(f"contimg_{name}"), *root.glob(f"*/contimg_{name}"), root / "stages" / name]
    taken += [root / f"tests/stages/test_{name}.py", root / f"docs/stages/{name}.md"]
    taken += [root / f"charts/contimg/rendered/contimg-{name}{end}.yaml" for end in ("", "-cron")]
    found = [path for path in taken if path.exists()]
    if found or name == STARTER:
        there = found[0].relative_to(root) if found else "starters/stage"
        return f"This name is taken: {there} exists."
    return ""


def make_stage(name: str, root: Path) -> None:
    """Copy the starter into the places of a stage, with its name in place of the starter's."""
    starter = root / "starters/stage"
    places = {
        f"test_{STARTER}.py": root / f"tests/stages/test_{name}.py",
        f"{STARTER}.md": root / f"docs/stages/{name}.md",
    }
    for path in sorted(starter.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        inside = path.relative_to(starter).as_posix()
        target = places.get(inside, root / "stages" / name / inside.replace(STARTER, name))
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8").replace(STARTER, name)
        target.write_text(text.replace(STARTER.title(), name.title()), encoding="utf-8")


def main(arguments: list[str], root: Path = ROOT) -> None:
    """Make the stage and print what to do next.

    Raises
    ------
    SystemExit
        With one sentence, if the name cannot be used.
    """
    name = arguments[0] if len(arguments) == 1 else ""
    problem = check_name(name, root)
    if problem:
        sys.exit(f"NAME={name}: {problem} Write, for example: make new-stage NAME=hello")
    make_stage(name, root)
    print(NEXT_STEPS.format(name=name))  # noqa: T201


if __name__ == "__main__":
    main([argument for argument in sys.argv[1:] if argument])
