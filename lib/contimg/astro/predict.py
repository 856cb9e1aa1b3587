"""Model visibilities of point sources for the geometry of a Measurement Set: full l, m, n - 1, beam along the drift, smearing.

The phase of a source is a difference of two antennas' phases, so the model of an integration is ``E^H S E`` for every channel,
with E of (source, antenna): one small matrix product instead of a sum over every baseline. Sign convention of a Measurement
Set: ``V = sum S exp(+2 pi i (u l + v m + w (n - 1)) / lambda)`` with its own UVW.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contimg.astro.constants import SPEED_OF_LIGHT_M_S
from contimg.astro.coordinates import (
    SIDEREAL_RATE,
    apparent_hadec,
    direction_cosines,
    icrs_of_hadec,
    separation_rad,
)
from contimg.astro.telescope import primary_beam
from contimg.runtime.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.astro.coordinates import Site

    FloatArray = npt.NDArray[np.float64]
    ComplexArray = npt.NDArray[np.complex64]
    IntArray = npt.NDArray[np.int64]

EARTH_RATE_RAD_S = 2 * np.pi * SIDEREAL_RATE / 86400.0
"""Turn of the Earth to the stars, rad/s."""
SEPARABLE_M = 0.01
"""How far UVW may be from differences of antenna positions, m: 3 degrees of phase, times the source's offset in radians."""
GAUSS = 0.5 / np.sqrt(3.0)
"""Nodes of the two-point Gauss rule on an interval of length 1: exact to the third power, so 1 - x^2/6 of the sinc."""
SMEAR_SHARE = 1e-3
"""Smearing of a source is left out where even the longest baseline loses less than this share of the whole model."""
UNEVEN_HZ = 1e-3
"""Channels whose steps differ by more are not evenly spaced."""
BLOCK = 96
"""Channels predicted at a time; keeps the matrices in the cache."""
FIELD_ALPHA = -0.7
"""Spectral index of a source of which only one flux is known."""


@dataclass(frozen=True)
class PointSources:
    """Point sources with their spectra."""

    ra_rad: FloatArray
    """Shape (S,), ICRS."""
    dec_rad: FloatArray
    flux_jy: FloatArray
    """Shape (S, channels), Jy, before any beam."""

    def __len__(self) -> int:
        """Return the number of sources."""
        return int(self.ra_rad.size)


@dataclass(frozen=True)
class Sky:
    """What one field's sky looks like from the array while it drifts by."""

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
    site: Site | None = None
    """None: the array tracks the phase centre and its beam is 1 there (a telescope whose beam we do not know)."""
    pointing_dec_rad: float = 0.0
    """Apparent Declination that a drifting array points to, at hour angle 0."""

    def beam(self, mjd_utc: float) -> FloatArray:
        """Return the primary beam at one moment, shape (S, channels): the pointing is (HA = 0, apparent Dec)."""
        if self.site is None:
            return np.ones((len(self.sources), self.freq_hz.size))
        hour_angle, dec = apparent_hadec(
            self.sources.ra_rad, self.sources.dec_rad, mjd_utc, self.site
        )
        away = separation_rad(hour_angle, dec, 0.0, self.pointing_dec_rad)
        # An Airy disc has side lobes, but no real dish has those of the formula behind it.
        front = np.where(away < np.pi / 2, away, np.pi / 2)
        return np.asarray(primary_beam(front[:, None], self.freq_hz[None, :]))

    def tracked(self, mjd_utc: float) -> FloatArray:
        """Return l, m, n - 1 of the direction whose fringes the correlator stopped at that moment, shape (3,)."""
        if self.site is None:
            return np.zeros(3)
        ra, dec = icrs_of_hadec(0.0, self.pointing_dec_rad, mjd_utc, self.site)
        return np.array(direction_cosines(ra, dec, self.ra0_rad, self.dec0_rad)).reshape(3)

    def directions(self) -> FloatArray:
        """Return l, m, n - 1 of the sources, shape (S, 3)."""
        return np.stack(
            direction_cosines(
                self.sources.ra_rad, self.sources.dec_rad, self.ra0_rad, self.dec0_rad
            ),
            axis=1,
        )

    def apparent_jy(self, mjd_utc: npt.ArrayLike) -> FloatArray:
        """Return the flux after the beam, mean over some moments, shape (S, channels)."""
        beams = [
            self.beam(float(moment)) for moment in np.atleast_1d(np.asarray(mjd_utc, np.float64))
        ]
        return np.asarray(self.sources.flux_jy * np.mean(beams, axis=0))


def antenna_positions(
    uvw_m: FloatArray, ant1: IntArray, ant2: IntArray, antennas: int
) -> FloatArray:
    """Return positions x of the antennas in the frame of UVW, such that UVW of a row is ``x[ant2] - x[ant1]``.

    Parameters
    ----------
    uvw_m
        Shape (rows, 3), one integration, m.
    ant1, ant2
        Shape (rows,).
    antennas
        Number of antennas; those without a row get 0.

    Returns
    -------
    Shape (antennas, 3), m.

    Raises
    ------
    BadInputError
        If UVW are not such differences, as after an edit of single rows.
    """
    cross = ant1 != ant2
    laplacian = np.zeros((antennas, antennas))
    np.add.at(laplacian, (ant1[cross], ant1[cross]), 1.0)
    np.add.at(laplacian, (ant2[cross], ant2[cross]), 1.0)
    np.add.at(laplacian, (ant1[cross], ant2[cross]), -1.0)
    np.add.at(laplacian, (ant2[cross], ant1[cross]), -1.0)
    side = np.zeros((antennas, 3))
    np.add.at(side, ant2[cross], uvw_m[cross])
    np.subtract.at(side, ant1[cross], uvw_m[cross])
    positions = np.asarray(np.linalg.lstsq(laplacian, side, rcond=1e-9)[0], np.float64)
    left = np.abs(positions[ant2] - positions[ant1] - uvw_m)
    worst = float(left.max(initial=0.0))
    if not worst <= SEPARABLE_M:
        raise BadInputError(
            "UVW",
            f"expected differences of antenna positions to {SEPARABLE_M} m, found {worst:.3g} m.",
            "Compute UVW anew.",
        )
    return positions


def predict(sky: Sky, positions_m: FloatArray, mjd_utc: float) -> ComplexArray:
    """Return the model of every pair of antennas at one moment, shape (channels, antennas, antennas), Jy.

    Element (f, i, j) is the visibility of a row with ANTENNA1 = i and ANTENNA2 = j; the mean over the integration and the channel,
    relative to the direction that the correlator tracks, to second order in the smearing.
    """
    antennas = positions_m.shape[0]
    model = np.empty((sky.freq_hz.size, antennas, antennas), np.complex64)
    apparent = sky.sources.flux_jy * sky.beam(mjd_utc)
    nodes = _nodes(sky, positions_m, sky.tracked(mjd_utc), apparent)
    weights = (apparent[nodes.source] * nodes.share[:, None]).T.astype(np.float32)
    for first in range(0, sky.freq_hz.size, BLOCK):
        part = slice(first, first + BLOCK)
        fringes = _fringes(nodes.path_m, nodes.delay_m_hz, sky.freq_hz[part])
        np.matmul(
            fringes.conj().transpose(0, 2, 1), fringes * weights[part, :, None], out=model[part]
        )
    return model


def predict_rows(
    sky: Sky, positions_m: FloatArray, mjd_utc: float, ant1: IntArray, ant2: IntArray
) -> ComplexArray:
    """Return the model of the rows of one integration, shape (rows, channels), Jy; `predict` picked at pairs of antennas."""
    from contimg.astro import kernels as loops

    # A fifth of the stations is not correlated, and the work goes with the square of their number.
    present, index = np.unique(np.concatenate([ant1, ant2]), return_inverse=True)
    model = predict(sky, positions_m[present], mjd_utc)
    rows = np.empty((ant1.size, sky.freq_hz.size), np.complex64)
    loops.pick(model, index[: ant1.size], index[ant1.size :], rows)
    return rows


def power_law(
    flux_jy: npt.ArrayLike, at_hz: float, freq_hz: FloatArray, alpha: npt.ArrayLike = FIELD_ALPHA
) -> FloatArray:
    """Return spectra S (nu / nu0)^alpha, shape (S, channels), Jy."""
    flux = np.atleast_1d(np.asarray(flux_jy, np.float64))
    index = np.broadcast_to(np.asarray(alpha, np.float64), flux.shape)
    return np.asarray(flux[:, None] * (freq_hz[None, :] / at_hz) ** index[:, None])


@dataclass(frozen=True)
class _Nodes:
    """Where the mean over integration and channel is taken; N nodes in all."""

    source: IntArray
    """Shape (N,): whose node it is."""
    share: FloatArray
    """Shape (N,): its share of that source's flux."""
    path_m: FloatArray
    """Shape (N, antennas): path at the channel's centre."""
    delay_m_hz: FloatArray
    """Shape (N, antennas): path times the offset from the channel's centre."""


def _nodes(sky: Sky, positions_m: FloatArray, tracked: FloatArray, apparent: FloatArray) -> _Nodes:
    """Place 2 x 2 Gauss nodes for each source that smearing changes, and one for the others.

    In time the path to a source moves with the Earth's turn, less what the tracked direction moves; in frequency only the path
    beyond the tracked direction counts, since everything else was turned by one phase a channel.
    """
    directions = sky.directions()
    beyond = directions - tracked
    path, extra = directions @ positions_m.T, beyond @ positions_m.T
    pole = np.array([0.0, np.cos(sky.dec0_rad), np.sin(sky.dec0_rad)])
    rate = EARTH_RATE_RAD_S * (beyond @ np.cross(pole, positions_m).T)
    wide = (
        2
        * np.pi
        / SPEED_OF_LIGHT_M_S
        * np.stack([sky.freq_hz.max() * sky.integration_s * rate, sky.width_hz * extra])
    )
    loss = np.sum(np.max(np.abs(wide), axis=2) ** 2, axis=0) / 6
    flux = apparent.mean(axis=1)
    smeared = np.flatnonzero(loss * flux > SMEAR_SHARE * flux.sum())
    sharp = np.setdiff1d(np.arange(len(sky.sources)), smeared)
    corners = [
        (t * GAUSS * sky.integration_s, f * GAUSS * sky.width_hz) for t in (-1, 1) for f in (-1, 1)
    ]
    return _Nodes(
        np.concatenate([sharp, *[smeared] * len(corners)]),
        np.concatenate(
            [np.ones(sharp.size), np.full(smeared.size * len(corners), 1 / len(corners))]
        ),
        np.concatenate(
            [path[sharp], *[path[smeared] + late * rate[smeared] for late, _ in corners]]
        ),
        np.concatenate(
            [
                np.zeros((sharp.size, positions_m.shape[0])),
                *[high * extra[smeared] for _, high in corners],
            ]
        ),
    )


def _fringes(paths_m: FloatArray, delays_m_hz: FloatArray, freq_hz: FloatArray) -> ComplexArray:
    """Return exp(2 pi i (f path + delay) / c), shape (channels, sources, antennas)."""
    from contimg.astro import (
        kernels as loops,
    )  # numba is slow to import, and fluxes need none of it

    step = np.diff(freq_hz)
    fringes = np.empty((freq_hz.size, *paths_m.shape), np.complex64)
    if step.size and np.ptp(step) > UNEVEN_HZ:
        for row, freq in enumerate(freq_hz):
            fringes[row] = np.exp(2j * np.pi / SPEED_OF_LIGHT_M_S * (freq * paths_m + delays_m_hz))
        return fringes
    first = np.exp(2j * np.pi / SPEED_OF_LIGHT_M_S * (freq_hz[0] * paths_m + delays_m_hz))
    turn = np.exp(2j * np.pi / SPEED_OF_LIGHT_M_S * (step[0] if step.size else 0.0) * paths_m)
    loops.turn(first.ravel(), turn.ravel(), fringes.reshape(freq_hz.size, -1))
    return fringes
