"""The simulated electronics: gains drift, and one seed is one instrument."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contimg_simulate.instrument import Instrument
from contimg_simulate.options import SimulateOptions

DAY = 61065.0


def make(antennas: int = 96, seed: int = 3, **options: Any) -> Instrument:
    return Instrument(SimulateOptions(out="", incoming="", seed=seed, **options), antennas)


INSTRUMENT = make()


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
    for method, where in (
        (Instrument.bandpass, np.linspace(1.31e9, 1.5e9, 8)),
        (Instrument.gains, np.array([DAY])),
    ):
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
