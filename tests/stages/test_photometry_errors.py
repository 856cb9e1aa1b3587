"""The errors are right: sources injected into correlated noise come back with pulls of N(0, 1)."""

from __future__ import annotations

import numpy as np
import pytest

from contimg.records.images import Beam
from contimg_photometry.measure import Apertures, Measurements, measure
from contimg_photometry.noise import Correlation, noise_autocorrelation
from contimg_photometry.profile import BeamProfile, single_errors

CELL = 3 / 3600
SIZE = 1024
PROFILE = BeamProfile(Beam(36 / 3600, 21 / 3600, 25.0).form(-CELL, CELL), 12.0, 7.0)
FLUX = 25.0


def correlated_noise(rng: np.random.Generator) -> np.ndarray:
    """Unit noise as a telescope makes it: white noise through a dirty beam, which has a narrow core and a negative ring."""
    line = np.fft.fftfreq(SIZE) * SIZE
    dx, dy = np.meshgrid(line, line)
    a, b, c = PROFILE.form
    dirty = (
        PROFILE.at(dx, dy)
        + 0.5 * np.exp(-4 * (a * dx**2 + 2 * b * dx * dy + c * dy**2))
        - 0.1 * PROFILE.at(dx / 2, dy / 2)
    )
    made = np.fft.irfft2(
        np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * np.fft.rfft2(dirty), s=(SIZE, SIZE)
    )
    return np.asarray(made / made.std())


def inject(pixels: np.ndarray, x: np.ndarray, y: np.ndarray, flux: float) -> np.ndarray:
    made = pixels.copy()
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    for x0, y0 in zip(x, y, strict=True):
        part = (slice(int(y0) - 40, int(y0) + 41), slice(int(x0) - 40, int(x0) + 41))
        made[part] += flux * PROFILE.at(columns[part] - x0, rows[part] - y0)
    return made.astype(np.float32)


def places(rng: np.random.Generator, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A grid so wide that no source lies in the annulus of another, at random places in their pixels."""
    line = np.arange(step, SIZE - step, step)
    x, y = (part.ravel().astype(float) for part in np.meshgrid(line, line))
    return x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)


def realisation(seed: int, apertures: Apertures) -> Measurements:
    rng = np.random.default_rng(seed)
    noise = correlated_noise(rng)
    correlation = noise_autocorrelation(noise.astype(np.float32), np.ones(noise.shape, bool), 45)
    x, y = places(rng, int(6.5 * PROFILE.major))
    return measure(inject(noise, x, y, FLUX), x, y, PROFILE, correlation, apertures)


@pytest.fixture(scope="module")
def pulls() -> dict[str, np.ndarray]:
    runs = [realisation(seed, Apertures()) for seed in range(14)]
    peak, peak_noise, fit, fit_noise, dx, dx_noise, dy, dy_noise = (
        np.concatenate([getattr(run, name) for run in runs])
        for name in ("peak", "peak_noise", "fit", "fit_noise", "dx", "dx_noise", "dy", "dy_noise")
    )
    assert peak.size > 1500
    return {
        "peak": (peak - FLUX) / peak_noise,
        "fit": (fit - FLUX) / fit_noise,
        "dx": dx / dx_noise,
        "dy": dy / dy_noise,
        "white": (fit - FLUX) / (peak_noise / np.sqrt(np.pi / 2 / np.sqrt(np.linalg.det(_form())))),
    }


def _form() -> np.ndarray:
    a, b, c = PROFILE.form
    return np.array([[a, b], [b, c]])


@pytest.mark.parametrize("name", ["peak", "fit", "dx", "dy"])
def test_pulls_of_injected_sources_are_unit_gaussians(
    pulls: dict[str, np.ndarray], name: str
) -> None:
    pull = pulls[name]
    # 2016 sources: the standard deviation of N(0, 1) is known to 0.016, so 0.03 is two of its errors; the mean to 0.022. The
    # project asks for 1 ± 0.03 of fluxes; positions get 0.05, for noise bends a fit that is not linear.
    assert np.std(pull) == pytest.approx(1.0, abs=0.03 if name in {"peak", "fit"} else 0.05)
    assert np.mean(pull) == pytest.approx(0.0, abs=0.07)


def test_the_white_noise_formula_would_be_wrong_by_a_factor(pulls: dict[str, np.ndarray]) -> None:
    # (Σ K²/σ²)^−½, with Σ K² = π / (2 √det) by the Gaussian integral: it counts every pixel as a measurement of its own.
    assert np.std(pulls["white"]) > 3


def test_pairs_have_honest_errors() -> None:
    peak, fit = [], []
    for seed in range(100, 112):
        rng = np.random.default_rng(seed)
        noise = correlated_noise(rng)
        correlation = noise_autocorrelation(
            noise.astype(np.float32), np.ones(noise.shape, bool), 45
        )
        x, y = places(rng, int(7.5 * PROFILE.major))
        x, y = np.append(x, x + 7.0), np.append(y, y + 5.5)
        found = measure(inject(noise, x, y, FLUX), x, y, PROFILE, correlation, Apertures())
        assert (found.blend == 2).all()
        peak.append((found.peak - FLUX) / found.peak_noise)
        fit.append((found.fit - FLUX) / found.fit_noise)
    # About 2400 sources in pairs that share their noise, so some 1200 measurements: 0.02; three of those.
    assert np.std(np.concatenate(peak)) == pytest.approx(1.0, abs=0.06)
    assert np.std(np.concatenate(fit)) == pytest.approx(1.0, abs=0.06)


def test_autocorrelation_is_that_of_the_filter() -> None:
    rng = np.random.default_rng(3)
    a, b, c = PROFILE.form
    line = np.fft.fftfreq(SIZE) * SIZE
    dx, dy = np.meshgrid(line, line)
    noise = np.fft.irfft2(
        np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * np.fft.rfft2(PROFILE.at(dx, dy)),
        s=(SIZE, SIZE),
    )
    noise[100:105, 100:105] += 100 * noise.std()  # a source that was not cleaned
    found = noise_autocorrelation(noise.astype(np.float32), np.ones(noise.shape, bool), 20)
    lag_x, lag_y = np.meshgrid(np.arange(-20, 21), np.arange(-20, 21))
    # A Gaussian correlated with itself is a Gaussian, √2 wider. 1024² pixels hold 5000 independent patches: 0.014 each.
    expected = np.exp(-0.5 * (a * lag_x**2 + 2 * b * lag_x * lag_y + c * lag_y**2))
    assert found.values[20, 20] == 1.0
    assert np.abs(found.values - expected).max() < 0.06
    assert found.at(np.array([0.5, 30.0]), np.array([0.0, 0.0]))[1] == 0.0


def test_covariance_by_fft_equals_the_double_sum() -> None:
    rng = np.random.default_rng(4)
    lag = np.arange(-6, 7)
    table = np.exp(-0.1 * (lag[:, None] ** 2 + lag[None, :] ** 2 + lag[:, None] * lag[None, :]))
    noise = Correlation(table)
    weights = rng.normal(size=(2, 5, 6))
    rows, columns = (part.ravel() for part in np.mgrid[:5, :6])
    between = table[6 + rows[:, None] - rows[None, :], 6 + columns[:, None] - columns[None, :]]
    flat = weights.reshape(2, -1)
    assert noise.covariance(weights) == pytest.approx(flat @ between @ flat.T, rel=1e-10)


def test_noise_that_cannot_be_measured_counts_as_wholly_correlated() -> None:
    blank = np.full((64, 64), np.nan, np.float32)
    noise = noise_autocorrelation(blank, np.ones(blank.shape, bool), 30)
    assert (noise.values == 1).all()
    # Then the fit is an average of equal numbers, weighted Σ K / Σ K² (2 by the Gaussian integrals, cut at the aperture).
    assert single_errors(PROFILE, 12.0, noise)[0] == pytest.approx(2.0, rel=0.1)
