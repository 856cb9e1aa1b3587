"""16 files in the bucket lead to an image, fluxes and a page, the same as on a laptop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from chain import ENVIRONMENT, ROOT
from cluster.argo import nodes
from cluster.groups import upload
from cluster.site import STEPS, Done, Figure
from contimg.runtime.directory import DirectoryStore

pytestmark = pytest.mark.cluster
CONTIMG = Path(sys.executable).parent / "contimg"
DATA = frozenset({".tar", ".bin", ".fits", ".parquet"})
"""Outputs whose bytes are compared; pages and pictures also say where and when."""


def test_bucket_holds_image_fluxes_and_page(done: Done) -> None:
    keys = [entry.key for entry in done.site.store.entries(f"products/{done.night.id}/")]
    for name in ("image.fits", "image.pbcor.fits", "rms.fits", "photometry.parquet", "report.html"):
        assert [key for key in keys if key.endswith(f"/{name}")], keys
    rows = done.site.table("photometry", done.night.id)
    assert len(rows) >= 5
    assert (rows["flux_peak"] > 0).sum() >= 5
    assert done.site.half_written(done.night.id) == []


def test_brightest_source_has_true_flux(done: Done) -> None:
    """3C48's own flux to 5 %: it set the scale; the clean and the beam are left."""
    true = max(source["flux_mid_jy"] for source in done.night.truth["groups"][0]["sources"])
    measured = done.site.table("photometry", done.night.id)["flux_peak"].max() / 1e3
    assert abs(measured / true - 1) < 0.05


def test_tables_record_the_run(done: Done) -> None:
    outcome = done.site.document(f"runs/{done.run}/outcome.json")
    assert outcome is not None
    assert (outcome["phase"], outcome["workflow"]) == ("succeeded", f"contimg-{done.run}")
    (group,) = done.site.table("groups", done.night.id).to_dict("records")
    expected = {"state": "completed", "attempt": 1, "retries": 0, "n_subbands": 16}
    assert {name: group[name] for name in expected} == expected
    rows = done.site.table("stage_runs")
    ours = rows[rows["run"] == done.run].set_index("stage")
    assert set(STEPS) <= set(ours.index)
    assert (ours["state"] == "succeeded").all()
    work = ours.loc[list(STEPS)]
    assert (work["wall_s"] > 0).all()
    assert (work["cpu_s"] > 0).all()
    # A Python process with numpy is never smaller; the node has 24 GiB.
    assert work["peak_memory_bytes"].between(20e6, 8e9).all()


def test_workflow_has_few_nodes(done: Done, figure: Figure) -> None:
    tree = nodes(done.workflow)
    figure("nodes of its workflow", f"{len(tree)}, pods {len(nodes(done.workflow, 'Pod'))}")
    assert len(tree) < 100


def test_second_attempt_makes_no_artifact(done: Done) -> None:
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
    words = ["run", "process-group", f"--store={folder}", f"--group={done.night.id}"]
    argv = [str(CONTIMG), *words, "--set", "image.tier=development"]
    ended = subprocess.run(
        argv, capture_output=True, text=True, env=ENVIRONMENT, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    return folder


def digests(manifest: dict[str, Any]) -> dict[str, str]:
    outputs = {one["name"]: one["sha256"] for one in manifest["outputs"]}
    return {name: digest for name, digest in outputs.items() if Path(name).suffix in DATA}


def test_data_files_equal_those_of_local_run(done: Done, laptop: Path) -> None:
    """Every data file of every stage; with other tools than the image's it fails."""
    paths = laptop.glob(f"products/{done.night.id}/*/*/manifest.json")
    here = {path.parts[-3]: json.loads(path.read_text()) for path in paths}
    found = done.site.manifests(done.night.id)
    there = {stage: manifests[0] for stage, manifests in found.items()}
    assert there.keys() == here.keys() == set(STEPS)
    # Rows name their image by its key, and the key holds the digest of the source: images that were
    # built from other source cannot give the same bytes.
    for name in ("key", "tools"):
        expected = {stage: manifest[name] for stage, manifest in here.items()}
        assert {stage: there[stage][name] for stage in here} == expected, "make images"
    expected = {stage: digests(manifest) for stage, manifest in here.items()}
    assert {stage: digests(there[stage]) for stage in here} == expected


def test_fluxes_equal_those_of_local_run(done: Done, laptop: Path) -> None:
    """To 0.1 % + 0.1σ, whatever tools the laptop has."""
    (path,) = laptop.glob(f"tables/photometry/date=*/{done.night.id}.parquet")
    here = pq.ParquetFile(path).read().to_pandas().set_index("source")
    there = done.site.table("photometry", done.night.id).set_index("source")
    assert here.index.equals(there.index)
    off = np.abs(here["flux_peak"] - there["flux_peak"])
    scale = here["flux_peak"].abs()
    assert (off <= 0.001 * scale + 0.1 * here["flux_peak_err"]).all(), (off / scale).nlargest(5)
