"""Faults planted in good small groups: each is refused or marked by a named gate, or harmless.

The subbands of a simulated group are edited as the fault would write them and go through the real
stages. Harmless means that no flux with a signal-to-noise ratio above 20 changes by more than 1 %.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from chain import BIN, ENVIRONMENT, ROOT, Chain, contimg, small_calibrator

Plant = Callable[[h5py.File], None]
DEAD = range(0, 96, 2)
"""Every other active antenna, by its rank."""
MAX_CHANGE, MIN_SNR, MIN_BEAM = 0.01, 20.0, 0.2


@dataclass(frozen=True)
class Planted:
    """A copy of a group's subbands with a fault, as far as the stages take it."""

    folder: Path
    group: Chain

    def make(self, stage: str, **options: object) -> tuple[int, str, dict[str, Any]]:
        """Run a stage; return its exit code, the error's message, and the manifest."""
        out = self.folder / "products" / stage
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        argv = [str(BIN / f"contimg-{stage}"), f"--out={out}", *words]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=ROOT
        )
        if done.returncode:
            return done.returncode, done.stderr, {}
        artifact = json.loads(done.stdout)["artifact"]
        manifest = json.loads((Path(artifact) / "manifest.json").read_text())
        return 0, "", {**manifest, "artifact": artifact}

    def upto_flags(self) -> tuple[int, str, dict[str, Any]]:
        """Convert and flag; return the inputs that later stages share."""
        contimg("watch", store=self.folder, size=0, timeout_s=0)
        [record] = (self.folder / "groups").glob("*.json")
        code, said, ms = self.make("convert", group=record)
        if code:
            return code, said, {}
        code, said, flags = self.make("flag", ms=ms["artifact"])
        return code, said, {} if code else {"ms": ms["artifact"], "flags": flags["artifact"]}

    def fluxes(self, inputs: dict[str, Any], calibration: str) -> tuple[pd.DataFrame, list[str]]:
        """Image and measure; return the rows by source, and the reasons of the image's verdict."""
        given = {**inputs, "calibration": calibration, "tier": "development"}
        code, said, image = self.make("image", **given)
        assert not code, said
        where = {"image": image["artifact"], "tables": self.folder / "tables"}
        code, said, rows = self.make("photometry", **where)
        assert not code, said
        found = pd.read_parquet(Path(rows["artifact"]) / "photometry.parquet")
        return found.set_index("source"), image["qa"]["reasons"]


@pytest.fixture(scope="module")
def calibrator() -> Chain:
    """A group on 3C48."""
    return small_calibrator()


@pytest.fixture(scope="module")
def field() -> Chain:
    """A field an hour later."""
    return Chain("small", seed=1, tier="development", sky={"ra_deg": 38.9}, name="planted-field")


@pytest.fixture(scope="module")
def good(calibrator: Chain) -> pd.DataFrame:
    """The calibrator's group without a fault."""
    assert json.loads((Path(calibrator.calibration) / "manifest.json").read_text())["qa"] == {
        "verdict": "good",
        "reasons": [],
    }
    return pd.read_parquet(Path(calibrator.photometry) / "photometry.parquet").set_index("source")


def plant(folder: Path, group: Chain, fault: Plant) -> Planted:
    """Copy a group's subbands and write a fault into each."""
    assert group.truth_artifact
    shutil.copytree(group.store / "incoming", folder / "incoming")
    for path in (folder / "incoming").rglob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            fault(file)
    return Planted(folder, group)


def scale_data(factor: float) -> Plant:
    def fault(file: h5py.File) -> None:
        file["Data/visdata"][...] = file["Data/visdata"][...] * np.complex64(factor)

    return fault


def antenna_rows(file: h5py.File, ranks: range) -> np.ndarray:
    """Return the rows of some of the active antennas."""
    first, second = file["Header/ant_1_array"][...], file["Header/ant_2_array"][...]
    chosen = np.unique(first)[list(ranks)]
    return np.isin(first, chosen) | np.isin(second, chosen)


def kill_half(file: h5py.File) -> None:
    data = file["Data/visdata"][...]
    data[antenna_rows(file, DEAD)] = 0
    file["Data/visdata"][...] = data


def exchange_polarizations(file: h5py.File) -> None:
    """One antenna's X and Y: its products are then XY and YX, noise on an unpolarized sky."""
    data, rows = file["Data/visdata"][...], antenna_rows(file, range(40, 41))
    difference = np.diff(data[rows], axis=2) / np.sqrt(2)
    noise = np.concatenate([difference, difference[:, :, :1]], axis=2)
    shuffled = np.random.default_rng(1).permutation(noise.reshape(-1)).reshape(noise.shape)
    data[rows] = shuffled
    file["Data/visdata"][...] = data


def late(seconds: float) -> Plant:
    def fault(file: h5py.File) -> None:
        file["Header/time_array"][...] = file["Header/time_array"][...] + seconds / 86400

    return fault


@pytest.mark.parametrize("factor", [0.67, 1.3])
def test_set_with_wrong_scale_is_refused(
    calibrator: Chain, field: Chain, factor: float, tmp_path: Path
) -> None:
    """Data over the gains that are 0.67 or 1.3 of what they should be."""
    planted = plant(tmp_path, field, scale_data(factor))
    code, said, inputs = planted.upto_flags()
    assert not code, said
    code, said, _ = planted.make("calibrate", **inputs, calibration=calibrator.calibration)
    assert code == 15
    assert "flux_scale" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [late(1.0), kill_half, exchange_polarizations],
    ids=["late 1 s", "half dead", "X and Y"],
)
def test_fault_is_harmless(
    calibrator: Chain, good: pd.DataFrame, fault: Plant, tmp_path: Path
) -> None:
    planted = plant(tmp_path, calibrator, fault)
    code, said, inputs = planted.upto_flags()
    assert not code, said
    code, said, solved = planted.make("calibrate", **inputs)
    assert not code, said
    found, reasons = planted.fluxes(inputs, solved["artifact"])
    change, error = compare(good, found)
    assert solved["qa"]["reasons"] + reasons or np.all(np.abs(change) < MAX_CHANGE + 3 * error)


def compare(before: pd.DataFrame, after: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return relative changes of the bright sources in both, and their errors by noise."""
    both = before.join(after.add_suffix("_after"), how="inner")
    both = both[(both.snr > MIN_SNR) & (both.beam > MIN_BEAM)]
    assert len(both) > 10
    change = both.flux_forced_after / both.flux_forced - 1
    return change.to_numpy(), (both.local_rms_after / both.flux_forced).to_numpy()


def test_wrong_declination_is_refused(calibrator: Chain, tmp_path: Path) -> None:
    def fault(file: h5py.File) -> None:
        dec = file["Header/extra_keywords/phase_center_dec"]
        dec[...] = dec[()] + np.radians(0.7)

    planted = plant(tmp_path, calibrator, fault)
    code, said, inputs = planted.upto_flags()
    if not code:
        code, said, _ = planted.make("calibrate", **inputs)
    assert 10 <= code < 20, said
