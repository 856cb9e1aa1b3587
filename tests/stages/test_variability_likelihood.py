"""Likelihoods against scipy's multivariate normal and brute force; flares, lenses, searches."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from contimg_variability import templates
from contimg_variability.evidence import RED_NOISE_DAYS, RED_NOISE_SIZES, compare_lens, model_noise
from contimg_variability.templates import flare_curve, lens_bank, lens_curve, whole_lens_curve

DAYS = np.sort(np.random.default_rng(3).uniform(0, 150, 24))
SIGMA = np.random.default_rng(4).uniform(0.01, 0.05, 24)
Y = 1 + 0.1 * np.sin(DAYS / 20) + SIGMA * np.random.default_rng(5).normal(size=24)
NOISE = model_noise(DAYS, Y, SIGMA)
LAG = np.abs(DAYS[:, None] - DAYS[None, :])
RED = [size**2 * np.exp(-LAG / days) for size in RED_NOISE_SIZES for days in RED_NOISE_DAYS]
COVARIANCES = [np.diag(SIGMA**2) + part for part in [np.zeros_like(LAG), *RED]]


def log_likelihood(mean: np.ndarray, covariance: np.ndarray) -> float:
    """The same as ours but for the constant −N/2 ln 2π."""
    return float(multivariate_normal(mean, covariance).logpdf(Y)) + 0.5 * Y.size * np.log(2 * np.pi)


def fit(covariance: np.ndarray, *shapes: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the coefficients of a constant and of shapes, and the log likelihood, by GLS."""
    basis, inverse = np.stack([np.ones(24), *shapes], axis=1), np.linalg.inv(covariance)
    found = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse @ Y)
    return found, log_likelihood(basis @ found, covariance)


def test_constant_is_best_mean() -> None:
    for k, covariance in enumerate(COVARIANCES):
        (mean,), value = fit(covariance)
        assert NOISE.constant[k] == pytest.approx(value, rel=1e-9)
        assert NOISE.constant[k] > log_likelihood(np.full(24, mean + 0.01), covariance)


def test_fits_are_generalised_least_squares() -> None:
    shapes = np.stack([np.sin(DAYS / 20), np.exp(-0.5 * ((DAYS - 60) / 10) ** 2)])
    value, a, b = NOISE.fit_templates(shapes)
    assert value.shape == (len(COVARIANCES), 2)
    for q, covariance in enumerate(COVARIANCES):
        for k, shape in enumerate(shapes):
            coefficients, expected = fit(covariance, shape)
            assert (a[q, k], b[q, k]) == pytest.approx(tuple(coefficients), rel=1e-6)
            assert value[q, k] == pytest.approx(expected, rel=1e-8)


def test_unseen_template_gains_nothing() -> None:
    value, _, b = NOISE.fit_templates(np.stack([np.zeros(24), np.ones(24)]))
    assert (b == 0).all()
    assert value == pytest.approx(np.stack([NOISE.constant] * 2, axis=1))


def test_two_bad_epochs_are_free_offsets() -> None:
    best = -np.inf
    for bad in itertools.combinations(range(24), 2):
        keep = np.delete(np.arange(24), bad)
        fitted = np.full(24, np.average(Y[keep], weights=SIGMA[keep] ** -2.0))
        fitted[list(bad)] = Y[list(bad)]
        best = max(best, log_likelihood(fitted, COVARIANCES[0]))
    names = ("size", "weight", "projected", "min_norm", "constant")
    white = replace(NOISE, **{name: getattr(NOISE, name)[:1] for name in names})
    assert white.fit_two_bad_epochs() == pytest.approx(best, rel=1e-9)
    assert NOISE.fit_two_bad_epochs() >= white.fit_two_bad_epochs()


def test_flare_has_rise_decay_and_power() -> None:
    x = np.array([-10.0, 0.0, 20.0])
    assert flare_curve(x, 10.0, 20.0, 1.0, 0.0) == pytest.approx([np.exp(-1), 1.0, np.exp(-1)])
    assert flare_curve(x + 5, 10.0, 10.0, 2.0, 5.0) == pytest.approx([np.exp(-1), 1.0, np.exp(-4)])
    top_hat = flare_curve(np.array([-9.0, 9.0, 11.0]), 10.0, 10.0, 60.0, 0.0)
    assert top_hat == pytest.approx([1, 1, 0], abs=0.003)


def test_flares_reach_beyond_the_light_curve() -> None:
    bank = templates.flare_bank(DAYS)
    peaks = bank.points[:, 3]
    assert peaks.min() < DAYS[0] - 50
    assert peaks.max() > DAYS[-1] + 50
    assert bank.shape.max() <= 1.0
    assert bank.shape.min() >= 0.0


def test_half_a_lens_does_not_count() -> None:
    whole = whole_lens_curve(DAYS, 1.5, 0.3, 75.0, 60.0)
    assert np.array_equal(whole, lens_curve(DAYS, 1.5, 0.3, 75.0, 60.0))
    flank = (templates.FLANK_FRACTION - 0.01) * 60.0
    for middle in (DAYS[0] + flank, DAYS[-1] - flank):
        assert not whole_lens_curve(DAYS, 1.5, 0.3, middle, 60.0).any()


def test_bank_points_give_its_shapes() -> None:
    bank = lens_bank(DAYS)
    for k in range(0, len(bank.points), 997):
        parameters = bank.parameters_at(bank.points[k])
        assert whole_lens_curve(DAYS, *parameters) == pytest.approx(bank.shape[k], abs=1e-9)


def test_parameters_stay_within_their_limits() -> None:
    bank = lens_bank(DAYS)
    alpha, beta, middle, duration = bank.parameters_at(np.array([99.0, -99.0, 1e9, -99.0]))
    assert (alpha, beta, duration) == pytest.approx((templates.MAX_ALPHA, 0.1, 14.0))
    assert middle == DAYS[-1]


def test_short_light_curve_has_no_lens() -> None:
    short = np.linspace(0, 8, 25)
    assert compare_lens(short, np.ones(25), np.full(25, 0.01)) is None


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.1), (20.0, 0.1), (20.0, 1.5)])
def test_magnification_at_its_extremes(alpha: float, beta: float) -> None:
    grid, gain, _ = templates.magnification(alpha, beta)
    assert np.isfinite(gain).all()
    assert gain.min() > 0
    middle = np.argmin(np.abs(grid))
    part = gain[middle - 200 : middle + 201]
    assert part == pytest.approx(part[::-1], rel=1e-9)
    assert gain[0] == pytest.approx(1.0, abs=1e-3)


def test_evidence_does_not_depend_on_unit() -> None:
    noise = 0.01 * np.random.default_rng(1).normal(size=24)
    flux = 1 + 0.8 * lens_curve(DAYS, 1.5, 0.4, 75.0, 60.0) + noise
    first = compare_lens(DAYS, flux, np.full(24, 0.01))
    second = compare_lens(DAYS, 350 * flux, np.full(24, 3.5))
    assert first is not None
    assert second is not None
    # The search's own precision.
    assert second.over_best_rival == pytest.approx(first.over_best_rival, abs=0.5)
    assert second.flux_quiescent == pytest.approx(350 * first.flux_quiescent, rel=0.01)
    assert second.lens_depth == pytest.approx(first.lens_depth, rel=0.05)


def test_given_template_is_in_every_fit() -> None:
    shape, other = np.exp(-0.5 * ((DAYS - 40) / 15) ** 2), np.sin(DAYS / 20)
    with_it = NOISE.with_template(shape)
    assert with_it.constant == pytest.approx(NOISE.fit_templates(shape[None, :])[0][:, 0], rel=1e-9)
    value, _, b = with_it.fit_templates(np.stack([other, shape]))
    for q, covariance in enumerate(COVARIANCES):
        coefficients, expected = fit(covariance, shape, other)
        assert b[q, 0] == pytest.approx(coefficients[2], rel=1e-5)
        assert value[q, 0] == pytest.approx(expected, rel=1e-8)
    assert value[:, 1] == pytest.approx(with_it.constant)  # the same once more adds nothing
