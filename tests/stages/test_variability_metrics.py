"""Statistics of light curves against published formulas; rows, verdicts and schemas."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.records.schemas.variability import ESE_CANDIDATES, LIGHTCURVE_STATS, LIGHTCURVES
from contimg.records.tables import Schema
from contimg.runtime.errors import BadInputError
from contimg_variability import metrics, stage
from contimg_variability.metrics import find_excursion, mission_score
from contimg_variability.stage import EseVerdict, LightCurve, split_curves, stats_row, summarise
from contimg_variability.templates import lens_curve
from light_curves import EPOCH_DAYS, OPTIONS, make_curve
from outside import outside_data

FLUX = np.array([10.0, 12.0, 9.0, 11.0])
ERROR = np.array([1.0, 2.0, 0.5, 1.0])
FLUXES = st.floats(-100, 1000, allow_subnormal=False, width=32)
fluxes = arrays(np.float64, st.integers(4, 30), elements=FLUXES)
SCHEMAS = [PHOTOMETRY, NORMALIZATION, NORMALIZED, LIGHTCURVES, LIGHTCURVE_STATS, ESE_CANDIDATES]


def published_eta(flux: np.ndarray, error: np.ndarray) -> float:
    weight, n = error**-2.0, flux.size
    difference = np.mean(weight * flux**2) - np.mean(weight * flux) ** 2 / np.mean(weight)
    return float(n / (n - 1) * difference)


def test_eta_by_hand() -> None:
    # Weights 1, 1/4, 4, 1: the mean is 60/6.25 = 9.6. Squares: 0.16 + 5.76/4 + 0.36·4 + 1.96 = 5;
    # over 3.
    assert metrics.weighted_mean(FLUX, ERROR) == pytest.approx((9.6, 0.4))
    assert metrics.eta(FLUX, ERROR) == pytest.approx(5.0 / 3)


@given(fluxes, st.integers(0, 2**32 - 1))
def test_eta_equals_the_published_form(flux: np.ndarray, seed: int) -> None:
    error = np.random.default_rng(seed).uniform(1, 5, flux.size)
    # The published form cancels: its own error is 1e-16 of ⟨wF²⟩, at most 1e6.
    assert metrics.eta(flux, error) == pytest.approx(published_eta(flux, error), rel=1e-9, abs=1e-7)


def test_eta_does_not_cancel_at_high_snr() -> None:
    error = np.full(50, 1e-6)
    flux = 1000.0 + error * np.random.default_rng(1).normal(size=50)
    exact = np.var((flux - 1000.0) / 1e-6, ddof=1)
    # Doubles near 1000 are 1.1e-13 apart, a ten-millionth of the error.
    assert metrics.eta(flux, error) == pytest.approx(exact, rel=1e-5)
    assert abs(published_eta(flux, error) - exact) > 1


def test_eta_of_noise_is_chi_square() -> None:
    rng = np.random.default_rng(4)
    error = rng.uniform(0.5, 3, (4000, 26))
    found = np.array([metrics.eta(100 + e * rng.normal(size=26), e) for e in error])
    # Mean 1, variance 2/25; 4000 of them.
    assert found.mean() == pytest.approx(1.0, abs=0.015)
    assert found.var() == pytest.approx(2 / 25, rel=0.1)
    p = np.array([metrics.p_constant(100 + e * rng.normal(size=26), e) for e in error])
    assert np.mean(p < 0.01) == pytest.approx(0.01, abs=0.005)


def test_modulation_is_scatter_over_mean() -> None:
    scatter = np.sqrt((0.25 + 2.25 + 2.25 + 0.25) / 3)
    assert metrics.modulation(FLUX) == pytest.approx(scatter / 10.5)


def test_pairs_by_hand() -> None:
    found = metrics.compare_pairs(FLUX[:2], ERROR[:2])
    assert found == pytest.approx((2 / np.sqrt(5), 4 / 22, 0))
    assert metrics.compare_pairs(FLUX[2:0:-1], ERROR[2:0:-1])[1] == pytest.approx(6 / 21)
    assert metrics.compare_pairs(FLUX, ERROR) == pytest.approx((2 / np.sqrt(1.25), 4 / 20, 0))
    assert metrics.compare_pairs(np.array([10.0, 20.0, 10.0]), np.full(3, 1.0))[2] == 2


@settings(deadline=None, max_examples=60)
@given(fluxes, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.3]))
def test_pairs_equal_those_of_all_pairs(flux: np.ndarray, seed: int, growth: float) -> None:
    error = np.random.default_rng(seed).uniform(1, 9, flux.size) + growth * np.abs(flux)
    i, j = np.triu_indices(flux.size, 1)
    vs = np.abs(flux[i] - flux[j]) / np.hypot(error[i], error[j])
    total = flux[i] + flux[j]
    m = np.abs(2 * (flux[i] - flux[j])) / np.where(
        total > np.hypot(error[i], error[j]), total, np.inf
    )
    found = metrics.compare_pairs(flux, error)
    assert found[0] == pytest.approx(vs.max())
    assert found[2] == np.count_nonzero((vs >= 4.3) & (m > 0.26))


def test_pair_without_a_sum_is_not_counted() -> None:
    # Their sum is zero: m would be infinite.
    vs, m, pairs = metrics.compare_pairs(np.array([-10.0, 10.0]), np.ones(2))
    assert vs == pytest.approx(20 / np.sqrt(2))
    assert np.isnan(m)
    assert pairs == 0


def test_3650_epochs_need_no_square_of_memory() -> None:
    rng = np.random.default_rng(1)
    flux = 100 + rng.normal(size=3650)
    flux[::50] += 40
    tracemalloc.start()
    vs, _, pairs = metrics.compare_pairs(flux, np.ones(3650))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert vs == pytest.approx(np.ptp(flux) / np.sqrt(2))
    assert pairs == 73 * 3577
    assert peak < 2e6  # all pairs: 1e8


@pytest.mark.parametrize(
    ("shape", "score"), [([0.9], 0.6), ([0.3, 0.6, 0.9, 0.6, 0.3], 1.0), ([0.05, 0.1, 0.05], 0.6)]
)
def test_score_has_no_rounding(shape: list[float], score: float) -> None:
    flux = np.ones(26)
    flux[10 : 10 + len(shape)] += shape
    found = mission_score(EPOCH_DAYS, flux, np.full(26, 0.005))
    # A spike of one epoch is symmetric and high, and lasts too short: 0.2 + 0.4 is not above 0.6.
    assert found.total == score
    assert metrics.exceeds(found.total, 0.6) == (score > 0.6)


def test_limits_are_exclusive_despite_rounding() -> None:
    assert not metrics.exceeds(0.1 + 0.2, 0.3)
    assert not metrics.exceeds(0.2 + 0.4, 0.6)
    assert metrics.exceeds(0.6001, 0.6)
    assert not metrics.exceeds(float("nan"), 0.6)
    # Amplitudes of 0.2 and 2 of the mean are outside, 14 days and 180 days, too.
    flux = np.ones(25)
    flux[12] = 1.2
    one = mission_score(6.0 * np.arange(25), flux / flux.mean(), np.full(25, 1e-3))
    assert one.amplitude < 0.2


def test_one_epoch_has_no_variability() -> None:
    flux, error = np.array([5.0]), np.array([1.0])
    found = [metrics.eta(flux, error), metrics.p_constant(flux, error), metrics.modulation(flux)]
    found += [metrics.compare_pairs(flux, error)[0], *metrics.leave_one_out(flux)]
    assert np.isnan(found).all()
    assert len(found) == 5


@settings(deadline=None)
@given(fluxes)
def test_leave_one_out_equals_leaving_one_out(flux: np.ndarray) -> None:
    n, found = flux.size, metrics.leave_one_out(flux)
    for k in range(n):
        rest = np.delete(flux, k)
        spread = rest.std(ddof=1)
        if spread > 1e-4 * np.abs(flux).max():  # else both are rounding
            expected = (flux[k] - rest.mean()) / (spread * np.sqrt(n / (n - 1)))
            assert found[k] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_leave_one_out_has_no_ceiling() -> None:
    flux = np.append(np.random.default_rng(0).normal(100, 1, 25), 300.0)
    plain = np.abs(flux - flux.mean()).max() / flux.std(ddof=1)
    assert plain < 25 / np.sqrt(26)
    assert metrics.leave_one_out(flux)[-1] > 100
    assert metrics.leave_one_out(np.array([1.0, 1.0, 1.0, 1.0, 2.0]))[-1] == np.inf
    assert (metrics.leave_one_out(np.ones(6)) == 0).all()


def condon_errors(row: dict[str, float], major: float, minor: float) -> float:
    """1 sigma of a fitted peak flux: Condon 1997, PASP 109, 166, eq. 21, exponents of table 1."""
    snr, x = row["flux_peak"] / row["rms_image"], row["maj_axis"] / major
    y = row["min_axis"] / minor
    rho2 = x * y / 4 * ((1 + x**-2) * (1 + y**-2)) ** 1.5 * snr**2
    return float(row["flux_peak"] * np.sqrt(2 / rho2))


def selavy(vast: Path) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, 5):
        lines = (vast / f"data/epoch{epoch:02d}.selavy.components.txt").read_text().splitlines()
        names = lines[0].lstrip("# ").split()
        rows += [dict(zip(names, line.split(), strict=False)) for line in lines[2:]]
    wanted = ("flux_peak", "maj_axis", "min_axis", "rms_image")
    return [{name: float(row[name]) for name in wanted} for row in rows]


def test_eta_and_v_equal_those_of_vast() -> None:
    import pandas as pd

    vast = outside_data("vast_basic")
    results = vast / "results/basic-association-with-forced-extraction"
    rows = enumerate(selavy(vast), start=1)
    fitted = {k: (row["flux_peak"], condon_errors(row, 15.0, 10.0)) for k, row in rows}
    forced = pd.concat([pd.read_parquet(path) for path in results.glob("forced_*.parquet")])
    fitted |= {row.id: (row.flux_peak, row.flux_peak_err) for row in forced.itertuples()}
    expected = pd.read_parquet(results / "sources.parquet")
    members = pd.read_parquet(results / "associations.parquet").groupby("source_id").meas_id
    assert len(expected) == 7
    for source, ids in members:
        flux, error = np.array([fitted[k] for k in ids]).T
        # They sum the form that cancels: ⟨wF²⟩ is 4e6 there, so 1e-9 of it is 4e-3 · 1e-6 of η.
        assert metrics.eta(flux, error) == pytest.approx(expected.eta_peak[source], rel=1e-7)
        assert metrics.modulation(flux) == pytest.approx(expected.v_peak[source], rel=1e-9)


def curve(flux: np.ndarray, error: float = 0.01, name: str = "steady") -> LightCurve:
    return make_curve(61000.0 + 6.0 * np.arange(flux.size), flux, np.full(flux.size, error), name)


def steady(n: int = 26, seed: int = 0, name: str = "steady") -> LightCurve:
    return curve(1 + 0.01 * np.random.default_rng(seed).normal(size=n), name=name)


def judge(*curves: LightCurve) -> list[EseVerdict]:
    return [stage.judge_curve(one, OPTIONS) for one in curves]


def rows(*curves: LightCurve) -> list[dict[str, Any]]:
    return [stats_row(one, *judge(one)) for one in curves]


def normalized(flux: list[float | None]) -> Any:
    columns: dict[str, Any] = {column.name: [1.0] * 6 for column in NORMALIZED.columns}
    columns |= {
        "source": ["b", "a", "a", "b", "a", "a"],
        "field": ["f"] * 6,
        "status": ["good"] * 6,
        "epoch": [1, 3, 1, 2, 2, 4],
        "mjd": [61001.0, 61003.0, 61001.0, 61002.0, 61002.0, 61004.0],
        "flux": flux,
        "upper_limit": [False, False, True, False, False, False],
        "reference": [True, False, False, True, False, False],
    }
    return NORMALIZED.table(columns)


def test_curves_are_sorted_and_normalised() -> None:
    first, second = split_curves(normalized([5.0, 3.0, 1.0, 6.0, 2.0, None]))
    assert (first.source, first.reference) == ("a", False)
    assert first.flux.tolist() == [1.0, 2.0, 3.0]
    assert first.epoch.tolist() == [1, 2, 3]
    assert first.upper_limit.tolist() == [True, False, False]
    assert (second.source, second.reference, second.flux.tolist()) == ("b", True, [5.0, 6.0])
    assert split_curves(normalized([None] * 6)) == []


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_curves_of_parts_are_those_of_the_whole(size: int) -> None:
    table = normalized([5.0, 3.0, 1.0, 6.0, 2.0, None])
    parts = [table.slice(k, size) for k in range(0, 6, size)]
    found = [one for part in stage.read_curves([*parts, table.slice(6)], "here") for one in part]
    for one, expected in zip(found, split_curves(table), strict=True):
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(one, name), value)
    for wrong in ([table.slice(4), table.slice(0, 4)], [table.take([0, 4, 1])]):
        with pytest.raises(BadInputError, match="not sorted by source"):
            list(stage.read_curves(wrong, "here"))


def test_steady_source_row() -> None:
    (row,) = rows(steady())
    assert row["n_epochs"] == 26
    # Two sigma of a χ² with 25 degrees of freedom.
    assert row["eta_peak"] == pytest.approx(1.0, abs=0.6)
    assert row["flux_mean_err"] == pytest.approx(0.01 / np.sqrt(26))
    expected = {"n_significant_pairs": 0, "ese_evidence": None, "ese_candidate": False}
    expected["ese_reason"] = "constant within the errors"
    assert expected.items() <= row.items()
    assert LIGHTCURVE_STATS.rows([row]).num_rows == 1


def test_single_epoch_row_has_nulls() -> None:
    table = LIGHTCURVE_STATS.rows(rows(curve(np.array([1.0]))))
    null = {"flux_std", "v_peak", "eta_peak", "p_constant", "vs_abs_max_peak", "outlier_max"}
    null |= {"ese_score", "ese_tau"}
    assert {name for name in null if table[name].null_count != 1} == set()
    assert "more than 20 are needed" in table["ese_reason"][0].as_py()


def test_outlier_has_its_date() -> None:
    flux = steady().flux.copy()
    flux[7] = 2.0
    row = stats_row(curve(flux), EseVerdict(candidate=False, reason=""))
    assert row["outlier_mjd"] == 61042.0
    assert row["outlier_max"] > 50


def test_candidate_has_lens_and_model() -> None:
    shape = 1 + 0.9 * lens_curve(EPOCH_DAYS, 1.5, 0.3, 75.0, 60.0)
    noise = 0.01 * np.random.default_rng(0).normal(size=26)
    curves = [curve(shape + noise, name="lens"), steady()]
    verdicts = judge(*curves)
    assert [verdict.candidate for verdict in verdicts] == [True, False]
    row = stage.candidate_row(stats_row(curves[0], verdicts[0]), verdicts[0].lens)
    rivals = (row["over_red_noise"], row["over_flare"], row["over_bad_epochs"])
    assert row["ese_evidence"] == min(rivals)
    assert row["lens_duration"] == pytest.approx(60.0, abs=6.0)  # a cadence
    assert row["flux_quiescent"] == pytest.approx(1.0, abs=0.02)
    assert set(row) == {column.name for column in ESE_CANDIDATES.columns}
    assert ESE_CANDIDATES.rows([row]).num_rows == 1
    table = LIGHTCURVES.table(stage.curve_columns(curves, verdicts))
    assert table.num_rows == 52
    assert table["model"].null_count == 26


def test_wrong_amplitude_is_reported() -> None:
    (row,) = rows(curve(1 + 0.05 * np.sin(np.arange(26) / 3), error=0.001))
    assert "mission score" in row["ese_reason"]


def test_summary_counts_and_warns() -> None:
    curves = [steady(seed=k, name=f"s{k}") for k in range(4)]
    result = summarise(rows(*curves), OPTIONS)
    counts = {"sources": 4, "judged": 4, "candidates": 0, "variable": 0}
    assert counts.items() <= result.metrics.items()
    assert result.qa.verdict == "good"
    verdict = EseVerdict(candidate=True, reason="")
    many = summarise([stats_row(one, verdict) for one in curves], OPTIONS)
    assert any("4 of 4" in reason for reason in many.qa.reasons)
    assert summarise(rows(steady(10)), OPTIONS).qa.verdict == "warning"


def test_no_candidates_is_an_empty_table() -> None:
    data = ESE_CANDIDATES.to_bytes(ESE_CANDIDATES.rows([]))
    assert ESE_CANDIDATES.read(data, "here").num_rows == 0


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_schema_has_valid_units_and_ucds(schema: Schema) -> None:
    for column in schema.columns:
        if column.ucd:
            parse_ucd(column.ucd, check_controlled_vocabulary=True, has_colon=False)
        units.Unit(column.unit, format=None if "beam" in column.unit else "vounit")
        assert column.meaning or column.name == "flux_median"
    names = [column.name for column in schema.columns]
    assert len(names) == len(set(names))
    assert set(schema.sort) <= set(names)


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_astropy_reads_units_and_meanings() -> None:
    data = LIGHTCURVE_STATS.to_bytes(LIGHTCURVE_STATS.rows(rows(steady())))
    table = Table.read(io.BytesIO(data), format="parquet.votable")
    assert table["ra"].unit == units.deg
    assert str(table["flux_mean"].unit) == "mJy / beam"
    assert table["eta_peak"].description.startswith("Reduced chi-square")


@given(arrays(np.float64, 26, elements=st.floats(-3, 3, width=32)))
def test_excursion_holds_its_extreme(deviation: np.ndarray) -> None:
    first, last = find_excursion(deviation, np.full(26, 0.1))
    size = np.abs(deviation)
    if first > last:
        assert (size <= 0.3 + 1e-9).all()
    else:
        assert size[first : last + 1].max() == size.max()
        assert min(size[first], size[last]) >= 0.25 * size.max()


@given(st.floats(0.01, 100))
def test_score_does_not_depend_on_the_unit(scale: float) -> None:
    flux = np.ones(26)
    flux[10:14] = [0.9, 0.6, 0.5, 0.8]
    one = mission_score(EPOCH_DAYS, flux, np.full(26, 0.01))
    other = mission_score(EPOCH_DAYS, scale * flux, np.full(26, 0.01 * scale))
    assert other.total == pytest.approx(one.total)
    assert other.tau_days == one.tau_days


def test_long_quiet_gap_ends_excursion() -> None:
    deviation = np.zeros(26)
    deviation[[5, 8, 13]] = 1.0, -1.2, 0.9
    assert find_excursion(deviation, np.full(26, 0.1)) == (5, 8)
