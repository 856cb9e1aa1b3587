"""Integrated fluxes and widths of Gaussian sources in correlated noise."""

import numpy as np
import pytest

from contimg_photometry.extended import ExtendedFit, fit_extended, widths
from contimg_photometry.noise import BeamProfile, measure_autocorrelation
from synthetic_images import BEAM, filter_noise, wrapped_lags

CELL_ARCSEC, SIZE, RMS_JY = 6.0, 512, 1e-3
RADIUS_PX = 2 * 68 / CELL_ARCSEC
TO_SKY = np.array([[-CELL_ARCSEC, 0.0], [0.0, CELL_ARCSEC]])


def covariance(major_arcsec: float, minor_arcsec: float, pa_deg: float) -> np.ndarray:
    """Return the covariance of a Gaussian in pixels: x is west, y is north."""
    sin, cos = np.sin(np.radians(pa_deg)), np.cos(np.radians(pa_deg))
    turn = np.array([[-sin, -cos], [cos, -sin]]) / CELL_ARCSEC / np.sqrt(8 * np.log(2))
    return turn @ np.diag([major_arcsec**2, minor_arcsec**2]) @ turn.T


def fit_many(size: tuple[float, float, float], flux_jy: float, count: int) -> list[ExtendedFit]:
    form = BEAM.form(-CELL_ARCSEC / 3600, CELL_ARCSEC / 3600)
    profile = BeamProfile(form, major=68 / CELL_ARCSEC, minor=37 / CELL_ARCSEC)
    rng, fits = np.random.default_rng(3), []
    noise = RMS_JY * filter_noise(rng, profile.at(*wrapped_lags(SIZE)))
    correlation = measure_autocorrelation(noise, 60)
    beam = np.linalg.inv(2 * np.array([[form[0], form[1]], [form[1], form[2]]]))
    whole = beam + covariance(*size)
    inverse = np.linalg.inv(whole)
    peak = flux_jy * np.sqrt(np.linalg.det(beam @ inverse))
    rows, columns = np.indices(noise.shape).astype(float)
    for x, y in rng.uniform(80, SIZE - 80, (count, 2)):
        d = np.stack([columns - x, rows - y])
        image = noise + peak * np.exp(-0.5 * np.einsum("iyx,ij,jyx->yx", d, inverse, d))
        level = (float(image[round(y), round(x)]), 0.0, RMS_JY)
        fits.append(fit_extended(image, (x, y), profile, correlation, level, RADIUS_PX))
    return fits


@pytest.mark.parametrize("size", [(30.0, 20.0, 60.0), (40.0, 40.0, 0.0), (0.0, 0.0, 0.0)])
def test_integrated_flux_and_its_error(size: tuple[float, float, float]) -> None:
    fits = fit_many(size, flux_jy=0.1, count=60)
    flux, error = np.array([(fit.flux, fit.flux_noise) for fit in fits]).T
    pulls = (flux - 0.1) / error
    # 60 places in one image of 500 beams: 1 +- 0.15.
    assert 0.7 < pulls.std() < 1.35
    assert abs(pulls.mean()) < 0.5
    assert flux.mean() == pytest.approx(0.1, rel=0.01)


def test_widths_without_the_beam() -> None:
    fits = fit_many((30.0, 20.0, 60.0), flux_jy=0.5, count=20)
    major, minor, pa = np.array([widths(fit.shape, TO_SKY) for fit in fits]).T
    assert np.median(major) == pytest.approx(30, abs=1)
    assert np.median(minor) == pytest.approx(20, abs=2)
    assert np.median(pa) == pytest.approx(60, abs=8)


def test_point_source_has_no_size() -> None:
    fits = fit_many((0.0, 0.0, 0.0), flux_jy=0.1, count=40)
    assert sum(np.isfinite(fit.shape[0]) for fit in fits) <= 1
