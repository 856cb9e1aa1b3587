"""Every stage is made alike: a distribution, a program that answers at once, options that explain themselves, a page."""

from __future__ import annotations

import importlib
import re
import resource
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from contimg.runtime.options import Options, StageOptions, flag, help_text, input_mark
from contimg.runtime.stage import PLACES, StageSpec
from contimg.runtime.versions import tool_version

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
STAGES = sorted(path.parent.name for path in ROOT.glob("stages/*/pyproject.toml"))
COMMANDS_ONLY = {"watch"}
"""Makes records, not artifacts: it keeps the contract by `contimg.runtime.contract.command`."""
AT_ONCE_S = 3.0
"""Seconds of a processor for --help; it takes 0.6 s."""
HEAVY = (
    "numpy",
    "scipy",
    "astropy",
    "numba",
    "h5py",
    "casatools",
    "casatasks",
    "casacore",
    "pyuvdata",
    "matplotlib",
    "hera",
)


def options_module(name: str) -> Any:
    return importlib.import_module(f"contimg_{name}.options")


def models(name: str) -> list[type[Options]]:
    module = options_module(name)
    kinds = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Options)
    ]
    return [kind for kind in kinds if kind.__module__ == module.__name__]


def project(name: str) -> dict[str, Any]:
    whole: dict[str, Any] = tomllib.loads((ROOT / "stages" / name / "pyproject.toml").read_text())
    return whole


def children_s() -> float:
    """Return the seconds of a processor that ended child processes took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def answer(name: str) -> str:
    before = children_s()
    done = subprocess.run(
        [BIN / f"contimg-{name}", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert children_s() - before < AT_ONCE_S
    return done.stdout


def test_there_are_ten() -> None:
    assert len(STAGES) == 10


@pytest.mark.parametrize("name", STAGES)
class TestEveryStage:
    def test_it_is_one_distribution_with_one_program_of_its_name(self, name: str) -> None:
        made = project(name)["project"]
        assert made["name"] == f"contimg-{name}"
        assert made["scripts"] == {f"contimg-{name}": f"contimg_{name}.__main__:main"}
        assert made["description"].endswith(".")
        assert distribution(f"contimg-{name}").version == made["version"]

    def test_it_depends_on_lib_and_on_no_other_stage(self, name: str) -> None:
        ours = [
            item for item in project(name)["project"]["dependencies"] if item.startswith("contimg")
        ]
        assert ours in (["contimg"], ["contimg[ms]"])

    def test_it_is_typed_for_others(self, name: str) -> None:
        assert (ROOT / "stages" / name / f"contimg_{name}" / "py.typed").is_file()

    def test_its_definition_is_of_its_name(self, name: str) -> None:
        if name in COMMANDS_ONLY:
            assert not hasattr(options_module(name), "STAGE")
            return
        stage: StageSpec = options_module(name).STAGE
        assert (stage.name, stage.package, stage.program) == (
            name,
            f"contimg_{name}",
            f"contimg-{name}",
        )
        assert issubclass(stage.options, StageOptions)
        assert stage.version == project(name)["project"]["version"]
        assert find_spec(f"{stage.package}.stage") is not None

    def test_its_tools_are_installed(self, name: str) -> None:
        if name in COMMANDS_ONLY:
            return
        stage: StageSpec = options_module(name).STAGE
        assert {
            tool: tool_version(tool)
            for tool in stage.tools
            if tool_version(tool) in {"absent", "unknown"}
        } == {}
        assert len(set(stage.tools)) == len(stage.tools)

    def test_its_resolver_is_a_function(self, name: str) -> None:
        resolver = "" if name in COMMANDS_ONLY else options_module(name).STAGE.resolver
        if resolver:
            module, _, function = resolver.partition(":")
            assert callable(getattr(importlib.import_module(module), function))

    def test_every_option_explains_itself_in_a_sentence(self, name: str) -> None:
        for model in models(name):
            assert model.__doc__
            assert model.__doc__.strip().endswith(".")
            for field, info in model.model_fields.items():
                assert help_text(info), field
                assert (info.description or "").rstrip().endswith((".", ")")), (
                    f"{field}: {info.description}"
                )

    def test_its_options_are_named_as_on_a_command_line(self, name: str) -> None:
        for model in models(name):
            for field in model.model_fields:
                assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field)

    def test_what_is_a_place_is_no_input(self, name: str) -> None:
        for model in models(name):
            assert not [
                field
                for field, info in model.model_fields.items()
                if field in PLACES and input_mark(info)
            ]

    def test_help_lists_every_option(self, name: str) -> None:
        said = answer(name)
        model = models(name)[0]
        assert said.startswith(f"usage: contimg-{name} ")
        assert [field for field in model.model_fields if flag(field) not in said] == []
        assert " ".join((model.__doc__ or "").split()) in " ".join(said.split())

    def test_it_tells_its_version(
        self, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (program,) = distribution(f"contimg-{name}").entry_points.select(group="console_scripts")
        monkeypatch.setattr(sys, "argv", [program.name, "--version"])
        with pytest.raises(SystemExit) as ended:
            program.load()()
        assert ended.value.code == 0
        assert re.fullmatch(rf"contimg-{name} \d+\.\d+\.\d+\n", capsys.readouterr().out)

    def test_its_options_import_no_science(self, name: str) -> None:
        code = f"import sys, contimg_{name}.options; print(*(m for m in {HEAVY!r} if m in sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.split() == []

    def test_it_has_a_page_of_its_own(self, name: str) -> None:
        page = ROOT / "docs" / f"{name}.md"
        assert page.is_file()
        text = page.read_text()
        assert text.startswith("# ")
        assert (
            f"contimg-{name}" in text or f"`{name}`" in text or name in text.splitlines()[0].lower()
        )

    def test_its_page_invents_no_option(self, name: str) -> None:
        words = set(
            re.findall(
                rf"contimg-{name}((?: --[a-z][a-z-]*(?:[ =][^\s`]+)?)+)",
                (ROOT / "docs" / f"{name}.md").read_text(),
            )
        )
        used = {option for line in words for option in re.findall(r"--([a-z][a-z-]*)", line)}
        known = {field.replace("_", "-") for model in models(name) for field in model.model_fields}
        assert used <= known | {"help", "version"}

    def test_it_has_tests_of_its_own(self, name: str) -> None:
        tests = ROOT / "tests" / "stages"
        assert [*tests.glob(f"test_{name}*.py"), *tests.glob(f"{name}/test_*.py")]
