"""Fluxes of the field's sources, solved together with the gains.

A solve that takes the field's fluxes from a catalogue copies their errors: on a T-shaped array, a
source due east or north of the calibrator looks to one arm like the calibrator itself, so the gains
take up to a fifth of its error and return it to the image. Here every source has a free amplitude.
Data are divided by first gains and averaged into cells of time and frequency, on baselines that
such cells do not smear. In each cell ``V_ij = (1 + d_i + conj(d_j)) sum_k a_k M_k,ij + noise`` with
gain errors d of its own. The gain errors are eliminated, which leaves normal equations for the
amplitudes alone (Schur's complement); they are solved again until the amplitudes no longer change.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from contimg.astro import counts
from contimg.astro.constants import DAY_S, MAD_TO_SIGMA
from contimg.astro.coordinates import direction_cosines
from contimg.astro.gains import ComplexArray, Factors, FlagArray, FloatArray, IntArray
from contimg.astro.predict import (
    PHASE_PER_M_HZ,
    PointSources,
    SkyModel,
    antenna_positions,
    path_rates,
)
from contimg.records.ms import MeasurementSet
from contimg.runtime.compiled import compile_loops
from contimg_calibrate import visibilities as vis
from contimg_calibrate.visibilities import Float32Array, Ratio

MAX_BASELINE_M = 500.0
"""Longer baselines, those of the outriggers, are left out: cells would smear them."""
CELL_HZ, CELL_S = 4e6, 55.0
"""Largest cell. A source at 2 deg turns by 0.15 on a 300 m baseline within it."""
MIN_ANTENNAS = 10
"""Fewer antennas with short baselines cannot tell sources from gains."""
PRIOR_SIGMA = 3.0
"""Width of the prior of an amplitude about the catalogue's, as a fraction of that: it holds a
source that the data say nothing about, and moves one with S/N 20 by less than 0.1 % of its
catalogue error."""
MAX_ROUNDS, TOLERANCE = 8, 1e-4
"""Rounds end when no amplitude moves by more than this fraction, or by 3 % of its error."""
MAX_PULL = 4.0
"""Antennas whose phase is farther from a plane, in robust standard deviations, are left out."""
FIELD_POLARIZATION = 0.015
"""Rms of Q / I or U / I of sources at 1.4 GHz: NVSS finds 2 % of linear polarisation."""
UNLISTED, GOLDEN_ANGLE_RAD = 64, np.pi * (3 - np.sqrt(5))
"""Sources that stand for those in no catalogue, and the angle from one to the next."""
NVSS_LIMIT_JY = 0.05
"""The catalogue's list begins here."""
STEFCAL_ROUNDS = 60
RIDGE = 1e-6
"""Of the mean diagonal, added to the normal equations of gains: the array's phase is free."""


@dataclass
class Cells:
    """Data over first gains, averaged over cells of time and frequency."""

    times_s: FloatArray
    """Shape (T,), MJD in seconds."""
    freq_hz: FloatArray
    """Shape (F,), weighted centres."""
    width_s: float
    width_hz: float
    positions_m: FloatArray
    """Shape (T, A, 3): UVW of a baseline is ``x[second] - x[first]``."""
    first: IntArray
    """Shape (B,), indices into the A antennas of `antennas`."""
    second: IntArray
    antennas: IntArray
    """Shape (A,): rows of the ANTENNA table."""
    data: ComplexArray
    """Shape (T, F, B, P)."""
    weight: Float32Array
    """Shape (T, F, B): 1 / variance of the real part in one polarization; 0 if one of them has no
    data."""


@dataclass
class FieldFit:
    """Amplitudes of the sources relative to their catalogue fluxes, and errors of the gains."""

    amplitude: FloatArray
    """Shape (K,); 1 of sources that were held."""
    error: FloatArray
    """Standard deviation from noise, gains and sources in no catalogue; 0 of sources that were
    held."""
    noise: FloatArray
    """The same without sources in no catalogue: what the data could tell if there were none."""
    gain: ComplexArray
    """Shape (T, F, A, P): gain errors of the cells, relative to the first gains."""


def load_cells(
    ms: MeasurementSet,
    flags: FlagArray | None,
    ratio: Ratio,
    factors: Factors,
    *,
    core_only: bool = False,
) -> Cells | None:
    """Read a Measurement Set over gains into cells; None if too few antennas have short baselines.

    `factors` are at the times of `ratio`. With `core_only`, antennas that short baselines do not
    link with most others are left out: only `factors` tell their phases relative to those. Ten
    outriggers are such a group.
    """
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    rows, freq_hz = ms.rows, ms.header.frequencies_hz
    ant1, ant2 = rows.antenna1.astype(np.int64), rows.antenna2.astype(np.int64)
    length = np.linalg.norm(rows.uvw_m, axis=1)
    short = np.zeros(len(ratio.pairs), bool)
    short[ratio.pair] = length[ant1 != ant2] < MAX_BASELINE_M
    if core_only and short.any():
        one, two = ratio.pairs[short].T
        links = coo_array((np.ones(one.size), (one, two)), shape=(ratio.antennas,) * 2)
        part = connected_components(links, directed=False)[1][one]
        short[short] = part == np.bincount(part).argmax()
    kept = ratio.pairs[short]
    antennas, index = np.unique(kept, return_inverse=True)
    if antennas.size < MIN_ANTENNAS:
        return None
    integration_s = float(np.median(rows.interval_s))
    step = max(1, int(CELL_S // integration_s))
    # Two times at least, so that a change within the group is seen.
    count = max(min(2, ratio.times_s.size), round(ratio.times_s.size / step))
    slot = np.arange(ratio.times_s.size) * count // ratio.times_s.size
    group = max(1, int(CELL_HZ // ms.header.channel_width_hz))
    band = np.arange(freq_hz.size) // group
    shape = (count, int(band[-1]) + 1, len(kept), ratio.power.shape[2])
    total, weight = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    number = np.full((len(ms.header.antennas.names),) * 2, -1)
    number[kept[:, 0], kept[:, 1]] = np.arange(len(kept))
    pieces = (factors.bandpass, factors.bandpass_flag), (factors.gain, factors.gain_flag)
    inverse = [
        np.where(lost, 0, 1 / np.where(lost, 1, value)).astype("c8") for value, lost in pieces
    ]
    edges = np.searchsorted(rows.time_s, [*(ratio.times_s - 1e-3), np.inf])
    positions = np.zeros((count, antennas.size, 3))
    for t, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
        part = slice(low, high)
        where = antenna_positions(rows.uvw_m[part], ant1[part], ant2[part], len(number))
        positions[slot[t]] += where[antennas] / np.count_nonzero(slot == slot[t])
        lost = ms.read("FLAG", low, high - low)
        if flags is not None:
            lost |= flags[part]
        _average(
            ms.read("DATA", low, high - low),
            lost,
            (ant1[part], ant2[part]),
            number,
            (inverse[0], inverse[1][t]),
            band,
            ratio.weight[short],
            (total[slot[t]], weight[slot[t]]),
        )
    data = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    both = np.all(weight > 0, axis=3)
    harmonic = np.zeros(both.shape, np.float32)
    np.divide(
        shape[3], np.sum(1 / np.where(weight > 0, weight, 1), axis=3), out=harmonic, where=both
    )
    content = np.bincount(band, np.count_nonzero(ratio.power, axis=(0, 2)))
    centre = np.bincount(band, np.count_nonzero(ratio.power, axis=(0, 2)) * freq_hz)
    plain = np.bincount(band, freq_hz) / np.bincount(band)
    return Cells(
        times_s=np.bincount(slot, ratio.times_s) / np.bincount(slot),
        freq_hz=np.divide(centre, content, out=plain, where=content > 0),
        width_s=integration_s * ratio.times_s.size / count,
        width_hz=ms.header.channel_width_hz * group,
        positions_m=positions,
        first=index.reshape(-1, 2)[:, 0],
        second=index.reshape(-1, 2)[:, 1],
        antennas=antennas,
        data=data,
        weight=harmonic,
    )


def fit_fluxes(
    cells: Cells, sky: SkyModel, held: FlagArray, *, phase_only: bool = False
) -> FieldFit:
    """Fit the amplitudes of the sources that are not `held`, shape (K,), together with gains.

    Each cell has complex gains of its own; with `phase_only` there are only phases, one for all
    channels of a time.
    """
    times, channels, _, pols = cells.data.shape
    gain = np.ones((times, channels, cells.antennas.size, pols), np.complex64)
    amplitude, free = np.ones(held.size), ~held
    blocks = [range(channels)] if phase_only else [range(f, f + 1) for f in range(channels)]
    solver = _Eliminator(cells, phase_only=phase_only)
    faint, count = stand_for_unlisted(sky), int(free.sum())
    both = np.append(free, np.ones(UNLISTED, bool)), np.append(amplitude, np.zeros(UNLISTED))
    whole = np.zeros((count + UNLISTED,) * 2)
    for number in range(MAX_ROUNDS):
        slope = np.zeros(count)
        for t in range(times):
            model = _SourceModels(cells, sky, t)
            others = _SourceModels(cells, faint, t) if number == 0 else None
            for block in blocks:
                parts = [(f, model.at(f)) for f in block]
                if others is not None:
                    added = [(f, np.concatenate([one, others.at(f)])) for f, one in parts]
                    whole += solver.curvature(t, added, *both)
                slope += solver.slope(t, parts, free, amplitude, gain)
        # The prior is about 1, the catalogue's flux.
        pulled = slope + (1 - amplitude[free]) / PRIOR_SIGMA**2
        normal = whole[:count, :count] + np.eye(count) / PRIOR_SIGMA**2
        step = np.linalg.solve(normal, pulled)
        amplitude[free] += step
        inverse = np.linalg.inv(normal)
        sigma = np.sqrt(np.diag(inverse))
        if np.all(np.abs(step) < np.maximum(TOLERANCE, 0.03 * sigma)):
            break
    error, noise = np.zeros(held.size), np.zeros(held.size)
    noise[free] = sigma
    # What sources in no catalogue add to each amplitude, the gains taken out.
    error[free] = np.hypot(sigma, np.linalg.norm(inverse @ whole[:count, count:], axis=1))
    return FieldFit(amplitude=amplitude, error=error, noise=noise, gain=gain)


def stand_for_unlisted(sky: SkyModel) -> SkyModel:
    """Return a sky of `UNLISTED` sources, spread evenly over the beam, for those in no catalogue.

    Each has the root of the sum of the squared fluxes that the source count has in its part of the
    beam, so that independent random signs give the visibilities their variance.
    """
    radius_rad = sky.primary_beam.null_rad(float(sky.freq_hz.min()))
    order = np.arange(UNLISTED) + 0.5
    away, angle = radius_rad * np.sqrt(order / UNLISTED), GOLDEN_ANGLE_RAD * order
    dec_rad = sky.dec0_rad + away * np.cos(angle)
    ra_rad = sky.ra0_rad + away * np.sin(angle) / np.cos(sky.dec0_rad)
    area_deg2 = np.pi * np.degrees(radius_rad) ** 2 / UNLISTED
    # The squared flux in a solid angle is the confusion of a beam of twice that.
    flux_jy = counts.confusion_jy(2 * area_deg2, NVSS_LIMIT_JY)
    spectra = np.full((UNLISTED, sky.freq_hz.size), flux_jy)
    return replace(sky, sources=PointSources(ra_rad, dec_rad, spectra))


def diagnose(
    cells: Cells, sky: SkyModel, held: FlagArray, fit: FieldFit, first: Factors
) -> dict[str, Any]:
    """Return what the cells say about faults that amplitudes alone do not show.

    `sky` has the catalogue's fluxes. The answer has ``field_match`` and ``mirrored_match``, the
    least-squares amplitude of the catalogue's field at its place and point-reflected through the
    calibrator; ``antennas`` and ``antenna_match`` with its error, the amplitude of the fitted field
    on the baselines of each antenna, which is 1; ``gain_change``, the amplitude of each antenna in
    the last cell over that in the first; and ``moved_arcsec_min`` with its error, the apparent
    motion of the calibrator. ``polarization`` with its error is (XX - YY) / (XX + YY) of the
    calibrator, if the field is not polarised: gains that take it for unpolarised change the field's
    fluxes in X and Y the other way.
    """
    i, j, pols = cells.first, cells.second, cells.data.shape[3]
    sums, size = np.zeros((2, cells.antennas.size)), np.zeros(3)
    hands, single = np.zeros(pols), np.zeros(int(np.count_nonzero(~held)))
    for t in range(len(cells.times_s)):
        model = _SourceModels(cells, sky, t)
        for f in range(cells.freq_hz.size):
            models = model.at(f)
            calibrator, listed = models[held].sum(axis=0), models[~held].sum(axis=0)
            field = (fit.amplitude[~held].astype(np.float32)) @ models[~held]
            turn = np.divide(calibrator, calibrator.conj())
            weight = cells.weight[t, f]
            own = fit.gain[t, f]
            rest = cells.data[t, f] / (own[i] * own[j].conj()) - calibrator[:, None]
            left = np.mean(rest, axis=1)
            hands += weight @ (rest * field.conj()[:, None]).real
            single += np.abs(fit.amplitude[~held, None] * models[~held]) ** 2 @ weight
            for k, one in enumerate(
                (left * listed.conj(), left * listed * turn.conj(), listed * listed.conj())
            ):
                size[k] += np.sum(weight * one.real)
            straight = weight * (left * field.conj()).real
            for row, values in enumerate((straight, weight * np.abs(field) ** 2)):
                for end in (i, j):
                    sums[row] += np.bincount(end, values, len(cells.antennas))
    power = max(float(size[2]), 1e-30)
    share = np.linalg.norm(single) / max(float(single.sum()), 1e-30)
    noise = max(float(sums[1].sum()), 1e-30) ** -0.5  # both ends of a baseline have its power
    amplitude = np.abs(fit.gain).mean(axis=1).mean(axis=2)
    match = np.divide(sums[0], sums[1], out=np.zeros(len(sums[0])), where=sums[1] > 0)
    return {
        "field_match": size[0] / power,
        "mirrored_match": size[1] / power,
        "polarization": float((hands[-1] - hands[0]) / max(abs(hands.sum()), 1e-30)),
        "polarization_error": float(np.hypot(noise, FIELD_POLARIZATION * share)),
        "antennas": cells.antennas.tolist(),
        "antenna_match": match.tolist(),
        "antenna_error": (np.maximum(pols * sums[1], 1e-30) ** -0.5).tolist(),
        "gain_change": (amplitude[-1] / amplitude[0]).tolist(),
        **measure_motion(cells, fit, first),
    }


def measure_motion(cells: Cells, fit: FieldFit, first: Factors) -> dict[str, float]:
    """Return the motion of the sky that a gradient of phases over the array shows.

    Clocks or a Declination that are wrong show so: the true place moves differently.
    """
    count = len(cells.times_s)
    slot = np.arange(len(first.gain)) * count // len(first.gain)
    ends = []
    for t in (0, count - 1):
        mean = first.gain[slot == t][:, cells.antennas].mean(axis=0)
        ends.append(mean * fit.gain[t].mean(axis=0))
    turn = ends[1] * ends[0].conj()
    turn = np.sum(turn * np.exp(-1j * np.angle(turn.sum(axis=0))), axis=1)
    minutes = (cells.times_s[-1] - cells.times_s[0]) / 60
    known = np.abs(turn) > 0
    if minutes <= 0 or np.count_nonzero(known) < MIN_ANTENNAS:
        return {"moved_arcsec_min": 0.0, "moved_error": np.inf}
    scale = PHASE_PER_M_HZ * float(cells.freq_hz.mean()) * np.radians(1 / 3600)
    positions = cells.positions_m.mean(axis=0)[known, :2]
    matrix = np.column_stack([scale * positions, np.ones(len(positions))])
    phase = np.angle(turn[known])
    found, *_ = np.linalg.lstsq(matrix, phase, rcond=None)
    left = np.abs(phase - matrix @ found)
    good = left <= MAX_PULL * MAD_TO_SIGMA * np.median(left)
    found, *_ = np.linalg.lstsq(matrix[good], phase[good], rcond=None)
    variance = np.var(phase[good] - matrix[good] @ found)
    covariance = variance * np.linalg.pinv(matrix[good].T @ matrix[good])
    return {
        "moved_arcsec_min": float(np.hypot(*found[:2]) / minutes),
        "moved_error": float(np.sqrt(covariance[0, 0] + covariance[1, 1]) / minutes),
    }


class _SourceModels:
    """Visibilities of every source in the cells of one time."""

    def __init__(self, cells: Cells, sky: SkyModel, t: int) -> None:
        mjd = cells.times_s[t] / DAY_S
        self.cells = cells
        nearest = np.abs(sky.freq_hz[:, None] - cells.freq_hz).argmin(axis=0)
        self.flux_jy = (sky.sources.flux_jy * sky.beam(mjd))[:, nearest]
        place = sky.sources.ra_rad, sky.sources.dec_rad, sky.ra0_rad, sky.dec0_rad
        directions = np.stack(direction_cosines(*place), axis=1)
        positions = cells.positions_m[t]
        self.path_m = directions @ positions.T
        rate = path_rates(directions, positions, sky.dec0_rad)
        hz = float(cells.freq_hz.mean())
        turns = hz * cells.width_s * rate, cells.width_hz * self.path_m
        i, j = cells.first, cells.second
        self.loss = np.ones((len(directions), i.size), np.float32)
        for turn in turns:
            phase = (PHASE_PER_M_HZ / 2 / np.pi) * (turn[:, j] - turn[:, i])
            self.loss *= np.sinc(phase).astype(np.float32)

    def at(self, f: int) -> ComplexArray:
        """Return the visibilities at one frequency, shape (K, B), Jy."""
        fringe = np.exp(1j * PHASE_PER_M_HZ * self.cells.freq_hz[f] * self.path_m)
        fringe = fringe.astype(np.complex64)
        model = fringe[:, self.cells.first].conj() * fringe[:, self.cells.second]
        model *= self.loss
        model *= self.flux_jy[:, f, None].astype(np.float32)
        return np.asarray(model)


class _Eliminator:
    """Takes the gain errors out of the normal equations, one block of cells at a time.

    With amplitude and phase errors a and b, ``|r - M (a_i + a_j + i b_i - i b_j)|^2`` splits into a
    real system for a and one for b.
    """

    def __init__(self, cells: Cells, *, phase_only: bool) -> None:
        self.cells, self.phase_only = cells, phase_only
        rows = np.arange(cells.first.size)
        one, two = (np.zeros((rows.size, cells.antennas.size), np.float32) for _ in range(2))
        one[rows, cells.first], two[rows, cells.second] = 1, 1
        self.plus, self.minus = one + two, one - two

    def _systems(self, power: FloatArray) -> list[FloatArray]:
        """Return the inverse normal matrices of amplitudes and of phases."""
        between = np.zeros((self.cells.antennas.size,) * 2)
        between[self.cells.first, self.cells.second] = power
        between += between.T
        own = np.diag(between.sum(axis=1))
        ridge = RIDGE * max(float(own.mean()), 1e-30) * len(own) * np.eye(len(own))
        return [np.asarray(np.linalg.inv(own + sign * between + ridge)) for sign in (1.0, -1.0)]

    def curvature(
        self, t: int, parts: list[tuple[int, ComplexArray]], free: FlagArray, amplitude: FloatArray
    ) -> FloatArray:
        """Return the second derivatives of chi square / 2, all polarizations, gains taken out."""
        pols = self.cells.data.shape[3]
        count = int(free.sum())
        whole = np.zeros((count, count))
        coupling = [np.zeros((count, self.cells.antennas.size)) for _ in range(2)]
        power = np.zeros(self.cells.first.size)
        for f, models in parts:
            weight = self.cells.weight[t, f]
            total = amplitude.astype(np.float32) @ models
            mine = models[free] * np.sqrt(weight)
            pair = mine.view(np.float32)
            whole += pair @ pair.T
            cross = mine * (total.conj() * np.sqrt(weight))
            # BLAS takes contiguous arrays only; numpy's own loop is 20 times slower.
            coupling[0] += np.ascontiguousarray(cross.real) @ self.plus
            coupling[1] += np.ascontiguousarray(cross.imag) @ self.minus
            power += weight * np.abs(total) ** 2
        for sign, inverse in enumerate(self._systems(power)):
            if sign or not self.phase_only:
                whole -= coupling[sign] @ inverse @ coupling[sign].T
        return np.asarray(pols * whole)

    def slope(
        self,
        t: int,
        parts: list[tuple[int, ComplexArray]],
        free: FlagArray,
        amplitude: FloatArray,
        gain: ComplexArray,
    ) -> FloatArray:
        """Bring gains to their best at the amplitudes; return minus chi square's slope / 2."""
        cells, slope = self.cells, np.zeros(int(free.sum()))
        i, j = cells.first, cells.second
        totals = {f: amplitude.astype(np.float32) @ models for f, models in parts}
        power = sum(cells.weight[t, f] * np.abs(totals[f]) ** 2 for f, _ in parts)
        inverses = self._systems(np.asarray(power, float))
        for p in range(cells.data.shape[3]):
            left, side = {}, np.zeros(i.size, np.complex64)
            for f, _ in parts:
                own = gain[t, f, :, p]
                left[f] = cells.data[t, f, :, p] / (own[i] * own[j].conj()) - totals[f]
                side += cells.weight[t, f] * totals[f].conj() * left[f]
            size = inverses[0] @ (side.real @ self.plus) * (not self.phase_only)
            phase = inverses[1] @ (side.imag @ self.minus)
            change = (1 + size) * np.exp(1j * phase)
            relative = size[i] + size[j] + 1j * (phase[i] - phase[j])
            for f, models in parts:
                gain[t, f, :, p] *= change
                rest = cells.weight[t, f] * (left[f] - totals[f] * relative)
                slope += (models @ rest.astype(np.complex64).conj()).real[free]
        return slope


@compile_loops()
def _average(  # noqa: PLR0913, PLR0917 - a kernel
    data: ComplexArray,
    flags: FlagArray,
    ends: tuple[IntArray, IntArray],
    number: IntArray,
    inverse: tuple[ComplexArray, ComplexArray],
    band: IntArray,
    weight: Float32Array,
    out: tuple[ComplexArray, Float32Array],
) -> None:
    """Add one integration over its gains to the sums of its cells, weighted by inverse variance."""
    total, weights = out
    by_band, by_gain = inverse
    for r in range(data.shape[0]):
        i, j = ends[0][r], ends[1][r]
        b = number[i, j]
        if b < 0:
            continue
        for p in range(data.shape[2]):
            whole = by_gain[i, p] * np.conj(by_gain[j, p])
            for f in range(data.shape[1]):
                factor = whole * by_band[i, f, p] * np.conj(by_band[j, f, p])
                size = factor.real * factor.real + factor.imag * factor.imag
                if flags[r, f, p] or size == 0:
                    continue
                w = weight[b, p] / size
                total[band[f], b, p] += w * factor * data[r, f, p]
                weights[band[f], b, p] += w


def solve_first_gains(ratio: Ratio, window: slice) -> Factors:
    """Return quick gains: phases of each integration, and a bandpass of the group.

    They need no reference and no signal-to-noise limit: the fit corrects them.
    """
    antennas, (_, channels, pols) = ratio.antennas, ratio.power.shape
    ones = ratio.unit_gains()
    x, y = vis.sum_channels(ratio, ones, window)
    shape = ratio.times_s.size, antennas, antennas, pols
    x_all, y_all = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    x_all[ratio.slot, ratio.ant1, ratio.ant2], y_all[ratio.slot, ratio.ant1, ratio.ant2] = x, y
    phases = _stefcal(np.moveaxis(x_all, 3, 1), np.moveaxis(y_all, 3, 1))
    phases = np.moveaxis(phases, 1, 2)
    size = np.abs(phases)
    gain = np.where(size > 0, phases / np.where(size > 0, size, 1), 1).astype(np.complex64)
    x, y = vis.sum_times(ratio, replace(ones, gain=gain, gain_flag=size == 0))
    band = np.zeros((antennas, channels, pols), np.complex64)
    one, two = ratio.pairs.T
    for p in range(pols):
        x_all = np.zeros((channels, antennas, antennas), np.complex64)
        y_all = np.zeros(x_all.shape, np.float32)
        x_all[:, one, two], y_all[:, one, two] = x[..., p].T, y[..., p].T
        band[:, :, p] = _stefcal(x_all, y_all).T
    return Factors(band, band == 0, gain, size == 0)


def solve_first_phases(ratio: Ratio, factors: Factors, x: ComplexArray, y: Float32Array) -> Factors:
    """Return gains with quick phases of the group on top, from X and Y of each row after them."""
    antennas, pols = ratio.antennas, y.shape[1]
    x_all = np.zeros((pols, antennas, antennas), np.complex64)
    y_all = np.zeros(x_all.shape, np.float32)
    for p in range(pols):
        np.add.at(x_all[p], (ratio.ant1, ratio.ant2), x[:, p])
        np.add.at(y_all[p], (ratio.ant1, ratio.ant2), y[:, p])
    turn = np.exp(1j * np.angle(_stefcal(x_all, y_all))).T.astype(np.complex64)
    return replace(factors, gain=factors.gain * turn)


def _stefcal(x: ComplexArray, y: Float32Array) -> ComplexArray:
    """Return gains g that minimize sum Y |X/Y - g_i conj(g_j)|^2; 0 without data.

    `x`, `y`: shape (..., A, A), upper triangle; the gains have shape (..., A). Salvini & Wijnholds
    2014 (A&A 571, A97).
    """
    x, y = x + np.swapaxes(x, -1, -2).conj(), y + np.swapaxes(y, -1, -2)
    # The start is the row of the antenna with most signal.
    best = np.abs(x).sum(axis=-1).argmax(axis=-1)
    start = np.take_along_axis(x, best[..., None, None], axis=-1)[..., 0]
    size, diagonal = np.abs(start), y.sum(axis=-1) > 0
    gain = np.where(size > 0, start / np.where(size > 0, size, 1), 1) * diagonal
    scale = np.sqrt(np.abs(x).sum(axis=(-1, -2)) / np.maximum(y.sum(axis=(-1, -2)), 1e-30))
    gain = (gain * scale[..., None]).astype(np.complex64)
    for number in range(STEFCAL_ROUNDS):
        upper = np.squeeze(x @ gain[..., None], -1)
        lower = np.squeeze(y @ (np.abs(gain) ** 2)[..., None], -1)
        new = np.divide(upper, lower, out=np.zeros_like(upper), where=lower > 0)
        gain = new if number % 2 == 0 else (gain + new) / 2
    return np.asarray(gain, np.complex64)
