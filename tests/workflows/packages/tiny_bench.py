"""A pipeline of real processes: the tiny stage, several times, as a diamond."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hera.workflows import DAG
from rich.console import Console

from contimg.runtime.contract import command
from contimg.runtime.options import Options
from contimg_workflows.compiled import Library, Workflow
from contimg_workflows.display import Display
from contimg_workflows.engine import Engine
from contimg_workflows.pipelines import STORE, Pipeline, artifact, finish
from contimg_workflows.runs import pipeline_template, store_parameter
from contimg_workflows.stages import Needs, options_of, stage_template

if TYPE_CHECKING:
    from hera.workflows import Task, WorkflowTemplate

PACKAGES = Path(__file__).parent


def binaries(folder: Path) -> Path:
    """Make a folder with the executable contimg-tiny."""
    folder.mkdir()
    program = folder / "contimg-tiny"
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


def tiny_template(deadline_s: int = 60) -> WorkflowTemplate:
    return stage_template("tiny", options_of("tiny"), "0", Needs(deadline_s, 1024))


def diamond() -> WorkflowTemplate:
    """a, then b and c side by side, then d."""
    with pipeline_template("diamond", "Diamond", diamond.__doc__, recorded=False) as template:
        pipeline = Pipeline(f"{STORE}/products", [store_parameter()])
        with DAG(name="main") as dag:
            a = _tiny(pipeline, "a")
            b = _tiny(pipeline, "b", source=artifact(a))
            c = _tiny(pipeline, "c", source=artifact(a))
            d = _tiny(pipeline, "d", source=artifact(b), other=artifact(c))
            a >> [b, c] >> d  # type: ignore[operator]
        finish(template, dag, pipeline)
    return template


def _tiny(pipeline: Pipeline, name: str, **wired: str) -> Task:
    """Add the tiny stage under another name; its products and marks lie apart."""
    places = {
        "out": f"{STORE}/{name}",
        "store": f"{STORE}/marks",
        "word": name,
        "source": "",
        "other": "",
    }
    return pipeline.stage("tiny", task=name, **{**places, **wired})


def library_of(*templates: WorkflowTemplate) -> Library:
    return Library(yaml.safe_load(template.to_yaml()) for template in templates)


class Bench:
    """An engine with a store of its own, and a look at what ran."""

    def __init__(self, folder: Path, deadline_s: int = 60) -> None:
        self.store, self.runs = folder / "store", folder / "runs"
        self.library, self.said = library_of(tiny_template(deadline_s), diamond()), io.StringIO()
        self._binaries = folder / "bin"
        if not self._binaries.exists():
            binaries(self._binaries)

    def workflow(self, name: str = "one", **settings: str) -> Workflow:
        """Make a diamond; a setting b_do="data" is the option `do` of the task b."""
        given = {key.replace("_", "-", 1): value for key, value in settings.items()}
        return self.library.workflow(
            name, "contimg-diamond", {"store": str(self.store / name), **given}
        )

    def engine(self, jobs: int = 2, display: Display | None = None) -> Engine:
        display = display or Display(Console(file=self.said, width=500))
        engine = Engine(self.runs, self._binaries, os.environ, display, jobs)
        engine.patience = 0.01
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
        (path,) = (self.store / name / task).glob("*/word.txt")
        return path.read_text()

    def made(self, name: str = "one") -> set[str]:
        """Return the tasks whose artifacts exist."""
        return {path.parts[-3] for path in (self.store / name).glob("*/*/manifest.json")}


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
    sys.exit(command("drive", DriveOptions, drive))
