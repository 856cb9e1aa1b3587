"""Model visibilities of point sources: full l, m, n - 1, beam along the drift, smearing.

The phase of a source is a difference of two antennas' phases, so the model of an integration is
``E^H S E`` for every channel, with E of (source, antenna): one small matrix product instead of a
sum over every baseline. Sign convention of a Measurement Set: ``V = sum S exp(+2 pi i (u l + v m +
w (n - 1)) / lambda)`` with its own UVW.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contimg.astro import coordinates
from contimg.astro.constants import DAY_S, DEFAULT_SPECTRAL_INDEX, SPEED_OF_LIGHT_M_S
from contimg.astro.primary_beam import PrimaryBeam
from contimg.runtime.errors import BadInputError

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex64]
IntArray = NDArray[np.int64]

EARTH_RATE_RAD_S = 2 * np.pi * coordinates.SIDEREAL_RATE / DAY_S
"""Rotation of the Earth relative to the stars."""
PHASE_PER_M_HZ = 2 * np.pi / SPEED_OF_LIGHT_M_S
"""Phase of a path, rad/(m Hz)."""
UVW_TOLERANCE_M = 0.01
"""Largest error of UVW as differences of positions: 3 deg of phase times the offset in radians."""
GAUSS_NODE = 0.5 / np.sqrt(3.0)
"""Node of the two-point Gauss rule on an interval of length 1; exact for 1 - x^2/6 of the sinc."""
MIN_SMEARING = 1e-3
"""Least fraction of the whole model's flux that smearing must change for it to be computed."""
SPACING_TOLERANCE_HZ = 1e-3
"""Channels whose steps differ by more are not evenly spaced."""
CHANNEL_BLOCK = 96
"""Number of channels predicted together, so that the matrices stay in the cache."""


@dataclass(frozen=True)
class PointSources:
    """Point sources with their spectra."""

    ra_rad: FloatArray
    """Shape (S,), ICRS."""
    dec_rad: FloatArray
    flux_jy: FloatArray
    """Shape (S, channels), Jy, before any beam."""


@dataclass(frozen=True)
class SkyModel:
    """The sources of one field as the array sees them while the field drifts by."""

    sources: PointSources
    ra0_rad: float
    """Phase centre of the visibilities, ICRS."""
    dec0_rad: float
    freq_hz: FloatArray
    """Shape (channels,), ascending or descending."""
    width_hz: float
    """Width of a channel; 0: no bandwidth smearing."""
    integration_s: float
    """Length of an integration; 0: no time smearing."""
    primary_beam: PrimaryBeam
    """Not used without a site."""
    site: coordinates.Site | None = None
    """None: the array tracks the phase centre, and its beam is unknown and taken as 1."""
    pointing_dec_rad: float = 0.0
    """Apparent Declination that a drifting array points to, at hour angle 0."""

    def beam(self, mjd_utc: float) -> FloatArray:
        """Return the primary beam at one moment, shape (S, channels)."""
        if self.site is None:
            return np.ones((self.sources.ra_rad.size, self.freq_hz.size))
        place = self.sources.ra_rad, self.sources.dec_rad
        pointing = self.pointing_dec_rad, self.site
        offset = coordinates.drift_offsets(*place, np.array([mjd_utc]), *pointing)
        return self.primary_beam.level(offset, self.freq_hz)

    def apparent_jy(self, mjd_utc: ArrayLike) -> FloatArray:
        """Return the flux after the beam, mean over some moments, shape (S, channels)."""
        moments = np.atleast_1d(np.asarray(mjd_utc, np.float64))
        beam = np.mean([self.beam(float(moment)) for moment in moments], axis=0)
        return np.asarray(self.sources.flux_jy * beam)


def antenna_positions(
    uvw_m: FloatArray, ant1: IntArray, ant2: IntArray, antennas: int
) -> FloatArray:
    """Return positions x, (antennas, 3), m, such that UVW of a row is ``x[ant2] - x[ant1]``.

    `uvw_m`, (rows, 3), m, is of one integration; antennas without a row get 0. Raises BadInputError
    if UVW are not such differences, as after an edit of single rows.
    """
    cross = ant1 != ant2
    first, second = ant1[cross], ant2[cross]
    laplacian, side = np.zeros((antennas, antennas)), np.zeros((antennas, 3))
    for i, j in ((first, second), (second, first)):
        np.add.at(laplacian, (i, i), 1.0)
        np.add.at(laplacian, (i, j), -1.0)
    np.add.at(side, second, uvw_m[cross])
    np.subtract.at(side, first, uvw_m[cross])
    positions = np.asarray(np.linalg.lstsq(laplacian, side, rcond=1e-9)[0], np.float64)
    worst = float(np.abs(positions[ant2] - positions[ant1] - uvw_m).max(initial=0.0))
    if not worst <= UVW_TOLERANCE_M:
        found = f"UVW differ by up to {worst:.3g} m from differences of antenna positions"
        problem = f"{found}; {UVW_TOLERANCE_M} m are allowed."
        raise BadInputError("UVW", problem, "Compute UVW again.")
    return positions


def predict(sky: SkyModel, positions_m: FloatArray, mjd_utc: float) -> ComplexArray:
    """Return the model of every pair of antennas at one moment, Jy.

    Returns
    -------
    Shape (channels, antennas, antennas). Element (f, i, j) is the visibility of a row with
    ANTENNA1 = i and ANTENNA2 = j: the mean over the integration and the channel, relative to the
    direction that the correlator tracks, to second order in the smearing.
    """
    from contimg.astro import kernels  # numba is slow to import, and fluxes need none of it

    antennas = positions_m.shape[0]
    model = np.empty((sky.freq_hz.size, antennas, antennas), np.complex64)
    apparent = sky.sources.flux_jy * sky.beam(mjd_utc)
    source, share, path_m, delay_m_hz = _nodes(sky, positions_m, mjd_utc, apparent)
    weights = (apparent[source] * share[:, None]).T.astype(np.float32)
    for low in range(0, sky.freq_hz.size, CHANNEL_BLOCK):
        part = slice(low, low + CHANNEL_BLOCK)
        freq_hz, step = sky.freq_hz[part], np.diff(sky.freq_hz[part])
        # exp(2 pi i (f path + delay) / c)
        fringes = np.empty((freq_hz.size, *path_m.shape), np.complex64)
        if step.size and np.ptp(step) > SPACING_TOLERANCE_HZ:
            for row, freq in enumerate(freq_hz):
                fringes[row] = np.exp(1j * PHASE_PER_M_HZ * (freq * path_m + delay_m_hz))
        else:
            first = np.exp(1j * PHASE_PER_M_HZ * (freq_hz[0] * path_m + delay_m_hz))
            turn = np.exp(1j * PHASE_PER_M_HZ * (step[0] if step.size else 0.0) * path_m)
            kernels.turn(first.ravel(), turn.ravel(), fringes.reshape(freq_hz.size, -1))
        adjoint = fringes.conj().transpose(0, 2, 1)
        np.matmul(adjoint, fringes * weights[part, :, None], out=model[part])
    return model


def predict_rows(
    sky: SkyModel, positions_m: FloatArray, mjd_utc: float, ant1: IntArray, ant2: IntArray
) -> ComplexArray:
    """Return the model of the rows of one integration, shape (rows, channels), Jy."""
    from contimg.astro import kernels  # numba is slow to import, and fluxes need none of it

    # A fifth of the stations is not correlated, and the cost grows with the number squared.
    present, index = np.unique(np.concatenate([ant1, ant2]), return_inverse=True)
    model = predict(sky, positions_m[present], mjd_utc)
    rows = np.empty((ant1.size, sky.freq_hz.size), np.complex64)
    kernels.pick(model, index[: ant1.size], index[ant1.size :], rows)
    return rows


def path_rates(directions: FloatArray, positions_m: FloatArray, dec0_rad: float) -> FloatArray:
    """Return how paths change as the Earth turns, m/s, shape (N, antennas).

    `directions`, (N, 3), are l, m, n - 1 about a phase centre at Declination `dec0_rad`.
    """
    pole = np.array([0.0, np.cos(dec0_rad), np.sin(dec0_rad)])
    return np.asarray(EARTH_RATE_RAD_S * (directions @ np.cross(pole, positions_m).T))


def power_law(
    flux_jy: ArrayLike, at_hz: float, freq_hz: FloatArray, alpha: ArrayLike = DEFAULT_SPECTRAL_INDEX
) -> FloatArray:
    """Return spectra S (nu / nu0)^alpha, shape (S, channels), Jy."""
    flux = np.atleast_1d(np.asarray(flux_jy, np.float64))
    index = np.broadcast_to(np.asarray(alpha, np.float64), flux.shape)
    return np.asarray(flux[:, None] * (freq_hz[None, :] / at_hz) ** index[:, None])


def _nodes(
    sky: SkyModel, positions_m: FloatArray, mjd_utc: float, apparent: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Place 2 x 2 Gauss nodes for each source that smearing changes, and one for the others.

    Only the path relative to the tracked direction smears: in time it changes as the Earth turns,
    in frequency its phase changes across the channel.

    Returns
    -------
    Of N nodes the index of its source and its fraction of that source's flux, shape (N,); the path
    at the channel's centre, m, and the path times the offset from that, m Hz, (N, antennas).
    """
    ra, dec, centre = sky.sources.ra_rad, sky.sources.dec_rad, (sky.ra0_rad, sky.dec0_rad)
    beyond = directions = np.stack(coordinates.direction_cosines(ra, dec, *centre), axis=1)
    if sky.site is not None:
        tracked = coordinates.icrs_of_hadec(0.0, sky.pointing_dec_rad, mjd_utc, sky.site)
        beyond = directions - np.array(coordinates.direction_cosines(*tracked, *centre)).reshape(3)
    path, extra = directions @ positions_m.T, beyond @ positions_m.T
    rate = path_rates(beyond, positions_m, sky.dec0_rad)
    turns = np.stack([sky.freq_hz.max() * sky.integration_s * rate, sky.width_hz * extra])
    loss = np.sum(np.max(np.abs(PHASE_PER_M_HZ * turns), axis=2) ** 2, axis=0) / 6
    flux = apparent.mean(axis=1)
    smeared = np.flatnonzero(loss * flux > MIN_SMEARING * flux.sum())
    sharp = np.setdiff1d(np.arange(sky.sources.ra_rad.size), smeared)
    signs = [(late, high) for late in (-1, 1) for high in (-1, 1)]
    late_s, high_hz = GAUSS_NODE * sky.integration_s, GAUSS_NODE * sky.width_hz
    paths = [path[smeared] + late * late_s * rate[smeared] for late, _ in signs]
    delays = [high * high_hz * extra[smeared] for _, high in signs]
    shares = np.full(smeared.size * len(signs), 1 / len(signs))
    return (
        np.concatenate([sharp, *[smeared] * len(signs)]),
        np.concatenate([np.ones(sharp.size), shares]),
        np.concatenate([path[sharp], *paths]),
        np.concatenate([np.zeros((sharp.size, positions_m.shape[0])), *delays]),
    )
