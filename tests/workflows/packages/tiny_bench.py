"""A pipeline of real processes: the tiny stage four times, as a diamond."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from contimg_tiny.options import spec
from rich.console import Console

from contimg.runtime.command import Command
from contimg.runtime.contract import run_command
from contimg.runtime.options import Options
from contimg.runtime.pipeline import Pipeline, Step
from contimg_workflows.display import Display
from contimg_workflows.engine import Engine
from contimg_workflows.tasks import LocalWorkflow, steps_workflow

PACKAGES = Path(__file__).parent
NAMES = "abcd"


def diamond(deadline_s: int = 60) -> Pipeline:
    """a, then b and c side by side, then d."""
    inputs = {"b": {"source": "a"}, "c": {"source": "a"}, "d": {"source": "b", "other": "c"}}
    steps = [
        Step(name, inputs=inputs.get(name, {}), fixed={"store": "{store}/marks", "word": name})
        for name in NAMES
    ]
    pipeline = Pipeline(
        name="diamond",
        title="Diamond",
        description="",
        subject="",
        products="products",
        parameters=(),
        steps=tuple(steps),
    )
    # The stages are not installed.
    vars(pipeline)["specs"] = {name: spec(name, deadline_s) for name in NAMES}
    return pipeline


def binaries(folder: Path) -> Path:
    """Make a folder with the executables of the steps."""
    folder.mkdir()
    for name in NAMES:
        program = folder / f"contimg-{name}"
        lines = [
            f"#!{sys.executable}",
            "import sys",
            f"sys.path.insert(0, {str(PACKAGES)!r})",
            "from contimg_tiny.__main__ import main",
            "main()",
        ]
        program.write_text("\n".join(lines))
        program.chmod(0o755)
    return folder


class Bench:
    """An engine with a store of its own, and a look at what ran."""

    def __init__(self, folder: Path, deadline_s: int = 60) -> None:
        self.store, self.runs = folder / "store", folder / "runs"
        self.pipeline, self.said = diamond(deadline_s), io.StringIO()
        self.binaries = folder / "bin"
        if not self.binaries.exists():
            binaries(self.binaries)

    def workflow(self, name: str = "one", store: str = "", **settings: str) -> LocalWorkflow:
        """Make a diamond; a setting b_do="data" is the option `do` of the step b."""
        document: dict[str, dict[str, str]] = {}
        for key, value in settings.items():
            stage, _, option = key.partition("_")
            document.setdefault(stage, {})[option] = value
        given = {"store": store or str(self.store / name)}
        return steps_workflow(name, self.pipeline, given, json.dumps(document))

    def engine(self, jobs: int = 2, display: Display | None = None) -> Engine:
        display = display or Display(Console(file=self.said, width=500))
        engine = Engine(self.runs, self.binaries, os.environ, display, jobs)
        engine.wait_factor = 0.01
        return engine

    def ran(self, name: str = "one") -> list[str]:
        """Return the words of all processes that came to their work, in order of time."""
        marks = [path.name.split(".") for path in (self.store / name / "marks").glob("*")]
        return [word for word, _, _ in sorted(marks, key=lambda mark: int(mark[1]))]

    def mark(self, task: str, name: str = "one") -> str:
        """Return the pattern of the files that are there once a task came to its work."""
        return str(self.store / name / "marks" / f"{task}.*")

    def pids(self, name: str = "one") -> list[int]:
        return [int(path.name.split(".")[2]) for path in (self.store / name / "marks").glob("*")]

    def word(self, task: str, name: str = "one") -> str:
        (path,) = (self.store / name / "products" / task).glob("*/word.txt")
        return path.read_text()

    def made(self, name: str = "one") -> set[str]:
        """Return the tasks whose artifacts exist."""
        return {path.parts[-3] for path in (self.store / name).glob("*/*/*/manifest.json")}


class DriveOptions(Options):
    """Run a diamond in a process of its own, which tests may kill."""

    folder: str
    """Folder of the bench."""
    settings: str = "{}"
    """JSON of the workflow's settings."""


def drive(options: DriveOptions, _console: Any, _env: Any) -> dict[str, Any]:
    bench = Bench(Path(options.folder))
    (state,) = bench.engine().run([bench.workflow(**json.loads(options.settings))])
    return {"status": state.status.value}


if __name__ == "__main__":
    sys.exit(run_command(Command(name="drive", options=DriveOptions, run="__main__:drive")))
