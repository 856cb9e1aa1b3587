"""The gate primary_beam: how a wrong beam shows in flux ratios, and how rarely a right one does."""

from dataclasses import replace

import numpy as np
import pytest

from contimg.astro.catalogues import Catalogue
from contimg_image.beam import effective_beam
from contimg_image.beam_check import BeamErrors, fit_beam_errors, measure_beam
from contimg_image.cleaning import ExpectedSky
from image_arrays import BEAM, averaged, imaging_field

HALF_DEG, FWHM_DEG = 2.25, 2.7
FACTOR = 4 * np.log(2)


def draw_group(
    rng: np.random.Generator, width: float, east_deg: float, north_deg: float, scatter: float
) -> BeamErrors:
    """Fit one group of a Gaussian beam with NVSS's counts; one source in ten varies by more."""
    place = rng.uniform(-HALF_DEG, HALF_DEG, (2, rng.poisson(3.7 * 4 * HALF_DEG**2)))
    flux = np.minimum(0.05 / rng.uniform(size=place.shape[1]), 5.0)

    def log_beam(off: np.ndarray, factor: float) -> np.ndarray:
        return np.asarray(-FACTOR * np.sum((place - off) ** 2, axis=0) / (FWHM_DEG * factor) ** 2)

    assumed, true = log_beam(np.zeros((2, 1)), 1.0), log_beam(np.c_[[east_deg, north_deg]], width)
    seen = (assumed > np.log(0.05)) & (flux * np.exp(assumed) > 20 * 4e-4)
    error = 4e-4 / (flux * np.exp(assumed))
    varied = rng.exponential(0.4, flux.size) * rng.choice([-1, 1], flux.size)
    own = rng.normal(0, scatter, flux.size) + varied * (rng.uniform(size=flux.size) < 0.1)
    ratio = np.clip(true - assumed + own + rng.normal(0, error), -1.5, 1.5)
    slopes = 2 * FACTOR / FWHM_DEG**2 * np.stack([np.sum(place**2, axis=0), *place])
    return fit_beam_errors(ratio[seen], error[seen], slopes[:, seen])


def test_right_beam_is_not_marked() -> None:
    rng = np.random.default_rng(1)
    found = [draw_group(rng, 1.0, 0.0, 0.0, scatter) for scatter in (0.15, 0.2) * 500]
    assert sum(bool(one.deviant) for one in found) <= 1
    pulls = np.array([one.value / one.error for one in found])
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=0.12)
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=0.12)


@pytest.mark.parametrize(
    ("wrong", "scatter", "least"),
    [
        ((1 / 1.15, 0.0, 0.0), 0.15, 0.95),
        ((1.15, 0.0, 0.0), 0.15, 0.95),
        ((1.0, 0.21, 0.0), 0.15, 0.95),  # a clock 60 s wrong at Dec 33
        ((1.0, 0.0, 0.15), 0.15, 0.8),
        ((1.0, 0.15, 0.0), 0.05, 1.0),
        ((1 / 1.03, 0.0, 0.0), 0.15, 0.0),  # one group cannot tell, many can: `contimg beam fit`
    ],
)
def test_wrong_beams_are_marked(
    wrong: tuple[float, float, float], scatter: float, least: float
) -> None:
    rng = np.random.default_rng(2)
    found = [draw_group(rng, *wrong, scatter) for _ in range(60)]
    assert np.mean([bool(one.deviant) for one in found]) >= least
    mean = np.mean([one.value for one in found], axis=0)
    np.testing.assert_allclose(mean, [np.log(wrong[0]), *wrong[1:]], atol=0.035)


@pytest.mark.parametrize(
    "change", [{"width": 1 / 1.15}, {"east_deg": 0.15}, {"north_deg": -0.15}, {}], ids=str
)
def test_image_through_another_beam_shows_it(change: dict[str, float]) -> None:
    """The whole path: signs of the axes, drift, band and effective beam are real."""
    rng = np.random.default_rng(3)
    field = imaging_field(averaged(), size=900)
    frame, nothing = field.frame, np.full(70, np.nan)
    x, y = rng.uniform(30, 870, (2, 70))
    east, north = -(x - 450) * frame.cell_rad, (y - 450) * frame.cell_rad
    dec = np.radians(frame.dec_deg)
    ra_deg = frame.ra_deg + np.degrees(east) / np.cos(dec)
    listed = Catalogue("c", field.weights.frequency_hz, ra_deg, ra_deg * 0, nothing, *[nothing] * 3)
    listed = replace(listed, dec_deg=frame.dec_deg + np.degrees(north), flux_jy=np.full(70, 0.5))
    sky = ExpectedSky.of(listed, field)
    cosines = np.stack([-(sky.x - 450) * frame.cell_rad, (sky.y - 450) * frame.cell_rad], axis=-1)
    towards = np.sqrt(1 - np.sum(cosines**2, axis=-1)) - 1
    true = replace(field, primary_beam=BEAM.changed(**change))
    level = effective_beam(true, np.concatenate([cosines, towards[:, None]], axis=-1))
    image = rng.normal(0, 2e-4, sky.effective.shape)
    rows, columns = np.indices(image.shape)
    for place_x, place_y, one in zip(sky.x, sky.y, level, strict=True):
        away = (rows - place_y) ** 2 + (columns - place_x) ** 2
        image += 0.5 * one * np.exp(-FACTOR * away / 5.0**2)
    noise = np.full_like(sky.effective, 2e-4)
    found = measure_beam(image.astype(np.float32), noise, sky, field, 5.0)
    expected = [np.log(change.get("width", 1.0)), change.get("east_deg", 0.0)]
    expected.append(change.get("north_deg", 0.0))
    np.testing.assert_allclose(found.value, expected, atol=0.02)
    assert bool(found.deviant) == bool(change)
