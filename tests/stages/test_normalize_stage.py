"""Normalize and variability as processes, on tables of 26 epochs: the promised numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.runtime.errors import Exit
from contimg.runtime.store import open_store
from light_curves import lens_gain
from photometry_tables import SIDEREAL_DAY, STATED, steady_world

BIN = Path(sys.executable).parent
EPOCHS, SOURCES = 26, 40
LENS, FLARE = 0, 1


def write_tables(root: Path, seed: int = 0, ra: float = 38.3, count: int = SOURCES) -> Any:
    """Write photometry of 26 epochs in 150 days with a lens and a flare.

    Return the common error of each epoch, 5 %, and the signal-to-noise ratio of each source.
    """
    rng = np.random.default_rng(seed)
    east, north = rng.uniform(-1.6, 1.6, (2, count))
    flux = 60 * (1 - rng.uniform(0, 0.98, count)) ** -1.0
    two = [LENS, FLARE]
    flux[two], east[two], north[two] = (148, 123), (0.2, 0.8), (-0.1, 0.3)
    beam = np.exp(-4 * np.log(2) * (east**2 + north**2) / 2.7**2)
    days = 6 * np.arange(EPOCHS)
    curve = np.ones((count, EPOCHS))
    curve[LENS] = lens_gain((days - 85.0) / 13.0, 1.2, 0.3)
    curve[FLARE] = 1 + 0.6 * np.where(days < 75, np.exp((days - 75) / 5), np.exp((75 - days) / 12))
    common = 1 + 0.05 * rng.normal(size=EPOCHS)
    noise = 0.4 / beam
    for e in range(EPOCHS):
        found = flux * curve[:, e] * common[e] + noise * rng.normal(size=count)
        columns: dict[str, Any] = {c.name: [None] * count for c in PHOTOMETRY.columns}
        fixed = {"group": f"g{e}", "image": "key", "mjd": 61065.1 + 6 * SIDEREAL_DAY * e}
        fixed |= {"strip": 33.0, "compactness": 1.0, "blend": 1} | STATED
        columns |= {name: [value] * count for name, value in fixed.items()}
        columns |= {"source": [f"DSA J{k:04d}" for k in range(count)], "beam": beam}
        columns |= {"ra": (ra + east / np.cos(np.radians(33))) % 360, "dec": 33 + north}
        columns |= {"flux_forced": found, "flux_peak": found, "local_rms": noise}
        columns |= {"snr": found / noise, "upper_limit": found < 5 * noise}
        key = f"photometry/date=2026-{1 + e // 28:02d}-{1 + e % 28:02d}/g{e}.parquet"
        open_store(str(root)).put(key, PHOTOMETRY.to_bytes(columns))
    return common, flux / noise


def run(stage: str, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / f"contimg-{stage}"), f"--tables={root}/tables", f"--out={root}/out", *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)


def summary(stage: str, root: Path, *options: str) -> dict[str, Any]:
    ended = run(stage, root, *options)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def read(made: dict[str, Any], table: str) -> pd.DataFrame:
    return pd.read_parquet(Path(made["artifact"]) / f"{table}.parquet")


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    root = tmp_path_factory.mktemp("tables")
    return root, *write_tables(root / "tables")


@pytest.fixture(scope="module")
def normalized(sky: Any) -> dict[str, Any]:
    return summary("normalize", sky[0], "--strip=33.1")


def test_factors_are_common_errors(sky: Any, normalized: dict[str, Any]) -> None:
    epochs, common = read(normalized, "normalization"), sky[1]
    assert len(epochs) == EPOCHS
    truth = common / np.median(common[:10])
    # A median of 20 references of S/N 50 to 1000: 0.3 %, and the baseline's own error, common to
    # all epochs.
    ratio = epochs.factor.to_numpy() / truth
    assert ratio.std() < 0.004
    print(f"C to {ratio.std():.4f}")  # noqa: T201 - for docs
    assert np.abs(ratio / np.median(ratio) - 1).max() < 4 * epochs.factor_err.max()
    assert normalized["qa"]["verdict"] == "good"
    assert 10 <= normalized["metrics"]["references"] <= 20


def test_steady_sources_scatter_as_predicted(sky: Any, normalized: dict[str, Any]) -> None:
    steady = [k for k in range(SOURCES) if k not in {LENS, FLARE} and sky[2][k] >= 100]
    assert len(steady) >= 15
    frame, relative, over = read(normalized, "normalized"), [], []
    for k in steady:
        rows = frame[frame.source == f"DSA J{k:04d}"]
        relative.append(rows.flux.std() / rows.flux.mean())
        over.append(rows.flux.std() / np.sqrt((rows.flux_err**2).mean()))
    # The project's promise: at most 1.15 times what the errors predict, and at most 2 %; over all
    # sources, since 26 epochs of one give its scatter to 14 %. Below 0.85 errors are too large.
    assert 0.85 < np.sqrt(np.mean(np.square(over))) < 1.15
    assert max(relative) <= 0.02
    print(f"largest scatter {max(relative):.4f}")  # noqa: T201 - for docs
    raw = [frame[frame.source == f"DSA J{k:04d}"].flux_raw for k in steady]
    assert min(values.std() / values.mean() for values in raw) > 0.03  # what was taken out


def test_variable_sources_are_no_references(normalized: dict[str, Any]) -> None:
    frame = read(normalized, "normalized")
    assert not frame[frame.source.isin([f"DSA J{LENS:04d}", f"DSA J{FLARE:04d}"])].reference.any()
    assert frame[frame.reference].source.nunique() >= 10


def test_only_lens_is_candidate(sky: Any, normalized: dict[str, Any]) -> None:
    root = sky[0]
    done = summary("variability", root, f"--normalized={normalized['artifact']}")
    assert done["metrics"]["candidate_names"] == [f"DSA J{LENS:04d}"]
    assert done["metrics"]["judged"] == SOURCES
    flare = read(done, "lightcurve_stats").set_index("source").loc[f"DSA J{FLARE:04d}"]
    assert flare.ese_score > 0.6  # the mission's score alone takes the flare too
    assert flare.ese_evidence < 0
    assert "flare" in flare.ese_reason
    found = read(done, "ese_candidates").iloc[0]
    assert found.lens_mjd == pytest.approx(61065.1 + 85 * SIDEREAL_DAY, abs=1.5)
    assert found.ese_evidence > 10
    curves = read(done, "lightcurves")
    mine = curves[curves.source == found.source]
    assert len(curves) == SOURCES * EPOCHS
    assert ((mine.flux - mine.model) / mine.flux_err).std() < 2
    assert curves[curves.source != found.source].model.isna().all()
    unit = "date=2026-06-23/strip+33.10.parquet"
    for table in ("lightcurve_stats", "ese_candidates"):
        made = (Path(done["artifact"]) / f"{table}.parquet").read_bytes()
        assert (root / "tables" / table / unit).read_bytes() == made
    assert (root / "tables/normalized" / unit).exists()


def test_new_epoch_changes_key(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables")
    first, again, later = (
        summary("normalize", tmp_path, "--strip=33", f"--last-day=2026-01-{day}")
        for day in (20, 20, 21)
    )
    assert again["cached"]
    assert first["metrics"]["epochs"] == 20
    assert later["key"] != first["key"]
    verdict = summary("variability", tmp_path, f"--normalized={first['artifact']}")
    # 20 epochs are not more than 20.
    assert verdict["metrics"]["judged"] == verdict["metrics"]["candidates"] == 0
    assert verdict["qa"]["verdict"] == "warning"


def test_border_at_ra_zero_changes_nothing(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables", seed=1, ra=359.9)
    done = summary("normalize", tmp_path, "--strip=33")
    assert done["metrics"]["fields"] == 2
    scales = read(done, "normalization").pivot_table(index="mjd", columns="field", values="factor")
    assert np.std(scales.iloc[:, 0] / scales.iloc[:, 1]) < 1e-3
    assert done["metrics"]["epochs"] == EPOCHS
    assert done["metrics"]["scatter_median"] < 0.02


def test_too_few_references_warn_or_refuse(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables", count=7)
    few = summary("normalize", tmp_path, "--strip=33", "--reference-snr=20")
    assert few["qa"]["verdict"] == "warning"
    assert any("references" in reason for reason in few["qa"]["reasons"])
    place = "No photometry of a strip within 0.5 deg of Dec +54.00 in the 26 files"
    bright = ("--strip=33", "--reference-snr=100000")
    for options, text in ((bright, "--reference-snr"), (("--strip=54",), place)):
        refused = run("normalize", tmp_path, *options)
        assert refused.returncode == Exit.NO_SOURCES
        assert text in refused.stderr


def test_broken_photometry_is_refused(tmp_path: Path) -> None:
    write_tables(tmp_path / "tables")
    place = tmp_path / "tables/photometry/date=2026-01-01"
    (place / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    ended = run("normalize", tmp_path, "--strip=33")
    assert ended.returncode == Exit.BAD_INPUT
    assert "broken.parquet" in ended.stderr
    missing = run("variability", tmp_path, f"--normalized={tmp_path}/out/0000000000000000")
    assert missing.returncode == Exit.NOT_FOUND


def test_files_of_second_setup_are_its_own(tmp_path: Path) -> None:
    """Statistics of epochs at another frequency would else replace those of the first setup."""
    world = steady_world(30, 24, snr=(50.0, 500.0), common=0.0)
    world.columns["frequency"] = [1405.0] * 14 + [1450.0] * 10
    store = open_store(str(tmp_path / "tables"))
    for g, table in enumerate(world.tables()):
        key = f"photometry/date=2026-01-{1 + g:02d}/g{g}.parquet"
        store.put(key, PHOTOMETRY.to_bytes(table))
    for setup in ("0", "1"):
        made = summary("normalize", tmp_path, "--strip=33", f"--setup={setup}")
        summary("variability", tmp_path, f"--normalized={made['artifact']}")
    for table in ("normalized", "lightcurve_stats"):
        names = {Path(path).name for path in tmp_path.glob(f"tables/{table}/*/*.parquet")}
        assert names == {"strip+33.00.parquet", "strip+33.00-setup1.parquet"}, table
