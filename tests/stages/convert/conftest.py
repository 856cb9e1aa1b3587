"""A small telescope that writes UVH5 groups as the correlator does.

It shares no code with the stage: apparent places come from pyuvdata, fringes are summed source by
source.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import EarthLocation
from pyuvdata import utils

from contimg.astro.coordinates import direction_cosines, use_offline_iers
from contimg.astro.telescope import stations
from contimg.records.groups import GroupRecord, Subband, group_id, utc_of_jd
from contimg.records.ms import MeasurementSet, MSHeader, Rows
from contimg.runtime.context import Context, StageResult
from contimg.runtime.tar import unpack
from contimg_convert.options import ConvertOptions
from contimg_convert.stage import run
from relist import relist

C = 299792458.0
LOCATION = EarthLocation.from_geodetic(-118.283 * units.deg, 37.234 * units.deg, 1188.0 * units.m)
TOP_EDGE_HZ = 1498.765258e6
BAND_HZ = 187.5e6
# Antennas of both arms and outriggers: the longest baselines of the telescope are among them.
STATIONS = (3, 24, 51, 68, 90, 101, 103, 109, 115, 116)


@dataclass(frozen=True)
class Observation:
    """What a group holds; each test changes what it is about."""

    start_jd: float = 2461066.4350
    dec_deg: float = 33.0
    integrations: int = 5
    integration_s: float = 12.884902000427246
    channels: int = 6
    sources: tuple[tuple[float, float, float], ...] = ()
    """Offset east and north of the meridian at mid-time, degrees (apparent), and flux."""
    noise: float = 0.0
    layout: dict[str, Any] = field(default_factory=lambda: {"chunks": (13, 1, 4, 1)})
    """How h5py stores the visibilities."""

    @property
    def times_jd(self) -> np.ndarray:
        return self.start_jd + np.arange(self.integrations) * self.integration_s / 86400

    @property
    def width_hz(self) -> float:
        return BAND_HZ / 16 / self.channels

    def frequencies_hz(self, index: int) -> np.ndarray:
        first = index * self.channels
        return TOP_EDGE_HZ - self.width_hz * (np.arange(first, first + self.channels) + 0.5)

    @property
    def pairs(self) -> np.ndarray:
        """Antenna numbers of each baseline, with autos; some are reversed, as at the telescope."""
        numbers = [station - 1 for station in STATIONS]
        pairs = [(a, b) for i, a in enumerate(numbers) for b in numbers[i:]]
        return np.array([(b, a) if b == 100 or (b == 114 and a > 50) else (a, b) for a, b in pairs])

    @property
    def sky(self) -> list[tuple[float, float, float]]:
        """ICRS RA and Dec (rad) of the sources, and flux."""
        middle = self.start_jd + (self.integrations - 1) / 2 * self.integration_s / 86400
        here: dict[str, Any] = {"time_array": np.array([middle]), "telescope_loc": LOCATION}
        lst = utils.get_lst_for_time(here["time_array"], telescope_loc=LOCATION)
        found = []
        for east, north, flux in self.sources:
            dec = np.radians([self.dec_deg + north])
            app_ra = lst + np.radians(east) / np.cos(dec)
            place = utils.phasing.transform_app_to_icrs(app_ra=app_ra, app_dec=dec, **here)
            found.append((*(float(angle[0]) for angle in place), flux))
        return found

    def visibilities(self, frequencies_hz: np.ndarray, seed: int) -> np.ndarray:
        """V of (antenna 1, antenna 2) in pyuvdata's sense, fringes stopped at the meridian.

        Shape (times, baselines, channels).
        """
        use_offline_iers()
        positions, pairs = self.positions_m, self.pairs
        baselines = (positions[pairs[:, 1]] - positions[pairs[:, 0]]) @ to_local(LOCATION.lon.rad)
        lst = utils.get_lst_for_time(self.times_jd, telescope_loc=LOCATION)
        here = {"time_array": self.times_jd, "lst_array": lst, "telescope_loc": LOCATION}
        old = unit(np.zeros(1), np.radians([self.dec_deg]))
        total = np.zeros((len(lst), len(pairs), len(frequencies_hz)), complex)
        for ra, dec, flux in self.sky:
            app_ra, app_dec = utils.phasing.calc_app_coords(
                lon_coord=ra, lat_coord=dec, coord_frame="icrs", **here
            )
            path = (unit(lst - app_ra, app_dec) - old) @ baselines.T
            total += flux * np.exp(2j * np.pi / C * path[..., None] * frequencies_hz)
        draw = np.random.default_rng(seed)
        noise = draw.normal(size=total.shape) + 1j * draw.normal(size=total.shape)
        return total + self.noise * noise

    @property
    def positions_m(self) -> np.ndarray:
        centre = np.array([value.value for value in (LOCATION.x, LOCATION.y, LOCATION.z)])
        return np.asarray(stations().itrf_m - centre)

    def write(self, store: Path, indices: Sequence[int] = range(16)) -> Path:
        """Write the subbands and the group's record; return the record's path."""
        t0 = utc_of_jd(self.times_jd[0])
        folder = store / "incoming" / f"{t0:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        subbands, modified = [], datetime(2026, 1, 26, tzinfo=UTC)
        for index in indices:
            path = folder / f"{t0:%Y-%m-%dT%H:%M:%S}_sb{index:02d}.hdf5"
            self.write_subband(path, index)
            os.utime(path, (modified.timestamp(),) * 2)
            uri, size = str(path.relative_to(store)), path.stat().st_size
            subbands.append(Subband(index=index, uri=uri, size=size, modified=modified))
        known: dict[str, Any] = {"id": group_id(t0), "attempt": 1, "t0": t0}
        known |= {"dec_deg": self.dec_deg, "missing": tuple(sorted({*range(16)} - {*indices}))}
        duration_s = (self.integrations - 1) * self.integration_s
        record = GroupRecord(**known, duration_s=duration_s, subbands=tuple(subbands))
        path = store / "groups" / f"{record.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(record.model_dump_json())
        return relist(path)

    def write_subband(self, path: Path, index: int) -> Path:
        frequencies = self.frequencies_hz(index)
        shape = (self.integrations * len(self.pairs), 1, self.channels, 2)
        one, two = (self.visibilities(frequencies, 2 * index + pol) for pol in (0, 1))
        values = np.stack([one, 2 * two], axis=-1).astype(np.complex64)
        datasets = {"visdata": values.reshape(shape), "flags": np.zeros(shape, bool)}
        datasets["nsamples"] = np.ones(shape, np.float32)
        with h5py.File(path, "w") as file:
            self._write_header(file.create_group("Header"), frequencies)
            for name, values in datasets.items():
                file.create_dataset(f"Data/{name}", data=values, **self.layout)
        return path

    def _write_header(self, header: h5py.Group, frequencies: np.ndarray) -> None:
        pairs, positions, times = self.pairs, self.positions_m, self.integrations
        sine, cosine = np.sin(np.radians(self.dec_deg)), np.cos(np.radians(self.dec_deg))
        meridian = np.array([[0, 1, 0], [-sine, 0, cosine], [cosine, 0, sine]])
        axes = to_local(LOCATION.lon.rad) @ meridian.T
        uvw = (positions[pairs[:, 1]] - positions[pairs[:, 0]]) @ axes
        texts = {"telescope_name": "OVRO_MMA", "instrument": "DSA", "object_name": "search"}
        texts |= {"phase_type": "drift", "history": "test", "version": "1.0"}
        texts["extra_keywords/phase_center_epoch"] = "HADEC"
        values: dict[str, Any] = {name: np.bytes_(text) for name, text in texts.items()}
        sizes = {"Nants_data": len(STATIONS), "Nants_telescope": len(positions), "Nspws": 1}
        sizes |= {"Nbls": len(pairs), "Nblts": len(pairs) * times, "Ntimes": times, "Npols": 2}
        values |= {**sizes, "Nfreqs": self.channels}
        values |= {
            "ant_1_array": np.tile(pairs[:, 0], times),
            "ant_2_array": np.tile(pairs[:, 1], times),
            "uvw_array": np.tile(uvw.astype(np.float32), (times, 1)),
            "time_array": np.repeat(self.times_jd, len(pairs)),
            "integration_time": np.full(len(pairs) * times, self.integration_s),
            "freq_array": frequencies[None],
            "channel_width": self.width_hz,
            "spw_array": np.array([1]),
            "polarization_array": np.array([-5, -6]),
            "latitude": LOCATION.lat.deg,
            "longitude": LOCATION.lon.deg,
            "altitude": LOCATION.height.value,
            "antenna_names": np.array(stations().names, "S4"),
            "antenna_numbers": np.arange(len(positions)),
            "antenna_positions": positions,
            "antenna_diameters": np.full(len(positions), 4.65),
            "extra_keywords/phase_center_dec": np.radians(self.dec_deg),
            "extra_keywords/ha_phase_center": 0.0,
        }
        for name, value in values.items():
            header[name] = value

    def but(self, **changes: Any) -> Self:
        return replace(self, **changes)


def unit(ha: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(dec) * np.cos(ha), -np.cos(dec) * np.sin(ha), np.sin(dec)], axis=-1)


def to_local(lon: float) -> np.ndarray:
    """Turn ITRF rows about the pole: x to the meridian, y east."""
    return np.array([[np.cos(lon), -np.sin(lon), 0], [np.sin(lon), np.cos(lon), 0], [0, 0, 1]])


@dataclass(frozen=True)
class Converted:
    """The result of one run of the stage."""

    outcome: StageResult
    context: Context
    ms: Path
    header: MSHeader
    rows: Rows

    @property
    def sha256(self) -> str:
        return next(output.sha256 for output in self.context.outputs if output.name == "ms.tar")

    def read(self, column: str) -> np.ndarray:
        with MeasurementSet(self.ms) as data:
            return data.read(column)

    def fringes(self, ra_rad: float, dec_rad: float, east: int = 1, north: int = 1) -> np.ndarray:
        """Return the visibilities of 1 Jy, shape (rows, channels); -1 mirrors its place."""
        centre = self.header.ra_rad, self.header.dec_rad
        cosines = np.array(direction_cosines(ra_rad, dec_rad, *centre)) * [east, north, 1]
        path = (self.rows.uvw_m @ cosines)[:, None]
        return np.exp(2j * np.pi / C * path * self.header.frequencies_hz)


def convert(record: Path, scratch: Path, **options: Any) -> Converted:
    """Run the stage in this process and unpack its MS."""
    artifact = scratch / "artifact"
    (scratch / "work").mkdir(parents=True)
    context = Context(str(artifact), scratch / "work", (), {})
    outcome = run(ConvertOptions(group=str(record), out=str(scratch), **options), context)
    with (artifact / "ms.tar").open("rb") as tar:
        path = unpack(tar, scratch / "ms")
    with MeasurementSet(path) as data:
        return Converted(outcome, context, path, data.header, data.rows)


@pytest.fixture(scope="session")
def two_sources() -> Observation:
    """Return one source in the middle, one to the north-east, one to the south-west; no noise."""
    return Observation(sources=((0.0, 0.0, 1.0), (0.9, 0.7, 0.5), (-1.1, -0.4, 0.2)))


@pytest.fixture(scope="session")
def group(two_sources: Observation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the record of a written group; tests must not change its files."""
    return two_sources.write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def converted(group: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(group, tmp_path_factory.mktemp("converted"))


@pytest.fixture
def run_convert(tmp_path: Path) -> Callable[..., Converted]:
    counter = itertools.count()
    return lambda record, **options: convert(record, tmp_path / f"run{next(counter)}", **options)
