"""Lenses are told from what only looks like them, and how often that goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gbi
from contimg_variability.evidence import evidence
from contimg_variability.options import VariabilityOptions
from contimg_variability.score import mission_score
from contimg_variability.stage import LightCurve, Verdict, judge_curve
from contimg_variability.templates import half_extent, lens_curve, lenses, magnification

OPTIONS = VariabilityOptions(normalized="n", tables="t", out="o")
DAYS = 6.0 * np.arange(26)


def lens_gain(position: np.ndarray, strength: float, size: float) -> np.ndarray:
    """A plasma lens by the integral over rays of the source's brightness; the stage counts rays instead."""
    rays = np.arange(-25, 25, size / 50)
    origin = rays * (1 + strength * np.exp(-(rays**2)))
    bright = np.exp(-0.5 * ((origin[None, :] - position[:, None]) / size) ** 2)
    return np.asarray(bright.sum(axis=1) * (size / 50) / (size * np.sqrt(2 * np.pi)))


def flare(days: np.ndarray, peak: float, rise: float, decay: float, size: float) -> np.ndarray:
    x = days - peak
    return np.asarray(
        1
        + size * np.where(x < 0, np.exp(np.minimum(x, 0) / rise), np.exp(-np.maximum(x, 0) / decay))
    )


def red_noise(rng: np.random.Generator, days: np.ndarray, size: float, tau: float) -> np.ndarray:
    covariance = size**2 * np.exp(-np.abs(days[:, None] - days[None, :]) / tau)
    return np.asarray(
        np.exp(
            np.linalg.cholesky(covariance + 1e-12 * np.eye(days.size)) @ rng.normal(size=days.size)
        )
    )


def verdict(
    flux: np.ndarray, error: float, rng: np.random.Generator, days: np.ndarray = DAYS
) -> Verdict:
    sigma = np.full(days.size, error * flux.mean())
    noisy = flux + sigma * rng.normal(size=days.size)
    curve = LightCurve(
        "s",
        0.0,
        0.0,
        "f",
        reference=False,
        mjd=days,
        epoch=np.arange(days.size),
        flux=noisy,
        error=sigma,
        limit=np.zeros(days.size, bool),
    )
    return judge_curve(curve, OPTIONS)


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.5, 0.1), (1.2, 0.3), (3.0, 0.2), (9.0, 0.5), (20.0, 1.5)]
)
def test_magnification_equals_the_integral_over_rays(alpha: float, beta: float) -> None:
    grid, gain = magnification(alpha, beta)
    where = np.linspace(-9, 9, 181)
    # Cells of 0.02 against a source of at least 0.1: second order, (0.02/0.1)²/12 of caustics up to 5.
    assert np.interp(where, grid, gain) == pytest.approx(lens_gain(where, alpha, beta), abs=0.01)
    assert gain.mean() == pytest.approx(1.0, abs=1e-9)  # a lens moves flux, and loses none


def test_magnification_in_the_middle_is_clegg_fey_lazio() -> None:
    # A point source on the axis: one image, G = 1/(1 + α); the source must be small against where that changes.
    grid, gain = magnification(2.0, 0.1)
    assert gain[grid.size // 2] == pytest.approx(1 / 3, abs=0.003)
    # Far out there is no lens.
    assert gain[0] == pytest.approx(1.0, abs=1e-9)


def test_a_lens_lasts_as_long_as_it_says() -> None:
    days = np.linspace(0, 200, 4001)
    change = np.abs(lens_curve(days, 1.5, 0.3, 100.0, 60.0)) >= 0.05
    assert np.ptp(days[change]) == pytest.approx(60.0, abs=0.7)
    assert half_extent(1.5, 0.3) > 1


def test_bank_covers_its_durations() -> None:
    bank = lenses(DAYS)
    assert bank.shape.shape == (len(bank.points), 26)
    assert np.exp(bank.points[:, 3]).min() == pytest.approx(14)
    assert np.isfinite(bank.shape).all()


def test_score_of_a_symmetric_dip() -> None:
    flux = np.ones(26)
    flux[10:15] = [0.8, 0.6, 0.4, 0.6, 0.8]
    score = mission_score(DAYS, flux, np.full(26, 0.01))
    assert score.asymmetry == 0.0
    assert score.tau_days == 30.0
    assert score.amplitude == pytest.approx(0.6 / flux.mean())
    assert score.total == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("flux", "total"),
    [
        (np.ones(26), 0.0),  # nothing happens
        (np.where(np.arange(26) == 12, 1.5, 1.0), 0.6),  # one bad epoch: too short, symmetric
        (np.where(np.abs(np.arange(26) - 12) <= 2, 0.95, 1.0), 0.6),  # too small
    ],
)
def test_score_needs_duration_and_amplitude(flux: np.ndarray, total: float) -> None:
    assert mission_score(DAYS, flux, np.full(26, 0.01)).total == pytest.approx(total, abs=0.2)
    assert mission_score(DAYS, flux, np.full(26, 0.01)).total <= 0.6 + 1e-9


def test_spikes_and_dip_of_a_lens_are_one_excursion() -> None:
    flux = lens_gain((DAYS - 75) / 13, 1.2, 0.3)
    score = mission_score(DAYS, flux, np.full(26, 0.01))
    assert 40 < score.tau_days < 80
    assert score.total > 0.6


@pytest.mark.parametrize("error", [0.003, 0.03])
def test_lens_is_found_where_it_is(error: float) -> None:
    for seed, middle in enumerate((65.0, 100.0)):
        found = verdict(
            lens_gain((DAYS - middle) / 13, 1.2, 0.3), error, np.random.default_rng(seed)
        )
        assert found.candidate
        assert found.lens is not None
        # A quarter of the sampling interval.
        assert found.lens.mjd == pytest.approx(middle, abs=1.5)
        assert found.lens.depth == pytest.approx(0.53, abs=0.05 + 2 * error)


def test_lens_before_a_source_that_varies_itself_is_found() -> None:
    rng = np.random.default_rng(12)
    flux = lens_gain((DAYS - 80) / 13, 2.0, 0.3) * red_noise(rng, DAYS, 0.05, 60.0)
    assert verdict(flux, 0.01, rng).candidate


@pytest.mark.parametrize(
    ("rise", "decay", "size"), [(5, 12, 0.6), (2, 60, 1.5), (15, 15, 1.0), (30, 5, 0.5)]
)
def test_flares_are_no_lenses(rise: float, decay: float, size: float) -> None:
    for seed, peak in enumerate((20.0, 75.0, 130.0)):
        assert not verdict(
            flare(DAYS, peak, rise, decay, size), 0.01, np.random.default_rng(seed)
        ).candidate


def test_a_dip_without_spikes_of_two_epochs_is_no_lens() -> None:
    flux = np.ones(26)
    flux[12:14] = 0.5
    assert not verdict(flux, 0.01, np.random.default_rng(3)).candidate


def test_too_few_epochs_get_no_verdict() -> None:
    few = DAYS[:20]
    found = verdict(lens_gain((few - 60) / 13, 1.2, 0.3), 0.01, np.random.default_rng(0), few)
    assert not found.candidate
    assert found.score is None
    assert "20 epochs" in found.reason


def test_no_lens_dims_a_constant_source() -> None:
    assert evidence(DAYS, np.ones(26), np.full(26, 0.01)) is None


def population(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A light curve of a kind of source, and its relative error: 0.5 to 10 %."""
    error = 10 ** rng.uniform(-2.3, -1.0)
    if kind == "flare":
        return flare(
            DAYS,
            rng.uniform(0, 150),
            10 ** rng.uniform(0.3, 1.7),
            10 ** rng.uniform(0.7, 2),
            10 ** rng.uniform(-0.7, 0.3),
        ), error
    if kind == "red":
        return red_noise(
            rng, DAYS, 10 ** rng.uniform(-1.5, -0.3), 10 ** rng.uniform(0.5, 2.5)
        ), error
    flux = np.ones(26)
    if kind == "bad epochs":
        flux[rng.integers(26, size=2)] *= rng.uniform(0.3, 1.7, 2)
    return flux, error


@pytest.mark.parametrize(
    ("kind", "count"), [("steady", 400), ("bad epochs", 8), ("flare", 8), ("red", 8)]
)
def test_false_alarms_are_rare(kind: str, count: int) -> None:
    rng = np.random.default_rng(2026)
    alarms = sum(verdict(*population(kind, rng), rng).candidate for _ in range(count))
    # The larger simulation of docs/variability.md found fewer than one in a hundred; here none is expected.
    assert alarms == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["red", "flare"])
def test_false_alarm_rate_is_low(kind: str) -> None:
    rng = np.random.default_rng(5)
    alarms = sum(verdict(*population(kind, rng), rng).candidate for _ in range(120))
    # None in 120: with 90 % confidence the rate is below 2 %; docs/variability.md gives that of a larger run.
    assert alarms == 0


def gbi_windows(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Light curves of a real AGN at 2.25 GHz, each 150 days with one epoch in six days, like ours."""
    return gbi.windows(path, 2, 150.0, OPTIONS.min_epochs)


@pytest.mark.skipif(not gbi.FOLDER.exists(), reason="the GBI light curves are not here")
@pytest.mark.parametrize(
    ("names", "count"),
    [("0954+658.txt", 5), pytest.param("*.txt", 20, marks=pytest.mark.slow)],
)
def test_real_agn_without_a_lens_are_no_candidates(names: str, count: int) -> None:
    windows = [window for path in sorted(gbi.FOLDER.glob(names)) for window in gbi_windows(path)]
    assert len(windows) >= count
    found = [gbi_verdict(mjd, flux) for mjd, flux in windows]
    # No event of 1996 to 2000 in these four is in the literature of ESEs at 2.25 GHz; the mission's score alone would take
    # two thirds of these light curves.
    assert not [item.reason for item in found if item.candidate]


@pytest.mark.slow
@pytest.mark.skipif(not gbi.FOLDER.exists(), reason="the GBI light curves are not here")
def test_lenses_put_before_real_agn_are_found() -> None:
    windows = [window for path in sorted(gbi.FOLDER.glob("*.txt")) for window in gbi_windows(path)]
    found = [
        gbi_verdict(mjd, flux * lens_gain((mjd - mjd[0] - 75) / 13, 1.2, 0.3))
        for mjd, flux in windows
    ]
    # Real sources vary by themselves, and three of these data sets hold bad scans: not every lens can stand out. What is asked of the
    # search is an evidence of 10; what is asked of a candidate, for the sake of false alarms, is the threshold's own rule.
    assert np.mean([item.lens is not None and item.lens.least > 10 for item in found]) >= 0.7


def gbi_verdict(mjd: np.ndarray, flux: np.ndarray) -> Verdict:
    """The archive's errors are 1.5 % of the flux."""
    error, limit = 0.015 * flux, np.zeros(mjd.size, bool)
    curve = LightCurve(
        "agn",
        0,
        0,
        "f",
        reference=False,
        mjd=mjd,
        epoch=np.arange(mjd.size),
        flux=flux,
        error=error,
        limit=limit,
    )
    return judge_curve(curve, OPTIONS)


def test_two_flares_are_no_lens() -> None:
    # Between two flares lies a dip, but not below the quiescent flux.
    for seed, (first, second) in enumerate([(50.0, 95.0), (30.0, 120.0), (60.0, 85.0)]):
        flux = flare(DAYS, first, 8, 10, 0.9) + flare(DAYS, second, 8, 10, 0.8) - 1
        assert not verdict(flux, 0.01, np.random.default_rng(seed)).candidate
