"""Faults planted in small groups: each is refused or marked by a gate that names it, or harmless.

Simulated groups go through the real stages. Harmless means that no flux with a signal-to-noise
ratio above 20 changes by more than 1 %, and that no gate fires. No gate fires on good groups.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import pandas as pd
import pytest

from chain import Chain, small_calibrator
from contimg.records.calibration import RECORD
from image_truth import compare

MAX_CHANGE, MIN_SNR, MIN_BEAM = 0.01, 20.0, 0.2
Role = Literal["solves", "selects"]
Make = Callable[..., "Group"]


STAGES = ("ms", "flags", "calibration", "image", "photometry")


@dataclass
class Strip(Chain):
    """A group in a folder, and the sets of the groups that were made there before."""

    folder: Path = Path()

    @property
    def store(self) -> Path:
        return self.folder


@dataclass
class Group(Strip):
    """A group that solves on 3C48, or takes its set, which is an hour older."""

    calibration_set: str | None = None

    @property
    def calibration(self) -> str:  # type: ignore[override]
        return self._make(
            "calibrate", ms=self.ms, flags=self.flags, calibration=self.calibration_set
        )

    def gates(self) -> list[str]:
        """Return the reasons of all stages' verdicts, the last one the error if one refused."""
        return tell(self, *STAGES)

    def fluxes(self) -> pd.DataFrame:
        rows = pd.read_parquet(Path(self.photometry) / "photometry.parquet")
        return rows.set_index("source")


def tell(group: Chain, *stages: str) -> list[str]:
    told: list[str] = []
    for stage in stages:
        try:
            artifact = getattr(group, stage)
        except AssertionError as refused:
            return [*told, str(refused)]
        told += json.loads((Path(artifact) / "manifest.json").read_text())["qa"]["reasons"]
    return told


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a group with options of the simulator."""

    def group(role: Role, **options: object) -> Group:
        selects = role == "selects"
        return Group(
            "small",
            seed=1,
            tier="development",
            sky={**({"ra_deg": 38.9} if selects else {}), **options},
            folder=tmp_path_factory.mktemp("group"),
            calibration_set=small_calibrator().calibration if selects else None,
        )

    return group


@pytest.fixture(scope="module")
def good(make: Make) -> Callable[[Role], pd.DataFrame]:
    """Fluxes of the groups without a fault, each made once."""
    known: dict[str, pd.DataFrame] = {}

    def fluxes(role: Role) -> pd.DataFrame:
        if role not in known:
            group = make(role)
            assert group.gates() == []
            known[role] = group.fluxes()
        return known[role]

    return fluxes


class Named(NamedTuple):
    role: Role
    options: dict[str, object]
    told: str
    """What the gate says."""


POINTING = {"effects": "pointing:0.15:0"}
WIDE = {"beam": "airy:5.3475"}
"""The beam of a dish 15 % wider than assumed: the assumed beam is 15 % too wide."""
LONG = {
    "gain step": Named("solves", {"faults": "gain-step:1.5"}, r"gain_step: .* change by \+50%"),
    "gain step, set": Named("selects", {"faults": "gain-step:1.5"}, r"gain_step: .* by \+50%"),
    "flare": Named("solves", {"faults": "flare:1.3"}, r"flux_scale: \d+ field sources have 0\.7"),
    "mirrored": Named("solves", {"faults": "mirror"}, r"mirrored: the sources are at places"),
    "mirrored, set": Named("selects", {"faults": "mirror"}, r"mirrored: the sky turns twice"),
    "clock, set": Named("selects", {"faults": "time:60"}, r"flux_scale: calibrated data are 0\.7"),
    "pointing, set": Named("selects", POINTING, r"primary_beam: .* its axis by \+0\.1[4-6]"),
    "beam": Named("solves", WIDE, r"primary_beam: .* its width by [+-]1\d\.\d%"),
}
SHORT = {
    "clock": Named("solves", {"faults": "time:60"}, r"clock: the sky moves by (1\.[6-9]|2\.\d)"),
    "pointing": Named("solves", POINTING, r"pointing: .* \+0\.1[2-8] \+- 0\.0\d deg east"),
}
HALF = r"% of the cross-correlations are zero|% of the visibilities are flagged|receptors are dead"
HARMLESS = {"time:1": None, "half-dead": HALF, "swap-polarisations:40": None}
"""Faults that change no flux, and what is said of them all the same."""


def check_named(make: Make, case: Named) -> None:
    told = make(case.role, **case.options).gates()
    assert any(re.search(case.told, one) for one in told), told


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_fault_is_named(make: Make, name: str) -> None:
    check_named(make, SHORT[name])


@pytest.mark.science
@pytest.mark.parametrize("name", LONG)
def test_every_fault_is_named(make: Make, name: str) -> None:
    check_named(make, LONG[name])


@pytest.mark.science
@pytest.mark.parametrize("role", ["solves", "selects"])
@pytest.mark.parametrize("fault", HARMLESS)
def test_fault_is_harmless(
    make: Make, good: Callable[[Role], pd.DataFrame], fault: str, role: Role
) -> None:
    group = make(role, faults=fault)
    told, expected = group.gates(), HARMLESS[fault]
    assert bool(told) == bool(expected), told
    assert all(re.search(str(expected), one) for one in told), told
    both = good(role).join(group.fluxes().add_suffix("_after"), how="inner")
    both = both[(both.snr > MIN_SNR) & (both.beam > MIN_BEAM)]
    assert len(both) > 30
    change = both.flux_forced_after / both.flux_forced - 1
    noise = both.local_rms_after / both.flux_forced
    words = f"{fault}, {role}: median {change.median():+.2%}, worst {change.abs().max():.2%}"
    print(words)  # noqa: T201
    assert np.all(np.abs(change) < MAX_CHANGE + 3 * noise)
    assert abs(change.median()) < MAX_CHANGE


@pytest.mark.parametrize("factor", [0.67, pytest.param(1.3, marks=pytest.mark.slow)])
def test_set_with_wrong_scale_is_refused(make: Make, factor: float) -> None:
    """Data over the gains that are 0.67 or 1.3 of what they should be."""
    group = make("selects")
    assert group.truth_artifact
    for path in (group.store / "incoming").rglob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            data = file["Data/visdata"]
            data[...] = data[...] * np.complex64(factor)
    refusal = tell(group, "ms", "flags", "calibration")[-1]
    scale = re.search(r"flux_scale: calibrated data are ([\d.]+)", refusal)
    assert scale, refusal
    assert float(scale[1]) == pytest.approx(factor, rel=0.1)


def test_wrong_declination_is_refused(make: Make) -> None:
    [refusal] = tell(make("solves", faults="declination:0.7"), "ms")
    assert re.search(r"uvw_array is off by up to 2\d\.\d+ m .* phase_center_dec", refusal)


STRIPS = {
    "3C48": (24.4221, 33.0),
    "3C123": (69.268, 29.67),
    "3C138": (80.291, 16.64),
    "3C147": (85.651, 49.85),
    "3C286": (202.785, 30.51),
}
"""Right Ascension and Declination of standards, degrees."""
LATER_DEG = (5.0, 15.0, 30.0, 60.0)
"""Right Ascension of the groups that take the standard's set, less that of the standard."""
REALISTIC: dict[str, Any] = {"counts": True, "faintest_jy": 0.0002}
"""A sky with sources down to 0.5 mJy."""


def count_alarms(folder: Path, name: str, seed: int, later_deg: tuple[float, ...]) -> list[str]:
    """Return what the gates say about good groups of a strip on the realistic sky."""
    ra_deg, dec_deg = STRIPS[name]
    told = []
    for away_deg in (0.0, *later_deg):
        sky = {"ra_deg": (ra_deg + away_deg) % 360, "dec_deg": dec_deg, **REALISTIC}
        group = Strip("small", seed=seed, tier="development", sky=sky, folder=folder)
        told += [f"{name}, seed {seed}, +{away_deg:g} deg: {one}" for one in tell(group, *STAGES)]
    return told


@pytest.mark.slow
def test_no_gate_fires_on_good_groups(tmp_path: Path) -> None:
    assert tell(small_calibrator(), *STAGES) == []
    assert count_alarms(tmp_path, "3C286", 7, LATER_DEG[1:3]) == []


@pytest.mark.science
@pytest.mark.parametrize("name", STRIPS)
def test_no_gate_fires_on_fifty_good_groups(tmp_path: Path, name: str) -> None:
    """Ten groups of each strip."""
    alarms: list[str] = []
    for seed in (11, 12):
        alarms += count_alarms(tmp_path / f"{seed}", name, seed, LATER_DEG)
    print(f"{name}, 10 good groups: {len(alarms)} alarms", *alarms, sep="\n")  # noqa: T201
    assert alarms == []


@pytest.mark.slow
def test_strip_without_standard_has_scale_of_its_sources(tmp_path: Path) -> None:
    """At Dec +54.6, on a sky whose sources are 15 % off NVSS: no gate fires, and fluxes are right.

    The second group is an hour later.
    """
    for ra_deg in (200.0, 215.0):
        sky = {"ra_deg": ra_deg, "dec_deg": 54.6, **REALISTIC, "effects": "variable:1:0.15"}
        group = Strip("small", seed=5, tier="development", sky=sky, folder=tmp_path)
        assert tell(group, *STAGES) == []
        record = json.loads((Path(group.calibration) / RECORD).read_text())
        assert record["flux_anchor"] == "nvss"
        found = compare(group)
        found = found[(found.snr >= MIN_SNR) & found.isolated]
        middle, error = float(np.median(found.ratio)), record["scale"]["total"]
        off = np.abs(found.ratio / middle - 1)
        words = f"{record['rung']}: {len(found)} sources have {middle:.3f} of their flux"
        print(f"{words}, error {error:.3f}; each off by {off.max():.1%} at most")  # noqa: T201
        assert len(found) > 15
        assert error < 0.09
        assert abs(middle - 1) < 2 * error
        assert np.all(off < 0.03 + 3 / found.snr)
