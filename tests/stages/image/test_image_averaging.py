"""One pass calibrates, averages channels and the parallel hands, and measures the noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contimg.astro.gains import CalTable, Gains
from contimg.astro.telescope import CHANNEL_WIDTH_HZ, stations
from contimg.records.ms import MeasurementSet, Rows, create
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg_image.averaging import (
    AveragedVisibilities,
    average,
    channels_to_average,
    find_parallel_hands,
)
from image_arrays import MJD, header, rotate_stations

Array = np.ndarray[Any, Any]
CHANNELS = 16
EDGE = np.radians(1.98)
RNG = np.random.default_rng(5)


class NoiseSet:
    """A Measurement Set of 11 antennas and 3 integrations with noise alone, its gains and flags."""

    def __init__(self, path: Path, *, spectral: bool = False, sigma: float = 3.0) -> None:
        self.path = path
        self.freq = 1.4e9 + CHANNEL_WIDTH_HZ * np.arange(CHANNELS)
        head = header(self.freq, CHANNEL_WIDTH_HZ)
        index = np.array([0, 4, 11, 30, 45, 67, 80, 95, 102, 108, 114])
        first, second = np.triu_indices(index.size)
        self.ant1, self.ant2 = np.tile(index[first], 3), np.tile(index[second], 3)
        self.time = np.repeat(MJD * 86400 + np.arange(3) * 12.9, first.size)
        place = rotate_stations(0.0, head)
        uvw = place[self.ant2] - place[self.ant1]
        shape = (len(uvw), CHANNELS, 2)
        phase = np.exp(1j * RNG.uniform(-3, 3, (117, CHANNELS, 2)))
        self.band = 0.07 * phase * RNG.uniform(0.8, 1.2, phase.shape)
        self.gain = np.exp(1j * RNG.uniform(-0.3, 0.3, (3, 117, 2)))
        weights = RNG.uniform(0.5, 2.0, shape if spectral else (len(uvw), 1, 2))
        self.weight = weights.astype(np.float32)
        real, imaginary = RNG.normal(0, sigma, (2, *shape))
        self.sky = (real + 1j * imaginary) / np.sqrt(self.weight) + 1.0
        when = np.repeat(np.arange(3), first.size)
        whole = self.band[None] * self.gain[:, :, None]
        data = self.sky * whole[when, self.ant1] * whole[when, self.ant2].conj()
        self.flag, self.more = RNG.random(shape) < 0.2, RNG.random(shape) < 0.1
        rows = Rows(
            time_s=self.time,
            interval_s=np.full(len(uvw), 12.9),
            antenna1=self.ant1.astype(np.int32),
            antenna2=self.ant2.astype(np.int32),
            uvw_m=uvw,
            weight=self.weight[:, 0],
        )
        columns: dict[str, Any] = {"DATA": data.astype(np.complex64), "FLAG": self.flag}
        if spectral:
            columns["WEIGHT_SPECTRUM"] = self.weight
        with create(path, head, rows, [name for name in columns if name != "FLAG"]) as writer:
            writer.put(0, columns)

    def gains(self, lost: int | None = None) -> Gains:
        """Return the true gains, without solutions for antenna `lost`."""
        flag = np.zeros((1, 117, CHANNELS, 2), bool)
        if lost is not None:
            flag[:, lost] = True
        band = CalTable("band", "B", self.time[:1], self.freq, self.band[None], flag)
        gain, known = self.gain[:, :, None], np.zeros((3, 117, 1, 2), bool)
        return Gains((band, CalTable("g", "G", np.unique(self.time), self.freq[:1], gain, known)))

    def average(
        self, flags: Array | None = None, lost: int | None = None, longest_m: float = 1e9
    ) -> AveragedVisibilities:
        flags = self.more if flags is None else flags
        with MeasurementSet(self.path) as ms:
            return average("a.ms", ms, flags, self.gains(lost), EDGE, longest_m)

    def expected(self, which: Array, factor: int) -> tuple[Array, Array]:
        weight = np.where(self.flag | self.more, 0.0, self.weight)[which]
        shape = (len(weight), CHANNELS // factor, factor * 2)
        total = weight.reshape(shape).sum(axis=-1)
        parts = (self.sky[which] * weight).reshape(shape).sum(axis=-1)
        return np.divide(parts, total, out=np.zeros_like(parts), where=total > 0), total


@pytest.mark.parametrize("spectral", [False, True], ids=["WEIGHT", "WEIGHT_SPECTRUM"])
def test_average_returns_means_of_corrected_data(tmp_path: Path, *, spectral: bool) -> None:
    small = NoiseSet(tmp_path / "a.ms", spectral=spectral)
    found = small.average()
    length = np.linalg.norm(stations().itrf_m[small.ant2] - stations().itrf_m[small.ant1], axis=1)
    assert [part.factor for part in found.sets] == [8, 2]
    for part, which in zip(found.sets, ((length > 0) & (length < 500), length >= 500), strict=True):
        vis, weight = small.expected(which, part.factor)
        assert part.vis == pytest.approx(vis, rel=1e-5, abs=1e-5)  # single precision
        assert part.weight == pytest.approx(weight, rel=1e-6)
        assert np.array_equal(part.antenna1, small.ant1[which])
        freq = small.freq.reshape(-1, part.factor).mean(axis=1)
        assert part.frequencies_hz == pytest.approx(freq)
    assert found.antennas == 11
    used = sum(np.count_nonzero(part.weight) * part.factor for part in found.sets)
    assert found.used == pytest.approx(used / (np.count_nonzero(length) * CHANNELS))


def test_average_measures_noise_of_unit_weight(tmp_path: Path) -> None:
    found = NoiseSet(tmp_path / "a.ms", sigma=3.0).average()
    # Some 1500 averaged differences of two parts each: 2.5 %, and the median over baselines is a
    # few per cent below the mean.
    assert found.variance_jy2 == pytest.approx(9.0, rel=0.1)


def test_average_leaves_out_long_baselines(tmp_path: Path) -> None:
    found = NoiseSet(tmp_path / "a.ms").average(longest_m=500.0)
    assert [part.name for part in found.sets] == ["short"]
    assert found.longest_m <= 500


def test_average_drops_antenna_without_solutions(tmp_path: Path) -> None:
    found = NoiseSet(tmp_path / "a.ms").average(lost=114)
    assert all(114 not in part.antenna1 and 114 not in part.antenna2 for part in found.sets)
    assert found.antennas == 10


def test_average_of_flagged_data_is_refused(tmp_path: Path) -> None:
    small = NoiseSet(tmp_path / "a.ms")
    with pytest.raises(AllFlaggedError, match="All visibilities are flagged"):
        small.average(flags=np.ones_like(small.more))


def test_average_with_flags_of_another_group_is_refused(tmp_path: Path) -> None:
    small = NoiseSet(tmp_path / "a.ms")
    with pytest.raises(BadInputError, match=r"flags of shape \(198, 16, 2\)"):
        small.average(flags=small.more[1:])


@pytest.mark.parametrize(
    ("longest_m", "width_hz", "channels", "factor"),
    [
        (499.0, CHANNEL_WIDTH_HZ, 768, 8),
        (2602.0, CHANNEL_WIDTH_HZ, 768, 2),
        (499.0, 4 * CHANNEL_WIDTH_HZ, 192, 2),  # the small scale: the same band in one channel
        (2602.0, 4 * CHANNEL_WIDTH_HZ, 192, 1),  # already at the limit
        (499.0, CHANNEL_WIDTH_HZ, 767, 1),  # a prime number of channels cannot be divided
    ],
)
def test_channels_to_average(longest_m: float, width_hz: float, channels: int, factor: int) -> None:
    assert channels_to_average(longest_m, EDGE, width_hz, channels) == factor


def test_find_parallel_hands_refuses_cross_hands() -> None:
    head = header(np.array([1.4e9]), 1e6)
    assert list(find_parallel_hands("x", head)) == [0, 1]
    with pytest.raises(BadInputError, match="XX, YY or RR, LL"):
        find_parallel_hands("x", replace(head, correlations=(10, 11)))
