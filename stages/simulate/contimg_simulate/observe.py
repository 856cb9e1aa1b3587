"""Make one group: sky, beam, electronics, weather and defects in each integration and channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contimg.runtime.errors import UsageError
from contimg_simulate import telescope
from contimg_simulate.faint import predict_faint
from contimg_simulate.instrument import Instrument, airy_power
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import GroupPlan
from contimg_simulate.sky import SkySource, positions_rad
from contimg_simulate.telescope import INTEGRATION_S, SUBBANDS, Booleans, Complexes, Floats
from contimg_simulate.visibilities import Receivers, compute_delays, predict, receive

NOISE, DEFECTS = 11, 12
"""Streams of random numbers."""
CARRIERS = 6
"""Narrow emitters of a group; there is one burst."""
CARRIER_JY, BURST_JY = (30.0, 300.0), (30.0, 100.0)
"""Least and greatest flux of an emitter, as an antenna's sidelobes let it in."""
BURST_FRACTION = 0.25
"""Part of the band that a burst covers."""
FAINT_JY = 0.1
"""Sources of less, seen through the beam, are predicted to 1 % of themselves; others exactly."""
MIDDLE_HZ = np.array([1.405e9])
"""Where the beam is taken to choose sources."""
LEFT_OF_FILE = {"empty": 0.0, "truncated": 142_348_126 / 145_348_600}
"""Part of a damaged file that is left; that of a truncated one was once seen."""


@dataclass(frozen=True, kw_only=True)
class Emitter:
    """Something that radiates from the horizon."""

    direction: Floats
    """Unit vector in the telescope's frame, shape (3,)."""
    flux_jy: float
    on: Booleans
    """When and where, shape (T, channels of the band, ascending)."""


@dataclass(frozen=True, kw_only=True)
class SimulatedGroup:
    """All that is true of one group before its visibilities are made."""

    plan: GroupPlan
    options: SimulateOptions
    sources: Sequence[SkySource]
    flux_scale: float
    is_faint: Booleans
    """Sources of which approximate visibilities do, shape (N,)."""
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
        mjd = self.plan.middle_mjd
        beam = beam_power(self.options, self.separation_rad, frequency_hz)
        intrinsic = np.array([source.spectrum_jy(frequency_hz, mjd) for source in self.sources])
        return np.asarray(intrinsic.reshape(-1, 1, frequency_hz.size) * beam)


def beam_power(options: SimulateOptions, separation_rad: Floats, frequency_hz: Floats) -> Floats:
    """Return the primary beam that the options ask for; frequency is a new last axis."""
    if options.beam == "uniform":
        return np.ones((*separation_rad.shape, frequency_hz.size))
    return airy_power(separation_rad[..., None], frequency_hz)


def locate(plan: GroupPlan, ra_rad: Floats, dec_rad: Floats) -> tuple[Floats, Floats]:
    """Return each position's unit vector less the pointing's, (N, T, 3), and the angle, (N, T)."""
    towards = telescope.unit_vectors(*telescope.hadec(ra_rad, dec_rad, plan.mjd))
    offset = towards - telescope.unit_vectors(0.0, plan.dec_rad)
    # Half the chord: exact for small angles, where the arc cosine is not.
    half = np.clip(np.linalg.norm(offset, axis=-1) / 2, 0, 1)
    return offset, np.asarray(2 * np.arcsin(half))


def prepare_group(
    plan: GroupPlan, options: SimulateOptions, sources: Sequence[SkySource]
) -> SimulatedGroup:
    """Work out a group's geometry, gains and defects."""
    array, scale = telescope.dsa110(), plan.scale
    instrument = Instrument(options, len(array.active))
    rng = np.random.default_rng([options.seed, DEFECTS, plan.tick])
    emitters = draw_emitters(options.rfi, scale, rng)
    offset, separation = locate(plan, *positions_rad(sources))
    # Against an emitter on the ground it is the phase centre that turns.
    centre = telescope.unit_vectors(0.0, plan.dec_rad)
    ground = np.array([emitter.direction for emitter in emitters]).reshape(-1, 1, 3) - centre
    ground = np.broadcast_to(ground, (len(emitters), len(plan.mjd), 3))
    offsets = np.concatenate([offset, ground]).reshape(-1, 3)
    turning = np.concatenate([offset, np.broadcast_to(-centre, ground.shape)]).reshape(-1, 3)
    delay, rate = compute_delays(array.positions_m, offsets, turning)
    shape = (-1, len(plan.mjd), len(array.active))
    bandpass, gains = instrument.bandpass(scale.band_hz()), instrument.gains(plan.mjd)
    if options.gains == "unit":
        bandpass, gains = np.ones_like(bandpass), np.ones_like(gains)
    quiet = np.array([source.flux_jy for source in sources])
    apparent = quiet[:, None] * beam_power(options, separation, MIDDLE_HZ)[..., 0]
    # A cross-correlation needs both antennas.
    lost = 1 - np.sqrt(1 - options.zeros)
    alive = rng.uniform(size=(scale.integrations, len(array.active))) >= lost
    alive[:, antenna_indices(options.dead_antennas, array)] = False
    return SimulatedGroup(
        plan=plan,
        options=options,
        sources=sources,
        flux_scale=instrument.flux_scale(plan.epoch) if plan.role == "target" else 1.0,
        is_faint=apparent.max(axis=1) < FAINT_JY,
        separation_rad=separation,
        delay_s=delay.reshape(shape),
        rate=rate.reshape(shape),
        bandpass=bandpass,
        gains=gains,
        emitters=emitters,
        alive=alive,
        deaf=antenna_indices(options.deaf_antennas, array),
        sefd_jy=instrument.sefds_jy(),
    )


def simulate_subband(group: SimulatedGroup, index: int) -> telescope.Complexes64:
    """Return one subband's visibilities as written: (T, baselines, channels, 2)."""
    scale, array, options = group.plan.scale, telescope.dsa110(), group.options
    frequency = scale.frequencies_hz(index)
    pairs = first, second = array.pairs
    # A Measurement Set's band ascends; the channels of a file descend.
    mine = slice(index * scale.channels, (index + 1) * scale.channels)
    bandpass = group.bandpass[:, :, ::-1][:, :, mine]
    sky_jy = group.apparent_jy(frequency) * group.flux_scale
    rfi_jy = np.array([one.flux_jy * one.on[:, ::-1][:, mine] for one in group.emitters])
    flux = np.concatenate([sky_jy, rfi_jy.reshape(-1, *sky_jy.shape[1:])]).astype(np.float32)
    faint = np.concatenate([group.is_faint, np.zeros(len(group.emitters), bool)])
    smear = (INTEGRATION_S, scale.width_hz) if options.smearing else (0.0, 0.0)
    sigma = np.sqrt(group.sefd_jy / np.sqrt(2 * scale.width_hz * INTEGRATION_S)).astype(np.float32)
    system = group.sefd_jy.astype(np.float32)
    rng = np.random.default_rng([options.seed, NOISE, group.plan.tick, index])
    out = np.empty((scale.integrations, len(array.first), scale.channels, 2), np.complex64)
    for t in range(scale.integrations):
        delay, rate, jy = group.delay_s[:, t], group.rate[:, t], flux[:, t]
        bright = delay[~faint], rate[~faint], jy[~faint]
        sky = predict(*bright, frequency, pairs, smear)
        if faint.any():
            sky += predict_faint(delay[faint], rate[faint], jy[faint], frequency, smear)
        sky[np.isin(first, group.deaf) | np.isin(second, group.deaf)] = 0
        gain = bandpass * group.gains[:, :, t, None] * group.alive[t][:, None]
        gain = np.ascontiguousarray(np.moveaxis(gain, 0, -1).astype(np.complex64))
        noise = rng.standard_normal((len(array.first), scale.channels, 2, 2), dtype=np.float32)
        receivers = Receivers(gain=gain, sigma=sigma, system=system)
        receive(sky, receivers, noise, pairs, out[t])
    return out


def draw_emitters(kind: str, scale: telescope.DataScale, rng: np.random.Generator) -> list[Emitter]:
    """Draw a group's interference: carriers, then a burst.

    A carrier has 1 or 2 channels for half of the group or longer, a burst one integration.
    """
    times, channels = scale.integrations, SUBBANDS * scale.channels
    latitude, emitters = np.deg2rad(telescope.LATITUDE_DEG), []
    carriers, bursts = CARRIERS * (kind in {"narrow", "both"}), kind in {"burst", "both"}
    for burst in [False] * carriers + [True] * bursts:
        azimuth = rng.uniform(0, 2 * np.pi)
        north, east = np.cos(azimuth), np.sin(azimuth)
        flux = float(np.exp(rng.uniform(*np.log(BURST_JY if burst else CARRIER_JY))))
        on = np.zeros((times, channels), bool)
        if burst:
            width = round(BURST_FRACTION * channels)
            first = rng.integers(channels - width + 1)
            on[rng.integers(times), first : first + width] = True
        else:
            first, width = rng.integers(channels - 1), int(rng.integers(1, 3))
            length = rng.integers((times + 1) // 2, times + 1)
            start = rng.integers(times - length + 1)
            on[start : start + length, first : first + width] = True
        direction = np.array([-np.sin(latitude) * north, east, np.cos(latitude) * north])
        emitters.append(Emitter(direction=direction, flux_jy=flux, on=on))
    return emitters


def antenna_indices(stations: Sequence[str], array: telescope.StationArray) -> list[int]:
    """Return the indices of stations among the active antennas.

    Raises
    ------
    UsageError
        If one is not active.
    """
    numbers = [int(n) + 1 for n in array.active]
    unknown = [word for word in stations if not word.isdigit() or int(word) not in numbers]
    if unknown:
        problem = f"{', '.join(unknown)} are not among the active stations, 1 to 117."
        raise UsageError("antennas", problem, "Name stations as the array has them.")
    return [numbers.index(int(word)) for word in stations]


def read_damage(options: SimulateOptions) -> dict[int, str]:
    """Return what happens to subbands of the first group: missing, truncated or empty.

    Raises
    ------
    UsageError
        If there is no such subband.
    """
    damage: dict[int, str] = {}
    for kind in ("truncated", "empty", "missing"):
        words: Sequence[str] = getattr(options, f"{kind}_subbands")
        unknown = [word for word in words if not word.isdigit() or int(word) >= SUBBANDS]
        if unknown:
            problem = f"There are no subbands {', '.join(unknown)}; they are 0 to {SUBBANDS - 1}."
            raise UsageError("subbands", problem, "Name subbands by their numbers.")
        damage |= {int(word): kind for word in words}
    return damage
