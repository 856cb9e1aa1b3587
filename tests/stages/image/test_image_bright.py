"""Bright sources are subtracted as they drift and restored as points; no catalogue flux enters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contimg.astro.catalogues import nvss
from contimg.astro.coordinates import direction_cosines
from contimg.records.images import Beam
from contimg_image.averaging import AveragedVisibilities
from contimg_image.beam import SPECTRAL_INDEX
from contimg_image.bright import BrightSources, choose_sources, restore_bright, subtract_bright
from contimg_image.phases import measure_phases, sample_visibilities
from image_arrays import averaged, imaging_field, lmn, predict_source, sum_beam

PLACES = np.stack([lmn(*place) for place in ((0.1, 0.35), (-1.3, 0.6), (0.4, -1.5), (2.6, 1.4))])
"""The last one is outside the image."""
FLUX = np.array([16.0, 3.0, 1.0, 8.0])
SOURCES = BrightSources(PLACES, np.zeros((4, 2)), np.array([True, True, True, False]))


def observe(alpha: float = SPECTRAL_INDEX, noise_jy: float = 0.0) -> AveragedVisibilities:
    data = averaged(times=4, every=4, channels=48, factor=2)
    (part,) = data.sets
    frequency = imaging_field(data).weights.frequency_hz
    vis = np.zeros(part.vis.shape, complex)
    for place, flux in zip(PLACES, FLUX, strict=True):
        vis += predict_source(data, place, flux, alpha, frequency)[0]
    real, imaginary = np.random.default_rng(1).normal(0, noise_jy, (2, *vis.shape))
    part = replace(part, vis=(vis + real + 1j * imaginary).astype(np.complex64))
    return replace(data, sets=(part,), variance_jy2=max(noise_jy, 1e-3) ** 2)


def rms_jy(data: AveragedVisibilities) -> float:
    part = data.sets[0]
    return float(np.sqrt(np.mean(np.abs(part.vis[part.weight > 0]) ** 2)))


def test_subtract_bright_leaves_nothing() -> None:
    data = observe()
    assert rms_jy(data) > 5
    subtract_bright(imaging_field(data), SOURCES)
    # 16 Jy are followed to some 1e-4: single precision, and the slope of smearing in time across
    # the band.
    assert rms_jy(data) < 5e-3


def test_subtract_bright_returns_flux_times_effective_beam() -> None:
    data = observe()
    field = imaging_field(data)
    weights, frequency_hz = field.weights.of_set, field.weights.frequency_hz
    expected = [
        flux * sum_beam(data, weights, place, SPECTRAL_INDEX, frequency_hz)
        for flux, place in zip(FLUX, PLACES, strict=True)
    ]
    assert subtract_bright(field, SOURCES) == pytest.approx(expected, rel=1e-3)


def test_subtract_bright_follows_other_spectra() -> None:
    data = observe(alpha=-1.2)
    subtract_bright(imaging_field(data), SOURCES)
    # The square of the slope's deviation over the half band, (0.5 x 0.067)^2 / 2 of 16 Jy, is what
    # a slope does not follow.
    assert rms_jy(data) < 0.02


def test_subtract_bright_leaves_noise() -> None:
    data = observe(noise_jy=1.0)
    found = subtract_bright(imaging_field(data), SOURCES)
    assert rms_jy(data) == pytest.approx(np.sqrt(2), rel=0.01)
    # 13,000 visibilities of 1 Jy noise, an eighth of them in the fit: 25 mJy, and the beam is 0.3
    # at the fainter ones.
    clean = subtract_bright(imaging_field(observe()), SOURCES)
    assert found[:2] == pytest.approx(clean[:2], abs=0.1)


def test_subtract_bright_without_known_beam_changes_nothing() -> None:
    data = observe()
    before = data.sets[0].vis.copy()
    assert not subtract_bright(imaging_field(data, dec_deg=None), SOURCES).any()
    assert np.array_equal(before, data.sets[0].vis)


def test_restore_bright_adds_points_inside_image() -> None:
    image = np.zeros((400, 400), np.float32)
    pixels = np.array([[200.25, 150.5], [3.0, 398.0], [300.0, 300.0]])
    placed = BrightSources(np.zeros((3, 3)), pixels, np.array([True, True, False]))
    beam = Beam(68 / 3600, 37 / 3600, 90.0)
    restore_bright(image, placed, np.array([2.0, 1.0, 5.0]), beam, 3 / 3600)
    # Position angle 90: the major axis lies along RA.
    square = ((215 - 200.25) * 3 / 68) ** 2 + ((150 - 150.5) * 3 / 37) ** 2
    assert image[150, 215] == pytest.approx(2 * np.exp(-4 * np.log(2) * square), rel=1e-5)
    assert image[398, 3] == pytest.approx(1.0)
    assert image[300, 300] == 0


def test_choose_sources_uses_only_order_of_fluxes() -> None:
    field, catalogue = imaging_field(averaged(every=16)), nvss()
    doubled = replace(catalogue, flux_jy=2 * catalogue.flux_jy, peak_jy=2 * catalogue.peak_jy)
    once, twice = (choose_sources(part, field, (20, 5)) for part in (catalogue, doubled))
    assert np.array_equal(once.cosines, twice.cosines)
    assert np.count_nonzero(once.inside) == 20
    assert np.count_nonzero(~once.inside) == 5
    head = field.data.header
    east, north, _ = direction_cosines(*np.radians([24.422, 33.160]), head.ra_rad, head.dec_rad)
    assert once.cosines[0, :2] == pytest.approx(np.array([east, north]), abs=np.radians(1.6e-3))
    assert once.inside[0]


def test_choose_sources_takes_close_pair_once() -> None:
    """Two entries of one source would share its flux in any way, and noise would decide how."""
    field = imaging_field(averaged(every=16))
    part = nvss().within(24.42, 33.16, 1.0)
    twice = part.select(np.repeat(np.arange(len(part)), 2))
    twice.dec_deg[1::2] += 10 / 3600
    found = choose_sources(twice, field, (10, 0))
    gaps = np.linalg.norm(found.cosines[:, None] - found.cosines[None], axis=2) + np.eye(10)
    assert np.degrees(gaps.min()) * 3600 > 40
    assert choose_sources(twice, field, (0, 0)).cosines.shape == (0, 3)


def test_measure_phases_returns_known_phases() -> None:
    """A phase on one antenna and a delay on another, in data without noise."""
    data = observe()
    (part,) = data.sets
    model, channels = part.vis.copy(), part.frequencies_hz.size
    angle = np.zeros((117, channels))
    angle[part.antenna1[0]] = 0.4
    angle[part.antenna2[0]] = np.linspace(-0.6, 0.6, channels)
    wrong = model * np.exp(1j * (angle[part.antenna1] - angle[part.antenna2]))
    part.vis[:] = wrong - model
    before = sample_visibilities((wrong.astype(np.complex64),))
    found = measure_phases(replace(data, variance_jy2=0.0), before)
    present = np.unique([part.antenna1, part.antenna2])
    expected = angle.reshape(117, 8, -1).mean(axis=2)[present]
    # The other antennas see the two wrong ones on a twelfth of their baselines.
    assert found.rms_deg == pytest.approx(np.degrees(np.sqrt(np.mean(expected**2))), rel=0.1)
    assert found.error_deg == found.rms_deg
    nothing = measure_phases(data, sample_visibilities((part.vis,)))
    assert np.isnan(nothing.error_deg)
