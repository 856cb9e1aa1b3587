"""The DSA-110: its stations, its band and the beam of one dish."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import Site
from contimg.records.groups import N_SUBBANDS
from contimg.records.schemas.shipped import STATIONS
from contimg.runtime.errors import UsageError

FloatArray = npt.NDArray[np.float64]

SITE = Site(lat_deg=37.234, lon_deg=-118.283, height_m=1188.0)
"""As in the data; a group's own header is to be preferred."""
NAMES = ("OVRO_MMA", "DSA_110", "DSA-110")
"""Names of the telescope in headers."""
MS_NAME = "DSA_110"
"""TELESCOPE_NAME of every Measurement Set."""

CHANNELS_PER_SUBBAND = 48
N_CHANNELS = N_SUBBANDS * CHANNELS_PER_SUBBAND
CHANNEL_WIDTH_HZ = 244140.625
"""250 MHz / 1024."""
TOP_HZ = 1498.643188e6
"""Centre of the highest channel, the first one of subband 0."""
INTEGRATION_S = 12.884902000427246
SEFD_JY = 6000.0
"""System equivalent flux density of one antenna and polarization; measured: 5800 to 6500 Jy."""

DISH_M = 4.65
MAX_SERIES_X = 1e-4
"""The x below which 1 - x^2/4 is the Airy pattern to every digit."""
AIRY_HALF_POWER = 1.616339948310703
"""The x at which (2 J1(x) / x)^2 is one half."""


@dataclass(frozen=True)
class Stations:
    """The stations, in order of their number; every array has 117 rows."""

    number: npt.NDArray[np.int16]
    """1 to 117; the antenna's name is this as text, its pyuvdata number is one less."""
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

    @property
    def names(self) -> tuple[str, ...]:
        """Antenna names as the telescope writes them."""
        return tuple(str(number) for number in self.number)


@functools.cache
def stations() -> Stations:
    """Return the stations; read-only arrays, shared by all callers."""
    data = (files("contimg.astro") / "data" / "stations.parquet").read_bytes()
    table = STATIONS.read(data, "package data stations.parquet")
    # Not to_numpy: that imports pandas if installed, which takes longer than all the rest.
    column = {
        name: np.array(table[name].to_pylist(), table[name].type.to_pandas_dtype())
        for name in table.column_names
        if name != "arm"
    }
    itrf = np.stack([column[axis] for axis in ("x", "y", "z")], axis=1)
    for array in (*column.values(), itrf):
        array.flags.writeable = False
    return Stations(
        number=column["station"],
        arm=tuple(str(arm) for arm in table["arm"].to_pylist()),
        active=column["active"],
        lat_deg=column["lat"],
        lon_deg=column["lon"],
        height_m=column["height"],
        itrf_m=itrf,
    )


def subband_frequencies_hz(subband: int) -> FloatArray:
    """Return the 48 channel centres of a subband, Hz, in the order of its file: descending.

    Raises
    ------
    UsageError
        If there is no such subband.
    """
    if not 0 <= subband < N_SUBBANDS:
        problem = f"There is no subband {subband}; they are 0 to {N_SUBBANDS - 1}."
        raise UsageError("subband", problem, "Name a subband of the telescope.")
    channels = np.arange(CHANNELS_PER_SUBBAND, dtype=np.float64) + subband * CHANNELS_PER_SUBBAND
    return TOP_HZ - CHANNEL_WIDTH_HZ * channels


def band_hz() -> FloatArray:
    """Return the 768 channel centres of a Measurement Set's spectral window, Hz, ascending."""
    return TOP_HZ - CHANNEL_WIDTH_HZ * np.arange(N_CHANNELS - 1, -1, -1, dtype=np.float64)


def primary_beam(separation_rad: npt.ArrayLike, freq_hz: npt.ArrayLike) -> FloatArray:
    """Return the power pattern of one dish, 1 at the centre: an Airy disc of 4.65 m.

    (2 J1(x) / x)^2 with x = pi D sin(separation) / wavelength: a uniformly illuminated circular
    aperture (Born & Wolf, 8.5.2). The arguments broadcast.
    """
    from scipy.special import j1  # slow to import, and options and watch do without

    frequency = np.asarray(freq_hz, np.float64)
    x = np.pi * DISH_M / SPEED_OF_LIGHT_M_S * frequency * np.sin(np.abs(separation_rad))
    central = x < MAX_SERIES_X  # where the quotient is 0/0
    safe = np.where(central, 1.0, x)
    return np.asarray(np.where(central, 1.0 - x**2 / 4, (2 * j1(safe) / safe) ** 2))


def beam_fwhm_rad(freq_hz: npt.ArrayLike) -> FloatArray:
    """Return the full width at half maximum of the primary beam: 2.71 deg at 1.405 GHz."""
    wavelengths = np.pi * DISH_M * np.asarray(freq_hz, np.float64)
    half = np.arcsin(AIRY_HALF_POWER * SPEED_OF_LIGHT_M_S / wavelengths)
    return np.asarray(2 * half, np.float64)
