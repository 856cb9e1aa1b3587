"""The simulated visibilities: smearing, beam, noise, gains, and defects."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_simulate.instrument import airy_power
from contimg_simulate.observe import simulate_subband
from contimg_simulate.telescope import (
    EARTH_RATE_RAD_S,
    INTEGRATION_S,
    SCALES,
    dsa110,
    hadec,
    unit_vectors,
)
from simulated import BARE, group, off_axis

NODES = 12
"""Of a Gauss-Legendre rule: exact to 1e-10 for the two turns of phase that occur here."""


def average_by_brute_force(
    east_deg: float, north_deg: float, scale: str, pairs: list[int]
) -> np.ndarray[Any, Any]:
    """Average a source of 1 Jy over one integration and each channel of subband 3."""
    made = group([off_axis(east_deg, north_deg)], scale=scale, **BARE)
    source = made.sources[0]
    ha, dec = hadec(np.deg2rad([source.ra_deg]), np.deg2rad([source.dec_deg]), made.plan.mjd[:1])
    array, size = dsa110(), SCALES[scale]
    places = array.positions_m
    baseline = places[array.pairs[1][pairs]] - places[array.pairs[0][pairs]]
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = np.zeros((len(pairs), size.channels), complex)
    for (tick, in_time), (shift, in_band) in itertools.product(
        zip(nodes, weights, strict=True), repeat=2
    ):
        turned = EARTH_RATE_RAD_S * INTEGRATION_S / 2 * tick
        offset = unit_vectors(ha[0] + turned, dec[0]) - unit_vectors(turned, made.plan.dec_rad)
        frequency = size.frequencies_hz(3) + size.width_hz / 2 * shift
        total += (
            in_time
            * in_band
            / 4
            * np.exp(2j * np.pi * frequency * (baseline @ offset[0])[:, None] / SPEED_OF_LIGHT_M_S)
        )
    return total


@pytest.mark.parametrize("scale", ["small", "full"])
@pytest.mark.parametrize(("east", "north"), [(0.0, 0.3), (1.0, 0.0), (-1.3, 1.5), (0.2, -2.0)])
def test_smearing_is_mean_over_each_sample(east: float, north: float, scale: str) -> None:
    array = dsa110()
    lengths = np.linalg.norm(array.uvw_m(np.deg2rad(33.0)), axis=1)
    pairs = [int(b) for b in [*np.argsort(lengths)[-20:], *range(1, len(array.first), 400)]]
    made = group([off_axis(east, north)], scale=scale, beam="uniform", **BARE)
    found = simulate_subband(made, 3)[0, pairs, :, 0]
    expected = average_by_brute_force(east, north, scale, pairs)
    # Of 1 Jy; the second order of the phase is neglected, 2e-5 at 2 degrees on 2.6 km.
    assert np.abs(found - expected).max() < 1e-4


def smearing_loss(dec_deg: float, north_deg: float) -> float:
    """Return the smearing loss of a source north of the pointing, weighted by baseline length."""
    array = dsa110()
    cross = array.first != array.second
    weight = np.linalg.norm(array.uvw_m(np.deg2rad(dec_deg)), axis=1)[cross]
    centre = group([off_axis(0.0, 0.0)], dec_deg=dec_deg, **BARE).plan.centre_deg()
    place = {"ra_deg": centre[0], "dec_deg": centre[1] + north_deg}
    source = off_axis(0.0, 0.0).model_copy(update=place)
    made = group([source], scale="full", beam="uniform", dec_deg=dec_deg, **BARE)
    amplitude = np.abs(simulate_subband(made, 7)[12][cross]).mean(axis=(1, 2))
    return float(1 - np.average(amplitude, weights=weight))


def test_smearing_loss_matches_published_values() -> None:
    """At 1.0 and 2.0 deg an integration loses 0.4 and 1.8 % of the peak, N-S offsets most."""
    # To the north the rate is that of u sin(Dec), so these figures hold for the northern strips. A
    # channel adds a third of what two channels add, 0.03 and 0.17 %.
    assert 0.003 < smearing_loss(71.6, 1.0) < 0.008
    assert 0.013 < smearing_loss(71.6, 2.0) < 0.026


def test_beam_is_airy_pattern_of_dish() -> None:
    assert airy_power(np.array(0.0), np.array(1.4e9)) == 1
    for frequency, fwhm_deg in ((1.311e9, 2.90), (1.405e9, 2.71), (1.499e9, 2.54)):
        # The widths have two decimals; the slope there is 0.5 per 1.4 deg, so 0.005 deg is 0.002.
        assert airy_power(np.deg2rad(fwhm_deg / 2), np.array(frequency)) == pytest.approx(
            0.5, abs=0.003
        )
    first_null = np.arcsin(1.2196698912665 * SPEED_OF_LIGHT_M_S / 1.4e9 / 4.65)
    assert airy_power(np.array(first_null), np.array(1.4e9)) < 1e-12


def test_source_drifts_through_beam() -> None:
    made = group([off_axis(1.2, 0.0)], scale="full", **BARE)
    auto = int(np.flatnonzero(dsa110().first == dsa110().second)[0])
    power = simulate_subband(made, 8)[:, auto, :, 0].real
    separation = made.separation_rad[0]
    # An autocorrelation without noise is the flux through the beam, per integration and channel.
    assert power == pytest.approx(
        airy_power(separation[:, None], made.scale.frequencies_hz(8)), rel=1e-5
    )
    # East of the pointing at first, it comes nearer: by 15.04 arcsec a second times cos(Dec).
    moved = np.rad2deg(separation[0] - separation[-1])
    assert moved == pytest.approx(
        23 * INTEGRATION_S * 15.041 / 3600 * np.cos(np.deg2rad(32.86)), rel=0.01
    )


def test_noise_follows_radiometer_equation() -> None:
    made = group([off_axis(0.0, 0.0, 1e-9)], nvss=False, gains="unit", sefd_jy=6000.0)
    array = dsa110()
    cross = array.first != array.second
    data = simulate_subband(made, 5)
    sefd = made.sefd_jy[array.pairs[0]] * made.sefd_jy[array.pairs[1]]
    sigma = np.sqrt(sefd[cross] / (2 * 976562.5 * INTEGRATION_S))[None, :, None, None]
    pulls = np.stack([data[:, cross].real, data[:, cross].imag]) / sigma
    # 0.9 million numbers: their scatter is known to 0.0008.
    assert pulls.std() == pytest.approx(1.0, abs=0.004)
    assert abs(pulls.mean()) < 0.005
    autos = data[:, ~cross]
    assert np.all(autos.imag == 0)
    assert autos.real.mean() == pytest.approx(made.sefd_jy.mean(), rel=1e-3)
    assert np.abs(made.sefd_jy - 6000).max() <= 350


def test_noise_of_polarizations_and_subbands_is_independent() -> None:
    made = group([off_axis(0.0, 0.0, 1e-9)], nvss=False, gains="unit")
    array = dsa110()
    cross = array.first != array.second
    first, second = (simulate_subband(made, index)[:, cross] for index in (0, 1))
    for one, other in ((first[..., 0], first[..., 1]), (first, second), (first.real, first.imag)):
        correlation = np.vdot(one, other) / np.sqrt(np.vdot(one, one) * np.vdot(other, other))
        # Half a million numbers: 0.0014.
        assert abs(correlation) < 0.008


def test_gains_and_bandpass_multiply_visibilities() -> None:
    plain = group([off_axis(0.3, 0.2, 5.0)], **BARE)
    made = group([off_axis(0.3, 0.2, 5.0)], nvss=False, sefd_jy=0.0)
    array = dsa110()
    i, j = array.pairs
    descending = np.s_[::-1]
    bandpass = made.bandpass[:, :, descending][:, :, 4 * 12 : 5 * 12]
    gain = bandpass[:, :, None] * made.gains[..., None]  # polarization, antenna, time, channel
    gain = np.moveaxis(gain[:, i].conj() * gain[:, j], (0, 1, 2, 3), (3, 1, 0, 2))
    expected = gain * simulate_subband(plain, 4)
    np.testing.assert_allclose(simulate_subband(made, 4), expected, rtol=1e-4, atol=1e-6)
    assert np.median(np.abs(made.bandpass)) == pytest.approx(0.07, rel=0.05)


def test_flux_scale_multiplies_target_epoch() -> None:
    auto = int(np.flatnonzero(dsa110().first == dsa110().second)[0])
    made = group([off_axis(0.0, 0.0, 2.0)], **BARE)
    scaled = simulate_subband(replace(made, flux_scale=1.07), 0)[0, auto, 0, 0]
    assert scaled / simulate_subband(made, 0)[0, auto, 0, 0] == pytest.approx(1.07, rel=1e-5)


def test_dead_antennas_and_lost_packets_are_exact_zeros() -> None:
    array = dsa110()
    made = group([off_axis(0.0, 0.0)], dead_antennas="5,103", zeros=0.25, scale="full")
    data = simulate_subband(made, 2)
    dead = np.isin(array.first, [4, 102]) | np.isin(array.second, [4, 102])
    assert np.all(data[:, dead] == 0)
    cross = (array.first != array.second) & ~dead
    # 94 antennas x 24 integrations are drawn: the fraction scatters by 0.011.
    assert np.mean(data[:, cross] == 0) == pytest.approx(0.25, abs=0.035)


def test_deaf_antenna_has_noise_but_no_sky() -> None:
    array = dsa110()
    made = group([off_axis(0.0, 0.0, 50.0)], deaf_antennas="7", **{**BARE, "sefd_jy": 6000.0})
    with_it = (array.first == 6) != (array.second == 6)
    without = (array.first != 6) & (array.second != 6) & (array.first != array.second)
    data = simulate_subband(made, 2)
    # 9120 numbers of sigma 1.2 Jy: their mean scatters by 0.013 Jy.
    assert abs(data[:, with_it].mean()) < 0.07
    assert data[with_it[None].repeat(4, 0)].std() > 1
    assert np.abs(data[:, without]).mean() > 40


@pytest.mark.parametrize("kind", ["narrow", "burst", "both"])
def test_interference_agrees_with_truth(kind: str) -> None:
    array = dsa110()
    near = (array.first != array.second) & (np.linalg.norm(array.uvw_m(0.5), axis=1) < 60)
    made = group([off_axis(0.0, 0.0, 0.1)], rfi=kind, **BARE)
    on = np.any([emitter.on for emitter in made.emitters], axis=0)
    assert 0 < on.mean() < 0.1
    power = np.concatenate(
        [np.abs(simulate_subband(made, k)[..., 0][:, near]).mean(axis=1) for k in range(16)], axis=1
    )[:, ::-1]
    # The sky alone is 0.1 Jy; emitters have at least 30 Jy, and short baselines keep most of it.
    assert np.all(power[~on] < 0.2)
    assert np.all(power[on] > 3)
    narrow = [emitter.on.any(axis=0).sum() for emitter in made.emitters]
    assert max(narrow) == (48 if kind != "narrow" else max(narrow))
    assert min(narrow) <= (2 if kind != "burst" else 48)
