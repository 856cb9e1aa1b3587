"""The flag stage as an executable, on data of the simulator.

The bounds were fixed before the first run: at most 1.5 % of good visibilities flagged (an image
loses 0.8 % of its depth), at least 98 % of the interference found (what is left adds less than a
source of the noise's strength).
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain import Chain, contimg
from contimg.records.flagfile import read_flags
from contimg.runtime.manifest import read_manifest

MAX_FALSE_FRACTION, MIN_FOUND_FRACTION = 0.015, 0.98
DEAD, DEAF = ("13", "77"), "30"
FIRST, SECOND = np.triu_indices(96)
CROSS = FIRST != SECOND
LOST = slice(12 * 11, 12 * 12)
"""Channels of subband 4, which counts from the top."""

ANTENNAS = {"dead_antennas": ",".join(DEAD), "deaf_antennas": DEAF}
SKY = {"rfi": "narrow,burst", "missing_subbands": "4", "zeros": 0.01, **ANTENNAS}
SICK = Chain("small", seed=3, tier="development", name="flag-sick", sky=SKY)


@cache
def load_flags(artifact: str) -> np.ndarray:
    """Return flags, shape (integrations, baselines, channels, correlations)."""
    flags = read_flags(Path(artifact) / "flags.bin")
    return flags.reshape(4, -1, *flags.shape[1:])


def load_report(artifact: str) -> Any:
    return json.loads((Path(artifact) / "flagging.json").read_text())


def sick_rows() -> np.ndarray:
    """Return which baselines have a dead or deaf antenna."""
    stations = [int(number) + 1 for number in SICK.truth_arrays["antennas"]]
    bad = [stations.index(int(name)) for name in (*DEAD, DEAF)]
    return np.isin(FIRST, bad) | np.isin(SECOND, bad)


def test_clean_calibrator_keeps_its_fringes(small_chain: Chain) -> None:
    fraction = load_flags(small_chain.flags)[:, CROSS].mean(axis=(0, 2, 3))
    assert fraction.mean() <= MAX_FALSE_FRACTION
    # The generic strategy of AOFlagger takes up to 99 % of some baselines of such a group.
    assert fraction.max() <= 0.05
    assert read_manifest(small_chain.flags).qa.verdict == "good"


def test_autos_are_flagged_but_not_counted(small_chain: Chain) -> None:
    flags, report = load_flags(small_chain.flags), load_report(small_chain.flags)
    assert flags[:, ~CROSS].all()
    names = [step["step"] for step in report["steps"]]
    assert names == ["missing", "zeros", "autos", "dead", "array", "rfi", "clip"]
    assert report["steps"][2]["added"] == 0
    assert report["fraction"] == pytest.approx(flags[:, CROSS].mean(), abs=1e-6)


def test_interference_is_separated_from_good_data() -> None:
    good = CROSS & ~sick_rows()
    interference = SICK.truth_arrays[f"rfi_{SICK.group_id}"]
    arrived = SICK.truth_arrays[f"alive_{SICK.group_id}"]
    found = load_flags(SICK.flags)[:, good]
    alive = (arrived[:, FIRST] & arrived[:, SECOND])[:, good][:, :, None, None]
    present = np.ones(interference.shape[1], bool)
    present[LOST] = False

    def select(samples: np.ndarray) -> np.ndarray:
        return np.broadcast_to((samples & present)[:, None, :, None] & alive, found.shape)

    assert select(interference).any()
    assert found[select(interference)].mean() >= MIN_FOUND_FRACTION
    assert found[select(~interference)].mean() <= MAX_FALSE_FRACTION
    assert found[~np.broadcast_to(alive, found.shape)].all()


def test_missing_and_dead_are_flagged() -> None:
    assert load_flags(SICK.flags)[:, :, LOST].all()
    first = load_report(SICK.flags)["steps"][0]
    assert (first["step"], first["fraction"]) == ("missing", pytest.approx(1 / 16, abs=1e-6))
    assert load_flags(SICK.flags)[:, sick_rows()].all()
    wanted = sorted(f"{name}{product}" for name in (*DEAD, DEAF) for product in "XY")
    assert sorted(read_manifest(SICK.flags).metrics["dead_receptors"]) == wanted
    antennas = load_report(SICK.flags)["antennas"]
    lost = {item["name"]: item["dead"] for item in antennas if item["dead"]}
    assert lost == {name: ["XX", "YY"] for name in (*DEAD, DEAF)}


def test_step_fractions_add_up() -> None:
    report, flags = load_report(SICK.flags), load_flags(SICK.flags)[:, CROSS]
    steps = report["steps"]
    assert all(step["added"] >= 0 for step in steps)
    assert sum(step["added"] for step in steps) == pytest.approx(steps[-1]["fraction"], abs=1e-5)
    assert read_manifest(SICK.flags).metrics["fraction"] == steps[-1]["fraction"]
    by_channel, by_time = flags.mean(axis=(0, 1, 3)), flags.mean(axis=(1, 2, 3))
    assert report["channel_fraction"] == pytest.approx(by_channel, abs=1e-5)
    assert report["integration_fraction"] == pytest.approx(by_time, abs=1e-5)


def test_second_run_gives_same_bytes(tmp_path: Path) -> None:
    again = contimg("flag", ms=SICK.ms, out=tmp_path)["artifact"]
    first, second = (read_manifest(artifact).outputs for artifact in (SICK.flags, again))
    assert {(x.name, x.sha256) for x in first} == {(x.name, x.sha256) for x in second}
    digest = hashlib.sha256((Path(SICK.ms) / "ms.tar").read_bytes()).hexdigest()
    assert digest == read_manifest(SICK.ms).output("ms.tar").sha256


def test_rfi_off_skips_interference_steps(tmp_path: Path) -> None:
    summary = contimg("flag", ms=SICK.ms, out=tmp_path, rfi="off", clip_sigma=1000)
    steps = load_report(summary["artifact"])["steps"]
    assert [step["step"] for step in steps] == ["missing", "zeros", "autos", "dead", "clip"]
    assert steps[-1]["added"] == 0


@pytest.mark.slow
def test_rfi_casa_flags_by_tfcrop_and_rflag(tmp_path: Path) -> None:
    summary = contimg("flag", ms=SICK.ms, out=tmp_path, rfi="casa")
    step = load_report(summary["artifact"])["steps"][5]
    assert (step["step"], step["meaning"]) == ("rfi", "CASA tfcrop and rflag, each baseline")
    assert 0 < step["added"] < 0.2
