"""The effective beam, imaging weights and the PSF's main lobe, against sums over every visibility and against WSClean."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.telescope import SITE
from contimg.runtime.errors import BadImageError
from contimg_image import beam
from contimg_image.rounds import write_set
from contimg_image.weights import half_power_beam, imaging_weights
from image_arrays import DEC_DEG, averaged, brute_beam

if TYPE_CHECKING:
    from pathlib import Path

FIELD = np.radians(4.5)


def lmn(east_deg: float, north_deg: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    east, north = np.sin(np.radians(east_deg)), np.sin(np.radians(north_deg))
    return np.array([east, north, np.sqrt(1 - east**2 - north**2) - 1])


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 0.3), (-0.4, 1.6), (1.7, -0.9)], ids=str)
def test_it_is_the_sum_over_every_visibility(place: tuple[float, float]) -> None:
    data = averaged()
    weights = imaging_weights(data, 0.5, FIELD)
    where = beam.pointing(data.header, data.times_s, DEC_DEG, SITE)
    found = beam.effective_beam(data, weights, where, lmn(*place)[None])[0]
    expected = brute_beam(
        data, weights.of_set, lmn(*place), beam.SPECTRAL_INDEX, weights.frequency_hz
    )
    # Sampled smearing and subbands: 1e-4 each; 11 MHz channels smear an outrigger's baseline by tens of per cent here.
    assert found == pytest.approx(expected, abs=5e-4)


def test_drift_alone_lowers_the_centre() -> None:
    """science.md: - 4 % at the centre of a 309 s group at Dec 16; at Dec 33 the dishes' path is cos 33 / cos 16 as long."""
    data = averaged(times=24, every=12, channels=256, factor=1)
    still = replace(
        data, times_s=data.times_s[0] + (data.times_s - data.times_s[0]) / 8
    )  # the moments are 8 integrations apart
    middle = (still.times_s[0] + still.times_s[-1]) / 2
    still = replace(still, times_s=still.times_s - middle + 61065.05196817219 * 86400)
    weights = imaging_weights(still, 0.5, FIELD)
    where = beam.pointing(still.header, still.times_s, DEC_DEG, SITE)
    found = beam.effective_beam(still, weights, where, np.zeros((1, 3)))[0]
    assert 1 - found == pytest.approx(
        0.04 * (np.cos(np.radians(33)) / np.cos(np.radians(16))) ** 2, abs=0.005
    )


def test_an_unknown_telescope_has_smearing_alone() -> None:
    data = averaged()
    elsewhere = replace(data, header=replace(data.header, telescope="VLA"))
    weights = imaging_weights(elsewhere, 0.5, FIELD)
    where = beam.pointing(elsewhere.header, elsewhere.times_s, None, SITE)
    found = beam.effective_beam(elsewhere, weights, where, np.stack([lmn(0, 0), lmn(1.5, 0)]))
    assert not where.known_beam
    assert found[0] == pytest.approx(
        1.0, abs=2e-3
    )  # the assumed spectrum, about its mean frequency
    assert found[1] < found[0]


def test_smearing_grows_with_the_square_of_the_distance() -> None:
    data = averaged(channels=128, factor=2)
    weights = imaging_weights(data, 0.5, FIELD)
    where = beam.pointing(data.header, data.times_s, DEC_DEG, SITE)
    near, far = (beam.smearing_loss(data, weights, where, np.radians(r)) for r in (0.7, 1.4))
    # The pointing wanders by 0.4 deg about the phase centre, so that the law is not exact.
    assert far / near == pytest.approx(4, rel=0.25)


def test_the_grid_refines_to_the_image() -> None:
    data = averaged(every=16)
    weights = imaging_weights(data, 0.5, FIELD)
    where = beam.pointing(data.header, data.times_s, DEC_DEG, SITE)
    size, cell = 500, FIELD / 500
    axis, directions = beam.coarse_grid(size * cell)
    plane = beam.on_image(axis, beam.effective_beam(data, weights, where, directions), size, cell)
    for column, row in ((250, 250), (400, 100), (30, 470)):
        east, north = -(column - 250) * cell, (row - 250) * cell
        exact = beam.effective_beam(
            data, weights, where, np.array([[east, north, np.sqrt(1 - east**2 - north**2) - 1]])
        )[0]
        assert plane[row, column] == pytest.approx(exact, abs=3e-4)


def test_weights_are_those_of_wsclean(tmp_path: Path) -> None:
    import casacore.tables as ct

    data = averaged(times=2, every=2, channels=16)
    size, cell_arcsec, taper = 2000, 6.0, 15.0
    width = 1.2 * size * np.radians(cell_arcsec / 3600)
    ours = imaging_weights(data, 0.5, width, np.radians(taper / 3600))
    path = write_set(tmp_path / "a.ms", data, data.sets[0])
    argv = [
        "wsclean",
        "-quiet",
        "-j",
        "1",
        "-use-wgridder",
        "-no-update-model-required",
        "-no-reorder",
        "-store-imaging-weights",
        "-make-psf-only",
        "-pol",
        "I",
        "-size",
        str(size),
        str(size),
        "-scale",
        f"{cell_arcsec}asec",
        "-padding",
        "1.2",
        "-weight",
        "briggs",
        "0.5",
        "-taper-gaussian",
        f"{taper}asec",
        "-name",
        str(tmp_path / "w"),
        str(path),
    ]
    subprocess.run(argv, check=True)
    with ct.table(str(path), ack=False) as table:
        theirs = table.getcol("IMAGING_WEIGHT_SPECTRUM")[..., 0] * data.sets[0].weight
    used = data.sets[0].weight > 0
    ratio = ours.of_set[0][used] / theirs[used]
    # Single precision on WSClean's side; a visibility on the border of two cells may fall into the other one.
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 1e-3
    assert np.mean(np.abs(ratio / np.median(ratio) - 1) > 1e-2) < 1e-3


def test_noise_of_weights_is_as_science_md_says() -> None:
    """The natural radiometer rms times sqrt(N sum w^2) / sum w, when all visibilities have one variance."""
    data = averaged()
    one = replace(data.sets[0], weight=np.ones_like(data.sets[0].weight))
    data = replace(data, sets=(one,))
    found = imaging_weights(data, 0.0, FIELD)
    w = found.of_set[0].astype(float)
    natural = np.sqrt(data.variance_jy2 / w.size)
    assert found.natural_rms_jy == pytest.approx(natural, rel=1e-6)
    assert found.thermal_rms_jy == pytest.approx(
        natural * np.sqrt(w.size * np.sum(w**2)) / np.sum(w), rel=1e-6
    )
    assert imaging_weights(data, 2.0, FIELD).thermal_rms_jy < found.thermal_rms_jy


def test_the_main_lobe_of_gaussian_coverage() -> None:
    """Coverage exp(-u^2 / 2 s^2) has a PSF of half-power width sqrt(2 ln 2) / (pi s)."""
    data = averaged(channels=4)
    rng = np.random.default_rng(3)
    count, (wide, narrow), angle = 30_000, (150.0, 300.0), np.radians(35)
    across, along = rng.normal(0, narrow, count), rng.normal(0, wide, count)
    u, v = (
        along * np.sin(angle) + across * np.cos(angle),
        along * np.cos(angle) - across * np.sin(angle),
    )
    part = data.sets[0]
    metres = SPEED_OF_LIGHT_M_S / float(part.frequencies_hz.mean())
    uvw = np.stack([u * metres, v * metres, 0 * u], axis=1)
    same = np.ones((count, 1), np.float32)
    gaussian = replace(
        part,
        uvw_m=uvw,
        weight=same,
        vis=same.astype(np.complex64),
        time_index=np.zeros(count, int),
        antenna1=np.zeros(count, int),
        antenna2=np.ones(count, int),
        interval_s=np.ones(count),
        frequencies_hz=np.array([part.frequencies_hz.mean()]),
    )
    data = replace(data, sets=(gaussian,))
    weights = replace(imaging_weights(data, 2.0, FIELD), of_set=(same,))
    major, minor, pa = half_power_beam(data, weights)
    law = np.sqrt(2 * np.log(2)) / np.pi
    # 10,000 sampled visibilities: 1 %.
    assert (major, minor) == pytest.approx((law / wide, law / narrow), rel=0.02)
    assert np.degrees(pa) == pytest.approx(35, abs=1.5)


def test_no_baselines_no_beam() -> None:
    data = averaged(channels=4)
    zero = replace(data.sets[0], uvw_m=np.zeros_like(data.sets[0].uvw_m))
    with pytest.raises(BadImageError, match="main lobe"):
        half_power_beam(replace(data, sets=(zero,)), imaging_weights(data, 0.5, FIELD))
