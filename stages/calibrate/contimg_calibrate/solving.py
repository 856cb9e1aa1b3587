"""The solves of one group, from the Measurement Set to caltables; runs in a child with CASA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.coordinates import Site
from contimg.astro.gains import Factors, Gains, read_caltable
from contimg.astro.predict import PointSources, SkyModel
from contimg.records.flagfile import read_flags
from contimg.records.ms import MeasurementSet
from contimg.runtime import errors
from contimg.runtime.errors import ContimgError
from contimg_calibrate import casa
from contimg_calibrate.quality import gain_factor, judge_solution, leftover, phase_error_rad
from contimg_calibrate.visibilities import Ratio, load, sum_channels, sum_times

if TYPE_CHECKING:
    import numpy.typing as npt

    from contimg.records.ms import MSHeader

    FloatArray = npt.NDArray[np.float64]

WINDOW = 16
"""Phases before the bandpass are solved on one part in so many of the band: narrow enough for delays of 40 ns."""
FULL_ENOUGH = 0.8
"""The window nearest to the band's centre is taken that has this share of the best window's data."""
OUTRIGGERS = range(103, 117)
"""Stations of the DSA-110 that stand far out."""
HEALTHY = 0.5
"""An antenna with less unflagged data than this is no reference, if there is a better one."""
REFERENCES = 5
"""Antennas that CASA is given, in case the first one has no solution somewhere."""
TELESCOPE = "DSA_110"


@dataclass(frozen=True)
class Work:
    """What one child does."""

    header: MSHeader
    ratio: Ratio
    folder: Path
    limits: casa.Limits
    integration_s: float

    @property
    def freq_hz(self) -> FloatArray:
        """Channels of the data."""
        return self.header.frequencies_hz

    def factors(self, tables: list[Path]) -> Factors:
        """Evaluate caltables at the times and channels of the data; with none, 1."""
        if tables:
            return Gains.read(tables).evaluate(self.ratio.times_s, self.freq_hz)
        antennas, pols = len(self.header.antennas.names), self.ratio.power.shape[2]
        band, gain = (antennas, self.freq_hz.size, pols), (self.ratio.times_s.size, antennas, pols)
        return Factors(
            np.ones(band, np.complex64),
            np.zeros(band, bool),
            np.ones(gain, np.complex64),
            np.zeros(gain, bool),
        )

    def continuum(
        self, name: str, tables: list[Path], solint_s: float, channels: slice = slice(None)
    ) -> Path:
        """Write the data over model after some tables, one channel, one row a baseline and interval.

        CASA is given the sums over an interval: it solves them 5 times faster than the rows, and to the same minimum.
        """
        top, bottom = sum_channels(self.ratio, self.factors(tables), channels)
        times, part = intervals(self.ratio.times_s, self.integration_s, solint_s)
        pairs = len(self.ratio.pairs)
        row = part[self.ratio.slot] * pairs + self.ratio.pair
        x, y = (
            np.zeros((times.size * pairs, top.shape[1]), np.complex128),
            np.zeros((times.size * pairs, top.shape[1])),
        )
        np.add.at(x, row, top)
        np.add.at(y, row, bottom)
        ant1, ant2 = np.tile(self.ratio.pairs.T, times.size)
        rows = casa.Solvable(
            np.repeat(times, pairs),
            self.integration_s,
            ant1,
            ant2,
            x[:, None].astype(np.complex64),
            y[:, None].astype(np.float32),
        )
        freq = np.array([self.freq_hz[channels].mean()])
        casa.write_solvable(self.folder / name, self.header, freq, rows)
        return self.folder / name

    def spectrum(self, name: str, tables: list[Path]) -> Path:
        """Write the data over model after some tables, all channels, one row a baseline."""
        top, bottom = sum_times(self.ratio, self.factors(tables))
        middle = np.full(len(self.ratio.pairs), self.ratio.times_s.mean())
        interval = self.integration_s * self.ratio.times_s.size
        rows = casa.Solvable(
            middle, interval, self.ratio.pairs[:, 0], self.ratio.pairs[:, 1], top, bottom
        )
        casa.write_solvable(self.folder / name, self.header, self.freq_hz, rows)
        return self.folder / name

    def leftover(self, tables: list[Path]) -> dict[str, float]:
        """Say what tables leave of the model."""
        return leftover(self.ratio, *sum_channels(self.ratio, self.factors(tables)))


def run(task: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call `solve_group` or `solve_field`; a failure that blames the data comes back as its name and words."""
    try:
        answer: dict[str, Any] = {"solve_group": solve_group, "solve_field": solve_field}[task](
            **arguments
        )
    except ContimgError as error:
        return {"error": type(error).__name__, "words": list(error.args)}
    return answer


def raise_error(answer: dict[str, Any]) -> dict[str, Any]:
    """Raise in the parent what the child could not, else return the answer."""
    if "error" in answer:
        raise getattr(errors, answer["error"])(*answer["words"])
    return answer


def solve_group(
    ms: str, flags: str, sky: str, folder: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Solve phases, bandpass and gains on a calibrator; return what may be said of them, and the tables by role."""
    work = _prepare(ms, flags, sky, folder, given)
    out = Path(folder)
    window = _window(work.ratio)
    prephase = casa.solve(
        work.continuum("prephase.ms", [], given["prephase_solint_s"], window),
        out / "prephase.G",
        work.limits,
        type="G",
        apmode="p",
    )
    band = [_delays(work, prephase)] if given["do_k"] else []
    band.append(
        casa.solve(
            work.spectrum("bandpass.ms", [prephase, *band]),
            out / "bandpass.B",
            work.limits,
            type="B",
            solnorm=True,
            fillgaps=given["fillgaps"],
        )
    )
    phases = work.continuum("phase.ms", band, given["phase_solint_s"])
    phase = casa.solve(phases, out / "phase.G", work.limits, type="G", apmode="p")
    whole = work.continuum("gain.ms", [*band, phase], np.inf)
    gain = casa.solve(whole, out / "gain.G", work.limits, type="G", apmode="ap")
    tables = {path.stem: path for path in [*band, phase, gain]}
    read = {role: read_caltable(path) for role, path in tables.items()}
    has_band = np.any(work.ratio.power > 0, axis=(0, 2))
    health = _health(work)
    left = work.leftover(list(tables.values()))
    said = judge_solution(given["group"], read, health, left, given["max_flagged"], has_band)
    return {
        "quality": said,
        "tables": {role: str(path) for role, path in tables.items()},
        "refant": casa.reference(gain),
    }


def solve_field(
    ms: str, flags: str, sky: str, folder: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Solve phases on a field after a selected set, if they can be had; return how the set fits the field."""
    work = _prepare(ms, flags, sky, folder, given)
    tables = [Path(path) for path in given["tables"]]
    top, bottom = sum_channels(work.ratio, work.factors(tables))
    error = float(np.degrees(phase_error_rad(work.ratio, bottom, len(work.header.antennas.names))))
    # Unmodelled sources are noise that neither time nor frequency average; only an antenna's baselines do.
    others = max(1, int(np.count_nonzero(_health(work))) - 1)
    total = float(np.hypot(error, np.degrees(given["confusion"] / np.sqrt(2 * others))))
    span = float(np.ptp(work.ratio.times_s)) + work.integration_s
    short = error * np.sqrt(max(1.0, span / given["phase_solint_s"]))
    answer: dict[str, Any] = {
        "phase_error_deg": total,
        "before": leftover(work.ratio, top, bottom),
        "done": False,
        "solint": "",
    }
    if given["mode"] == "never" or (given["mode"] == "auto" and total > given["limit_deg"]):
        return answer
    solint_s = given["phase_solint_s"] if short <= given["short_limit_deg"] else np.inf
    rows = work.continuum("field.ms", tables, solint_s)
    field = casa.solve(rows, Path(folder) / "field.G", work.limits, type="G", apmode="p")
    factor = gain_factor(work.factors([field]), (work.ratio.slot, work.ratio.ant1, work.ratio.ant2))
    after = leftover(work.ratio, top * factor.conj(), bottom * np.abs(factor) ** 2)
    return {
        **answer,
        "done": True,
        "solint": f"{solint_s:g} s",
        "after": after,
        "table": str(field),
    }


def save_sky(path: Path, sky: SkyModel) -> None:
    """Write a sky for the child."""
    site = (
        [np.nan] * 3
        if sky.site is None
        else [sky.site.lat_deg, sky.site.lon_deg, sky.site.height_m]
    )
    numbers = [
        sky.ra0_rad,
        sky.dec0_rad,
        sky.width_hz,
        sky.integration_s,
        sky.pointing_dec_rad,
        *site,
    ]
    sources = sky.sources
    np.savez(
        path,
        ra=sources.ra_rad,
        dec=sources.dec_rad,
        flux=sources.flux_jy,
        freq=sky.freq_hz,
        numbers=np.array(numbers),
    )


def _load_sky(path: str) -> SkyModel:
    with np.load(path) as saved:
        ra0, dec0, width, integration, pointing, *site = (
            float(number) for number in saved["numbers"]
        )
        sources = PointSources(saved["ra"], saved["dec"], saved["flux"])
        return SkyModel(
            sources,
            ra0,
            dec0,
            saved["freq"],
            width,
            integration,
            None if np.isnan(site[0]) else Site(*site),
            pointing,
        )


def _prepare(ms: str, flags: str, sky: str, folder: str, given: dict[str, Any]) -> Work:
    extra = read_flags(Path(flags)) if flags else None
    with MeasurementSet(Path(ms)) as table:
        header, integration = table.header, float(np.median(table.rows.interval_s))
        ratio = load(table, extra, _load_sky(sky))
    limits = casa.Limits("", given["minsnr"], given["minblperant"])
    work = Work(header, ratio, Path(folder), limits, integration)
    names = rank_references(
        header.telescope, header.antennas.names, _health(work), given["reference_antenna"]
    )
    return Work(
        header,
        ratio,
        Path(folder),
        casa.Limits(",".join(names), limits.minsnr, limits.minblperant),
        integration,
    )


def _delays(work: Work, prephase: Path) -> Path:
    return casa.solve(
        work.spectrum("delay.ms", [prephase]), work.folder / "delay.K", work.limits, type="K"
    )


def _health(work: Work) -> FloatArray:
    """Share of unflagged data of each antenna, shape (antennas,)."""
    health = work.ratio.health
    return np.pad(health, (0, len(work.header.antennas.names) - health.size))


def rank_references(
    telescope: str, names: tuple[str, ...], health: FloatArray, wanted: str | None = None
) -> list[str]:
    """Return the best reference antennas: the one that is asked for, then healthy outriggers, then the others by health."""
    outside = [
        telescope == TELESCOPE and name.isdigit() and int(name) in OUTRIGGERS for name in names
    ]

    def order(i: int) -> tuple[bool, bool, bool, float, int]:
        return (
            names[i] != wanted,
            health[i] < HEALTHY,
            not outside[i],
            -round(float(health[i]), 2),
            i,
        )

    return [names[i] for i in sorted(range(len(names)), key=order) if health[i] > 0][:REFERENCES]


def intervals(
    times_s: FloatArray, integration_s: float, solint_s: float
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Cut times into solution intervals of about `solint_s`, all of one length; return their mean times and each time's interval."""
    begin = times_s[0] - integration_s / 2
    span = times_s[-1] + integration_s / 2 - begin
    count = max(1, round(span / max(solint_s, integration_s)))
    part = np.minimum((times_s - begin) * count // span, count - 1).astype(np.int64)
    _, dense = np.unique(part, return_inverse=True)
    return np.bincount(dense, times_s) / np.bincount(dense), dense


def _window(ratio: Ratio) -> slice:
    """Return the part of the band on which phases are solved first: near its centre, and with data."""
    channels = ratio.power.shape[1]
    size = max(1, channels // WINDOW)
    data = np.count_nonzero(ratio.power, axis=(0, 2))
    starts = np.arange(0, channels - size + 1, size)
    content = np.array([data[start : start + size].sum() for start in starts])
    good = starts[content >= FULL_ENOUGH * content.max()]
    start = int(good[np.argmin(np.abs(good + size / 2 - channels / 2))])
    return slice(start, start + size)
