"""Headers of UVH5 subbands: read each one, check it, and check that they belong together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import erfa
import h5py
import numpy as np

from contimg.astro import telescope
from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import Site
from contimg.runtime.errors import (
    BadFileError,
    InconsistentGroupError,
    StoreError,
    WrongTelescopeError,
)
from contimg_convert.chunks import RECOPY_REMEDY, Dataset
from contimg_convert.geometry import FloatArray, IntArray

INSTRUMENT = "DSA"
POLARIZATIONS = (-5, -6)
"""XX and YY (AIPS memo 117)."""
POINTING_TOLERANCE_RAD = np.radians(0.001)
"""The pointing is constant within a dwell to this."""
CHANNEL_TOLERANCE = 1e-3
"""Frequencies may be off the grid by this fraction of a channel."""
UVW_TOLERANCE_M = 0.05
"""The header's UVW may differ from ours by this: 0.001 deg of Declination on the longest baseline.
Those of the telescope agree to 1e-4 m."""
LST_TOLERANCE_S = 3.0
"""Above UT1-UTC (0.9 s) and below half an integration, as of times that are not midpoints."""
EXPECTED_TEXTS = {
    "timesys": ("utc",),
    "telescope_frame": ("itrs",),
    "vis_units": ("", "uncalib", "jy"),
}
"""What optional texts of a header must say, in lower case."""
TIME_TOLERANCE = 0.01
"""Spacing and length of integrations may differ by this fraction of an integration."""
REGROUP_REMEDY = "Take the subband out of the group, and find out how it got into it."
RAW_FILE_REMEDY = "Use the files as the correlator writes them."


@dataclass(frozen=True, kw_only=True)
class AntennaArray:
    """The A antennas of the telescope, whether they have data or not."""

    numbers: IntArray
    names: tuple[str, ...]
    positions_m: FloatArray
    """Shape (A, 3), ITRF axes, relative to the site."""
    diameters_m: FloatArray
    site: Site


@dataclass(frozen=True, kw_only=True)
class UVH5Header:
    """The header of one file; T integrations, B baselines, C channels."""

    uri: str
    """URI of the file, for messages."""
    index: int
    frequencies_hz: FloatArray
    """Shape (C,), in the order of the file: descending."""
    width_hz: float
    times_jd: FloatArray
    """Shape (T,), midpoints, UTC."""
    integration_s: float
    lost_integrations: int
    """Integrations that are missing between the first and the last one."""
    antenna1: IntArray
    """Shape (B,), antenna numbers."""
    antenna2: IntArray
    uvw_m: FloatArray
    """Shape (T, B, 3), from the file: for the direction (ha, dec), antenna 2 less antenna 1."""
    ha_rad: float
    """Apparent direction for which the fringes were stopped."""
    dec_rad: float
    array: AntennaArray


@dataclass(frozen=True, kw_only=True)
class OpenSubband:
    """An open file."""

    header: UVH5Header
    visibilities: Dataset
    flags: Dataset
    samples: Dataset


SHARED: dict[str, Callable[[UVH5Header], str]] = {
    "time axis": lambda h: f"{len(h.times_jd)} integrations from JD {h.times_jd[0]:.8f}",
    "pointing": lambda h: f"HA {np.degrees(h.ha_rad):.4f}, Dec {np.degrees(h.dec_rad):.4f} deg",
    "set of antennas and baselines": lambda h: (
        f"{len(h.array.numbers)} antennas, {len(h.antenna1)} baselines"
    ),
    "channel grid": lambda h: f"{len(h.frequencies_hz)} channels of {h.width_hz:.3f} Hz",
}
"""What all subbands of a group have in common, and how to describe it."""


@contextlib.contextmanager
def open_subband(path: Path, uri: str, index: int) -> Iterator[OpenSubband]:
    """Open one subband.

    Raises BadFileError if it is empty, truncated, not HDF5, not UVH5, or not as this telescope
    writes it; WrongTelescopeError if another telescope wrote it; StoreError if the file exists but
    cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
        except OSError as error:
            remedy = "Check mounts and permissions."
            raise StoreError(uri, f"The file cannot be read: {error!s}.", remedy) from error
        size = path.stat().st_size
        if size == 0:
            raise BadFileError(uri, "The file is empty.", RECOPY_REMEDY)
        try:
            file = stack.enter_context(h5py.File(path, "r", locking=False))
        except OSError as error:
            text = str(error)
            kinds = {"truncated": "truncated", "signature": "not an HDF5 file"}
            kind = next((kinds[word] for word in kinds if word in text), "damaged")
            problem = f"The file of {size} bytes is {kind} (HDF5: {text})."
            raise BadFileError(uri, problem, RECOPY_REMEDY) from error
        try:
            header = read_header(file["Header"], uri, index)
            visibilities, flags, samples = (
                Dataset(uri, file["Data"][name], stream.fileno(), dtype)
                for name, dtype in (("visdata", "<c8"), ("flags", "bool"), ("nsamples", "<f4"))
            )
        except KeyError as error:
            problem = f"The file is not a UVH5 file of the DSA-110 ({error.args[0]})."
            raise BadFileError(uri, problem, RECOPY_REMEDY) from error
        rows = len(header.times_jd) * len(header.antenna1)
        shape = (rows, len(header.frequencies_hz), len(POLARIZATIONS))
        for data in (visibilities, flags, samples):
            if data.shape != shape:
                problem = f"Its arrays have the shape {data.shape}, but its header says {shape}."
                raise BadFileError(uri, problem, RECOPY_REMEDY)
        yield OpenSubband(header=header, visibilities=visibilities, flags=flags, samples=samples)


def read_header(header: h5py.Group, uri: str, index: int) -> UVH5Header:
    """Read and check the header of one file."""
    name, instrument = (_decode_text(header[key][()]) for key in ("telescope_name", "instrument"))
    if name not in telescope.NAMES or not instrument.startswith(INSTRUMENT):
        problem = f"The file is from telescope {name}, instrument {instrument}, not the DSA-110."
        raise WrongTelescopeError(uri, problem, "Use data of the DSA-110 only.")
    polarizations = tuple(int(code) for code in header["polarization_array"][()])
    if polarizations != POLARIZATIONS:
        problem = f"The polarizations are {polarizations}, not {POLARIZATIONS} (XX, YY)."
        raise BadFileError(uri, problem, RECOPY_REMEDY)
    _check_texts(header, uri)
    times, antenna1, antenna2 = _read_rows(header, uri)
    integration_s, lost = _read_integrations(header, times, uri)
    frequencies = np.asarray(header["freq_array"][()], np.float64).ravel()
    width = float(np.ravel(header["channel_width"][()])[0])
    steps = np.diff(frequencies)
    if not np.allclose(steps, -width, rtol=0, atol=CHANNEL_TOLERANCE * width):
        found = f"{steps.min():.0f} to {steps.max():.0f} Hz"
        problem = f"The channels step by {found}; they must descend by {width:.0f} Hz."
        raise InconsistentGroupError(uri, problem, REGROUP_REMEDY)
    array = _read_antennas(header, uri, np.concatenate([antenna1, antenna2]))
    _check_sidereal_times(header, array.site, uri)
    ha, dec = read_fringe_stop(header, array.site, uri)
    return UVH5Header(
        uri=uri,
        index=index,
        frequencies_hz=frequencies,
        width_hz=width,
        times_jd=times,
        integration_s=integration_s,
        lost_integrations=lost,
        antenna1=antenna1,
        antenna2=antenna2,
        uvw_m=np.asarray(header["uvw_array"][()], np.float64).reshape(-1, len(antenna1), 3),
        ha_rad=ha,
        dec_rad=dec,
        array=array,
    )


def _decode_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_texts(header: h5py.Group, uri: str) -> None:
    """Raise BadFileError for time scales, frames, units or windows that mean something else."""
    problem = ""
    for name, expected in EXPECTED_TEXTS.items():
        stated = _decode_text(header[name][()]) if name in header else expected[0]
        if stated.lower() not in expected:
            problem = f"{name} is {stated!r}; contimg reads {expected[-1]!r}."
    windows = int(header["Nspws"][()]) if "Nspws" in header else 1
    if "flex_spw_polarization_array" in header or windows != 1:
        problem = "The file has several spectral windows; one is expected."
    if problem:
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)


def _check_sidereal_times(header: h5py.Group, site: Site, uri: str) -> None:
    """Raise BadFileError if lst_array (rad), where there is one, is not that of the times (UTC).

    It shows times of another scale or at the start of integrations, and a wrong longitude.
    """
    if "lst_array" not in header:
        return
    times = np.asarray(header["time_array"][()], np.float64)
    ours = erfa.gst94(times, 0.0) + np.radians(site.lon_deg)
    away = np.asarray(header["lst_array"][()], np.float64) - ours
    off_s = float(np.median((away + np.pi) % (2 * np.pi) - np.pi) * DAY_S / (2 * np.pi))
    if not abs(off_s) <= LST_TOLERANCE_S:
        problem = f"lst_array is {off_s:+.1f} s from the times (UTC midpoints) and the longitude."
        raise BadFileError(uri, problem, "Check time_array, lst_array and longitude of the file.")


def _read_rows(header: h5py.Group, uri: str) -> tuple[FloatArray, IntArray, IntArray]:
    """Return times (T,) and antenna pairs (B,) of a file whose rows are time-major."""
    times = np.asarray(header["time_array"][()], np.float64)
    pairs = np.stack([header["ant_1_array"][()], header["ant_2_array"][()]]).astype(np.int64)
    change = np.flatnonzero(np.diff(times) != 0)
    baselines = int(change[0]) + 1 if change.size else times.size
    regular = times.size and times.size % baselines == 0 and pairs.shape[1] == times.size
    if not regular or not (
        np.all(times.reshape(-1, baselines) == times[::baselines, None])
        and np.all(pairs.reshape(2, -1, baselines) == pairs[:, None, :baselines])
        and np.all(np.diff(times[::baselines]) > 0)
    ):
        order = "integrations in order of time, each with the same baselines"
        problem = f"The {times.size} rows are not {order}."
        raise BadFileError(uri, problem, RECOPY_REMEDY)
    repeated = baselines - np.unique(np.sort(pairs[:, :baselines], axis=0), axis=1).shape[1]
    if repeated:
        problem = f"{repeated} baselines of an integration are there twice."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)
    return times[::baselines].copy(), pairs[0, :baselines].copy(), pairs[1, :baselines].copy()


def _read_integrations(header: h5py.Group, times_jd: FloatArray, uri: str) -> tuple[float, int]:
    """Return the length of an integration, s, and how many are missing between first and last.

    Raises BadFileError if lengths differ, or do not fit the times.
    """
    lengths_s = np.asarray(header["integration_time"][()], np.float64)
    length_s = float(np.median(lengths_s))
    if not (length_s > 0 and np.all(np.abs(lengths_s - length_s) <= TIME_TOLERANCE * length_s)):
        found = f"{lengths_s.min():g} to {lengths_s.max():g} s"
        problem = f"The integrations last {found}; all must be equally long."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)
    steps = np.diff(times_jd) * DAY_S / length_s
    whole = np.round(steps)
    is_odd = (whole < 1) | (np.abs(steps - whole) > TIME_TOLERANCE * np.maximum(1, whole))
    if is_odd.any() or (steps.size and np.median(whole) != 1):
        found = f"{steps.min() * length_s:.3f} to {steps.max() * length_s:.3f} s"
        problem = f"The integrations of {length_s:.3f} s follow each other after {found}."
        raise BadFileError(uri, problem, "Check time_array and integration_time of the file.")
    return length_s, int(np.sum(whole - 1))


def _read_antennas(header: h5py.Group, uri: str, used: IntArray) -> AntennaArray:
    numbers = np.asarray(header["antenna_numbers"][()], np.int64)
    lengths = {len(header[f"antenna_{name}"]) for name in ("numbers", "names", "positions")}
    unknown = sorted(set(used.tolist()) - set(numbers.tolist()))
    if len(lengths) > 1 or unknown or np.unique(numbers).size != numbers.size:
        found = f"antennas {unknown} have none, and the lists have lengths {sorted(lengths)}"
        problem = f"Every antenna needs a number of its own, a name and a position; {found}."
        raise BadFileError(uri, problem, RECOPY_REMEDY)
    has_diameters = "antenna_diameters" in header
    diameters = header["antenna_diameters"][()] if has_diameters else telescope.DISH_M
    return AntennaArray(
        numbers=numbers,
        names=tuple(map(_decode_text, header["antenna_names"][()])),
        positions_m=np.asarray(header["antenna_positions"][()], np.float64),
        diameters_m=np.broadcast_to(np.asarray(diameters, np.float64), numbers.shape).copy(),
        site=Site(*(float(header[name][()]) for name in ("latitude", "longitude", "altitude"))),
    )


def read_fringe_stop(header: h5py.Group, site: Site, uri: str) -> tuple[float, float]:
    """Return the apparent hour angle and Declination for which the fringes were stopped, rad.

    The telescope's files have phase_type "drift" and two extra keywords. pyuvdata reads that as
    unprojected, which means phased to the zenith elsewhere, and keeps the keywords when it writes
    the file with a catalogue of phase centres (UVH5 1.2). `check_uvw` tests whether they hold.

    Raises BadFileError if the data are phased to another kind of centre, or the header contradicts
    itself.
    """
    keywords = header.get("extra_keywords", {})
    names = ("ha_phase_center", "phase_center_dec")
    stated = None
    if all(name in keywords and keywords[name].shape == () for name in names):
        stated = float(keywords[names[0]][()]), float(keywords[names[1]][()])
    phase = _decode_text(header["phase_type"][()]) if "phase_type" in header else ""
    if phase not in {"", "drift"}:
        problem = f"The data are phased (phase_type {phase}); expected drift: fringes stopped at"
        raise BadFileError(uri, f"{problem} the meridian.", RAW_FILE_REMEDY)
    centre = None if phase else _read_catalogued_centre(header, site, uri)
    found = stated or centre
    if found is None:
        missing = " or ".join(names)
        problem = f"The header does not say where the fringes were stopped: no {missing}."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)
    _check_apparent_dec(header, found[1], site, uri)
    if centre is not None and np.max(np.abs(np.subtract(found, centre))) > POINTING_TOLERANCE_RAD:
        here, there = (", ".join(f"{np.degrees(a):.4f}" for a in pair) for pair in (found, centre))
        problem = f"The keywords say HA, Dec = {here} deg, but the phase centre is at {there} deg."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)
    return found


def _check_apparent_dec(header: h5py.Group, dec_rad: float, site: Site, uri: str) -> None:
    """Raise BadFileError if the header's own apparent Declination, where it has one, is another.

    pyuvdata writes the latitude there where it takes the data for unprojected.
    """
    if "phase_center_app_dec" not in header:
        return
    stated = np.unique(np.asarray(header["phase_center_app_dec"][()], np.float64))
    away = np.abs(np.subtract.outer(stated, [dec_rad, np.radians(site.lat_deg)]))
    if np.any(~(away.min(axis=1) <= POINTING_TOLERANCE_RAD)):
        found = f"phase_center_app_dec is {np.degrees(stated[0]):.4f} deg"
        problem = f"{found}, but the fringes were stopped at Dec {np.degrees(dec_rad):.4f} deg."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)


def _read_catalogued_centre(header: h5py.Group, site: Site, uri: str) -> tuple[float, float] | None:
    """Return HA and Dec of the phase centre in the catalogue of UVH5 1.2; None: unprojected."""
    from pyuvdata.uvdata import FastUVH5Meta  # takes 1.8 s of CPU: only where it is needed

    # A handle of its own: FastUVH5Meta closes the file when it is deleted.
    meta = FastUVH5Meta(h5py.File(header.file.filename, "r", locking=False))
    try:
        version = getattr(meta, "version", "1.0")
        catalogue = meta.phase_center_catalog
        centres = [catalogue[int(number)] for number in np.unique(meta.phase_center_id_array)]
        kinds = [(str(one["cat_type"]), str(one.get("cat_name"))) for one in centres]
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        problem = f"The header has neither phase_type nor readable phase centres ({error!s})."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY) from error
    finally:
        meta.close()
    if version.partition(".")[0] != "1":
        problem = f"The file has version {version} of UVH5; contimg reads versions 1.x."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)
    if len(centres) != 1 or kinds[0][0] not in {"unprojected", "driftscan"}:
        found = ", ".join(f"{name} ({kind})" for kind, name in kinds)
        problem = f"The data are phased to {found}; expected fringes stopped at the meridian."
        raise BadFileError(uri, problem, RAW_FILE_REMEDY)
    if kinds[0][0] == "unprojected":
        return None
    latitude = np.radians(site.lat_deg)
    ha, dec = erfa.ae2hd(centres[0]["cat_lon"], centres[0]["cat_lat"], latitude)
    return float(ha), float(dec)


def check_group(headers: Mapping[int, UVH5Header], count: int) -> FloatArray:
    """Check that the subbands belong together; return the channels of the band.

    They have shape (count x C,), Hz, ascending, those of missing subbands included.

    Raises InconsistentGroupError naming the file that disagrees with the first one.
    """
    first = headers[min(headers)]
    channels, width, array = len(first.frequencies_hz), first.width_hz, first.array
    for header in headers.values():
        pointing = abs(header.dec_rad - first.dec_rad) <= POINTING_TOLERANCE_RAD
        antennas = (
            np.array_equal(header.array.positions_m, array.positions_m)
            and np.array_equal(header.array.numbers, array.numbers)
            and (header.array.names, header.array.site) == (array.names, array.site)
        )
        pairs, wanted = ((h.antenna1, h.antenna2) for h in (header, first))
        same = {
            "time axis": np.array_equal(header.times_jd, first.times_jd),
            "pointing": pointing and header.ha_rad == first.ha_rad,
            "set of antennas and baselines": antennas and np.array_equal(pairs, wanted),
            "channel grid": (len(header.frequencies_hz), header.width_hz) == (channels, width),
        }
        for what, describe in SHARED.items():
            if not same[what]:
                problem = f"The {what} ({describe(header)}) differs from that of {first.uri}"
                problem += f" ({describe(first)})."
                raise InconsistentGroupError(header.uri, problem, REGROUP_REMEDY)
    span = channels * width
    top = first.frequencies_hz[0] + first.index * span
    band: FloatArray = top - width * np.arange(count * channels, dtype=np.float64)
    for index, header in headers.items():
        expected, found = top - index * span, header.frequencies_hz[0]
        if abs(expected - found) > CHANNEL_TOLERANCE * width:
            begin = f"Subband {index} begins at {found / 1e6:.6f} MHz"
            problem = f"{begin}; after {first.uri} it must begin at {expected / 1e6:.6f} MHz."
            raise InconsistentGroupError(header.uri, problem, REGROUP_REMEDY)
        band[index * channels : (index + 1) * channels] = header.frequencies_hz
    return band[::-1].copy()


def check_uvw(header: UVH5Header, ours_m: FloatArray) -> float:
    """Compare the header's UVW with ours, shape (B, 3), m; return the largest difference, m.

    Raises InconsistentGroupError if sign, Declination or station coordinates cannot be as we take
    them, or the UVW follow a source, so that its fringes and not the meridian's were stopped.
    """
    found = float(np.max(np.abs(header.uvw_m - ours_m)))
    if not found <= UVW_TOLERANCE_M:
        problem = f"uvw_array is off by up to {found:.3f} m from the antenna positions."
        remedy = "Check antenna_positions, phase_center_dec and the sign of uvw_array."
        raise InconsistentGroupError(header.uri, problem, remedy)
    return found
