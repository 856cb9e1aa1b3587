"""One pass calibrates, averages channels and the parallel hands, and measures the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from contimg.astro.gains import CalTable, Gains
from contimg.astro.telescope import CHANNEL_WIDTH_HZ, stations
from contimg.records.ms import MeasurementSet, Rows, create
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg_image.averaging import average, channels_to_average, parallel_hands
from image_arrays import MJD, header, turned

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS = 16
EDGE = np.radians(1.98)
RNG = np.random.default_rng(5)


class Small:
    """A Measurement Set of eleven antennas and three integrations with noise alone, its gains and its flags."""

    def __init__(self, path: Path, *, spectral: bool = False, sigma: float = 3.0) -> None:
        self.path = path
        self.freq = 1.4e9 + CHANNEL_WIDTH_HZ * np.arange(CHANNELS)
        head = header(self.freq, CHANNEL_WIDTH_HZ)
        index = np.array([0, 4, 11, 30, 45, 67, 80, 95, 102, 108, 114])
        first, second = np.triu_indices(index.size)
        self.ant1, self.ant2 = np.tile(index[first], 3), np.tile(index[second], 3)
        self.time = np.repeat(MJD * 86400 + np.arange(3) * 12.9, first.size)
        place = turned(0.0, head)
        uvw = place[self.ant2] - place[self.ant1]
        self.band = (
            0.07
            * np.exp(1j * RNG.uniform(-3, 3, (117, CHANNELS, 2)))
            * RNG.uniform(0.8, 1.2, (117, CHANNELS, 2))
        )
        self.gain = np.exp(1j * RNG.uniform(-0.3, 0.3, (3, 117, 2)))
        shape = (len(uvw), CHANNELS, 2)
        self.weight = RNG.uniform(0.5, 2.0, shape if spectral else (len(uvw), 1, 2)).astype(
            np.float32
        )
        noise = (
            (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)) * sigma / np.sqrt(self.weight)
        )
        self.sky = noise + 1.0
        when = np.repeat(np.arange(3), first.size)
        whole = self.band[None] * self.gain[:, :, None]
        data = self.sky * whole[when, self.ant1] * whole[when, self.ant2].conj()
        self.flag = RNG.random(shape) < 0.2
        self.more = RNG.random(shape) < 0.1
        rows = Rows(
            self.time,
            np.full(len(uvw), 12.9),
            self.ant1.astype(np.int32),
            self.ant2.astype(np.int32),
            uvw,
            self.weight[:, 0],
        )
        columns = ("DATA", "WEIGHT_SPECTRUM") if spectral else ("DATA",)
        with create(path, head, rows, columns) as writer:
            put: dict[str, Any] = {"DATA": data.astype(np.complex64), "FLAG": self.flag}
            writer.put(0, put | ({"WEIGHT_SPECTRUM": self.weight} if spectral else {}))

    def gains(self, lost: int | None = None) -> Gains:
        """Return the true gains; of antenna `lost` there are none."""
        flag = np.zeros((1, 117, CHANNELS, 2), bool)
        if lost is not None:
            flag[:, lost] = True
        band = CalTable("band", "B", np.array([self.time[0]]), self.freq, self.band[None], flag)
        gain = CalTable(
            "gain",
            "G",
            np.unique(self.time),
            self.freq[:1],
            self.gain[:, :, None],
            np.zeros((3, 117, 1, 2), bool),
        )
        return Gains((band, gain))

    def expected(
        self, which: np.ndarray[Any, Any], factor: int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        weight = np.where(self.flag | self.more, 0.0, self.weight)[which]
        parts = self.sky[which] * weight
        shape = (len(parts), CHANNELS // factor, factor * 2)
        total = weight.reshape(shape).sum(axis=-1)
        return np.divide(
            parts.reshape(shape).sum(axis=-1),
            total,
            out=np.zeros(total.shape, complex),
            where=total > 0,
        ), total


@pytest.mark.parametrize("spectral", [False, True], ids=["WEIGHT", "WEIGHT_SPECTRUM"])
def test_means_are_those_of_the_corrected_data(tmp_path: Path, *, spectral: bool) -> None:
    small = Small(tmp_path / "a.ms", spectral=spectral)
    with MeasurementSet(small.path) as ms:
        found = average("a.ms", ms, small.more, small.gains(), EDGE, 1e9)
    length = np.linalg.norm(stations().itrf_m[small.ant2] - stations().itrf_m[small.ant1], axis=1)
    assert [part.factor for part in found.sets] == [8, 2]
    for part, which in zip(found.sets, ((length > 0) & (length < 500), length >= 500), strict=True):
        vis, weight = small.expected(which, part.factor)
        assert part.vis == pytest.approx(vis, rel=1e-5, abs=1e-5)  # single precision
        assert part.weight == pytest.approx(weight, rel=1e-6)
        assert np.array_equal(part.antenna1, small.ant1[which])
        assert part.frequencies_hz == pytest.approx(
            small.freq.reshape(-1, part.factor).mean(axis=1)
        )
    assert found.antennas == 11
    assert found.used == pytest.approx(
        sum(np.count_nonzero(p.weight) * p.factor for p in found.sets)
        / (len(length[length > 0]) * CHANNELS)
    )


def test_the_noise_is_that_of_unit_weight(tmp_path: Path) -> None:
    small = Small(tmp_path / "a.ms", sigma=3.0)
    with MeasurementSet(small.path) as ms:
        found = average("a.ms", ms, small.more, small.gains(), EDGE, 1e9)
    # Some 1500 averaged differences of two parts each: 2.5 %, and the median over baselines is a few per cent below the mean.
    assert found.variance_jy2 == pytest.approx(9.0, rel=0.1)


def test_long_baselines_can_be_left_out(tmp_path: Path) -> None:
    small = Small(tmp_path / "a.ms")
    with MeasurementSet(small.path) as ms:
        found = average("a.ms", ms, small.more, small.gains(), EDGE, 500.0)
    assert [part.name for part in found.sets] == ["short"]
    assert found.longest_m <= 500


def test_an_antenna_without_solutions_drops_out(tmp_path: Path) -> None:
    small = Small(tmp_path / "a.ms")
    with MeasurementSet(small.path) as ms:
        found = average("a.ms", ms, small.more, small.gains(lost=114), EDGE, 1e9)
    assert all(114 not in part.antenna1 and 114 not in part.antenna2 for part in found.sets)
    assert found.antennas == 10


def test_all_flagged_is_refused(tmp_path: Path) -> None:
    small = Small(tmp_path / "a.ms")
    with MeasurementSet(small.path) as ms, pytest.raises(AllFlaggedError, match="all flagged"):
        average("a.ms", ms, np.ones_like(small.more), small.gains(), EDGE, 1e9)


def test_flags_of_another_group_are_refused(tmp_path: Path) -> None:
    small = Small(tmp_path / "a.ms")
    with (
        MeasurementSet(small.path) as ms,
        pytest.raises(BadInputError, match=r"flags of shape \(198, 16, 2\)"),
    ):
        average("a.ms", ms, small.more[1:], small.gains(), EDGE, 1e9)


@pytest.mark.parametrize(
    ("longest_m", "width_hz", "channels", "factor"),
    [
        (499.0, CHANNEL_WIDTH_HZ, 768, 8),  # what measured.md found cheap and right
        (2602.0, CHANNEL_WIDTH_HZ, 768, 2),
        (499.0, 4 * CHANNEL_WIDTH_HZ, 192, 2),  # the small scale: the same band in one channel
        (2602.0, 4 * CHANNEL_WIDTH_HZ, 192, 1),  # already at the limit
        (499.0, CHANNEL_WIDTH_HZ, 767, 1),  # a prime number of channels cannot be cut
    ],
)
def test_channels_to_average(longest_m: float, width_hz: float, channels: int, factor: int) -> None:
    assert channels_to_average(longest_m, EDGE, width_hz, channels) == factor


def test_stokes_i_needs_parallel_hands() -> None:
    head = header(np.array([1.4e9]), 1e6)
    assert list(parallel_hands("x", head)) == [0, 1]
    crossed = head.__class__(**{**vars(head), "correlations": (10, 11)})
    with pytest.raises(BadInputError, match="XX, YY or RR, LL"):
        parallel_hands("x", crossed)
