"""Visibilities of small arrays that tests of the imager's parts share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import direction_cosines, icrs_of_hadec
from contimg.astro.telescope import INTEGRATION_S, SITE, primary_beam, stations
from contimg.records.ms import Antennas, MSHeader
from contimg_image.averaging import Averaged, Baselines

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MJD = 61065.05196817219
DEC_DEG = 33.0


def header(freq_hz: Floats, width_hz: float) -> MSHeader:
    """Return the header of a group whose phase centre is on the meridian at MJD."""
    dishes = Antennas(stations().names, stations().itrf_m, np.full(117, 4.65))
    ra, dec = icrs_of_hadec(0.0, np.radians(DEC_DEG), MJD, SITE)
    return MSHeader("DSA_110", "field", float(ra), float(dec), freq_hz, width_hz, dishes)


def averaged(
    *, times: int = 3, every: int = 4, factor: int = 2, channels: int = 8, seed: int = 1
) -> Averaged:
    """Return one set of baselines of the real stations with random weights and no signal: its geometry is what counts.

    Parameters
    ----------
    every
        Only each so-many-th active station takes part.
    """
    rng = np.random.default_rng(seed)
    width = 187.5e6 / channels / factor
    freq = 1.311265e9 + width * factor * (np.arange(channels) + 0.5)
    head = header(freq, width)
    index = np.flatnonzero(stations().active)[::every]
    first, second = np.triu_indices(index.size, 1)
    moments = MJD * 86400 + INTEGRATION_S * (np.arange(times) - (times - 1) / 2) * 8
    uvw = np.concatenate(
        [
            turned(float(t - MJD * 86400), head)[index[second]]
            - turned(float(t - MJD * 86400), head)[index[first]]
            for t in moments
        ]
    )
    weight = rng.uniform(0.5, 1.5, (len(uvw), channels)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.1] = 0
    part = Baselines(
        "all",
        freq,
        width,
        factor,
        np.repeat(np.arange(times), first.size),
        np.tile(index[first], times),
        np.tile(index[second], times),
        uvw,
        np.full(len(uvw), INTEGRATION_S),
        np.zeros(weight.shape, np.complex64),
        weight,
    )
    return Averaged(
        head,
        moments,
        INTEGRATION_S,
        (part,),
        4.0,
        0.9,
        index.size,
        float(np.linalg.norm(uvw, axis=1).max()),
    )


def turned(after_s: float, head: MSHeader) -> Floats:
    """Return the stations in the frame of UVW of a centre that transits at MJD, some seconds later; shape (117, 3), m."""
    h = np.radians(SITE.lon_deg) - after_s * 7.292115855e-5
    dec = head.dec_rad
    east = [-np.sin(h), np.cos(h), 0]
    north = [-np.sin(dec) * np.cos(h), -np.sin(dec) * np.sin(h), np.cos(dec)]
    towards = [np.cos(dec) * np.cos(h), np.cos(dec) * np.sin(h), np.sin(dec)]
    return np.asarray((stations().itrf_m - SITE.itrf_m) @ np.array([east, north, towards]).T)


def sky(
    data: Averaged, lmn: Floats, flux_jy: float, alpha: float, frequency_hz: float
) -> list[npt.NDArray[np.complex128]]:
    """Return the visibilities of a source with a power-law spectrum, seen through the drifting beam and smeared; one array a set."""
    head, made = data.header, []
    for part in data.sets:
        vis = np.zeros(part.weight.shape, complex)
        for t, moment in enumerate(data.times_s):
            ra, dec = icrs_of_hadec(0.0, np.radians(DEC_DEG), moment / 86400, SITE)
            towards = np.stack(direction_cosines(ra, dec, head.ra_rad, head.dec_rad))
            away = 2 * np.arcsin(np.linalg.norm(lmn - towards) / 2)
            rows = np.flatnonzero(part.time_index == t)
            for c, freq in enumerate(part.frequencies_hz):
                level = flux_jy * float(primary_beam(away, freq)) * (freq / frequency_hz) ** alpha
                left = _coherence(head, part, rows, (freq, data.interval_s), (lmn, lmn - towards))
                vis[rows, c] = (
                    level
                    * left
                    * np.exp(2j * np.pi * freq / SPEED_OF_LIGHT_M_S * (part.uvw_m[rows] @ lmn))
                )
        made.append(vis)
    return made


def brute_beam(
    data: Averaged, weights: tuple[Any, ...], lmn: Floats, alpha: float, frequency_hz: float
) -> float:
    """Return the effective beam in one direction from every visibility: phases summed over finely cut samples, no sinc."""
    total = heavy = 0.0
    head = data.header
    for t, moment in enumerate(data.times_s):
        ra, dec = icrs_of_hadec(0.0, np.radians(DEC_DEG), moment / 86400, SITE)
        towards = np.stack(direction_cosines(ra, dec, head.ra_rad, head.dec_rad))
        away = 2 * np.arcsin(np.linalg.norm(lmn - towards) / 2)
        for part, weight in zip(data.sets, weights, strict=True):
            rows = np.flatnonzero(part.time_index == t)
            for c, freq in enumerate(part.frequencies_hz):
                w = weight[rows, c].astype(float)
                level = float(primary_beam(away, freq)) * (freq / frequency_hz) ** alpha
                left = _coherence(head, part, rows, (freq, data.interval_s), (lmn, lmn - towards))
                total += float(w @ left) * level
                heavy += float(w.sum())
    return total / heavy


def _coherence(
    head: MSHeader,
    part: Baselines,
    rows: Any,
    sample: tuple[float, float],
    where: tuple[Floats, Floats],
) -> Floats:
    """Return the mean of exp(i phase) over an integration, each channel and the averaged channels, per row."""
    freq, interval = sample
    lmn, offset = where
    uvw = part.uvw_m[rows] / SPEED_OF_LIGHT_M_S
    pole = np.array([0.0, np.cos(head.dec_rad), np.sin(head.dec_rad)])
    spin = 7.292115855e-5 * np.cross(pole, uvw)
    fine = (np.arange(9) - 4) / 9
    whole = np.zeros(len(rows))
    for channel in np.arange(part.factor) - (part.factor - 1) / 2:
        centre = channel * part.width_hz
        phase_averaged = 2 * np.pi * centre * (uvw @ lmn)  # what averaging sees: the phase centre
        inside = np.mean(
            [np.exp(2j * np.pi * d * part.width_hz * (uvw @ offset)) for d in fine], axis=0
        )
        in_time = np.mean(
            [np.exp(2j * np.pi * d * interval * freq * (spin @ offset)) for d in fine], axis=0
        )
        whole = whole + (np.exp(1j * phase_averaged) * inside * in_time).real
    return whole / part.factor
