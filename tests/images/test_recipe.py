"""What the images are made from, without building one."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import kernels
import strip
from built import RECIPES
from contimg.runtime.child import LINEAR_ALGEBRA
from contimg.runtime.stage import stage_specs
from contimg.runtime.versions import PROGRAMS

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
CASA = [name for name, recipe in RECIPES.items() if recipe.level == "casa"]


def ask(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "images/requirements.py", *arguments]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT)


def build(*names: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Call images/build with a builder that prints its arguments, unless `env` has another."""
    known = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "BUILD": "echo"}
    argv, env = ["sh", "images/build", *names], known | env
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=env)


def asked(stage: str) -> set[str]:
    text = (ROOT / "stages" / stage / "pyproject.toml").read_text()
    return set(tomllib.loads(text)["project"]["dependencies"])


def test_every_folder_of_stages_has_an_image() -> None:
    folders = sorted(path.parent.name for path in ROOT.glob("stages/*/pyproject.toml"))
    assert sorted(RECIPES) == folders
    assert len(build().stdout.splitlines()) == len(folders)


def test_spec_names_programs_and_level() -> None:
    for name, spec in stage_specs().items():
        assert set(spec.debian_packages) == PROGRAMS & set(spec.tools)
        needs_casa = any(item.startswith("casatools") for item in asked(name))
        assert (spec.image_level == "casa") == needs_casa


@pytest.mark.parametrize("stage", CASA)
def test_casa_level_holds_only_what_stages_need(stage: str) -> None:
    # The level is what flag asks for.
    assert asked("flag") <= asked(stage)


def test_watch_holds_runs_and_the_specs_of_all_stages() -> None:
    watch = RECIPES["watch"]
    assert watch.projects.split() == ["lib", "runs", "stages/watch"]
    assert watch.specs.split() == [f"stages/{name}" for name in stage_specs()]
    assert {recipe.specs for name, recipe in RECIPES.items() if name != "watch"} == {""}


def test_licenses_name_what_is_under_the_gpl() -> None:
    for name, recipe in RECIPES.items():
        expected = name in CASA or "wsclean" in recipe.packages or "aoflagger" in recipe.packages
        assert (" GPL-" in recipe.licenses) == expected
        assert recipe.licenses.startswith("BSD-3-Clause")
    assert "GPL-3.0-or-later" in RECIPES["image"].licenses
    assert RECIPES["convert"].licenses == "BSD-3-Clause AND LGPL-3.0-or-later"


def test_direct_requirements_include_extras_of_lib() -> None:
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


def test_unlocked_dependency_stops_build() -> None:
    done = ask("locked", str(LOCK), stdin="numpy\nleft-pad\n")
    assert done.returncode == 1
    assert done.stderr.strip() == "requirements.lock lacks left-pad: run `make lock`."


def test_unknown_image_is_refused() -> None:
    done = build("dish")
    assert done.returncode == 1
    assert done.stderr.startswith("There is no image 'dish'. The images are calibrate, convert, ")


@pytest.mark.parametrize(
    ("registry", "prefix"),
    [("", ""), *((f"example.org/contimg{end}", "example.org/contimg/") for end in ("", "/"))],
)
def test_registry_goes_before_the_name(registry: str, prefix: str) -> None:
    argv = ["make", "--no-print-directory", "images", "ONLY=watch", "VERSION=7", "BUILD=echo"]
    argv += [f"REGISTRY={registry}", f"BIN={Path(sys.executable).parent}", "-o", ".venv/.made"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    assert f" -t {prefix}contimg-watch:7 " in done.stdout


def test_builder_gets_base_arguments_and_labels() -> None:
    done = build("flag", BASE="debian@sha256:1")
    words = done.stdout
    assert words.startswith(". -f images/Containerfile -t contimg-flag:")
    assert "--build-arg BASE=debian@sha256:1 " in words
    named = "--build-arg STAGE=flag --build-arg LEVEL=casa --build-arg PROJECTS=lib stages/flag "
    assert named in words
    assert "--build-arg PACKAGES=aoflagger " in words
    assert "INDEX" not in words
    label = "--label org.opencontainers.image"
    assert f" {label}.title=contimg-flag " in words
    assert f" {label}.licenses=BSD-3-Clause AND GPL-2.0-or-later AND GPL-3.0-or-later " in words
    assert re.search(rf" {label}.revision=([0-9a-f]{{40}}|unknown) ", words)


def test_failed_build_fails() -> None:
    assert build("flag", BUILD="false").returncode != 0


def test_no_registry_is_named() -> None:
    for path in [*(p for p in (ROOT / "images").iterdir() if p.is_file()), ROOT / ".dockerignore"]:
        text = path.read_text()
        assert "://" not in text
        assert not re.search(r"\b(docker|quay|ghcr|pypi|pythonhosted)\.(io|org)\b", text)


def elf(*segments: tuple[int, int, int, int]) -> bytes:
    """A 64-bit ELF file with nothing but segments: type, offset, address, alignment."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, len(segments))
    for kind, offset, address, align in segments:
        head += struct.pack("<IIQQQQQQ", kind, 5, offset, address, address, 1, 1, align)
    return bytes(head)


def test_library_is_sound_if_its_segments_can_be_mapped() -> None:
    text = (1, 0, 0, 0x1000)
    assert strip.is_loadable(elf(text, (1, 0x2E10, 0x403E10, 0x1000)))
    assert not strip.is_loadable(elf(text, (1, 0x2E10, 0x403E18, 0x1000)))  # "not page-aligned"
    assert strip.is_loadable(elf((1, 0x1000, 0x1000, 0)))
    assert strip.is_loadable(elf((4, 0x10, 0x403E18, 0x1000)))  # a note is not mapped


def test_functions_to_compile_exist_with_known_types() -> None:
    for name, signatures in json.loads(kernels.LIST.read_text()).items():
        assert kernels.import_name(name).py_func.__name__ == name.rsplit(".", 1)[-1]
        for words in signatures:
            assert [kernels.write_type(kernels.read_type(word)) for word in words] == words


def test_compiled_functions_are_listed_and_used(tmp_path: Path) -> None:
    """Compile for one stage, then call with such arguments: the cache stays the same."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    argv = [sys.executable, str(ROOT / "images/kernels.py"), "compile", "flag"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    found = kernels.read_signatures(tmp_path)
    assert done.stdout == f"{len(found)} functions compiled\n"
    listed = json.loads(kernels.LIST.read_text())
    assert found == {name: listed[name] for name in found}
    assert kernels.format_list(listed) == kernels.LIST.read_text()
    before = sorted(tmp_path.rglob("*.nbc"))
    work = "import numpy as np; from contimg_flag.steps import flag_zeros; "
    work += "flag_zeros(np.ones((1, 2, 2), 'c8'), np.zeros((1, 2, 2), bool))"
    subprocess.run([sys.executable, "-c", work], env=env, check=True)
    assert sorted(tmp_path.rglob("*.nbc")) == before != []


def test_linear_algebra_rounds_in_an_image_as_elsewhere() -> None:
    recipe = (ROOT / "images/Containerfile").read_text()
    found = dict(re.findall(r"^    (\w+)=(\S+)", recipe, re.MULTILINE))
    assert {name: found.get(name) for name in LINEAR_ALGEBRA} == LINEAR_ALGEBRA


def test_unknown_type_is_named_in_the_error() -> None:
    from numba import types

    with pytest.raises(TypeError, match="unicode_type"):
        kernels.write_type(types.unicode_type)


@pytest.mark.skipif(not shutil.which("strip"), reason="needs binutils")
@pytest.mark.parametrize("pattern", ["kiwisolver/_cext*.so", "numpy.libs/libscipy_openblas*.so"])
def test_stripped_library_still_loads(tmp_path: Path, pattern: str) -> None:
    original = next(Path(np.__file__).parents[1].glob(pattern))
    copy = Path(shutil.copy(original, tmp_path))
    saved = strip.strip_file(copy)
    assert copy.stat().st_size + saved == original.stat().st_size
    assert os.access(copy, os.X_OK) == os.access(original, os.X_OK)
    assert list(tmp_path.iterdir()) == [copy]
    env = {"LD_LIBRARY_PATH": str(original.parent)}
    loaded = subprocess.run(["ldd", copy], capture_output=True, text=True, check=True, env=env)
    assert "not found" not in loaded.stdout
    # auditwheel's libraries stay as they are.
    assert (saved > 1_000_000) == pattern.startswith("kiwi")
