"""Make one group: what the sky, the beam, the electronics and the weather give in each integration and channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from contimg_simulate import defects
from contimg_simulate.array import INTEGRATION_S, SCALES, SUBBANDS, Array, Scale, dsa110
from contimg_simulate.beam import airy_power
from contimg_simulate.frame import hadec, unit_vectors
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
MIDDLE_HZ = np.array([1.405e9])


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

    def apparent_jy(self, frequency_hz: Floats) -> Floats:
        """Return the sources' fluxes through the beam without the flux-scale error, shape (N, T, channels)."""
        intrinsic = np.array(
            [source.spectrum_jy(frequency_hz, self.plan.middle_mjd) for source in self.sources]
        )
        return np.asarray(intrinsic.reshape(-1, 1, frequency_hz.size) * self.beam(frequency_hz))

    def beam(self, frequency_hz: Floats) -> Floats:
        """Return the primary beam at each source, shape (N, T, channels)."""
        return beam(self.options, self.separation_rad, frequency_hz)


def beam(options: SimulateOptions, separation_rad: Floats, frequency_hz: Floats) -> Floats:
    """Return the primary beam that the options ask for, with an axis of frequency added at the end."""
    if options.beam == "uniform":
        return np.ones((*separation_rad.shape, frequency_hz.size))
    return airy_power(separation_rad[..., None], frequency_hz)


def visible(
    plan: Plan, options: SimulateOptions, sky: Sequence[Source], radius_deg: float
) -> list[Source]:
    """Return the sources of a sky that a group sees: near enough, and bright enough through the beam when quiet."""
    separation = separations_rad(offsets(plan, sky))
    near = np.rad2deg(separation.min(axis=1)) < radius_deg
    # A source that varies must not come and go with its flux.
    quiet = np.array([source.flux_jy for source in sky]) * beam(
        options, separation, MIDDLE_HZ
    ).mean(axis=(1, 2))
    return [
        source
        for source, keep in zip(sky, near & (quiet >= options.faintest_jy), strict=True)
        if keep
    ]


def prepare(plan: Plan, options: SimulateOptions, sources: Sequence[Source]) -> Group:
    """Work out a group's geometry, gains and defects."""
    array, scale = dsa110(), SCALES[options.scale]
    rng = np.random.default_rng([options.seed, DEFECTS, _tick(plan)])
    emitters = defects.emitters(options.rfi, scale, rng)
    offset = offsets(plan, sources)
    delay, rate = _paths(plan, offset, emitters, array)
    tool = instrument(options)
    unit = options.gains == "unit"
    return Group(
        plan=plan,
        options=options,
        sources=sources,
        flux_scale=tool.flux_scale(plan.epoch) if plan.role == "target" else 1.0,
        separation_rad=separations_rad(offset),
        delay_s=delay,
        rate=rate,
        bandpass=np.ones((2, array.antennas, SUBBANDS * scale.channels), complex)
        if unit
        else tool.bandpass(scale.band_hz()),
        gains=np.ones((2, array.antennas, scale.integrations), complex)
        if unit
        else tool.gains(plan.mjd),
        emitters=emitters,
        alive=defects.alive(options, array, scale.integrations, rng),
        deaf=defects.antenna_indices(options.deaf_antennas, array),
        sefd_jy=tool.sefds_jy(),
    )


def instrument(options: SimulateOptions) -> Instrument:
    """Return the antennas' electronics."""
    return Instrument(
        seed=options.seed,
        antennas=dsa110().antennas,
        amplitude_drift=options.amplitude_drift,
        phase_drift_deg=options.phase_drift_deg,
        memory_h=options.memory_h,
        delay_ns=options.delay_ns,
        flux_scale_error=options.flux_scale_error,
        sefd_jy=options.sefd_jy,
    )


def subband(group: Group, index: int) -> Complexes64:
    """Return one subband's visibilities as the correlator writes them, shape (T, baselines, channels, 2)."""
    scale, array, options = group.scale, group.array, group.options
    frequency = scale.frequencies_hz(index)
    first, second = array.index(array.first), array.index(array.second)
    flux = _fluxes(group, frequency, index)
    # A Measurement Set's band ascends; the channels of a file descend.
    bandpass = group.bandpass[:, :, ::-1][
        :, :, index * scale.channels : (index + 1) * scale.channels
    ]
    smear = (INTEGRATION_S, scale.width_hz) if options.smearing else (0.0, 0.0)
    sigma = np.sqrt(group.sefd_jy / np.sqrt(2 * scale.width_hz * INTEGRATION_S)).astype(np.float32)
    system = group.sefd_jy.astype(np.float32)
    rng = np.random.default_rng([options.seed, NOISE, _tick(group.plan), index])
    out = np.empty((scale.integrations, array.baselines, scale.channels, 2), np.complex64)
    for t in range(scale.integrations):
        sky = predict(
            group.delay_s[:, t], group.rate[:, t], flux[:, t], frequency, (first, second), smear
        )
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


def offsets(plan: Plan, sources: Sequence[Source]) -> Floats:
    """Return each source's unit vector minus that of the phase centre in the telescope's frame, shape (N, T, 3)."""
    place = np.deg2rad(np.array([(s.ra_deg, s.dec_deg) for s in sources]).reshape(-1, 2))
    return unit_vectors(*hadec(place[:, 0], place[:, 1], plan.mjd)) - unit_vectors(
        0.0, plan.dec_rad
    )


def separations_rad(offset: Floats) -> Floats:
    """Return the angle that belongs to the difference of two unit vectors, without the last axis."""
    # Half the chord: exact for small angles, where the arc cosine is not.
    return np.asarray(2 * np.arcsin(np.clip(np.linalg.norm(offset, axis=-1) / 2, 0, 1)))


def _paths(
    plan: Plan, offset: Floats, emitters: Sequence[defects.Emitter], array: Array
) -> tuple[Floats, Floats]:
    """Return delays and rates of sources and emitters, both (N + E, T, A)."""
    centre = unit_vectors(0.0, plan.dec_rad)
    ground = np.array([emitter.direction for emitter in emitters]).reshape(-1, 1, 3) - centre
    ground = np.broadcast_to(ground, (len(emitters), len(plan.mjd), 3))
    # Against an emitter on the ground it is the phase centre that turns.
    turning = np.concatenate([offset, np.broadcast_to(-centre, ground.shape)]).reshape(-1, 3)
    delay, rate = delays(
        array.positions_m(), np.concatenate([offset, ground]).reshape(-1, 3), turning
    )
    shape = (-1, len(plan.mjd), array.antennas)
    return delay.reshape(shape), rate.reshape(shape)


def _tick(plan: Plan) -> int:
    """Return a number that is the group's own: the second of its first integration."""
    return round(float(plan.mjd[0]) * 86400)
