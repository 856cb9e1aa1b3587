"""The effective beam, imaging weights and restoring beam, against plain sums and WSClean."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.runtime.errors import BadImageError
from contimg_image.beam import SPECTRAL_INDEX, beam_map, effective_beam, smearing_loss
from contimg_image.field import write_set
from contimg_image.weights import half_power_beam, imaging_weights
from image_arrays import FIELD_RAD, MJD, averaged, imaging_field, lmn, sum_beam


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 0.3), (-0.4, 1.6), (1.7, -0.9)], ids=str)
def test_effective_beam_is_sum_over_all_visibilities(place: tuple[float, float]) -> None:
    data = averaged()
    field = imaging_field(data)
    found = effective_beam(field, lmn(*place)[None])[0]
    weights = field.weights
    expected = sum_beam(data, weights.of_set, lmn(*place), SPECTRAL_INDEX, weights.frequency_hz)
    # Sampled smearing and subbands: 1e-4 each; 11 MHz channels smear an outrigger's baseline by
    # tens of per cent here.
    assert found == pytest.approx(expected, abs=5e-4)


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
    assert not field.pointing.known_beam
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
    part = data.sets[0]
    width = 1.2 * 2000 * np.radians(6.0 / 3600)
    ours = imaging_weights(data, 0.5, width, np.radians(15.0 / 3600))
    path = write_set(tmp_path / "a.ms", data, part)
    options = """-quiet -j 1 -use-wgridder -no-update-model-required -no-reorder
        -store-imaging-weights -make-psf-only -pol I -size 2000 2000 -scale 6.0asec -padding 1.2
        -weight briggs 0.5 -taper-gaussian 15.0asec"""
    argv = ["wsclean", *options.split(), "-name", str(tmp_path / "w"), str(path)]
    subprocess.run(argv, check=True)
    with ct.table(str(path), ack=False) as table:
        theirs = table.getcol("IMAGING_WEIGHT_SPECTRUM")[..., 0] * part.weight
    used = part.weight > 0
    ratio = ours.of_set[0][used] / theirs[used]
    # Single precision on WSClean's side; a visibility on the border of two cells may fall into the
    # other one.
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 1e-3
    assert np.mean(np.abs(ratio / np.median(ratio) - 1) > 1e-2) < 1e-3


def test_imaging_weights_noise_of_equal_variances() -> None:
    """The natural radiometer rms times sqrt(N sum w^2) / sum w."""
    data = averaged()
    one = replace(data.sets[0], weight=np.ones_like(data.sets[0].weight))
    data = replace(data, sets=(one,))
    found = imaging_weights(data, 0.0, FIELD_RAD)
    w = found.of_set[0].astype(float)
    natural = np.sqrt(data.variance_jy2 / w.size)
    thermal = natural * np.sqrt(w.size * np.sum(w**2)) / np.sum(w)
    assert found.natural_rms_jy == pytest.approx(natural, rel=1e-6)
    assert found.thermal_rms_jy == pytest.approx(thermal, rel=1e-6)
    assert imaging_weights(data, 2.0, FIELD_RAD).thermal_rms_jy < found.thermal_rms_jy


def test_half_power_beam_of_gaussian_coverage() -> None:
    """Coverage exp(-u^2 / 2 s^2) has a PSF of half-power width sqrt(2 ln 2) / (pi s)."""
    data = averaged(channels=4)
    rng = np.random.default_rng(3)
    count, (wide, narrow), angle = 30_000, (150.0, 300.0), np.radians(35)
    across, along = rng.normal(0, narrow, count), rng.normal(0, wide, count)
    u = along * np.sin(angle) + across * np.cos(angle)
    v = along * np.cos(angle) - across * np.sin(angle)
    part = data.sets[0]
    freq_hz = part.frequencies_hz.mean()
    ones = np.ones((count, 1), np.float32)
    gaussian = replace(
        part,
        uvw_m=np.stack([u, v, 0 * u], axis=1) * SPEED_OF_LIGHT_M_S / freq_hz,
        weight=ones,
        frequencies_hz=np.array([freq_hz]),
    )
    weights = replace(imaging_weights(data, 2.0, FIELD_RAD), of_set=(ones,))
    major, minor, angle_deg = half_power_beam(replace(data, sets=(gaussian,)), weights)
    law_arcsec = np.degrees(np.sqrt(2 * np.log(2)) / np.pi) * 3600
    # 10,000 sampled visibilities: 1 %.
    assert (major, minor) == pytest.approx((law_arcsec / wide, law_arcsec / narrow), rel=0.02)
    assert angle_deg == pytest.approx(35, abs=1.5)


def test_half_power_beam_without_baselines_is_refused() -> None:
    data = averaged(channels=4)
    zero = replace(data.sets[0], uvw_m=np.zeros_like(data.sets[0].uvw_m))
    with pytest.raises(BadImageError, match="main lobe"):
        half_power_beam(replace(data, sets=(zero,)), imaging_weights(data, 0.5, FIELD_RAD))
