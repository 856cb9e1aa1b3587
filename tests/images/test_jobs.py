"""Real small jobs in the restricted images, a group and a strip; then the same on the host."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from chain import ROOT, Chain, contimg
from containers import USER, Engine, Image
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.manifest import read_manifest
from contimg.runtime.stage import stage_spec
from contimg_runs.pipelines import PROCESS_GROUP

pytestmark = pytest.mark.images

STAGES = [name for name in PROCESS_GROUP.order if name != "report"]
EPOCHS, SOURCES = 8, 8
AND_KERNELS = (
    '"$@" || exit; [ ! -d /tmp/numba ] || { cd /tmp/numba && find . -name "*.nbc" >"$0"; }'
)
"""Run what is given and keep a list of numba's functions; they are gone with the container."""


class ImageChain(Chain):
    """The chain with programs in their images; the store has the same path inside and outside."""

    def __init__(self, engine: Engine, images: dict[str, Image], folder: Path) -> None:
        super().__init__("small", seed=1, tier="development")
        self.engine, self.images, self.folder = engine, images, folder

    @property
    def store(self) -> Path:
        return self.folder

    def contimg(self, program: str, **options: object) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value is not None}
        words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        image = self.images[program]
        shell = ("/bin/sh", "-c", AND_KERNELS, str(self.kernels(program)))
        done = self.engine.run(image, (*shell, *image.entrypoint, *words), self.folder)
        assert done.returncode == 0, f"{program} {words}\n{done.stderr[-4000:]}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def kernels(self, program: str) -> Path:
        """Where the list of the compiled functions is that the program had at its end."""
        return self.folder / f"{program}.kernels"

    @cached_property
    def report(self) -> str:
        return self._make("report", artifacts=",".join(map(self.artifact, STAGES)))

    def artifact(self, stage: str) -> str:
        """Return the artifact that a stage made of the group."""
        made = {"convert": self.ms, "flag": self.flags, "calibrate": self.calibration}
        return made.get(stage) or str(getattr(self, stage))


@pytest.fixture(scope="module")
def chain(engine: Engine, images: dict[str, Image], tmp_path_factory: Any) -> ImageChain:
    folder = tmp_path_factory.mktemp("store")
    for path in (folder, *folder.parents):
        if path.owner() == "root" and path.name.startswith("pytest"):
            path.chmod(0o755)  # pytest makes its folders for one user
    os.chown(folder, USER, USER)
    return ImageChain(engine, images, folder)


def test_flux_of_3c48_is_true(chain: ImageChain) -> None:
    rows = pq.read_table(Path(chain.photometry) / "photometry.parquet").to_pandas()
    truth = max(chain.truth["groups"][0]["sources"], key=lambda source: source["flux_mid_jy"])
    shrink = np.cos(np.radians(truth["dec_deg"]))
    offset = np.hypot((rows["ra"] - truth["ra_deg"]) * shrink, rows["dec"] - truth["dec_deg"])
    found = rows.loc[offset.idxmin()]
    assert found["flux_forced"] / 1000 == pytest.approx(truth["flux_mid_jy"], rel=0.03)


def test_page_of_group_exists(chain: ImageChain) -> None:
    page = (Path(chain.report) / "report.html").read_text()
    assert chain.group_id in page
    assert page.count("data:image/png;base64,") >= 3


@pytest.mark.parametrize("stage", STAGES)
def test_key_and_bytes_are_those_of_the_host(chain: ImageChain, stage: str, tmp_path: Path) -> None:
    """With the same source and tools, host and image make the same key and the same bytes."""
    inside = read_manifest(chain.artifact(stage))
    if (here := stage_spec(stage).tool_versions()) != inside.tools:
        pytest.skip(f"the host has other tools: {here}, the image {inside.tools}")
    inputs = {
        name: inside.options[name]
        for name in ("group", "ms", "flags", "calibration", "image", "tier")
        if inside.options.get(name)
    }
    places = {"calibrate": {"store": tmp_path}, "photometry": {"tables": tmp_path}}.get(stage, {})
    outside = read_manifest(contimg(stage, out=tmp_path / "out", **inputs, **places)["artifact"])
    # With other sources, too, the keys differ: test_the_source_is_that_of_this_checkout tells.
    assert inside.key == outside.key
    assert inside.outputs == outside.outputs


@pytest.mark.parametrize("stage", STAGES)
def test_image_brings_compiled_functions(chain: ImageChain, stage: str) -> None:
    """Where this fails, functions or their types changed: `make kernels`."""
    assert chain.artifact(stage)
    had = set(chain.kernels(stage).read_text().split())
    argv = ("/bin/sh", "-c", 'cd /app/kernels && find . -name "*.nbc"')
    assert had == set(chain.engine.run(chain.images[stage], argv).stdout.split())
    listed = json.loads((ROOT / "images/kernels.json").read_text())
    own = {name.rpartition(".")[2] for name in listed if name.startswith(f"contimg_{stage}.")}
    assert own
    assert own <= {Path(name).name.partition(".")[2].partition("-")[0] for name in had}


def test_epoch_of_strip_is_made(chain: ImageChain) -> None:
    write_tables(chain.store / "strip/tables")
    options = {"tables": chain.store / "strip/tables", "out": chain.store / "strip/out"}
    scaled = chain.contimg("normalize", strip=33.0, **options)
    assert scaled["metrics"]["epochs"] == EPOCHS
    judged = chain.contimg("variability", normalized=scaled["artifact"], **options)
    stats = pq.read_table(Path(judged["artifact"]) / "lightcurve_stats.parquet").to_pandas()
    assert len(stats) == SOURCES
    assert stats["eta_peak"].between(0.05, 4).all()  # steady sources
    both = f"{scaled['artifact']},{judged['artifact']}"
    page = chain.contimg("report", artifacts=both, out=chain.store / "strip/out")
    assert (Path(page["artifact"]) / "report.html").stat().st_size > 50_000


def write_tables(root: Path) -> None:
    """Photometry of steady sources, with a common error of 5 % in each epoch."""
    rng = np.random.default_rng(1)
    east, north = rng.uniform(-1, 1, (2, SOURCES))
    flux = rng.uniform(200, 900, SOURCES)
    for epoch in range(EPOCHS):
        found = flux * (1 + 0.05 * rng.normal()) + rng.normal(size=SOURCES)
        columns: dict[str, Any] = {column.name: [None] * SOURCES for column in PHOTOMETRY.columns}
        alike = {"group": f"g{epoch}", "image": "key", "mjd": 61065.1 + 6 * epoch, "strip": 33.0}
        alike |= {"upper_limit": False, "compactness": 1.0, "blend": 1, "beam": 1.0}
        columns |= {name: [value] * SOURCES for name, value in alike.items()}
        columns |= {"source": [f"DSA J{k:04d}" for k in range(SOURCES)], "ra": 38.3 + east}
        columns |= dict.fromkeys(("flux_forced", "snr", "flux_peak"), found)
        columns |= {"dec": 33 + north, "local_rms": np.ones(SOURCES)}
        place = root / f"photometry/date=2026-01-{epoch + 1:02d}"
        place.mkdir(parents=True)
        (place / f"g{epoch}.parquet").write_bytes(PHOTOMETRY.to_bytes(columns))
    for path in (root.parent, *root.parent.rglob("*")):
        os.chown(path, USER, USER)
