"""The solves of one group, from the Measurement Set to caltables; runs in a child with CASA."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import casacore.tables as ct
import numpy as np
import numpy.typing as npt

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.coordinates import Site
from contimg.astro.gains import (
    ComplexArray,
    Factors,
    FlagArray,
    FloatArray,
    Gains,
    IntArray,
    read_caltable,
)
from contimg.astro.predict import PointSources, SkyModel
from contimg.astro.primary_beam import PrimaryBeam
from contimg.records.flagfile import read_flags
from contimg.records.ms import FIXED_SHAPE_OPTION, READ_ONLY, MeasurementSet, MSHeader, Rows, create
from contimg.runtime.errors import BadInputError, ContimgError, SolveFailedError
from contimg_calibrate import field_fluxes
from contimg_calibrate import visibilities as vis
from contimg_calibrate.ensemble import (
    FIT_NAMES,
    MEDIAN_ERROR,
    EnsembleScale,
    ensemble_scale,
    measure_amplitudes,
)
from contimg_calibrate.quality import check_solution, measure_residuals, phase_error_rad
from contimg_calibrate.visibilities import Float32Array, Ratio

WINDOWS = 16
"""Phases before the bandpass are solved on one part in this many of the band: narrow enough for
delays of 40 ns."""
MIN_WINDOW_CONTENT = 0.8
"""The window nearest to the band's centre with this fraction of the best window's data is used."""
TELESCOPE, OUTRIGGERS = "DSA_110", range(103, 117)
"""The telescope and its stations far from the core."""
MIN_HEALTH = 0.5
"""An antenna with less unflagged data than this is a reference only if there is no better one."""
BAND_ROLES = ("delay", "bandpass")
"""Tables of another set that --flux-from uses as they are."""
MAX_DOPPLER = 2e-4
"""Two directions differ by 60 km/s at most: twice the Earth's motion."""
MIN_COMPARED = 4
"""Gains that two sets have in common, at least, to compare their flux scales."""
MIN_SIGMA = 3.0
"""A calibrator is polarised if the field shows it with this significance."""
MAX_REFERENCES = 5
"""Reference antennas that CASA gets, in case the first one has no solution somewhere."""


MIN_SCALE = 0.5
"""Data in which most sources have less than this of their fluxes are compared with the mirrored
sky."""


@dataclass(frozen=True)
class Solver:
    """The data of one group and where its solves work."""

    header: MSHeader
    path: Path
    """The Measurement Set."""
    flags: FlagArray | None
    """Flags in addition to its own."""
    sky: SkyModel
    ratio: Ratio
    integration_s: float
    folder: Path
    limits: dict[str, Any]
    """Arguments that all solves share: refant, minsnr, minblperant."""

    def evaluate(self, tables: list[Path]) -> Factors:
        """Evaluate caltables at the times and channels of the data; 1 without tables."""
        if not tables:
            return self.ratio.unit_gains()
        return Gains.read(tables).evaluate(self.ratio.times_s, self.header.frequencies_hz)

    def solve_gains(
        self, role: str, tables: list[Path], solint_s: float, mode: str, window: slice = slice(None)
    ) -> Path:
        """Solve G after some tables, on one channel and one row per interval and baseline.

        CASA solves sums over an interval 5 times faster than single rows, to the same minimum.
        """
        ratio, pairs = self.ratio, len(self.ratio.pairs)
        x, y = vis.sum_channels(ratio, self.evaluate(tables), window)
        times_s, interval = split_intervals(ratio.times_s, self.integration_s, solint_s)
        row = interval[ratio.slot] * pairs + ratio.pair
        shape = (times_s.size * pairs, 1, x.shape[1])
        x_sum, y_sum = np.zeros(shape, np.complex128), np.zeros(shape)
        np.add.at(x_sum[:, 0], row, x)
        np.add.at(y_sum[:, 0], row, y)
        x, y = x_sum.astype(np.complex64), y_sum.astype(np.float32)
        freq_hz = np.array([self.header.frequencies_hz[window].mean()])
        return self._solve(f"{role}.G", times_s, self.integration_s, freq_hz, x, y, apmode=mode)

    def solve_band(self, name: str, tables: list[Path], **arguments: Any) -> Path:  # noqa: ANN401
        """Solve K or B (the suffix of `name`) after some tables, on one row per baseline."""
        x, y = vis.sum_times(self.ratio, self.evaluate(tables))
        times_s = self.ratio.times_s.mean(keepdims=True)
        interval_s = self.integration_s * self.ratio.times_s.size
        return self._solve(name, times_s, interval_s, self.header.frequencies_hz, x, y, **arguments)

    def _solve(
        self,
        name: str,
        times_s: FloatArray,
        interval_s: float,
        freq_hz: FloatArray,
        x: ComplexArray,
        y: Float32Array,
        **arguments: Any,  # noqa: ANN401
    ) -> Path:
        """Write DATA = X/Y, MODEL_DATA = 1, WEIGHT_SPECTRUM = Y, and solve one caltable on it.

        WEIGHT is the mean of Y over the channels that have data. `x` and `y` have shape (times *
        baselines, channels, polarizations), `arguments` are those of CASA's calibrater.setsolve.
        The calibrater tool is used because casatasks around it would only add 1.8 s of imports.

        Raises SolveFailedError if CASA finds no solution at all.
        """
        import casatools

        role, _, kind = name.partition(".")
        ms, table = self.folder / f"{role}.ms", self.folder / name
        pairs, count = self.ratio.pairs, len(y)
        data = np.divide(x, y, out=np.zeros_like(x), where=y > 0)
        filled = np.count_nonzero(y > 0, axis=1)
        weight = np.zeros(filled.shape, np.float32)
        np.divide(y.sum(axis=1), filled, out=weight, where=filled > 0)
        rows = Rows(
            time_s=np.repeat(times_s, len(pairs)),
            interval_s=np.full(count, interval_s),
            antenna1=np.tile(pairs[:, 0], times_s.size).astype(np.int32),
            antenna2=np.tile(pairs[:, 1], times_s.size).astype(np.int32),
            uvw_m=np.zeros((count, 3)),
            weight=weight,
        )
        channels = len(self.header.frequencies_hz) if freq_hz.size == 1 else 1
        width_hz = self.header.channel_width_hz * channels
        header = replace(self.header, frequencies_hz=freq_hz, channel_width_hz=width_hz)
        columns = {"DATA": data, "MODEL_DATA": np.ones_like(data), "WEIGHT_SPECTRUM": y}
        with create(ms, header, rows, tuple(columns)) as writer:
            writer.put(0, {**columns, "FLAG": y <= 0})
        with contextlib.closing(casatools.calibrater()) as tool:
            tool.open(str(ms), addcorr=False, addmodel=False)
            tool.selectvis()
            settings = {**self.limits, "type": kind, **arguments}
            tool.setsolve(table=str(table), t="int", append=False, **settings)
            tool.solve()
        if not (table / "table.dat").exists():
            problem = f"CASA found no solutions of type {kind}."
            raise SolveFailedError(ms.name, problem, "Look at the flags and at the model's flux.")
        original = table.rename(table.with_name(f"{name}.original"))
        rewrite_table(original, table)
        shutil.rmtree(original)
        return table


def run(
    task: str, ms: str, flags: str, sky: dict[str, Any], folder: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Call `solve_group` or `solve_field`; return a `ContimgError` as its name and arguments."""
    arrays = {name: np.array(values) for name, values in sky["sources"].items()}
    site = Site(**sky["site"]) if sky["site"] else None
    changes = {"sources": PointSources(**arrays), "freq_hz": np.array(sky["freq_hz"]), "site": site}
    changes["primary_beam"] = PrimaryBeam.load(sky["primary_beam"])
    model = SkyModel(**{**sky, **changes})
    try:
        with MeasurementSet(Path(ms)) as table:
            header, integration_s = table.header, float(np.median(table.rows.interval_s))
            extra = read_flags(Path(flags)) if flags else None
            ratio = vis.load_ratio(table, extra, model)
        names, wanted = header.antennas.names, given["reference_antenna"]
        references = rank_references(header.telescope, names, ratio.health, wanted)
        limits = {name: given[name] for name in ("minsnr", "minblperant")}
        limits["refant"] = ",".join(references)
        solver = Solver(
            header=header,
            path=Path(ms),
            flags=extra,
            sky=model,
            ratio=ratio,
            folder=Path(folder),
            limits=limits,
            integration_s=integration_s,
        )
        solve = {"solve_group": solve_group, "solve_field": solve_field}[task]
        return solve(solver, given)
    except ContimgError as error:
        return {"error": type(error).__name__, "arguments": list(error.args)}


def fit_fluxes(
    solver: Solver,
    first: Factors,
    held: FlagArray,
    *,
    phase_only: bool = False,
    core_only: bool = False,
) -> tuple[Solver, dict[str, Any]]:
    """Fit the fluxes of the sources that are not `held`, shape (K,), with errors of `first` gains.

    `core_only` is for first gains that noise makes uncertain (`field_fluxes.load_cells`), as those
    of a field without a calibrator are; so it is with `phase_only`. Return a solver with the fitted
    sky, and numbers of the fit; the same solver and no numbers if too few antennas have short
    baselines.
    """
    with MeasurementSet(solver.path) as ms:
        cells = field_fluxes.load_cells(
            ms, solver.flags, solver.ratio, first, core_only=core_only or phase_only
        )
        if cells is None:
            return solver, {}
        fit = field_fluxes.fit_fluxes(cells, solver.sky, held, phase_only=phase_only)
        found = {name: getattr(fit, name).tolist() for name in FIT_NAMES}
        if phase_only:
            found |= field_fluxes.measure_motion(cells, fit, first)
        else:
            found |= field_fluxes.diagnose(cells, solver.sky, held, fit, first)
        sources = solver.sky.sources
        flux_jy = sources.flux_jy * fit.amplitude[:, None]
        fitted = replace(solver.sky, sources=replace(sources, flux_jy=flux_jy))
        ratio = vis.load_ratio(ms, solver.flags, fitted, into=solver.ratio)
    return replace(solver, ratio=ratio, sky=fitted), found


def solve_group(solver: Solver, given: dict[str, Any]) -> dict[str, Any]:
    """Solve phases, bandpass and gains on a calibrator; return their quality and the tables."""
    window, held = _choose_window(solver.ratio), np.array(given["held"], bool)
    fluxes: dict[str, Any] = {}
    if not held.all():
        first = field_fluxes.solve_first_gains(solver.ratio, window)
        solver, fluxes = fit_fluxes(solver, first, held, core_only="beam_error" in given)
    ratio = solver.ratio
    prephase = solver.solve_gains("prephase", [], given["prephase_solint_s"], "p", window)
    band = [solver.solve_band("delay.K", [prephase])] if given["do_k"] else []
    settings = {"solnorm": True, "fillgaps": given["fillgaps"]}
    if "flux_from" in given:  # CASA's fluxscale compares gains after one bandpass
        band = [Path(path) for role, path in given["flux_from"].items() if role in BAND_ROLES]
        if solver.header.telescope != TELESCOPE:
            _follow_doppler(band[-1], solver.header.frequencies_hz)
    else:
        band.append(solver.solve_band("bandpass.B", [prephase, *band], **settings))
    phase = solver.solve_gains("phase", band, given["phase_solint_s"], "p")
    gain = solver.solve_gains("gain", [*band, phase], np.inf, "ap")
    tables = {path.stem: path for path in [*band, phase, gain]}
    told: EnsembleScale | None = None
    if "beam_error" in given:
        told = _measure_ensemble(solver, tables, fluxes, np.array(given["beam_error"]))
    elif "flux_from" in given:
        told = _compare_gains(solver, tables["gain"], Path(given["flux_from"]["gain"]))
    if told is not None:
        _scale_gains(tables["gain"], np.sqrt(told.scale))
        for name in FIT_NAMES if fluxes else ():
            fluxes[name] = (np.array(fluxes[name]) / told.scale).tolist()
    x, y = vis.sum_channels(ratio, solver.evaluate(list(tables.values())))
    quality = check_solution(
        given["group"],
        tables={role: read_caltable(path) for role, path in tables.items()},
        health=ratio.health,
        residuals=measure_residuals(ratio, x, y),
        max_flagged=given["max_flagged"],
        band=np.any(ratio.power > 0, axis=(0, 2)),
    )
    if abs(fluxes.get("polarization", 0.0)) > MIN_SIGMA * fluxes.get("polarization_error", np.inf):
        _scale_gains(tables["gain"], (1 + fluxes["polarization"] * np.array([1, -1])) ** -0.5)
    # CASA skips a reference antenna that has no solution: the one used is that of most solutions.
    with ct.table(str(gain), **READ_ONLY) as solutions:
        used = solutions.getcol("ANTENNA2")
    reference = solver.header.antennas.names[int(np.bincount(used[used >= 0]).argmax())]
    folders = {role: str(path) for role, path in tables.items()}
    answer = {"quality": quality, "tables": folders, "reference_antenna": reference}
    return {**answer, "fluxes": fluxes, "scale": told and asdict(told)}


def _measure_ensemble(
    solver: Solver, tables: dict[str, Path], fluxes: dict[str, Any], beam_error: FloatArray
) -> EnsembleScale:
    """Return the factor of all sources together on their catalogue fluxes.

    Fluxes that were fitted with the gains tell it, so that one wrong flux of the catalogue moves no
    other; without them those that the gains give.

    Raises SolveFailedError if too few sources are measured well enough.
    """
    measured = fluxes or _compare_fluxes(solver, solver.evaluate(list(tables.values())))
    amplitude, error, noise = (np.array(measured[name]) for name in FIT_NAMES)
    told = ensemble_scale(amplitude, error, noise, beam_error)
    if told is None or told.scale <= 0:
        problem = "Too few sources of the field are seen well enough to set the flux scale."
        remedy = "Calibrate a group of this strip with a brighter field first."
        raise SolveFailedError(solver.path.name, problem, remedy)
    return told


def _compare_gains(solver: Solver, own: Path, other: Path) -> EnsembleScale:
    """Return the factor of this model's flux on the one that the gains of another set tell.

    The power gains of both are compared, antenna by antenna, as in CASA's task fluxscale; their
    median ratio is the true flux over the model's.

    Raises BadInputError if the sets are of other antennas; SolveFailedError if too few of them have
    solutions in both.
    """
    names = []
    for path in (own, other):
        with ct.table(f"{path}::ANTENNA", **READ_ONLY) as antennas:
            names.append(antennas.getcol("NAME"))
    if names[0] != names[1]:
        problem = "The set of --flux-from is of other antennas, or has them in another order."
        raise BadInputError(solver.path.name, problem, "Name a set of the same array.")
    times_s = solver.ratio.times_s.mean(keepdims=True)
    (mine, lost), (theirs, lost_there) = (
        read_caltable(p).interpolate(times_s) for p in (own, other)
    )
    both = ~(lost | lost_there)
    ratio = np.log(np.abs(mine[both]) ** 2 / np.abs(theirs[both]) ** 2)
    if ratio.size < MIN_COMPARED:
        problem = f"Only {ratio.size} gains have solutions in both sets; {MIN_COMPARED} are needed."
        raise SolveFailedError(solver.path.name, problem, "Look at the flags of both.")
    middle = float(np.median(ratio))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(ratio - middle)))
    # The gains are divided by the root of the flux ratio, as those of an ensemble are multiplied.
    scale = float(np.exp(-middle))
    error = MEDIAN_ERROR * scatter / np.sqrt(ratio.size)
    return EnsembleScale(scale, scale * float(error), ratio.size, scatter)


def _follow_doppler(bandpass: Path, freq_hz: FloatArray) -> None:
    """Give a bandpass the channels of another field, which the Earth's motion shifts.

    Frequencies that a set states in a frame of the sky are those of each field in the array's: the
    electronics, whose bandpass it is, are the same. Other differences stay, and are refused later.
    """
    with ct.table(f"{bandpass}::SPECTRAL_WINDOW", readonly=False, ack=False) as window:
        held = window.getcell("CHAN_FREQ", 0)
        if held.shape == freq_hz.shape and np.max(np.abs(held / freq_hz - 1)) < MAX_DOPPLER:
            window.putcell("CHAN_FREQ", 0, freq_hz)


def _scale_gains(table: Path, factor: npt.ArrayLike) -> None:
    """Multiply the amplitudes of G solutions, all or by polarization."""
    with ct.table(str(table), readonly=False, ack=False) as solutions:
        solutions.putcol("CPARAM", solutions.getcol("CPARAM") * np.asarray(factor, np.float32))


def solve_field(solver: Solver, given: dict[str, Any]) -> dict[str, Any]:
    """Solve phases on a field after a set, if the signal suffices; return how the set fits."""
    ratio, tables = solver.ratio, [Path(path) for path in given["tables"]]
    factors = solver.evaluate(tables)
    x, y = vis.sum_channels(ratio, factors)
    noise_deg = float(np.degrees(phase_error_rad(ratio, y)))
    # Unmodelled sources are noise that averages over neither time nor frequency, only over the
    # baselines of an antenna.
    others = max(1, int(np.count_nonzero(ratio.health)) - 1)
    confusion_deg = np.degrees(given["confusion"] / np.sqrt(2 * others))
    total_deg = float(np.hypot(noise_deg, confusion_deg))
    before = measure_residuals(ratio, x, y)
    answer = {"phase_error_deg": total_deg, "residuals": before, "done": False, "solint": ""}
    if total_deg > given["limit_deg"]:
        return {**answer, "fluxes": _compare_fluxes(solver, factors)}
    span_s = float(np.ptp(ratio.times_s)) + solver.integration_s
    short_deg = noise_deg * np.sqrt(max(1.0, span_s / given["phase_solint_s"]))
    solint_s = given["phase_solint_s"] if short_deg <= given["short_limit_deg"] else np.inf
    held, whole = np.array(given["held"], bool), solver
    fluxes: dict[str, Any] = {}
    if not held.all():
        first = field_fluxes.solve_first_phases(ratio, factors, x, y)
        solver, fluxes = fit_fluxes(solver, first, held, phase_only=True)
    field = solver.solve_gains("field", tables, solint_s, "p")
    gain = vis.row_gains(solver.evaluate([field]), ratio.slot, ratio.ant1, ratio.ant2)
    after = measure_residuals(ratio, x * gain.conj(), y * np.abs(gain) ** 2)
    solved = {"done": True, "solint": f"{solint_s:g} s", "residuals": after, "table": str(field)}
    if not fluxes:
        fluxes = _compare_fluxes(solver, solver.evaluate([*tables, field]))
    if np.median(fluxes["amplitude"]) < MIN_SCALE:
        after["mirrored_scale"] = _measure_mirrored(whole, factors)
    return {**answer, **solved, "fluxes": fluxes}


def _measure_mirrored(solver: Solver, factors: Factors) -> float:
    """Return the scale of conjugated data after gains and phases; their sum over the model is lost.

    It is 1 if the data are mirrored, gains and sky alike.
    """
    with MeasurementSet(solver.path) as ms:
        ratio = vis.load_ratio(ms, solver.flags, solver.sky, solver.ratio, conjugate=True)
    turned = field_fluxes.solve_first_phases(ratio, factors, *vis.sum_channels(ratio, factors))
    return measure_residuals(ratio, *vis.sum_channels(ratio, turned))["scale"]


def _compare_fluxes(solver: Solver, factors: Factors) -> dict[str, Any]:
    """Return the sources' fluxes over the model's after some gains, and their errors by noise."""
    amplitude, noise = measure_amplitudes(solver.path, solver.ratio, solver.sky, factors)
    return {"amplitude": amplitude.tolist(), "error": noise.tolist(), "noise": noise.tolist()}


def rank_references(
    telescope: str, names: tuple[str, ...], health: FloatArray, wanted: str | None = None
) -> list[str]:
    """Return the best reference antennas: the requested one, healthy outriggers, then others."""
    ranked = []
    for i in np.flatnonzero(health > 0).tolist():
        name, fraction = names[i], float(health[i])
        outrigger = telescope == TELESCOPE and name.isdigit() and int(name) in OUTRIGGERS
        poor = fraction < MIN_HEALTH
        ranked.append((name != wanted, poor, not outrigger, -round(fraction, 2), i))
    return [names[key[-1]] for key in sorted(ranked)[:MAX_REFERENCES]]


def split_intervals(
    times_s: FloatArray, integration_s: float, solint_s: float
) -> tuple[FloatArray, IntArray]:
    """Split times into solution intervals of about `solint_s`, all of one length.

    Return the mean time of each interval, and the interval of each time.
    """
    begin = times_s[0] - integration_s / 2
    span = times_s[-1] + integration_s / 2 - begin
    count = max(1, round(span / max(solint_s, integration_s)))
    part = np.minimum((times_s - begin) * count // span, count - 1).astype(np.int64)
    _, interval = np.unique(part, return_inverse=True)
    return np.bincount(interval, times_s) / np.bincount(interval), interval


def _choose_window(ratio: Ratio) -> slice:
    """Return the channels that phases are solved on first: near the centre, and with data."""
    channels = ratio.power.shape[1]
    size = max(1, channels // WINDOWS)
    data = np.count_nonzero(ratio.power, axis=(0, 2))
    starts = np.arange(0, channels - size + 1, size)
    content = np.array([data[start : start + size].sum() for start in starts])
    good = starts[content >= MIN_WINDOW_CONTENT * content.max()]
    start = int(good[np.argmin(np.abs(good + size / 2 - channels / 2))])
    return slice(start, start + size)


def rewrite_table(source: Path, target: Path) -> None:
    """Copy a table and its subtables into columns of fixed shape; empty columns are dropped.

    Between arrays of variable shape casacore leaves random bytes.
    """
    with ct.table(str(source), **READ_ONLY) as old:
        filled = [name for name in old.colnames() if old.nrows() and old.iscelldefined(name, 0)]
        kept = filled if old.nrows() else old.colnames()
        description = {name: old.getcoldesc(name) for name in kept}
        for name in filled:
            if description[name].get("ndim"):
                shape = list(np.shape(old.getcell(name, 0)))
                description[name].update(ndim=len(shape), shape=shape, option=FIXED_SHAPE_OPTION)
        with ct.table(str(target), description, nrow=old.nrows(), ack=False) as new:
            for name in filled:
                new.putcol(name, old.getcol(name))
            new.putinfo(old.info())
            for name, value in old.getkeywords().items():
                subtable = isinstance(value, str) and value.startswith("Table: ")
                if subtable:
                    rewrite_table(source / name, target / name)
                new.putkeyword(name, f"Table: {target / name}" if subtable else value)
