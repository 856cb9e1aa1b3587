"""Make one group: sky, beam, electronics, weather and defects in each integration and channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from contimg.astro.beam_files import read_beam
from contimg.astro.beam_text import parse_model
from contimg.astro.constants import DAY_S, SPEED_OF_LIGHT_M_S
from contimg.runtime.errors import UsageError
from contimg_simulate import telescope
from contimg_simulate.effects import EFFECTS, FAULTS, RFI, parse_effects
from contimg_simulate.faint import predict_faint
from contimg_simulate.instrument import Instrument, airy_power
from contimg_simulate.options import SimulateOptions
from contimg_simulate.schedule import GroupPlan
from contimg_simulate.sky import REFERENCE_HZ, SkySource, positions_rad
from contimg_simulate.telescope import (
    INTEGRATION_S,
    SUBBANDS,
    Booleans,
    Complexes,
    Floats,
    Integers,
)
from contimg_simulate.visibilities import Paths, Receivers, compute_delays, predict, receive

NOISE, DEFECTS = 11, 12
"""Streams of random numbers."""
CARRIERS = 6
"""Narrow emitters of a group; there is one burst."""
EMITTED_JY = {
    "narrow": (30.0, 300.0),
    "burst": (30.0, 100.0),
    "radar": (30.0, 300.0),
    "satellite": (30.0, 300.0),
    "broadband": (1.0, 3.0),
}
"""Least and greatest flux of an emitter, as an antenna's sidelobes let it in."""
RADAR_HZ, SATELLITE_HZ = 1.33e9, 1381.05e6
RADAR_HALF_HZ, SATELLITE_HALF_HZ = 1e6, 5e6
"""Where air surveillance radars are, and GPS on L3."""
COUPLED, COUPLED_JY = 4, (10.0, 50.0)
"""Number of baselines with a signal of their own, and its strength."""
SCREEN_M = 1000.0
"""Distance over which an ionospheric screen has the phase that is asked for."""
SCREEN_PERIODS_S = (900.0, 1300.0)
"""In which its gradients east and north turn."""
SCREEN_BEND_PER_RAD = 5.7
"""Change of the gradient with direction: a fifth of it at 2 degrees, as a screen 300 km up has it
that is bent over 50 km."""
BURST_FRACTION = 0.25
"""Part of the band that a burst covers."""
FAINT_JY = 0.1
"""Sources of less, seen through the beam, are predicted to 1 % of themselves; others exactly."""
RESOLVED_JY = 0.0002
"""A faint source is a point if no more than this is missing on the longest baseline."""
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
    from_axis: Floats
    """Of each source, l, m, n - 1 from where the dishes point, shape (N, T, 3)."""
    effects: Mapping[str, tuple[float, ...]]
    faults: Mapping[str, tuple[float, ...]]
    delay_s: Floats
    """Residual delays of sources, then of emitters, shape (N + E, T, A)."""
    rate: Floats
    screen: Floats
    """Ionospheric phase at 1.4 GHz, turns, of the same shape."""
    size_m: Floats
    """See `Paths`, shape (N + E, 2, A)."""
    bandpass: Complexes
    """Shape (2, A, channels of the band, ascending)."""
    gains: Complexes
    """Shape (2, A, T)."""
    emitters: Sequence[Emitter]
    coupled: Sequence[tuple[int, Booleans, complex]]
    """Baselines with a signal of their own: row, channels of the band, Jy."""
    alive: Booleans
    """Shape (T, A)."""
    deaf: Sequence[int]
    sefd_jy: Floats

    @property
    def separation_rad(self) -> Floats:
        """Angle of each source from where the dishes point, shape (N, T)."""
        return chord_angle(self.from_axis)

    def beam(self, frequency_hz: Floats) -> Floats:
        """Return the level at which each source is seen, (N, T, channels)."""
        beam = beam_power(self.options, self.from_axis, frequency_hz)
        level = np.array([source.sidelobe for source in self.sources])[:, None, None]
        return np.where(level > 0, level, beam)

    def paths(self, t: int, middle_hz: float) -> Paths:
        """Return how signals reach the antennas in integration `t`, near a frequency."""
        # c1 / nu about the middle: the phase of a screen is 2 c1 / m - c1 nu / m^2.
        turns = self.screen[:, t] * REFERENCE_HZ / middle_hz
        delay = self.delay_s[:, t] - turns / middle_hz
        return Paths(delay, self.rate[:, t], 2 * turns, self.size_m)

    def apparent_jy(self, frequency_hz: Floats) -> Floats:
        """Return the fluxes through the beam, (N, T, channels), without the flux-scale error."""
        mjd = self.plan.middle_mjd
        beam = self.beam(frequency_hz)
        intrinsic = np.array([source.spectrum_jy(frequency_hz, mjd) for source in self.sources])
        return np.asarray(intrinsic.reshape(-1, 1, frequency_hz.size) * beam)


def beam_power(options: SimulateOptions, from_axis: Floats, frequency_hz: Floats) -> Floats:
    """Return the true primary beam in some directions; frequency is a new last axis.

    `from_axis`, (..., 3), are l, m, n - 1 from the direction to which the dishes point.
    """
    model = parse_model(options.beam)
    if model is None:
        return read_beam(options.beam).level(from_axis[..., None, :], frequency_hz)
    angle = chord_angle(from_axis)[..., None]
    if model.kind == "uniform":
        return np.ones((*angle.shape[:-1], frequency_hz.size))
    if model.kind == "airy":
        return airy_power(angle, frequency_hz, model.diameter_m)
    width_rad = np.deg2rad(model.fwhm_deg_ghz * 1e9) / frequency_hz
    return np.asarray(np.exp(-4 * np.log(2) * (angle / width_rad) ** 2))


def chord_angle(offset: Floats) -> Floats:
    """Return the angle between two unit vectors from their difference, (..., 3)."""
    # Exact for small angles, where the arc cosine is not.
    return np.asarray(2 * np.arcsin(np.clip(np.linalg.norm(offset, axis=-1) / 2, 0, 1)))


def locate(
    plan: GroupPlan, places_rad: Floats, effects: Mapping[str, tuple[float, ...]]
) -> tuple[Floats, Floats]:
    """Return where sources of ICRS positions (2, N), rad, stand, each (N, T, 3).

    Unit vectors less that of the phase centre, in the telescope's frame; and l, m, n - 1 from the
    direction to which the dishes really point.
    """
    towards = telescope.unit_vectors(*telescope.hadec(places_rad[0], places_rad[1], plan.mjd))
    east_deg, north_deg = effects.get("pointing", (0.0, 0.0))
    dec = plan.dec_rad + np.deg2rad(north_deg)
    ha = -np.deg2rad(east_deg) / np.cos(dec)
    axes = telescope.sky_axes(ha, dec)
    from_axis = (towards - axes[2]) @ axes.T
    return towards - telescope.unit_vectors(0.0, plan.dec_rad), from_axis


def prepare_group(
    plan: GroupPlan, options: SimulateOptions, sources: Sequence[SkySource]
) -> SimulatedGroup:
    """Work out a group's geometry, gains and defects."""
    array, scale = telescope.dsa110(), plan.scale
    effects = parse_effects(options.effects, EFFECTS)
    faults = parse_effects(options.faults, FAULTS)
    instrument = Instrument(options, len(array.active))
    rng = np.random.default_rng([options.seed, DEFECTS, plan.tick])
    emitters = draw_emitters(options.rfi, scale, rng)
    offset, from_axis = locate(plan, positions_rad(sources), effects)
    # Against an emitter on the ground it is the phase centre that turns.
    centre = telescope.unit_vectors(0.0, plan.dec_rad)
    ground = np.array([emitter.direction for emitter in emitters]).reshape(-1, 1, 3) - centre
    ground = np.broadcast_to(ground, (len(emitters), len(plan.mjd), 3))
    offsets = np.concatenate([offset, ground]).reshape(-1, 3)
    turning = np.concatenate([offset, np.broadcast_to(-centre, ground.shape)]).reshape(-1, 3)
    errors = instrument.position_errors_m(effects.get("positions", (0.0,))[0])
    delay, rate = compute_delays(array.positions_m + errors, offsets, turning)
    delay += errors @ centre / SPEED_OF_LIGHT_M_S
    shape = (-1, len(plan.mjd), len(array.active))
    bandpass, gains = instrument.bandpass(scale.band_hz()), instrument.gains(plan.mjd)
    if options.gains == "unit":
        bandpass, gains = np.ones_like(bandpass), np.ones_like(gains)
    gains[..., len(plan.mjd) // 2 :] *= np.sqrt(faults.get("gain-step", (1.0,))[0])
    # A cross-correlation needs both antennas.
    lost = 1 - np.sqrt(1 - options.zeros)
    alive = rng.uniform(size=(scale.integrations, len(array.active))) >= lost
    alive[:, antenna_indices(options.dead_antennas, array)] = False
    if "half-dead" in faults:
        alive[:, ::2] = False
    deaf = antenna_indices(options.deaf_antennas, array)
    made = SimulatedGroup(
        plan=plan,
        options=options,
        sources=sources,
        flux_scale=instrument.flux_scale(plan.epoch) if plan.role == "target" else 1.0,
        from_axis=from_axis,
        effects=effects,
        faults=faults,
        is_faint=np.zeros(len(sources), bool),
        delay_s=delay.reshape(shape),
        rate=rate.reshape(shape),
        screen=compute_screen(effects, plan, offsets.reshape(-1, len(plan.mjd), 3)),
        size_m=compute_sizes([*sources, *([None] * len(emitters))], plan),
        bandpass=bandpass,
        gains=gains,
        emitters=emitters,
        coupled=draw_coupled(options.rfi, scale, rng),
        alive=alive,
        deaf=deaf,
        sefd_jy=instrument.sefds_jy(),
    )
    return replace(made, is_faint=choose_faint(made))


def choose_faint(group: SimulatedGroup) -> Booleans:
    """Return which sources may be predicted as faint points in the beam, shape (N,)."""
    quiet = np.array([source.flux_jy for source in group.sources])
    apparent = quiet * group.beam(MIDDLE_HZ).max(axis=(1, 2))
    size = group.size_m[: len(quiet)] * MIDDLE_HZ / SPEED_OF_LIGHT_M_S
    resolved = np.minimum(np.square(np.ptp(size, axis=2)).sum(axis=1), 1)
    special = np.array([s.sidelobe > 0 or s.polarisation != 0 for s in group.sources])
    return np.asarray((apparent < FAINT_JY) & (apparent * resolved < RESOLVED_JY) & ~special)


def compute_screen(
    effects: Mapping[str, tuple[float, ...]], plan: GroupPlan, offsets: Floats
) -> Floats:
    """Return the phase of an ionospheric screen at 1.4 GHz, turns, (N, T, A).

    The phase is quadratic in the place where a ray crosses the screen: a gradient, which turns
    slowly, and a curvature, through which the gradient differs by a fifth at 2 degrees.
    """
    array = telescope.dsa110()
    screen = np.zeros((*offsets.shape[:2], len(array.active)))
    if "ionosphere" in effects:
        axes = telescope.ground_axes()[:2]
        per_m = effects["ionosphere"][0] / 360 / SCREEN_M
        angle = 2 * np.pi * plan.mjd[:, None] * DAY_S / np.array(SCREEN_PERIODS_S)
        bend = per_m * SCREEN_BEND_PER_RAD
        gradient = per_m * np.sin(angle) + bend * (offsets @ axes.T)
        screen += gradient @ (array.positions_m @ axes.T).T
    return screen


def compute_sizes(sources: Sequence[SkySource | None], plan: GroupPlan) -> Floats:
    """Return the antennas' places along the axes of Gaussian sources, as `Paths` has them."""
    array = telescope.dsa110()
    sizes = np.zeros((len(sources), 2, len(array.active)))
    for k, source in enumerate(sources):
        if source and source.major_arcsec > 0:
            place = positions_rad([source])
            ha, dec = telescope.hadec(place[0], place[1], np.array([plan.middle_mjd]))
            east, north, _ = telescope.sky_axes(ha[0, 0], dec[0, 0])
            angle = np.deg2rad(source.pa_deg)
            major = np.cos(angle) * north + np.sin(angle) * east
            minor = np.cos(angle) * east - np.sin(angle) * north
            widths = np.deg2rad(np.array([source.major_arcsec, source.minor_arcsec]) / 3600)
            axes = widths[:, None] * np.array([major, minor])
            sizes[k] = np.pi / (2 * np.sqrt(np.log(2))) * axes @ array.positions_m.T
    return sizes


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
    polarised = np.array([source.polarisation for source in group.sources], np.float32)
    polarised = np.concatenate([polarised, np.zeros(len(group.emitters), np.float32)])
    is_polarised, order = polarised != 0, swap_rows(group.faults, array)
    exchanged = fault_antennas(group.faults, "swap-polarisations", array)
    bandpass, gains = bandpass.copy(), group.gains.copy()
    for values in (bandpass, gains):
        values[:, exchanged] = values[::-1, exchanged]
    # X of one antenna and Y of another share no signal of an unpolarised sky.
    silent = np.isin(first, group.deaf) | np.isin(second, group.deaf)
    silent |= np.isin(first, exchanged) != np.isin(second, exchanged)
    for t in range(scale.integrations):
        paths, jy = group.paths(t, float(frequency.mean())), flux[:, t]
        sky = predict(paths.select(~faint), jy[~faint], frequency, pairs, smear)
        if faint.any():
            sky += predict_faint(paths.select(faint), jy[faint], frequency, smear)
        for row, where, level_jy in group.coupled:
            sky[row] += level_jy * where[::-1][mine]
        sky[silent] = 0
        skies = sky, sky
        if is_polarised.any():
            excess_jy = jy[is_polarised] * polarised[is_polarised, None]
            excess = predict(paths.select(is_polarised), excess_jy, frequency, pairs, smear)
            excess[silent] = 0
            skies = sky + excess, sky - excess
        gain = bandpass * gains[:, :, t, None] * group.alive[t][:, None]
        gain = np.ascontiguousarray(np.moveaxis(gain, 0, -1).astype(np.complex64))
        noise = rng.standard_normal((len(array.first), scale.channels, 2, 2), dtype=np.float32)
        receivers = Receivers(gain=gain, sigma=sigma, system=system)
        receive(skies, receivers, noise, pairs, out[t])
        if order is not None:
            rows, turned = order
            out[t] = np.where(turned[:, None, None], out[t][rows].conj(), out[t][rows])
    return out.conj() if "mirror" in group.faults else out


def swap_rows(
    faults: Mapping[str, tuple[float, ...]], array: telescope.StationArray
) -> tuple[Integers, Booleans] | None:
    """Return which row's data each row gets if two antennas are exchanged, and which turned."""
    if "swap-antennas" not in faults:
        return None
    one, two = fault_antennas(faults, "swap-antennas", array)
    names = np.arange(len(array.active))
    names[[one, two]] = two, one
    row_of = np.zeros((len(names), len(names)), np.int64)
    first, second = array.pairs
    rows = np.arange(first.size)
    row_of[second, first] = rows
    row_of[first, second] = rows
    row = row_of[names[first], names[second]]
    return row, first[row] != names[first]


def draw_emitters(
    kinds: Sequence[str], scale: telescope.DataScale, rng: np.random.Generator
) -> list[Emitter]:
    """Draw a group's interference, kind by kind.

    A carrier has 1 or 2 channels for half of the group or longer, a burst one integration, a
    satellite 10 MHz for up to four. A radar of 2 MHz is seen in every other integration, and
    broadband emission in all.

    Raises
    ------
    UsageError
        If a kind is unknown.
    """
    unknown = set(kinds) - set(RFI)
    if unknown:
        problem = f"Interference of the kind {', '.join(sorted(unknown))} is unknown."
        raise UsageError("rfi", problem, f"Name some of {', '.join(RFI)}.")
    times, band_hz, emitters = scale.integrations, scale.band_hz(), []
    axes = telescope.ground_axes()
    for kind in [
        k for k in EMITTED_JY if k in kinds for _ in range(CARRIERS if k == "narrow" else 1)
    ]:
        azimuth = rng.uniform(0, 2 * np.pi)
        north, east, up = np.cos(azimuth), np.sin(azimuth), 0.0
        flux = float(np.exp(rng.uniform(*np.log(EMITTED_JY[kind]))))
        on = np.zeros((times, band_hz.size), bool)
        if kind == "burst":
            width = round(BURST_FRACTION * band_hz.size)
            first = rng.integers(band_hz.size - width + 1)
            on[rng.integers(times), first : first + width] = True
        elif kind == "narrow":
            first, wide = rng.integers(band_hz.size - 1), rng.integers(1, 3)
            length = rng.integers((times + 1) // 2, times + 1)
            start = rng.integers(times - length + 1)
            on[start : start + length, first : first + wide] = True
        elif kind == "radar":
            on[rng.integers(2) :: 2] = np.abs(band_hz - RADAR_HZ) < RADAR_HALF_HZ
        elif kind == "satellite":
            height = float(np.deg2rad(rng.uniform(20, 80)))
            north, east, up = north * np.cos(height), east * np.cos(height), np.sin(height)
            length = rng.integers(1, min(times, 4) + 1)
            start = rng.integers(times - length + 1)
            on[start : start + length] = np.abs(band_hz - SATELLITE_HZ) < SATELLITE_HALF_HZ
        else:
            on[:] = True
        direction = np.array([east, north, up]) @ axes
        emitters.append(Emitter(direction=direction, flux_jy=flux, on=on))
    return emitters


def draw_coupled(
    kinds: Sequence[str], scale: telescope.DataScale, rng: np.random.Generator
) -> list[tuple[int, Booleans, complex]]:
    """Draw the signals of single baselines, each in a quarter of the band."""
    array, channels = telescope.dsa110(), SUBBANDS * scale.channels
    cross = np.flatnonzero(array.first != array.second)
    coupled = []
    for row in rng.choice(cross, COUPLED * ("baseline" in kinds), replace=False).tolist():
        where = np.zeros(channels, bool)
        first = rng.integers(channels - channels // 4)
        where[first : first + channels // 4] = True
        coupled.append(
            (row, where, complex(rng.uniform(*COUPLED_JY) * np.exp(2j * np.pi * rng.uniform())))
        )
    return coupled


def fault_antennas(
    faults: Mapping[str, tuple[float, ...]], name: str, array: telescope.StationArray
) -> list[int]:
    """Return the indices of the antennas whose stations a fault names, if it is asked for."""
    return antenna_indices([f"{number:g}" for number in faults.get(name, ())], array)


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
