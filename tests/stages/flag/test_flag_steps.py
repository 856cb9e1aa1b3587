"""The flag stage's arithmetic: known answers, and kernels against plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg_flag import outliers, steps

ANTENNAS = 12
FIRST, SECOND = (index.astype(np.int32) for index in np.triu_indices(ANTENNAS, 1))


def make_noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    """Return complex noise of unit rms in each part."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def make_matrix(values: np.ndarray) -> np.ndarray:
    return outliers.sum_baselines(values, FIRST, SECOND, ANTENNAS)


def test_flag_zeros_flags_only_zeros_and_nonfinite() -> None:
    data, flags = make_noise((5, 8, 2)), np.zeros((5, 8, 2), bool)
    data[1, 2, 0], data[3, 0, 1], data[4, 7, 1] = 0, complex(np.nan, 0), complex(1, np.inf)
    data[2, 5, 0] = 1j  # a real part of zero is no missing sample
    flags[0, 0, 0] = True
    steps.flag_zeros(data, flags)
    assert np.argwhere(flags).tolist() == [[0, 0, 0], [1, 2, 0], [3, 0, 1], [4, 7, 1]]


def test_clip_level_adds_robust_sigma() -> None:
    amplitudes = np.array([30, 2, np.nan, 3.5, 1, 5], np.float32)
    # median 3.5, deviations 26.5 1.5 0 2.5 1.5, their median 1.5
    level = 3.5 + 7 * 1.482602218505602 * 1.5
    assert steps.clip_level(amplitudes, 7) == pytest.approx(level, rel=1e-6)
    assert np.isnan(amplitudes[2])
    assert amplitudes[0] == 30


def test_clip_level_separates_spikes_from_noise() -> None:
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


def test_average_baselines_isolates_bad_receptor() -> None:
    fractions = np.zeros((FIRST.size, 2))
    fractions[(FIRST == 3) | (SECOND == 3), 1] = 0.96
    found = outliers.average_baselines(make_matrix(fractions).real) >= 0.95
    assert np.argwhere(found).tolist() == [[3, 1]]


def test_measure_gains_sees_through_loud_baselines() -> None:
    gains = np.random.default_rng(2).uniform(0.9, 1.1, ANTENNAS)
    gains[5], gains[7] = 0.02, 5
    amplitudes = np.stack([gains[FIRST] * gains[SECOND], np.zeros(FIRST.size)], axis=1)
    amplitudes[::9] *= 100
    found = outliers.measure_gains(make_matrix(amplitudes).real)
    assert found[:, 0] == pytest.approx(gains / np.median(gains), rel=0.1)
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize(
    ("signal", "deaf", "found"),
    [(0.6, 4, [4]), (0.6, None, []), (0.0, None, []), (0.05, 4, [])],
    ids=["one deaf", "none deaf", "no sky", "quiet sky"],
)
def test_find_deaf_needs_loud_sky(signal: float, deaf: int | None, found: list[int]) -> None:
    data = make_noise((FIRST.size, 768, 1))
    # A delay: coherent between neighbours, not over the band.
    phase = np.exp(1j * np.linspace(0, 20, 768))[None, :, None]
    hears = (deaf != FIRST) & (deaf != SECOND)
    data += (signal * phase * hears[:, None, None]).astype(np.complex64)
    sums = [np.zeros((FIRST.size, 1), kind) for kind in (np.complex64, np.float32, np.int32)]
    steps.neighbour_products(data, np.zeros(data.shape, bool), *sums)
    product, power, pairs = (make_matrix(values) for values in sums)
    lengths = np.random.default_rng(4).uniform(5, 500, product.shape[:2])
    found_now = outliers.find_deaf(product, power.real, pairs.real, lengths + lengths.T)
    assert np.flatnonzero(found_now).tolist() == found


def test_find_deaf_spares_outriggers_on_a_resolved_sky() -> None:
    """Long baselines see nothing of wide sources; a deaf antenna of the core is still found."""
    rng, count, outriggers = np.random.default_rng(5), 40, 6
    place_m = np.concatenate([rng.uniform(0, 400, count - outriggers), 2000 + rng.uniform(0, 9, 6)])
    length_m = np.abs(place_m[:, None] - place_m[None, :])
    seen = np.exp(-((length_m / 600) ** 2))
    seen[7] = seen[:, 7] = 0
    pairs = np.where(np.eye(count, dtype=bool), 0.0, 4000.0)[..., None]
    noise = rng.normal(size=(count, count)) / np.sqrt(4000)
    product = (pairs[..., 0] * (0.3 * seen + (noise + noise.T) / np.sqrt(2)))[..., None]
    power = pairs * (1 + 0.3 * seen[..., None])
    found = outliers.find_deaf(product.astype(np.complex128), power, pairs, length_m)
    assert np.flatnonzero(found).tolist() == [7]


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


def test_find_interference_accepts_missing_subband() -> None:
    level = make_level(24, 768)
    level[:, 96:144] = np.nan
    assert not outliers.find_interference(level).any()


def test_find_bursts_ignores_setting_source() -> None:
    setting = np.linspace(1.0, 0.3, 24)  # 16 Jy going out of the beam
    assert not outliers.find_bursts(setting).any()
    assert not outliers.find_bursts(setting[::-1]).any()
    setting[[7, 23]] *= 1.6
    assert np.flatnonzero(outliers.find_bursts(setting)).tolist() == [7, 23]
    assert not outliers.find_bursts(np.ones(1)).any()


kernel = settings(deadline=None, max_examples=50)  # the first call of a kernel compiles it
SEEDS = st.integers(0, 2**31)
Samples = tuple[np.ndarray, np.ndarray, np.random.Generator]


@st.composite
def samples(draw: st.DrawFn) -> Samples:
    """Return data and flags, shape (rows, channels, correlations), and a generator."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(2, 9), st.integers(1, 2)))
    rng = np.random.default_rng(draw(SEEDS))
    data = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    return data, rng.uniform(size=shape) < 0.3, rng


@kernel
@given(samples())
def test_amplitudes_equal_numpy(drawn: Samples) -> None:
    data, flags, rng = drawn
    mean, good = np.empty(data.shape[::2], np.float32), np.empty(data.shape, np.float32)
    gain = rng.uniform(0.2, 5, mean.shape).astype(np.float32)
    steps.mean_amplitudes(data, flags, mean)
    steps.good_amplitudes(data, flags, gain, good)
    count = (~flags).sum(axis=1)
    wanted = np.where(flags, 0, np.abs(data)).sum(axis=1) / np.maximum(count, 1)
    assert np.allclose(mean, wanted, rtol=1e-5)
    relative = np.abs(data) / gain[:, None]
    assert np.allclose(good, np.where(flags, np.nan, relative), rtol=1e-5, equal_nan=True)


@kernel
@given(samples())
def test_count_flags_equals_numpy(drawn: Samples) -> None:
    _, flags, rng = drawn
    shape = flags.shape
    cross = rng.uniform(size=shape[0]) < 0.6
    by_row, by_channel = np.full(shape[::2], -1, np.int64), np.full(shape[1], -1, np.int64)
    steps.count_flags(flags, cross, by_row, by_channel)
    counted = flags & cross[:, None, None]
    assert np.array_equal(by_row, counted.sum(axis=1))
    assert np.array_equal(by_channel, counted.sum(axis=(0, 2)))


@kernel
@given(samples())
def test_neighbour_products_equal_numpy(drawn: Samples) -> None:
    data, flags, _ = drawn
    kinds = (np.complex64, np.float32, np.int32)
    product, power, pairs = (np.zeros(flags.shape[::2], kind) for kind in kinds)
    steps.neighbour_products(data, flags, product, power, pairs)
    good = ~flags[:, 1:] & ~flags[:, :-1]
    left, right = data[:, :-1], data[:, 1:]
    assert np.array_equal(pairs, good.sum(axis=1))
    assert np.allclose(product, (left * right.conj() * good).sum(axis=1), atol=1e-4)
    mean = ((np.abs(left) ** 2 + np.abs(right) ** 2) * good).sum(axis=1) / 2
    assert np.allclose(power, mean, rtol=1e-4, atol=1e-5)


@kernel
@given(samples())
def test_add_rows_equals_numpy(drawn: Samples) -> None:
    data, flags, rng = drawn
    shape = flags.shape
    cross, time = rng.uniform(size=shape[0]) < 0.7, rng.integers(0, 3, shape[0])
    mean = np.empty((shape[0], shape[2]), np.float32)
    steps.mean_amplitudes(data, flags, mean)
    total, count = np.zeros((3, *shape[1:])), np.zeros((3, *shape[1:]))
    steps.add_rows(data, flags, cross, mean, time, total, count)
    for t in range(3):
        mine = (time == t) & cross
        good = ~flags[mine] & (mean[mine] > 0)[:, None]
        relative = np.abs(data[mine]) / np.where(mean[mine] > 0, mean[mine], 1)[:, None]
        assert np.array_equal(count[t], good.sum(axis=0))
        assert np.allclose(total[t], np.where(good, relative, 0).sum(axis=0), rtol=1e-5)


@kernel
@given(st.integers(2, 6), st.integers(1, 20), SEEDS)
def test_sum_baselines_ignores_antenna_order(antennas: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, antennas - 1, rows)
    second = np.array([rng.integers(one + 1, antennas) for one in first])
    values = rng.standard_normal((rows, 2))
    found = outliers.sum_baselines(values, *np.array([first, second], np.int32), antennas)
    for i, j in np.ndindex(antennas, antennas):
        mine = ((first == i) & (second == j)) | ((first == j) & (second == i))
        expected = values[mine].sum(axis=0) if mine.any() else [np.nan, np.nan]
        assert np.allclose(found[i, j], expected, equal_nan=True)


@kernel
@given(st.integers(1, 300), st.floats(0, 0.9), SEEDS)
def test_clip_level_ignores_flagged_samples(size: int, gone: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    amplitudes = rng.rayleigh(size=size).astype(np.float32)
    amplitudes[rng.uniform(size=size) < gone] = np.nan
    good = np.sort(amplitudes[~np.isnan(amplitudes)])
    level = steps.clip_level(amplitudes, 7)
    if not good.size:
        assert level == np.inf
        return
    median = good[good.size // 2]
    spread = np.sort(np.abs(good - median))[good.size // 2]
    assert level == np.inf if spread == 0 else np.isclose(level, median + 7 * 1.4826 * spread)


@kernel
@given(st.integers(1, 30), st.integers(1, 60), SEEDS)
def test_find_interference_skips_missing_samples(times: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    level = 1 + 0.01 * rng.standard_normal((times, channels))
    level[rng.uniform(size=level.shape) < 0.2] = np.nan
    found = outliers.find_interference(level)
    assert found.shape == level.shape
    assert not found[np.isnan(level)].any()
