"""Describe every light curve of a strip, and search for extreme scattering events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contimg.records.groups import day_of_mjd
from contimg.records.schemas.normalization import NORMALIZED
from contimg.records.schemas.variability import ESE_CANDIDATES, LIGHTCURVE_STATS, LIGHTCURVES
from contimg.records.strips import table_unit
from contimg.records.tables import encode_texts, repeat_texts
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import BadInputError, NoSourcesError
from contimg.runtime.manifest import QA
from contimg_variability import metrics
from contimg_variability.evidence import Evidence, compare_lens
from contimg_variability.metrics import Floats, Score, mission_score
from contimg_variability.options import VariabilityOptions

MAX_P_CONSTANT = 1e-3
"""Sources more likely constant than this are not searched for lenses."""
MAX_CANDIDATE_FRACTION = 0.05
"""ESEs are rare: if more of the sources are candidates, our own data are the likely cause."""


@dataclass(frozen=True, kw_only=True)
class LightCurve:
    """One source's normalised fluxes, in the order of time; the names are those of the columns."""

    source: str
    field: str
    ra: float
    dec: float
    reference: bool
    mjd: Floats
    epoch: NDArray[np.int64]
    flux: Floats
    flux_err: Floats
    upper_limit: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class EseVerdict:
    """What was found about extreme scattering."""

    candidate: bool
    reason: str
    score: Score | None = None
    lens: Evidence | None = None


def run(options: VariabilityOptions, context: Context) -> StageResult:
    """Write and publish statistics and candidates; write the light curves."""
    with context.step("read"):
        path = context.fetch(options.normalized, "normalized.parquet")
        parts = NORMALIZED.read_parts(path, f"{options.normalized}/normalized.parquet")
        longest = {"source": NORMALIZED.text_length(path, "source")}
        upstream = context.manifest(options.normalized).metrics
        total = int(upstream.get("sources", 0))
    rows: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def judge_parts() -> Iterator[pa.Table]:
        for curves in read_curves(parts, options.normalized):
            verdicts = []
            for curve in curves:
                verdicts.append(judge_curve(curve, options))
                rows.append(stats_row(curve, verdicts[-1]))
                if verdicts[-1].candidate:
                    found.append(candidate_row(rows[-1], verdicts[-1].lens))
                context.progress(len(rows), max(total, len(rows)))
            if curves:
                yield LIGHTCURVES.table(curve_columns(curves, verdicts))

    with context.step("search"), context.writer("lightcurves.parquet") as sink:
        LIGHTCURVES.write(sink, judge_parts(), longest)
    if not rows:
        problem = "The artifact has no source with normalised fluxes."
        raise NoSourcesError(options.normalized, problem, "Look at the warnings of normalize.")
    stats, candidates = LIGHTCURVE_STATS.rows(rows), ESE_CANDIDATES.rows(found)
    with context.step("write"):
        day = day_of_mjd(max(float(row["mjd_last"]) for row in rows))
        strip_deg = float(upstream.get("strip_deg", np.median([row["dec"] for row in rows])))
        unit = table_unit(strip_deg, int(upstream.get("setup_number", 0)))
        for schema, table in ((LIGHTCURVE_STATS, stats), (ESE_CANDIDATES, candidates)):
            context.write_table(f"{schema.name}.parquet", schema, table)
            context.publish(options.tables, schema, day, unit, table)
    return summarise(rows, options)


def read_curves(parts: Iterable[pa.Table], where: str) -> Iterator[list[LightCurve]]:
    """Yield the light curves of one part of the normalized table after the other.

    A source whose rows go on in the next part comes with that. Raises BadInputError if the sources
    of the parts do not ascend.
    """
    rest = NORMALIZED.arrow().empty_table()
    for part in parts:
        if not part.num_rows:
            continue
        table = pa.concat_tables([rest, part])
        names = table["source"]
        first = pc.index(names, pc.max(names)).as_py()
        rest = table.slice(first)
        if pc.min(names) != names[0] or pc.min(rest["source"]) != rest["source"][0]:
            problem = "normalized.parquet is not sorted by source."
            raise BadInputError(where, problem, "Run normalize again.")
        yield split_curves(table.slice(0, first))
    yield split_curves(rest)


def split_curves(table: pa.Table) -> list[LightCurve]:
    """Return one light curve per source, by name, of the rows that have a normalised flux."""
    scalars = ("ra", "dec", "reference")
    arrays = ("mjd", "epoch", "flux", "flux_err", "upper_limit")
    columns = {name: np.asarray(table[name].to_numpy()) for name in (*scalars, *arrays)}
    texts = {}
    for name in ("source", "field"):
        texts[name], columns[name] = encode_texts(table[name])
    order = np.lexsort((columns["mjd"], columns["source"]))
    good = np.isfinite(columns["flux"]) & (columns["flux_err"] > 0)
    order = order[good[order]]
    columns = {name: column[order] for name, column in columns.items()}
    first = np.flatnonzero(np.append(order.size > 0, np.diff(columns["source"]) != 0))
    curves = []
    for start, end in pairwise([*first, order.size]):
        one: dict[str, Any] = {name: columns[name][start].item() for name in scalars}
        one |= {name: str(texts[name][columns[name][start]]) for name in texts}
        one |= {name: columns[name][start:end] for name in arrays}
        curves.append(LightCurve(**one))
    return curves


def judge_curve(curve: LightCurve, options: VariabilityOptions) -> EseVerdict:
    """Say whether a light curve looks like an extreme scattering event, and why."""
    mjd, flux, error = curve.mjd, curve.flux, curve.flux_err
    if mjd.size <= options.min_epochs:
        reason = f"no verdict: {mjd.size} epochs, more than {options.min_epochs} are needed"
        return EseVerdict(candidate=False, reason=reason)
    score, lens, candidate = mission_score(mjd, flux, error), None, False
    if metrics.exceeds(metrics.p_constant(flux, error), MAX_P_CONSTANT):
        reason = "constant within the errors"
    elif not metrics.exceeds(score.total, options.min_score):
        reason = f"mission score {score.total:.2f}: wrong duration or amplitude"
    elif (lens := compare_lens(mjd, flux, error)) is None:
        reason = "no lens of the bank dims it as a lens does"
    else:
        ratios = {"red noise": lens.over_red_noise, "a flare": lens.over_flare}
        ratios["bad epochs"] = lens.over_bad_epochs
        rival = min(ratios, key=ratios.__getitem__)
        candidate = metrics.exceeds(lens.over_best_rival, options.min_evidence)
        meaning = "a lens is the better explanation" if candidate else "not enough"
        reason = f"ln likelihood ratio of a lens to {rival} {ratios[rival]:+.1f}: {meaning}"
    return EseVerdict(candidate=candidate, reason=reason, score=score, lens=lens)


def stats_row(curve: LightCurve, verdict: EseVerdict) -> dict[str, Any]:
    """Return a row of lightcurve_stats."""
    flux, error, score = curve.flux, curve.flux_err, verdict.score
    mean, mean_error = metrics.weighted_mean(flux, error)
    vs, m, pairs = metrics.compare_pairs(flux, error)
    offset = metrics.leave_one_out(flux)
    top = int(np.argmax(np.abs(offset))) if np.isfinite(offset).any() else 0
    return {
        **{name: getattr(curve, name) for name in ("source", "ra", "dec", "field", "reference")},
        "n_epochs": curve.mjd.size,
        "n_limits": int(curve.upper_limit.sum()),
        "mjd_first": curve.mjd[0],
        "mjd_last": curve.mjd[-1],
        "flux_mean": mean,
        "flux_mean_err": mean_error,
        "flux_median": float(np.median(flux)),
        "flux_std": float(np.std(flux, ddof=1)) if flux.size > 1 else None,
        "v_peak": metrics.modulation(flux),
        "eta_peak": metrics.eta(flux, error),
        "p_constant": metrics.p_constant(flux, error),
        "vs_abs_max_peak": vs,
        "m_abs_max_peak": m,
        "n_significant_pairs": pairs,
        "outlier_max": abs(float(offset[top])),
        "outlier_mjd": curve.mjd[top] if np.isfinite(offset[top]) else None,
        "ese_score": score.total if score else None,
        "ese_asymmetry": score.asymmetry if score else None,
        "ese_tau": score.tau_days if score else None,
        "ese_amplitude": score.amplitude if score else None,
        "ese_evidence": verdict.lens.over_best_rival if verdict.lens else None,
        "ese_candidate": verdict.candidate,
        "ese_reason": verdict.reason,
    }


def candidate_row(stats: dict[str, Any], lens: Evidence | None) -> dict[str, Any]:
    """Return a row of ese_candidates from that of lightcurve_stats and the lens."""
    values = {**stats, **(vars(lens) if lens else {})}
    return {c.name: values[c.name] for c in ESE_CANDIDATES.columns if c.name in values}


def curve_columns(curves: list[LightCurve], verdicts: list[EseVerdict]) -> dict[str, Any]:
    """Return the columns of lightcurves; only candidates have a model."""
    names = ("mjd", "epoch", "flux", "flux_err", "upper_limit")
    columns = {name: [getattr(curve, name) for curve in curves] for name in names}
    columns["model"] = [
        v.lens.model if v.candidate and v.lens else np.full(c.mjd.size, np.nan)
        for c, v in zip(curves, verdicts, strict=True)
    ]
    label = np.repeat(np.arange(len(curves)), [curve.mjd.size for curve in curves])
    source = repeat_texts(label, [curve.source for curve in curves])
    return {name: np.concatenate(parts) for name, parts in columns.items()} | {"source": source}


def summarise(rows: list[dict[str, Any]], options: VariabilityOptions) -> StageResult:
    """Return the metrics of rows of lightcurve_stats, and why the search is doubtful."""
    names = [row["source"] for row in rows if row["ese_candidate"]]
    judged = sum(row["ese_score"] is not None for row in rows)
    repeated = [row for row in rows if row["n_epochs"] > 1]
    eta, reasons = [row["eta_peak"] for row in repeated], []
    if judged == 0:
        reasons.append(f"no verdicts: no source has more than {options.min_epochs} epochs")
    if len(names) > max(1, MAX_CANDIDATE_FRACTION * len(rows)):
        count = f"{len(names)} of {len(rows)} sources are candidates"
        reasons.append(f"{count}: look at the epochs that they share")
    summary = {
        "sources": len(rows),
        "epochs": max(row["n_epochs"] for row in rows),
        "judged": judged,
        "variable": sum(row["p_constant"] < MAX_P_CONSTANT for row in repeated),
        "eta_median": round(float(np.median(eta)), 4) if eta else None,
        "candidates": len(names),
        "candidate_names": names,
    }
    qa = QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
    return StageResult(metrics=summary, qa=qa)
