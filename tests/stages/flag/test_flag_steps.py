"""The flag stage's arithmetic, with answers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from contimg_flag import outliers, steps

ANTENNAS = 12
FIRST, SECOND = (index.astype(np.int32) for index in np.triu_indices(ANTENNAS, 1))


def make_noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    """Return complex noise of unit rms in each part."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def make_matrix(values: np.ndarray) -> np.ndarray:
    return outliers.sum_baselines(values, FIRST, SECOND, ANTENNAS)


def test_flag_zeros_flags_zeros_and_nonfinite_samples_only() -> None:
    data, flags = make_noise((5, 8, 2)), np.zeros((5, 8, 2), bool)
    data[1, 2, 0], data[3, 0, 1], data[4, 7, 1] = 0, complex(np.nan, 0), complex(1, np.inf)
    data[2, 5, 0] = 1j  # a real part of zero is no missing sample
    flags[0, 0, 0] = True
    steps.flag_zeros(data, flags)
    assert np.argwhere(flags).tolist() == [[0, 0, 0], [1, 2, 0], [3, 0, 1], [4, 7, 1]]


def test_mean_amplitudes_ignore_flagged_samples() -> None:
    data, flags = np.full((2, 4, 1), 3 + 4j, np.complex64), np.zeros((2, 4, 1), bool)
    data[0, 1], flags[0, 1], flags[1] = 1e6, True, True
    found = np.empty((2, 1), np.float32)
    steps.mean_amplitudes(data, flags, found)
    assert found.tolist() == [[5.0], [0.0]]


def test_count_flags_ignores_autos() -> None:
    flags = np.zeros((3, 4, 2), bool)
    flags[0], flags[1, 2, 1] = True, True
    by_row, by_channel = np.ones((3, 2), np.int64), np.ones(4, np.int64)
    steps.count_flags(flags, np.array([False, True, True]), by_row, by_channel)
    assert by_row.tolist() == [[0, 0], [0, 1], [0, 0]]
    assert by_channel.tolist() == [0, 0, 1, 0]


def test_clip_level_is_median_plus_seven_robust_sigma() -> None:
    amplitudes = np.array([30, 2, np.nan, 3.5, 1, 5], np.float32)
    # median 3.5, deviations 26.5 1.5 0 2.5 1.5, their median 1.5
    level = 3.5 + 7 * 1.482602218505602 * 1.5
    assert steps.clip_level(amplitudes, 7) == pytest.approx(level, rel=1e-6)
    assert np.isnan(amplitudes[2])
    assert amplitudes[0] == 30


def test_clip_level_takes_all_spikes_and_almost_no_noise() -> None:
    amplitudes = np.abs(make_noise((200_000,))).astype(np.float32)
    amplitudes[:50] = 7.0
    level = steps.clip_level(amplitudes, 7)
    # Rayleigh: 1.177 + 7 x 1.4826 x 0.4485; the medians are known to 0.4 %
    assert level == pytest.approx(5.83, rel=0.02)
    # Expected 0.0085 of 200 000 samples of a Rayleigh distribution; 3 would be one chance in 1e7.
    assert (amplitudes[50:] > level).sum() <= 2


@pytest.mark.parametrize("amplitudes", [np.zeros(0), np.ones(9), np.full(4, np.nan)])
def test_clip_level_is_infinite_without_scatter(amplitudes: np.ndarray) -> None:
    assert steps.clip_level(amplitudes.astype(np.float32), 7) == np.inf


def test_good_amplitudes_are_nan_where_flagged() -> None:
    data, flags = np.full((1, 2, 1), 3 - 4j, np.complex64), np.array([[[True], [False]]])
    found = np.empty((1, 2, 1), np.float32)
    steps.good_amplitudes(data, flags, found)
    assert np.isnan(found[0, 0, 0])
    assert found[0, 1, 0] == 5


def test_sum_baselines_is_symmetric_and_nan_without_rows() -> None:
    first, second = np.array([0, 0, 1], np.int32), np.array([1, 1, 2], np.int32)
    sums = outliers.sum_baselines(np.array([[1.0], [2.0], [4.0]]), first, second, 4)
    assert sums[0, 1, 0] == sums[1, 0, 0] == 3
    assert sums[2, 1, 0] == 4
    assert np.isnan(sums[0, 2, 0])
    assert np.isnan(sums[3]).all()


def test_average_baselines_singles_out_the_bad_receptor() -> None:
    fractions = np.zeros((FIRST.size, 2))
    fractions[(FIRST == 3) | (SECOND == 3), 1] = 0.96
    found = outliers.average_baselines(make_matrix(fractions).real) >= 0.95
    assert np.argwhere(found).tolist() == [[3, 1]]


def test_find_silent_finds_receptor_without_power() -> None:
    gains = np.random.default_rng(2).uniform(0.7, 1.4, ANTENNAS)
    gains[5] = 0.02
    amplitudes = np.stack([gains[FIRST] * gains[SECOND], np.ones(FIRST.size)], axis=1)
    found = outliers.find_silent(make_matrix(amplitudes).real)
    assert np.argwhere(found).tolist() == [[5, 0]]


@pytest.mark.parametrize(
    ("signal", "deaf_antenna", "found"),
    [(0.6, 4, [4]), (0.6, None, []), (0.0, None, []), (0.05, 4, [])],
    ids=["one deaf", "none deaf", "no sky", "quiet sky"],
)
def test_find_deaf_finds_receptor_without_sky_under_a_loud_sky(
    signal: float, deaf_antenna: int | None, found: list[int]
) -> None:
    data = make_noise((FIRST.size, 768, 1))
    # A delay: coherent between neighbours, not over the band.
    phase = np.exp(1j * np.linspace(0, 20, 768))[None, :, None]
    hears = (deaf_antenna != FIRST) & (deaf_antenna != SECOND)
    data += (signal * phase * hears[:, None, None]).astype(np.complex64)
    product, power = np.zeros((FIRST.size, 1), np.complex64), np.zeros((FIRST.size, 1), np.float32)
    pairs = np.zeros((FIRST.size, 1), np.int32)
    steps.neighbour_products(data, np.zeros(data.shape, bool), product, power, pairs)
    matrices = make_matrix(product), make_matrix(power).real, make_matrix(pairs).real
    assert np.flatnonzero(outliers.find_deaf(*matrices)).tolist() == found


def test_flag_dead_flags_all_baselines_of_one_polarization() -> None:
    flags, dead = np.zeros((FIRST.size, 3, 2), bool), np.zeros((ANTENNAS, 2), bool)
    dead[2, 1] = True
    outliers.flag_dead(flags, dead, FIRST, SECOND)
    assert not flags[..., 0].any()
    assert np.array_equal(flags[:, 0, 1], (FIRST == 2) | (SECOND == 2))


def make_level(times: int, channels: int) -> np.ndarray:
    """Return a smooth bandpass with the noise of a mean over 4560 baselines: 0.8 %."""
    rng = np.random.default_rng(3)
    smooth = 1 + 0.05 * np.sin(np.linspace(0, 9, channels))
    return smooth * (1 + 0.008 * rng.standard_normal((times, channels)))


@pytest.mark.parametrize(("times", "channels"), [(4, 192), (24, 768)])
def test_find_interference_finds_carriers_and_bursts(times: int, channels: int) -> None:
    level, truth = make_level(times, channels), np.zeros((times, channels), bool)
    # A carrier all the time, two channels half of it, a burst in a quarter of the band.
    truth[:, 50] = True
    truth[: times // 2, 90:92] = True
    truth[2, 100 : 100 + channels // 4] = True
    level[truth] *= 1.15
    found = outliers.find_interference(level)
    assert found[truth].mean() >= 0.99
    assert found[~truth].mean() <= 0.001


def test_find_interference_leaves_clean_data_with_a_missing_subband() -> None:
    level = make_level(24, 768)
    level[:, 96:144] = np.nan
    assert not outliers.find_interference(level).any()


def test_find_bursts_finds_bursts_but_no_setting_source() -> None:
    setting = np.linspace(1.0, 0.3, 24)  # 16 Jy going out of the beam
    assert not outliers.find_bursts(setting).any()
    assert not outliers.find_bursts(setting[::-1]).any()
    setting[[7, 23]] *= 1.6
    assert np.flatnonzero(outliers.find_bursts(setting)).tolist() == [7, 23]
    assert not outliers.find_bursts(np.ones(1)).any()
