"""Simulated visibilities and electronics: smearing, beam, noise, drifting gains, defects."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_simulate.faint import predict_faint
from contimg_simulate.instrument import Instrument, airy_power
from contimg_simulate.observe import simulate_subband
from contimg_simulate.options import SimulateOptions
from contimg_simulate.telescope import EARTH_RATE_RAD_S, dsa110, hadec, unit_vectors
from contimg_simulate.visibilities import predict
from simulated import BARE, group, off_axis

INTEGRATION_S, ARRAY = 12.884902000427246, dsa110()
FIRST, SECOND = ARRAY.pairs
CROSS = FIRST != SECOND
LENGTH_M = np.linalg.norm(ARRAY.uvw_m(np.deg2rad(33.0)), axis=1)
AUTO = int(np.flatnonzero(~CROSS)[0])
DAY = 61065.0


def make(antennas: int = 96, seed: int = 3, **options: float) -> Instrument:
    return Instrument(SimulateOptions(out="", incoming="", seed=seed, **options), antennas)


INSTRUMENT = make()


@pytest.mark.parametrize("scale", ["small", "full"])
@pytest.mark.parametrize(("east", "north"), [(0.0, 0.3), (1.0, 0.0), (-1.3, 1.5), (0.2, -2.0)])
def test_smearing_is_mean_over_sample(east: float, north: float, scale: str) -> None:
    pairs = [*np.argsort(LENGTH_M)[-20:], *range(1, FIRST.size, 400)]
    made = group([off_axis(east, north)], scale=scale, beam="uniform", **BARE)
    found = simulate_subband(made, 3)[0, pairs, :, 0]
    plan, source = made.plan, made.sources[0]
    ra, dec = np.deg2rad([[source.ra_deg], [source.dec_deg]])
    ha, dec = (angle[0] for angle in hadec(ra, dec, plan.mjd[:1]))
    baseline = ARRAY.positions_m[SECOND[pairs]] - ARRAY.positions_m[FIRST[pairs]]
    # Brute force: a Gauss-Legendre rule over one integration and each channel of subband 3, exact
    # to 1e-10 for the two turns of phase that occur here.
    rule = list(zip(*np.polynomial.legendre.leggauss(12), strict=True))
    expected = np.zeros(found.shape, complex)
    for (tick, in_time), (shift, in_band) in itertools.product(rule, repeat=2):
        turned = EARTH_RATE_RAD_S * INTEGRATION_S / 2 * tick
        offset = unit_vectors(ha + turned, dec) - unit_vectors(turned, plan.dec_rad)
        frequency = plan.scale.frequencies_hz(3) + plan.scale.width_hz / 2 * shift
        turns = frequency * (baseline @ offset[0])[:, None] / SPEED_OF_LIGHT_M_S
        expected += in_time * in_band / 4 * np.exp(2j * np.pi * turns)
    # Of 1 Jy; the second order of the phase is neglected, 2e-5 at 2 degrees on 2.6 km.
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(("north_deg", "low", "high"), [(1.0, 0.003, 0.008), (2.0, 0.013, 0.026)])
def test_smearing_loss_matches_published_values(north_deg: float, low: float, high: float) -> None:
    """At 1.0 and 2.0 deg an integration loses 0.4 and 1.8 % of the peak, N-S offsets most."""
    # To the north the rate is that of u sin(Dec), so these figures hold for the northern strips. A
    # channel adds a third of what two channels add, 0.03 and 0.17 %.
    ra, dec = group([off_axis(0.0, 0.0)], dec_deg=71.6, **BARE).plan.centre_deg
    place = {"ra_deg": ra, "dec_deg": dec + north_deg}
    source = off_axis(0.0, 0.0).model_copy(update=place)
    made = group([source], scale="full", beam="uniform", dec_deg=71.6, **BARE)
    amplitude = np.abs(simulate_subband(made, 7)[12][CROSS]).mean(axis=(1, 2))
    weight = np.linalg.norm(ARRAY.uvw_m(np.deg2rad(71.6)), axis=1)[CROSS]
    assert low < 1 - np.average(amplitude, weights=weight) < high


@pytest.mark.parametrize("scale", ["small", "full"])
@pytest.mark.parametrize("dec_deg", [33.0, 71.6])
def test_faint_sources_match_direct_sum(scale: str, dec_deg: float) -> None:
    """The mean error is below 1 % of a source inside the main lobe, and 3 % beyond it."""
    ra, dec = group([off_axis(0.0, 0.0)], dec_deg=dec_deg, **BARE).plan.centre_deg
    here = off_axis(0.0, 0.0)
    offsets = [(0.0, 0.1), (0.7, -0.6), (-1.4, 1.3), (0.1, 2.2), (2.2, 0.0), (-3.0, 3.0)]
    places = [(ra + east / np.cos(np.radians(dec)), dec + north) for east, north in offsets]
    sky = [here.model_copy(update={"ra_deg": ra, "dec_deg": dec}) for ra, dec in places]
    made = group(sky, scale=scale, beam="uniform", dec_deg=dec_deg, **BARE)
    frequency = made.plan.scale.frequencies_hz(3)
    smear, ones = (INTEGRATION_S, made.plan.scale.width_hz), np.ones((1, frequency.size), "f4")
    for k, (east, north) in enumerate(offsets):
        paths = made.paths(2, float(frequency.mean()))
        one = paths.select(np.arange(len(offsets)) == k), ones, frequency
        expected = predict(*one, ARRAY.pairs, smear)
        wrong = np.abs(predict_faint(*one, smear) - expected)
        inside = np.hypot(east, north) < 3
        assert wrong.mean() < (0.01 if inside else 0.03)
        assert wrong.max() < (0.05 if inside else 0.5)


def test_faint_sources_add_up() -> None:
    made = group([off_axis(0.3 * k - 2, 0.1 * k) for k in range(12)], beam="uniform", **BARE)
    frequency = made.plan.scale.frequencies_hz(9)
    flux = np.linspace(0.1, 2, 12 * frequency.size).reshape(12, -1).astype(np.float32)
    one = made.paths(0, float(frequency.mean())), flux, frequency
    expected = predict(*one, ARRAY.pairs, (0.0, 0.0))
    # Without smearing only the interpolation over channels is left.
    assert np.abs(predict_faint(*one, (0.0, 0.0)) - expected).max() < 1e-3 * flux.sum(axis=0).max()


def test_beam_is_airy_pattern_of_dish() -> None:
    assert airy_power(np.array(0.0), np.array(1.4e9)) == 1
    for frequency, fwhm_deg in ((1.311e9, 2.90), (1.405e9, 2.71), (1.499e9, 2.54)):
        # The widths have two decimals; the slope there is 0.5 per 1.4 deg, so 0.005 deg is 0.002.
        power = airy_power(np.deg2rad(fwhm_deg / 2), np.array(frequency))
        assert power == pytest.approx(0.5, abs=0.003)
    first_null = np.arcsin(1.2196698912665 * SPEED_OF_LIGHT_M_S / 1.4e9 / 4.65)
    assert airy_power(np.array(first_null), np.array(1.4e9)) < 1e-12


def test_source_drifts_through_beam() -> None:
    made = group([off_axis(1.2, 0.0)], scale="full", **BARE)
    power = simulate_subband(made, 8)[:, AUTO, :, 0].real
    separation = made.separation_rad[0]
    # An autocorrelation without noise is the flux through the beam, per integration and channel.
    beam = airy_power(separation[:, None], made.plan.scale.frequencies_hz(8))
    assert power == pytest.approx(beam, rel=1e-5)
    # East of the pointing at first, it comes nearer: by 15.04 arcsec a second times cos(Dec).
    moved = 23 * INTEGRATION_S * 15.041 / 3600 * np.cos(np.deg2rad(32.86))
    assert np.rad2deg(separation[0] - separation[-1]) == pytest.approx(moved, rel=0.01)


def test_noise_follows_radiometer_equation() -> None:
    made = group([off_axis(0.0, 0.0, 1e-9)], nvss=False, gains="unit", sefd_jy=6000.0)
    data = simulate_subband(made, 5)
    sefd = made.sefd_jy[FIRST] * made.sefd_jy[SECOND]
    sigma = np.sqrt(sefd[CROSS] / (2 * 976562.5 * INTEGRATION_S))[None, :, None, None]
    pulls = np.stack([data[:, CROSS].real, data[:, CROSS].imag]) / sigma
    # 0.9 million numbers: their scatter is known to 0.0008.
    assert pulls.std() == pytest.approx(1.0, abs=0.004)
    assert abs(pulls.mean()) < 0.005
    autos = data[:, ~CROSS]
    assert np.all(autos.imag == 0)
    assert autos.real.mean() == pytest.approx(made.sefd_jy.mean(), rel=1e-3)
    assert np.abs(made.sefd_jy - 6000).max() <= 350


def test_noise_is_independent() -> None:
    made = group([off_axis(0.0, 0.0, 1e-9)], nvss=False, gains="unit")
    first, second = (simulate_subband(made, index)[:, CROSS] for index in (0, 1))
    for one, other in ((first[..., 0], first[..., 1]), (first, second), (first.real, first.imag)):
        correlation = np.vdot(one, other) / np.sqrt(np.vdot(one, one) * np.vdot(other, other))
        # Half a million numbers: 0.0014.
        assert abs(correlation) < 0.008


def test_gains_and_bandpass_multiply_visibilities() -> None:
    plain = group([off_axis(0.3, 0.2, 5.0)], **BARE)
    made = group([off_axis(0.3, 0.2, 5.0)], nvss=False, sefd_jy=0.0)
    bandpass = made.bandpass[:, :, ::-1][:, :, 4 * 12 : 5 * 12]
    gain = bandpass[:, :, None] * made.gains[..., None]  # polarization, antenna, time, channel
    gain = np.moveaxis(gain[:, FIRST].conj() * gain[:, SECOND], (0, 1, 2, 3), (3, 1, 0, 2))
    expected = gain * simulate_subband(plain, 4)
    np.testing.assert_allclose(simulate_subband(made, 4), expected, rtol=1e-4, atol=1e-6)
    assert np.median(np.abs(made.bandpass)) == pytest.approx(0.07, rel=0.05)


def test_flux_scale_multiplies_target_epoch() -> None:
    made = group([off_axis(0.0, 0.0, 2.0)], **BARE)
    scaled = simulate_subband(replace(made, flux_scale=1.07), 0)[0, AUTO, 0, 0]
    assert scaled / simulate_subband(made, 0)[0, AUTO, 0, 0] == pytest.approx(1.07, rel=1e-5)


def test_dead_antennas_and_lost_packets_are_zeros() -> None:
    made = group([off_axis(0.0, 0.0)], dead_antennas="5,103", zeros=0.25, scale="full")
    data = simulate_subband(made, 2)
    dead = np.isin(ARRAY.first, [4, 102]) | np.isin(ARRAY.second, [4, 102])
    assert np.all(data[:, dead] == 0)
    # 94 antennas x 24 integrations are drawn: the fraction scatters by 0.011.
    assert np.mean(data[:, CROSS & ~dead] == 0) == pytest.approx(0.25, abs=0.035)


def test_deaf_antenna_has_noise_but_no_sky() -> None:
    made = group([off_axis(0.0, 0.0, 50.0)], deaf_antennas="7", **{**BARE, "sefd_jy": 6000.0})
    deaf = (ARRAY.first == 6) | (ARRAY.second == 6)
    with_it, without = CROSS & deaf, CROSS & ~deaf
    data = simulate_subband(made, 2)
    # 9120 numbers of sigma 1.2 Jy: their mean scatters by 0.013 Jy.
    assert abs(data[:, with_it].mean()) < 0.07
    assert data[with_it[None].repeat(4, 0)].std() > 1
    assert np.abs(data[:, without]).mean() > 40


@pytest.mark.parametrize("kind", ["narrow", "burst", "narrow,burst"])
def test_interference_agrees_with_truth(kind: str) -> None:
    near = CROSS & (np.linalg.norm(ARRAY.uvw_m(0.5), axis=1) < 60)
    made = group([off_axis(0.0, 0.0, 0.1)], rfi=kind, **BARE)
    on = np.any([emitter.on for emitter in made.emitters], axis=0)
    assert 0 < on.mean() < 0.1
    parts = [np.abs(simulate_subband(made, k)[..., 0][:, near]).mean(axis=1) for k in range(16)]
    power = np.concatenate(parts, axis=1)[:, ::-1]
    # The sky alone is 0.1 Jy; emitters have at least 30 Jy, and short baselines keep most of it.
    assert np.all(power[~on] < 0.2)
    assert np.all(power[on] > 3)
    narrow = [emitter.on.any(axis=0).sum() for emitter in made.emitters]
    assert max(narrow) == (48 if kind != "narrow" else max(narrow))
    assert min(narrow) <= (2 if kind != "burst" else 48)


@pytest.mark.parametrize("minutes", [5.15, 20.0, 60.0])
def test_gains_drift_as_random_walk(minutes: float) -> None:
    starts = DAY + np.arange(20) * 0.37
    gains = INSTRUMENT.gains(np.concatenate([starts, starts + minutes / 1440]))
    change = gains[..., 20:] / gains[..., :20]
    hours = minutes / 60
    # An Ornstein-Uhlenbeck process: 1 % of an hour's variance less than a walk's. 3840 numbers give
    # the scatter to 1.2 %.
    walk = np.sqrt(48 * (1 - np.exp(-hours / 48)))
    assert np.log(np.abs(change)).std() == pytest.approx(0.01 * walk, rel=0.05)
    assert np.rad2deg(np.angle(change)).std() == pytest.approx(5.0 * walk, rel=0.05)
    assert walk == pytest.approx(np.sqrt(hours), rel=0.02)


def test_gains_stay_near_one_over_months() -> None:
    gains = INSTRUMENT.gains(DAY + np.arange(0, 150, 10.0))
    # drift x sqrt(memory / 2); 2880 numbers, few of which are correlated.
    assert np.log(np.abs(gains)).std() == pytest.approx(0.01 * np.sqrt(24), rel=0.06)
    assert np.rad2deg(np.angle(gains)).std() == pytest.approx(5.0 * np.sqrt(24), rel=0.06)


def test_antennas_and_polarizations_drift_apart() -> None:
    gains = np.log(np.abs(INSTRUMENT.gains(DAY + np.arange(0, 150, 5.0)))).reshape(192, -1)
    correlation = np.corrcoef(gains) - np.eye(192)
    # 30 times: each correlation scatters by 0.18, their mean square is 1/29.
    assert np.mean(correlation**2) == pytest.approx(1 / 29, rel=0.15)


def test_gains_do_not_depend_on_other_times() -> None:
    many = INSTRUMENT.gains(DAY + np.arange(12) * 0.0417)
    alone = INSTRUMENT.gains(np.array([DAY + 7 * 0.0417]))
    assert np.array_equal(many[..., 7:8], alone)


def test_gains_are_continuous_across_hours() -> None:
    hour, step = DAY + 5 / 24, 1e-9
    before, after = np.moveaxis(INSTRUMENT.gains(np.array([hour - step, hour + step])), -1, 0)
    # 0.2 ms: a random walk moves 0.002 % in amplitude, and the grid is 7 s.
    assert np.abs(before - after).max() < 1e-4


def test_seed_determines_instrument() -> None:
    band_hz, day = np.linspace(1.31e9, 1.5e9, 8), np.array([DAY])
    for method, where in ((Instrument.bandpass, band_hz), (Instrument.gains, day)):
        values = method(INSTRUMENT, where)
        assert np.array_equal(values, method(make(), where))
        assert np.abs(values - method(make(seed=4), where)).min() > 0


def test_bandpass_does_not_depend_on_channel_grid() -> None:
    fine = np.linspace(1.32e9, 1.49e9, 9)
    coarse = INSTRUMENT.bandpass(fine[::2])
    assert INSTRUMENT.bandpass(fine)[..., ::2] == pytest.approx(coarse, rel=1e-12)


def test_delays_are_small() -> None:
    # calibrate solves for no delays by default: the slope is below 3 degrees over the band.
    edges = make(antennas=2000).bandpass(np.array([1.31126e9, 1.49876e9]))
    slope = np.rad2deg(np.angle(edges[..., 1] / edges[..., 0]))
    # 360 x 187.5 MHz x 0.02 ns = 1.35 degrees rms, and the ripple is whole waves.
    assert slope.std() == pytest.approx(1.35, rel=0.06)


def test_epoch_has_one_flux_scale() -> None:
    scales = np.array([INSTRUMENT.flux_scale(epoch) for epoch in range(400)])
    # 400 numbers: their scatter is known to 3.5 %.
    assert np.log(scales).std() == pytest.approx(0.05, rel=0.12)
    assert INSTRUMENT.flux_scale(7) == scales[7]
    assert make(flux_scale_error=0.0).flux_scale(7) == 1
