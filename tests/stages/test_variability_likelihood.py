"""Likelihoods against scipy's multivariate normal and brute force; flares, lenses, searches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from contimg_variability.evidence import compare_lens
from contimg_variability.likelihood import RED_NOISE_DAYS, RED_NOISE_SIZES, model_noise
from contimg_variability.templates import (
    FLANK_FRACTION,
    MAX_ALPHA,
    flare_bank,
    flare_curve,
    lens_bank,
    lens_curve,
    magnification,
    whole_lens_curve,
)

DAYS = np.sort(np.random.default_rng(3).uniform(0, 150, 24))
SIGMA = np.random.default_rng(4).uniform(0.01, 0.05, 24)
Y = 1 + 0.1 * np.sin(DAYS / 20) + SIGMA * np.random.default_rng(5).normal(size=24)


def covariances() -> list[np.ndarray]:
    lag = np.abs(DAYS[:, None] - DAYS[None, :])
    red = [size**2 * np.exp(-lag / days) for size in RED_NOISE_SIZES for days in RED_NOISE_DAYS]
    return [np.diag(SIGMA**2) + part for part in [np.zeros_like(lag), *red]]


def log_likelihood(mean: np.ndarray, covariance: np.ndarray) -> float:
    """The same as ours but for the constant −N/2 ln 2π."""
    return float(multivariate_normal(mean, covariance).logpdf(Y)) + 0.5 * Y.size * np.log(2 * np.pi)


def test_constant_is_that_of_the_best_mean() -> None:
    noise = model_noise(DAYS, Y, SIGMA)
    for k, covariance in enumerate(covariances()):
        inverse = np.linalg.inv(covariance)
        mean = inverse.sum(axis=0) @ Y / inverse.sum()
        assert noise.constant[k] == pytest.approx(
            log_likelihood(np.full(24, mean), covariance), rel=1e-9
        )
        assert noise.constant[k] > log_likelihood(np.full(24, mean + 0.01), covariance)


def test_fits_are_generalised_least_squares() -> None:
    noise = model_noise(DAYS, Y, SIGMA)
    shapes = np.stack([np.sin(DAYS / 20), np.exp(-0.5 * ((DAYS - 60) / 10) ** 2)])
    value, a, b = noise.fit_templates(shapes)
    assert value.shape == (len(covariances()), 2)
    for q, covariance in enumerate(covariances()):
        for k, shape in enumerate(shapes):
            basis, inverse = np.stack([np.ones(24), shape], axis=1), np.linalg.inv(covariance)
            expected = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse @ Y)
            assert (a[q, k], b[q, k]) == pytest.approx(tuple(expected), rel=1e-6)
            assert value[q, k] == pytest.approx(
                log_likelihood(basis @ expected, covariance), rel=1e-8
            )


def test_template_seen_by_no_epoch_gains_nothing() -> None:
    noise = model_noise(DAYS, Y, SIGMA)
    value, _, b = noise.fit_templates(np.stack([np.zeros(24), np.ones(24)]))
    assert (b == 0).all()
    assert value == pytest.approx(np.stack([noise.constant] * 2, axis=1))


def test_two_bad_epochs_are_two_free_offsets() -> None:
    noise = model_noise(DAYS, Y, SIGMA)
    covariance = covariances()[0]
    best = -np.inf
    for i in range(24):
        for j in range(i + 1, 24):
            keep = np.delete(np.arange(24), [i, j])
            inverse = np.diag(SIGMA[keep] ** -2.0)
            mean = inverse.sum(axis=0) @ Y[keep] / inverse.sum()
            fitted = np.full(24, mean)
            fitted[[i, j]] = Y[[i, j]]
            best = max(best, log_likelihood(fitted, covariance))
    names = ("size", "weight", "projected", "min_norm", "constant")
    white = replace(noise, **{name: getattr(noise, name)[:1] for name in names})
    assert white.fit_two_bad_epochs() == pytest.approx(best, rel=1e-9)
    assert noise.fit_two_bad_epochs() >= white.fit_two_bad_epochs()


def test_flare_has_its_rise_decay_and_form() -> None:
    x = np.array([-10.0, 0.0, 20.0])
    assert flare_curve(x, 10.0, 20.0, 1.0, 0.0) == pytest.approx([np.exp(-1), 1.0, np.exp(-1)])
    assert flare_curve(x + 5, 10.0, 10.0, 2.0, 5.0) == pytest.approx([np.exp(-1), 1.0, np.exp(-4)])
    assert flare_curve(np.array([-9.0, 9.0, 11.0]), 10.0, 10.0, 60.0, 0.0) == pytest.approx(
        [1, 1, 0], abs=0.003
    )


def test_flares_reach_beyond_the_light_curve() -> None:
    bank = flare_bank(DAYS)
    peaks = bank.points[:, 3]
    assert peaks.min() < DAYS[0] - 50
    assert peaks.max() > DAYS[-1] + 50
    assert bank.shape.max() <= 1.0
    assert bank.shape.min() >= 0.0


def test_half_a_lens_does_not_count() -> None:
    whole = whole_lens_curve(DAYS, 1.5, 0.3, 75.0, 60.0)
    assert np.array_equal(whole, lens_curve(DAYS, 1.5, 0.3, 75.0, 60.0))
    assert not whole_lens_curve(
        DAYS, 1.5, 0.3, DAYS[0] + (FLANK_FRACTION - 0.01) * 60.0, 60.0
    ).any()
    assert not whole_lens_curve(
        DAYS, 1.5, 0.3, DAYS[-1] - (FLANK_FRACTION - 0.01) * 60.0, 60.0
    ).any()


def test_the_bank_holds_whole_lenses_and_its_points_name_them() -> None:
    bank = lens_bank(DAYS)
    for k in range(0, len(bank.points), 997):
        parameters = bank.parameters_at(bank.points[k])
        assert whole_lens_curve(DAYS, *parameters) == pytest.approx(bank.shape[k], abs=1e-9)


def test_parameters_stay_within_their_limits() -> None:
    bank = lens_bank(DAYS)
    alpha, beta, middle, duration = bank.parameters_at(np.array([99.0, -99.0, 1e9, -99.0]))
    assert (alpha, beta, duration) == pytest.approx((MAX_ALPHA, 0.1, 14.0))
    assert middle == DAYS[-1]


def test_short_light_curve_has_no_lens() -> None:
    short = np.linspace(0, 8, 25)
    assert compare_lens(short, np.ones(25), np.full(25, 0.01)) is None


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.1), (20.0, 0.1), (20.0, 1.5)])
def test_magnification_at_its_extremes(alpha: float, beta: float) -> None:
    grid, gain, _ = magnification(alpha, beta)
    assert np.isfinite(gain).all()
    assert gain.min() > 0
    middle = np.argmin(np.abs(grid))
    part = gain[middle - 200 : middle + 201]
    assert part == pytest.approx(part[::-1], rel=1e-9)
    assert gain[0] == pytest.approx(1.0, abs=1e-3)


def test_evidence_does_not_depend_on_the_unit_of_flux() -> None:
    noise = 0.01 * np.random.default_rng(1).normal(size=24)
    flux = 1 + 0.8 * lens_curve(DAYS, 1.5, 0.4, 75.0, 60.0) + noise
    first = compare_lens(DAYS, flux, np.full(24, 0.01))
    second = compare_lens(DAYS, 350 * flux, np.full(24, 3.5))
    assert first is not None
    assert second is not None
    assert second.over_best_rival == pytest.approx(
        first.over_best_rival, abs=0.5
    )  # the search's own precision
    assert second.flux_quiescent == pytest.approx(350 * first.flux_quiescent, rel=0.01)
    assert second.lens_depth == pytest.approx(first.lens_depth, rel=0.05)


def test_given_template_is_in_every_fit() -> None:
    noise, shape = model_noise(DAYS, Y, SIGMA), np.exp(-0.5 * ((DAYS - 40) / 15) ** 2)
    other = np.sin(DAYS / 20)
    with_it = noise.with_template(shape)
    assert with_it.constant == pytest.approx(noise.fit_templates(shape[None, :])[0][:, 0], rel=1e-9)
    value, _, b = with_it.fit_templates(np.stack([other, shape]))
    for q, covariance in enumerate(covariances()):
        basis, inverse = np.stack([np.ones(24), shape, other], axis=1), np.linalg.inv(covariance)
        expected = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse @ Y)
        assert b[q, 0] == pytest.approx(expected[2], rel=1e-5)
        assert value[q, 0] == pytest.approx(log_likelihood(basis @ expected, covariance), rel=1e-8)
    assert value[:, 1] == pytest.approx(with_it.constant)  # the same once more adds nothing
