"""Interference that does not move with the sky: found for as long as it lasts, and named.

Bounds fixed before the first run: 90 % of it is found, and 5 % of the rest is flagged.
"""

import json
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import pytest

from chain import Chain, contimg
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet
from contimg.runtime.tar import unpack
from contimg_flag.ground import find_ground_signal
from observed import packed, write_artifact

MIN_FOUND_FRACTION, MAX_FALSE_FRACTION = 0.9, 0.05
BASELINES, CHANNELS = 300, 48
SIGMA = np.sqrt(2)
"""A signal of sigma is this part of the rms of complex noise."""


def observe(
    times: int, sky: float, signal: float, on: list[int], seed: int = 1, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return noise of unit rms, a still sky, and a signal that turns while it is on; the turns."""
    rng = np.random.default_rng(seed)
    shape = (times, BASELINES, CHANNELS, 2)
    data = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / SIGMA
    field = rng.uniform(0, 0.2, (BASELINES, 1)) * np.arange(CHANNELS)
    data += sky * (1 + 0.2 * np.exp(2j * np.pi * 0.02 * field))[None, :, :, None]
    turns = rng.uniform(0.1, 0.6, BASELINES) * np.arange(times)[:, None]
    if mirrored:  # fringes that are stopped the wrong way
        data *= np.exp(4j * np.pi * turns)[..., None, None]
    delay = rng.uniform(-0.05, 0.05, (BASELINES, 1)) * np.arange(CHANNELS)
    phase = rng.uniform(size=BASELINES) + turns
    ground = np.exp(2j * np.pi * (phase[:, :, None] + delay))[..., None]
    data[on] += signal / SIGMA * ground[on]
    return data.astype(np.complex64), -np.diff(turns, axis=0)


@pytest.mark.parametrize(
    ("times", "on"), [(6, [1, 2, 3, 4]), (6, [0, 1, 2, 3, 4]), (24, range(22))]
)
@pytest.mark.parametrize("sky", [0.0, 2.0, 4.0])
def test_signal_of_three_sigma_is_found(times: int, on: list[int], sky: float) -> None:
    signal = find_ground_signal(*observe(times, sky, 3.0, list(on)))
    truth = np.isin(np.arange(times), on)
    assert signal.found[truth].mean() >= MIN_FOUND_FRACTION
    assert signal.found[~truth].mean() <= MAX_FALSE_FRACTION
    assert signal.sigma == pytest.approx(3.0, rel=0.3)
    assert not signal.mirrored


@pytest.mark.parametrize("sky", [0.0, 4.0, 400.0])
@pytest.mark.parametrize("times", [2, 24])
def test_sky_alone_is_no_interference(times: int, sky: float) -> None:
    for seed in range(2):
        signal = find_ground_signal(*observe(times, sky, 0.0, [], seed))
        assert not signal.found.any()
        assert not signal.mirrored


@pytest.mark.parametrize("sky", [0.3, 4.0, 400.0])
@pytest.mark.parametrize("times", [2, 24])
def test_conjugated_sky_is_named(times: int, sky: float) -> None:
    signal = find_ground_signal(*observe(times, sky, 0.0, [], mirrored=True))
    assert signal.describe().startswith("mirrored: ")


def test_signal_of_the_whole_group_is_found() -> None:
    assert find_ground_signal(*observe(6, 4.0, 3.0, list(range(6)))).fraction >= MIN_FOUND_FRACTION


def add_signal(folder: Path, ms: str, on: list[int], *, mirrored: bool = False) -> str:
    """Copy a convert artifact and add a signal from the ground of three times the noise.

    With `mirrored`, the correlator's data were conjugated before convert stopped their fringes.
    """
    with (Path(ms) / "ms.tar").open("rb") as source:
        path = unpack(source, folder / "made")
    with MeasurementSet(path) as given:
        rows, header = given.rows, given.header
        data = given.read("DATA", 0, len(rows))
    times, index = np.unique(rows.time_s, return_inverse=True)
    noise = np.median(np.abs(np.diff(data, axis=1)), axis=(1, 2)) / np.sqrt(4 * np.log(2))
    turns = rows.uvw_m[:, 2:] * header.frequencies_hz / SPEED_OF_LIGHT_M_S
    signal = 3 * noise[:, None] * np.exp(-2j * np.pi * turns)
    if mirrored:
        data = (data.conj() * np.exp(-4j * np.pi * turns)[..., None]).astype(np.complex64)
    loud = np.isin(index, on) & (rows.antenna1 != rows.antenna2)
    data[loud] += signal[loud, :, None].astype(np.complex64)
    assert len(times) == 4
    with ct.table(str(path), readonly=False, ack=False) as table:
        table.putcol("DATA", data)
    write_artifact(folder / "ms", "convert", {}, {"ms.tar": packed(path)})
    return str(folder / "ms")


@pytest.fixture(scope="module")
def field() -> Chain:
    """A field without a calibrator, which the planted faults use, too."""
    return Chain("small", seed=1, tier="development", sky={"ra_deg": 38.9}, name="planted-field")


@pytest.mark.parametrize("on", [[0, 1, 2], [0, 1, 2, 3]], ids=["three of four", "always"])
def test_stage_flags_and_names_interference(field: Chain, on: list[int], tmp_path: Path) -> None:
    ms = add_signal(tmp_path, field.ms, on)
    artifact = Path(contimg("flag", ms=ms, out=tmp_path / "out")["artifact"])
    manifest: dict[str, Any] = json.loads((artifact / "manifest.json").read_text())
    flags = read_flags(artifact / "flags.bin").reshape(4, -1, 192, 2)
    cross = np.flatnonzero(~flags.all(axis=(0, 2, 3)))
    by_time = flags[:, cross].mean(axis=(1, 2, 3))
    # What is everywhere is not flagged: there would be nothing left.
    wanted = np.isin(np.arange(4), on) & (len(on) < 4)
    assert (by_time[wanted] >= MIN_FOUND_FRACTION).all()
    assert (by_time[~wanted] <= MAX_FALSE_FRACTION).all()
    assert manifest["qa"]["verdict"] == "warning"
    assert any(reason.startswith("interference: ") for reason in manifest["qa"]["reasons"])
    assert manifest["metrics"]["interference_fraction"] == pytest.approx(len(on) / 4, abs=0.05)


def test_stage_names_conjugated_data_only(field: Chain, tmp_path: Path) -> None:
    ms = add_signal(tmp_path, field.ms, [], mirrored=True)
    artifact = Path(contimg("flag", ms=ms, out=tmp_path / "out")["artifact"])
    manifest: dict[str, Any] = json.loads((artifact / "manifest.json").read_text())
    [reason] = manifest["qa"]["reasons"]
    assert reason.startswith("mirrored: the sky turns twice as fast")
    assert manifest["metrics"]["fraction"] <= MAX_FALSE_FRACTION
