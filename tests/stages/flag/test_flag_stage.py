"""The flag stage as an executable, on data of the simulator: what is bad goes, what is good stays, and the bytes are the same each time.

The bounds were fixed before the first run: at most 1.5 % of good visibilities flagged (an image loses 0.8 % of its depth), at least
98 % of the interference found (what is left adds less than a source of the noise's strength).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain import BIN, ENVIRONMENT, Chain, contimg
from contimg.records.flagfile import read_flags
from contimg.runtime.manifest import read_manifest

FALSE, RECALL = 0.015, 0.98
DEAD, DEAF = ("13", "77"), "30"
FIRST, SECOND = np.triu_indices(96)
CROSS = FIRST != SECOND

SICK = Chain(
    "small",
    seed=3,
    tier="development",
    name="flag-sick",
    sky={
        "rfi": "both",
        "dead_antennas": ",".join(DEAD),
        "deaf_antennas": DEAF,
        "missing_subbands": "4",
        "zeros": 0.01,
    },
)


@cache
def flags_of(artifact: str, integrations: int = 4) -> np.ndarray:
    """Flags, shape (integrations, baselines, channels, correlations)."""
    flags = read_flags(Path(artifact) / "flags.bin")
    return flags.reshape(integrations, -1, *flags.shape[1:])


def flagging(artifact: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((Path(artifact) / "flagging.json").read_text())
    return answer


def sick_rows() -> np.ndarray:
    """Baselines with a dead or deaf antenna."""
    stations = [int(number) + 1 for number in SICK.truth_arrays["antennas"]]
    bad = [stations.index(int(name)) for name in (*DEAD, DEAF)]
    return np.isin(FIRST, bad) | np.isin(SECOND, bad)


def test_a_clean_calibrator_keeps_its_fringes(small_chain: Chain) -> None:
    fraction = flags_of(small_chain.flags)[:, CROSS].mean(axis=(0, 2, 3))
    assert fraction.mean() <= FALSE
    # The generic strategy of AOFlagger takes up to 99 % of some baselines of such a group.
    assert fraction.max() <= 0.05
    assert read_manifest(small_chain.flags).qa.verdict == "good"


def test_autos_are_flagged_and_count_in_no_fraction(small_chain: Chain) -> None:
    assert flags_of(small_chain.flags)[:, ~CROSS].all()
    steps = flagging(small_chain.flags)["steps"]
    assert [step["step"] for step in steps] == [
        "missing",
        "zeros",
        "autos",
        "dead",
        "array",
        "rfi",
        "clip",
    ]
    assert steps[2]["added"] == 0
    assert flagging(small_chain.flags)["fraction"] == pytest.approx(
        flags_of(small_chain.flags)[:, CROSS].mean(), abs=1e-6
    )


def test_interference_is_found_and_the_rest_is_left() -> None:
    truth = SICK.truth_arrays[f"rfi_{SICK.group_id}"]
    good = flags_of(SICK.flags)[:, CROSS & ~sick_rows()]
    arrived = SICK.truth_arrays[f"alive_{SICK.group_id}"]
    alive = (arrived[:, FIRST] & arrived[:, SECOND])[:, CROSS & ~sick_rows()]
    there = np.ones(truth.shape[1], bool)
    there[12 * 11 : 12 * 12] = False  # subband 4 counts from the top
    wanted = np.broadcast_to(
        (truth & there)[:, None, :, None] & alive[:, :, None, None], good.shape
    )
    clean = np.broadcast_to(
        (~truth & there)[:, None, :, None] & alive[:, :, None, None], good.shape
    )
    assert wanted.any()
    assert good[wanted].mean() >= RECALL
    assert good[clean].mean() <= FALSE
    assert good[~np.broadcast_to(alive[:, :, None, None], good.shape)].all()


def test_missing_subbands_stay_flagged_and_are_the_first_step() -> None:
    assert flags_of(SICK.flags)[:, :, 12 * 11 : 12 * 12].all()
    first = flagging(SICK.flags)["steps"][0]
    assert (first["step"], first["fraction"]) == ("missing", pytest.approx(1 / 16, abs=1e-6))


def test_dead_and_deaf_antennas_are_flagged_and_named() -> None:
    assert flags_of(SICK.flags)[:, sick_rows()].all()
    wanted = sorted(f"{name}{product}" for name in (*DEAD, DEAF) for product in "XY")
    assert sorted(read_manifest(SICK.flags).metrics["dead_receptors"]) == wanted
    lost = {item["name"]: item["dead"] for item in flagging(SICK.flags)["antennas"] if item["dead"]}
    assert lost == {name: ["XX", "YY"] for name in (*DEAD, DEAF)}


def test_fractions_grow_from_step_to_step_and_add_up() -> None:
    steps = flagging(SICK.flags)["steps"]
    assert all(step["added"] >= 0 for step in steps)
    assert sum(step["added"] for step in steps) == pytest.approx(steps[-1]["fraction"], abs=1e-5)
    assert read_manifest(SICK.flags).metrics["fraction"] == steps[-1]["fraction"]
    found = flags_of(SICK.flags)[:, CROSS]
    assert flagging(SICK.flags)["channel_fraction"] == pytest.approx(
        found.mean(axis=(0, 1, 3)), abs=1e-5
    )
    assert flagging(SICK.flags)["integration_fraction"] == pytest.approx(
        found.mean(axis=(1, 2, 3)), abs=1e-5
    )


def test_the_same_group_gives_the_same_bytes_and_its_artifact_stays(tmp_path: Path) -> None:
    tar = Path(SICK.ms) / "ms.tar"
    before = hashlib.sha256(tar.read_bytes()).hexdigest()
    again = contimg("flag", ms=SICK.ms, out=tmp_path)["artifact"]
    assert {item.name: item.sha256 for item in read_manifest(again).outputs} == {
        item.name: item.sha256 for item in read_manifest(SICK.flags).outputs
    }
    assert (
        hashlib.sha256(tar.read_bytes()).hexdigest()
        == before
        == read_manifest(SICK.ms).output("ms.tar").sha256
    )


def test_interference_may_be_left_to_nobody(tmp_path: Path) -> None:
    found = flagging(
        contimg("flag", ms=SICK.ms, out=tmp_path, rfi="off", clip_sigma=1000)["artifact"]
    )
    assert [step["step"] for step in found["steps"]] == [
        "missing",
        "zeros",
        "autos",
        "dead",
        "clip",
    ]
    assert found["steps"][-1]["added"] == 0


@pytest.mark.slow
def test_casa_may_look_for_interference(tmp_path: Path) -> None:
    artifact = contimg("flag", ms=SICK.ms, out=tmp_path, rfi="casa")["artifact"]
    step = flagging(artifact)["steps"][5]
    assert (step["step"], step["meaning"]) == ("rfi", "CASA tfcrop and rflag, each baseline")
    assert 0 < step["added"] < 0.2


def test_a_group_of_zeros_is_refused(small_chain: Chain, tmp_path: Path) -> None:
    done = refused_run(all_zeros(small_chain, tmp_path), tmp_path / "out")
    assert done.returncode == 14
    said = json.loads(done.stderr.splitlines()[-1])
    assert said["code"] == "ALL_FLAGGED"
    assert "All visibilities are flagged (after missing 0.0%, zeros 100.0%" in said["message"]
    assert not list(tmp_path.glob("out/*/manifest.json"))


def refused_run(ms: str, out: Path) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / "contimg-flag"), f"--ms={ms}", f"--out={out}"]
    return subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def all_zeros(chain: Chain, folder: Path) -> str:
    """Return a convert artifact whose DATA are all zero."""
    import casacore.tables as ct

    from contimg.runtime.manifest import MANIFEST
    from contimg.runtime.tar import pack, unpack

    with (Path(chain.ms) / "ms.tar").open("rb") as source:
        path = unpack(source, folder)
    with ct.table(str(path), readonly=False, ack=False) as table:
        table.putcol("DATA", np.zeros_like(table.getcol("DATA")))
    artifact = folder / "artifact"
    artifact.mkdir()
    with (artifact / "ms.tar").open("wb") as sink:
        size, digest = pack(path, sink)
    manifest = read_manifest(chain.ms)
    output = manifest.output("ms.tar").model_copy(update={"bytes": size, "sha256": digest})
    (artifact / MANIFEST).write_text(
        manifest.model_copy(update={"outputs": (output,)}).model_dump_json()
    )
    return str(artifact)
