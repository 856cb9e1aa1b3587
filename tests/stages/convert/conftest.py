"""A small telescope of our own that writes UVH5 groups as the correlator does, with visibilities from pyuvdata's geometry.

It shares no code with the stage: apparent places come from pyuvdata, fringes are summed source by source.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import EarthLocation
from pyuvdata import utils

from contimg.astro.coordinates import use_offline_iers
from contimg.astro.telescope import stations
from contimg.records.groups import GroupRecord, Subband, group_id, utc_of_jd
from contimg.runtime.context import Context, StageResult
from contimg.runtime.tar import unpack
from contimg_convert.options import ConvertOptions
from contimg_convert.stage import run

C = 299792458.0
LOCATION = EarthLocation.from_geodetic(-118.283 * units.deg, 37.234 * units.deg, 1188.0 * units.m)
TOP_EDGE_HZ = 1498.765258e6
BAND_HZ = 187.5e6
# Antennas of both arms and outriggers: the longest baselines of the telescope are among them.
STATIONS = (3, 24, 51, 68, 90, 101, 103, 109, 115, 116)


@dataclass(frozen=True)
class Observation:
    """What a group holds; every test changes what it is about."""

    start_jd: float = 2461066.4350
    dec_deg: float = 33.0
    integrations: int = 5
    integration_s: float = 12.884902000427246
    channels: int = 6
    subbands: int = 16
    sources: tuple[tuple[float, float, float], ...] = ()
    """Offset east and north of the meridian at mid-time, degrees (apparent), and flux."""
    noise: float = 0.0
    nsamples: float = 1.0
    layout: dict[str, Any] = field(default_factory=lambda: {"chunks": (13, 1, 4, 1)})
    """How h5py stores the visibilities."""

    @property
    def times_jd(self) -> np.ndarray:
        return self.start_jd + np.arange(self.integrations) * self.integration_s / 86400

    @property
    def width_hz(self) -> float:
        return BAND_HZ / self.subbands / self.channels

    def frequencies_hz(self, index: int) -> np.ndarray:
        first = index * self.channels
        return TOP_EDGE_HZ - self.width_hz * (np.arange(first, first + self.channels) + 0.5)

    @property
    def pairs(self) -> np.ndarray:
        """Antenna numbers of each baseline, autos among them; some come the wrong way round, as on the telescope."""
        numbers = [station - 1 for station in STATIONS]
        pairs = [(a, b) for i, a in enumerate(numbers) for b in numbers[i:]]
        return np.array([(b, a) if b == 100 or (b == 114 and a > 50) else (a, b) for a, b in pairs])

    @property
    def sky(self) -> list[tuple[float, float, float]]:
        """ICRS RA and Dec (rad) of the sources, and flux."""
        middle = self.start_jd + (self.integrations - 1) / 2 * self.integration_s / 86400
        lst = utils.get_lst_for_time(np.array([middle]), telescope_loc=LOCATION)
        found = []
        for east, north, flux in self.sources:
            dec = np.radians(self.dec_deg + north)
            app_ra = lst + np.radians(east) / np.cos(dec)
            ra, dec = utils.phasing.transform_app_to_icrs(
                time_array=np.array([middle]),
                app_ra=app_ra,
                app_dec=np.array([dec]),
                telescope_loc=LOCATION,
            )
            found.append((float(ra[0]), float(dec[0]), flux))
        return found

    def visibilities(self, frequencies_hz: np.ndarray, seed: int) -> np.ndarray:
        """V of (antenna 1, antenna 2) in pyuvdata's sense, fringes stopped at the meridian; shape (times, baselines, channels)."""
        use_offline_iers()
        positions, pairs = self.positions_m, self.pairs
        baselines = (positions[pairs[:, 1]] - positions[pairs[:, 0]]) @ to_local(LOCATION.lon.rad)
        lst = utils.get_lst_for_time(self.times_jd, telescope_loc=LOCATION)
        old = unit(np.zeros(1), np.radians([self.dec_deg]))
        total = np.zeros((len(lst), len(pairs), len(frequencies_hz)), complex)
        for ra, dec, flux in self.sky:
            app_ra, app_dec = utils.phasing.calc_app_coords(
                lon_coord=ra,
                lat_coord=dec,
                coord_frame="icrs",
                time_array=self.times_jd,
                lst_array=lst,
                telescope_loc=LOCATION,
            )
            path = (unit(lst - app_ra, app_dec) - old) @ baselines.T
            total += flux * np.exp(2j * np.pi / C * path[..., None] * frequencies_hz)
        draw = np.random.default_rng(seed)
        return total + self.noise * (
            draw.normal(size=total.shape) + 1j * draw.normal(size=total.shape)
        )

    @property
    def positions_m(self) -> np.ndarray:
        centre = np.array([value.value for value in (LOCATION.x, LOCATION.y, LOCATION.z)])
        return np.asarray(stations().itrf_m - centre)

    def write(self, store: Path, indices: tuple[int, ...] | None = None) -> Path:
        """Write the subbands and the group's record; return the record's path."""
        indices = tuple(range(self.subbands)) if indices is None else indices
        t0 = utc_of_jd(self.times_jd[0])
        folder = store / "incoming" / f"{t0:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            index: self.write_subband(folder / f"{t0:%Y-%m-%dT%H:%M:%S}_sb{index:02d}.hdf5", index)
            for index in indices
        }
        return self.write_record(store, files)

    def write_record(self, store: Path, files: dict[int, Path]) -> Path:
        t0 = utc_of_jd(self.times_jd[0])
        record = GroupRecord(
            id=group_id(t0),
            attempt=1,
            t0=t0,
            duration_s=(self.integrations - 1) * self.integration_s,
            dec_deg=self.dec_deg,
            subbands=tuple(
                Subband(
                    index=i,
                    uri=str(p.relative_to(store)),
                    size=p.stat().st_size,
                    modified=datetime(2026, 1, 26, tzinfo=UTC),
                )
                for i, p in sorted(files.items())
            ),
            missing=tuple(i for i in range(16) if i not in files),
        )
        path = store / "groups" / f"{record.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(record.model_dump_json())
        return path

    def write_subband(self, path: Path, index: int) -> Path:
        pairs, frequencies = self.pairs, self.frequencies_hz(index)
        shape = (self.integrations * len(pairs), 1, self.channels, 2)
        one = self.visibilities(frequencies, 2 * index).reshape(shape[:-1])
        two = self.visibilities(frequencies, 2 * index + 1).reshape(shape[:-1])
        with h5py.File(path, "w") as file:
            self._write_header(file.create_group("Header"), frequencies)
            data = file.create_group("Data")
            data.create_dataset(
                "visdata",
                data=np.stack([one, 2 * two], axis=-1).astype(np.complex64),
                **self.layout,
            )
            data.create_dataset("flags", data=np.zeros(shape, bool), **self.layout)
            data.create_dataset(
                "nsamples", data=np.full(shape, self.nsamples, np.float32), **self.layout
            )
        return path

    def _write_header(self, header: h5py.Group, frequencies: np.ndarray) -> None:
        pairs, positions = self.pairs, self.positions_m
        uvw = (
            (positions[pairs[:, 1]] - positions[pairs[:, 0]])
            @ to_local(LOCATION.lon.rad)
            @ meridian(np.radians(self.dec_deg)).T
        )
        repeat = {
            "ant_1_array": pairs[:, 0],
            "ant_2_array": pairs[:, 1],
            "uvw_array": uvw.astype(np.float32),
        }
        for name, value in repeat.items():
            header[name] = np.concatenate([value] * self.integrations)
        header["time_array"] = np.repeat(self.times_jd, len(pairs))
        header["integration_time"] = np.full(len(pairs) * self.integrations, self.integration_s)
        header["freq_array"], header["channel_width"], header["spw_array"] = (
            frequencies[None],
            self.width_hz,
            np.array([1]),
        )
        for name, value in (
            ("telescope_name", b"OVRO_MMA"),
            ("instrument", b"DSA"),
            ("object_name", b"search"),
        ):
            header[name] = np.bytes_(value)
        header["phase_type"], header["history"], header["version"] = (
            np.bytes_(b"drift"),
            np.bytes_(b"test"),
            np.bytes_(b"1.0"),
        )
        header["latitude"], header["longitude"] = LOCATION.lat.deg, LOCATION.lon.deg
        header["altitude"] = LOCATION.height.value
        header["antenna_names"], header["antenna_numbers"] = (
            np.array(stations().names, "S4"),
            np.arange(len(positions)),
        )
        header["antenna_positions"], header["antenna_diameters"] = (
            positions,
            np.full(len(positions), 4.65),
        )
        header["polarization_array"] = np.array([-5, -6])
        counts = {
            "Nants_data": len(STATIONS),
            "Nants_telescope": len(positions),
            "Nbls": len(pairs),
            "Nspws": 1,
            "Npols": 2,
            "Nblts": len(pairs) * self.integrations,
            "Ntimes": self.integrations,
            "Nfreqs": self.channels,
        }
        for name, value in counts.items():
            header[name] = value
        extra = header.create_group("extra_keywords")
        extra["phase_center_dec"], extra["ha_phase_center"] = np.radians(self.dec_deg), 0.0
        extra["phase_center_epoch"] = np.bytes_(b"HADEC")

    def but(self, **changes: Any) -> Observation:
        return replace(self, **changes)


def unit(ha: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(dec) * np.cos(ha), -np.cos(dec) * np.sin(ha), np.sin(dec)], axis=-1)


def to_local(lon: float) -> np.ndarray:
    """Turn ITRF rows about the pole: x to the meridian, y east."""
    return np.array([[np.cos(lon), -np.sin(lon), 0], [np.sin(lon), np.cos(lon), 0], [0, 0, 1]])


def meridian(dec: float) -> np.ndarray:
    """u, v, w axes of hour angle 0."""
    return np.array([[0, 1, 0], [-np.sin(dec), 0, np.cos(dec)], [np.cos(dec), 0, np.sin(dec)]])


@pytest.fixture
def observation() -> Observation:
    return Observation()


@dataclass(frozen=True)
class Converted:
    """What one run of the stage left."""

    outcome: StageResult
    context: Context
    ms: Path

    @property
    def sha256(self) -> str:
        return next(output.sha256 for output in self.context.outputs if output.name == "ms.tar")


def convert(record: Path, scratch: Path, **options: Any) -> Converted:
    """Run the stage in this process and unpack its MS."""
    artifact = scratch / "artifact"
    (scratch / "work").mkdir(parents=True)
    context = Context(str(artifact), scratch / "work", (), {})
    outcome = run(ConvertOptions(group=str(record), out=str(scratch), **options), context)
    with (artifact / "ms.tar").open("rb") as tar:
        return Converted(outcome, context, unpack(tar, scratch / "ms"))


@pytest.fixture(scope="session")
def two_sources() -> Observation:
    """One source in the middle, one off to the north-east and one to the south-west; no noise."""
    return Observation(sources=((0.0, 0.0, 1.0), (0.9, 0.7, 0.5), (-1.1, -0.4, 0.2)))


@pytest.fixture(scope="session")
def group(two_sources: Observation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a written group; nobody may change its files."""
    return two_sources.write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def converted(group: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(group, tmp_path_factory.mktemp("converted"))


@pytest.fixture
def run_convert(tmp_path: Path) -> Callable[..., Converted]:
    counter = itertools.count()
    return lambda record, **options: convert(record, tmp_path / f"run{next(counter)}", **options)
