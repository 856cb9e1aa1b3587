"""All stages are alike: a distribution, a program, documented options, a page, tests."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from contimg.runtime.options import Options, flag, input_mark
from contimg.runtime.stage import PLACES, stage_specs
from contimg.runtime.versions import tool_version

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in ROOT.glob("stages/*/pyproject.toml"))
HEAVY = ["numpy", "scipy", "astropy", "numba", "h5py", "pyuvdata", "matplotlib", "hera"]
HEAVY += ["casatools", "casatasks", "casacore"]
HELP = f"""
import json, sys
sys.argv[1:] = ["--help"]
from contimg_NAME.__main__ import main
try:
    main()
except SystemExit:
    print(json.dumps([module for module in {HEAVY} if module in sys.modules]), file=sys.stderr)
"""
"""Prints the help, and to stderr which heavy modules that imported."""


def models(name: str) -> list[type[Options]]:
    module = importlib.import_module(f"contimg_{name}.options")
    kinds = [value for value in vars(module).values() if isinstance(value, type)]
    return [k for k in kinds if issubclass(k, Options) and k.__module__ == module.__name__]


def read_project(name: str) -> Any:
    return tomllib.loads((ROOT / "stages" / name / "pyproject.toml").read_text())["project"]


def test_specs_are_those_of_the_folders() -> None:
    # A folder without a spec is a service: it has a program, but makes no artifact.
    assert set(stage_specs()) <= set(NAMES)
    assert len(set(NAMES) - set(stage_specs())) <= 1


@pytest.mark.parametrize("name", NAMES)
class TestEveryStage:
    def test_distribution_has_one_program(self, name: str) -> None:
        project = read_project(name)
        assert project["name"] == f"contimg-{name}"
        assert project["scripts"] == {f"contimg-{name}": f"contimg_{name}.__main__:main"}
        assert project["description"].endswith(".")
        assert distribution(f"contimg-{name}").version == project["version"]
        assert (ROOT / "stages" / name / f"contimg_{name}" / "py.typed").is_file()

    def test_distribution_depends_on_no_stage(self, name: str) -> None:
        project = read_project(name)
        needs = {re.split(r"[\[><=]", item)[0] for item in project["dependencies"]}
        assert "contimg" in needs
        assert not needs & {f"contimg-{other}" for other in NAMES}

    def test_spec_is_complete(self, name: str) -> None:
        spec = stage_specs().get(name)
        if spec is None:
            return
        assert spec.version == read_project(name)["version"]
        assert find_spec(f"{spec.package}.stage") is not None
        assert len(set(spec.tools)) == len(spec.tools)
        absent = [tool for tool in spec.tools if tool_version(tool) in {"absent", "unknown"}]
        assert absent == []
        if spec.resolver:
            module, _, function = spec.resolver.partition(":")
            assert callable(getattr(importlib.import_module(module), function))

    def test_options_explain_themselves(self, name: str) -> None:
        for model in models(name):
            assert (model.__doc__ or "").strip().endswith(".")
            for field, info in model.model_fields.items():
                assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field)
                assert (info.description or "").rstrip().endswith((".", ")")), field
                assert not (field in PLACES and input_mark(info)), "a place is not an input"

    def test_help_lists_options_without_heavy_imports(self, name: str) -> None:
        argv = [sys.executable, "-c", HELP.replace("NAME", name)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(done.stderr) == []
        model = models(name)[0]
        assert [field for field in model.model_fields if flag(field) not in done.stdout] == []
        assert " ".join((model.__doc__ or "").split()) in " ".join(done.stdout.split())

    def test_version_is_printed(self, name: str, capsys: Any, monkeypatch: Any) -> None:
        (program,) = distribution(f"contimg-{name}").entry_points.select(group="console_scripts")
        monkeypatch.setattr(sys, "argv", [program.name, "--version"])
        with pytest.raises(SystemExit) as ended:
            program.load()()
        assert ended.value.code == 0
        assert re.fullmatch(rf"contimg-{name} \d+\.\d+\.\d+\n", capsys.readouterr().out)

    def test_page_and_tests_exist(self, name: str) -> None:
        page = (ROOT / "docs/stages" / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n")
        assert f"contimg-{name}" in page
        tests = ROOT / "tests/stages"
        assert [*tests.glob(f"test_{name}*.py"), *tests.glob(f"{name}/test_*.py")]
