"""Calibration and averaging in one pass, and diagnostics of visibilities whose content is known."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.gains import CalTable, Gains
from contimg.astro.telescope import CHANNEL_WIDTH_HZ, stations
from contimg.records.ms import MeasurementSet, Rows, create
from contimg.runtime.errors import AllFlaggedError, BadInputError
from contimg_image import averaging
from contimg_image.averaging import AveragedVisibilities
from contimg_image.diagnostics import measure_phases, sample_slices, summarise_baselines
from image_arrays import MJD, averaged, header, rotate_stations

Array = np.ndarray[Any, Any]
CHANNELS = 16
EDGE = np.radians(1.98)
RNG = np.random.default_rng(5)
FLUX_JY, MODEL_JY = 3.0, 2.5
SOURCES_JY = np.array([1.0] * 7 + [0.0])


class NoiseSet:
    """A Measurement Set of 11 antennas and 3 integrations with noise alone, its gains and flags."""

    def __init__(self, path: Path, *, spectral: bool = False) -> None:
        self.path = path
        self.freq = 1.4e9 + CHANNEL_WIDTH_HZ * np.arange(CHANNELS)
        head = header(self.freq, CHANNEL_WIDTH_HZ)
        index = np.array([0, 4, 11, 30, 45, 67, 80, 95, 102, 108, 114])
        first, second = np.triu_indices(index.size)
        self.ant1, self.ant2 = np.tile(index[first], 3), np.tile(index[second], 3)
        when = np.repeat(np.arange(3), first.size)
        self.time = MJD * 86400 + when * 12.9
        place, count = rotate_stations(0.0, head), when.size
        shape = (count, CHANNELS, 2)
        phase = np.exp(1j * RNG.uniform(-3, 3, (117, CHANNELS, 2)))
        self.band = 0.07 * phase * RNG.uniform(0.8, 1.2, phase.shape)
        self.gain = np.exp(1j * RNG.uniform(-0.3, 0.3, (3, 117, 2)))
        weights = RNG.uniform(0.5, 2.0, shape if spectral else (count, 1, 2))
        self.weight = weights.astype(np.float32)
        real, imaginary = RNG.normal(0, 3.0, (2, *shape))
        self.sky = (real + 1j * imaginary) / np.sqrt(self.weight) + 1.0
        whole = self.band[None] * self.gain[:, :, None]
        data = self.sky * whole[when, self.ant1] * whole[when, self.ant2].conj()
        self.flag, self.more = RNG.random(shape) < 0.2, RNG.random(shape) < 0.1
        pair = self.ant1.astype(np.int32), self.ant2.astype(np.int32)
        uvw_m = place[self.ant2] - place[self.ant1]
        rows = Rows(self.time, np.full(count, 12.9), *pair, uvw_m, self.weight[:, 0])
        columns: dict[str, Any] = {"DATA": data.astype(np.complex64)}
        if spectral:
            columns["WEIGHT_SPECTRUM"] = self.weight
        with create(path, head, rows, list(columns)) as writer:
            writer.put(0, columns | {"FLAG": self.flag})

    def average(
        self,
        flags: Array | None = None,
        lost: int | None = None,
        longest_m: float = 1e9,
        channels: Array | None = None,
    ) -> AveragedVisibilities:
        """Average with the true gains, without solutions for antenna `lost`."""
        flags = self.more if flags is None else flags
        flag = np.zeros((1, 117, CHANNELS, 2), bool)
        flag[:, [] if lost is None else lost] = True
        band = CalTable("band", "B", self.time[:1], self.freq, self.band[None], flag)
        gain, known = self.gain[:, :, None], np.zeros((3, 117, 1, 2), bool)
        gains = Gains((band, CalTable("g", "G", np.unique(self.time), self.freq[:1], gain, known)))
        with MeasurementSet(self.path) as ms:
            return averaging.average("a.ms", ms, flags, gains, EDGE, longest_m, channels)

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
    # Some 1500 averaged differences of two parts each: 2.5 %, and the median over baselines is a
    # few per cent below the mean.
    assert found.variance_jy2 == pytest.approx(9.0, rel=0.1)


def test_average_leaves_out_long_and_uncalibrated_baselines(tmp_path: Path) -> None:
    small = NoiseSet(tmp_path / "a.ms")
    found = small.average(longest_m=500.0)
    assert [part.name for part in found.sets] == ["short"]
    assert found.longest_m <= 500
    found = small.average(lost=114)
    assert all(114 not in part.antenna1 and 114 not in part.antenna2 for part in found.sets)
    assert found.antennas == 10


def test_average_leaves_out_channels_of_other_bands(tmp_path: Path) -> None:
    small = NoiseSet(tmp_path / "a.ms")
    found, whole = small.average(channels=np.arange(CHANNELS) < 8), small.average()
    for part, other in zip(found.sets, whole.sets, strict=True):
        low = part.frequencies_hz < small.freq[8]
        np.testing.assert_array_equal(part.weight[:, low], other.weight[:, low])
        assert part.weight[:, low].any()
        assert not part.weight[:, ~low].any()


def test_average_refuses_wrong_flags(tmp_path: Path) -> None:
    small = NoiseSet(tmp_path / "a.ms")
    with pytest.raises(AllFlaggedError, match="All visibilities are flagged"):
        small.average(flags=np.ones_like(small.more))
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
    assert averaging.channels_to_average(longest_m, EDGE, width_hz, channels) == factor


def test_find_parallel_hands_refuses_cross_hands() -> None:
    head = header(np.array([1.4e9]), 1e6)
    assert list(averaging.find_parallel_hands("x", head)) == [0, 1]
    with pytest.raises(BadInputError, match="XX, YY or RR, LL"):
        averaging.find_parallel_hands("x", replace(head, correlations=(10, 11)))


def observe(data: AveragedVisibilities) -> tuple[Array, ...]:
    """Return a source of 3 Jy with noise by the weights; `data` get it less 2.5 Jy."""
    rng, (part,) = np.random.default_rng(4), data.sets
    sigma = np.sqrt(data.variance_jy2 / np.maximum(part.weight, 1e-9))
    real, imaginary = rng.standard_normal((2, *part.vis.shape))
    phase = np.exp(2j * np.pi * rng.random(part.vis.shape))
    before = (FLUX_JY * phase + sigma * (real + 1j * imaginary)).astype(np.complex64)
    part.vis[:] = before - (MODEL_JY * phase).astype(np.complex64)
    return (before,)


def summarise(data: AveragedVisibilities, before: tuple[Array, ...]) -> dict[str, Any]:
    with np.load(io.BytesIO(summarise_baselines(data, before, SOURCES_JY))) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def data() -> AveragedVisibilities:
    return averaged(times=12, channels=16)


@pytest.fixture(scope="module")
def found(data: AveragedVisibilities) -> dict[str, Any]:
    return summarise(data, observe(data))


def test_power_of_each_baseline_has_no_noise(found: dict[str, Any]) -> None:
    pulls = {}
    for name, power in (("power_jy2", FLUX_JY**2), ("left_jy2", (FLUX_JY - MODEL_JY) ** 2)):
        noise = found["noise_jy2"]
        error = np.sqrt((noise**2 + 2 * power * noise) / found["samples"])
        pulls[name] = (found[name] - power) / error
        # Some 250 baselines: the mean of their pulls is good to 0.06, their scatter to 5 %; with
        # the noise left in both are far off.
        assert abs(pulls[name].mean()) < 4 / np.sqrt(noise.size)
    assert pulls["power_jy2"].std() == pytest.approx(1, abs=0.2)
    # What was subtracted, in single precision.
    assert found["model_jy2"] == pytest.approx(MODEL_JY**2, rel=1e-5)
    assert found["sources"] == 7


def test_each_visibility_counts_once(data: AveragedVisibilities, found: dict[str, Any]) -> None:
    (part,) = data.sets
    assert found["samples"].sum() == np.count_nonzero(part.weight)
    assert found["coverage"].sum() == pytest.approx(part.weight.sum(), rel=1e-5)
    names = set(zip(found["antenna1"].tolist(), found["antenna2"].tolist(), strict=True))
    assert names == set(zip(part.antenna1.tolist(), part.antenna2.tolist(), strict=True))
    assert len(names) == found["samples"].size


def test_distances_are_of_baselines(data: AveragedVisibilities, found: dict[str, Any]) -> None:
    (part,) = data.sets
    metres = np.hypot(part.uvw_m[:, 0], part.uvw_m[:, 1])[:, None]
    distances = np.asarray(metres * part.frequencies_hz / SPEED_OF_LIGHT_M_S)
    k = int(np.argmax(found["uv_wavelengths"]))
    mine = (part.antenna1 == found["antenna1"][k]) & (part.antenna2 == found["antenna2"][k])
    expected = np.average(distances[mine], weights=part.weight[mine])
    assert found["uv_wavelengths"][k] == pytest.approx(expected, rel=1e-5)
    # The farthest cell with weight holds the farthest visibility, to a cell.
    y, x = np.nonzero(found["coverage"])
    cells = np.hypot(x + 0.5 - found["coverage"].shape[1] // 2, y + 0.5).max()
    cell = float(found["cell_wavelengths"])
    assert cells * cell == pytest.approx(distances[part.weight > 0].max(), abs=1.5 * cell)


def test_power_keeps_noise_of_one_polarization(data: AveragedVisibilities) -> None:
    bare = summarise(replace(data, variance_jy2=float("nan")), observe(data))
    assert np.isnan(bare["noise_jy2"]).all()
    assert (bare["power_jy2"] > FLUX_JY**2).mean() > 0.95  # signal and noise


def test_same_visibilities_make_same_bytes(data: AveragedVisibilities) -> None:
    before = observe(data)
    first, second = (summarise_baselines(data, before, SOURCES_JY) for _ in range(2))
    assert first == second


def test_measure_phases_returns_known_phases() -> None:
    """A phase on one antenna and a delay on another, in data without noise."""
    data = averaged(times=4, channels=48)
    (part,), channels = data.sets, 48
    model = FLUX_JY * np.exp(2j * np.pi * np.random.default_rng(1).random(part.vis.shape))
    angle = np.zeros((117, channels))
    angle[part.antenna1[0]] = 0.4
    angle[part.antenna2[0]] = np.linspace(-0.6, 0.6, channels)
    wrong = model * np.exp(1j * (angle[part.antenna1] - angle[part.antenna2]))
    part.vis[:] = wrong - model
    before = wrong.astype(np.complex64)[sample_slices(data)]
    found = measure_phases(replace(data, variance_jy2=0.0), (before,))
    expected = angle.reshape(117, 8, -1).mean(axis=2)[np.unique([part.antenna1, part.antenna2])]
    # The other antennas see the two wrong ones on a twelfth of their baselines.
    assert found.rms_deg == pytest.approx(np.degrees(np.sqrt(np.mean(expected**2))), rel=0.1)
    assert found.error_deg == found.rms_deg
    assert np.isnan(measure_phases(data, (part.vis[sample_slices(data)],)).error_deg)
