"""The compiled loops against plain numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_convert import kernels

BAND = 40
"""Channels of the output."""


def cut(values: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> kernels.Chunks:
    """Cut values (rows, channels, polarizations) into whole chunks, also at the edges."""
    counts = [-(-size // part) for size, part in zip(values.shape, shape, strict=True)]
    padded = np.zeros(np.multiply(counts, shape), values.dtype)
    padded[tuple(slice(size) for size in values.shape)] = values
    origins = np.array([np.multiply(index, shape) for index in np.ndindex(*counts)], np.int64)
    rng.shuffle(origins)
    parts = [
        padded[tuple(slice(a, a + n) for a, n in zip(origin, shape, strict=True))].ravel()
        for origin in origins
    ]
    offsets = np.arange(len(parts), dtype=np.int64) * parts[0].nbytes
    return np.concatenate(parts).view(np.uint8), offsets, origins, shape


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 2)),
    baselines=st.integers(1, 9),
    integrations=st.integers(1, 4),
    earlier=st.integers(0, 3),
    channels=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_rotate_places_every_visibility(
    shape: tuple[int, int, int],
    baselines: int,
    integrations: int,
    earlier: int,
    channels: int,
    seed: int,
) -> None:
    rng, first, top = np.random.default_rng(seed), earlier * baselines, BAND - 3
    rows = first + integrations * baselines
    numbers = rng.normal(size=(rows, channels, 2, 2)) * 10
    values = numbers.astype(np.float32).view(np.complex64)[..., 0]
    kind = rng.random(values.shape)
    values[kind < 0.1], values[kind > 0.95] = 0, complex(np.inf, np.nan)
    conjugate, auto = rng.integers(0, 2, (2, baselines))
    places = np.stack([rng.permutation(baselines), conjugate, auto], axis=1)
    phase = rng.uniform(-np.pi, np.pi, (integrations * baselines, channels))
    turned = np.stack([np.cos(phase), np.sin(phase)], axis=-1).astype(np.float32)
    out = np.full((len(phase), BAND, 2), 7j, np.complex64)
    flags, tally = np.zeros(out.shape, bool), np.zeros(kernels.TALLIES, np.int64)
    chunks, target = cut(values, shape, rng), (out.view(np.float32), flags)
    kernels.rotate_visibilities(
        chunks, (first, rows), places, (channels, top), turned, target, tally
    )

    block = values[first:]
    with np.errstate(invalid="ignore"):
        expected = block * np.exp(1j * phase)[..., None]
    conjugate, cross = (np.tile(one == 1, integrations) for one in (conjugate, 1 - auto))
    expected[conjugate] = expected[conjugate].conj()
    bad = ~np.isfinite(block)
    expected[bad] = 0
    order = (np.arange(integrations)[:, None] * baselines + places[:, 0]).ravel()
    mine = slice(top - channels + 1, top + 1)
    np.testing.assert_allclose(out[order, mine][:, ::-1], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(flags[order, mine][:, ::-1], bad)
    assert np.all(np.delete(out, mine, axis=1) == 7j)
    counted = [int((block == 0)[cross].sum()), int(bad.sum()), int(cross.sum()) * channels * 2]
    assert tally.tolist() == counted


def test_phasors_follow_path_of_each_baseline() -> None:
    rng = np.random.default_rng(5)
    paths, frequencies = rng.uniform(-30, 30, (2, 6)), 1.49e9 - 244140.625 * np.arange(48)
    pairs = np.array([(a, b) for a in range(6) for b in range(6)])
    turns = -2j * np.pi / SPEED_OF_LIGHT_M_S * paths
    out = np.empty((2 * len(pairs), 48, 2), np.float32)
    first, step = (np.exp(turns * hz) for hz in (frequencies[0], frequencies[1] - frequencies[0]))
    kernels.fill_phasors(first, step, pairs, out)
    difference = (paths[:, pairs[:, 1]] - paths[:, pairs[:, 0]]).ravel()
    expected = np.exp(-2j * np.pi / SPEED_OF_LIGHT_M_S * difference[:, None] * frequencies)
    # One rounding to float32; the recurrence over 48 channels adds 1e-14.
    np.testing.assert_allclose(out[..., 0] + 1j * out[..., 1], expected, rtol=0, atol=1e-7)
