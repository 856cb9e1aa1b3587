"""What the images are made from, without building one."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from built import TABLE
from contimg.runtime.blas_env import LINEAR_ALGEBRA
from contimg.runtime.versions import PROGRAMS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "images/requirements.py"
LOCK = ROOT / "requirements.lock"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"images/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


strip, kernels = script("strip"), script("kernels")


def ask(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def asked(stage: str) -> list[str]:
    items: list[str] = tomllib.loads((ROOT / "stages" / stage / "pyproject.toml").read_text())[
        "project"
    ]["dependencies"]
    return items


def test_every_stage_has_an_image() -> None:
    assert sorted(TABLE) == sorted(
        path.parent.name for path in ROOT.glob("stages/*/pyproject.toml")
    )


@pytest.mark.parametrize(
    ("stage", "level", "packages"),
    [(stage, level, set(packages)) for stage, (level, *packages) in TABLE.items()],
)
def test_the_table_says_what_the_stage_says(stage: str, level: str, packages: set[str]) -> None:
    definition = getattr(importlib.import_module(f"contimg_{stage}.options"), "STAGE", None)
    assert packages == PROGRAMS & set(definition.tools if definition else ())
    assert (level == "casa") == any(item.startswith("casatools") for item in asked(stage))


@pytest.mark.parametrize("stage", [stage for stage, row in TABLE.items() if row[0] == "casa"])
def test_the_casa_level_holds_nothing_that_one_of_its_stages_does_not_ask_for(stage: str) -> None:
    # The level is what flag asks for.
    assert set(asked("flag")) <= set(asked(stage))


def test_direct_requirements_are_those_of_others_with_the_extras_of_lib() -> None:
    told = ask("direct", "lib", "stages/convert").stdout.split()
    assert "h5py>=3.11" in told
    assert "python-casacore>=3.7" in told
    assert not [item for item in told if item.startswith("contimg")]
    assert not [item for item in ask("direct", "lib").stdout.split() if "casacore" in item]


def test_locked_entries_keep_pin_marker_and_hashes() -> None:
    told = ask("locked", str(LOCK), stdin="numpy==1\nRich\nastropy_iers.data\n").stdout
    heads = re.findall(r"^([a-z0-9-]+)==", told, re.MULTILINE)
    assert sorted(set(heads)) == ["astropy-iers-data", "numpy", "rich"]
    assert told in LOCK.read_text() or all(line in LOCK.read_text() for line in told.splitlines())
    assert told.count("--hash=sha256:") >= 3


def test_a_dependency_that_is_not_locked_stops_the_build() -> None:
    done = ask("locked", str(LOCK), stdin="numpy\nleft-pad\n")
    assert done.returncode == 1
    assert done.stderr.strip() == "requirements.lock lacks left-pad: run `make lock`."


def test_an_unknown_image_is_refused() -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "images/build"), "dish"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "BUILD": "false"},
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "No image is named dish: see images/stages.txt."


def test_what_the_program_is_given() -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "images/build"), "flag"],
        capture_output=True,
        text=True,
        check=True,
        env={
            "PATH": "/usr/bin:/bin",
            "BUILD": "echo",
            "BASE": "debian@sha256:1",
            "REGISTRY": "here/",
        },
    )
    told = done.stdout
    assert told.startswith(". -f images/Containerfile -t here/contimg-flag:")
    assert "--build-arg BASE=debian@sha256:1 " in told
    assert "--build-arg STAGE=flag --build-arg LEVEL=casa --build-arg PACKAGES=aoflagger " in told
    assert "INDEX" not in told
    assert " --label org.opencontainers.image.title=contimg-flag " in told
    assert re.search(r" --label org.opencontainers.image.revision=([0-9a-f]{40}|unknown) ", told)


@pytest.mark.parametrize(
    "path",
    [*sorted(p for p in (ROOT / "images").iterdir() if p.is_file()), ROOT / ".dockerignore"],
    ids=lambda path: path.name,
)
def test_no_registry_is_named(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"\b(docker|quay|ghcr|pypi|pythonhosted)\.(io|org)\b", text)


def elf(*segments: tuple[int, int, int, int]) -> bytes:
    """A 64-bit ELF file with nothing but segments: type, offset, address, alignment."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, len(segments))
    rows = (
        struct.pack("<IIQQQQQQ", kind, 5, offset, address, address, 1, 1, align)
        for kind, offset, address, align in segments
    )
    return bytes(head) + b"".join(rows)


@pytest.mark.parametrize(
    ("segments", "loads"),
    [
        ([(1, 0, 0, 0x1000), (1, 0x2E10, 0x403E10, 0x1000)], True),
        (
            [(1, 0, 0, 0x1000), (1, 0x2E10, 0x403E18, 0x1000)],
            False,
        ),  # what the loader calls not page-aligned
        ([(1, 0x1000, 0x1000, 0)], True),
        ([(4, 0x10, 0x403E18, 0x1000)], True),  # a note is not mapped
    ],
)
def test_a_library_is_sound_if_its_segments_can_be_mapped(
    segments: list[tuple[int, int, int, int]],
    loads: bool,  # noqa: FBT001
) -> None:
    assert strip.sound(elf(*segments)) == loads


@pytest.mark.parametrize(("name", "signatures"), json.loads(kernels.LIST.read_text()).items())
def test_functions_to_compile_are_there_and_their_types_are_understood(
    name: str, signatures: list[Any]
) -> None:
    assert kernels.named(name).py_func.__name__ == name.rsplit(".", 1)[-1]
    assert [
        [kernels.spell(kernels.meant(word)) for word in words] for words in signatures
    ] == signatures


def test_what_was_compiled_is_listed_and_serves_without_compiling_again(tmp_path: Path) -> None:
    """Record, compile for one stage, and call with such arguments: nothing is added to the cache."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    argv = [sys.executable, str(ROOT / "images/kernels.py"), "compile", "flag"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    found = kernels.signatures(tmp_path)
    assert done.stdout == f"{len(found)} functions compiled\n"
    listed = json.loads(kernels.LIST.read_text())
    assert found == {name: listed[name] for name in found}
    assert kernels.text(listed) == kernels.LIST.read_text()
    before = sorted(tmp_path.rglob("*.nbc"))
    work = "import numpy as np; from contimg_flag.steps import flag_zeros; flag_zeros(np.ones((1, 2, 2), 'c8'), np.zeros((1, 2, 2), bool))"
    subprocess.run([sys.executable, "-c", work], env=env, check=True)
    assert sorted(tmp_path.rglob("*.nbc")) == before != []


def test_linear_algebra_in_an_image_rounds_as_elsewhere() -> None:
    recipe = (ROOT / "images/Containerfile").read_text()
    assert {
        name: value
        for name in LINEAR_ALGEBRA
        for value in re.findall(rf"^    {name}=(\S+)", recipe, re.MULTILINE)
    } == LINEAR_ALGEBRA


def test_a_type_without_a_word_is_named() -> None:
    from numba import types

    with pytest.raises(TypeError, match="unicode_type"):
        kernels.spell(types.unicode_type)


@pytest.mark.skipif(not shutil.which("strip"), reason="needs binutils")
@pytest.mark.parametrize("pattern", ["kiwisolver/_cext*.so", "numpy.libs/libscipy_openblas*.so"])
def test_a_stripped_library_still_loads(tmp_path: Path, pattern: str) -> None:
    original = next(Path(np.__file__).parents[1].glob(pattern))
    copy = Path(shutil.copy(original, tmp_path))
    saved = strip.strip(copy)
    assert copy.stat().st_size + saved == original.stat().st_size
    assert os.access(copy, os.X_OK) == os.access(original, os.X_OK)
    assert list(tmp_path.iterdir()) == [copy]
    loaded = subprocess.run(
        ["ldd", str(copy)],
        capture_output=True,
        text=True,
        check=True,
        env={"LD_LIBRARY_PATH": str(original.parent)},
    )
    assert "not found" not in loaded.stdout
    assert (saved > 1_000_000) == pattern.startswith(
        "kiwi"
    )  # auditwheel's libraries stay as they are
