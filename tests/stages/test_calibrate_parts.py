"""The parts of calibrate by themselves: sums over the model, judgement, model skies, records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.astro.catalogues import nvss, standard_flux_jy
from contimg.astro.coordinates import separation_rad
from contimg.astro.gains import CalTable, Factors
from contimg.astro.predict import PointSources, Sky, power_law
from contimg.astro.telescope import SITE, band_hz
from contimg.records.calibration import AppliedTable, Calibration, read_calibration
from contimg.records.ms import MeasurementSet
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, SolveFailedError, UsageError
from contimg_calibrate import sky as skies
from contimg_calibrate.quality import (
    check_solution,
    flagged_fraction,
    measure_amplitudes,
    measure_residuals,
    phase_error_rad,
    row_gains,
)
from contimg_calibrate.visibilities import (
    Ratio,
    _estimate_weights,
    load_ratio,
    sum_channels,
    sum_times,
)
from observed import FREQ_HZ, STATIONS, Observed, write_artifact

if TYPE_CHECKING:
    import numpy.typing as npt

THREE_C_48 = PointSources(
    np.radians([24.42208096]), np.radians([33.15975916]), standard_flux_jy("3C48", FREQ_HZ)[None]
)
ANTENNAS = 117


@pytest.fixture(scope="module")
def seen() -> Observed:
    return Observed(THREE_C_48, times=3, noise_jy=2.0)


@pytest.fixture(scope="module")
def ms(seen: Observed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "group.ms"
    seen.write_ms(path)
    return path


def sky(seen: Observed) -> Sky:
    return Sky(seen.sources, *seen.centre(), FREQ_HZ, 0.0, 0.0, SITE, np.radians(seen.dec_deg))


def read(ms: Path, seen: Observed, flags: npt.NDArray[np.bool_] | None = None) -> Ratio:
    with MeasurementSet(ms) as table:
        return load_ratio(table, flags, sky(seen))


def truth(seen: Observed) -> Factors:
    band, gain = seen.band.astype(np.complex64), seen.gain[:, :, 0].astype(np.complex64)
    return Factors(band, np.zeros(band.shape, bool), gain, np.zeros(gain.shape, bool))


def one(seen: Observed) -> Factors:
    made = truth(seen)
    return replace(made, bandpass=np.ones_like(made.bandpass), gain=np.ones_like(made.gain))


class TestSums:
    def test_data_over_model_are_the_gains(self, ms: Path, seen: Observed) -> None:
        ratio = read(ms, seen)
        pairs = len(STATIONS) * (len(STATIONS) - 1) // 2
        assert ratio.product.shape == (3 * pairs, FREQ_HZ.size, 2)
        assert ratio.times_s == pytest.approx(seen.mjds * 86400, abs=1e-6)
        whole = seen.truth
        expected = whole[ratio.slot, ratio.ant1] * whole[ratio.slot, ratio.ant2].conj()
        found = ratio.product / ratio.power
        # Noise of 2 Jy over 16 Jy, times the gains.
        assert np.std((found / expected).real) == pytest.approx(
            2.0 / np.sqrt(ratio.power.mean()), rel=0.05
        )
        assert np.mean(found / expected) == pytest.approx(1.0, abs=2e-3)

    def test_weights_are_the_noise(self, ms: Path, seen: Observed) -> None:
        ratio = read(ms, seen)
        size = np.abs(seen.band[:, 0, :]) ** 2
        expected = 1 / (2.0**2 * size[ratio.pairs[:, 0]] * size[ratio.pairs[:, 1]])
        # 90 triples a baseline know a variance to 15 %, and the band's slope changes it by 10 %.
        assert np.median(ratio.weight / expected) == pytest.approx(1.0, abs=0.1)
        assert np.std(np.log(ratio.weight / expected)) < 0.35

    def test_sums_keep_the_minimum(self, ms: Path, seen: Observed) -> None:
        """Chi square of any gains, from all samples or from the sums, differs by the same constant."""
        ratio = read(ms, seen)
        rng = np.random.default_rng(0)
        constants = []
        for _ in range(3):
            trial = (
                rng.normal(size=(ANTENNAS, 1, 2)) + 1j * rng.normal(size=(ANTENNAS, 1, 2))
            ) * 0.07
            both = trial[ratio.ant1] * trial[ratio.ant2].conj()
            weight = ratio.weight[ratio.pair][:, None, :].astype(float)
            samples = float(
                np.sum(weight * np.abs(ratio.product - both * ratio.power) ** 2 / ratio.power)
            )
            top, bottom = sum_times(ratio, one(seen))
            pair = trial[ratio.pairs[:, 0]] * trial[ratio.pairs[:, 1]].conj()
            sums = float(np.sum(bottom.astype(float) * np.abs(top / bottom - pair) ** 2))
            constants.append(samples - sums)
        assert np.ptp(constants) < 1e-4 * abs(np.mean(constants))

    def test_gains_are_taken_out(self, ms: Path, seen: Observed) -> None:
        top, bottom = sum_channels(read(ms, seen), truth(seen))
        assert np.mean(top / bottom) == pytest.approx(1.0, abs=2e-3)
        # Y is the inverse variance of the real part.
        pulls = (top / bottom - 1).real * np.sqrt(bottom)
        assert np.std(pulls) == pytest.approx(1.0, abs=0.1)

    def test_the_two_sums_have_one_total(self, ms: Path, seen: Observed) -> None:
        ratio, gains = read(ms, seen), truth(seen)
        rows, bands = sum_channels(ratio, gains), sum_times(ratio, gains)
        for row, band in zip(rows, bands, strict=True):
            assert row.sum() == pytest.approx(band.sum(), rel=1e-4)

    def test_parts_of_the_band_add_up(self, ms: Path, seen: Observed) -> None:
        ratio, gains = read(ms, seen), truth(seen)
        whole = sum_channels(ratio, gains)[1]
        parts = (
            sum_channels(ratio, gains, slice(0, 10))[1]
            + sum_channels(ratio, gains, slice(10, None))[1]
        )
        assert parts == pytest.approx(whole, rel=1e-5)

    def test_flagged_solutions_and_samples_count_nothing(self, ms: Path, seen: Observed) -> None:
        flags = np.zeros((3 * seen.pairs[0].size, FREQ_HZ.size, 2), bool)
        flags[:, 3] = True
        ratio, gains = read(ms, seen, flags), truth(seen)
        lost = STATIONS[2] - 1
        gains.gain_flag[:, lost] = True
        _, bottom = sum_times(ratio, gains)
        assert not bottom[:, 3].any()
        assert not bottom[(ratio.pairs == lost).any(axis=1)].any()
        assert np.all(ratio.health[np.array(STATIONS) - 1] == pytest.approx(31 / 32))
        assert ratio.health[9] == 0.0  # station 10 is not correlated

    def test_no_baseline_dominates(self) -> None:
        noise = np.zeros((4, 1, 2))
        noise[:, 0] = [[1e-9, 100], [1.0, 100], [1.0, 100], [0.0, 0.0]]
        weight = _estimate_weights(noise)[:, 0]
        assert weight[0] == pytest.approx(10 * weight[1], rel=1e-5)
        assert weight[3] == pytest.approx(weight[1], rel=1e-5)


def table(value: npt.ArrayLike, flag: npt.ArrayLike | None = None, kind: str = "G") -> CalTable:
    values = np.asarray(value, complex)
    flags = np.zeros(values.shape, bool) if flag is None else np.asarray(flag, bool)
    return CalTable(
        "made",
        kind,
        np.zeros(values.shape[0]),
        np.arange(values.shape[2], dtype=float),
        values,
        flags,
    )


GOOD = {
    "scale": 1.0,
    "scale_error": 1e-4,
    "amplitude_rms": 0.01,
    "phase_rms_deg": 0.5,
    "expected_rms": 0.01,
}


def judge(
    gain: CalTable, left: dict[str, float] | None = None, max_flagged: float = 0.3
) -> dict[str, float]:
    health = np.ones(gain.value.shape[1])
    band = np.ones(gain.value.shape[2], bool)
    return check_solution(
        "group",
        {"gain": gain, "bandpass": replace(gain, kind="B")},
        health,
        left or GOOD,
        max_flagged,
        band,
    )


class TestJudgement:
    def test_a_good_solution_passes(self) -> None:
        said = judge(table(np.full((1, 10, 1, 2), 0.07)))
        assert said["amplitude_median"] == pytest.approx(0.07)
        assert said["odd_antennas"] == said["flagged_gain"] == 0.0

    def test_antennas_and_channels_without_data_are_not_flagged_solutions(self) -> None:
        flag = np.zeros((1, 10, 8, 2), bool)
        flag[:, :5], flag[:, :, 6:] = True, True
        bandpass = table(np.ones(flag.shape), flag, "B")
        alive, band = np.arange(10) >= 5, np.arange(8) < 6
        assert flagged_fraction(bandpass, alive, band) == 0.0
        assert flagged_fraction(bandpass, np.ones(10, bool), band) == 0.5
        assert flagged_fraction(bandpass, np.zeros(10, bool), band) == 1.0

    @pytest.mark.parametrize(("share", "passes"), [(0.3, True), (0.4, False)])
    def test_flagged_solutions(self, share: float, passes: bool) -> None:  # noqa: FBT001
        flag = np.zeros((1, 10, 1, 2), bool)
        flag[:, : round(10 * share)] = True
        gain = table(np.ones(flag.shape), flag)
        if passes:
            assert judge(gain)["flagged_gain"] == pytest.approx(share)
            return
        with pytest.raises(SolveFailedError, match="at most 30% flagged solutions"):
            judge(gain)

    @pytest.mark.parametrize("factor", [0.01, 100.0])
    def test_absurd_amplitudes(self, factor: float) -> None:
        value = np.full((1, 10, 1, 2), 0.07)
        value[:, :2] *= factor
        with pytest.raises(SolveFailedError, match="within a factor 5 of their median"):
            judge(table(value))

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
    def test_no_amplitude_at_all(self, value: float) -> None:
        assert measure_amplitudes(table(np.full((1, 4, 1, 2), value)), np.ones(4, bool))[1] == 1.0

    @pytest.mark.parametrize("left", [{"amplitude_rms": 0.5}, {"phase_rms_deg": 60.0}])
    def test_what_is_left_of_the_model(self, left: dict[str, float]) -> None:
        with pytest.raises(SolveFailedError, match="rms of the model"):
            judge(table(np.ones((1, 10, 1, 2))), {**GOOD, **left})

    def test_noise_is_allowed_for(self) -> None:
        noisy = {**GOOD, "amplitude_rms": 0.8, "phase_rms_deg": 60.0, "expected_rms": 0.3}
        assert judge(table(np.ones((1, 10, 1, 2))), noisy)["expected_rms"] == 0.3

    def test_leftover_is_measured(self, ms: Path, seen: Observed) -> None:
        ratio = read(ms, seen)
        left = measure_residuals(ratio, *sum_channels(ratio, truth(seen)))
        assert left["scale"] == pytest.approx(1.0, abs=5 * left["scale_error"])
        assert left["amplitude_rms"] == pytest.approx(left["expected_rms"], rel=0.15)
        assert np.radians(left["phase_rms_deg"]) == pytest.approx(left["expected_rms"], rel=0.15)
        raw = measure_residuals(ratio, *sum_channels(ratio, one(seen)))
        assert raw["phase_rms_deg"] > 60.0

    def test_nothing_left_is_no_success(self, ms: Path, seen: Observed) -> None:
        ratio = read(ms, seen)
        empty = np.zeros((ratio.slot.size, 2), np.float32)
        assert (
            measure_residuals(ratio, empty.astype(np.complex64), empty)["phase_rms_deg"] == np.inf
        )

    def test_the_error_of_a_phase_is_foretold(self, ms: Path, seen: Observed) -> None:
        ratio = read(ms, seen)
        _, bottom = sum_channels(ratio, truth(seen))
        # 2 Jy over 15.7 Jy, 21 baselines, 3 times, 32 channels.
        assert phase_error_rad(ratio, bottom) == pytest.approx(
            2.0 / 15.7 / np.sqrt(21 * 3 * 32), rel=0.1
        )
        assert phase_error_rad(ratio, np.zeros_like(bottom)) == np.inf

    def test_gain_factors_of_rows(self) -> None:
        gain = np.array([[[2.0, 1j], [1j, 1.0]]], np.complex64)
        lost = np.array([[[False, False], [False, True]]])
        factors = Factors(np.ones((2, 1, 2), np.complex64), np.zeros((2, 1, 2), bool), gain, lost)
        rows = (np.array([0]), np.array([0]), np.array([1]))
        assert row_gains(factors, *rows) == pytest.approx(np.array([[-2j, 0.0]]))


class TestSkies:
    @pytest.mark.parametrize("name", ["3C48", "j0137+3309", "0137+331", "24.42208,33.15976"])
    def test_calibrators_have_many_names(self, name: str) -> None:
        ra, dec = skies.look_up_position(name)
        assert (ra, dec) == pytest.approx((24.42208, 33.15976), abs=1e-4)

    def test_a_standard_has_its_polynomial(self) -> None:
        found = skies.look_up_calibrator(24.42208, 33.15976, band_hz())
        assert found.standard
        assert found.spectrum_jy == pytest.approx(standard_flux_jy("3C48", band_hz()))
        assert found.spectrum_jy[0] > found.spectrum_jy[-1]

    def test_another_calibrator_has_a_power_law(self) -> None:
        ra, dec = skies.look_up_position("2148+069")
        found = skies.look_up_calibrator(ra, dec, band_hz())
        assert not found.standard
        assert found.name == "2148+069"
        assert 1.0 < found.spectrum_jy.mean() < 10.0

    @pytest.mark.parametrize("place", [(100.0, 30.0), skies.look_up_position("343.4906,16.1482")])
    def test_no_flux_is_assumed(self, place: tuple[float, float]) -> None:
        # The second is 3C454.3, a blazar: its flux in a list is of another day.
        with pytest.raises(UsageError, match="known flux"):
            skies.look_up_calibrator(*place, band_hz())

    def test_field_sources_reach_the_beams_null(self) -> None:
        dec = np.radians(33.0)
        found = skies.find_field_sources(61065.0904, 61065.0940, dec, SITE, FREQ_HZ)
        centre = Observed(found, mjd=61065.0922).centre()
        away = np.degrees(separation_rad(found.ra_rad, found.dec_rad, *centre))
        assert 3.2 < away.max() < 4.3
        assert len(found) == len(nvss().within(*np.degrees(centre), float(away.max()) + 1e-9))
        assert found.flux_jy[:, 0] == pytest.approx(
            found.flux_jy[:, -1] * (FREQ_HZ[0] / FREQ_HZ[-1]) ** -0.7
        )

    def test_the_calibrators_own_row_is_left_out(self) -> None:
        around = nvss().within(24.42208, 33.15976, 1.0)
        field = PointSources(
            np.radians(around.ra_deg),
            np.radians(around.dec_deg),
            power_law(around.flux_jy, 1.4e9, FREQ_HZ),
        )
        assert around.flux_jy.max() > 10.0
        whole = skies.merge_sources(THREE_C_48, field)
        assert np.sum(whole.flux_jy[:, 0] > 10.0) == 1
        assert whole.flux_jy[0, 0] == THREE_C_48.flux_jy[0, 0]

    def test_faint_sources_are_left_out(self) -> None:
        ra, dec = Observed(THREE_C_48).centre()
        sources = PointSources(
            np.full(3, ra),
            dec + np.array([0.0, 0.01, 0.2]),
            power_law([1.0, 5.0, 50.0], 1.4e9, FREQ_HZ),
        )
        seen = Sky(sources, ra, dec, FREQ_HZ, 0.0, 0.0, SITE, np.radians(33.0))
        kept = skies.keep_bright(seen, np.array([61065.05196817219]), 0.5).sources
        assert np.array_equal(kept.flux_jy, sources.flux_jy[[1, 0]])
        assert np.array_equal(kept.dec_rad, sources.dec_rad[[1, 0]])

    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
    def test_merging_with_nothing_changes_nothing(self, fluxes: list[float]) -> None:
        places = np.linspace(0.1, 0.2, len(fluxes))
        sources = PointSources(places, places, np.array(fluxes)[:, None])
        none = PointSources(np.zeros(0), np.zeros(0), np.zeros((0, 1)))
        assert np.array_equal(skies.merge_sources(sources, none).flux_jy, sources.flux_jy)


RECORD: dict[str, Any] = {
    "group": "20260125t011431",
    "mjd": 61065.05,
    "dec_deg": 33.0,
    "rung": "PRIMARY_TRANSIT_GENERATED",
    "solved": True,
    "tables": [{"role": "bandpass", "kind": "B", "file": "bandpass.tar", "interp": "nearest"}],
    "calibrator": {
        "name": "3C48",
        "ra_deg": 24.4,
        "dec_deg": 33.2,
        "flux_jy": 16.0,
        "apparent_jy": 15.7,
        "standard": True,
    },
    "flux_anchor": "standard",
    "valid_from_mjd": 61064.55,
    "valid_to_mjd": 61065.55,
    "reference_antenna": "103",
    "flag_fraction": 0.0,
    "field_phase": {"done": False, "reason": "solved here"},
}


class TestRecord:
    def test_it_survives_its_json(self, tmp_path: Path) -> None:
        made = Calibration.model_validate(RECORD)
        write_artifact(
            tmp_path / "set", "calibrate", {}, {"calibration.json": made.model_dump_json().encode()}
        )
        context = Context(str(tmp_path / "out"), tmp_path, (), {})
        assert read_calibration(context, str(tmp_path / "set")) == made
        assert made.tables == (
            AppliedTable(role="bandpass", kind="B", file="bandpass.tar", interp="nearest"),
        )

    @pytest.mark.parametrize(
        "content", [b"{}", b"no json", json.dumps({**RECORD, "rung": "GUESSED"}).encode()]
    )
    def test_what_is_no_record_is_refused(self, tmp_path: Path, content: bytes) -> None:
        write_artifact(tmp_path / "set", "calibrate", {}, {"calibration.json": content})
        with pytest.raises(BadInputError, match="a calibration record"):
            read_calibration(
                Context(str(tmp_path / "out"), tmp_path, (), {}), str(tmp_path / "set")
            )

    def test_nothing_is_added_in_silence(self) -> None:
        with pytest.raises(ValidationError):
            Calibration.model_validate({**RECORD, "remark": "identity"})

    def test_the_registry_has_units_and_meanings(self) -> None:
        columns = {column.name: column for column in CALTABLES.columns}
        assert (columns["mjd"].unit, columns["dec"].unit, columns["apparent_flux"].unit) == (
            "d",
            "deg",
            "Jy",
        )
        assert all(column.meaning and column.ucd for column in columns.values())
