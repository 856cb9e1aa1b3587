"""Headers of UVH5 subbands: read, check each, and check that they belong together."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from contimg.astro import telescope
from contimg.astro.coordinates import Site
from contimg.runtime.errors import (
    BadFileError,
    InconsistentGroupError,
    StoreError,
    WrongTelescopeError,
)
from contimg_convert.chunks import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

INSTRUMENT = "DSA"
POLARIZATIONS = (-5, -6)
"""XX and YY (AIPS memo 117)."""
DEC_TOLERANCE_RAD = np.radians(0.001)
"""The pointing is constant within a dwell to this."""
CHANNEL_TOLERANCE = 1e-3
"""Frequencies may be off the grid by this fraction of a channel."""
UVW_TOLERANCE = 0.01
"""The header's own UVW may differ from ours by this fraction of the longest baseline: signs, Dec and stations are right then."""
RECOPY = "Copy the subband again from the telescope's disk."
REGROUP = "Take the subband out of the group, and see how it came into it."


@dataclass(frozen=True)
class Array:
    """The antennas of the telescope; A of them, whether they have data or not."""

    numbers: IntArray
    names: tuple[str, ...]
    positions_m: FloatArray
    """Shape (A, 3), ITRF axes, relative to the site."""
    diameters_m: FloatArray
    site: Site


@dataclass(frozen=True)
class SubbandHeader:
    """What one file says; T integrations, B baselines, C channels."""

    where: str
    """URI of the file, for messages."""
    index: int
    frequencies_hz: FloatArray
    """Shape (C,), in the order of the file: descending."""
    width_hz: float
    times_jd: FloatArray
    """Shape (T,), midpoints, UTC."""
    integration_s: float
    antenna1: IntArray
    """Shape (B,), antenna numbers."""
    antenna2: IntArray
    uvw_m: FloatArray
    """Shape (B, 3), as the file has it: for the direction (ha, dec), antenna 2 less antenna 1."""
    ha_rad: float
    """Apparent direction for which the fringes were stopped."""
    dec_rad: float
    array: Array


@dataclass(frozen=True)
class Subband:
    """An open file."""

    header: SubbandHeader
    visibilities: Dataset
    flags: Dataset
    samples: Dataset


@contextlib.contextmanager
def opened(path: Path, where: str, index: int) -> Iterator[Subband]:
    """Open one subband.

    Raises
    ------
    BadFileError
        If it is empty, truncated, no HDF5, no UVH5, or not as this telescope writes it.
    WrongTelescopeError
        If another one wrote it.
    StoreError
        If the file is there but cannot be read.
    """
    with _stream(path, where) as stream, _hdf5(path, where) as file:
        try:
            header, data = read_header(file["Header"], where, index), file["Data"]
            made = [
                Dataset(where, data[name], stream.fileno(), dtype)
                for name, dtype in (("visdata", "<c8"), ("flags", "bool"), ("nsamples", "<f4"))
            ]
        except KeyError as error:
            raise BadFileError(
                where, f"expected a UVH5 file, found one without {error.args[0]}.", RECOPY
            ) from error
        wanted = (
            len(header.times_jd) * len(header.antenna1),
            len(header.frequencies_hz),
            len(POLARIZATIONS),
        )
        for dataset in made:
            if dataset.whole != wanted:
                raise BadFileError(
                    where,
                    f"expected arrays of shape {wanted}, as the header says, found {dataset.whole!s}.",
                    RECOPY,
                )
        yield Subband(header, *made)


def _stream(path: Path, where: str) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise StoreError(
            where, f"expected a readable file, found {error!s}.", "Check mounts and permissions."
        ) from error


@contextlib.contextmanager
def _hdf5(path: Path, where: str) -> Iterator[h5py.File]:
    if path.stat().st_size == 0:
        raise BadFileError(where, "expected a UVH5 file, found an empty file.", RECOPY)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        text = str(error)
        found = (
            "a truncated file"
            if "truncated" in text
            else "no HDF5 file"
            if "signature" in text
            else "a damaged file"
        )
        raise BadFileError(
            where,
            f"expected a whole UVH5 file, found {found} of {path.stat().st_size} bytes ({text}).",
            RECOPY,
        ) from error
    with file:
        yield file


def read_header(header: h5py.Group, where: str, index: int) -> SubbandHeader:
    """Read and check the header of one file."""
    _check_origin(header, where)
    times, antenna1, antenna2 = _axes(header, where)
    frequencies = np.asarray(header["freq_array"][()], np.float64).ravel()
    width = float(np.ravel(header["channel_width"][()])[0])
    if not np.allclose(np.diff(frequencies), -width, rtol=0, atol=CHANNEL_TOLERANCE * width):
        found = (
            f"steps from {np.diff(frequencies).min():.0f} to {np.diff(frequencies).max():.0f} Hz"
        )
        raise InconsistentGroupError(
            where, f"expected channels that descend by {width:.0f} Hz, found {found}.", REGROUP
        )
    keywords = header["extra_keywords"]
    return SubbandHeader(
        where=where,
        index=index,
        frequencies_hz=frequencies,
        width_hz=width,
        times_jd=times,
        integration_s=float(header["integration_time"][0]),
        antenna1=antenna1,
        antenna2=antenna2,
        uvw_m=np.asarray(header["uvw_array"][: len(antenna1)], np.float64),
        ha_rad=float(keywords["ha_phase_center"][()]),
        dec_rad=float(keywords["phase_center_dec"][()]),
        array=_array(header, where, np.concatenate([antenna1, antenna2])),
    )


def _check_origin(header: h5py.Group, where: str) -> None:
    name, instrument = _text(header["telescope_name"][()]), _text(header["instrument"][()])
    if name not in telescope.NAMES or not instrument.startswith(INSTRUMENT):
        wanted = f"telescope {telescope.NAMES[0]}, instrument {INSTRUMENT}"
        raise WrongTelescopeError(
            where,
            f"expected {wanted}, found {name}, {instrument}.",
            "Bring data of the DSA-110 only.",
        )
    phase = _text(header["phase_type"][()]) if "phase_type" in header else "none"
    if phase != "drift":
        remedy = "Bring the files as the correlator writes them."
        raise BadFileError(
            where,
            f"expected phase_type drift (fringes stopped at the meridian), found {phase}.",
            remedy,
        )
    found = tuple(int(code) for code in header["polarization_array"][()])
    if found != POLARIZATIONS:
        raise BadFileError(
            where, f"expected polarizations {POLARIZATIONS} (XX, YY), found {found!s}.", RECOPY
        )


def _axes(header: h5py.Group, where: str) -> tuple[FloatArray, IntArray, IntArray]:
    """Return times (T,) and antenna pairs (B,) of a file whose rows are time-major."""
    times = np.asarray(header["time_array"][()], np.float64)
    pairs = np.stack([header["ant_1_array"][()], header["ant_2_array"][()]]).astype(np.int64)
    change = np.flatnonzero(np.diff(times) != 0)
    baselines = int(change[0]) + 1 if change.size else times.size
    regular = times.size and times.size % baselines == 0 and pairs.shape[1] == times.size
    if regular:
        regular = bool(
            np.all(times.reshape(-1, baselines) == times[::baselines, None])
            and np.all(pairs.reshape(2, -1, baselines) == pairs[:, None, :baselines])
            and np.all(np.diff(times[::baselines]) > 0)
        )
    if not regular:
        found = f"{times.size} rows that are not"
        raise BadFileError(
            where,
            f"expected integrations in order of time, each with the same baselines, found {found}.",
            RECOPY,
        )
    return times[::baselines].copy(), pairs[0, :baselines].copy(), pairs[1, :baselines].copy()


def _array(header: h5py.Group, where: str, used: IntArray) -> Array:
    numbers = np.asarray(header["antenna_numbers"][()], np.int64)
    lengths = {
        len(header[name]) for name in ("antenna_numbers", "antenna_names", "antenna_positions")
    }
    if len(lengths) > 1 or not np.all(np.isin(used, numbers)):
        found = f"antennas {sorted(set(used.tolist()) - set(numbers.tolist()))} without, lists of {sorted(lengths)}"
        raise BadFileError(
            where, f"expected number, name and position of every antenna, found {found}.", RECOPY
        )
    diameters = (
        header["antenna_diameters"][()] if "antenna_diameters" in header else telescope.DISH_M
    )
    return Array(
        numbers=numbers,
        names=tuple(_text(name) for name in header["antenna_names"][()]),
        positions_m=np.asarray(header["antenna_positions"][()], np.float64),
        diameters_m=np.broadcast_to(np.asarray(diameters, np.float64), numbers.shape).copy(),
        site=Site(*(float(header[name][()]) for name in ("latitude", "longitude", "altitude"))),
    )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def check_group(headers: Mapping[int, SubbandHeader], count: int) -> FloatArray:
    """Check that subbands belong together; return the band's channels, shape (count x C,), Hz, ascending, with those that are missing.

    Raises
    ------
    InconsistentGroupError
        Naming the file that disagrees with the first one.
    """
    first = headers[min(headers)]
    for header in headers.values():
        _same(header, first)
    channels = len(first.frequencies_hz)
    span = channels * first.width_hz
    top = first.frequencies_hz[0] + first.index * span
    for index, header in headers.items():
        wanted, found = top - index * span, header.frequencies_hz[0]
        if abs(wanted - found) > CHANNEL_TOLERANCE * first.width_hz:
            expected = f"subband {index} to begin at {wanted / 1e6:.6f} MHz, as {first.where} says"
            raise InconsistentGroupError(
                header.where, f"expected {expected}, found {found / 1000000.0:.6f} MHz.", REGROUP
            )
    band: FloatArray = top - first.width_hz * np.arange(count * channels, dtype=np.float64)
    for index, header in headers.items():
        band[index * channels : (index + 1) * channels] = header.frequencies_hz
    return band[::-1].copy()


def _same(header: SubbandHeader, first: SubbandHeader) -> None:
    """Compare one subband with the first one."""
    if not np.array_equal(header.times_jd, first.times_jd):
        wanted, found = (
            f"{len(h.times_jd)} integrations from JD {h.times_jd[0]:.8f}" for h in (first, header)
        )
        raise InconsistentGroupError(
            header.where,
            f"expected the time axis of {first.where} ({wanted}), found {found}.",
            REGROUP,
        )
    if abs(header.dec_rad - first.dec_rad) > DEC_TOLERANCE_RAD or header.ha_rad != first.ha_rad:
        wanted, found = (
            f"HA {np.degrees(h.ha_rad):.4f}, Dec {np.degrees(h.dec_rad):.4f} deg"
            for h in (first, header)
        )
        raise InconsistentGroupError(
            header.where,
            f"expected the pointing of {first.where} ({wanted}), found {found}.",
            REGROUP,
        )
    same = np.array_equal(header.antenna1, first.antenna1) and np.array_equal(
        header.antenna2, first.antenna2
    )
    if not same or not np.array_equal(header.array.positions_m, first.array.positions_m):
        wanted, found = (f"{len(h.antenna1)} baselines" for h in (first, header))
        raise InconsistentGroupError(
            header.where,
            f"expected antennas and baselines of {first.where} ({wanted}), found other {found}.",
            REGROUP,
        )
    if len(header.frequencies_hz) != len(first.frequencies_hz) or header.width_hz != first.width_hz:
        wanted, found = (
            f"{len(h.frequencies_hz)} channels of {h.width_hz:.3f} Hz" for h in (first, header)
        )
        raise InconsistentGroupError(
            header.where, f"expected {wanted}, as {first.where}, found {found}.", REGROUP
        )


def check_uvw(header: SubbandHeader, ours_m: FloatArray) -> float:
    """Compare the header's UVW with ours, shape (B, 3), m; return the largest difference, m.

    Raises
    ------
    InconsistentGroupError
        If sign, Declination or station coordinates cannot be what we take them for.
    """
    longest = float(np.max(np.linalg.norm(ours_m, axis=1)))
    found = float(np.max(np.abs(header.uvw_m - ours_m)))
    if not found <= max(1.0, UVW_TOLERANCE * longest):
        remedy = (
            "Check antenna_positions, phase_center_dec and the sign of uvw_array in the header."
        )
        raise InconsistentGroupError(
            header.where,
            f"expected uvw_array that follows from the antenna positions, found off by {found:.1f} m.",
            remedy,
        )
    return found
