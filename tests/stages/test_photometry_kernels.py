"""The loops over pixels against exact sources, plain numpy and a peer's published measurements."""

from __future__ import annotations

import numpy as np
import pytest

from contimg.records.images import Beam, read_image
from contimg_photometry import kernels
from contimg_photometry.measure import annulus_offsets, find_groups, fit_group
from contimg_photometry.noise import BeamProfile, Correlation
from outside import outside_data
from synthetic_images import add_sources

CELL = 3 / 3600
PROFILE = BeamProfile(Beam(36 / 3600, 21 / 3600, 25.0).form(-CELL, CELL), 12.0, 7.0)
NARROW = BeamProfile(Beam(9 / 3600, 6.5 / 3600, 70.0).form(-CELL, CELL), 3.0, 2.17)
FORM = PROFILE.form


def draw_source(*source: float, size: int = 101, profile: BeamProfile = PROFILE) -> np.ndarray:
    image = np.zeros((size, size))
    add_sources(image, profile, [source])
    return image.astype(np.float32)


def peak(pixels: np.ndarray, x: float, y: float, form: tuple[float, float, float] = FORM) -> float:
    return kernels.interpolate_peak(pixels, x, y, form, 0.0, np.empty(4), np.empty(4))


def test_beam_form_is_half_at_half_width_along_both_axes() -> None:
    profile = BeamProfile(Beam(40 / 3600, 20 / 3600, 30.0).form(-CELL, CELL), 13.3, 6.7)
    for half_arcsec, angle in ((20.0, 30.0), (10.0, 120.0)):
        # North through east; east is towards smaller x.
        dx = -half_arcsec * np.sin(np.radians(angle)) / 3.0
        dy = half_arcsec * np.cos(np.radians(angle)) / 3.0
        assert profile.at(dx, dy) == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (0.31, -0.47), (-0.2, 0.05)])
@pytest.mark.parametrize("profile", [PROFILE, NARROW])
def test_interpolate_peak_is_exact_between_pixels(
    shift: tuple[float, float], profile: BeamProfile
) -> None:
    x, y = 50 + shift[0], 50 + shift[1]
    pixels = draw_source(x, y, 2.0, profile=profile)
    # float32 pixels; the division by the interpolated beam makes it exact even where the beam is
    # two pixels wide.
    assert peak(pixels, x, y, profile.form) == pytest.approx(2.0, rel=3e-6)


def test_fit_beam_equals_plain_sum() -> None:
    pixels = np.random.default_rng(5).normal(size=(101, 101)).astype(np.float32)
    pixels[40:43, 60] = np.nan
    x, y, radius = 57.3, 44.8, 12.0
    rows, columns = np.mgrid[:101, :101].astype(float)
    use = (np.hypot(columns - x, rows - y) <= radius) & np.isfinite(pixels)
    kernel = PROFILE.at(columns - x, rows - y)[use]
    expected = np.sum(kernel * (pixels[use].astype(float) - 0.3)) / np.sum(kernel**2)
    # The beam comes from a recurrence along each row; 25 products cost a few times 1e-15.
    assert kernels.fit_beam(pixels, x, y, FORM, 0.3, radius) == pytest.approx(expected, rel=1e-10)


def test_positions_without_pixels_are_nan() -> None:
    pixels = draw_source(50, 50, 1.0)
    assert np.isnan(peak(pixels, 0.4, 50.0))
    assert np.isnan(kernels.fit_beam(np.full_like(pixels, np.nan), 50.0, 50.0, FORM, 0.0, 12.0))
    steps = annulus_offsets(200.0, 210.0, 3)
    found = kernels.measure_annulus(pixels, 50.0, 50.0, *steps, np.empty(steps.shape[1]))
    assert np.isnan(found).all()
    blank = np.zeros((101, 101), np.float32)
    assert np.isnan(kernels.fit_position(blank, 50.0, 50.0, FORM, 0.0, 12.0, 4)).all()


@pytest.mark.parametrize(("x", "y"), [(50.3, 49.8), (-0.2, 60.0), (98.0, 3.0), (130.0, 50.0)])
def test_missing_fraction_equals_plain_sum(x: float, y: float) -> None:
    pixels = np.ones((101, 101), np.float32)
    pixels[48:53, 55:] = np.nan
    rows, columns = np.mgrid[-40:141, -40:141]
    weight = PROFILE.at(columns - x, rows - y) ** 2 * (np.hypot(columns - x, rows - y) <= 12)
    whole = np.full(weight.shape, np.nan)
    whole[40:141, 40:141] = pixels
    expected = weight[np.isnan(whole)].sum() / weight.sum()
    assert kernels.missing_fraction(pixels, x, y, FORM, 12.0) == pytest.approx(expected, rel=1e-6)


def test_missing_part_is_that_of_the_aperture() -> None:
    """A source without pixels in its annulus has no noise, but its own pixels."""
    pixels = np.full((101, 101), np.nan, np.float32)
    pixels[35:66, 35:66] = 1.0
    steps, out = np.array([[-40, 40] * 20, [40, -40] * 20]), np.empty((1, 5))
    kernels.measure_positions(pixels, np.array([50.0]), np.array([50.0]), FORM, 12.0, steps, out)
    assert np.isnan(out[0, :4]).all()
    assert out[0, 4] == 0.0


def test_measure_annulus_ignores_sources_in_it() -> None:
    pixels = np.random.default_rng(8).normal(0.2, 1.0, (400, 400)).astype(np.float32)
    steps = annulus_offsets(24.0, 120.0, 1)
    samples = np.empty(steps.shape[1])
    background, rms = kernels.measure_annulus(pixels, 200.0, 200.0, *steps, samples)
    # 43,000 independent samples: the standard deviation is known to 0.35 %, the mean to 0.005.
    assert rms == pytest.approx(1.0, abs=0.015)
    assert background == pytest.approx(0.2, abs=0.025)
    for x, y in ((250, 260), (130, 190), (200, 290)):
        pixels += draw_source(x, y, 50.0, size=400)
    crowded = kernels.measure_annulus(pixels, 200.0, 200.0, *steps, samples)
    # Three sources of 50 sigma cover 4 % of it; what is below 3 sigma of their wings stays in.
    assert crowded[1] == pytest.approx(rms, rel=0.05)
    assert crowded[0] == pytest.approx(background, abs=0.05)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (1.3, -0.8), (-2.0, 1.5)])
def test_fit_position_finds_centre(dx: float, dy: float) -> None:
    pixels = draw_source(50 + dx, 50 + dy, 3.0)
    found = kernels.fit_position(pixels, 50.0, 50.0, FORM, 0.0, 12.0, 4)
    assert found == pytest.approx((dx, dy), abs=2e-4)


def test_fit_group_separates_chain_exactly() -> None:
    x, y = np.array([45.2, 56.9, 51.0]), np.array([50.3, 52.0, 61.5])
    flux = np.array([4.0, 1.0, 0.5])
    pixels = sum(draw_source(*each) for each in zip(x, y, flux, strict=True))
    chain = find_groups(np.append(x, 90.0), np.append(y, 10.0), 18.0)
    assert [list(members) for members in chain] == [[0, 1, 2]]
    alone = np.array([[peak(pixels, *place), 0.0, 0.0, 0.1] for place in zip(x, y, strict=True)])
    assert alone[:, 0] == pytest.approx([4.0, 1.044, 0.589], abs=2e-3)  # what the neighbours add
    white = np.zeros((81, 81))
    white[40, 40] = 1.0
    places = np.stack([x, y])
    found, _, fit, _ = fit_group(pixels, places, PROFILE, Correlation(white), 12.0, alone)
    # The peaks are separated with the Gaussian itself in place of cubic interpolation: 1e-4 at this
    # sampling.
    assert found == pytest.approx(flux, abs=1e-3)
    assert fit == pytest.approx(flux, rel=1e-5)


def test_fit_group_of_one_source_twice_is_nan() -> None:
    places = np.array([[50.0, 50.001], [50.0, 50.0]])
    alone, noise = np.array([[1.0, 1.0, 0.0, 0.1]] * 2), Correlation(np.ones((81, 81)))
    found = fit_group(draw_source(50, 50, 1.0), places, PROFILE, noise, 12.0, alone)
    assert np.isnan(found).all()


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_fit_beam_equals_forced_measurements_of_vast(epoch: int) -> None:
    import pandas as pd

    vast = outside_data("vast_basic")
    name = f"forced_measurements_epoch{epoch:02d}_fits.parquet"
    rows = pd.read_parquet(vast / "results/basic-association-with-forced-extraction" / name)
    image = read_image(vast / f"data/epoch{epoch:02d}.fits")
    background = read_image(vast / f"data/epoch{epoch:02d}.meanMap.fits")
    profile = BeamProfile.of(image)
    pixels = 1e3 * (image.pixels - background.pixels)
    x, y = image.to_pixels(rows.ra.to_numpy(), rows.dec.to_numpy())
    for k, row in enumerate(rows.itertuples()):
        # Their aperture is a square of 3 BMAJ, and pixels are weighted by a noise map: on empty sky
        # that is a hundredth of the error; on the slope of a 1 Jy source 2.5 or 3 pixels away, one
        # flank of which the noise map prefers, one per cent of the flux.
        radius = 1.5 * profile.major
        found = kernels.fit_beam(pixels, x[k], y[k], profile.form, 0.0, radius)
        assert found == pytest.approx(row.flux_peak, abs=0.015 * row.flux_peak_err, rel=0.011)
        if row.flux_peak > 500:
            # There, least squares of a beam S K(d) is S √K(d) = S exp(-q(d) / 2): ours within
            # two sigma of the noise, 1 mJy.
            start = (x[k], y[k], profile.form, 0.0)
            dx, dy = kernels.fit_position(pixels, *start, profile.major, 10)
            flux = kernels.fit_beam(pixels, x[k] + dx, y[k] + dy, profile.form, 0.0, radius)
            expected = flux * np.sqrt(profile.at(dx, dy))
            assert found == pytest.approx(expected, abs=2.0)


def test_solve_symmetric_equals_numpy() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        rows, right = rng.normal(size=(5, 3)), rng.normal(size=3)
        matrix = rows.T @ rows
        expected, error = np.linalg.solve(matrix, right), 1e-12 * np.linalg.cond(matrix)
        assert kernels.solve_symmetric(matrix, right) == pytest.approx(
            expected, rel=error, abs=1e-12
        )
    assert kernels.solve_symmetric(np.ones((3, 3)), np.ones(3)) == (0.0, 0.0, 0.0)
