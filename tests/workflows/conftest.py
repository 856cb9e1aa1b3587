"""A pipeline of real processes: the tiny stage, several times, as a diamond."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hera.workflows import DAG
from rich.console import Console

from contimg_workflows.compiled import Library, Workflow
from contimg_workflows.display import Display
from contimg_workflows.engine import Engine
from contimg_workflows.pipelines import STORE, Pipeline, _finish, _store, _template, artifact
from contimg_workflows.stages import Needs, options_of, stage_template

if TYPE_CHECKING:
    from hera.workflows import WorkflowTemplate

PACKAGES = Path(__file__).parent / "packages"


@pytest.fixture(autouse=True)
def tiny_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGES))


@pytest.fixture
def binaries(tmp_path: Path) -> Path:
    """A folder with the executable contimg-tiny."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "contimg-tiny"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PACKAGES)!r})\nfrom contimg_tiny.__main__ import main\nmain()\n"
    )
    program.chmod(0o755)
    return folder


def tiny_template(deadline_s: int = 60) -> WorkflowTemplate:
    return stage_template("tiny", options_of("tiny"), "0", Needs(deadline_s, "1Gi"))


def diamond() -> WorkflowTemplate:
    """a, then b and c side by side, then d."""
    with _template("diamond", "Diamond", diamond.__doc__) as template:
        pipeline = Pipeline(f"{STORE}/products", [_store()])
        with DAG(name="main") as dag:
            a = stage(pipeline, "a")
            b = stage(pipeline, "b", source=artifact(a))
            c = stage(pipeline, "c", source=artifact(a))
            d = stage(pipeline, "d", source=artifact(b), other=artifact(c))
            a >> [b, c] >> d  # type: ignore[operator]
        _finish(template, dag, pipeline)
    return template


def stage(pipeline: Pipeline, name: str, **wired: str) -> Any:
    """Add the tiny stage under another name, with parameters of that name."""
    wired = {"out": f"{STORE}/{name}", "store": f"{STORE}/marks", "word": name, **wired}
    wired = {"source": "", "other": "", **wired}
    return pipeline.stage("tiny", task=name, **wired)


@pytest.fixture
def library() -> Library:
    return library_of(tiny_template(), diamond())


def library_of(*templates: WorkflowTemplate) -> Library:
    return Library(yaml.safe_load(template.to_yaml()) for template in templates)


class Bench:
    """An engine with a store of its own, and a look at what ran."""

    def __init__(self, folder: Path, binaries: Path, library: Library) -> None:
        self.store, self.runs = folder / "store", folder / "runs"
        self.library, self.said = library, io.StringIO()
        self._binaries = binaries

    def workflow(self, name: str = "one", **settings: str) -> Workflow:
        given = {key.replace("_", "-", 1): value for key, value in settings.items()}
        return self.library.workflow(name, "contimg-diamond", {"store": str(self.store), **given})

    def engine(self, jobs: int = 2) -> Engine:
        engine = Engine(self.runs, self._binaries, os.environ, Display(Console(file=self.said, width=500)), jobs)
        engine.patience = 0.01
        return engine

    def ran(self) -> list[str]:
        """The words of all processes that came to their work, in order of time."""
        marks = [path.name.split(".") for path in (self.store / "marks").glob("*")]
        return [word for word, _, _ in sorted(marks, key=lambda mark: int(mark[1]))]

    def word(self, name: str) -> str:
        (path,) = (self.store / name).glob("*/word.txt")
        return path.read_text()


@pytest.fixture
def bench(tmp_path: Path, binaries: Path, library: Library) -> Bench:
    return Bench(tmp_path, binaries, library)
