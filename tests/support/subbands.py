"""Small subbands that hold only what watch reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import h5py
import numpy as np

from contimg.records.groups import mjd_of
from contimg.runtime.store import Store

T0 = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)


def write_subband(path: Path, t0: datetime = T0, rows: int = 2000) -> None:
    """Write the parts of a UVH5 file that watch reads; times repeat over baselines, time-major."""
    jd = mjd_of(t0) + 2400000.5
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["Header/time_array"] = np.repeat(jd + np.arange(24) * 12.884902000427246 / 86400, 40)
        file["Header/extra_keywords/phase_center_dec"] = np.radians(33.0)
        file["Data/visdata"] = np.zeros(rows, np.complex64)


def name(index: int, t0: datetime = T0, skew_s: int = 0) -> str:
    stamp = t0 + timedelta(seconds=skew_s)
    return f"{stamp:%Y-%m-%d}/{stamp:%Y-%m-%dT%H:%M:%S}_sb{index:02d}.hdf5"


def fill(store: Store, scratch: Path, t0: datetime = T0, without: tuple[int, ...] = ()) -> None:
    """Put a group with skewed clocks into a store."""
    source = scratch / "subband.hdf5"
    write_subband(source, t0)
    for index in set(range(16)) - set(without):
        store.put(f"incoming/{name(index, t0, index % 3)}", source.read_bytes())
