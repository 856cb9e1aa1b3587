"""Unusual Measurement Sets, and failures of the flag stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest

from chain import BIN, ENVIRONMENT, Chain
from contimg.records.flagfile import read_flags
from contimg.records.ms import Antennas, MSHeader, Rows, create
from contimg.runtime.errors import BadInputError, UsageError
from contimg_flag import rfi
from contimg_flag.visibilities import Visibilities
from observed import packed, write_artifact
from waiting import wait_for

ANTENNAS, USED = 9, np.array([0, 2, 3, 5, 8])
TIMES, CHANNELS = 3, 48
FIRST, SECOND = (USED[index].astype(np.int32) for index in np.triu_indices(USED.size))
ROWS = Rows(
    time_s=5.27e9 + 12.9 * np.repeat(np.arange(TIMES), FIRST.size),
    interval_s=np.full(TIMES * FIRST.size, 12.9),
    antenna1=np.tile(FIRST, TIMES),
    antenna2=np.tile(SECOND, TIMES),
    uvw_m=np.zeros((TIMES * FIRST.size, 3)),
    weight=np.ones((TIMES * FIRST.size, 2), np.float32),
)
"""Three integrations of five of nine stations."""
SHAPE = (len(ROWS), CHANNELS, 2)
CROSS = ROWS.antenna1 != ROWS.antenna2


def write_ms(
    path: Path,
    flags: np.ndarray | None = None,
    data: np.ndarray | None = None,
    correlations: tuple[int, ...] = (9, 12),
) -> Path:
    rng = np.random.default_rng(2)
    shape = (len(ROWS), CHANNELS, len(correlations))
    header = MSHeader(
        telescope="DSA_110",
        field="field",
        ra_rad=0.4,
        dec_rad=0.6,
        frequencies_hz=1.3e9 + 244140.625 * np.arange(CHANNELS),
        channel_width_hz=244140.625,
        antennas=Antennas(
            names=tuple(str(101 + k) for k in range(ANTENNAS)),
            positions_m=np.ones((ANTENNAS, 3)),
            diameters_m=np.full(ANTENNAS, 4.65),
        ),
        correlations=correlations,
    )
    if data is None:
        data = 1 + rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    if flags is None:
        flags = np.zeros(shape, bool)
    weight = np.ones((shape[0], shape[2]), np.float32)
    with create(path, header, replace(ROWS, weight=weight)) as writer:
        writer.put(0, {"DATA": data.astype(np.complex64), "FLAG": flags})
    return path


def run(ms: str | Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / "contimg-flag"), f"--ms={ms}", f"--out={out}", *options]
    return subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def run_on(folder: Path, *options: str, **content: Any) -> subprocess.CompletedProcess[str]:
    """Run the stage on a convert artifact of such a Measurement Set."""
    files = {"ms.tar": packed(write_ms(folder / "made.ms", **content))}
    write_artifact(folder / "ms", "convert", {}, files)
    return run(folder / "ms", folder / "out", *options)


def flag(folder: Path, *options: str, **content: Any) -> tuple[dict[str, Any], np.ndarray, Any]:
    """Flag such a Measurement Set; return the metrics, the flags and flagging.json."""
    done = run_on(folder, *options, **content)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    artifact = Path(summary["artifact"])
    report = json.loads((artifact / "flagging.json").read_text())
    return summary["metrics"], read_flags(artifact / "flags.bin"), report


def last_message(done: subprocess.CompletedProcess[str]) -> str:
    return str(json.loads(done.stderr.splitlines()[-1])["message"])


def test_stations_without_rows_are_not_counted(tmp_path: Path) -> None:
    _, flags, report = flag(tmp_path)
    assert [item["name"] for item in report["antennas"]] == ["101", "103", "104", "106", "109"]
    assert report["cross_rows"] == TIMES * 10
    # 10 of 15 rows of an integration are cross-correlations, with nothing but a tail of noise.
    assert report["fraction"] <= 0.02
    assert flags.shape == SHAPE


def test_flags_of_the_set_are_kept_and_counted_first(tmp_path: Path) -> None:
    given = np.zeros(SHAPE, bool)
    given[:, :12], given[7, 20, 1] = True, True
    metrics, flags, report = flag(tmp_path, flags=given)
    assert flags[given].all()
    fraction = 12 / CHANNELS + 1 / (TIMES * 10 * CHANNELS * 2)
    assert report["steps"][0]["fraction"] == pytest.approx(fraction, abs=2e-6)
    # Channels that all receptors lack make none of them dead.
    assert metrics["dead_receptors"] == []


def test_one_bad_polarization_leaves_the_other(tmp_path: Path) -> None:
    data = 1 + np.random.default_rng(2).standard_normal(SHAPE) + 0j
    rows = (ROWS.antenna1 == 3) | (ROWS.antenna2 == 3)
    data[rows, :, 1] = 0
    metrics, flags, _ = flag(tmp_path, "--rfi=off", data=data)
    assert metrics["dead_receptors"] == ["104Y"]
    assert flags[rows, :, 1].all()
    assert flags[rows & CROSS, :, 0].mean() <= 0.01


def test_set_of_one_correlation_is_flagged(tmp_path: Path) -> None:
    _, flags, _ = flag(tmp_path, correlations=(9,))
    assert flags.shape == (*SHAPE[:2], 1)


def test_fully_flagged_set_is_refused_with_its_reason(tmp_path: Path) -> None:
    done = run_on(tmp_path, flags=np.ones(SHAPE, bool))
    assert done.returncode == 14
    assert "after missing 100.0%" in last_message(done)
    assert "Look at the raw data" in last_message(done)


@pytest.mark.parametrize(
    ("option", "value"),
    [("dead-fraction", "0"), ("dead-fraction", "1.1"), ("clip-sigma", "-1"), ("rfi", "magic")],
)
def test_option_out_of_range_is_a_usage_error(option: str, value: str, tmp_path: Path) -> None:
    done = run("nowhere", tmp_path, f"--{option}={value}")
    assert done.returncode == 2
    assert option in done.stderr


def test_artifact_of_another_stage_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "ms", "image", {}, {})
    done = run(tmp_path / "ms", tmp_path / "out")
    assert done.returncode == 19
    assert "ms.tar" in last_message(done)


def test_missing_artifact_is_not_found(tmp_path: Path) -> None:
    assert run(tmp_path / "nothing", tmp_path / "out").returncode == 25


def test_blocks_cover_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contimg_flag.visibilities.BLOCK_BYTES", 7 * CHANNELS * 2 * 8)
    blocks = list(Visibilities(write_ms(tmp_path / "a.ms"), "ms").blocks())
    assert [data.shape[0] for _, data in blocks] == [7] * 6 + [3]
    assert [(block.start, block.stop) for block, _ in blocks] == [
        (k, min(k + 7, 45)) for k in range(0, 45, 7)
    ]


def test_flags_on_disk_are_written_and_merged_back(tmp_path: Path) -> None:
    visibilities = Visibilities(write_ms(tmp_path / "a.ms"), "ms")
    visibilities.flags[3, 4, 1] = True
    with visibilities.flags_on_disk():
        again = Visibilities(tmp_path / "a.ms", "ms")
        assert np.argwhere(again.flags).tolist() == [[3, 4, 1]]
        visibilities.flags[:] = False
    assert visibilities.flags[3, 4, 1]


def test_counts_are_by_antenna_channel_and_time(tmp_path: Path) -> None:
    visibilities = Visibilities(write_ms(tmp_path / "a.ms"), "ms")
    row = int(np.flatnonzero((visibilities.antenna1 == 0) & (visibilities.antenna2 == 8))[1])
    visibilities.flags[row, :24, 0] = True
    visibilities.flags[~visibilities.cross] = True
    visibilities.record_step("trial", "a test")
    report = visibilities.report(np.zeros((ANTENNAS, 2), bool))
    assert report["fraction"] == pytest.approx(24 / (TIMES * 10 * CHANNELS * 2), abs=1e-6)
    by_name = {item["name"]: item["fraction"] for item in report["antennas"]}
    # An antenna has four baselines in three integrations.
    assert by_name["101"] == by_name["109"] == [pytest.approx(0.5 / 12, abs=1e-6), 0.0]
    assert by_name["104"] == [0.0, 0.0]
    assert report["integration_fraction"] == [0.0, pytest.approx(0.5 / 20, abs=1e-6), 0.0]
    assert report["channel_fraction"][0] == pytest.approx(1 / 60, abs=1e-6)
    assert report["channel_fraction"][24] == 0


def test_empty_set_is_bad_input(tmp_path: Path) -> None:
    with (
        ct.table(str(write_ms(tmp_path / "a.ms")), ack=False) as table,
        table.query("ANTENNA1 > 1000") as nothing,
    ):
        nothing.copy(str(tmp_path / "b.ms"), deep=True).close()
    with pytest.raises(BadInputError):
        Visibilities(tmp_path / "b.ms", "ms")


def test_missing_aoflagger_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contimg_flag.rfi.tool_version", lambda _: "absent")
    visibilities = Visibilities(write_ms(tmp_path / "a.ms"), "ms")
    with pytest.raises(UsageError, match=r"aoflagger is not on the PATH.*--rfi casa"):
        rfi.run_aoflagger(visibilities, context=None)  # type: ignore[arg-type]


def test_sigterm_during_aoflagger_leaves_nothing(small_chain: Chain, tmp_path: Path) -> None:
    """Exit 21, no artifact, no AOFlagger, no scratch."""
    # An AOFlagger that does not end; the strategy, the data and the rest are real.
    slow, mark, scratch = tmp_path / "bin/aoflagger", tmp_path / "mark", tmp_path / "scratch"
    slow.parent.mkdir()
    version = '[ "$1" = --version ] && { echo "AOFlagger 3.1"; exit; }'
    slow.write_text(f'#!/bin/sh\n{version}\necho $$ > "$MARK"\nexec sleep 600\n')
    slow.chmod(0o755)
    path = f"{slow.parent}:{os.environ['PATH']}"
    added = {"PATH": path, "MARK": str(mark), "CONTIMG_SCRATCH": str(scratch)}
    argv = [str(BIN / "contimg-flag"), f"--ms={small_chain.ms}", f"--out={tmp_path / 'out'}"]
    child = subprocess.Popen(argv, env={**ENVIRONMENT, **added}, stderr=subprocess.DEVNULL)
    wait_for(lambda: mark.exists() and mark.read_text().strip(), 120)
    child.send_signal(signal.SIGTERM)
    assert child.wait(120) == 21
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert not list(tmp_path.glob("out/**/manifest.json"))
    assert not list(scratch.glob("*"))
