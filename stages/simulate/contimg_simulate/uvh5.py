"""Write one subband as the telescope's own writer does: same groups, types, chunks and bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from contimg.astro.constants import DAY_S
from contimg.records.groups import utc_of_jd
from contimg_simulate import telescope
from contimg_simulate.schedule import GroupPlan
from contimg_simulate.telescope import INTEGRATION_S, SUBBANDS, Complexes64, dsa110

FILE_BYTES = 145_348_600
"""Size of a full-scale file; the telescope's are exactly this."""
NSAMPLES = 96.0
"""Correlator dumps (0.134 s) in an integration."""
CACHE_BYTES = 64 << 20
"""Chunk cache that holds the chunks of a band of rows while it is written."""
CHUNKS = {"visdata": (128, 12, 1), "flags": (256, 24, 1), "nsamples": (256, 12, 1)}
"""Rows, channels, polarizations of a chunk: h5py's guess for 48 channels, so the telescope's."""
SPREADS = ((0, 0, 0.02), (1, 1, 0.85), (2, 2, 0.05), (13, 21, 0.08))
"""Least and greatest spread (s) of the clock stamps in a group's names, and how often it occurs."""


def draw_stamps(start_jd: float, rng: np.random.Generator) -> list[str]:
    """Return the stamp in each subband's name, (16,): its node's clock when it opened the file."""
    least, greatest, _ = SPREADS[rng.choice(len(SPREADS), p=[share for _, _, share in SPREADS])]
    spread = int(rng.integers(least, greatest + 1))
    late = rng.integers(0, spread + 1, SUBBANDS)
    # The spread is that of the group: one node has the earliest clock and one the latest.
    earliest, latest = rng.choice(SUBBANDS, 2, replace=False)
    late[earliest], late[latest] = 0, spread
    opened = [utc_of_jd(start_jd + int(second) / DAY_S) for second in late]
    return [f"{moment:%Y-%m-%dT%H:%M:%S}" for moment in opened]


def write_subband(path: Path, index: int, plan: GroupPlan, visibilities: Complexes64) -> None:
    """Write a subband's visibilities, (T, baselines, channels, 2), channels descending, as UVH5."""
    array, scale, times = dsa110(), plan.scale, len(plan.time_jd)
    baselines = len(array.first)
    per_row: dict[str, npt.NDArray[Any]] = {
        "ant_1_array": np.tile(array.first, times),
        "ant_2_array": np.tile(array.second, times),
        "uvw_array": np.tile(array.uvw_m(plan.dec_rad).astype(np.float32), (times, 1)),
        "time_array": np.repeat(plan.written_jd, baselines),
        "integration_time": np.full(times * baselines, INTEGRATION_S),
    }
    shape = (times * baselines, 1, scale.channels, 2)
    datasets: dict[str, npt.NDArray[Any]] = {
        "visdata": visibilities.reshape(shape),
        "flags": np.zeros(shape, bool),
        "nsamples": np.full(shape, NSAMPLES, np.float32),
    }
    with h5py.File(path, "w", rdcc_nbytes=CACHE_BYTES) as file:
        header, data = file.create_group("Header"), file.create_group("Data")
        for name, value in header_values(index, plan).items():
            header[name] = value
        for name, values in per_row.items():
            chunks: tuple[int, ...] = (512, 3) if values.ndim > 1 else (1024,)
            size = (None, *values.shape[1:])
            header.create_dataset(name, data=values, maxshape=size, chunks=chunks)
        delays = np.random.default_rng(110).integers(1000, 9999, (len(array.offsets_m), 2))
        extra = header.create_group("extra_keywords")
        extra["phase_center_dec"] = plan.written_dec_rad
        extra["ha_phase_center"] = 0.0
        extra["phase_center_epoch"] = "HADEC"
        extra["fs_table"] = np.bytes_("/home/ubuntu/data/fringestopping_table.npz")
        extra["applied_delays_ns"] = np.bytes_(" ".join(map(str, delays.ravel())))
        for name, values in datasets.items():
            rows, channels, pols = CHUNKS[name]
            chunks = (rows, 1, min(channels, scale.channels), pols)
            data.create_dataset(name, data=values, maxshape=(None, *shape[1:]), chunks=chunks)
    if scale.name == "full":
        # Another version of HDF5 wrote the telescope's: 344 bytes more. What follows the end that
        # HDF5 records is not read.
        os.truncate(path, max(FILE_BYTES, path.stat().st_size))


def header_values(index: int, plan: GroupPlan) -> dict[str, object]:
    """Return the datasets of the header that have one value, or do not depend on the rows."""
    array, times = dsa110(), len(plan.time_jd)
    stations, baselines = len(array.offsets_m), len(array.first)
    opened = utc_of_jd(plan.written_jd[0] - INTEGRATION_S / 2 / DAY_S)
    history = f"written by dsa110-meridian-fringestopping on {opened:%Y-%m-%dT%H:%M:%S}"
    words = {"telescope_name": "OVRO_MMA", "instrument": "DSA", "object_name": "search"}
    words |= {"phase_type": "drift", "history": history}
    counts = {"Nants_data": len(array.active), "Nants_telescope": stations, "Nbls": baselines}
    counts |= {"Nblts": times * baselines, "Nfreqs": plan.scale.channels, "Npols": 2}
    return {
        **{name: np.bytes_(word) for name, word in words.items()},
        "latitude": telescope.LATITUDE_DEG,
        "longitude": telescope.LONGITUDE_DEG,
        "altitude": telescope.HEIGHT_M,
        **counts,
        "Ntimes": times,
        "Nspws": 1,
        "channel_width": plan.scale.width_hz,
        "antenna_diameters": np.full(stations, 4.65),
        "antenna_names": np.array([str(number + 1) for number in range(stations)], dtype="S4"),
        "antenna_numbers": np.arange(stations),
        "antenna_positions": array.offsets_m,
        "freq_array": plan.scale.frequencies_hz(index)[None],
        "spw_array": np.array([1]),
        "polarization_array": np.array([-5, -6]),
    }
