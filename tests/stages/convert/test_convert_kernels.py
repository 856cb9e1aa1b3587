"""The compiled loops against plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg_convert import kernels

TOTAL_CHANNELS = 40


@dataclass(frozen=True)
class Case:
    """A block of a file cut into chunks, and where it goes."""

    baselines: int
    integrations: int
    first_integration: int
    channels: int
    shape: tuple[int, int, int]
    seed: int

    @property
    def rows(self) -> int:
        return self.baselines * (self.first_integration + self.integrations)

    @property
    def window(self) -> tuple[int, int]:
        return self.first_integration * self.baselines, self.rows

    @property
    def top(self) -> int:
        """Output channel of the file's first one."""
        return TOTAL_CHANNELS - 3

    def places(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        conjugate, auto = rng.integers(0, 2, (2, self.baselines))
        return np.stack([rng.permutation(self.baselines), conjugate, auto], axis=1)

    def chunks(self, values: np.ndarray) -> kernels.Chunks:
        """Cut values (rows, channels, polarizations) into whole chunks, also at the edges."""
        counts = [-(-size // part) for size, part in zip(values.shape, self.shape, strict=True)]
        padded = np.zeros(
            [count * part for count, part in zip(counts, self.shape, strict=True)], values.dtype
        )
        padded[tuple(slice(size) for size in values.shape)] = values
        origins = np.array(
            [np.multiply(index, self.shape) for index in np.ndindex(*counts)], np.int64
        )
        np.random.default_rng(self.seed).shuffle(origins)
        parts = [
            padded[tuple(slice(a, a + n) for a, n in zip(origin, self.shape, strict=True))]
            for origin in origins
        ]
        buffer = np.concatenate([part.ravel() for part in parts]).view(np.uint8)
        size = int(np.prod(self.shape)) * values.dtype.itemsize
        return buffer, np.arange(len(parts), dtype=np.int64) * size, origins, self.shape

    def order(self) -> np.ndarray:
        """Row of the output for each row of the block."""
        return (
            np.arange(self.integrations)[:, None] * self.baselines + self.places()[:, 0]
        ).ravel()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 2)))
    numbers = [
        draw(st.integers(low, high)) for low, high in ((1, 9), (1, 4), (0, 3), (1, 12), (0, 99))
    ]
    return Case(*numbers[:4], shape, numbers[4])


@given(cases())
@settings(max_examples=60, deadline=None)
def test_rotate_places_every_visibility(case: Case) -> None:
    rng = np.random.default_rng(case.seed)
    values = (
        (rng.normal(size=(case.rows, case.channels, 2, 2)) * 10)
        .astype(np.float32)
        .view(np.complex64)[..., 0]
    )
    kind = rng.random(values.shape)
    values[kind < 0.1], values[kind > 0.95] = 0, complex(np.inf, np.nan)
    phase = rng.uniform(-np.pi, np.pi, (case.integrations * case.baselines, case.channels))
    turned = np.stack([np.cos(phase), np.sin(phase)], axis=-1).astype(np.float32)
    out = np.full((len(phase), TOTAL_CHANNELS, 2), 7j, np.complex64)
    flags, tally = np.zeros(out.shape, bool), np.zeros(kernels.TALLIES, np.int64)
    where = case.channels, case.top
    kernels.rotate_visibilities(
        case.chunks(values),
        case.window,
        case.places(),
        where,
        turned,
        (out.view(np.float32), flags),
        tally,
    )

    block = values[case.window[0] :]
    with np.errstate(invalid="ignore"):
        expected = block * np.exp(1j * phase)[..., None]
    conjugate = np.tile(case.places()[:, 1], case.integrations) == 1
    expected[conjugate] = expected[conjugate].conj()
    bad = ~np.isfinite(block)
    expected[bad] = 0
    mine = slice(case.top - case.channels + 1, case.top + 1)
    np.testing.assert_allclose(out[case.order(), mine][:, ::-1], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(flags[case.order(), mine][:, ::-1], bad)
    others = np.setdiff1d(np.arange(TOTAL_CHANNELS), np.arange(TOTAL_CHANNELS)[mine])
    assert np.all(out[:, others] == 7j)
    cross = np.tile(case.places()[:, 2], case.integrations) == 0
    counted = [int((block == 0)[cross].sum()), int(bad.sum()), int(cross.sum()) * case.channels * 2]
    assert tally.tolist() == counted


def test_phasors_follow_path_of_each_baseline() -> None:
    rng = np.random.default_rng(5)
    paths, frequencies = rng.uniform(-30, 30, (2, 6)), 1.49e9 - 244140.625 * np.arange(48)
    pairs = np.array([(a, b) for a in range(6) for b in range(6)])
    turns = -2j * np.pi / SPEED_OF_LIGHT_M_S * paths
    out = np.empty((2 * len(pairs), 48, 2), np.float32)
    kernels.fill_phasors(
        np.exp(turns * frequencies[0]),
        np.exp(turns * (frequencies[1] - frequencies[0])),
        pairs,
        out,
    )
    difference = (paths[:, pairs[:, 1]] - paths[:, pairs[:, 0]]).ravel()
    expected = np.exp(-2j * np.pi / SPEED_OF_LIGHT_M_S * difference[:, None] * frequencies)
    # One rounding to float32; the recurrence over 48 channels adds 1e-14.
    np.testing.assert_allclose(out[..., 0] + 1j * out[..., 1], expected, rtol=0, atol=1e-7)
