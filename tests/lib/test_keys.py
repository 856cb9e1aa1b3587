"""Keys hash the code that a stage can reach, and nothing else."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import grimp
import pytest

from contimg.runtime import versions
from contimg.runtime.stage import StageSpec, stage_specs
from contimg.runtime.versions import code_digest, tool_version

Copy = Callable[[str], Path]
SPECS = stage_specs()
PINNED = "eaf1afa995d8fb1ffd2b20a1b4f048bac8e1ab721e8cd6f42095828465369700"
TEXT = re.compile(r"\"(contimg_?\w*(?:\.\w+)*):\w+\"")
"""A function that a child process or a resolver is given."""
CACHES = (versions.module_path, versions.code_digest, versions._read_module)  # noqa: SLF001


@pytest.fixture(autouse=True)
def _caches_are_cleared() -> Iterator[None]:
    yield
    clear_caches()


def clear_caches() -> None:
    for cached in CACHES:
        cached.cache_clear()


def keys() -> dict[str, str]:
    """Return the key of each installed stage for its default options, with caches cleared."""
    clear_caches()
    return {name: spec.key(spec.options.model_construct(), ()) for name, spec in SPECS.items()}


def changed(before: dict[str, str]) -> set[str]:
    return {name for name, key in keys().items() if key != before[name]}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Return a function that makes keys read a copy of a package; it returns the copy."""
    copies: dict[str, ModuleSpec] = {}
    monkeypatch.setattr(versions, "find_spec", lambda name: copies.get(name) or find_spec(name))

    def make(package: str) -> Path:
        source, folder = find_spec(package), tmp_path / package
        assert source is not None
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(source.origin or "").parent, folder, ignore=ignore)
        copies[package] = ModuleSpec(package, None, origin=str(folder / "__init__.py"))
        return folder

    return make


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


class TestInstalledStages:
    def test_words_and_layout_leave_keys(self, copy: Copy) -> None:
        before = keys()
        lib = copy("contimg")
        for path in lib.rglob("*.py"):
            words = '"""Another docstring."""\n\n# A comment.\n'
            path.write_text(f"{words}{path.read_text()}\n\n")
        constants = lib / "astro" / "constants.py"
        constants.write_text(constants.read_text() + '"""Of the constant above."""\n')
        edit(lib / "runtime" / "tar.py", '"""Folders (', '"""Directories (')
        edit(lib / "astro" / "constants.py", "299_792_458.0", "299792458.0")
        assert changed(before) == set()

    @pytest.mark.parametrize(
        ("file", "old", "new"),
        [
            ("runtime/store.py", "1 << 20", "1 << 21"),
            ("runtime/child.py", '"Haswell"', '"Zen"'),
            ("records/flagfile.py", "ZSTD_LEVEL = 3", "ZSTD_LEVEL = 4"),
            ("records/strips.py", "STRIP_GAP_DEG = 0.25", "STRIP_GAP_DEG = 0.5"),
            ("astro/gains.py", "SAME_TIME_S = 1e-3", "SAME_TIME_S = 2e-3"),
            ("astro/predict.py", "CHANNEL_BLOCK = 96", "CHANNEL_BLOCK = 48"),
            ("astro/standards.py", "1.3253 -0.7553", "1.3254 -0.7553"),
            ("records/schemas/photometry.py", "version=1", "version=2"),
        ],
    )
    def test_constant_changes_keys_that_reach_it(
        self, copy: Copy, file: str, old: str, new: str
    ) -> None:
        before = keys()
        edit(copy("contimg") / file, old, new)
        module = f"contimg.{file.removesuffix('.py').replace('/', '.')}"
        always = module in {"contimg.runtime.child", "contimg.runtime.store"}
        expected = {name for name, spec in SPECS.items() if always or reaches(spec, module)}
        assert changed(before) == expected
        assert expected or module == "contimg.records.strips"
        assert expected != set(SPECS) or module.startswith("contimg.runtime.")

    @pytest.mark.parametrize("name", ["flag", "photometry"])
    def test_stage_code_changes_its_own_key_only(self, copy: Copy, name: str) -> None:
        before = keys()
        module = copy(f"contimg_{name}") / "stage.py"
        module.write_text(module.read_text() + "\nCHANGED = 1\n")
        assert changed(before) == {name}

    def test_key_needs_no_other_stage_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before, alone = keys()["flag"], {"contimg", "contimg_flag"}
        find = lambda name: find_spec(name) if name in alone else None  # noqa: E731
        monkeypatch.setattr(versions, "find_spec", find)
        clear_caches()
        spec = SPECS["flag"]
        assert spec.key(spec.options.model_construct(), ()) == before


@functools.cache
def import_graph() -> grimp.ImportGraph:
    packages = {"contimg", *(spec.package.partition(".")[0] for spec in SPECS.values())}
    return grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)


def reaches(spec: StageSpec, module: str) -> bool:
    """Say by import-linter's graph, instead of our own, whether a stage can reach a module."""
    graph = import_graph()
    waiting = [f"{spec.package}.stage", spec.options.__module__, spec.resolver.partition(":")[0]]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name and name not in found and name in graph.modules:
            found.add(name)
            path = versions.module_path(name)
            waiting += graph.find_modules_directly_imported_by(name)
            waiting += TEXT.findall(path.read_text() if path else "")
    return module in found


class TestReach:
    """What is followed, on a package made for it."""

    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        name = f"reach_{tmp_path.name}".replace("-", "_")
        folder = tmp_path / name
        (folder / "sub" / "data").mkdir(parents=True)
        files = {
            "__init__.py": "",
            "stage.py": "from .near import a\ndef run():\n    import NAME.late\n",
            "near.py": "a = 1\n",
            "late.py": "from NAME import sub\nb = 2\nCHILD = 'NAME.child:work'\n",
            "child.py": "def work(): return 3\n",
            "typed.py": "c = 4\n",
            "other.py": "d = 5\n",
            "sub/__init__.py": "if TYPE_CHECKING:\n    from NAME.typed import c\n",
            "sub/data/table.csv": "1,2\n",
        }
        for path, text in files.items():
            (folder / path).write_text(text.replace("NAME", name))
        monkeypatch.syspath_prepend(str(tmp_path))
        return folder

    def digest(self, package: Path) -> str:
        clear_caches()
        return code_digest(f"{package.name}.stage")

    REACHED = "stage near late child sub/__init__ __init__"
    OTHER = "typed.py other.py __pycache__/near.pyc sub/data/.table.csv.swp"

    @pytest.mark.parametrize(
        ("file", "counts"),
        [
            *((f"{name}.py", True) for name in REACHED.split()),
            ("sub/data/table.csv", True),
            *((name, False) for name in OTHER.split()),
        ],
    )
    def test_reached_files_count(self, package: Path, file: str, *, counts: bool) -> None:
        before = self.digest(package)
        (package / file).parent.mkdir(exist_ok=True)
        with (package / file).open("a") as stream:
            stream.write("\nmore = 1\n")
        assert (self.digest(package) != before) == counts

    @pytest.mark.parametrize(
        ("text", "counts"),
        [
            ('"""Words."""\na = 1\n"""Of a."""\n', False),
            ("a = (\n    1  # one\n)\n", False),
            ("a = 2\n", True),
            ("b = 1\n", True),
            ("a = 1\nb = 1\n", True),
            ("a = '1'\n", True),
        ],
    )
    def test_only_code_counts(self, package: Path, text: str, *, counts: bool) -> None:
        before = self.digest(package)
        (package / "near.py").write_text(text)
        assert (self.digest(package) != before) == counts

    def test_moved_code_counts(self, package: Path) -> None:
        before = self.digest(package)
        (package / "near.py").write_text("")
        (package / "late.py").write_text((package / "late.py").read_text() + "a = 1\n")
        assert self.digest(package) != before

    def test_absent_module_is_named(self, package: Path) -> None:
        with pytest.raises(ModuleNotFoundError, match="absent"):
            code_digest(f"{package.name}.absent")
        with pytest.raises(ModuleNotFoundError, match="no_such_package"):
            code_digest("no_such_package.stage")

    def test_python_versions_agree(self, package: Path) -> None:
        """Pin the digest: an interpreter whose syntax trees differ would make other keys."""
        assert package
        path = package / "pinned.py"
        code = "return {**x, 'a': [y for y in x if y]}, f'{x!r:>{y}}', not x"
        path.write_text(f"def f(x=1, *, y: int):\n    {code}\n")
        digest, _ = versions._read_module("pinned", path)  # noqa: SLF001
        assert digest == PINNED


class TestTools:
    def test_programs_and_distributions_have_versions(self) -> None:
        assert tool_version("numpy")[0].isdigit()
        assert tool_version("no-such-distribution") == "absent"
        for program, word in (("wsclean", "WSClean"), ("aoflagger", "AOFlagger")):
            assert word in tool_version(program)
            assert "3." in tool_version(program)
            assert "\n" not in tool_version(program)

    def test_missing_program_is_absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        assert tool_version.__wrapped__("wsclean") == "absent"
