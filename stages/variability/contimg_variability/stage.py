"""Describe every light curve of a strip, and look for extreme scattering events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contimg.records.groups import day_of_mjd
from contimg.records.schemas.normalization import NORMALIZED
from contimg.records.schemas.variability import ESE_CANDIDATES, LIGHTCURVE_STATS, LIGHTCURVES
from contimg.runtime.context import StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.manifest import QA
from contimg_variability import metrics
from contimg_variability.evidence import Evidence, evidence
from contimg_variability.score import Score, mission_score

if TYPE_CHECKING:
    import pyarrow as pa

    from contimg.runtime.context import Context
    from contimg_variability.options import VariabilityOptions

Floats = NDArray[np.float64]

VARIABLE = 1e-3
"""Sources more likely constant than this are not searched for lenses."""
MANY = 0.05
"""If more than this part of the sources are candidates, the fault is ours and not the sky's: ESEs are rare."""


@dataclass(frozen=True)
class LightCurve:
    """One source's normalised fluxes, in the order of time."""

    source: str
    ra_deg: float
    dec_deg: float
    field: str
    reference: bool
    mjd: Floats
    epoch: NDArray[np.int64]
    flux: Floats
    error: Floats
    limit: NDArray[np.bool_]


@dataclass(frozen=True)
class Verdict:
    """What was found about extreme scattering."""

    candidate: bool
    reason: str
    score: Score | None = None
    lens: Evidence | None = None


def run(options: VariabilityOptions, context: Context) -> StageResult:
    """Write and publish statistics and candidates; write the light curves."""
    with context.step("read"):
        path = context.fetch(options.normalized, "normalized.parquet")
        curves = light_curves(
            NORMALIZED.read(path.read_bytes(), f"{options.normalized}/normalized.parquet")
        )
        upstream = context.manifest(options.normalized).metrics
    if not curves:
        raise NoSourcesError(
            options.normalized,
            "expected sources with normalised fluxes, found none.",
            "Look at normalize's warnings.",
        )
    with context.step("search"):
        verdicts = []
        for k, curve in enumerate(curves):
            verdicts.append(judge_curve(curve, options))
            context.progress(k + 1, len(curves))
    stats = LIGHTCURVE_STATS.rows([stats_row(c, v) for c, v in zip(curves, verdicts, strict=True)])
    found = ESE_CANDIDATES.rows(
        [candidate_row(c, v) for c, v in zip(curves, verdicts, strict=True) if v.candidate]
    )
    with context.step("write"):
        context.write_table("lightcurve_stats.parquet", LIGHTCURVE_STATS, stats)
        context.write_table("ese_candidates.parquet", ESE_CANDIDATES, found)
        context.write_table("lightcurves.parquet", LIGHTCURVES, curve_rows(curves, verdicts))
        last = max(float(curve.mjd[-1]) for curve in curves)
        day = day_of_mjd(last)
        unit = f"strip{float(upstream.get('strip_deg', np.median([c.dec_deg for c in curves]))):+06.2f}"
        context.publish(options.tables, LIGHTCURVE_STATS, day, unit, stats)
        context.publish(options.tables, ESE_CANDIDATES, day, unit, found)
    return StageResult(metrics=summarise(curves, verdicts), qa=judge(curves, verdicts, options))


def light_curves(table: pa.Table) -> list[LightCurve]:
    """Return one light curve a source from the table of normalised fluxes; epochs without a factor are left out."""
    columns = {name: np.asarray(table[name].to_pylist()) for name in ("source", "field")}
    columns |= {
        name: table[name].to_numpy()
        for name in ("ra", "dec", "epoch", "mjd", "flux", "flux_err", "upper_limit", "reference")
    }
    good = np.isfinite(columns["flux"].astype(np.float64)) & (
        columns["flux_err"].astype(np.float64) > 0
    )
    columns = {name: column[good] for name, column in columns.items()}
    curves = []
    for name in np.unique(columns["source"]):
        part = np.flatnonzero(columns["source"] == name)
        rows = part[np.argsort(columns["mjd"][part], kind="stable")]
        ra, dec, field, reference = (
            columns[key][rows[0]] for key in ("ra", "dec", "field", "reference")
        )
        mjd, flux, error = (
            columns[key][rows].astype(np.float64) for key in ("mjd", "flux", "flux_err")
        )
        epoch, limit = (
            columns["epoch"][rows].astype(np.int64),
            columns["upper_limit"][rows].astype(bool),
        )
        curves.append(
            LightCurve(
                str(name),
                float(ra),
                float(dec),
                str(field),
                bool(reference),
                mjd,
                epoch,
                flux,
                error,
                limit,
            )
        )
    return curves


def judge_curve(curve: LightCurve, options: VariabilityOptions) -> Verdict:
    """Say whether a light curve looks like an extreme scattering event, and why."""
    if curve.mjd.size <= options.min_epochs:
        return Verdict(
            candidate=False,
            reason=f"no verdict: {curve.mjd.size} epochs, more than {options.min_epochs} are needed",
        )
    score = mission_score(curve.mjd, curve.flux, curve.error)
    if metrics.p_constant(curve.flux, curve.error) > VARIABLE:
        return Verdict(candidate=False, reason="constant within the errors", score=score)
    if score.total <= options.min_score:
        return Verdict(
            candidate=False,
            reason=f"mission score {score.total:.2f}: wrong duration or amplitude",
            score=score,
        )
    lens = evidence(curve.mjd, curve.flux, curve.error)
    if lens is None:
        return Verdict(
            candidate=False, reason="no lens of the bank dims it as a lens does", score=score
        )
    ratios = {
        "red noise": lens.over_red_noise,
        "a flare": lens.over_flare,
        "bad epochs": lens.over_bad_epochs,
    }
    rival = min(ratios, key=ratios.__getitem__)
    said = f"ln likelihood ratio of a lens to {rival} {ratios[rival]:+.1f}"
    candidate = lens.least > options.min_evidence
    return Verdict(
        candidate,
        f"{said}: {'a lens is the better explanation' if candidate else 'not enough'}",
        score,
        lens,
    )


def stats_row(curve: LightCurve, verdict: Verdict) -> dict[str, Any]:
    """Return a row of lightcurve_stats."""
    flux, error = curve.flux, curve.error
    mean, mean_error = metrics.weighted_mean(flux, error)
    pair, away = metrics.pairs(flux, error), metrics.leave_one_out(flux)
    top = int(np.argmax(np.abs(away))) if np.isfinite(away).any() else 0
    lens = verdict.lens
    return {
        **_identity(curve),
        "n_limits": int(curve.limit.sum()),
        "mjd_first": curve.mjd[0],
        "mjd_last": curve.mjd[-1],
        "flux_mean": mean,
        "flux_mean_err": mean_error,
        "flux_median": float(np.median(flux)),
        "flux_std": float(np.std(flux, ddof=1)) if flux.size > 1 else None,
        "v_peak": metrics.modulation(flux),
        "eta_peak": metrics.eta(flux, error),
        "p_constant": metrics.p_constant(flux, error),
        "vs_abs_max_peak": pair.vs,
        "m_abs_max_peak": pair.m,
        "n_significant_pairs": pair.significant,
        "outlier_max": abs(float(away[top])),
        "outlier_mjd": curve.mjd[top] if np.isfinite(away[top]) else None,
        "reference": curve.reference,
        **_score(verdict.score),
        "ese_evidence": None if lens is None else lens.least,
        "ese_candidate": verdict.candidate,
        "ese_reason": verdict.reason,
    }


def candidate_row(curve: LightCurve, verdict: Verdict) -> dict[str, Any]:
    """Return a row of ese_candidates."""
    lens = verdict.lens
    if lens is None:
        return {}
    return {
        **_identity(curve),
        **_score(verdict.score),
        "ese_evidence": lens.least,
        "over_red_noise": lens.over_red_noise,
        "over_flare": lens.over_flare,
        "over_bad_epochs": lens.over_bad_epochs,
        "lens_mjd": lens.mjd,
        "lens_duration": lens.duration_days,
        "lens_alpha": lens.alpha,
        "lens_beta": lens.beta,
        "lens_fraction": lens.fraction,
        "lens_depth": lens.depth,
        "flux_quiescent": lens.quiescent,
        "red_noise": lens.red_noise,
    }


def _identity(curve: LightCurve) -> dict[str, Any]:
    return {
        "source": curve.source,
        "ra": curve.ra_deg,
        "dec": curve.dec_deg,
        "field": curve.field,
        "n_epochs": curve.mjd.size,
    }


def _score(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {}
    return {
        "ese_score": score.total,
        "ese_asymmetry": score.asymmetry,
        "ese_tau": score.tau_days,
        "ese_amplitude": score.amplitude,
    }


def curve_rows(curves: list[LightCurve], verdicts: list[Verdict]) -> dict[str, Any]:
    """Return the columns of lightcurves."""
    models = [
        v.lens.model if v.candidate and v.lens else np.full(c.mjd.size, np.nan)
        for c, v in zip(curves, verdicts, strict=True)
    ]
    return {
        "source": np.repeat([c.source for c in curves], [c.mjd.size for c in curves]).tolist(),
        "mjd": np.concatenate([c.mjd for c in curves]),
        "epoch": np.concatenate([c.epoch for c in curves]),
        "flux": np.concatenate([c.flux for c in curves]),
        "flux_err": np.concatenate([c.error for c in curves]),
        "upper_limit": np.concatenate([c.limit for c in curves]),
        "model": np.concatenate(models),
    }


def summarise(curves: list[LightCurve], verdicts: list[Verdict]) -> dict[str, Any]:
    """Return the numbers for people."""
    sizes = [curve.mjd.size for curve in curves]
    found = [
        curve.source for curve, verdict in zip(curves, verdicts, strict=True) if verdict.candidate
    ]
    variable = [
        c for c in curves if c.mjd.size > 1 and metrics.p_constant(c.flux, c.error) < VARIABLE
    ]
    eta = [metrics.eta(c.flux, c.error) for c in curves if c.mjd.size > 1]
    return {
        "sources": len(curves),
        "epochs": max(sizes),
        "judged": sum(v.score is not None for v in verdicts),
        "variable": len(variable),
        "eta_median": round(float(np.median(eta)), 4) if eta else None,
        "candidates": len(found),
        "candidate_names": found,
    }


def judge(curves: list[LightCurve], verdicts: list[Verdict], options: VariabilityOptions) -> QA:
    """Say what makes the search doubtful."""
    reasons = []
    judged, found = sum(v.score is not None for v in verdicts), sum(v.candidate for v in verdicts)
    if judged == 0:
        reasons.append(
            f"no source has more than {options.min_epochs} epochs, so none has a verdict"
        )
    if found > max(1, MANY * len(curves)):
        reasons.append(
            f"{found} of {len(curves)} sources are candidates: look at the epochs that they share"
        )
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
