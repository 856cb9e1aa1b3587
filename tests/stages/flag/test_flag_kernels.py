"""The kernels against plain numpy, on data that hypothesis draws."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg_flag import outliers, steps

kernel = settings(deadline=None, max_examples=50)  # the first call of a kernel compiles it
SHAPES = st.tuples(st.integers(1, 12), st.integers(2, 9), st.integers(1, 2))
SEEDS = st.integers(0, 2**31)


def draw(
    shape: tuple[int, int, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    data = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    return data, rng.uniform(size=shape) < 0.3, rng


@kernel
@given(SHAPES, SEEDS)
def test_mean_amplitudes_equal_numpy(shape: tuple[int, int, int], seed: int) -> None:
    data, flags, _ = draw(shape, seed)
    found = np.empty((shape[0], shape[2]), np.float32)
    steps.mean_amplitudes(data, flags, found)
    count = (~flags).sum(axis=1)
    wanted = np.where(flags, 0, np.abs(data)).sum(axis=1) / np.maximum(count, 1)
    assert np.allclose(found, wanted, rtol=1e-5)


@kernel
@given(SHAPES, SEEDS)
def test_good_amplitudes_equal_numpy(shape: tuple[int, int, int], seed: int) -> None:
    data, flags, _ = draw(shape, seed)
    found = np.empty(shape, np.float32)
    steps.good_amplitudes(data, flags, found)
    assert np.allclose(found, np.where(flags, np.nan, np.abs(data)), rtol=1e-5, equal_nan=True)


@kernel
@given(SHAPES, SEEDS)
def test_count_flags_equals_numpy(shape: tuple[int, int, int], seed: int) -> None:
    _, flags, rng = draw(shape, seed)
    cross = rng.uniform(size=shape[0]) < 0.6
    by_row, by_channel = np.full(shape[::2], -1, np.int64), np.full(shape[1], -1, np.int64)
    steps.count_flags(flags, cross, by_row, by_channel)
    counted = flags & cross[:, None, None]
    assert np.array_equal(by_row, counted.sum(axis=1))
    assert np.array_equal(by_channel, counted.sum(axis=(0, 2)))


@kernel
@given(SHAPES, SEEDS)
def test_neighbour_products_equal_numpy(shape: tuple[int, int, int], seed: int) -> None:
    data, flags, _ = draw(shape, seed)
    product, power = np.zeros(shape[::2], np.complex64), np.zeros(shape[::2], np.float32)
    pairs = np.zeros(shape[::2], np.int32)
    steps.neighbour_products(data, flags, product, power, pairs)
    good = ~flags[:, 1:] & ~flags[:, :-1]
    left, right = data[:, :-1], data[:, 1:]
    assert np.array_equal(pairs, good.sum(axis=1))
    assert np.allclose(product, (left * right.conj() * good).sum(axis=1), atol=1e-4)
    mean = ((np.abs(left) ** 2 + np.abs(right) ** 2) * good).sum(axis=1) / 2
    assert np.allclose(power, mean, rtol=1e-4, atol=1e-5)


@kernel
@given(SHAPES, SEEDS)
def test_add_rows_equals_numpy(shape: tuple[int, int, int], seed: int) -> None:
    data, flags, rng = draw(shape, seed)
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
def test_sum_baselines_ignores_the_order_of_antennas(antennas: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, antennas - 1, rows)
    second = np.array([rng.integers(one + 1, antennas) for one in first])
    values = rng.standard_normal((rows, 2))
    found = outliers.sum_baselines(
        values, first.astype(np.int32), second.astype(np.int32), antennas
    )
    for i in range(antennas):
        for j in range(antennas):
            mine = ((first == i) & (second == j)) | ((first == j) & (second == i))
            if mine.any():
                assert np.allclose(found[i, j], values[mine].sum(axis=0))
            else:
                assert np.isnan(found[i, j]).all()


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
def test_find_interference_never_flags_missing_samples(
    times: int, channels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    level = 1 + 0.01 * rng.standard_normal((times, channels))
    level[rng.uniform(size=level.shape) < 0.2] = np.nan
    found = outliers.find_interference(level)
    assert found.shape == level.shape
    assert not found[np.isnan(level)].any()
