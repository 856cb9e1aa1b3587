"""Make one group: what the sky, the beam, the electronics and the weather give in each integration and channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from contimg_simulate import defects
from contimg_simulate.array import INTEGRATION_S, SCALES, SUBBANDS, Array, Scale, dsa110
from contimg_simulate.beam import airy_power
from contimg_simulate.frame import hadec, icrs_of_meridian, unit_vectors
from contimg_simulate.instrument import Instrument
from contimg_simulate.visibilities import Receivers, delays, predict, receive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contimg_simulate.options import SimulateOptions
    from contimg_simulate.schedule import Plan
    from contimg_simulate.sky import Source

Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]
Complexes64 = npt.NDArray[np.complex64]

NOISE, DEFECTS = 11, 12


@dataclass(frozen=True)
class Group:
    """All that is true of one group before its visibilities are made."""

    plan: Plan
    options: SimulateOptions
    sources: Sequence[Source]
    flux_scale: float
    separation_rad: Floats
    """Of each source from the pointing, shape (N, T)."""
    delay_s: Floats
    """Residual delays of sources, then of emitters, shape (N + E, T, A)."""
    rate: Floats
    bandpass: Complexes
    """Shape (2, A, channels of the band, ascending)."""
    gains: Complexes
    """Shape (2, A, T)."""
    emitters: Sequence[defects.Emitter]
    alive: npt.NDArray[np.bool_]
    """Shape (T, A)."""
    deaf: Sequence[int]
    sefd_jy: Floats

    @property
    def array(self) -> Array:
        """The antennas."""
        return dsa110()

    @property
    def scale(self) -> Scale:
        """The size of the data."""
        return SCALES[self.options.scale]

    def centre_deg(self) -> tuple[float, float]:
        """Return the ICRS place of the pointing at the middle of the group."""
        ra, dec = icrs_of_meridian(self.plan.dec_rad, np.array([self.plan.middle_mjd]))
        return float(np.rad2deg(ra[0]) % 360), float(np.rad2deg(dec[0]))

    def apparent_jy(self, frequency_hz: Floats) -> Floats:
        """Return the sources' fluxes through the beam without the flux-scale error, shape (N, T, channels)."""
        intrinsic = np.array([source.spectrum_jy(frequency_hz, self.plan.middle_mjd) for source in self.sources])
        return np.asarray(intrinsic.reshape(-1, 1, frequency_hz.size) * self.beam(frequency_hz))

    def beam(self, frequency_hz: Floats) -> Floats:
        """Return the primary beam at each source, shape (N, T, channels)."""
        if self.options.beam == "uniform":
            return np.ones((*self.separation_rad.shape, frequency_hz.size))
        return airy_power(self.separation_rad[..., None], frequency_hz)


def prepare(plan: Plan, options: SimulateOptions, sources: Sequence[Source]) -> Group:
    """Work out a group's geometry, gains and defects."""
    array, scale = dsa110(), SCALES[options.scale]
    rng = np.random.default_rng([options.seed, DEFECTS, _tick(plan)])
    emitters = defects.emitters(options.rfi, scale, rng)
    separation, delay, rate = _geometry(plan, sources, emitters, array)
    tool = instrument(options)
    unit = options.gains == "unit"
    return Group(
        plan=plan, options=options, sources=sources,
        flux_scale=tool.flux_scale(plan.epoch) if plan.role == "target" else 1.0,
        separation_rad=separation, delay_s=delay, rate=rate,
        bandpass=np.ones((2, array.antennas, SUBBANDS * scale.channels), complex) if unit else tool.bandpass(scale.band_hz()),
        gains=np.ones((2, array.antennas, scale.integrations), complex) if unit else tool.gains(plan.mjd),
        emitters=emitters, alive=defects.alive(options, array, scale.integrations, rng),
        deaf=defects.antenna_indices(options.deaf_antennas, array), sefd_jy=tool.sefds_jy(),
    )  # fmt: skip


def instrument(options: SimulateOptions) -> Instrument:
    """Return the antennas' electronics."""
    return Instrument(
        seed=options.seed, antennas=dsa110().antennas, amplitude_drift=options.amplitude_drift,
        phase_drift_deg=options.phase_drift_deg, memory_h=options.memory_h, delay_ns=options.delay_ns,
        flux_scale_error=options.flux_scale_error, sefd_jy=options.sefd_jy,
    )  # fmt: skip


def subband(group: Group, index: int) -> Complexes64:
    """Return one subband's visibilities as the correlator writes them, shape (T, baselines, channels, 2)."""
    scale, array, options = group.scale, group.array, group.options
    frequency = scale.frequencies_hz(index)
    first, second = array.index(array.first), array.index(array.second)
    flux = _fluxes(group, frequency, index)
    # A Measurement Set's band ascends; the channels of a file descend.
    bandpass = group.bandpass[:, :, ::-1][:, :, index * scale.channels : (index + 1) * scale.channels]
    smear = (INTEGRATION_S, scale.width_hz) if options.smearing else (0.0, 0.0)
    sigma = np.sqrt(group.sefd_jy / np.sqrt(2 * scale.width_hz * INTEGRATION_S)).astype(np.float32)
    system = group.sefd_jy.astype(np.float32)
    rng = np.random.default_rng([options.seed, NOISE, _tick(group.plan), index])
    out = np.empty((scale.integrations, array.baselines, scale.channels, 2), np.complex64)
    for t in range(scale.integrations):
        sky = predict(group.delay_s[:, t], group.rate[:, t], flux[:, t], frequency, (first, second), smear)
        sky[np.isin(first, group.deaf) | np.isin(second, group.deaf)] = 0
        gain = bandpass * group.gains[:, :, t, None] * group.alive[t][:, None]
        noise = rng.standard_normal((array.baselines, scale.channels, 2, 2), dtype=np.float32)
        receive(sky, Receivers(_as_voltages(gain), sigma, system), noise, (first, second), out[t])
    return out


def _as_voltages(gain: Complexes) -> Complexes64:
    return np.ascontiguousarray(np.moveaxis(gain, 0, -1).astype(np.complex64))


def _fluxes(group: Group, frequency_hz: Floats, index: int) -> npt.NDArray[np.float32]:
    """Return what each source and emitter adds, shape (N + E, T, channels), Jy."""
    scale = group.scale
    sky = group.apparent_jy(frequency_hz) * group.flux_scale
    where = slice(index * scale.channels, (index + 1) * scale.channels)
    rest = [emitter.flux_jy * emitter.on[:, ::-1][:, where] for emitter in group.emitters]
    whole = np.concatenate([sky, np.array(rest).reshape(-1, *sky.shape[1:])])
    return np.ascontiguousarray(whole, dtype=np.float32)


def _geometry(plan: Plan, sources: Sequence[Source], emitters: Sequence[defects.Emitter], array: Array) -> tuple[Floats, Floats, Floats]:
    """Return separations (N, T) from the pointing, and delays and rates (N + E, T, A)."""
    place = np.deg2rad(np.array([(s.ra_deg, s.dec_deg) for s in sources]).reshape(-1, 2))
    towards = unit_vectors(*hadec(place[:, 0], place[:, 1], plan.mjd))
    centre = unit_vectors(np.float64(0.0), np.float64(plan.dec_rad))
    offset = towards - centre
    # Half the chord: exact for small angles, where the arc cosine is not.
    separation = 2 * np.arcsin(np.clip(np.linalg.norm(offset, axis=-1) / 2, 0, 1))
    ground = np.array([emitter.direction for emitter in emitters]).reshape(-1, 1, 3) - centre
    ground = np.broadcast_to(ground, (len(emitters), len(plan.mjd), 3))
    turning = np.concatenate([offset, np.broadcast_to(-centre, ground.shape)]).reshape(-1, 3)
    delay, rate = delays(array.positions_m(), np.concatenate([offset, ground]).reshape(-1, 3), turning)
    shape = (-1, len(plan.mjd), array.antennas)
    return separation, delay.reshape(shape), rate.reshape(shape)


def _tick(plan: Plan) -> int:
    """Return a number that is the group's own: the second of its first integration."""
    return round(float(plan.mjd[0]) * 86400)
