"""The parts of calibrate by themselves: sums over the model, quality, model skies, records."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.astro.catalogues import nvss
from contimg.astro.coordinates import icrs_of_hadec, separation_rad
from contimg.astro.gains import CalTable, Factors
from contimg.astro.predict import PointSources, SkyModel, power_law
from contimg.astro.standards import standard
from contimg.astro.telescope import SITE, band_hz
from contimg.records.calibration import AppliedTable, Calibration, read_calibration
from contimg.records.ms import MeasurementSet
from contimg.records.schemas.caltables import CALTABLES
from contimg.runtime.context import Context
from contimg.runtime.errors import BadInputError, SolveFailedError, UsageError
from contimg_calibrate import sky_models
from contimg_calibrate import visibilities as vis
from contimg_calibrate.quality import check_solution, measure_residuals, phase_error_rad
from contimg_calibrate.visibilities import Ratio, load_ratio, sum_channels, sum_times
from observed import BEAM, FREQ_HZ, STATIONS, USED, SyntheticGroup, three_c_48, write_artifact

GROUP = SyntheticGroup(times=3, noise_jy=2.0)


@pytest.fixture(scope="module")
def ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "group.ms"
    GROUP.write_ms(path)
    return path


def load(ms: Path, flags: npt.NDArray[np.bool_] | None = None) -> Ratio:
    pointing = SITE, np.radians(GROUP.dec_deg)
    sky = SkyModel(GROUP.sources, *GROUP.centre(), FREQ_HZ, 0.0, 0.0, BEAM, *pointing)
    with MeasurementSet(ms) as table:
        return load_ratio(table, flags, sky)


@pytest.fixture(scope="module")
def ratio(ms: Path) -> Ratio:
    return load(ms)


@pytest.fixture
def truth() -> Factors:
    band, gain = GROUP.band.astype(np.complex64), GROUP.gain[:, :, 0].astype(np.complex64)
    return Factors(band, np.zeros(band.shape, bool), gain, np.zeros(gain.shape, bool))


@pytest.fixture
def unity(truth: Factors) -> Factors:
    return replace(truth, bandpass=np.ones_like(truth.bandpass), gain=np.ones_like(truth.gain))


class TestSums:
    def test_data_over_model_are_the_gains(self, ratio: Ratio) -> None:
        pairs = len(STATIONS) * (len(STATIONS) - 1) // 2
        assert ratio.product.shape == (3 * pairs, FREQ_HZ.size, 2)
        assert ratio.times_s == pytest.approx(GROUP.mjds * 86400, abs=1e-6)
        whole = GROUP.truth
        expected = whole[ratio.slot, ratio.ant1] * whole[ratio.slot, ratio.ant2].conj()
        found = ratio.product / ratio.power / expected
        # Noise of 2 Jy over 16 Jy, times the gains.
        assert np.std(found.real) == pytest.approx(2.0 / np.sqrt(ratio.power.mean()), rel=0.05)
        assert np.mean(found) == pytest.approx(1.0, abs=2e-3)

    def test_weights_are_inverse_noise_variances(self, ratio: Ratio) -> None:
        size = np.abs(GROUP.band[:, 0, :]) ** 2
        expected = 1 / (2.0**2 * size[ratio.pairs[:, 0]] * size[ratio.pairs[:, 1]])
        # 90 triples a baseline know a variance to 15 %, and the band's slope changes it by 10 %.
        assert np.median(ratio.weight / expected) == pytest.approx(1.0, abs=0.1)
        assert np.std(np.log(ratio.weight / expected)) < 0.35

    def test_sums_and_samples_share_their_minimum(self, ratio: Ratio, unity: Factors) -> None:
        """Chi square of any gains, from all samples or from the sums, differs by a constant."""
        rng = np.random.default_rng(0)
        constants = []
        for _ in range(3):
            trial = (rng.normal(size=(117, 1, 2)) + 1j * rng.normal(size=(117, 1, 2))) * 0.07
            both = trial[ratio.ant1] * trial[ratio.ant2].conj()
            weight = ratio.weight[ratio.pair][:, None, :].astype(float)
            left = np.abs(ratio.product - both * ratio.power) ** 2 / ratio.power
            x, y = sum_times(ratio, unity)
            pair = trial[ratio.pairs[:, 0]] * trial[ratio.pairs[:, 1]].conj()
            sums = float(np.sum(y.astype(float) * np.abs(x / y - pair) ** 2))
            constants.append(float(np.sum(weight * left)) - sums)
        assert np.ptp(constants) < 1e-4 * abs(np.mean(constants))

    def test_sums_take_gains_out_and_add_up(self, ratio: Ratio, truth: Factors) -> None:
        x, y = sum_channels(ratio, truth)
        assert np.mean(x / y) == pytest.approx(1.0, abs=2e-3)
        # Y is the inverse variance of the real part.
        assert np.std((x / y - 1).real * np.sqrt(y)) == pytest.approx(1.0, abs=0.1)
        for row, band in zip((x, y), sum_times(ratio, truth), strict=True):
            assert row.sum() == pytest.approx(band.sum(), rel=1e-4)
        parts = [sum_channels(ratio, truth, part)[1] for part in (slice(0, 10), slice(10, None))]
        assert sum(parts) == pytest.approx(y, rel=1e-5)

    def test_flagged_solutions_and_samples_are_ignored(self, ms: Path, truth: Factors) -> None:
        flags = np.zeros(GROUP.shape, bool)
        flags[:, 3] = True
        ratio, lost = load(ms, flags), STATIONS[2] - 1
        truth.gain_flag[:, lost] = True
        _, y = sum_times(ratio, truth)
        assert not y[:, 3].any()
        assert not y[(ratio.pairs == lost).any(axis=1)].any()
        assert np.all(ratio.health[USED] == pytest.approx(31 / 32))
        assert ratio.health[9] == 0.0  # station 10 is not correlated

    def test_weights_are_limited_and_have_a_default(self) -> None:
        noise = np.zeros((4, 1, 2))
        noise[:, 0] = [[1e-9, 100], [1.0, 100], [1.0, 100], [0.0, 0.0]]
        weight = vis.estimate_weights(noise)[:, 0]
        assert weight[0] == pytest.approx(10 * weight[1], rel=1e-5)
        assert weight[3] == pytest.approx(weight[1], rel=1e-5)


def make_table(value: npt.ArrayLike, flag: npt.ArrayLike = 0, kind: str = "G") -> CalTable:
    values = np.asarray(value, complex)
    flags = np.broadcast_to(np.asarray(flag, bool), values.shape)
    times_s, freq_hz = np.zeros(values.shape[0]), np.arange(values.shape[2], dtype=float)
    return CalTable("made", kind, times_s, freq_hz, values, flags)


RMS = {"amplitude_rms": 0.01, "phase_rms_deg": 0.5, "expected_rms": 0.01}
GOOD = {"scale": 1.0, "scale_error": 1e-4, **RMS}


def check(
    gain: CalTable, bandpass: CalTable | None = None, max_flagged: float = 0.3, **changes: Any
) -> dict[str, float]:
    return check_solution(
        "group",
        tables={"bandpass": replace(bandpass or gain, kind="B"), "gain": gain},
        health=changes.pop("health", np.ones(gain.value.shape[1])),
        max_flagged=max_flagged,
        band=changes.pop("band", np.ones(gain.value.shape[2], bool)),
        residuals={**GOOD, **changes},
    )


class TestQuality:
    def test_good_or_noisy_solution_passes(self) -> None:
        quality = check(make_table(np.full((1, 10, 1, 2), 0.07)))
        assert quality["amplitude_median"] == pytest.approx(0.07)
        assert quality["odd_antennas"] == quality["flagged_gain"] == 0.0
        noisy = {"amplitude_rms": 0.8, "phase_rms_deg": 60.0, "expected_rms": 0.3}
        assert check(make_table(np.ones((1, 10, 1, 2))), **noisy)["expected_rms"] == 0.3

    def test_flagged_fraction_ignores_what_has_no_data(self) -> None:
        flag = np.zeros((1, 10, 8, 2), bool)
        flag[:, :5], flag[:, :, 6:] = True, True
        gain, bandpass = make_table(np.ones((1, 10, 1, 2))), make_table(np.ones(flag.shape), flag)
        data = {"bandpass": bandpass, "band": np.arange(8) < 6, "max_flagged": 0.9}
        assert check(gain, health=np.arange(10) >= 5, **data)["flagged_bandpass"] == 0.0
        assert check(gain, health=np.ones(10), **data)["flagged_bandpass"] == 0.5
        with pytest.raises(SolveFailedError, match=r"100\.0% of the bandpass solutions"):
            check(gain, health=np.zeros(10), **data)

    def test_more_than_max_flagged_fails(self) -> None:
        flag = np.zeros((1, 10, 1, 2), bool)
        flag[:, :3] = True
        assert check(make_table(np.ones(flag.shape), flag))["flagged_gain"] == pytest.approx(0.3)
        flag[:, 3] = True
        with pytest.raises(SolveFailedError, match="at most 30% flagged solutions"):
            check(make_table(np.ones(flag.shape), flag))

    @pytest.mark.parametrize("factor", [0.01, 100.0])
    def test_odd_amplitudes_fail(self, factor: float) -> None:
        value = np.full((1, 10, 1, 2), 0.07)
        value[:, :2] *= factor
        with pytest.raises(SolveFailedError, match="within a factor 5 of their median"):
            check(make_table(value))

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
    def test_all_antennas_are_odd_without_amplitudes(self, value: float) -> None:
        with pytest.raises(SolveFailedError, match=r"100\.0% of the antenna gains"):
            check(make_table(np.full((1, 4, 1, 2), value)))

    @pytest.mark.parametrize("residual", [{"amplitude_rms": 0.5}, {"phase_rms_deg": 60.0}])
    def test_large_residuals_fail(self, residual: dict[str, float]) -> None:
        with pytest.raises(SolveFailedError, match="rms about the model"):
            check(make_table(np.ones((1, 10, 1, 2))), **residual)

    def test_residuals_of_truth_are_noise(self, ratio: Ratio, truth: Factors, unity: Any) -> None:
        x, y = sum_channels(ratio, truth)
        found = measure_residuals(ratio, x, y)
        assert found["scale"] == pytest.approx(1.0, abs=5 * found["scale_error"])
        assert found["amplitude_rms"] == pytest.approx(found["expected_rms"], rel=0.15)
        assert np.radians(found["phase_rms_deg"]) == pytest.approx(found["expected_rms"], rel=0.15)
        # 2 Jy over 15.7 Jy, 21 baselines, 3 times, 32 channels.
        expected = 2.0 / 15.7 / np.sqrt(21 * 3 * 32)
        assert phase_error_rad(ratio, y) == pytest.approx(expected, rel=0.1)
        raw = measure_residuals(ratio, *sum_channels(ratio, unity))
        assert raw["phase_rms_deg"] > 60.0

    def test_phases_that_change_are_no_gain_step(self, ratio: Ratio, truth: Factors) -> None:
        """As in the air above a long array: 0, 60 and 0 deg rms in three integrations."""
        x, y = sum_channels(ratio, truth)
        phase = np.random.default_rng(3).normal(size=(3, ratio.antennas)) * [[0.0], [1.05], [0.0]]
        one, two = (phase[ratio.slot, ant] for ant in (ratio.ant1, ratio.ant2))
        turned = (x * np.exp(1j * (one - two))[:, None]).astype(np.complex64)
        assert abs(measure_residuals(ratio, turned, y)["gain_step"]) < 0.03
        turned[ratio.slot == 1] *= 1.5
        assert measure_residuals(ratio, turned, y)["gain_step"] == pytest.approx(0.5, abs=0.08)

    def test_residuals_of_no_data_are_infinite(self, ratio: Ratio) -> None:
        empty = np.zeros((ratio.slot.size, 2), np.float32)
        found = measure_residuals(ratio, empty.astype(np.complex64), empty)
        assert found["phase_rms_deg"] == np.inf
        assert phase_error_rad(ratio, empty) == np.inf

    def test_row_gains_are_zero_where_flagged(self) -> None:
        gain = np.array([[[2.0, 1j], [1j, 1.0]]], np.complex64)
        lost = np.array([[[False, False], [False, True]]])
        factors = Factors(np.ones((2, 1, 2), np.complex64), np.zeros((2, 1, 2), bool), gain, lost)
        found = vis.row_gains(factors, np.array([0]), np.array([0]), np.array([1]))
        assert found == pytest.approx(np.array([[-2j, 0.0]]))


class TestSky:
    @pytest.mark.parametrize("name", ["3C48", "j0137+3309", "0137+331", "24.42208,33.15976"])
    def test_position_is_found_by_any_name(self, name: str) -> None:
        assert sky_models.look_up_position(name) == pytest.approx((24.42208, 33.15976), abs=1e-4)

    def test_spectrum_is_of_standard_or_list(self) -> None:
        found = sky_models.look_up_calibrator(24.42208, 33.15976, band_hz())
        assert found.standard
        assert found.spectrum_jy == pytest.approx(standard("3C48").flux_jy(band_hz()))
        assert found.spectrum_jy[0] > found.spectrum_jy[-1]
        found = sky_models.look_up_calibrator(*sky_models.look_up_position("2148+069"), band_hz())
        assert (found.name, found.standard) == ("2148+069", False)
        assert 1.0 < found.spectrum_jy.mean() < 10.0

    # The second is 3C454.3, a blazar: its flux in a list is of another day.
    @pytest.mark.parametrize("place", [(100.0, 30.0), (343.4906, 16.1482)])
    def test_flux_is_never_assumed(self, place: tuple[float, float]) -> None:
        with pytest.raises(UsageError, match="known flux"):
            sky_models.look_up_calibrator(*place, band_hz())

    def test_field_sources_reach_beam_null(self) -> None:
        found = sky_models.find_field_sources(61065.0904, 61065.0940, 33.0, SITE, FREQ_HZ, BEAM)
        centre = SyntheticGroup(found, mjd=61065.0922).centre()
        away = np.degrees(separation_rad(found.ra_rad, found.dec_rad, *centre))
        assert 3.2 < away.max() < 4.3
        within = nvss().within(*np.degrees(centre), float(away.max()) + 1e-9)
        assert found.ra_rad.size == len(within)
        ratio = (FREQ_HZ[0] / FREQ_HZ[-1]) ** -0.7
        assert found.flux_jy[:, 0] == pytest.approx(found.flux_jy[:, -1] * ratio)

    def test_taurus_a_is_in_the_model_of_a_field_beyond_the_null(self) -> None:
        found = sky_models.find_field_sources(61065.2188, 61065.2224, 16.64, SITE, FREQ_HZ, BEAM)
        centre = icrs_of_hadec(0.0, float(np.radians(16.64)), np.array([61065.2206]), SITE)
        away = np.degrees(separation_rad(found.ra_rad, found.dec_rad, *centre))
        far = away > 4.3
        assert found.flux_jy[far].max() > 600
        assert found.flux_jy[far].min() > 4
        assert np.count_nonzero(far) < 4

    def test_calibrator_in_field_is_at_its_own_position(self) -> None:
        """NVSS has 3C48 0.5 arcsec off, and phases fitted to a field took that over."""
        found = sky_models.find_field_sources(61065.0502, 61065.0538, 33.0, SITE, FREQ_HZ, BEAM)
        true = (angle[0] for angle in (three_c_48().ra_rad, three_c_48().dec_rad))
        away = separation_rad(found.ra_rad, found.dec_rad, *true)
        assert np.degrees(away.min()) * 3600 < 0.01

    def test_merge_sources_drops_the_calibrators_own_row(self) -> None:
        around = nvss().within(24.42208, 33.15976, 1.0)
        assert around.flux_jy.max() > 10.0
        places = np.radians(around.ra_deg), np.radians(around.dec_deg)
        field = PointSources(*places, power_law(around.flux_jy, 1.4e9, FREQ_HZ))
        whole = sky_models.merge_sources(three_c_48(), field)
        assert np.sum(whole.flux_jy[:, 0] > 10.0) == 1
        assert whole.flux_jy[0, 0] == three_c_48().flux_jy[0, 0]

    def test_keep_bright_sorts_by_apparent_flux(self) -> None:
        ra, dec = SyntheticGroup().centre()
        places = np.full(3, ra), dec + np.array([0.0, 0.01, 0.2])
        sources = PointSources(*places, power_law([1.0, 5.0, 50.0], 1.4e9, FREQ_HZ))
        sky = SkyModel(sources, ra, dec, FREQ_HZ, 0.0, 0.0, BEAM, SITE, np.radians(33.0))
        kept = sky_models.keep_bright(sky, np.array([61065.05196817219]), 0.5).sources
        assert np.array_equal(kept.flux_jy, sources.flux_jy[[1, 0]])
        assert np.array_equal(kept.dec_rad, sources.dec_rad[[1, 0]])

    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
    def test_merge_sources_with_none_is_identity(self, fluxes: list[float]) -> None:
        places = np.linspace(0.1, 0.2, len(fluxes))
        sources = PointSources(places, places, np.array(fluxes)[:, None])
        none = PointSources(np.zeros(0), np.zeros(0), np.zeros((0, 1)))
        assert np.array_equal(sky_models.merge_sources(sources, none).flux_jy, sources.flux_jy)


CALIBRATOR = {"name": "3C48", "ra_deg": 24.4, "dec_deg": 33.2, "standard": True}
TABLE = {"role": "bandpass", "kind": "B", "file": "bandpass.tar", "interp": "nearest"}
RECORD: dict[str, Any] = {
    "group": "20260125t011431",
    "mjd": 61065.05,
    "dec_deg": 33.0,
    "rung": "PRIMARY_TRANSIT_GENERATED",
    "solved": True,
    "tables": [TABLE],
    "calibrator": {**CALIBRATOR, "flux_jy": 16.0, "apparent_jy": 15.7},
    "flux_anchor": "standard",
    "valid_from_mjd": 61064.55,
    "valid_to_mjd": 61065.55,
    "reference_antenna": "103",
    "flag_fraction": 0.0,
    "field_phase": {"done": False, "reason": "solved here"},
}


def read(folder: Path, content: str) -> Calibration:
    write_artifact(folder / "set", "calibrate", {}, {"calibration.json": content.encode()})
    return read_calibration(Context(str(folder / "out"), folder, (), {}), str(folder / "set"))


class TestRecord:
    def test_record_survives_json(self, tmp_path: Path) -> None:
        made = Calibration.model_validate(RECORD)
        assert read(tmp_path, made.model_dump_json()) == made
        assert made.tables == (AppliedTable.model_validate(TABLE),)

    @pytest.mark.parametrize("content", ["{}", "no json", json.dumps({**RECORD, "rung": "GUESS"})])
    def test_other_content_is_refused(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(BadInputError, match="a calibration record"):
            read(tmp_path, content)

    def test_unknown_field_is_refused(self) -> None:
        with pytest.raises(ValidationError):
            Calibration.model_validate({**RECORD, "remark": "identity"})

    def test_registry_has_units_and_meanings(self) -> None:
        columns = {column.name: column for column in CALTABLES.columns}
        units = {"mjd": "d", "dec": "deg", "apparent_flux": "Jy"}
        assert {name: columns[name].unit for name in units} == units
        assert all(column.meaning and column.ucd for column in columns.values())
