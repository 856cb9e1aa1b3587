"""A new stage, made in a copy of the repository by the documented steps."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from chain import ENVIRONMENT, ROOT, Chain

NAME = "hello"
STEP = 'Step("hello", inputs={"image": "image"}),'
REPORT = 'Step("report", inputs={"artifacts": ALL_OTHERS}),'
COPY = ROOT / ".cache/new-stage"
"""On the disk of uv's cache, so that packages are linked and not copied."""


def run(argv: Sequence[str | Path], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("MAKE")}
    env = clean | env
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def succeed(*argv: str | Path, cwd: Path) -> str:
    done = run(argv, cwd)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Hello", "lower-case letters and digits only"),
        ("hello_world", "lower-case letters and digits only"),
        ("9lives", "begins with a letter"),
        ("../x", "lower-case letters and digits only"),
        ("", "lower-case letters and digits only"),
        ("flag", "This name is taken: stages/flag exists."),
        ("epoch", "This name is taken: charts/contimg/rendered/contimg-epoch.yaml exists."),
        ("sweep", "This name is taken: charts/contimg/rendered/contimg-sweep.yaml exists."),
        ("a" * 21, "at most 20 letters"),
        ("runs", "This name is taken: runs/contimg_runs exists."),
        ("starter", "This name is taken: starters/stage exists."),
    ],
)
def test_unusable_name_is_refused_with_one_sentence(name: str, problem: str) -> None:
    done = run([sys.executable, "scripts/new_stage.py", name], ROOT)
    assert done.returncode == 1
    assert done.stdout == ""
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("guilty", [True, False])
def test_new_stage_that_imports_a_stage_fails_lint(tmp_path: Path, guilty: bool) -> None:  # noqa: FBT001
    for name in ("first", "second"):
        package = tmp_path / f"stages/{name}/contimg_{name}"
        package.mkdir(parents=True)
        (package.parent / "pyproject.toml").touch()
        (package / "__init__.py").touch()
    imported = "contimg_first" if guilty else "contimg.runtime.stage"
    (package / "stage.py").write_text(f"import {imported}\n")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/imports.py", tmp_path / "scripts")
    config = succeed(sys.executable, "scripts/imports.py", cwd=tmp_path)
    (tmp_path / "importlinter.toml").write_text(config)
    path = os.pathsep.join(str(folder) for folder in (tmp_path / "stages").iterdir())
    linter = Path(sys.executable).parent / "lint-imports"
    done = run([linter, "--no-cache", "--config", "importlinter.toml"], tmp_path, PYTHONPATH=path)
    assert done.returncode == int(guilty), done.stdout + done.stderr
    assert ("contimg_second is not allowed to import contimg_first" in done.stdout) == guilty


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """A copy of the repository with the stage, installed."""
    shutil.rmtree(COPY, ignore_errors=True)
    names = succeed("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, COPY / name)
    succeed("git", "init", "--quiet", cwd=COPY)  # ruff would ignore it as a part of .cache/
    # Tests of the copy find the simulated group made; keys see to it that changed code is noticed.
    (COPY / ".cache").mkdir()
    (COPY / ".cache/chain").symlink_to(ROOT / ".cache/chain")
    said = succeed("make", "new-stage", f"NAME={NAME}", cwd=COPY)
    assert STEP in said
    assert "make render" in said
    pipelines = COPY / "runs/contimg_runs/pipelines.py"
    text = pipelines.read_text()
    assert text.count(REPORT) == 2
    pipelines.write_text(text.replace(REPORT, f"{STEP}\n        {REPORT}", 1))
    succeed("make", ".venv/.made", f"PYTHON={sys.executable}", cwd=COPY)
    yield COPY
    shutil.rmtree(COPY)


@pytest.mark.slow
class TestHello:
    """In this order: each step of the page how-to/add-a-stage."""

    def test_render_writes_its_template_and_step(self, copy: Path) -> None:
        succeed("make", "render", cwd=copy)
        rendered = copy / "charts/contimg/rendered"
        assert (rendered / f"contimg-{NAME}.yaml").is_file()
        assert f"contimg-{NAME}" in (rendered / "contimg-process-group.yaml").read_text()

    def test_lint_passes(self, copy: Path) -> None:
        succeed("make", "lint", cwd=copy)

    def test_its_own_tests_pass(self, copy: Path, small_chain: Chain) -> None:
        assert small_chain.image
        argv = [copy / ".venv/bin/python", "-m", "pytest", "-q", f"tests/stages/test_{NAME}.py"]
        assert "passed" in succeed(*argv, cwd=copy)

    def test_house_rules_hold(self, copy: Path) -> None:
        argv = [copy / ".venv/bin/python", "-m", "pytest", "-q", "tests/house", "-m", "not slow"]
        assert "passed" in succeed(*argv, cwd=copy)

    def test_its_page_has_its_options(self, copy: Path) -> None:
        succeed("make", "docs", cwd=copy)
        assert "--min-snr" in (copy / f".cache/site/stages/{NAME}.html").read_text()

    def test_group_runs_and_reprocess_starts_from_it(
        self, copy: Path, small_chain: Chain, tmp_path: Path
    ) -> None:
        store, group = tmp_path / "store", small_chain.group_id
        assert small_chain.image
        for folder in ("incoming", "groups", "products"):
            shutil.copytree(small_chain.store / folder, store / folder)
        contimg = [copy / ".venv/bin/contimg"]
        options = ["--store", store, "--config", f"{{image: {{tier: {small_chain.tier}}}}}"]
        run_group = ["run", "process-group", "--group", group]
        succeed(*contimg, *run_group, *options, cwd=tmp_path)
        (made,) = (store / "products" / group / NAME).glob(f"*/{NAME}.json")
        assert json.loads(made.read_text())["group"] == group
        (page,) = (store / "products" / group / "report").glob("*/report.html")
        assert NAME in page.read_text()

        images = sorted((store / "products" / group / "image").glob("*/manifest.json"))
        again = ["reprocess", group, "--from", NAME, "--wait", "--store", store]
        again += ["--config", f"{{{NAME}: {{min_snr: 7}}, image: {{tier: {small_chain.tier}}}}}"]
        succeed(*contimg, *again, cwd=tmp_path)
        assert len(list((store / "products" / group / NAME).glob(f"*/{NAME}.json"))) == 2
        assert sorted((store / "products" / group / "image").glob("*/manifest.json")) == images
