"""Solutions as plain arrays, for plots and for people without CASA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.gains import read_caltable
from contimg.records.array_files import to_npz

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def solutions(folders: Mapping[str, Path]) -> bytes:
    """Return solutions.npz: per role ROLE_value (T, antennas, channels, polarizations), _flag, _time_s (MJD s) and _freq_hz."""
    import casacore.tables as ct

    arrays: dict[str, Any] = {}
    for role, folder in folders.items():
        table = read_caltable(folder)
        arrays[f"{role}_value"] = table.value.astype(np.complex64)
        arrays[f"{role}_flag"], arrays[f"{role}_time_s"], arrays[f"{role}_freq_hz"] = (
            table.flag,
            table.time_s,
            table.freq_hz,
        )
        with ct.table(f"{folder}::ANTENNA", ack=False, lockoptions="usernoread") as antennas:
            arrays["antenna"] = np.array(antennas.getcol("NAME"), np.str_)
    return to_npz(arrays)
