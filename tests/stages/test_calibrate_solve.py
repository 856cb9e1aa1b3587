"""Solving on a calibrator, or selecting a set: real CASA on data whose gains the test knows."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import observed
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.gains import Gains, load_gains
from contimg.astro.predict import PointSources, power_law
from contimg.astro.telescope import SITE
from contimg.records.flagfile import pack_flags
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime import contract, errors
from contimg.runtime.console import Console
from contimg.runtime.context import Context
from contimg_calibrate.options import STAGE, CalibrateOptions
from contimg_calibrate.sky_models import find_field_sources, merge_sources, read_model
from contimg_calibrate.solver import rank_references, split_intervals
from observed import BEAM, FREQ_HZ, STATIONS, USED, SyntheticGroup, calibrate, read_record

LATER_MJD = 61065.0922
"""An hour after 3C48's transit: 70 NVSS sources of 10 mJy and more in the beam, 5 Jy together."""
SIDEREAL_DAY = 0.99726957
ALONE: dict[str, Any] = {"model_source": "calibrator"}
"""A model without the field's sources, which most of these data lack."""


class Solved(NamedTuple):
    store: Path
    ms: str
    summary: dict[str, Any]


def run(store: Path, ms: str, /, **options: Any) -> dict[str, Any]:
    return calibrate(store, **{"ms": ms, "store": str(store), **options})


def gain_errors(summary: Any, group: SyntheticGroup, scratch: Path) -> tuple[Any, Any]:
    """Return the errors of amplitude and of phase (deg, relative to the reference antenna).

    Both have shape (times, stations, channels, 2) and are NaN where flagged.
    """
    factors = observed.load_factors(summary["artifact"], scratch, group.mjds)
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
    return Solved(store, ms, run(store, ms, phase_solint_s=1.0, **ALONE))


def test_solved_gains_equal_truth(solved: Solved, group: SyntheticGroup, tmp_path: Path) -> None:
    amplitude, phase = gain_errors(solved.summary, group, tmp_path / "tables")
    # No noise: what is left is float32 and the mean smearing, which the model has and the data have
    # not (5 MHz channels, 0.3 deg from the tracked direction: up to 2 % on the longest baselines,
    # 0.1 % in the mean of an antenna).
    assert np.nanstd(amplitude) < 5e-3
    assert abs(np.nanmean(amplitude)) < 5e-3
    assert np.nanstd(phase) < 0.3
    assert abs(np.nanmean(phase)) < 0.05


def test_solve_writes_record_row_and_arrays(solved: Solved, group: SyntheticGroup) -> None:
    found = read_record(solved.summary)
    assert found.solved
    assert (found.rung, found.flux_anchor) == ("PRIMARY_TRANSIT_GENERATED", "standard")
    tables = [("bandpass", "B", "nearest"), ("phase", "G", "linear"), ("gain", "G", "linear")]
    assert [(table.role, table.kind, table.interp) for table in found.tables] == tables
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
    assert found.scale is not None
    assert row["scale_error"] == found.scale.total == found.considered[0].budget.total < 0.02
    assert (solved.store / row["artifact"]).samefile(solved.summary["artifact"])
    artifact = Path(solved.summary["artifact"])
    saved = np.load(artifact / "solutions.npz")
    assert saved["bandpass_value"].shape == (1, 117, FREQ_HZ.size, 2)
    assert saved["antenna"][102] == "103"
    assert json.loads((artifact / "quality.json").read_text())["phase_rms_deg"] < 1.0


def test_second_solve_gives_same_bytes(solved: Solved, tmp_path: Path) -> None:
    chosen = {"phase_solint_s": 1.0, **ALONE}
    assert run(solved.store, solved.ms, **chosen)["cached"]
    options = CalibrateOptions(ms=solved.ms, out=str(tmp_path), **chosen)
    # glibc fills the memory that it hands out, so uninitialized bytes differ from the first run.
    environment = {"TMPDIR": "/tmp", "PATH": "", "MALLOC_PERTURB_": "85"}
    again = contract.run(STAGE, options, environment, Console("calibrate", {}))
    assert not again["cached"]
    for name in ("bandpass.tar", "phase.tar", "gain.tar", "calibration.json", "solutions.npz"):
        first, second = (Path(x["artifact"]) / name for x in (solved.summary, again))
        assert first.read_bytes() == second.read_bytes(), name


def test_mirrored_model_spoils_phases(solved: Solved, group: Any, tmp_path: Path) -> None:
    # 3C48 is 0.3 deg north of the pointing: its mirror image turns the phases of distant antennas
    # by many turns.
    ra0, dec0 = np.degrees(group.centre())
    place = f"{2 * ra0 - 24.42208096},{2 * dec0 - 33.15975916}"
    model = tmp_path / "mirror.csv"
    model.write_text(f"ra_deg,dec_deg,flux_jy,alpha\n{place},16.2,-0.85\n")
    given = {"model_source": "file", "model_file": str(model), "phase_solint_s": 1.0}
    wrong = run(solved.store, solved.ms, **given)
    _, phase = gain_errors(wrong, group, tmp_path / "tables")
    assert np.nanstd(phase) > 30.0


def test_do_k_solves_delays(solved: Solved, group: SyntheticGroup, tmp_path: Path) -> None:
    summary = run(solved.store, solved.ms, do_k=True, phase_solint_s=1.0, **ALONE)
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


def test_field_sources_reduce_errors_to_noise(tmp_path: Path) -> None:
    """Full sky, thermal noise: the calibrator alone in the model leaves larger errors."""
    bare = SyntheticGroup(noise_jy=1.0)
    field = find_field_sources(bare.mjds[0], bare.mjds[-1], 33.0, SITE, FREQ_HZ, BEAM)
    group = replace(bare, sources=merge_sources(observed.three_c_48(), field))
    ms = group.write(tmp_path)
    whole = gain_errors(run(tmp_path, ms), group, tmp_path / "whole")
    alone = gain_errors(run(tmp_path, ms, **ALONE), group, tmp_path / "alone")
    # A channel's amplitude: 1 Jy / 15.7 Jy / sqrt(21 baselines x 6 times); the bandpass's mean is
    # known better.
    expected = 1.0 / 15.7 / np.sqrt(21 * 6)
    assert np.nanstd(whole[0]) == pytest.approx(expected, rel=0.3)
    assert np.nanstd(whole[1]) < 1.3 * np.degrees(np.sqrt(2) * np.hypot(expected, np.radians(0.4)))
    assert np.nanstd(alone[0]) > 1.2 * np.nanstd(whole[0])


class TestMissingData:
    def test_deaf_antenna_and_lost_subband_are_flagged(self, tmp_path: Path) -> None:
        # Station 103 would be the reference: none of it is flagged, but it hears nothing.
        group = SyntheticGroup(noise_jy=1.0, deaf=(103,))
        group.flag = np.zeros(group.shape, bool)
        group.flag[:, 4:10] = True  # wider than the gaps that the bandpass may interpolate
        summary = run(tmp_path, group.write(tmp_path), **ALONE)
        factors = observed.load_factors(summary["artifact"], tmp_path / "tables", group.mjds)
        assert factors.gain_flag[:, 102].all()
        assert factors.bandpass_flag[:, 4:10].all()
        amplitude, phase = gain_errors(summary, group, tmp_path / "again")
        assert np.isfinite(np.delete(amplitude, [STATIONS.index(103)], axis=1)[:, :, 10:]).all()
        assert np.nanstd(amplitude) < 0.01
        assert np.nanstd(phase) < 1.0
        assert read_record(summary).reference_antenna == "105"
        # One antenna of 22; the lost subband's channels have no data, so they do not count.
        assert read_record(summary).flag_fraction == pytest.approx(1 / 22, abs=0.01)

    def test_flags_artifact_is_applied(self, solved: Solved, group: Any, tmp_path: Path) -> None:
        lost = STATIONS[3] - 1
        flags = np.zeros((group.times, group.ant1.size, FREQ_HZ.size, 2), bool)
        flags[:, (group.ant1 == lost) | (group.ant2 == lost)] = True
        files = {"flags.bin": pack_flags(flags.reshape(group.shape))}
        observed.write_artifact(tmp_path / "flag", "flag", {}, files)
        summary = run(solved.store, solved.ms, flags=str(tmp_path / "flag"), **ALONE)
        factors = observed.load_factors(summary["artifact"], tmp_path / "tables", group.mjds)
        assert factors.gain_flag[:, lost].all()
        assert read_record(summary).flag_fraction == 0.0

    def test_all_flagged_is_refused(self, group: SyntheticGroup, tmp_path: Path) -> None:
        dead = replace(group)
        dead.flag = np.ones(dead.shape, bool)
        with pytest.raises(errors.AllFlaggedError) as caught:
            run(tmp_path, dead.write(tmp_path), **ALONE)
        assert caught.value.exit == 14
        assert not any((tmp_path / name).exists() for name in ("calibrated", "tables"))

    def test_noise_alone_fails_and_leaves_nothing(self, tmp_path: Path) -> None:
        noise = SyntheticGroup(noise_jy=300.0)
        with pytest.raises(errors.SolveFailedError) as caught:
            run(tmp_path, noise.write(tmp_path), **ALONE)
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
        with pytest.raises(errors.SolveFailedError, match=words):
            run(tmp_path, group.write(tmp_path), max_flagged=1.0, **ALONE)

    def test_too_many_flagged_solutions_fail(self, tmp_path: Path) -> None:
        group = SyntheticGroup(times=2, noise_jy=1.0, deaf=STATIONS[::2])
        with pytest.raises(errors.SolveFailedError, match="at most 30% flagged solutions"):
            run(tmp_path, group.write(tmp_path), **ALONE)

    def test_neither_calibrator_nor_set_is_refused(self, tmp_path: Path) -> None:
        group = SyntheticGroup(mjd=61065.0922, times=2)
        with pytest.raises(errors.NoCalibrationError, match="NO_VIABLE_TABLE") as caught:
            run(tmp_path, group.write(tmp_path), solve="never")
        assert caught.value.exit == 15


class TestModelFile:
    def test_read_model_fills_in_defaults(self) -> None:
        text = b"ra_deg,dec_deg,flux_jy,alpha,reference_hz\n10,20,2,,\n11,21,1,0.0,1e9\n"
        sources = read_model(text, "list.csv", np.array([1.4e9, 2.8e9]))
        assert np.degrees(sources.ra_rad) == pytest.approx([10, 11])
        assert sources.flux_jy == pytest.approx(np.array([[2, 2 * 2**-0.7], [1, 1]]))

    @pytest.mark.parametrize(
        "rows",
        [
            b"ra,dec\n1,2\n",
            b"ra_deg,dec_deg,flux_jy\n1,2,bright\n",
            b"ra_deg,dec_deg,flux_jy,flux_jy\n1,2,3,4\n",
            b"\xff\xfe\x00",
        ],
    )
    def test_read_model_refuses_other_content(self, rows: bytes) -> None:
        with pytest.raises(errors.BadInputError, match=r"list.csv.*columns"):
            read_model(rows, "list.csv", FREQ_HZ)
        with pytest.raises(errors.NoSourcesError):
            read_model(b"ra_deg,dec_deg,flux_jy\n", "list.csv", FREQ_HZ)

    def test_model_without_flux_is_refused(self, solved: Solved, tmp_path: Path) -> None:
        (tmp_path / "zero.csv").write_text("ra_deg,dec_deg,flux_jy\n24.4,33.1,0\n")
        given = {"model_source": "file", "model_file": str(tmp_path / "zero.csv")}
        with pytest.raises(errors.BadInputError, match="model is zero for"):
            run(solved.store, solved.ms, **given)


# Selecting a set: phases are fitted to the field, and a set that does not fit is refused


def make_field(**changes: Any) -> SyntheticGroup:
    """Return a group on a field without a calibrator, with the sky of NVSS."""
    defaults = {"mjd": LATER_MJD, "name": "20260125t021221", "noise_jy": 0.3, "drift_deg": 5.0}
    made = SyntheticGroup(**{**defaults, **changes})
    first, last, dec_deg = made.mjds[0], made.mjds[-1], made.dec_deg
    return replace(made, sources=find_field_sources(first, last, dec_deg, SITE, FREQ_HZ, BEAM))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a set that was solved on 3C48."""
    root = tmp_path_factory.mktemp("store")
    ms = SyntheticGroup(noise_jy=0.3).write(root)
    assert run(root, ms, **ALONE)["metrics"]["solved"]
    return root


def phase_errors_deg(summary: Any, group: SyntheticGroup, scratch: Path) -> np.ndarray:
    """Return errors of phases less that of all antennas, (times, stations, channels, pols)."""
    factors = observed.load_factors(summary["artifact"], scratch, group.mjds)
    ratio = factors.product()[:, USED] / group.truth[:, USED]
    common = np.angle(np.sum(ratio / np.abs(ratio), axis=1, keepdims=True))
    return np.degrees(np.angle(ratio * np.exp(-1j * common)))


def test_selected_set_gets_phases_of_the_field(store: Path, tmp_path: Path) -> None:
    group = make_field()
    ms = group.write(tmp_path)
    fitted, plain = run(store, ms, phase_solint_s=1e3), run(store, ms, field_phase="never")
    # Drawn with 5 deg an antenna. What stays is noise (as the stage itself estimates it, without
    # the allowance for faint sources, which these data lack), and the walk of 0.5 deg a step.
    before = np.std(phase_errors_deg(plain, group, tmp_path / "plain"))
    assert before == pytest.approx(5.0, rel=0.4)
    assert np.std(phase_errors_deg(fitted, group, tmp_path / "fitted")) < 1.5
    record = read_record(fitted)
    assert record.field_phase.done
    assert "NVSS sources suffice" in record.field_phase.reason
    assert record.field_phase.sources > 30
    assert record.field_phase.scale == pytest.approx(1.0, abs=0.02)
    assert [table.role for table in record.tables] == ["bandpass", "phase", "gain", "field"]
    assert "Not asked for" in read_record(plain).field_phase.reason


def test_uncatalogued_sources_do_not_shift_the_field(store: Path, tmp_path: Path) -> None:
    """A hundred sources of 20 to 50 mJy that the NVSS list lacks: 3.5 Jy, as in the true sky."""
    rng = np.random.default_rng(7)
    group = make_field(noise_jy=0.1)
    ra, dec = group.centre()
    places = ra + rng.normal(0, 0.015, 100) / np.cos(dec), dec + rng.normal(0, 0.015, 100)
    flux_jy = power_law(rng.uniform(0.02, 0.05, 100), 1.4e9, FREQ_HZ)
    group.sources = merge_sources(group.sources, PointSources(*places, flux_jy))
    summary = run(store, group.write(tmp_path), phase_solint_s=1e3)
    left = np.radians(phase_errors_deg(summary, group, tmp_path / "tables").mean(axis=(0, 2)))
    # The stage allows for 0.2 Jy of such sources; the stations here are 22, not 96.
    expected_deg = read_record(summary).field_phase.phase_error_deg or 0.0
    assert np.degrees(np.std(left)) < 1.5 * expected_deg
    # A gradient of phase over the array shifts the image, by at most 0.03 of a 15 arcsec beam.
    where = group.uvw(group.mjd)[USED][:, :2] * 2 * np.pi * FREQ_HZ.mean() / SPEED_OF_LIGHT_M_S
    plane = np.column_stack([where, np.ones(USED.size)])
    shift = np.linalg.lstsq(plane, left, rcond=None)[0][:2]
    assert np.degrees(np.abs(shift)).max() * 3600 < 0.2


def test_record_names_set_and_source(store: Path, tmp_path: Path) -> None:
    record = read_record(run(store, make_field().write(tmp_path)))
    assert not record.solved
    assert record.rung == "SAME_DATE_VALID"
    assert record.source is not None
    assert record.source.group == "20260125t011431"
    assert (record.calibrator.name, record.flux_anchor) == ("3C48", "standard")
    assert record.mjd == pytest.approx(LATER_MJD)


@pytest.mark.parametrize("days", [-7, 7])
def test_set_of_other_date_is_borrowed(store: Path, tmp_path: Path, days: int) -> None:
    # A sidereal week away the same field is overhead, and antennas have drifted far.
    mjd = LATER_MJD + days * SIDEREAL_DAY
    group = make_field(mjd=mjd, name="20260201t014500", drift_deg=60.0)
    record = read_record(run(store, group.write(tmp_path)))
    assert record.rung == "BORROWED_VALIDATED"
    assert record.field_phase.done
    assert record.field_phase.scale == pytest.approx(1.0, abs=0.05)


def scattered(group: SyntheticGroup) -> SyntheticGroup:
    """Return a group on a sky whose true fluxes scatter by 15 % about NVSS; one flares x 3."""
    factors = np.exp(0.15 * np.random.default_rng(3).standard_normal(len(group.sources.ra_rad)))
    factors[5] *= 3
    sources = replace(group.sources, flux_jy=group.sources.flux_jy * factors[:, None])
    return replace(group, sources=sources)


@pytest.mark.parametrize("factor", [0.06, 0.67, 1.3, 4.0])
def test_set_with_wrong_scale_is_refused(store: Path, tmp_path: Path, factor: float) -> None:
    wrong = scattered(make_field(scale=0.07 * np.sqrt(factor), times=2))
    told = r"flux_scale: calibrated data are .* x the model by [3-9]\d sources"
    with pytest.raises(errors.NoCalibrationError, match=told) as caught:
        run(store, wrong.write(tmp_path), solve="never")
    assert caught.value.exit == 15


def step_gains(group: SyntheticGroup) -> None:
    """Set amplitudes to 0.8 in the first half and to 1.2 in the second: their mean is right."""
    late = np.arange(group.times) >= group.times // 2
    group.gain = group.gain * np.where(late, np.sqrt(1.2), np.sqrt(0.8))[:, None, None, None]


def mirror_data(group: SyntheticGroup) -> None:
    data = group.data().conj()
    group.data = lambda: data  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (step_gains, r"gain_step: the amplitudes of the data change by \+50%"),
        (mirror_data, r"mirrored: the conjugated data have (1\.0|0\.9)\d of the field's flux"),
    ],
)
def test_fault_of_data_is_named_where_a_set_is_selected(
    store: Path, tmp_path: Path, fault: Callable[[SyntheticGroup], None], told: str
) -> None:
    group = scattered(make_field(times=4))
    fault(group)
    with pytest.raises(errors.SolveFailedError, match=told):
        run(store, group.write(tmp_path))


def test_scale_of_scattered_sources_is_good_within_its_error(store: Path, tmp_path: Path) -> None:
    summary = run(store, scattered(make_field(times=2)).write(tmp_path))
    phase = read_record(summary).field_phase
    assert summary["qa"]["verdict"] == "good"
    assert phase.scale_sources > 30
    # The scatter of fluxes and the beam at each source make 2.8 %; the members' errors by sources
    # in no catalogue, which 22 antennas separate badly, are in it too.
    assert 0.18 / np.sqrt(phase.scale_sources) < (phase.scale_error or 0.0) < 0.04
    assert abs((phase.scale or 0.0) - 1) < 3 * (phase.scale_error or 0.0)


def test_field_is_solved_on_its_sources_where_no_set_fits(store: Path, tmp_path: Path) -> None:
    """The set is wrong by a third and refused; the true fluxes scatter, the scale is right."""
    group = scattered(make_field(scale=0.07 * np.sqrt(0.67), times=4))
    own = shutil.copytree(store, tmp_path / "store")
    summary = run(own, group.write(own))
    record = read_record(summary)
    assert (record.rung, record.flux_anchor) == ("ENSEMBLE_GENERATED", "nvss")
    assert [one.kind for one in record.considered] == ["set", "ensemble"]
    assert record.scale is not None
    assert record.scale.total < 0.08
    factors = observed.load_factors(summary["artifact"], tmp_path / "again", group.mjds)
    ratio = np.abs(factors.product()[:, USED]) / np.abs(group.truth[:, USED])
    assert abs(np.median(ratio) ** 2 - 1) < 2 * record.scale.total


def test_faint_field_keeps_phases(store: Path, tmp_path: Path) -> None:
    ms = make_field(noise_jy=30.0, times=2).write(tmp_path)
    phase = read_record(run(store, ms)).field_phase
    assert not phase.done
    assert "do not suffice" in phase.reason
    assert (phase.phase_error_deg or 0.0) > 10.0


def test_set_of_other_date_needs_bright_field(store: Path, tmp_path: Path) -> None:
    mjd = LATER_MJD - 7 * SIDEREAL_DAY
    group = make_field(noise_jy=3000.0, times=2, mjd=mjd, name="20260118t014500")
    with pytest.raises(errors.NoCalibrationError, match="too faint to tell"):
        run(store, group.write(tmp_path), solve="never")


def test_set_of_same_date_passes_with_warning(store: Path, tmp_path: Path) -> None:
    summary = run(store, make_field(noise_jy=3000.0, times=2).write(tmp_path))
    assert summary["qa"]["verdict"] == "warning"
    assert "could not be checked" in summary["qa"]["reasons"][0]
    assert read_record(summary).field_phase.scale is None


def test_calibration_option_takes_solved_sets_only(store: Path, tmp_path: Path) -> None:
    records = (store / "calibrated").glob("*/calibration.json")
    [solved] = [path.parent for path in records if '"solved": true' in path.read_text()]
    ms = make_field().write(tmp_path)
    summary = run(tmp_path, ms, calibration=str(solved), store=None)
    source = read_record(summary).source
    assert source is not None
    assert source.key == solved.name
    with pytest.raises(errors.BadInputError, match="not solved on its own group"):
        run(tmp_path, ms, calibration=summary["artifact"], store=None)


@pytest.mark.parametrize("solint_s", [10.0, 60.0, 100.0, 1e9, 1.0])
def test_split_intervals_have_equal_lengths(solint_s: float) -> None:
    times, count = 10.0 * np.arange(24), {10: 24, 60: 4, 100: 2, 1e9: 1, 1: 24}[solint_s]
    middle, part = split_intervals(times, 10.0, solint_s)
    assert middle.size == count
    assert np.all(np.diff(part) >= 0)
    assert middle == pytest.approx([times[part == k].mean() for k in range(count)])


def test_rank_references_prefers_healthy_outriggers() -> None:
    names = tuple(str(number) for number in range(1, 118))
    health = np.full(117, 0.9)
    health[102], health[103], health[105], health[0] = 0.0, 0.4, 0.95, 0.99
    assert rank_references("DSA_110", names, health)[:3] == ["106", "105", "107"]
    assert rank_references("DSA_110", names, health, "7")[:2] == ["7", "106"]
    assert rank_references("VLA", names, health)[0] == "1"
    assert rank_references("DSA_110", ("1", "2"), np.array([0.0, 0.1])) == ["2"]
