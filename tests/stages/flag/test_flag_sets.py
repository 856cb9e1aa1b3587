"""Measurement Sets made for the flag stage: unusual ones, and interference on few baselines.

The amplitudes of that interference are several times the noise of one visibility.
"""

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest

from chain import BIN, ENVIRONMENT, Chain
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.flagfile import read_flags
from contimg.records.ms import Antennas, MSHeader, Rows, create
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, UsageError
from contimg_flag import rfi
from contimg_flag.stage import flag_zeros_and_dead
from contimg_flag.visibilities import Visibilities
from observed import packed, write_artifact
from waiting import wait_for

ANTENNAS, USED = 9, np.array([0, 2, 3, 5, 8])
TIMES, CHANNELS = 3, 48
PAIRS = tuple(USED[index].astype(np.int32) for index in np.triu_indices(USED.size))
"""Three integrations of five of nine stations."""
ANTENNA1, ANTENNA2 = (np.tile(index, TIMES) for index in PAIRS)
SHAPE = (ANTENNA1.size, CHANNELS, 2)
CROSS = ANTENNA1 != ANTENNA2


def write_ms(
    path: Path,
    data: np.ndarray,
    flags: np.ndarray,
    pairs: tuple[np.ndarray, ...] = PAIRS,
    integration_s: float = 12.9,
    bottom_hz: float = 1.3e9,
    width_hz: float = 244140.625,
) -> Path:
    """Write data and flags, shape (rows, channels, correlations); each integration has `pairs`."""
    count, channels, correlations = data.shape
    times, antennas = count // pairs[0].size, int(pairs[1].max()) + 1
    names = tuple(str(101 + k) for k in range(antennas))
    header = MSHeader(
        telescope="DSA_110",
        field="field",
        ra_rad=0.4,
        dec_rad=0.6,
        frequencies_hz=bottom_hz + width_hz * np.arange(channels),
        channel_width_hz=width_hz,
        antennas=Antennas(names, np.ones((antennas, 3)), np.full(antennas, 4.65)),
        correlations=(9, 12)[:correlations],
    )
    rows = Rows(
        time_s=5.27e9 + integration_s * np.repeat(np.arange(times), pairs[0].size),
        interval_s=np.full(count, integration_s),
        antenna1=np.tile(pairs[0], times),
        antenna2=np.tile(pairs[1], times),
        uvw_m=np.zeros((count, 3)),
        weight=np.ones((count, correlations), np.float32),
    )
    with create(path, header, rows) as writer:
        writer.put(0, {"DATA": data.astype(np.complex64), "FLAG": flags})
    return path


def write_odd_ms(path: Path, flags: Any = None, data: Any = None, correlations: int = 2) -> Path:
    rng, shape = np.random.default_rng(2), (*SHAPE[:2], correlations)
    if data is None:
        data = 1 + rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return write_ms(path, data, np.zeros(shape, bool) if flags is None else flags)


@pytest.fixture
def visibilities(tmp_path: Path) -> Visibilities:
    return Visibilities(write_odd_ms(tmp_path / "a.ms"), "ms")


def run(ms: str | Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / "contimg-flag"), f"--ms={ms}", f"--out={out}", *options]
    return subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def run_on(folder: Path, *options: str, **content: Any) -> subprocess.CompletedProcess[str]:
    """Run the stage on a convert artifact of such a Measurement Set."""
    files = {"ms.tar": packed(write_odd_ms(folder / "made.ms", **content))}
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


def test_stations_without_rows_are_not_counted(tmp_path: Path) -> None:
    _, flags, report = flag(tmp_path)
    assert [item["name"] for item in report["antennas"]] == ["101", "103", "104", "106", "109"]
    assert report["cross_rows"] == TIMES * 10
    # 10 of 15 rows of an integration are cross-correlations, with nothing but a tail of noise.
    assert report["fraction"] <= 0.02
    assert flags.shape == SHAPE


def test_own_flags_are_kept_and_counted(tmp_path: Path) -> None:
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
    rows = (ANTENNA1 == 3) | (ANTENNA2 == 3)
    data[rows, :, 1] = 0
    metrics, flags, _ = flag(tmp_path, "--rfi=off", data=data)
    assert metrics["dead_receptors"] == ["104Y"]
    assert flags[rows, :, 1].all()
    assert flags[rows & CROSS, :, 0].mean() <= 0.01
    assert flags[~rows & CROSS].mean() <= 0.01


def test_set_of_one_correlation_is_flagged(tmp_path: Path) -> None:
    _, flags, _ = flag(tmp_path, correlations=1)
    assert flags.shape == (*SHAPE[:2], 1)


def test_strong_and_weak_antennas_are_clipped_alike(tmp_path: Path) -> None:
    """Gains of 5 and 0.2: good data stay, and 12 sigma on the weak antenna are found."""
    rng, shape = np.random.default_rng(3), (TIMES * FIRST.size, 96, 2)
    one, two = np.tile(FIRST, TIMES), np.tile(SECOND, TIMES)
    gain = np.ones(14)
    gain[3], gain[8] = 5, 0.2
    data = 1 + rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    planted = rng.uniform(size=shape) < 5e-3
    planted[(one == two) | ((one != 8) & (two != 8))] = False
    data[planted] += 12
    data *= (gain[one] * gain[two])[:, None, None]
    path = write_ms(tmp_path / "made.ms", data, np.zeros(shape, bool), (FIRST, SECOND))
    write_artifact(tmp_path / "ms", "convert", {}, {"ms.tar": packed(path)})
    done = run(tmp_path / "ms", tmp_path / "out", "--rfi=off")
    flags = read_flags(Path(json.loads(done.stdout)["artifact"]) / "flags.bin")
    assert planted.sum() > 5
    assert flags[planted].all()
    assert flags[(one != two)[:, None, None] & ~planted].mean() <= 1e-4


EMPTY = {
    "missing 100.0%": {"flags": np.ones(SHAPE, bool)},
    "missing 0.0%, zeros 100.0%": {"data": np.zeros(SHAPE)},
}


@pytest.mark.parametrize("steps", EMPTY)
def test_set_without_good_data_is_refused(tmp_path: Path, steps: str) -> None:
    done = run_on(tmp_path, **EMPTY[steps])
    failure = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, failure["code"]) == (14, "ALL_FLAGGED")
    assert f"All visibilities are flagged (after {steps}" in failure["message"]
    assert "Look at the raw data" in failure["message"]
    assert not list(tmp_path.glob("out/*/manifest.json"))


OUT_OF_RANGE = ("dead-fraction=0", "dead-fraction=1.1", "clip-sigma=-1", "rfi=magic")


@pytest.mark.parametrize("option", OUT_OF_RANGE)
def test_option_out_of_range_is_refused(option: str, tmp_path: Path) -> None:
    done = run("nowhere", tmp_path, f"--{option}")
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr


def test_artifact_without_ms_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "ms", "image", {}, {})
    done = run(tmp_path / "ms", tmp_path / "out")
    assert done.returncode == 19
    assert "ms.tar" in json.loads(done.stderr.splitlines()[-1])["message"]
    assert run(tmp_path / "nothing", tmp_path / "out").returncode == 25


def test_blocks_cover_every_row_once(visibilities: Visibilities, monkeypatch: Any) -> None:
    monkeypatch.setattr("contimg_flag.visibilities.BLOCK_BYTES", 7 * CHANNELS * 2 * 8)
    blocks = [(block, len(data)) for block, data in visibilities.blocks()]
    assert [count for _, count in blocks] == [7] * 6 + [3]
    assert [block for block, _ in blocks] == [slice(k, min(k + 7, 45)) for k in range(0, 45, 7)]


def test_flags_on_disk_are_merged_back(visibilities: Visibilities) -> None:
    visibilities.flags[3, 4, 1] = True
    with visibilities.flags_on_disk():
        assert np.argwhere(Visibilities(visibilities.path, "ms").flags).tolist() == [[3, 4, 1]]
        visibilities.flags[:] = False
    assert visibilities.flags[3, 4, 1]


def test_counts_are_by_antenna_channel_and_time(visibilities: Visibilities) -> None:
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


def test_empty_set_is_refused(visibilities: Visibilities, tmp_path: Path) -> None:
    with (
        ct.table(str(visibilities.path), ack=False) as table,
        table.query("ANTENNA1 > 1000") as nothing,
    ):
        nothing.copy(str(tmp_path / "b.ms"), deep=True).close()
    with pytest.raises(BadInputError):
        Visibilities(tmp_path / "b.ms", "ms")


def test_missing_aoflagger_is_explained(visibilities: Visibilities, monkeypatch: Any) -> None:
    monkeypatch.setattr("contimg_flag.rfi.tool_version", lambda _: "absent")
    with pytest.raises(UsageError, match=r"aoflagger is not on the PATH.*--rfi casa"):
        rfi.run_aoflagger(visibilities, context=None, brightness=0.0)  # type: ignore[arg-type]


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


FIRST, SECOND = (index.astype(np.int32) for index in np.triu_indices(14))
SEFD_JY, SPAN_S, BAND_HZ, LOWEST_HZ = 6000.0, 309.24, 187.5e6, 1311.265e6
EARTH_RAD_S = 7.292e-5


@dataclass(frozen=True)
class Size:
    """Integrations and channels of a group."""

    times: int
    channels: int
    integration_s: float = 12.884902

    @property
    def sigma_jy(self) -> float:
        """Noise of a real part: the radiometer equation."""
        return float(SEFD_JY / np.sqrt(2 * BAND_HZ / self.channels * self.integration_s))

    @property
    def frequency_hz(self) -> np.ndarray:
        return LOWEST_HZ + BAND_HZ * (np.arange(self.channels) + 0.5) / self.channels


FULL, SMALL = Size(24, 768), Size(4, 192)


@cache
def simulate_sky(size: Size, calibrator_jy: float) -> np.ndarray:
    """Return visibilities in Jy, shape (times, baselines, channels), of a calibrator and its field.

    The other sources have 2.3 to 0.3 Jy and are up to 1.4 degrees away.
    """
    rng = np.random.default_rng(4)
    # A core and outriggers as far apart as ours.
    core, outriggers = rng.normal(0, 120, (9, 2)), rng.uniform(-1200, 1200, (5, 2))
    place = np.concatenate([core, outriggers])
    baseline = place[SECOND] - place[FIRST]
    hour_angle = EARTH_RAD_S * size.integration_s * (np.arange(size.times) - size.times / 2)
    flux = [calibrator_jy, 2.3, 1.1, 0.8, 0.5, 0.3]
    offset = np.radians(np.concatenate([[[0.1, 0.05]], rng.uniform(-1, 1, (5, 2))]))
    total = np.zeros((size.times, FIRST.size, size.channels), complex)
    for t, turn in enumerate(hour_angle):
        u, v = baseline[:, 0] - turn * baseline[:, 1], baseline[:, 1] + turn * baseline[:, 0]
        for jy, (east, north) in zip(flux, offset, strict=True):
            delay_s = (u * east + v * north) / SPEED_OF_LIGHT_M_S
            total[t] += jy * np.exp(2j * np.pi * np.outer(delay_s, size.frequency_hz))
    return total


def place_interference(size: Size) -> np.ndarray:
    """Return where one baseline in ten has carriers and bursts of one integration."""
    rng = np.random.default_rng(6)
    found = np.zeros((size.times, FIRST.size, size.channels), bool)
    for baseline in np.flatnonzero(FIRST != SECOND)[::10]:
        found[:, baseline, rng.integers(size.channels, size=3)] = True
        subband = rng.integers(16)
        width = size.channels // 16
        found[rng.integers(size.times), baseline, subband * width : (subband + 1) * width] = True
    return found


def write_observed_ms(
    path: Path, size: Size, data: np.ndarray, noise_factor: float
) -> Visibilities:
    """Write an MS of data in Jy with unequal gains, and with noise of their own for X and Y."""
    rng, shape = np.random.default_rng(9), (14, 1, 2)
    gains = 0.07 * rng.uniform(0.8, 1.2, shape) * np.exp(2j * np.pi * rng.uniform(size=shape))
    ripple = 1 + 0.1 * np.sin(np.linspace(0, 9, size.channels) + rng.uniform(0, 6, (14, 1)))
    gains = gains * ripple[..., None]
    noise = rng.standard_normal((*data.shape, 2)) + 1j * rng.standard_normal((*data.shape, 2))
    noise *= noise_factor * size.sigma_jy
    seen = (data[..., None] + noise) * gains[FIRST] * np.conj(gains[SECOND])
    flat, width_hz = seen.reshape(-1, size.channels, 2), BAND_HZ / size.channels
    bottom_hz, flags = LOWEST_HZ + width_hz / 2, np.zeros(flat.shape, bool)
    write_ms(path, flat, flags, (FIRST, SECOND), size.integration_s, bottom_hz, width_hz)
    return Visibilities(path, "ms")


def run_aoflagger(
    folder: Path,
    size: Size,
    data: np.ndarray,
    flags: np.ndarray | None = None,
    noise_factor: float = 1.0,
) -> np.ndarray:
    """Return AOFlagger's flags of cross-correlations, shape (times, baselines, channels, 2)."""
    visibilities = write_observed_ms(folder / "trial.ms", size, data, noise_factor)
    if flags is not None:
        visibilities.flags |= np.repeat(flags.reshape(-1, size.channels)[..., None], 2, axis=-1)
    visibilities.record_step("missing", "a test")
    *_, brightness = flag_zeros_and_dead(visibilities, 0.95)
    context = Context(str(folder / "artifact"), folder, (), ENVIRONMENT)
    rfi.run_aoflagger(visibilities, context, brightness)
    return visibilities.flags.reshape(size.times, FIRST.size, size.channels, 2)[:, FIRST != SECOND]


@pytest.mark.parametrize(
    ("size", "calibrator_jy", "noise_factor"),
    [(FULL, 0.0, 1), (FULL, 16.0, 1), (FULL, 16.0, 0.1), (SMALL, 0.0, 1), (SMALL, 16.0, 0.1)],
)
def test_clean_bright_fringes_stay(
    tmp_path: Path, size: Size, calibrator_jy: float, noise_factor: float
) -> None:
    """At most 1.5 % of clean data are flagged; AOFlagger's SumThreshold takes 0.3 % of noise."""
    sky = simulate_sky(size, calibrator_jy)
    found = run_aoflagger(tmp_path, size, sky, noise_factor=noise_factor)
    assert found.mean() <= 0.015
    assert found.mean(axis=(0, 2, 3)).max() <= 0.05


def test_interference_on_few_baselines_is_found(tmp_path: Path) -> None:
    where = place_interference(FULL)
    phase = np.exp(0.3j * np.arange(FULL.times))[:, None, None]
    data = simulate_sky(FULL, 0.0) + 5 * FULL.sigma_jy * where * phase
    found, wanted = run_aoflagger(tmp_path, FULL, data), where[:, FIRST != SECOND]
    carrier = wanted.all(axis=0)[None] & wanted
    assert found[carrier].mean() >= 0.98
    assert found[wanted & ~carrier].mean() >= 0.98
    assert found[~wanted].mean() <= 0.015


def test_neighbours_of_flagged_samples_stay(tmp_path: Path) -> None:
    """AOFlagger 3.1's sumthreshold_masked takes an eighth of them."""
    burst = np.zeros((SMALL.times, FIRST.size, SMALL.channels), bool)
    burst[1, :, 48:96] = True
    data = simulate_sky(SMALL, 0.0) + 40.0 * burst
    found = run_aoflagger(tmp_path, SMALL, data, burst)
    assert found[burst[:, FIRST != SECOND]].all()
    assert found[~burst[:, FIRST != SECOND]].mean() <= 0.002


def test_same_data_give_same_flags(tmp_path: Path) -> None:
    data = simulate_sky(SMALL, 16.0) + 5 * SMALL.sigma_jy * place_interference(SMALL)
    first = run_aoflagger(tmp_path, SMALL, data)
    shutil.rmtree(tmp_path / "trial.ms")
    assert np.array_equal(first, run_aoflagger(tmp_path, SMALL, data))
