"""Solving on a calibrator: real CASA on Measurement Sets whose gains the test knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from contimg.astro.catalogues import standard_flux_jy
from contimg.astro.gains import Gains
from contimg.astro.predict import PointSources
from contimg.records.calibration import Calibration
from contimg.records.flagfile import pack_flags
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg.runtime.errors import (
    AllFlaggedError,
    BadInputError,
    NoCalibrationError,
    NoSourcesError,
    SolveFailedError,
)
from contimg.runtime.tar import unpack
from contimg_calibrate.options import STAGE, CalibrateOptions
from contimg_calibrate.sky import find_field_sources, merge_sources, read_model
from observed import FREQ_HZ, STATIONS, Observed, write_artifact

if TYPE_CHECKING:
    import numpy.typing as npt

RA_RAD, DEC_RAD = np.radians([24.42208096, 33.15975916])
"""3C48."""
USED = np.array(STATIONS) - 1


def three_c_48(freq_hz: npt.NDArray[np.float64] = FREQ_HZ) -> PointSources:
    return PointSources(
        np.array([RA_RAD]), np.array([DEC_RAD]), standard_flux_jy("3C48", freq_hz)[None]
    )


def run(store: Path, ms: str, **chosen: Any) -> dict[str, Any]:
    import os

    options = CalibrateOptions(ms=ms, out=str(store / "calibrated"), store=str(store), **chosen)
    return contract.run(STAGE, options, dict(os.environ), Console("calibrate", {}))


def record(said: dict[str, Any]) -> Calibration:
    return Calibration.model_validate_json(
        (Path(said["artifact"]) / "calibration.json").read_text()
    )


def gains(said: dict[str, Any], into: Path) -> Gains:
    folders = []
    into.mkdir(exist_ok=True)
    for table in record(said).tables:
        with (Path(said["artifact"]) / table.file).open("rb") as source:
            folders.append(unpack(source, into))
    return Gains.read(folders)


def against_truth(
    said: dict[str, Any], seen: Observed, into: Path
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the error of amplitude and of phase (deg, relative to the reference antenna), shape (times, stations, channels, 2)."""
    factors = gains(said, into).evaluate(seen.mjds * 86400, seen.freq_hz)
    ratio = (factors.product() / seen.truth)[:, USED]
    reference = STATIONS.index(int(record(said).reference_antenna))
    lost = (factors.bandpass_flag[None] | factors.gain_flag[:, :, None])[:, USED]
    turned = np.angle(ratio * np.exp(-1j * np.angle(ratio[:, reference : reference + 1])))
    return np.where(lost, np.nan, np.abs(ratio) - 1), np.where(lost, np.nan, np.degrees(turned))


@pytest.fixture(scope="module")
def seen() -> Observed:
    return Observed(three_c_48())


@pytest.fixture(scope="module")
def solved(
    seen: Observed, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, dict[str, Any]]:
    store = tmp_path_factory.mktemp("solved")
    ms = seen.write(store)
    return store, ms, run(store, ms, model_source="calibrator", phase_solint_s=1.0)


def test_gains_are_the_truth(
    solved: tuple[Path, str, dict[str, Any]], seen: Observed, tmp_path: Path
) -> None:
    amplitude, phase = against_truth(solved[2], seen, tmp_path)
    # No noise: what is left is float32 and the mean smearing, which the data do not have and the model has (5 MHz channels,
    # 0.3 deg from the tracked direction: up to 2 % on the longest baselines, 0.1 % in the mean of an antenna).
    assert np.nanstd(amplitude) < 5e-3
    assert abs(np.nanmean(amplitude)) < 5e-3
    assert np.nanstd(phase) < 0.3
    assert abs(np.nanmean(phase)) < 0.05


def test_the_record_says_what_was_done(
    solved: tuple[Path, str, dict[str, Any]], seen: Observed
) -> None:
    store, _, said = solved
    found = record(said)
    assert found.solved
    assert (found.rung, found.flux_anchor) == ("PRIMARY_TRANSIT_GENERATED", "standard")
    assert [(table.role, table.kind, table.interp) for table in found.tables] == [
        ("bandpass", "B", "nearest"),
        ("phase", "G", "linear"),
        ("gain", "G", "linear"),
    ]
    assert found.calibrator.name == "3C48"
    assert found.calibrator.apparent_jy == pytest.approx(
        np.abs(seen.visibilities(seen.mjd)).mean(), rel=0.01
    )
    assert found.reference_antenna in {"103", "105", "109", "114"}
    assert found.mjd == pytest.approx(seen.mjd, abs=1e-9)
    assert (found.valid_to_mjd - found.mjd, found.mjd - found.valid_from_mjd) == pytest.approx(
        (0.5, 0.5)
    )
    assert not found.field_phase.done
    assert found.flag_fraction == 0.0  # 95 stations without data are not flagged solutions
    rows = CALTABLES.read(
        next((store / "tables/caltables").rglob("*.parquet")).read_bytes(), "test"
    ).to_pylist()
    assert [(row["group"], row["calibrator"], row["dec"]) for row in rows] == [
        (seen.name, "3C48", 33.0)
    ]
    assert (store / rows[0]["artifact"]).samefile(said["artifact"])


def test_the_same_work_is_cached_and_has_the_same_bytes(
    solved: tuple[Path, str, dict[str, Any]], tmp_path: Path
) -> None:
    store, ms, said = solved
    assert run(store, ms, model_source="calibrator", phase_solint_s=1.0)["cached"]
    options = CalibrateOptions(
        ms=ms, out=str(tmp_path), model_source="calibrator", phase_solint_s=1.0
    )
    # glibc fills the memory that it hands out: bytes that nobody wrote are other ones than in the first run.
    littered = {"TMPDIR": "/tmp", "PATH": "", "MALLOC_PERTURB_": "85"}
    again = contract.run(STAGE, options, littered, Console("calibrate", {}))
    assert not again["cached"]
    for name in ("bandpass.tar", "phase.tar", "gain.tar", "calibration.json", "solutions.npz"):
        assert (Path(again["artifact"]) / name).read_bytes() == (
            Path(said["artifact"]) / name
        ).read_bytes(), name


def test_a_mirrored_sky_spoils_the_phases(
    solved: tuple[Path, str, dict[str, Any]], seen: Observed, tmp_path: Path
) -> None:
    # 3C48 is 0.3 deg north of the pointing: its mirror image turns the phases of distant antennas by many turns.
    store, ms, _ = solved
    _, dec0 = np.degrees(seen.centre())
    ra0, _ = np.degrees(seen.centre())
    mirror = f"ra_deg,dec_deg,flux_jy,alpha\n{2 * ra0 - 24.42208096},{2 * dec0 - 33.15975916},16.2,-0.85\n"
    (tmp_path / "mirror.csv").write_text(mirror)
    wrong = run(
        store, ms, model_source="file", model_file=str(tmp_path / "mirror.csv"), phase_solint_s=1.0
    )
    _, phase = against_truth(wrong, seen, tmp_path / "tables")
    assert np.nanstd(phase) > 30.0


def test_delays_are_solved_on_request(
    solved: tuple[Path, str, dict[str, Any]], seen: Observed, tmp_path: Path
) -> None:
    store, ms, _ = solved
    said = run(store, ms, model_source="calibrator", phase_solint_s=1.0, do_k=True)
    assert [table.role for table in record(said).tables] == ["delay", "bandpass", "phase", "gain"]
    amplitude, phase = against_truth(said, seen, tmp_path)
    assert np.nanstd(amplitude) < 5e-3
    assert np.nanstd(phase) < 0.3
    delays = (
        next(table for table in gains(said, tmp_path / "again").tables if table.kind == "K")
        .value[0, :, 0]
        .real
    )
    reference = int(record(said).reference_antenna) - 1
    wanted = seen.delay_ns[:, 0] - seen.delay_ns[reference, 0]
    # The noise-free slope over 155 MHz; the pre-phases bend nothing.
    assert np.abs(delays[USED] - wanted[USED]).max() < 0.05


def test_noise_and_field_sources(tmp_path: Path) -> None:
    """Full sky, thermal noise: the solution is right to its noise, and with the calibrator alone in the model it is not."""
    bare = Observed(three_c_48(), noise_jy=1.0)
    field = find_field_sources(bare.mjds[0], bare.mjds[-1], np.radians(33.0), _site(), FREQ_HZ)
    seen = replace(bare, sources=merge_sources(three_c_48(), field))
    ms = seen.write(tmp_path)
    whole = against_truth(run(tmp_path, ms), seen, tmp_path / "whole")
    alone = against_truth(run(tmp_path, ms, model_source="calibrator"), seen, tmp_path / "alone")
    # A channel's amplitude: 1 Jy / 15.7 Jy / sqrt(21 baselines x 6 times), and the bandpass's mean is known better.
    expected = 1.0 / 15.7 / np.sqrt(21 * 6)
    assert np.nanstd(whole[0]) == pytest.approx(expected, rel=0.3)
    assert np.nanstd(whole[1]) < 1.3 * np.degrees(np.sqrt(2) * np.hypot(expected, np.radians(0.4)))
    assert np.nanstd(alone[0]) > 1.2 * np.nanstd(whole[0])


def _site() -> Any:
    from contimg.astro.telescope import SITE

    return SITE


class TestWhatIsMissing:
    def test_a_deaf_antenna_and_a_lost_subband_are_flagged_and_spoil_nothing(
        self, tmp_path: Path
    ) -> None:
        # Station 103 would be the reference: nothing is flagged of it, but it hears nothing.
        seen = Observed(three_c_48(), noise_jy=1.0, deaf=(103,))
        deaf = 102
        ant1, _ = seen.pairs
        seen.flag = np.zeros((seen.times * ant1.size, FREQ_HZ.size, 2), bool)
        seen.flag[:, 4:10] = True  # wider than the gaps that the bandpass may interpolate
        said = run(tmp_path, seen.write(tmp_path), model_source="calibrator")
        factors = gains(said, tmp_path / "tables").evaluate(seen.mjds * 86400, FREQ_HZ)
        assert factors.gain_flag[:, deaf].all()
        assert factors.bandpass_flag[:, 4:10].all()
        amplitude, phase = against_truth(said, seen, tmp_path / "again")
        assert np.isfinite(np.delete(amplitude, [STATIONS.index(103)], axis=1)[:, :, 10:]).all()
        assert np.nanstd(amplitude) < 0.01
        assert np.nanstd(phase) < 1.0
        assert record(said).reference_antenna == "105"
        # One antenna of 22; the lost subband's channels have no data, so no solution of theirs is counted.
        assert record(said).flag_fraction == pytest.approx(1 / 22, abs=0.01)

    def test_flags_of_the_flag_stage_are_used(
        self, solved: tuple[Path, str, dict[str, Any]], seen: Observed, tmp_path: Path
    ) -> None:
        store, ms, _ = solved
        ant1, ant2 = seen.pairs
        flags = np.zeros((seen.times, ant1.size, FREQ_HZ.size, 2), bool)
        lost = STATIONS[3] - 1
        flags[:, (ant1 == lost) | (ant2 == lost)] = True
        write_artifact(
            tmp_path / "flag",
            "flag",
            {},
            {"flags.bin": pack_flags(flags.reshape(-1, FREQ_HZ.size, 2))},
        )
        said = run(store, ms, flags=str(tmp_path / "flag"), model_source="calibrator")
        assert (
            gains(said, tmp_path / "tables")
            .evaluate(seen.mjds * 86400, FREQ_HZ)
            .gain_flag[:, lost]
            .all()
        )
        assert record(said).flag_fraction == 0.0

    def test_all_flagged(self, seen: Observed, tmp_path: Path) -> None:
        dead = replace(seen)
        dead.flag = np.ones((seen.times * seen.pairs[0].size, FREQ_HZ.size, 2), bool)
        with pytest.raises(AllFlaggedError) as caught:
            run(tmp_path, dead.write(tmp_path), model_source="calibrator")
        assert caught.value.exit == 14
        assert not (tmp_path / "calibrated").exists()
        assert not (tmp_path / "tables").exists()

    def test_noise_alone_fails_and_leaves_nothing(self, tmp_path: Path) -> None:
        noise = Observed(three_c_48(), noise_jy=300.0)
        with pytest.raises(SolveFailedError) as caught:
            run(tmp_path, noise.write(tmp_path), model_source="calibrator")
        assert caught.value.exit == 16
        assert not list((tmp_path / "calibrated").rglob("manifest.json"))
        assert not (tmp_path / "tables").exists()

    def test_a_scrambled_correlator_fails(self, tmp_path: Path) -> None:
        """Every baseline has a phase of its own: no gains of antennas explain that, however bright the source."""
        seen = Observed(three_c_48(), times=2)
        whole = seen.data().reshape(2, -1, FREQ_HZ.size, 2)
        turns = np.exp(2j * np.pi * np.random.default_rng(0).random((1, whole.shape[1], 1, 1)))
        seen.data = lambda: (whole * turns).astype(np.complex64).reshape(-1, FREQ_HZ.size, 2)  # type: ignore[method-assign]
        with pytest.raises(
            SolveFailedError, match=r"of the model|flagged solutions|median|no solutions"
        ):
            run(tmp_path, seen.write(tmp_path), model_source="calibrator", max_flagged=1.0)

    def test_too_many_flagged_solutions_fail(self, tmp_path: Path) -> None:
        seen = Observed(three_c_48(), times=2, noise_jy=1.0, deaf=STATIONS[::2])
        with pytest.raises(SolveFailedError, match="at most 30% flagged solutions"):
            run(tmp_path, seen.write(tmp_path), model_source="calibrator")

    def test_neither_calibrator_nor_set(self, tmp_path: Path) -> None:
        seen = Observed(three_c_48(), mjd=61065.0922, times=2)
        with pytest.raises(NoCalibrationError, match="NO_VIABLE_TABLE") as caught:
            run(tmp_path, seen.write(tmp_path))
        assert caught.value.exit == 15


class TestModelFile:
    def test_columns_and_defaults(self) -> None:
        text = b"ra_deg,dec_deg,flux_jy,alpha,reference_hz\n10,20,2,,\n11,21,1,0.0,1e9\n"
        sources = read_model(text, "list.csv", np.array([1.4e9, 2.8e9]))
        assert np.degrees(sources.ra_rad) == pytest.approx([10, 11])
        assert sources.flux_jy == pytest.approx(np.array([[2, 2 * 2**-0.7], [1, 1]]))

    @pytest.mark.parametrize(
        "text", [b"ra,dec\n1,2\n", b"ra_deg,dec_deg,flux_jy\n1,2,bright\n", b"\xff\xfe\x00"]
    )
    def test_what_is_no_list_is_refused(self, text: bytes) -> None:
        with pytest.raises(BadInputError, match=r"list.csv.*columns"):
            read_model(text, "list.csv", FREQ_HZ)

    def test_an_empty_list_is_refused(self) -> None:
        with pytest.raises(NoSourcesError):
            read_model(b"ra_deg,dec_deg,flux_jy\n", "list.csv", FREQ_HZ)

    def test_a_model_without_flux_is_refused(
        self, solved: tuple[Path, str, dict[str, Any]], tmp_path: Path
    ) -> None:
        (tmp_path / "zero.csv").write_text("ra_deg,dec_deg,flux_jy\n24.4,33.1,0\n")
        with pytest.raises(BadInputError, match="model is zero for"):
            run(solved[0], solved[1], model_source="file", model_file=str(tmp_path / "zero.csv"))


def test_solutions_are_written_as_arrays(solved: tuple[Path, str, dict[str, Any]]) -> None:
    saved = np.load(Path(solved[2]["artifact"]) / "solutions.npz")
    assert saved["bandpass_value"].shape == (1, 117, FREQ_HZ.size, 2)
    assert saved["antenna"][102] == "103"
    quality = json.loads((Path(solved[2]["artifact"]) / "quality.json").read_text())
    assert quality["phase_rms_deg"] < 1.0
