"""The effective beam, weights and restoring beam; bright sources that drift through the beam."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contimg.astro.catalogues import nvss
from contimg.astro.constants import DAY_S, DEFAULT_SPECTRAL_INDEX, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import direction_cosines
from contimg.astro.telescope import SITE
from contimg.records.images import Beam
from contimg.runtime.errors import BadImageError
from contimg_image.averaging import AveragedVisibilities
from contimg_image.beam import beam_map, effective_beam, smearing_loss
from contimg_image.bright import BrightSources, choose_sources, restore_bright, subtract_bright
from contimg_image.field import ImagingField, half_power_beam, imaging_weights
from contimg_image.tiers import Settings
from image_arrays import (
    BEAM,
    FIELD_RAD,
    MJD,
    averaged,
    imaging_field,
    lmn,
    predict_source,
    sum_beam,
)

PLACES = np.stack([lmn(*place) for place in ((0.1, 0.35), (-1.3, 0.6), (0.4, -1.5), (2.6, 1.4))])
"""The last one is outside the image."""
FLUX = np.array([16.0, 3.0, 1.0, 8.0])
SOURCES = BrightSources(PLACES, np.zeros((4, 2)), np.array([True, True, True, False]))


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 0.3), (-0.4, 1.6), (1.7, -0.9)], ids=str)
def test_effective_beam_is_sum_over_visibilities(place: tuple[float, float]) -> None:
    field = imaging_field(averaged())
    # Sampled smearing and subbands: 1e-4 each; 11 MHz channels smear an outrigger's baseline by
    # tens of per cent here.
    expected = pytest.approx(sum_beam(field, lmn(*place)), abs=5e-4)
    assert effective_beam(field, lmn(*place)[None])[0] == expected


def test_effective_beam_drift_lowers_centre() -> None:
    """- 4 % at the centre of a 309 s group at Dec 16; at Dec 33 by cos 33 / cos 16 of the path."""
    data = averaged(times=24, every=12, channels=256, factor=1)
    # The moments are 8 integrations apart.
    times_s = MJD * DAY_S + (data.times_s - data.times_s.mean()) / 8
    found = effective_beam(imaging_field(replace(data, times_s=times_s)), np.zeros((1, 3)))[0]
    path = np.cos(np.radians(33)) / np.cos(np.radians(16))
    assert 1 - found == pytest.approx(0.04 * path**2, abs=0.005)


def test_effective_beam_of_unknown_telescope_is_smearing_alone() -> None:
    data = averaged()
    elsewhere = replace(data, header=replace(data.header, telescope="VLA"))
    field = imaging_field(elsewhere, dec_deg=None)
    found = effective_beam(field, np.stack([lmn(0, 0), lmn(1.5, 0)]))
    assert field.primary_beam is None
    # The assumed spectrum, about its mean frequency.
    assert found[0] == pytest.approx(1.0, abs=2e-3)
    assert found[1] < found[0]


def test_smearing_loss_grows_with_square_of_distance() -> None:
    field = imaging_field(averaged(channels=128, factor=2))
    near, far = (smearing_loss(field, np.radians(r)) for r in (0.7, 1.4))
    # The pointing wanders by 0.4 deg about the phase centre, so that the law is not exact.
    assert far / near == pytest.approx(4, rel=0.25)


def test_beam_map_equals_effective_beam_at_pixels() -> None:
    field = imaging_field(averaged(every=16), size=500)
    plane, cell = beam_map(field), field.frame.cell_rad
    for column, row in ((250, 250), (400, 100), (30, 470)):
        east, north = -(column - 250) * cell, (row - 250) * cell
        place = np.array([[east, north, np.sqrt(1 - east**2 - north**2) - 1]])
        assert plane[row, column] == pytest.approx(effective_beam(field, place)[0], abs=3e-4)


def test_imaging_weights_equal_wsclean(tmp_path: Path) -> None:
    import casacore.tables as ct

    data = averaged(times=2, every=2, channels=16)
    ours = ImagingField.of(data, Settings(2000, 6.0, taper_arcsec=15.0), 33.0, SITE, BEAM)
    (path,), (part,), (weight,) = ours.write_sets(tmp_path), data.sets, ours.weights.of_set
    options = """-quiet -j 1 -use-wgridder -no-update-model-required -no-reorder
        -store-imaging-weights -make-psf-only -pol I -size 2000 2000 -scale 6.0asec -padding 1.2
        -weight briggs 0.5 -taper-gaussian 15.0asec"""
    subprocess.run(["wsclean", *options.split(), "-name", tmp_path / "w", path], check=True)
    with ct.table(str(path), ack=False) as table:
        theirs = table.getcol("IMAGING_WEIGHT_SPECTRUM")[..., 0] * part.weight
    ratio = weight[part.weight > 0] / theirs[part.weight > 0]
    # Single precision on WSClean's side; a visibility on the border of two cells may fall into the
    # other one.
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 1e-3
    assert np.mean(np.abs(ratio / np.median(ratio) - 1) > 1e-2) < 1e-3


def test_imaging_weights_noise_of_equal_variances() -> None:
    """The natural radiometer rms times sqrt(N sum w^2) / sum w."""
    data = averaged()
    equal = replace(data.sets[0], weight=np.ones_like(data.sets[0].weight))
    data = replace(data, sets=(equal,))
    found = imaging_weights(data, 0.0, FIELD_RAD, 0.0)
    w = found.of_set[0].astype(float)
    natural = np.sqrt(data.variance_jy2 / w.size)
    thermal = natural * np.sqrt(w.size * np.sum(w**2)) / np.sum(w)
    assert found.natural_rms_jy == pytest.approx(natural, rel=1e-6)
    assert found.thermal_rms_jy == pytest.approx(thermal, rel=1e-6)
    assert imaging_weights(data, 2.0, FIELD_RAD, 0.0).thermal_rms_jy < found.thermal_rms_jy


def test_half_power_beam_of_gaussian_coverage() -> None:
    """Coverage exp(-u^2 / 2 s^2) has a PSF of half-power width sqrt(2 ln 2) / (pi s)."""
    field, rng = imaging_field(averaged(channels=4)), np.random.default_rng(3)
    count, (wide, narrow), angle = 30_000, (150.0, 300.0), np.radians(35)
    across, along = rng.normal(0, narrow, count), rng.normal(0, wide, count)
    u = along * np.sin(angle) + across * np.cos(angle)
    v = along * np.cos(angle) - across * np.sin(angle)
    part, ones = field.data.sets[0], np.ones((count, 1), np.float32)
    freq_hz = part.frequencies_hz.mean()
    uvw_m = np.stack([u, v, 0 * u], axis=1) * SPEED_OF_LIGHT_M_S / freq_hz
    part = replace(part, uvw_m=uvw_m, weight=ones, frequencies_hz=np.array([freq_hz]))
    data, weights = replace(field.data, sets=(part,)), replace(field.weights, of_set=(ones,))
    major, minor, angle_deg = half_power_beam(replace(field, data=data, weights=weights))
    law_arcsec = np.degrees(np.sqrt(2 * np.log(2)) / np.pi) * 3600
    # 10,000 sampled visibilities: 1 %.
    assert (major, minor) == pytest.approx((law_arcsec / wide, law_arcsec / narrow), rel=0.02)
    assert angle_deg == pytest.approx(35, abs=1.5)


def test_half_power_beam_without_baselines_is_refused() -> None:
    field = imaging_field(averaged(channels=4))
    zero = replace(field.data.sets[0], uvw_m=np.zeros_like(field.data.sets[0].uvw_m))
    with pytest.raises(BadImageError, match="main lobe"):
        half_power_beam(replace(field, data=replace(field.data, sets=(zero,))))


def observe(alpha: float = DEFAULT_SPECTRAL_INDEX, noise_jy: float = 0.0) -> AveragedVisibilities:
    data = averaged(times=4, every=4, channels=48, factor=2)
    (part,), field = data.sets, imaging_field(data)
    sources = zip(PLACES, FLUX, strict=True)
    vis = sum(predict_source(field, place, flux, alpha)[0] for place, flux in sources)
    real, imaginary = np.random.default_rng(1).normal(0, noise_jy, (2, *vis.shape))
    part = replace(part, vis=(vis + real + 1j * imaginary).astype(np.complex64))
    return replace(data, sets=(part,), variance_jy2=max(noise_jy, 1e-3) ** 2)


def rms_jy(data: AveragedVisibilities) -> float:
    part = data.sets[0]
    return float(np.sqrt(np.mean(np.abs(part.vis[part.weight > 0]) ** 2)))


@pytest.mark.parametrize(("alpha", "left_jy"), [(DEFAULT_SPECTRAL_INDEX, 5e-3), (-1.2, 0.02)])
def test_subtract_bright_leaves_little(alpha: float, left_jy: float) -> None:
    data = observe(alpha)
    assert rms_jy(data) > 5
    subtract_bright(imaging_field(data), SOURCES)
    # 16 Jy are followed to some 1e-4: single precision, and the slope of smearing in time across
    # the band. Of another spectrum the square of the slope's deviation over the half band,
    # (0.5 x 0.067)^2 / 2 of 16 Jy, is left.
    assert rms_jy(data) < left_jy


def test_subtract_bright_returns_flux_times_effective_beam() -> None:
    field = imaging_field(observe())
    sources = zip(FLUX, PLACES, strict=True)
    expected = [flux * sum_beam(field, place) for flux, place in sources]
    assert subtract_bright(field, SOURCES) == pytest.approx(expected, rel=1e-3)


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
    restore_bright(image, [(placed, np.array([2.0, 1.0, 5.0]))], beam, 3 / 3600)
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
    # 3C48 where the VLA's list has it: NVSS is an arcsecond off.
    place = np.radians([24.4220808, 33.1597594])
    east, north, _ = direction_cosines(*place, head.ra_rad, head.dec_rad)
    assert once.cosines[0, :2] == pytest.approx(np.array([east, north]), abs=np.radians(2e-5))
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
