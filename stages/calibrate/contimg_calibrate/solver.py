"""The solves of one group, from the Measurement Set to caltables; runs in a child with CASA."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from contimg.astro.coordinates import Site
from contimg.astro.gains import Factors, Gains, read_caltable
from contimg.astro.predict import PointSources, SkyModel
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet, MSHeader, Rows, create
from contimg.runtime.errors import ContimgError
from contimg_calibrate import casa
from contimg_calibrate.quality import check_solution, measure_residuals, phase_error_rad
from contimg_calibrate.visibilities import (
    ComplexArray,
    Float32Array,
    FloatArray,
    IntArray,
    Ratio,
    load_ratio,
    row_gains,
    sum_channels,
    sum_times,
)

WINDOWS = 16
"""Phases before the bandpass are solved on one part in this many of the band: narrow enough for
delays of 40 ns."""
MIN_WINDOW_CONTENT = 0.8
"""The window nearest to the band's centre with this fraction of the best window's data is used."""
TELESCOPE, OUTRIGGERS = "DSA_110", range(103, 117)
"""The telescope and its stations far from the core."""
MIN_HEALTH = 0.5
"""An antenna with less unflagged data than this is a reference only if there is no better one."""
MAX_REFERENCES = 5
"""Reference antennas that CASA gets, in case the first one has no solution somewhere."""


@dataclass(frozen=True)
class Solver:
    """The data of one group and where its solves work."""

    header: MSHeader
    ratio: Ratio
    folder: Path
    limits: dict[str, Any]
    """Arguments that all solves share: refant, minsnr, minblperant."""
    integration_s: float

    def evaluate(self, tables: list[Path]) -> Factors:
        """Evaluate caltables at the times and channels of the data; 1 without tables."""
        times_s, freq_hz = self.ratio.times_s, self.header.frequencies_hz
        if tables:
            return Gains.read(tables).evaluate(times_s, freq_hz)
        antennas, pols = self.ratio.antennas, self.ratio.power.shape[2]
        band, gain = (antennas, freq_hz.size, pols), (times_s.size, antennas, pols)
        return Factors(
            bandpass=np.ones(band, np.complex64),
            bandpass_flag=np.zeros(band, bool),
            gain=np.ones(gain, np.complex64),
            gain_flag=np.zeros(gain, bool),
        )

    def write_continuum(
        self, name: str, tables: list[Path], solint_s: float, channels: slice = slice(None)
    ) -> Path:
        """Write data over model after some tables: one channel, one row per interval and baseline.

        CASA solves sums over an interval 5 times faster than single rows, to the same minimum.
        """
        ratio, pairs = self.ratio, len(self.ratio.pairs)
        x, y = sum_channels(ratio, self.evaluate(tables), channels)
        times_s, interval = split_intervals(ratio.times_s, self.integration_s, solint_s)
        row = interval[ratio.slot] * pairs + ratio.pair
        shape = (times_s.size * pairs, x.shape[1])
        x_sum, y_sum = np.zeros(shape, np.complex128), np.zeros(shape)
        np.add.at(x_sum, row, x)
        np.add.at(y_sum, row, y)
        x, y = x_sum.astype(np.complex64), y_sum.astype(np.float32)
        freq_hz = np.array([self.header.frequencies_hz[channels].mean()])
        return self._write_ms(name, times_s, self.integration_s, freq_hz, x[:, None], y[:, None])

    def write_spectrum(self, name: str, tables: list[Path]) -> Path:
        """Write data over model after some tables: all channels, one row per baseline."""
        x, y = sum_times(self.ratio, self.evaluate(tables))
        times_s = self.ratio.times_s.mean(keepdims=True)
        interval_s = self.integration_s * self.ratio.times_s.size
        return self._write_ms(name, times_s, interval_s, self.header.frequencies_hz, x, y)

    def _write_ms(
        self,
        name: str,
        times_s: FloatArray,
        interval_s: float,
        freq_hz: FloatArray,
        x: ComplexArray,
        y: Float32Array,
    ) -> Path:
        """Write DATA = X/Y, MODEL_DATA = 1, WEIGHT_SPECTRUM = Y for one solve.

        WEIGHT is the mean of Y over the channels that have data. `x` and `y` have shape (times *
        baselines, channels, polarizations).
        """
        pairs, count = self.ratio.pairs, len(y)
        data = np.divide(x, y, out=np.zeros_like(x), where=y > 0)
        filled = np.count_nonzero(y > 0, axis=1)
        weight = np.zeros(filled.shape, np.float32)
        np.divide(y.sum(axis=1), filled, out=weight, where=filled > 0)
        channels = len(self.header.frequencies_hz) if freq_hz.size == 1 else 1
        rows = Rows(
            time_s=np.repeat(times_s, len(pairs)),
            interval_s=np.full(count, interval_s),
            antenna1=np.tile(pairs[:, 0], times_s.size).astype(np.int32),
            antenna2=np.tile(pairs[:, 1], times_s.size).astype(np.int32),
            uvw_m=np.zeros((count, 3)),
            weight=weight,
        )
        width_hz = self.header.channel_width_hz * channels
        header = replace(self.header, frequencies_hz=freq_hz, channel_width_hz=width_hz)
        columns = {"DATA": data, "MODEL_DATA": np.ones_like(data), "WEIGHT_SPECTRUM": y}
        with create(self.folder / name, header, rows, tuple(columns)) as writer:
            writer.put(0, {**columns, "FLAG": y <= 0})
        return self.folder / name


def run(task: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Call `solve_group` or `solve_field`; return a `ContimgError` as its name and arguments."""
    try:
        solver = _prepare(**arguments)
        solve = {"solve_group": solve_group, "solve_field": solve_field}[task]
        return solve(solver, arguments["given"])
    except ContimgError as error:
        return {"error": type(error).__name__, "arguments": list(error.args)}


def solve_group(solver: Solver, given: dict[str, Any]) -> dict[str, Any]:
    """Solve phases, bandpass and gains on a calibrator; return their quality and the tables."""
    out, limits, ratio = solver.folder, solver.limits, solver.ratio
    ms = solver.write_continuum(
        "prephase.ms", [], given["prephase_solint_s"], _choose_window(ratio)
    )
    prephase = casa.solve(ms, out / "prephase.G", **limits, type="G", apmode="p")
    band = []
    if given["do_k"]:
        ms = solver.write_spectrum("delay.ms", [prephase])
        band = [casa.solve(ms, out / "delay.K", **limits, type="K")]
    ms = solver.write_spectrum("bandpass.ms", [prephase, *band])
    bandpass = {**limits, "type": "B", "solnorm": True, "fillgaps": given["fillgaps"]}
    band.append(casa.solve(ms, out / "bandpass.B", **bandpass))
    ms = solver.write_continuum("phase.ms", band, given["phase_solint_s"])
    phase = casa.solve(ms, out / "phase.G", **limits, type="G", apmode="p")
    ms = solver.write_continuum("gain.ms", [*band, phase], np.inf)
    gain = casa.solve(ms, out / "gain.G", **limits, type="G", apmode="ap")
    tables = {path.stem: path for path in [*band, phase, gain]}
    x, y = sum_channels(ratio, solver.evaluate(list(tables.values())))
    quality = check_solution(
        given["group"],
        tables={role: read_caltable(path) for role, path in tables.items()},
        health=ratio.health,
        residuals=measure_residuals(ratio, x, y),
        max_flagged=given["max_flagged"],
        band=np.any(ratio.power > 0, axis=(0, 2)),
    )
    return {
        "quality": quality,
        "tables": {role: str(path) for role, path in tables.items()},
        "reference_antenna": casa.read_reference_antenna(gain),
    }


def solve_field(solver: Solver, given: dict[str, Any]) -> dict[str, Any]:
    """Solve phases on a field after a set, if the signal suffices; return how the set fits."""
    ratio = solver.ratio
    tables = [Path(path) for path in given["tables"]]
    x, y = sum_channels(ratio, solver.evaluate(tables))
    noise_deg = float(np.degrees(phase_error_rad(ratio, y)))
    # Unmodelled sources are noise that averages over neither time nor frequency, only over the
    # baselines of an antenna.
    others = max(1, int(np.count_nonzero(ratio.health)) - 1)
    confusion_deg = np.degrees(given["confusion"] / np.sqrt(2 * others))
    total_deg = float(np.hypot(noise_deg, confusion_deg))
    before = measure_residuals(ratio, x, y)
    answer = {"phase_error_deg": total_deg, "before": before, "done": False, "solint": ""}
    if given["mode"] == "never" or (given["mode"] == "auto" and total_deg > given["limit_deg"]):
        return answer
    span_s = float(np.ptp(ratio.times_s)) + solver.integration_s
    short_deg = noise_deg * np.sqrt(max(1.0, span_s / given["phase_solint_s"]))
    solint_s = given["phase_solint_s"] if short_deg <= given["short_limit_deg"] else np.inf
    ms = solver.write_continuum("field.ms", tables, solint_s)
    field = casa.solve(ms, solver.folder / "field.G", **solver.limits, type="G", apmode="p")
    gain = row_gains(solver.evaluate([field]), ratio.slot, ratio.ant1, ratio.ant2)
    after = measure_residuals(ratio, x * gain.conj(), y * np.abs(gain) ** 2)
    solint = f"{solint_s:g} s"
    return {**answer, "done": True, "solint": solint, "after": after, "table": str(field)}


def sky_to_json(sky: SkyModel) -> dict[str, Any]:
    """Return a sky as JSON; `sky_from_json` reads it in the child."""
    fields = asdict(sky)
    sources = {name: values.tolist() for name, values in fields["sources"].items()}
    return {**fields, "sources": sources, "freq_hz": sky.freq_hz.tolist()}


def sky_from_json(saved: dict[str, Any]) -> SkyModel:
    """Return the sky that `sky_to_json` saved."""
    sources = PointSources(**{name: np.array(values) for name, values in saved["sources"].items()})
    site = Site(**saved["site"]) if saved["site"] else None
    return SkyModel(
        **{**saved, "sources": sources, "freq_hz": np.array(saved["freq_hz"]), "site": site}
    )


def _prepare(
    ms: str, flags: str, sky: dict[str, Any], folder: str, given: dict[str, Any]
) -> Solver:
    """Load the data over the model and choose the reference antennas."""
    extra = read_flags(Path(flags)) if flags else None
    with MeasurementSet(Path(ms)) as table:
        header, integration_s = table.header, float(np.median(table.rows.interval_s))
        ratio = load_ratio(table, extra, sky_from_json(sky))
    limits = {name: given[name] for name in ("minsnr", "minblperant")}
    references = rank_references(
        header.telescope, header.antennas.names, ratio.health, given["reference_antenna"]
    )
    return Solver(
        header=header,
        ratio=ratio,
        folder=Path(folder),
        limits={"refant": ",".join(references), **limits},
        integration_s=integration_s,
    )


def rank_references(
    telescope: str, names: tuple[str, ...], health: FloatArray, wanted: str | None = None
) -> list[str]:
    """Return the best reference antennas: the requested one, healthy outriggers, then others."""
    ranked = [
        (
            name != wanted,
            bool(health[i] < MIN_HEALTH),
            not (telescope == TELESCOPE and name.isdigit() and int(name) in OUTRIGGERS),
            -round(float(health[i]), 2),
            i,
        )
        for i, name in enumerate(names)
        if health[i] > 0
    ]
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
