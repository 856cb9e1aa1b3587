"""Each image by itself, restricted like a pod: its contents, its help, its size."""

import json
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import requires
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from built import RECIPES
from containers import Engine, Image
from contimg.runtime.stage import stage_specs
from contimg.runtime.versions import code_digest

pytestmark = pytest.mark.images

HEAVY = {name for name, recipe in RECIPES.items() if recipe.level == "casa"}
MB = 1_000_000
BOUND = {stage: (1300 if stage in HEAVY else 750) * MB for stage in RECIPES}
"""Bytes unpacked."""
LOOK = """
import json, os, re, shutil, socket
from importlib.metadata import distributions
from pathlib import Path
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
def writable(folder):
    try:
        (Path(folder) / "probe").write_text("x")
    except OSError:
        return False
    return True
sources = [p for p in Path("/app/lib").rglob("*.py") if not (p.parent / "__pycache__").is_dir()]
found = set(distributions())
programs = "wsclean aoflagger pip uv gcc strip hatchling git curl".split()
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "capabilities": [status[n].strip() for n in ("CapEff", "CapPrm", "CapBnd")],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "writable": [f for f in "/ /app /app/bin /var/tmp /tmp /home /etc".split() if writable(f)],
    "distributions": sorted(re.sub("[_.]", "-", d.metadata["Name"].lower()) for d in found),
    "programs": [name for name in programs if shutil.which(name)],
    "not_compiled": [str(p) for p in sources], "home": os.path.expanduser("~"),
    "mnt": os.listdir("/mnt"), "lists": os.listdir("/var/lib/apt/lists"),
}))
"""


LOAD = """
import re, subprocess
from pathlib import Path
libraries = sorted(Path("/app/lib").rglob("*.so*"))
here = {path.name for path in libraries}  # found by whoever loads them both
optional = ("omppool", "tbbpool")  # numba's other ways to run threads
for path in libraries:
    said = subprocess.run(["ldd", path], capture_output=True, text=True)
    missing = set(re.findall(r"(\\S+) => not found", said.stdout)) - here
    if said.returncode or (missing and not path.name.startswith(optional)):
        print(path, missing, said.stderr)
"""


def run(engine: Engine, image: Image, *argv: str) -> subprocess.CompletedProcess[str]:
    done = engine.run(image, argv)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def seen(engine: Engine, images: dict[str, Image]) -> dict[str, dict[str, Any]]:
    """What a program sees in each image."""
    return {
        stage: json.loads(run(engine, image, "python", "-c", LOOK).stdout)
        for stage, image in images.items()
    }


def closure(name: str, extras: frozenset[str], found: set[tuple[str, frozenset[str]]]) -> None:
    """Gather what a distribution of this host needs, by its own metadata."""
    if (name, extras) in found:
        return
    found.add((name, extras))
    for item in map(Requirement, requires(name) or ()):
        if item.marker is None or any(
            item.marker.evaluate({"extra": extra}) for extra in extras or {""}
        ):
            closure(canonicalize_name(item.name), frozenset(item.extras), found)


@pytest.mark.parametrize("stage", RECIPES)
class TestEveryImage:
    def test_container_is_restricted(self, stage: str, seen: dict[str, dict[str, Any]]) -> None:
        # Else the other tests prove less than they say.
        told = seen[stage]
        assert (told["uid"], told["gid"], told["no_new_privileges"]) == (10001, 10001, "1")
        assert {int(mask, 16) for mask in told["capabilities"]} == {0}
        assert told["interfaces"] == ["lo"]
        assert told["writable"] == ["/tmp"]
        assert told["home"] == "/tmp"

    def test_help_and_version(self, stage: str, engine: Engine, images: dict[str, Image]) -> None:
        image = images[stage]
        done = run(engine, image, *image.entrypoint, "--help")
        assert done.stdout.startswith(f"usage: contimg-{stage} ")
        assert done.stderr == ""
        assert run(engine, image, f"contimg-{stage}", "--help").stdout == done.stdout
        version = run(engine, image, *image.entrypoint, "--version").stdout
        assert image.labels["org.opencontainers.image.version"] in version

    def test_user_entrypoint_and_labels(self, stage: str, images: dict[str, Image]) -> None:
        image = images[stage]
        assert image.user == "10001:10001"
        assert image.entrypoint == ("/app/bin/stage",)
        label = {name.rpartition(".")[2]: value for name, value in image.labels.items()}
        assert label["title"] == f"contimg-{stage}"
        assert label["description"].endswith(".")
        assert label["licenses"] == RECIPES[stage].licenses
        assert re.fullmatch(r"[0-9a-f]{40}", label["revision"])
        assert re.match(r"\d{4}-\d\d-\d\dT", label["created"])

    def test_contents_are_expected(self, stage: str, seen: dict[str, dict[str, Any]]) -> None:
        found: set[tuple[str, frozenset[str]]] = set()
        closure(f"contimg-{stage}", frozenset(), found)
        specs = {f"contimg-{Path(folder).name}" for folder in RECIPES[stage].specs.split()}
        assert set(seen[stage]["distributions"]) == {name for name, _ in found} | specs
        assert seen[stage]["programs"] == RECIPES[stage].packages.split()
        assert seen[stage]["mnt"] == seen[stage]["lists"] == []
        assert seen[stage]["not_compiled"] == []

    def test_libraries_load(self, stage: str, engine: Engine, images: dict[str, Image]) -> None:
        assert run(engine, images[stage], "python", "-c", LOAD).stdout == ""

    def test_source_is_this_one(self, stage: str, engine: Engine, images: dict[str, Image]) -> None:
        module = f"contimg_{stage}.stage"
        code = f"from contimg.runtime.versions import code_digest; print(code_digest({module!r}))"
        done = run(engine, images[stage], "python", "-c", code)
        assert done.stdout.strip() == code_digest(module)

    def test_size_is_within_limit(self, stage: str, engine: Engine, images: Any) -> None:
        done = engine.run(
            images[stage], ("du", "-sxb", "/")
        )  # it cannot look into root's own folders
        size = int(done.stdout.split()[0])
        print(f"contimg-{stage} {size / MB:.0f} MB")  # noqa: T201 - shown by pytest -rP, for docs/explanation/images.md
        assert 150 * MB < size <= BOUND[stage]


def shared(images: Iterable[Image]) -> int:
    """Count the layers that images have in common, from the lowest."""
    rows = zip(*(image.layers for image in images), strict=False)
    return sum(1 for _ in takewhile(lambda row: len(set(row)) == 1, rows))


def test_watch_knows_the_options_of_all_stages(engine: Engine, images: dict[str, Image]) -> None:
    code = "from contimg.runtime.stage import stage_specs; print(*stage_specs())"
    done = run(engine, images["watch"], "python", "-c", code)
    assert done.stdout.split() == list(stage_specs())


def test_all_stand_on_the_same_layers(images: dict[str, Image]) -> None:
    assert shared(images.values()) >= 2  # Debian with Python; what lib needs


def test_casa_is_one_layer_of_three_images(images: dict[str, Image]) -> None:
    assert shared(images[stage] for stage in HEAVY) >= shared(images.values()) + 2  # CASA; its data
