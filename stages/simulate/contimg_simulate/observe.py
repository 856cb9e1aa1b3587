"""Make one group: sky, beam, electronics and weather in each integration and channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contimg_simulate.array import INTEGRATION_S, SCALES, DataScale, dsa110
from contimg_simulate.defects import Emitter, antenna_indices, draw_emitters
from contimg_simulate.frame import Booleans, Complexes, Complexes64, Floats, hadec, unit_vectors
from contimg_simulate.instrument import Instrument, airy_power
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import GroupPlan
from contimg_simulate.sky import SkySource, positions_rad
from contimg_simulate.visibilities import Receivers, compute_delays, predict, receive

# Streams of random numbers.
NOISE, DEFECTS = 11, 12


@dataclass(frozen=True, kw_only=True)
class SimulatedGroup:
    """All that is true of one group before its visibilities are made."""

    plan: GroupPlan
    options: SimulateOptions
    scale: DataScale
    sources: Sequence[SkySource]
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
    emitters: Sequence[Emitter]
    alive: Booleans
    """Shape (T, A)."""
    deaf: Sequence[int]
    sefd_jy: Floats

    def apparent_jy(self, frequency_hz: Floats) -> Floats:
        """Return the fluxes through the beam, (N, T, channels), without the flux-scale error."""
        mjd, beam = (
            self.plan.middle_mjd,
            beam_power(self.options, self.separation_rad, frequency_hz),
        )
        intrinsic = np.array([source.spectrum_jy(frequency_hz, mjd) for source in self.sources])
        return np.asarray(intrinsic.reshape(-1, 1, frequency_hz.size) * beam)


def beam_power(options: SimulateOptions, separation_rad: Floats, frequency_hz: Floats) -> Floats:
    """Return the primary beam that the options ask for; frequency is a new last axis."""
    if options.beam == "uniform":
        return np.ones((*separation_rad.shape, frequency_hz.size))
    return airy_power(separation_rad[..., None], frequency_hz)


def locate(plan: GroupPlan, sources: Sequence[SkySource]) -> tuple[Floats, Floats]:
    """Return each source's unit vector less the pointing's, (N, T, 3), and the angle, (N, T)."""
    ra, dec = positions_rad(sources)
    towards = unit_vectors(*hadec(ra, dec, plan.mjd))
    offset = towards - unit_vectors(0.0, plan.dec_rad)
    # Half the chord: exact for small angles, where the arc cosine is not.
    half = np.clip(np.linalg.norm(offset, axis=-1) / 2, 0, 1)
    return offset, np.asarray(2 * np.arcsin(half))


def prepare_group(
    plan: GroupPlan, options: SimulateOptions, sources: Sequence[SkySource]
) -> SimulatedGroup:
    """Work out a group's geometry, gains and defects."""
    array, scale = dsa110(), SCALES[options.scale]
    instrument = Instrument(options, len(array.active))
    rng = np.random.default_rng([options.seed, DEFECTS, plan.tick])
    emitters = draw_emitters(options.rfi, scale, rng)
    offset, separation = locate(plan, sources)
    # Against an emitter on the ground it is the phase centre that turns.
    centre = unit_vectors(0.0, plan.dec_rad)
    ground = np.array([emitter.direction for emitter in emitters]).reshape(-1, 1, 3) - centre
    ground = np.broadcast_to(ground, (len(emitters), len(plan.mjd), 3))
    offsets = np.concatenate([offset, ground]).reshape(-1, 3)
    turning = np.concatenate([offset, np.broadcast_to(-centre, ground.shape)]).reshape(-1, 3)
    delay, rate = (
        values.reshape(-1, len(plan.mjd), len(array.active))
        for values in compute_delays(array.positions_m, offsets, turning)
    )
    bandpass, gains = instrument.bandpass(scale.band_hz()), instrument.gains(plan.mjd)
    if options.gains == "unit":
        bandpass, gains = np.ones_like(bandpass), np.ones_like(gains)
    # A cross-correlation needs both antennas.
    lost = 1 - np.sqrt(1 - options.zeros)
    alive = rng.uniform(size=(scale.integrations, len(array.active))) >= lost
    alive[:, antenna_indices(options.dead_antennas, array)] = False
    return SimulatedGroup(
        plan=plan,
        options=options,
        scale=scale,
        sources=sources,
        flux_scale=instrument.flux_scale(plan.epoch) if plan.role == "target" else 1.0,
        separation_rad=separation,
        delay_s=delay,
        rate=rate,
        bandpass=bandpass,
        gains=gains,
        emitters=emitters,
        alive=alive,
        deaf=antenna_indices(options.deaf_antennas, array),
        sefd_jy=instrument.sefds_jy(),
    )


def simulate_subband(group: SimulatedGroup, index: int) -> Complexes64:
    """Return one subband's visibilities as written: (T, baselines, channels, 2)."""
    scale, array, options = group.scale, dsa110(), group.options
    frequency = scale.frequencies_hz(index)
    pairs = first, second = array.pairs
    # A Measurement Set's band ascends; the channels of a file descend.
    mine = slice(index * scale.channels, (index + 1) * scale.channels)
    bandpass = group.bandpass[:, :, ::-1][:, :, mine]
    sky_jy = group.apparent_jy(frequency) * group.flux_scale
    rfi_jy = np.array([one.flux_jy * one.on[:, ::-1][:, mine] for one in group.emitters])
    flux = np.concatenate([sky_jy, rfi_jy.reshape(-1, *sky_jy.shape[1:])]).astype(np.float32)
    smear = (INTEGRATION_S, scale.width_hz) if options.smearing else (0.0, 0.0)
    sigma = np.sqrt(group.sefd_jy / np.sqrt(2 * scale.width_hz * INTEGRATION_S)).astype(np.float32)
    system = group.sefd_jy.astype(np.float32)
    rng = np.random.default_rng([options.seed, NOISE, group.plan.tick, index])
    out = np.empty((scale.integrations, len(array.first), scale.channels, 2), np.complex64)
    for t in range(scale.integrations):
        delay, rate = group.delay_s[:, t], group.rate[:, t]
        sky = predict(delay, rate, flux[:, t], frequency, pairs, smear)
        sky[np.isin(first, group.deaf) | np.isin(second, group.deaf)] = 0
        gain = bandpass * group.gains[:, :, t, None] * group.alive[t][:, None]
        gain = np.ascontiguousarray(np.moveaxis(gain, 0, -1).astype(np.complex64))
        noise = rng.standard_normal((len(array.first), scale.channels, 2, 2), dtype=np.float32)
        receivers = Receivers(gain=gain, sigma=sigma, system=system)
        receive(sky, receivers, noise, pairs, out[t])
    return out
