"""Visibilities of small arrays that tests of the imager's parts share."""

import numpy as np
import numpy.typing as npt

from contimg.astro.beam_files import read_beam
from contimg.astro.constants import DAY_S, DEFAULT_SPECTRAL_INDEX, SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import direction_cosines, icrs_of_hadec
from contimg.astro.telescope import INTEGRATION_S, SITE, stations
from contimg.records.ms import Antennas, MSHeader
from contimg_image.averaging import AveragedBaselines, AveragedVisibilities
from contimg_image.field import ImagingField
from contimg_image.tiers import Settings

Floats = npt.NDArray[np.float64]

BEAM = read_beam("airy:4.65")
MJD = 61065.05196817219
DEC_DEG = 33.0
FIELD_RAD = float(np.radians(4.5))
EARTH_RAD_S = 7.292115855e-5


def header(freq_hz: Floats, width_hz: float) -> MSHeader:
    """Return the header of a group whose phase centre is on the meridian at MJD."""
    dishes = Antennas(stations().names, stations().itrf_m, np.full(117, 4.65))
    ra, dec = icrs_of_hadec(0.0, np.radians(DEC_DEG), MJD, SITE)
    return MSHeader("DSA_110", "field", float(ra), float(dec), freq_hz, width_hz, dishes)


def averaged(
    *, times: int = 3, every: int = 4, factor: int = 2, channels: int = 8
) -> AveragedVisibilities:
    """Return baselines of one in `every` active stations with random weights and no signal."""
    rng = np.random.default_rng(1)
    width = 187.5e6 / channels / factor
    freq = 1.311265e9 + width * factor * (np.arange(channels) + 0.5)
    head = header(freq, width)
    index = np.flatnonzero(stations().active)[::every]
    first, second = np.triu_indices(index.size, 1)
    moments = MJD * DAY_S + INTEGRATION_S * (np.arange(times) - (times - 1) / 2) * 8
    places = [rotate_stations(float(t - MJD * DAY_S), head)[index] for t in moments]
    uvw = np.concatenate([place[second] - place[first] for place in places])
    weight = rng.uniform(0.5, 1.5, (len(uvw), channels)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.1] = 0
    part = AveragedBaselines(
        name="all",
        frequencies_hz=freq,
        width_hz=width,
        factor=factor,
        time_index=np.repeat(np.arange(times), first.size),
        antenna1=np.tile(index[first], times),
        antenna2=np.tile(index[second], times),
        uvw_m=uvw,
        interval_s=np.full(len(uvw), INTEGRATION_S),
        vis=np.zeros(weight.shape, np.complex64),
        weight=weight,
    )
    return AveragedVisibilities(
        header=head,
        times_s=moments,
        sets=(part,),
        variance_jy2=4.0,
        used=0.9,
        antennas=index.size,
        longest_m=float(np.linalg.norm(uvw, axis=1).max()),
    )


def imaging_field(
    data: AveragedVisibilities, dec_deg: float | None = DEC_DEG, size: int = 5400
) -> ImagingField:
    """Return the field of 4.5 deg that these visibilities are imaged in."""
    cell_arcsec = float(np.degrees(FIELD_RAD)) * 3600 / size
    return ImagingField.of(data, Settings(size, cell_arcsec, taper_arcsec=0.0), dec_deg, SITE, BEAM)


def lmn(east_deg: float, north_deg: float) -> Floats:
    """Return l, m, n - 1 of a direction about the phase centre."""
    east, north = np.sin(np.radians(east_deg)), np.sin(np.radians(north_deg))
    return np.array([east, north, np.sqrt(1 - east**2 - north**2) - 1])


def rotate_stations(after_s: float, head: MSHeader) -> Floats:
    """Return the stations in the UVW frame of a centre that transits at MJD, shape (117, 3), m.

    `after_s` is the time since then, seconds.
    """
    h, dec = np.radians(SITE.lon_deg) - after_s * EARTH_RAD_S, head.dec_rad
    east = [-np.sin(h), np.cos(h), 0]
    north = [-np.sin(dec) * np.cos(h), -np.sin(dec) * np.sin(h), np.cos(dec)]
    towards = [np.cos(dec) * np.cos(h), np.cos(dec) * np.sin(h), np.sin(dec)]
    return np.asarray((stations().itrf_m - SITE.itrf_m) @ np.array([east, north, towards]).T)


def predict_source(
    field: ImagingField, place: Floats, flux_jy: float, alpha: float
) -> list[npt.NDArray[np.complex128]]:
    """Return the visibilities of a power-law source, one array for each set.

    It is seen through the drifting beam and smeared.
    """
    made = []
    for part in field.data.sets:
        turns = part.uvw_m @ place / SPEED_OF_LIGHT_M_S
        vis = np.exp(2j * np.pi * turns[:, None] * part.frequencies_hz)
        for t, c in np.ndindex(field.data.times_s.size, part.frequencies_hz.size):
            level, left = see_source(field, part, t, c, place, alpha)
            vis[part.time_index == t, c] *= flux_jy * level * left
        made.append(vis)
    return made


def sum_beam(field: ImagingField, place: Floats) -> float:
    """Return the effective beam in one direction as the sum over every visibility."""
    total = weight_sum = 0.0
    for part, weight in zip(field.data.sets, field.weights.of_set, strict=True):
        for t, c in np.ndindex(field.data.times_s.size, part.frequencies_hz.size):
            w = weight[part.time_index == t, c].astype(float)
            level, left = see_source(field, part, t, c, place, DEFAULT_SPECTRAL_INDEX)
            total += float(w @ left) * level
            weight_sum += float(w.sum())
    return total / weight_sum


def see_source(
    field: ImagingField, part: AveragedBaselines, t: int, c: int, place: Floats, alpha: float
) -> tuple[float, Floats]:
    """Return the beam times spectrum in an integration and channel, and the coherence per row.

    The coherence is the mean of exp(i phase) over the integration, each channel and the averaged
    channels: phases summed over finely cut samples, no sinc.
    """
    head, freq = field.data.header, part.frequencies_hz[c]
    mjd = field.data.times_s[t] / DAY_S
    ra, dec = icrs_of_hadec(0.0, np.radians(DEC_DEG), mjd, SITE)
    towards = np.stack(direction_cosines(ra, dec, head.ra_rad, head.dec_rad))
    away, offset = 2 * np.arcsin(np.linalg.norm(place - towards) / 2), place - towards
    uvw = part.uvw_m[part.time_index == t] / SPEED_OF_LIGHT_M_S
    pole = np.array([0.0, np.cos(head.dec_rad), np.sin(head.dec_rad)])
    fine = ((np.arange(9) - 4) / 9)[:, None]
    spin = EARTH_RAD_S * np.cross(pole, uvw) @ offset
    inside = np.exp(2j * np.pi * fine * part.width_hz * (uvw @ offset)).mean(axis=0)
    in_time = np.exp(2j * np.pi * fine * INTEGRATION_S * freq * spin).mean(axis=0)
    centre_hz = (np.arange(part.factor) - (part.factor - 1) / 2)[:, None] * part.width_hz
    channels = np.exp(2j * np.pi * centre_hz * (uvw @ place))  # averaged about the phase centre
    level = float(BEAM.at_radius(away, freq)) * (freq / field.weights.frequency_hz) ** alpha
    return level, np.asarray((channels * inside * in_time).real.mean(axis=0))
