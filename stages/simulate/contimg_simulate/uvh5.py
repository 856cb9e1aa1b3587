"""Write one subband as the telescope's own writer does: same groups, types, chunks and bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from contimg.records.groups import utc_of_jd
from contimg_simulate.array import INTEGRATION_S, SUBBANDS, Array, Scale
from contimg_simulate.frame import SITE

if TYPE_CHECKING:
    from pathlib import Path

Floats = npt.NDArray[np.float64]

FILE_BYTES = 145_348_600
"""Size of a full-scale file; the telescope's are exactly this."""
NSAMPLES = 96.0
"""Correlator dumps (0.134 s) in an integration."""
CACHE_BYTES = 64 << 20
"""Chunk cache that holds the chunks of a band of rows while it is written."""
CHUNKS = {"visdata": (128, 12, 1), "flags": (256, 24, 1), "nsamples": (256, 12, 1)}
"""Rows, channels, polarizations of a chunk: what h5py guesses for 48 channels, and so what the telescope writes."""
SPREADS = ((0, 0, 0.02), (1, 1, 0.85), (2, 2, 0.05), (13, 21, 0.08))
"""Least and greatest spread of the clock stamps in a group's names, seconds, and how often it occurs."""


@dataclass(frozen=True)
class Subband:
    """One file's content."""

    index: int
    scale: Scale
    array: Array
    dec_rad: float
    """Apparent Declination that the dishes point to."""
    time_jd: Floats
    """Integration midpoints, UTC, shape (T,)."""
    visibilities: npt.NDArray[np.complex64]
    """Shape (T, baselines, channels, 2), channels descending."""

    @property
    def rows(self) -> int:
        """Baseline-times."""
        return len(self.time_jd) * self.array.baselines


def write(path: Path, subband: Subband) -> None:
    """Write a subband as UVH5."""
    with h5py.File(path, "w", rdcc_nbytes=CACHE_BYTES) as file:
        header, data = file.create_group("Header"), file.create_group("Data")
        _write_fixed(header, subband)
        _write_rows(header, subband)
        _write_extra(header.create_group("extra_keywords"), subband)
        shape = (subband.rows, 1, subband.scale.channels, 2)
        _write_data(data, "visdata", subband.visibilities.reshape(shape))
        _write_data(data, "flags", np.zeros(shape, bool))
        _write_data(data, "nsamples", np.full(shape, NSAMPLES, np.float32))
    if subband.scale.name == "full":
        # Another version of HDF5 wrote the telescope's: 344 bytes more. What follows the end that HDF5 records is not read.
        os.truncate(path, max(FILE_BYTES, path.stat().st_size))


def stamps(start_jd: float, rng: np.random.Generator) -> list[str]:
    """Return the clock stamp in each subband's name, shape (16,): each node's own clock when it opened its file."""
    spread = _spread(rng)
    late = rng.integers(0, spread + 1, SUBBANDS)
    # The spread is that of the group: one node has the earliest clock and one the latest.
    earliest, latest = rng.choice(SUBBANDS, 2, replace=False)
    late[earliest], late[latest] = 0, spread
    return [
        utc_of_jd(start_jd + int(second) / 86400).strftime("%Y-%m-%dT%H:%M:%S") for second in late
    ]


def _spread(rng: np.random.Generator) -> int:
    chosen = rng.choice(len(SPREADS), p=[share for _, _, share in SPREADS])
    least, greatest, _ = SPREADS[chosen]
    return int(rng.integers(least, greatest + 1))


def _write_fixed(header: h5py.Group, subband: Subband) -> None:
    array, scale = subband.array, subband.scale
    stations = len(array.offsets_m)
    opened = utc_of_jd(subband.time_jd[0] - INTEGRATION_S / 2 / 86400)
    texts = {
        "telescope_name": "OVRO_MMA",
        "instrument": "DSA",
        "object_name": "search",
        "phase_type": "drift",
        "history": f"written by dsa110-meridian-fringestopping on {opened:%Y-%m-%dT%H:%M:%S}",
    }
    numbers = {
        "latitude": SITE.latitude_deg,
        "longitude": SITE.longitude_deg,
        "altitude": SITE.height_m,
        "Nants_data": array.antennas,
        "Nants_telescope": stations,
        "Nbls": array.baselines,
        "Nblts": subband.rows,
        "Nfreqs": scale.channels,
        "Npols": 2,
        "Ntimes": len(subband.time_jd),
        "Nspws": 1,
        "channel_width": scale.width_hz,
    }
    arrays = {
        "antenna_diameters": np.full(stations, 4.65),
        "antenna_names": np.array([str(number + 1) for number in range(stations)], dtype="S4"),
        "antenna_numbers": np.arange(stations),
        "antenna_positions": array.offsets_m,
        "freq_array": scale.frequencies_hz(subband.index)[None],
        "spw_array": np.array([1]),
        "polarization_array": np.array([-5, -6]),
    }
    for name, text in texts.items():
        header[name] = np.bytes_(text)
    for name, value in {**numbers, **arrays}.items():
        header[name] = value


def _write_rows(header: h5py.Group, subband: Subband) -> None:
    array, times = subband.array, len(subband.time_jd)
    rows: dict[str, npt.NDArray[Any]] = {
        "ant_1_array": np.tile(array.first, times),
        "ant_2_array": np.tile(array.second, times),
        "uvw_array": np.tile(array.uvw_m(subband.dec_rad).astype(np.float32), (times, 1)),
        "time_array": np.repeat(subband.time_jd, array.baselines),
        "integration_time": np.full(subband.rows, INTEGRATION_S),
    }
    for name, values in rows.items():
        chunk = (512, 3) if values.ndim > 1 else (1024,)
        header.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=chunk)


def _write_extra(extra: h5py.Group, subband: Subband) -> None:
    extra["phase_center_dec"] = subband.dec_rad
    extra["ha_phase_center"] = 0.0
    extra["phase_center_epoch"] = "HADEC"
    extra["fs_table"] = np.bytes_("/home/ubuntu/data/fringestopping_table.npz")
    delays = np.random.default_rng(110).integers(1000, 9999, (len(subband.array.offsets_m), 2))
    extra["applied_delays_ns"] = np.bytes_(" ".join(str(delay) for delay in delays.ravel()))


def _write_data(data: h5py.Group, name: str, values: npt.NDArray[np.generic]) -> None:
    rows, channels, polarizations = CHUNKS[name]
    chunk = (rows, 1, min(channels, values.shape[2]), polarizations)
    data.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=chunk)
