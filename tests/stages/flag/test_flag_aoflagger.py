"""Our AOFlagger strategy by itself: interference that only a few baselines see.

Its amplitudes are several times the noise of one visibility.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from chain import ENVIRONMENT
from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.records.ms import Antennas, MSHeader, Rows, create
from contimg.runtime.context import Context
from contimg_flag import rfi
from contimg_flag.visibilities import Visibilities

ANTENNAS = 14
FIRST, SECOND = (index.astype(np.int32) for index in np.triu_indices(ANTENNAS))
SEFD_JY, SPAN_S, BAND_HZ, LOWEST_HZ = 6000.0, 309.24, 187.5e6, 1311.265e6
EARTH_RAD_S = 7.292e-5


@dataclass(frozen=True)
class Size:
    """Integrations and channels of a group."""

    times: int
    channels: int
    integration_s: float = 12.884902

    @property
    def sigma_jy(self) -> float:
        """Noise of a real part: the radiometer equation."""
        return float(SEFD_JY / np.sqrt(2 * BAND_HZ / self.channels * self.integration_s))

    @property
    def frequency_hz(self) -> np.ndarray:
        """Channel centres."""
        return LOWEST_HZ + BAND_HZ * (np.arange(self.channels) + 0.5) / self.channels


FULL, SMALL = Size(24, 768), Size(4, 192)


@cache
def simulate_sky(size: Size, calibrator_jy: float) -> np.ndarray:
    """Return visibilities in Jy, shape (times, baselines, channels).

    The sky has a calibrator, and sources of 2.3 to 0.3 Jy up to 1.4 degrees away.
    """
    rng = np.random.default_rng(4)
    # A core and outriggers as far apart as ours.
    core, outriggers = rng.normal(0, 120, (ANTENNAS - 5, 2)), rng.uniform(-1200, 1200, (5, 2))
    place = np.concatenate([core, outriggers])
    baseline = place[SECOND] - place[FIRST]
    hour_angle = EARTH_RAD_S * size.integration_s * (np.arange(size.times) - size.times / 2)
    flux = [calibrator_jy, 2.3, 1.1, 0.8, 0.5, 0.3]
    offset = np.radians(np.concatenate([[[0.1, 0.05]], rng.uniform(-1, 1, (5, 2))]))
    total = np.zeros((size.times, FIRST.size, size.channels), complex)
    for t, turn in enumerate(hour_angle):
        u, v = baseline[:, 0] - turn * baseline[:, 1], baseline[:, 1] + turn * baseline[:, 0]
        for jy, (east, north) in zip(flux, offset, strict=True):
            delay_s = (u * east + v * north) / SPEED_OF_LIGHT_M_S
            total[t] += jy * np.exp(2j * np.pi * np.outer(delay_s, size.frequency_hz))
    return total


def place_interference(size: Size) -> np.ndarray:
    """Return where interference is, shape (times, baselines, channels).

    One baseline in ten has carriers and bursts of one integration.
    """
    rng = np.random.default_rng(6)
    found = np.zeros((size.times, FIRST.size, size.channels), bool)
    for baseline in np.flatnonzero(FIRST != SECOND)[::10]:
        found[:, baseline, rng.integers(size.channels, size=3)] = True
        subband = rng.integers(16)
        width = size.channels // 16
        found[rng.integers(size.times), baseline, subband * width : (subband + 1) * width] = True
    return found


def write_ms(path: Path, size: Size, data: np.ndarray) -> Visibilities:
    """Write an MS of data in Jy, shape (times, baselines, channels), with unequal gains.

    X and Y have their own noise.
    """
    rng = np.random.default_rng(9)
    count, shape = size.times * FIRST.size, (ANTENNAS, 1, 2)
    gains = 0.07 * rng.uniform(0.8, 1.2, shape) * np.exp(2j * np.pi * rng.uniform(size=shape))
    ripple = 1 + 0.1 * np.sin(np.linspace(0, 9, size.channels) + rng.uniform(0, 6, (ANTENNAS, 1)))
    gains = gains * ripple[..., None]
    noise = rng.standard_normal((*data.shape, 2)) + 1j * rng.standard_normal((*data.shape, 2))
    seen = (data[..., None] + size.sigma_jy * noise) * gains[FIRST] * np.conj(gains[SECOND])
    names = tuple(str(number) for number in range(ANTENNAS))
    header = MSHeader(
        telescope="DSA_110",
        field="field",
        ra_rad=0.4,
        dec_rad=0.6,
        frequencies_hz=size.frequency_hz,
        channel_width_hz=BAND_HZ / size.channels,
        antennas=Antennas(names, np.ones((ANTENNAS, 3)), np.full(ANTENNAS, 4.65)),
    )
    rows = Rows(
        time_s=5.27e9 + size.integration_s * np.repeat(np.arange(size.times), FIRST.size),
        interval_s=np.full(count, size.integration_s),
        antenna1=np.tile(FIRST, size.times),
        antenna2=np.tile(SECOND, size.times),
        uvw_m=np.zeros((count, 3)),
        weight=np.ones((count, 2), np.float32),
    )
    with create(path, header, rows) as writer:
        flat = seen.reshape(count, size.channels, 2)
        writer.put(0, {"DATA": flat.astype(np.complex64), "FLAG": np.zeros(flat.shape, bool)})
    return Visibilities(path, "ms")


def run_aoflagger(
    folder: Path, size: Size, data: np.ndarray, flags: np.ndarray | None = None
) -> np.ndarray:
    """Run AOFlagger on data in Jy.

    Return the flags of cross-correlations, shape (times, baselines, channels, 2).
    """
    visibilities = write_ms(folder / "trial.ms", size, data)
    if flags is not None:
        visibilities.flags |= np.repeat(flags.reshape(-1, size.channels)[..., None], 2, axis=-1)
    rfi.run_aoflagger(visibilities, Context(str(folder / "artifact"), folder, (), ENVIRONMENT))
    return visibilities.flags.reshape(size.times, FIRST.size, size.channels, 2)[:, FIRST != SECOND]


@pytest.mark.parametrize("calibrator_jy", [0.0, 16.0])
@pytest.mark.parametrize("size", [FULL, SMALL], ids=["full", "small"])
def test_clean_data_with_bright_fringes_stay(
    tmp_path: Path, size: Size, calibrator_jy: float
) -> None:
    """At most 1.5 % of clean data are flagged; AOFlagger's SumThreshold takes 0.3 % of noise."""
    found = run_aoflagger(tmp_path, size, simulate_sky(size, calibrator_jy))
    assert found.mean() <= 0.015
    assert found.mean(axis=(0, 2, 3)).max() <= 0.05


def test_interference_on_few_baselines_is_found(tmp_path: Path) -> None:
    where = place_interference(FULL)
    phase = np.exp(0.3j * np.arange(FULL.times))[:, None, None]
    data = simulate_sky(FULL, 0.0) + 5 * FULL.sigma_jy * where * phase
    found, wanted = run_aoflagger(tmp_path, FULL, data), where[:, FIRST != SECOND]
    carrier = wanted.all(axis=0)[None] & wanted
    assert found[carrier].mean() >= 0.98
    assert found[wanted & ~carrier].mean() >= 0.98
    assert found[~wanted].mean() <= 0.015


def test_good_samples_beside_flagged_ones_stay(tmp_path: Path) -> None:
    """AOFlagger 3.1's sumthreshold_masked takes an eighth of them."""
    burst = np.zeros((SMALL.times, FIRST.size, SMALL.channels), bool)
    burst[1, :, 48:96] = True
    data = simulate_sky(SMALL, 0.0) + 40.0 * burst
    found = run_aoflagger(tmp_path, SMALL, data, burst)
    assert found[burst[:, FIRST != SECOND]].all()
    assert found[~burst[:, FIRST != SECOND]].mean() <= 0.002


def test_same_data_give_same_flags(tmp_path: Path) -> None:
    data = simulate_sky(SMALL, 16.0) + 5 * SMALL.sigma_jy * place_interference(SMALL)
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    assert np.array_equal(run_aoflagger(first, SMALL, data), run_aoflagger(second, SMALL, data))
