"""The DSA-110: its stations and its band."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contimg.astro.coordinates import Site
from contimg.records.groups import N_SUBBANDS
from contimg.records.schemas.shipped import STATIONS, read_shipped

FloatArray = npt.NDArray[np.float64]

SITE = Site(lat_deg=37.234, lon_deg=-118.283, height_m=1188.0)
"""As in the data; a group's own header is to be preferred."""
NAMES = ("OVRO_MMA", "DSA_110", "DSA-110")
"""Names of the telescope in headers."""
MS_NAME = "DSA_110"
"""TELESCOPE_NAME of every Measurement Set."""

N_CHANNELS = N_SUBBANDS * 48
CHANNEL_WIDTH_HZ = 244140.625
"""250 MHz / 1024."""
TOP_HZ = 1498.643188e6
"""Centre of the highest channel, the first one of subband 0."""
INTEGRATION_S = 12.884902000427246

DISH_M = 4.65


@dataclass(frozen=True)
class Stations:
    """The stations, in order of their number; every array has 117 rows."""

    number: npt.NDArray[np.int16]
    """1 to 117; the pyuvdata number is one less."""
    names: tuple[str, ...]
    """Antenna names as the telescope writes them: the number as text."""
    arm: tuple[str, ...]
    """``ew``, ``ns`` or ``outrigger``."""
    active: npt.NDArray[np.bool_]
    """True for the 96 that are correlated."""
    lat_deg: FloatArray
    lon_deg: FloatArray
    height_m: FloatArray
    """Above the WGS84 ellipsoid."""
    itrf_m: FloatArray
    """Shape (117, 3)."""


@functools.cache
def stations() -> Stations:
    """Return the stations; read-only arrays, shared by all callers."""
    table = read_shipped(STATIONS)
    # Not to_numpy: that imports pandas if installed, which takes longer than all the rest.
    column = {
        name: np.array(table[name].to_pylist(), table[name].type.to_pandas_dtype())
        for name in table.column_names
    }
    itrf = np.stack([column[axis] for axis in ("x", "y", "z")], axis=1)
    for array in (*column.values(), itrf):
        array.flags.writeable = False
    return Stations(
        number=column["station"],
        names=tuple(map(str, column["station"])),
        arm=tuple(map(str, column["arm"])),
        active=column["active"],
        lat_deg=column["lat"],
        lon_deg=column["lon"],
        height_m=column["height"],
        itrf_m=itrf,
    )


def band_hz() -> FloatArray:
    """Return the 768 channel centres of a Measurement Set's spectral window, Hz, ascending."""
    return TOP_HZ - CHANNEL_WIDTH_HZ * np.arange(N_CHANNELS - 1, -1, -1, dtype=np.float64)
