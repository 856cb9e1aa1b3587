"""The errors are right: sources injected into correlated noise come back with pulls of N(0, 1)."""

from __future__ import annotations

import numpy as np
import pytest

from contimg.records.images import Beam
from contimg_photometry.measure import Measurements, measure
from contimg_photometry.noise import (
    BeamProfile,
    Correlation,
    measure_autocorrelation,
    single_source_errors,
)
from contimg_photometry.options import PhotometryOptions
from synthetic_images import add_sources, filter_noise, wrapped_lags

CELL = 3 / 3600
SIZE = 1024
PROFILE = BeamProfile(Beam(36 / 3600, 21 / 3600, 25.0).form(-CELL, CELL), 12.0, 7.0)
FLUX = 25.0
OPTIONS = PhotometryOptions(image="i", tables="t", out="o")


LAGS = wrapped_lags(SIZE)


def measure_injected(seed: int, beams: float, *, pairs: bool = False) -> Measurements:
    """Measure sources on a grid so wide that none lies in the annulus of another."""
    rng, (dx, dy) = np.random.default_rng(seed), LAGS
    # A dirty beam with a narrow core and a negative ring.
    kernel = PROFILE.at(dx, dy) + 0.5 * PROFILE.at(2 * dx, 2 * dy)
    noise = filter_noise(rng, kernel - 0.1 * PROFILE.at(dx / 2, dy / 2))
    correlation = measure_autocorrelation(noise.astype(np.float32), 45)
    step = int(beams * PROFILE.major)
    grid = np.mgrid[step : SIZE - step : step, step : SIZE - step : step]
    y, x = grid.reshape(2, -1).astype(float)
    x, y = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)
    if pairs:
        x, y = np.append(x, x + 7.0), np.append(y, y + 5.5)
    add_sources(noise, PROFILE, ((*place, FLUX) for place in zip(x, y, strict=True)))
    return measure(noise.astype(np.float32), x, y, PROFILE, correlation, OPTIONS)


@pytest.fixture(scope="module")
def pulls() -> dict[str, np.ndarray]:
    runs = [measure_injected(seed, 6.5) for seed in range(14)]
    found = {name: np.concatenate([vars(run)[name] for run in runs]) for name in vars(runs[0])}
    assert found["peak"].size > 1500
    true = {"peak": FLUX, "fit": FLUX, "dx": 0.0, "dy": 0.0}
    made = {name: (found[name] - value) / found[f"{name}_noise"] for name, value in true.items()}
    # (Σ K²/σ²)^−½, with Σ K² = π / (2 √det) by the Gaussian integral.
    a, b, c = PROFILE.form
    white = found["peak_noise"] / np.sqrt(np.pi / 2 / np.sqrt(a * c - b * b))
    return made | {"white": (found["fit"] - FLUX) / white}


@pytest.mark.parametrize("name", ["peak", "fit", "dx", "dy"])
def test_pulls_are_unit_gaussians(pulls: dict[str, np.ndarray], name: str) -> None:
    # 2016 sources: the standard deviation of N(0, 1) is known to 0.016, so 0.03 is two of its
    # errors; the mean to 0.022. Fluxes must be in 1 ± 0.03; positions get 0.05, for noise bends a
    # fit that is not linear.
    assert np.std(pulls[name]) == pytest.approx(1.0, abs=0.03 if name in {"peak", "fit"} else 0.05)
    assert np.mean(pulls[name]) == pytest.approx(0.0, abs=0.07)


def test_white_noise_formula_is_wrong_by_a_factor(pulls: dict[str, np.ndarray]) -> None:
    """It counts every pixel as a measurement of its own."""
    assert np.std(pulls["white"]) > 3


def test_pulls_of_pairs_are_unit_gaussians() -> None:
    runs = [measure_injected(seed, 7.5, pairs=True) for seed in range(100, 112)]
    assert all((run.blend == 2).all() for run in runs)
    # About 2400 sources in pairs that share their noise, so some 1200 measurements: 0.02; three of
    # those.
    for name in ("peak", "fit"):
        pull = [(vars(run)[name] - FLUX) / vars(run)[f"{name}_noise"] for run in runs]
        assert np.std(np.concatenate(pull)) == pytest.approx(1.0, abs=0.06)


def test_autocorrelation_is_that_of_the_filter() -> None:
    noise = filter_noise(np.random.default_rng(3), PROFILE.at(*LAGS))
    noise[100:105, 100:105] += 100  # a source that was not cleaned
    found = measure_autocorrelation(noise.astype(np.float32), 20)
    y, x = np.mgrid[-20:21, -20:21]
    # A Gaussian correlated with itself is a Gaussian, √2 wider. 1024² pixels hold 5000 independent
    # patches: 0.014 each.
    expected = PROFILE.at(x / np.sqrt(2), y / np.sqrt(2))
    assert found.values[20, 20] == 1.0
    assert np.abs(found.values - expected).max() < 0.06
    assert found.at(np.array([0.5, 30.0]), np.array([0.0, 0.0]))[1] == 0.0


def test_covariance_by_fft_equals_double_sum() -> None:
    rng = np.random.default_rng(4)
    lag = np.arange(-6, 7)
    table = np.exp(-0.1 * (lag[:, None] ** 2 + lag[None, :] ** 2 + lag[:, None] * lag[None, :]))
    weights = rng.normal(size=(2, 5, 6))
    rows, columns = np.mgrid[:5, :6].reshape(2, -1)
    between = table[6 + rows[:, None] - rows[None, :], 6 + columns[:, None] - columns[None, :]]
    flat = weights.reshape(2, -1)
    found = Correlation(table).covariance(weights)
    assert found == pytest.approx(flat @ between @ flat.T, rel=1e-10)


def test_unmeasurable_noise_is_fully_correlated() -> None:
    blank = np.full((64, 64), np.nan, np.float32)
    noise = measure_autocorrelation(blank, 30)
    assert (noise.values == 1).all()
    # Then the fit is an average of equal numbers, weighted Σ K / Σ K² (2 by the Gaussian integrals,
    # cut at the aperture).
    assert single_source_errors(PROFILE, 12.0, noise)[0] == pytest.approx(2.0, rel=0.1)
