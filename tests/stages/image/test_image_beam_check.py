"""The gate primary_beam: how a wrong beam shows in flux ratios, and how rarely a right one does."""

from dataclasses import replace

import numpy as np
import pytest

from beam_strips import FACTOR, draw_strip
from contimg.astro.catalogues import Catalogue
from contimg_image.beam import effective_beam
from contimg_image.beam_check import measure_beam
from contimg_image.cleaning import ExpectedSky
from image_arrays import BEAM, averaged, imaging_field


def test_right_beam_is_not_marked() -> None:
    rng = np.random.default_rng(1)
    strips = [draw_strip(rng, groups=1, scatter=scatter) for scatter in (0.15, 0.2) * 500]
    found = [one for [one], _ in strips]
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
    rng, (width, east_deg, north_deg) = np.random.default_rng(2), wrong
    beam = {"width": width, "east_deg": east_deg, "north_deg": north_deg}
    strips = [draw_strip(rng, groups=1, **beam, scatter=scatter) for _ in range(60)]
    found = [one for [one], _ in strips]
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
