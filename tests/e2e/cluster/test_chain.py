"""16 files in the bucket lead to an image, fluxes and a page, the same as on a laptop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from chain import ENVIRONMENT, ROOT
from cluster.argo import nodes
from cluster.groups import upload
from cluster.site import STEPS, Done, Figure
from contimg.runtime.directory import DirectoryStore

if TYPE_CHECKING:
    import pandas as pd

pytestmark = pytest.mark.cluster
CONTIMG = Path(sys.executable).parent / "contimg"
DATA = frozenset({".tar", ".bin", ".fits", ".parquet"})
"""Outputs whose bytes are compared; pages and pictures also say where and when."""


def test_an_image_fluxes_and_a_page_are_in_the_bucket(done: Done) -> None:
    keys = [entry.key for entry in done.site.store.entries(f"products/{done.night.id}/")]
    for name in ("image.fits", "image.pbcor.fits", "rms.fits", "photometry.parquet", "report.html"):
        assert [key for key in keys if key.endswith(f"/{name}")], keys
    rows = done.site.table("photometry", done.night.id)
    assert len(rows) >= 5
    assert (rows["flux_peak"] > 0).sum() >= 5
    assert done.site.half_written(done.night.id) == []


def test_the_brightest_source_has_its_true_flux(done: Done) -> None:
    """3C48's own flux to 5 %: it set the scale; the clean and the beam are left."""
    true = max(source["flux_mid_jy"] for source in done.night.truth["groups"][0]["sources"])
    measured = done.site.table("photometry", done.night.id)["flux_peak"].max() / 1e3
    assert abs(measured / true - 1) < 0.05


def test_the_tables_tell_what_became_of_it(done: Done) -> None:
    outcome = done.site.document(f"runs/{done.run}/outcome.json")
    assert outcome is not None
    assert (outcome["phase"], outcome["workflow"]) == ("succeeded", f"contimg-{done.run}")
    (group,) = done.site.table("groups", done.night.id).to_dict("records")
    assert (group["state"], group["attempt"], group["retries"], group["n_subbands"]) == (
        "completed",
        1,
        0,
        16,
    )
    rows = done.site.table("stage_runs")
    ours = rows[rows["run"] == done.run].set_index("stage")
    assert set(STEPS) <= set(ours.index)
    assert (ours["state"] == "succeeded").all()
    work = ours.loc[list(STEPS)]
    assert (work["wall_s"] > 0).all()
    assert (work["cpu_s"] > 0).all()
    # A Python process with numpy is never smaller; the node has 24 GiB.
    assert work["peak_memory_bytes"].between(20e6, 8e9).all()


def test_its_tree_is_small(done: Done, figure: Figure) -> None:
    tree = nodes(done.workflow)
    figure("nodes of its workflow", f"{len(tree)}, pods {len(nodes(done.workflow, 'Pod'))}")
    assert len(tree) < 100


def test_a_second_attempt_finds_everything_made(done: Done) -> None:
    before = done.products()
    done.site.succeeded(done.site.reprocess(done.night.id))
    assert done.products() == before


@pytest.fixture(scope="module")
def laptop(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same subbands, record and options through the local engine of this machine."""
    folder = tmp_path_factory.mktemp("laptop")
    local = DirectoryStore(str(folder))
    upload(local, done.night.files)
    local.put(f"groups/{done.run}.json", done.site.store.read(f"groups/{done.run}.json"))
    argv = [
        str(CONTIMG),
        "run",
        "process-group",
        f"--store={folder}",
        f"--group={done.night.id}",
        "--set",
        "image.tier=development",
    ]
    ended = subprocess.run(
        argv, capture_output=True, text=True, env=ENVIRONMENT, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    return folder


def made_locally(laptop: Path, group: str) -> dict[str, dict[str, Any]]:
    paths = laptop.glob(f"products/{group}/*/*/manifest.json")
    return {path.parts[-3]: json.loads(path.read_text()) for path in paths}


def digests(manifest: dict[str, Any]) -> dict[str, str]:
    return {
        one["name"]: one["sha256"]
        for one in manifest["outputs"]
        if Path(one["name"]).suffix in DATA
    }


def test_the_bytes_are_those_of_a_laptop_with_the_same_tools(done: Done, laptop: Path) -> None:
    """Every data file of every stage; with other tools than the image's it fails."""
    there, here = done.site.manifests(done.night.id), made_locally(laptop, done.night.id)
    assert there.keys() == here.keys() == set(STEPS)
    # Rows name their image by its key, which holds the source: images of another source cannot give
    # the same bytes.
    assert {stage: there[stage][0]["key"] for stage in here} == {
        stage: made["key"] for stage, made in here.items()
    }, "make images"
    assert {stage: there[stage][0]["tools"] for stage in here} == {
        stage: made["tools"] for stage, made in here.items()
    }
    assert {stage: digests(there[stage][0]) for stage in here} == {
        stage: digests(made) for stage, made in here.items()
    }


def test_the_fluxes_are_those_of_a_laptop(done: Done, laptop: Path) -> None:
    """To 0.1 % + 0.1σ, whatever tools the laptop has."""
    (path,) = laptop.glob(f"tables/photometry/date=*/{done.night.id}.parquet")
    here = pq.ParquetFile(path).read().to_pandas().set_index("source")
    there = done.site.table("photometry", done.night.id).set_index("source")
    assert here.index.equals(there.index)
    off = np.abs(here["flux_peak"] - there["flux_peak"])
    assert (off <= 0.001 * here["flux_peak"].abs() + 0.1 * here["flux_peak_err"]).all(), worst(
        off, here
    )


def worst(off: pd.Series[float], here: pd.DataFrame) -> pd.Series[float]:
    """Return the largest differences in parts of the flux."""
    return (off / here["flux_peak"].abs()).nlargest(5)
