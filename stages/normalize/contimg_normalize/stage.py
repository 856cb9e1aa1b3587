"""Put all epochs of a strip on one relative flux scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.records.groups import day_of_mjd
from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.manifest import QA
from contimg_normalize import epochs, scale
from contimg_normalize.epochs import Bools, Columns, LightCurves
from contimg_normalize.options import NormalizeOptions
from contimg_normalize.scale import MIN_EPOCHS_FOR_SCATTER, MIN_REFERENCES, EpochScale

MIN_RELIABLE_REFERENCES = 10
"""With fewer references a field's scale is doubtful."""
MAX_SYSTEMATIC, MAX_FACTOR_OFFSET = 0.02, 0.3
BRIGHT_SNR = 100.0
"""The metric of scatter is of the references with this S/N; see docs/stages/normalize.md."""


@dataclass(frozen=True, kw_only=True)
class NormalizedField:
    """Light curves of n sources in m epochs, and their scale; factors of shape (n, m)."""

    name: str
    curves: LightCurves
    reference: Bools
    scales: list[EpochScale]
    """One per epoch."""
    systematic: float
    factors: scale.Factors


def run(options: NormalizeOptions, context: Context) -> StageResult:
    """Normalise every field of the strip; write and publish epochs and light curves."""
    with context.step("read"):
        columns = epochs.read_photometry(context)
    with context.step("normalize"):
        label = epochs.label_fields(columns["ra"].astype(np.float64))
        parts = [{n: c[label == k] for n, c in columns.items()} for k in np.unique(label)]
        fields = [field for part in parts if (field := normalise_field(part, options)) is not None]
    if not fields:
        few = f"{MIN_REFERENCES} stable reference sources"
        problem = f"No field has {few} with an S/N of at least {options.reference_snr:.0f}."
        raise NoSourcesError(f"strip {options.strip:+.2f}", problem, "Lower --reference-snr.")
    with context.step("write"):
        tables = {
            NORMALIZATION: [epoch_columns(field, options.strip) for field in fields],
            NORMALIZED: [flux_columns(field, options.detection_snr) for field in fields],
        }
        last_mjd = max(float(part["mjd"].max()) for part in tables[NORMALIZATION])
        day, unit = day_of_mjd(last_mjd), f"strip{options.strip:+06.2f}"
        for schema, found in tables.items():
            table = schema.table({n: np.concatenate([p[n] for p in found]) for n in found[0]})
            context.write_table(f"{schema.name}.parquet", schema, table)
            context.publish(options.tables, schema, day, unit, table)
    metrics = {"strip_deg": options.strip, "last_mjd": round(last_mjd, 5), **summarise(fields)}
    return StageResult(metrics=metrics, qa=judge(fields, len(parts), options))


def normalise_field(rows: Columns, options: NormalizeOptions) -> NormalizedField | None:
    """Normalise one field; None if it has too few references."""
    measured = np.isfinite(rows["flux_forced"]) & (rows["local_rms"] > 0)
    if not measured.any():
        return None
    curves = epochs.average_epochs({name: c[measured] for name, c in rows.items()})
    candidates = scale.find_candidates(curves, options.reference_snr)
    if candidates.sum() < MIN_REFERENCES:
        return None
    gradient, systematic = options.gradient, options.systematic
    if systematic is None:
        systematic = scale.measure_systematic(curves, candidates, gradient=gradient)
    error = np.hypot(curves.noise, systematic * curves.flux)
    stable = scale.drop_variables(curves, candidates, error, gradient=gradient)
    reference = scale.choose_spread(curves, stable, options.max_references)
    if options.systematic is None:
        systematic = scale.measure_systematic(curves, reference, gradient=gradient)
    field = scale_field(curves, reference, systematic, gradient=gradient)
    return field if np.isfinite(field.factors[0]).any() else None


def scale_field(
    curves: LightCurves, reference: Bools, systematic: float, *, gradient: bool
) -> NormalizedField:
    """Solve the scale of each epoch; the factor of a reference is that of the other references."""
    flux, offsets = curves.flux[reference], scale.field_offsets(curves)
    ratio, near = flux / scale.measure_baselines(flux)[0][:, None], offsets[:, reference]
    scales = [scale.solve_epoch(column, near, gradient=gradient) for column in ratio.T]
    at_sources = [epoch_scale.at(offsets) for epoch_scale in scales]
    factor, error = (np.stack(part, axis=1) for part in zip(*at_sources, strict=True))
    factor[reference], error[reference] = scale.scales_from_others(flux, near, gradient=gradient)
    return NormalizedField(
        name=f"{epochs.arc_middle(curves.ra_deg):05.1f}{np.median(curves.dec_deg):+05.1f}",
        curves=curves,
        reference=reference,
        scales=scales,
        systematic=systematic,
        factors=(factor, error),
    )


def epoch_columns(field: NormalizedField, strip: float) -> Columns:
    """Return one field's part of the columns of the normalization table; NaN becomes null."""
    curves, scales = field.curves, field.scales
    used = np.array([part.used.sum() for part in scales])
    factor, east, north = np.array([part.plane for part in scales]).T
    return {
        "field": np.full(len(scales), field.name),
        "epoch": curves.epoch,
        "mjd": np.nanmean(curves.mjd, axis=0),
        "strip": np.full(len(scales), strip),
        "references": used,
        "clipped": np.isfinite(curves.flux[field.reference]).sum(axis=0) - used,
        "factor": factor,
        "factor_err": np.sqrt([part.covariance[0, 0] for part in scales]),
        "scatter": np.array([part.scatter for part in scales]),
        "gradient_east": east,
        "gradient_north": north,
    }


def flux_columns(field: NormalizedField, detection_snr: float) -> Columns:
    """Return one field's part of the columns of the normalized table; NaN becomes null."""
    curves, (factor, factor_error) = field.curves, field.factors
    raw_error = np.hypot(curves.noise, field.systematic * curves.flux)
    flux, flux_error = scale.normalise(curves.flux, raw_error, field.factors)
    baseline, scatter = scale.measure_baselines(np.where(np.isfinite(factor), curves.flux, np.nan))
    snr = curves.flux / curves.noise
    sources = {"source": curves.source, "ra": curves.ra_deg, "dec": curves.dec_deg}
    sources |= {"reference": field.reference, "baseline": baseline, "baseline_scatter": scatter}
    cells = {"mjd": curves.mjd, "groups": curves.count, "noise": curves.noise, "snr": snr}
    cells |= {"flux_raw": curves.flux, "flux_raw_err": raw_error}
    cells |= {"factor": factor, "factor_err": factor_error, "flux": flux, "flux_err": flux_error}
    i, e = np.nonzero(np.isfinite(curves.flux))
    return {
        "field": np.full(i.size, field.name),
        "epoch": curves.epoch[e],
        "upper_limit": snr[i, e] < detection_snr,
        **{name: values[i] for name, values in sources.items()},
        **{name: values[i, e] for name, values in cells.items()},
    }


def summarise(fields: list[NormalizedField]) -> dict[str, Any]:
    """Return the metrics: how many fields, epochs and sources, and how well references agree."""
    factors = np.array([part.plane[0] for field in fields for part in field.scales])
    offset = np.abs(factors - float(np.nanmedian(factors)))
    metrics = {
        "fields": len(fields),
        "epochs": max(field.curves.epoch.size for field in fields),
        "sources": sum(field.curves.source.size for field in fields),
        "references": int(sum(field.reference.sum() for field in fields)),
        "factor_scatter": round(MAD_TO_SIGMA * float(np.nanmedian(offset)), 5),
        "systematic": round(max(field.systematic for field in fields), 5),
    }
    relative, over_noise = [], []
    for field in fields:
        curves, bright = field.curves, field.reference & (field.curves.snr >= BRIGHT_SNR)
        if curves.epoch.size >= MIN_EPOCHS_FOR_SCATTER and bright.any():
            factor = field.factors[0][bright], field.factors[1][bright]
            flux, error = scale.normalise(curves.flux[bright], curves.noise[bright], factor)
            spread = np.nanstd(flux, axis=1, ddof=1)
            relative += list(spread / np.nanmean(flux, axis=1))
            over_noise += list(spread / np.sqrt(np.nanmean(error**2, axis=1)))
    if relative:
        metrics["scatter_median"] = round(float(np.median(relative)), 5)
        metrics["scatter_over_noise"] = round(float(np.median(over_noise)), 4)
    return metrics


def judge(fields: list[NormalizedField], field_count: int, options: NormalizeOptions) -> QA:
    """Return the reasons why the scale is doubtful; `field_count` includes fields left out."""
    reasons = []
    if left_out := field_count - len(fields):
        lack = f"fewer than {MIN_REFERENCES} references and were left out"
        reasons.append(f"{left_out} of {field_count} fields have {lack}")
    for field in fields:
        factors = np.array([part.plane[0] for part in field.scales])
        count, missing = int(field.reference.sum()), int(np.isnan(factors).sum())
        offset, scatter = float(np.nanmax(np.abs(factors - 1))), field.systematic
        few = options.systematic is None and field.curves.epoch.size < MIN_EPOCHS_FOR_SCATTER
        excess = f"fluxes scatter by {scatter:.1%} more than their noise explains"
        checks = (
            (count < MIN_RELIABLE_REFERENCES, f"only {count} references"),
            (missing > 0, f"{missing} epochs have too few references for a scale"),
            (offset > MAX_FACTOR_OFFSET, f"the scale is off by up to {offset:.0%} of the baseline"),
            (few, f"too few epochs to measure the systematic term; {scatter} is assumed"),
            (scatter > MAX_SYSTEMATIC, excess),
        )
        reasons += [f"field {field.name}: {text}" for doubtful, text in checks if doubtful]
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
