"""Statistics of light curves against published formulas, brute force, and VAST's values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contimg_variability import metrics

VAST = Path(__file__).parents[3] / "shared/data/vast_basic"
FLUX = np.array([10.0, 12.0, 9.0, 11.0])
ERROR = np.array([1.0, 2.0, 0.5, 1.0])

FLUXES = st.floats(-100, 1000, allow_subnormal=False, width=32)
fluxes = arrays(np.float64, st.integers(4, 30), elements=FLUXES)


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
    rng = np.random.default_rng(1)
    error = np.full(50, 1e-6)
    flux = 1000.0 + error * rng.normal(size=50)
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


def selavy() -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, 5):
        lines = (VAST / f"data/epoch{epoch:02d}.selavy.components.txt").read_text().splitlines()
        names = lines[0].lstrip("# ").split()
        rows += [dict(zip(names, line.split(), strict=False)) for line in lines[2:]]
    wanted = ("flux_peak", "maj_axis", "min_axis", "rms_image")
    return [{name: float(row[name]) for name in wanted} for row in rows]


@pytest.mark.skipif(not VAST.exists(), reason="the VAST fixtures are not here")
def test_eta_and_v_equal_those_of_vast() -> None:
    import pandas as pd

    results = VAST / "results/basic-association-with-forced-extraction"
    rows = enumerate(selavy(), start=1)
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
