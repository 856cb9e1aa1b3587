"""Solving on a calibrator: real CASA on Measurement Sets whose gains the test knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from contimg.astro.gains import Gains, load_gains
from contimg.astro.telescope import SITE
from contimg.records.flagfile import pack_flags
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg.runtime.context import Context
from contimg.runtime.errors import (
    AllFlaggedError,
    BadInputError,
    NoCalibrationError,
    NoSourcesError,
    SolveFailedError,
)
from contimg_calibrate.options import STAGE, CalibrateOptions
from contimg_calibrate.sky_models import find_field_sources, merge_sources, read_model
from observed import (
    FREQ_HZ,
    STATIONS,
    USED,
    SyntheticGroup,
    calibrate,
    load_factors,
    read_record,
    three_c_48,
    write_artifact,
)

FloatArray = npt.NDArray[np.float64]


class Solved(NamedTuple):
    store: Path
    ms: str
    summary: dict[str, Any]


def run(store: Path, ms: str, /, **options: Any) -> dict[str, Any]:
    return calibrate(store, ms=ms, store=str(store), **options)


def gain_errors(
    summary: dict[str, Any], group: SyntheticGroup, scratch: Path
) -> tuple[FloatArray, FloatArray]:
    """Return the errors of amplitude and of phase (deg, relative to the reference antenna).

    Both have shape (times, stations, channels, 2) and are NaN where flagged.
    """
    factors = load_factors(summary["artifact"], scratch, group.mjds)
    ratio = (factors.product() / group.truth)[:, USED]
    reference = STATIONS.index(int(read_record(summary).reference_antenna))
    lost = (factors.bandpass_flag[None] | factors.gain_flag[:, :, None])[:, USED]
    turned = np.angle(ratio * np.exp(-1j * np.angle(ratio[:, reference : reference + 1])))
    return np.where(lost, np.nan, np.abs(ratio) - 1), np.where(lost, np.nan, np.degrees(turned))


@pytest.fixture(scope="module")
def group() -> SyntheticGroup:
    return SyntheticGroup()


@pytest.fixture(scope="module")
def solved(group: SyntheticGroup, tmp_path_factory: pytest.TempPathFactory) -> Solved:
    store = tmp_path_factory.mktemp("solved")
    ms = group.write(store)
    return Solved(store, ms, run(store, ms, model_source="calibrator", phase_solint_s=1.0))


def test_solved_gains_equal_truth(solved: Solved, group: SyntheticGroup, tmp_path: Path) -> None:
    amplitude, phase = gain_errors(solved.summary, group, tmp_path / "tables")
    # No noise: what is left is float32 and the mean smearing, which the model has and the data have
    # not (5 MHz channels, 0.3 deg from the tracked direction: up to 2 % on the longest baselines,
    # 0.1 % in the mean of an antenna).
    assert np.nanstd(amplitude) < 5e-3
    assert abs(np.nanmean(amplitude)) < 5e-3
    assert np.nanstd(phase) < 0.3
    assert abs(np.nanmean(phase)) < 0.05


def test_solve_writes_record_and_registry_row(solved: Solved, group: SyntheticGroup) -> None:
    found = read_record(solved.summary)
    assert found.solved
    assert (found.rung, found.flux_anchor) == ("PRIMARY_TRANSIT_GENERATED", "standard")
    assert [(table.role, table.kind, table.interp) for table in found.tables] == [
        ("bandpass", "B", "nearest"),
        ("phase", "G", "linear"),
        ("gain", "G", "linear"),
    ]
    assert found.calibrator.name == "3C48"
    apparent_jy = np.abs(group.visibilities(group.mjd)).mean()
    assert found.calibrator.apparent_jy == pytest.approx(apparent_jy, rel=0.01)
    assert found.reference_antenna in {"103", "105", "109", "114"}
    assert found.mjd == pytest.approx(group.mjd, abs=1e-9)
    assert found.valid_to_mjd - found.mjd == pytest.approx(0.5)
    assert found.mjd - found.valid_from_mjd == pytest.approx(0.5)
    assert not found.field_phase.done
    assert found.flag_fraction == 0.0  # 95 stations without data are not flagged solutions
    [path] = (solved.store / "tables/caltables").rglob("*.parquet")
    [row] = CALTABLES.read(path.read_bytes(), "test").to_pylist()
    assert (row["group"], row["calibrator"], row["dec"]) == (group.name, "3C48", 33.0)
    assert (solved.store / row["artifact"]).samefile(solved.summary["artifact"])


def test_solve_writes_solutions_as_arrays(solved: Solved) -> None:
    artifact = Path(solved.summary["artifact"])
    saved = np.load(artifact / "solutions.npz")
    assert saved["bandpass_value"].shape == (1, 117, FREQ_HZ.size, 2)
    assert saved["antenna"][102] == "103"
    assert json.loads((artifact / "quality.json").read_text())["phase_rms_deg"] < 1.0


def test_same_work_is_cached_and_repeats_its_bytes(solved: Solved, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"model_source": "calibrator", "phase_solint_s": 1.0}
    assert run(solved.store, solved.ms, **chosen)["cached"]
    options = CalibrateOptions(ms=solved.ms, out=str(tmp_path), **chosen)
    # glibc fills the memory that it hands out, so uninitialized bytes differ from the first run.
    environment = {"TMPDIR": "/tmp", "PATH": "", "MALLOC_PERTURB_": "85"}
    again = contract.run(STAGE, options, environment, Console("calibrate", {}))
    assert not again["cached"]
    for name in ("bandpass.tar", "phase.tar", "gain.tar", "calibration.json", "solutions.npz"):
        first, second = (Path(x["artifact"]) / name for x in (solved.summary, again))
        assert first.read_bytes() == second.read_bytes(), name


def test_mirrored_model_spoils_phases(
    solved: Solved, group: SyntheticGroup, tmp_path: Path
) -> None:
    # 3C48 is 0.3 deg north of the pointing: its mirror image turns the phases of distant antennas
    # by many turns.
    ra0, dec0 = np.degrees(group.centre())
    place = f"{2 * ra0 - 24.42208096},{2 * dec0 - 33.15975916}"
    model = tmp_path / "mirror.csv"
    model.write_text(f"ra_deg,dec_deg,flux_jy,alpha\n{place},16.2,-0.85\n")
    chosen: dict[str, Any] = {"model_source": "file", "model_file": str(model)}
    wrong = run(solved.store, solved.ms, phase_solint_s=1.0, **chosen)
    _, phase = gain_errors(wrong, group, tmp_path / "tables")
    assert np.nanstd(phase) > 30.0


def test_do_k_solves_delays(solved: Solved, group: SyntheticGroup, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"model_source": "calibrator", "phase_solint_s": 1.0}
    summary = run(solved.store, solved.ms, do_k=True, **chosen)
    record = read_record(summary)
    assert [table.role for table in record.tables] == ["delay", "bandpass", "phase", "gain"]
    amplitude, phase = gain_errors(summary, group, tmp_path / "tables")
    assert np.nanstd(amplitude) < 5e-3
    assert np.nanstd(phase) < 0.3
    gains: Gains = load_gains(Context(str(tmp_path), tmp_path, (), {}), summary["artifact"])
    [delays] = [table.value[0, :, 0].real for table in gains.tables if table.kind == "K"]
    wanted = group.delay_ns[:, 0] - group.delay_ns[int(record.reference_antenna) - 1, 0]
    # The noise-free slope over 155 MHz; the pre-phases bend nothing.
    assert np.abs(delays[USED] - wanted[USED]).max() < 0.05


def test_field_sources_in_model_reduce_errors_to_noise(tmp_path: Path) -> None:
    """Full sky, thermal noise: the calibrator alone in the model leaves larger errors."""
    bare = SyntheticGroup(noise_jy=1.0)
    field = find_field_sources(bare.mjds[0], bare.mjds[-1], 33.0, SITE, FREQ_HZ)
    group = replace(bare, sources=merge_sources(three_c_48(), field))
    ms = group.write(tmp_path)
    whole = gain_errors(run(tmp_path, ms), group, tmp_path / "whole")
    summary = run(tmp_path, ms, model_source="calibrator")
    alone = gain_errors(summary, group, tmp_path / "alone")
    # A channel's amplitude: 1 Jy / 15.7 Jy / sqrt(21 baselines x 6 times); the bandpass's mean is
    # known better.
    expected = 1.0 / 15.7 / np.sqrt(21 * 6)
    assert np.nanstd(whole[0]) == pytest.approx(expected, rel=0.3)
    assert np.nanstd(whole[1]) < 1.3 * np.degrees(np.sqrt(2) * np.hypot(expected, np.radians(0.4)))
    assert np.nanstd(alone[0]) > 1.2 * np.nanstd(whole[0])


class TestMissingData:
    def test_deaf_antenna_and_lost_subband_are_flagged_and_spoil_nothing(
        self, tmp_path: Path
    ) -> None:
        # Station 103 would be the reference: none of it is flagged, but it hears nothing.
        group = SyntheticGroup(noise_jy=1.0, deaf=(103,))
        group.flag = np.zeros(group.shape, bool)
        group.flag[:, 4:10] = True  # wider than the gaps that the bandpass may interpolate
        summary = run(tmp_path, group.write(tmp_path), model_source="calibrator")
        factors = load_factors(summary["artifact"], tmp_path / "tables", group.mjds)
        assert factors.gain_flag[:, 102].all()
        assert factors.bandpass_flag[:, 4:10].all()
        amplitude, phase = gain_errors(summary, group, tmp_path / "again")
        assert np.isfinite(np.delete(amplitude, [STATIONS.index(103)], axis=1)[:, :, 10:]).all()
        assert np.nanstd(amplitude) < 0.01
        assert np.nanstd(phase) < 1.0
        assert read_record(summary).reference_antenna == "105"
        # One antenna of 22; the lost subband's channels have no data, so they do not count.
        assert read_record(summary).flag_fraction == pytest.approx(1 / 22, abs=0.01)

    def test_flags_artifact_is_applied(
        self, solved: Solved, group: SyntheticGroup, tmp_path: Path
    ) -> None:
        lost = STATIONS[3] - 1
        flags = np.zeros((group.times, group.ant1.size, FREQ_HZ.size, 2), bool)
        flags[:, (group.ant1 == lost) | (group.ant2 == lost)] = True
        files = {"flags.bin": pack_flags(flags.reshape(group.shape))}
        write_artifact(tmp_path / "flag", "flag", {}, files)
        chosen: dict[str, Any] = {"flags": str(tmp_path / "flag"), "model_source": "calibrator"}
        summary = run(solved.store, solved.ms, **chosen)
        factors = load_factors(summary["artifact"], tmp_path / "tables", group.mjds)
        assert factors.gain_flag[:, lost].all()
        assert read_record(summary).flag_fraction == 0.0

    def test_all_flagged_is_refused(self, group: SyntheticGroup, tmp_path: Path) -> None:
        dead = replace(group)
        dead.flag = np.ones(dead.shape, bool)
        with pytest.raises(AllFlaggedError) as caught:
            run(tmp_path, dead.write(tmp_path), model_source="calibrator")
        assert caught.value.exit == 14
        assert not (tmp_path / "calibrated").exists()
        assert not (tmp_path / "tables").exists()

    def test_noise_alone_fails_and_leaves_nothing(self, tmp_path: Path) -> None:
        noise = SyntheticGroup(noise_jy=300.0)
        with pytest.raises(SolveFailedError) as caught:
            run(tmp_path, noise.write(tmp_path), model_source="calibrator")
        assert caught.value.exit == 16
        assert not list((tmp_path / "calibrated").rglob("manifest.json"))
        assert not (tmp_path / "tables").exists()

    def test_random_phase_per_baseline_fails(self, tmp_path: Path) -> None:
        """No gains of antennas explain that, however bright the source."""
        group = SyntheticGroup(times=2)
        whole = group.data().reshape(2, -1, FREQ_HZ.size, 2)
        turns = np.exp(2j * np.pi * np.random.default_rng(0).random((1, whole.shape[1], 1, 1)))
        scrambled = (whole * turns).astype(np.complex64).reshape(group.shape)
        group.data = lambda: scrambled  # type: ignore[method-assign]
        words = r"about the model|flagged solutions|median|no solutions"
        with pytest.raises(SolveFailedError, match=words):
            run(tmp_path, group.write(tmp_path), model_source="calibrator", max_flagged=1.0)

    def test_too_many_flagged_solutions_fail(self, tmp_path: Path) -> None:
        group = SyntheticGroup(times=2, noise_jy=1.0, deaf=STATIONS[::2])
        with pytest.raises(SolveFailedError, match="at most 30% flagged solutions"):
            run(tmp_path, group.write(tmp_path), model_source="calibrator")

    def test_neither_calibrator_nor_set_is_refused(self, tmp_path: Path) -> None:
        group = SyntheticGroup(mjd=61065.0922, times=2)
        with pytest.raises(NoCalibrationError, match="NO_VIABLE_TABLE") as caught:
            run(tmp_path, group.write(tmp_path))
        assert caught.value.exit == 15


class TestModelFile:
    def test_read_model_fills_in_defaults(self) -> None:
        text = b"ra_deg,dec_deg,flux_jy,alpha,reference_hz\n10,20,2,,\n11,21,1,0.0,1e9\n"
        sources = read_model(text, "list.csv", np.array([1.4e9, 2.8e9]))
        assert np.degrees(sources.ra_rad) == pytest.approx([10, 11])
        assert sources.flux_jy == pytest.approx(np.array([[2, 2 * 2**-0.7], [1, 1]]))

    @pytest.mark.parametrize(
        "text", [b"ra,dec\n1,2\n", b"ra_deg,dec_deg,flux_jy\n1,2,bright\n", b"\xff\xfe\x00"]
    )
    def test_read_model_refuses_other_content(self, text: bytes) -> None:
        with pytest.raises(BadInputError, match=r"list.csv.*columns"):
            read_model(text, "list.csv", FREQ_HZ)

    def test_read_model_refuses_empty_list(self) -> None:
        with pytest.raises(NoSourcesError):
            read_model(b"ra_deg,dec_deg,flux_jy\n", "list.csv", FREQ_HZ)

    def test_model_without_flux_is_refused(self, solved: Solved, tmp_path: Path) -> None:
        (tmp_path / "zero.csv").write_text("ra_deg,dec_deg,flux_jy\n24.4,33.1,0\n")
        chosen: dict[str, Any] = {"model_source": "file", "model_file": str(tmp_path / "zero.csv")}
        with pytest.raises(BadInputError, match="model is zero for"):
            run(solved.store, solved.ms, **chosen)
