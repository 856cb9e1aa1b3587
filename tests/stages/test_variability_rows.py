"""Rows, reasons and verdicts of the variability stage, in the process; all schemas of the three stages as others read them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.records.schemas.photometry import PHOTOMETRY
from contimg.records.schemas.variability import ESE_CANDIDATES, LIGHTCURVE_STATS, LIGHTCURVES
from contimg.records.tables import Schema
from contimg_variability.options import VariabilityOptions
from contimg_variability.score import excursion, mission_score
from contimg_variability.stage import (
    LightCurve,
    Verdict,
    candidate_row,
    curve_rows,
    judge,
    judge_curve,
    light_curves,
    stats_row,
    summarise,
)

OPTIONS = VariabilityOptions(normalized="n", tables="t", out="o")
SCHEMAS = [PHOTOMETRY, NORMALIZATION, NORMALIZED, LIGHTCURVES, LIGHTCURVE_STATS, ESE_CANDIDATES]
DAYS = 6.0 * np.arange(26)


def curve(
    flux: np.ndarray, error: float = 0.01, name: str = "DSA J000000.0+330000", **changed: Any
) -> LightCurve:
    n = flux.size
    parts = {
        "source": name,
        "ra_deg": 0.0,
        "dec_deg": 33.0,
        "field": "f",
        "reference": False,
        "mjd": 61000.0 + 6.0 * np.arange(n),
        "epoch": np.arange(n),
        "flux": flux,
        "error": np.full(n, error),
        "limit": np.zeros(n, bool),
    }
    return LightCurve(**(parts | changed))


def steady(n: int = 26, seed: int = 0, name: str = "DSA J000000.0+330000") -> LightCurve:
    return curve(1 + 0.01 * np.random.default_rng(seed).normal(size=n), name=name)


def normalized(**changed: Any) -> Any:
    n = 6
    rows: dict[str, Any] = {
        "source": ["b", "a", "a", "b", "a", "a"],
        "ra": [2.0, 1.0, 1.0, 2.0, 1.0, 1.0],
        "dec": [33.0] * n,
        "field": ["f"] * n,
        "epoch": [1, 3, 1, 2, 2, 4],
        "mjd": [61001.0, 61003.0, 61001.0, 61002.0, 61002.0, 61004.0],
        "groups": [1] * n,
        "flux_raw": [1.0] * n,
        "flux_raw_err": [0.1] * n,
        "noise": [0.1] * n,
        "factor": [1.0] * n,
        "factor_err": [0.01] * n,
        "flux": [5.0, 3.0, 1.0, 6.0, 2.0, None],
        "flux_err": [0.1] * n,
        "snr": [10.0] * n,
        "upper_limit": [False, False, True, False, False, False],
        "reference": [True, False, False, True, False, False],
        "baseline": [1.0] * n,
        "baseline_scatter": [0.1] * n,
    }
    return NORMALIZED.table(rows | changed)


def test_light_curves_are_sorted_and_without_epochs_that_have_no_scale() -> None:
    first, second = light_curves(normalized())
    assert (first.source, second.source) == ("a", "b")
    assert first.flux.tolist() == [1.0, 2.0, 3.0]
    assert first.epoch.tolist() == [1, 2, 3]
    assert first.limit.tolist() == [True, False, False]
    assert (first.reference, second.reference) == (False, True)


def test_no_scale_at_all_makes_no_light_curve() -> None:
    assert light_curves(normalized(flux=[None] * 6)) == []


def test_row_of_a_steady_source() -> None:
    made = steady()
    verdict = judge_curve(made, OPTIONS)
    row = stats_row(made, verdict)
    assert row["n_epochs"] == 26
    assert row["eta_peak"] == pytest.approx(
        1.0, abs=0.6
    )  # two sigma of a χ² with 25 degrees of freedom
    assert row["flux_mean_err"] == pytest.approx(0.01 / np.sqrt(26))
    assert row["n_significant_pairs"] == 0
    assert row["ese_reason"] == "constant within the errors"
    assert row["ese_evidence"] is None
    assert not row["ese_candidate"]
    assert LIGHTCURVE_STATS.rows([row]).num_rows == 1


def test_row_of_a_single_epoch_has_nulls() -> None:
    made = curve(np.array([1.0]))
    table = LIGHTCURVE_STATS.rows([stats_row(made, judge_curve(made, OPTIONS))])
    for name in (
        "flux_std",
        "v_peak",
        "eta_peak",
        "p_constant",
        "vs_abs_max_peak",
        "outlier_max",
        "ese_score",
        "ese_tau",
    ):
        assert table[name].null_count == 1, name
    assert "more than 20 are needed" in table["ese_reason"][0].as_py()


def test_the_outlier_has_its_date() -> None:
    flux = steady().flux.copy()
    flux[7] = 2.0
    row = stats_row(curve(flux), Verdict(candidate=False, reason=""))
    assert row["outlier_mjd"] == 61042.0
    assert row["outlier_max"] > 50


def test_candidates_have_their_lens_and_others_no_row() -> None:
    from contimg_variability.templates import lens_curve

    lensed = curve(
        1
        + 0.9 * lens_curve(DAYS, 1.5, 0.3, 75.0, 60.0)
        + 0.01 * np.random.default_rng(0).normal(size=26),
        name="lens",
    )
    verdict = judge_curve(lensed, OPTIONS)
    assert verdict.candidate
    row = candidate_row(lensed, verdict)
    assert row["ese_evidence"] == min(
        row["over_red_noise"], row["over_flare"], row["over_bad_epochs"]
    )
    assert row["lens_duration"] == pytest.approx(60.0, abs=6.0)  # a cadence
    assert row["flux_quiescent"] == pytest.approx(1.0, abs=0.02)
    assert ESE_CANDIDATES.rows([row]).num_rows == 1
    assert candidate_row(steady(), judge_curve(steady(), OPTIONS)) == {}
    columns = curve_rows([lensed, steady(name="steady")], [verdict, judge_curve(steady(), OPTIONS)])
    table = LIGHTCURVES.table(columns)
    assert table.num_rows == 52
    assert table["model"].null_count == 26


def test_wrong_duration_or_amplitude_is_said() -> None:
    slow = curve(1 + 0.05 * np.sin(np.arange(26) / 3), error=0.001)
    assert "mission score" in judge_curve(slow, OPTIONS).reason


def test_summary_and_doubts() -> None:
    curves = [steady(seed=k, name=f"s{k}") for k in range(4)]
    verdicts = [judge_curve(each, OPTIONS) for each in curves]
    metrics = summarise(curves, verdicts)
    assert (metrics["sources"], metrics["judged"], metrics["candidates"], metrics["variable"]) == (
        4,
        4,
        0,
        0,
    )
    assert judge(curves, verdicts, OPTIONS).verdict == "good"
    many = [Verdict(candidate=True, reason="")] * 4
    assert any("4 of 4" in reason for reason in judge(curves, many, OPTIONS).reasons)
    short = [steady(10, name="s")]
    assert judge(short, [judge_curve(short[0], OPTIONS)], OPTIONS).verdict == "warning"


def test_no_candidates_is_an_empty_table() -> None:
    assert (
        ESE_CANDIDATES.read(ESE_CANDIDATES.to_bytes(ESE_CANDIDATES.rows([])), "here").num_rows == 0
    )


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_schemas_speak_the_virtual_observatory(schema: Schema) -> None:
    for column in schema.columns:
        if column.ucd:
            parse_ucd(column.ucd, check_controlled_vocabulary=True, has_colon=False)
        units.Unit(
            column.unit.replace("beam", "beam"), format=None if "beam" in column.unit else "vounit"
        )
        assert column.meaning or column.name == "flux_median"
    names = [column.name for column in schema.columns]
    assert len(names) == len(set(names))
    assert set(schema.sort) <= set(names)


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_astropy_reads_units_and_meanings() -> None:
    made = steady()
    data = LIGHTCURVE_STATS.to_bytes(
        LIGHTCURVE_STATS.rows([stats_row(made, judge_curve(made, OPTIONS))])
    )
    table = Table.read(io.BytesIO(data), format="parquet.votable")
    assert table["ra"].unit == units.deg
    assert str(table["flux_mean"].unit) == "mJy / beam"
    assert table["eta_peak"].description.startswith("Reduced chi-square")


@given(arrays(np.float64, 26, elements=st.floats(-3, 3, width=32)))
def test_an_excursion_holds_its_extreme(deviation: np.ndarray) -> None:
    first, last = excursion(deviation, np.full(26, 0.1))
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
    one, other = (
        mission_score(DAYS, flux, np.full(26, 0.01)),
        mission_score(DAYS, scale * flux, np.full(26, 0.01 * scale)),
    )
    assert other.total == pytest.approx(one.total)
    assert other.tau_days == one.tau_days


def test_quiet_gap_inside_does_not_end_an_excursion_but_a_long_one_does() -> None:
    deviation = np.zeros(26)
    deviation[[5, 8, 13]] = [1.0, -1.2, 0.9]
    assert excursion(deviation, np.full(26, 0.1)) == (5, 8)
