"""Noise against autocorrelations: right for all antennas and SEFDs, and wrong where it is said."""

import re

import numpy as np
import pytest

from contimg_flag import outliers, steps

ANTENNAS, CHANNELS, TIMES, SAMPLES = 24, 96, 6, 4.0e6
FIRST, SECOND = (index.astype(np.int32) for index in np.triu_indices(ANTENNAS, 1))
NAMES, CORRELATIONS = tuple(str(k + 1) for k in range(ANTENNAS)), ("XX", "YY")


def judge(
    sefd_jy: float, seed: int = 1, scale: float = 1, loud: int | None = None, sky_jy: float = 16
) -> list[str]:
    """Return the reasons for an array with gains that differ by a factor of 3, as the bandpass."""
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.04, 0.12, (ANTENNAS, 2))
    autos = gain**2 * sefd_jy * rng.uniform(0.9, 1.1, (ANTENNAS, 1))
    power = autos.copy()
    if loud is not None:
        power[loud] *= 4  # a receptor's noise in the products, but not in its own power
    shape = (FIRST.size * TIMES, CHANNELS, 2)
    one, two = np.tile(FIRST, TIMES), np.tile(SECOND, TIMES)
    noise = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    data = noise * np.sqrt(power[one] * power[two] / SAMPLES)[:, None]
    data += sky_jy * (gain[one] * gain[two])[:, None]
    kinds = (np.complex64, np.float32, np.int32)
    sums = [np.zeros(shape[::2], kind) for kind in kinds]
    steps.neighbour_products((scale * data).astype(np.complex64), np.zeros(shape, bool), *sums)
    product, both, pairs = (outliers.sum_baselines(x, one, two, ANTENNAS) for x in sums)
    ratios = outliers.compare_radiometer(product, both.real, pairs.real, autos, SAMPLES)
    return outliers.judge_radiometer(ratios, NAMES, CORRELATIONS, 0.0)


@pytest.mark.parametrize("sefd_jy", [4000.0, 6000.0, 9000.0])
def test_good_noise_is_not_marked(sefd_jy: float) -> None:
    assert [judge(sefd_jy, seed) for seed in range(5)] == [[]] * 5


@pytest.mark.parametrize("scale", [0.5, 0.67, 1.3, 3.0])
def test_scaled_visibilities_are_named(scale: float) -> None:
    [reason] = judge(6000.0, scale=scale)
    said = re.match(r"radiometer: the noise is ([\d.]+) of what the autocorrelations", reason)
    assert said
    assert float(said[1]) == pytest.approx(scale, rel=0.02)


def test_noisy_antenna_is_named() -> None:
    [reason] = judge(6000.0, loud=7)
    assert "the noise of 8X, 8Y differs" in reason


def test_missing_autocorrelations_are_not_judged() -> None:
    unknown = np.full((ANTENNAS, 2), np.nan)
    assert outliers.judge_radiometer(unknown, NAMES, CORRELATIONS, 0.0) == []


def test_incoherent_sky_of_outrigger_is_no_noise() -> None:
    """The ratio of the worst receptor beside Taurus A, small group; as noise it would be named."""
    ratios = np.full((ANTENNAS, 2), 1.05)
    ratios[5] *= 1.6
    assert outliers.judge_radiometer(ratios, NAMES, CORRELATIONS, 3.6) == []
    assert len(outliers.judge_radiometer(ratios, NAMES, CORRELATIONS, 0.5)) == 1
