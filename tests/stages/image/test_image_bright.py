"""Bright sources are taken out as they drift, and put back as points of their mean; no catalogue flux enters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from contimg.astro.catalogues import nvss
from contimg.astro.coordinates import direction_of_cosines
from contimg.astro.telescope import SITE
from contimg.records.images import Beam
from contimg_image import beam, bright, phases
from contimg_image.frame import Frame
from contimg_image.weights import imaging_weights
from image_arrays import DEC_DEG, averaged, brute_beam, sky

if TYPE_CHECKING:
    from contimg.astro.catalogues import Catalogue
    from contimg_image.averaging import Averaged

FIELD = np.radians(4.5)
PLACES = np.radians([[0.1, 0.35], [-1.3, 0.6], [0.4, -1.5], [2.6, 1.4]])
"""East and north; the last one is outside of the image."""
FLUX = np.array([16.0, 3.0, 1.0, 8.0])


def lmn() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    east, north = np.sin(PLACES).T
    return np.stack([east, north, np.sqrt(1 - east**2 - north**2) - 1], axis=1)


def observed(alpha: float = beam.SPECTRAL_INDEX, noise_jy: float = 0.0) -> Averaged:
    data = averaged(times=4, every=4, channels=48, factor=2)
    frequency = imaging_weights(data, 0.5, FIELD).frequency_hz
    rng = np.random.default_rng(1)
    parts = []
    for k, part in enumerate(data.sets):
        vis = sum(
            sky(data, place, flux, alpha, frequency)[k]
            for place, flux in zip(lmn(), FLUX, strict=True)
        )
        noise = noise_jy * (
            rng.normal(size=part.weight.shape) + 1j * rng.normal(size=part.weight.shape)
        )
        parts.append(replace(part, vis=(vis + noise).astype(np.complex64)))
    return replace(data, sets=tuple(parts), variance_jy2=max(noise_jy, 1e-3) ** 2)


def taken(data: Averaged) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    weights = imaging_weights(data, 0.5, FIELD)
    where = beam.pointing(data.header, data.times_s, DEC_DEG, SITE)
    return bright.take_out(data, weights, where, sources())


def sources() -> bright.Bright:
    return bright.Bright(lmn(), np.zeros(4), np.zeros(4), np.array([True, True, True, False]))


def left_over(data: Averaged) -> float:
    """Return the rms of what is left, Jy."""
    part = data.sets[0]
    return float(np.sqrt(np.mean(np.abs(part.vis[part.weight > 0]) ** 2)))


def test_nothing_is_left_of_them() -> None:
    data = observed()
    assert left_over(data) > 5
    taken(data)
    # 16 Jy are followed to some 1e-4: single precision, and the slope of smearing in time across the band.
    assert left_over(data) < 5e-3


def test_what_was_taken_is_flux_times_effective_beam() -> None:
    data = observed()
    weights = imaging_weights(data, 0.5, FIELD)
    expected = [
        flux * brute_beam(data, weights.of_set, place, beam.SPECTRAL_INDEX, weights.frequency_hz)
        for flux, place in zip(FLUX, lmn(), strict=True)
    ]
    assert taken(data) == pytest.approx(expected, rel=1e-3)


def test_other_spectra_are_followed_too() -> None:
    data = observed(alpha=-1.2)
    taken(data)
    # The square of the slope's deviation over the half band, (0.5 x 0.067)^2 / 2 of 16 Jy, is what a slope does not follow.
    assert left_over(data) < 0.02


def test_noise_is_left_as_it_is() -> None:
    data = observed(noise_jy=1.0)
    found = taken(data)
    assert left_over(data) == pytest.approx(np.sqrt(2), rel=0.01)
    # 13,000 visibilities of 1 Jy noise, an eighth of them in the fit: 25 mJy, and the beam is 0.3 at the fainter ones.
    assert found[:2] == pytest.approx(taken(observed())[:2], abs=0.1)


def test_another_telescopes_data_are_left_alone() -> None:
    data = observed()
    before = data.sets[0].vis.copy()
    where = beam.Pointing(np.zeros((4, 3)), known_beam=False)
    assert not bright.take_out(data, imaging_weights(data, 0.5, FIELD), where, sources()).any()
    assert np.array_equal(before, data.sets[0].vis)


def test_they_come_back_as_restored_points() -> None:
    image = np.zeros((400, 400), np.float32)
    cell, restoring = 3 / 3600, Beam(68 / 3600, 37 / 3600, 90.0)
    inside = np.array([True, True, False])
    placed = bright.Bright(
        np.zeros((3, 3)), np.array([200.25, 3.0, 300.0]), np.array([150.5, 398.0, 300.0]), inside
    )
    bright.put_back(image, placed, np.array([2.0, 1.0, 5.0]), restoring, cell)
    x, y = 200.25, 150.5
    along = np.exp(
        -4 * np.log(2) * ((215 - x) * 3 / 68) ** 2 - 4 * np.log(2) * ((150 - y) * 3 / 37) ** 2
    )
    assert image[150, 215] == pytest.approx(
        2 * along, rel=1e-5
    )  # position angle 90: the major axis lies along RA
    assert image[398, 3] == pytest.approx(1.0)
    assert image[300, 300] == 0


def doubled(catalogue: Catalogue) -> Catalogue:
    return replace(catalogue, flux_jy=2 * catalogue.flux_jy, peak_jy=2 * catalogue.peak_jy)


def test_only_the_order_of_the_catalogue_counts() -> None:
    data = averaged(every=16)
    head = data.header
    frame = Frame(float(np.degrees(head.ra_rad)), float(np.degrees(head.dec_rad)), 5400, 3.0)
    where = beam.pointing(head, data.times_s, DEC_DEG, SITE)
    once, twice = (
        bright.choose(part, frame, where, 1.4e9, (20, 5)) for part in (nvss(), doubled(nvss()))
    )
    assert np.array_equal(once.cosines, twice.cosines)
    assert np.count_nonzero(once.inside) == 20
    assert np.count_nonzero(~once.inside) == 5
    ra, dec = direction_of_cosines(*once.cosines[0, :2], head.ra_rad, head.dec_rad)
    assert (np.degrees(ra), np.degrees(dec)) == pytest.approx((24.422, 33.160), abs=2e-3)  # 3C48
    assert once.inside[0]


def test_close_pairs_are_one_to_the_fit() -> None:
    """Two entries of one source would share its flux in any way, and noise would decide how."""
    data = averaged(every=16)
    head = data.header
    frame = Frame(float(np.degrees(head.ra_rad)), float(np.degrees(head.dec_rad)), 5400, 3.0)
    where = beam.pointing(head, data.times_s, DEC_DEG, SITE)
    part = nvss().within(24.42, 33.16, 1.0)
    twice = part.select(np.repeat(np.arange(len(part)), 2))
    twice.dec_deg[1::2] += 10 / 3600
    found = bright.choose(twice, frame, where, 1.4e9, (10, 0))
    gaps = np.linalg.norm(found.cosines[:, None] - found.cosines[None], axis=2) + np.eye(10)
    assert np.degrees(gaps.min()) * 3600 > 40
    none = bright.choose(twice, frame, where, 1.4e9, (0, 0))
    assert none.cosines.shape == (0, 3)


def test_phases_of_antennas_are_seen_against_the_sources() -> None:
    """Known phases on one antenna and a known delay on another, in data without noise, come back as their rms."""
    data = observed()
    (part,) = data.sets
    model, channels = part.vis.copy(), part.frequencies_hz.size
    angle = np.zeros((117, channels))
    angle[part.antenna1[0]] = 0.4
    angle[part.antenna2[0]] = np.linspace(-0.6, 0.6, channels)
    turned = model * np.exp(1j * (angle[part.antenna1] - angle[part.antenna2]))
    part.vis[:] = turned - model
    found = phases.against_sources(
        replace(data, variance_jy2=0.0), phases.sample((turned.astype(np.complex64),))
    )
    middles = angle.reshape(117, 8, -1).mean(axis=2)[
        np.unique(np.concatenate([part.antenna1, part.antenna2]))
    ]
    # The other antennas see the two wrong ones on a twelfth of their baselines.
    assert found.rms_deg == pytest.approx(np.degrees(np.sqrt(np.mean(middles**2))), rel=0.1)
    assert found.error_deg == found.rms_deg
    nothing = phases.against_sources(data, phases.sample((part.vis,)))
    assert np.isnan(nothing.error_deg)
