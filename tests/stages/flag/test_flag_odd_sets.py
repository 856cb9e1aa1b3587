"""Measurement Sets that are out of the ordinary, and ends that are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from chain import BIN, ENVIRONMENT, Chain
from contimg.records.flagfile import read_flags
from contimg.records.ms import Antennas, MSHeader, Rows, create
from contimg.runtime.errors import BadInputError, UsageError
from contimg.runtime.manifest import QA, Manifest
from contimg.runtime.tar import pack
from contimg_flag import rfi
from contimg_flag.ledger import Ledger
from contimg_flag.visibilities import Visibilities

if TYPE_CHECKING:
    from datetime import datetime

TABLE_ANTENNAS, USED = 9, np.array([0, 2, 3, 5, 8])
TIMES, CHANNELS = 3, 48


def rows() -> Rows:
    """Three integrations of five of nine stations."""
    first, second = (USED[index].astype(np.int32) for index in np.triu_indices(USED.size))
    count = TIMES * first.size
    return Rows(
        5.27e9 + 12.9 * np.repeat(np.arange(TIMES), first.size),
        np.full(count, 12.9),
        np.tile(first, TIMES),
        np.tile(second, TIMES),
        np.zeros((count, 3)),
        np.ones((count, 2), np.float32),
    )


def make(
    path: Path,
    flags: np.ndarray | None = None,
    data: np.ndarray | None = None,
    correlations: tuple[int, ...] = (9, 12),
) -> Path:
    rng = np.random.default_rng(2)
    of_rows = rows()
    shape = (len(of_rows), CHANNELS, len(correlations))
    antennas = Antennas(
        tuple(map(str, range(101, 101 + TABLE_ANTENNAS))),
        np.ones((TABLE_ANTENNAS, 3)),
        np.full(TABLE_ANTENNAS, 4.65),
    )
    header = MSHeader(
        "DSA_110",
        "field",
        0.4,
        0.6,
        1.3e9 + 244140.625 * np.arange(CHANNELS),
        244140.625,
        antennas,
        correlations,
    )
    seen = (
        1 + rng.standard_normal(shape) + 1j * rng.standard_normal(shape) if data is None else data
    )
    weight = np.ones((shape[0], shape[2]), np.float32)
    with create(path, header, replace(of_rows, weight=weight)) as writer:
        writer.put(
            0,
            {
                "DATA": seen.astype(np.complex64),
                "FLAG": np.zeros(shape, bool) if flags is None else flags,
            },
        )
    return path


def artifact(folder: Path, ms: Path, created: datetime) -> str:
    """Make a convert artifact of an MS."""
    folder.mkdir()
    with (folder / "ms.tar").open("wb") as sink:
        size, digest = pack(ms, sink)
    manifest = Manifest(
        stage="convert",
        version="1",
        key=folder.name,
        options={},
        inputs=(),
        tools={},
        metrics={},
        qa=QA(),
        seconds={},
        created=created,
        outputs=({"name": "ms.tar", "bytes": size, "sha256": digest},),  # type: ignore[arg-type]
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return str(folder)


@pytest.fixture
def moment() -> datetime:
    from datetime import UTC, datetime

    return datetime(2026, 1, 25, tzinfo=UTC)


def flag(
    ms: str, out: Path, *more: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / "contimg-flag"), f"--ms={ms}", f"--out={out}", *more]
    return subprocess.run(
        argv, capture_output=True, text=True, env=environment or ENVIRONMENT, check=False
    )


def test_stations_that_are_in_no_row_count_in_nothing(tmp_path: Path, moment: datetime) -> None:
    done = flag(artifact(tmp_path / "ms", make(tmp_path / "five.ms"), moment), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    made = Path(json.loads(done.stdout)["artifact"])
    found = json.loads((made / "flagging.json").read_text())
    assert [item["name"] for item in found["antennas"]] == ["101", "103", "104", "106", "109"]
    assert found["cross_rows"] == TIMES * 10
    # 10 of 15 rows of an integration are cross-correlations; nothing is wrong with them but a tail of noise.
    assert found["fraction"] <= 0.02
    assert read_flags(made / "flags.bin").shape == (TIMES * 15, CHANNELS, 2)


def test_flags_of_the_set_are_kept_and_counted_first(tmp_path: Path, moment: datetime) -> None:
    flags = np.zeros((TIMES * 15, CHANNELS, 2), bool)
    flags[:, :12], flags[7, 20, 1] = True, True
    done = flag(artifact(tmp_path / "ms", make(tmp_path / "a.ms", flags), moment), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    made = Path(json.loads(done.stdout)["artifact"])
    assert read_flags(made / "flags.bin")[flags].all()
    steps = json.loads((made / "flagging.json").read_text())["steps"]
    assert steps[0]["fraction"] == pytest.approx(
        12 / CHANNELS + 1 / (TIMES * 10 * CHANNELS * 2), abs=2e-6
    )
    # What everybody lacks makes nobody dead.
    assert json.loads(done.stdout)["metrics"]["dead_receptors"] == []


def test_one_bad_polarization_leaves_the_other(tmp_path: Path, moment: datetime) -> None:
    data = 1 + np.random.default_rng(2).standard_normal((TIMES * 15, CHANNELS, 2)) + 0j
    mine = (rows().antenna1 == 3) | (rows().antenna2 == 3)
    data[mine, :, 1] = 0
    done = flag(
        artifact(tmp_path / "ms", make(tmp_path / "a.ms", data=data), moment),
        tmp_path / "out",
        "--rfi=off",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["dead_receptors"] == ["104Y"]
    found = read_flags(Path(json.loads(done.stdout)["artifact"]) / "flags.bin")
    cross = rows().antenna1 != rows().antenna2
    assert found[mine, :, 1].all()
    assert found[mine & cross, :, 0].mean() <= 0.01


def test_a_set_of_one_correlation_is_flagged_too(tmp_path: Path, moment: datetime) -> None:
    done = flag(
        artifact(tmp_path / "ms", make(tmp_path / "a.ms", correlations=(9,)), moment),
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert read_flags(Path(json.loads(done.stdout)["artifact"]) / "flags.bin").shape == (
        TIMES * 15,
        CHANNELS,
        1,
    )


def test_a_set_that_is_all_flagged_is_refused_with_its_reason(
    tmp_path: Path, moment: datetime
) -> None:
    flags = np.ones((TIMES * 15, CHANNELS, 2), bool)
    done = flag(artifact(tmp_path / "ms", make(tmp_path / "a.ms", flags), moment), tmp_path / "out")
    assert done.returncode == 14
    said = json.loads(done.stderr.splitlines()[-1])
    assert "after missing 100.0%" in said["message"]
    assert "Look at the raw data" in said["message"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("dead_fraction", "0"), ("dead_fraction", "1.1"), ("clip_sigma", "-1"), ("rfi", "magic")],
)
def test_options_that_mean_nothing_are_usage_errors(
    option: str, value: str, tmp_path: Path
) -> None:
    done = flag("nowhere", tmp_path, f"--{option.replace('_', '-')}={value}")
    assert done.returncode == 2
    assert option.replace("_", "-") in done.stderr


def test_an_artifact_that_is_no_conversion_is_refused(tmp_path: Path, moment: datetime) -> None:
    (tmp_path / "ms").mkdir()
    manifest = Manifest(
        stage="image",
        version="1",
        key="k",
        options={},
        inputs=(),
        tools={},
        outputs=(),
        metrics={},
        qa=QA(),
        seconds={},
        created=moment,
    )
    (tmp_path / "ms" / "manifest.json").write_text(manifest.model_dump_json())
    done = flag(str(tmp_path / "ms"), tmp_path / "out")
    assert done.returncode == 19
    assert (
        "There is no ms.tar, it has no outputs"
        in json.loads(done.stderr.splitlines()[-1])["message"]
    )


def test_a_missing_artifact_is_not_found(tmp_path: Path) -> None:
    done = flag(str(tmp_path / "nothing"), tmp_path / "out")
    assert done.returncode == 25


def test_blocks_cover_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contimg_flag.visibilities.BLOCK_BYTES", 7 * CHANNELS * 2 * 8)
    visibilities = Visibilities(make(tmp_path / "a.ms"))
    blocks = [
        block
        for block, data in visibilities.blocks()
        if data.shape == (block.stop - block.start, CHANNELS, 2)
    ]
    assert [(block.start, block.stop) for block in blocks] == [
        (k, min(k + 7, 45)) for k in range(0, 45, 7)
    ]


def test_flags_go_to_the_scratch_copy_and_come_back(tmp_path: Path) -> None:
    visibilities = Visibilities(make(tmp_path / "a.ms"))
    visibilities.flags[3, 4, 1] = True
    visibilities.store()
    again = Visibilities(tmp_path / "a.ms")
    assert np.argwhere(again.flags).tolist() == [[3, 4, 1]]
    visibilities.flags[:] = False
    visibilities.join()
    assert visibilities.flags[3, 4, 1]


def test_the_ledger_counts_cross_correlations_by_antenna_and_time(tmp_path: Path) -> None:
    visibilities = Visibilities(make(tmp_path / "a.ms"))
    ledger = Ledger(visibilities)
    row = int(np.flatnonzero((visibilities.antenna1 == 0) & (visibilities.antenna2 == 8))[1])
    visibilities.flags[row, :24, 0] = True
    visibilities.flags[~visibilities.cross] = True
    ledger.note("trial", "a test")
    report = ledger.report(np.zeros((TABLE_ANTENNAS, 2), bool))
    assert report["fraction"] == pytest.approx(24 / (TIMES * 10 * CHANNELS * 2), abs=1e-6)
    by_name = {item["name"]: item["fraction"] for item in report["antennas"]}
    # An antenna has four baselines in three integrations.
    assert by_name["101"] == by_name["109"] == [pytest.approx(0.5 / 12, abs=1e-6), 0.0]
    assert by_name["104"] == [0.0, 0.0]
    assert report["integration_fraction"] == [0.0, pytest.approx(0.5 / 20, abs=1e-6), 0.0]
    assert report["channel_fraction"][0] == pytest.approx(1 / 60, abs=1e-6)
    assert report["channel_fraction"][24] == 0


def test_an_empty_set_is_bad_input(tmp_path: Path) -> None:
    import casacore.tables as ct

    with (
        ct.table(str(make(tmp_path / "a.ms")), ack=False) as table,
        table.query("ANTENNA1 > 1000") as nothing,
    ):
        nothing.copy(str(tmp_path / "b.ms"), deep=True).close()
    with pytest.raises(BadInputError):
        Visibilities(tmp_path / "b.ms")


def test_without_aoflagger_the_stage_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contimg_flag.rfi.tool_version", lambda _: "absent")
    with pytest.raises(
        UsageError, match=r"expected the program aoflagger, found none on the PATH.*--rfi casa"
    ):
        rfi.aoflagger(Visibilities(make(tmp_path / "a.ms")), context=None)  # type: ignore[arg-type]


def test_told_to_stop_it_leaves_nothing_behind(small_chain: Chain, tmp_path: Path) -> None:
    """SIGTERM while AOFlagger runs: exit 21 within 10 s, no artifact, no AOFlagger, no scratch."""
    # An AOFlagger that takes its time; the strategy, the data and the rest are real.
    slow = tmp_path / "bin" / "aoflagger"
    slow.parent.mkdir()
    slow.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo "AOFlagger 3.1"; exit; }\necho $$ > "$MARK"\nexec sleep 60\n'
    )
    slow.chmod(0o755)
    mark, scratch = tmp_path / "mark", tmp_path / "scratch"
    environment = {
        **ENVIRONMENT,
        "PATH": f"{slow.parent}:{os.environ['PATH']}",
        "MARK": str(mark),
        "CONTIMG_SCRATCH": str(scratch),
    }
    argv = [str(BIN / "contimg-flag"), f"--ms={small_chain.ms}", f"--out={tmp_path / 'out'}"]
    child = subprocess.Popen(
        argv, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    for _ in range(600):
        if mark.exists() and mark.read_text().strip():
            break
        time.sleep(0.1)
    started = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(15) == 21
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert not list(tmp_path.glob("out/**/manifest.json"))
    assert not list(scratch.glob("*"))
