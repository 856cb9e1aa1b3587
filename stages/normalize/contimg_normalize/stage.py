"""Put all epochs of a strip on one relative flux scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.telescope import SITE
from contimg.records.groups import day_of_mjd
from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.manifest import QA
from contimg_normalize import epochs, references, scale
from contimg_normalize.epochs import Bools, Columns, Floats, LightCurves
from contimg_normalize.inputs import read_photometry
from contimg_normalize.options import NormalizeOptions
from contimg_normalize.references import DEFAULT_SYSTEMATIC, MIN_EPOCHS_FOR_SCATTER
from contimg_normalize.scale import MIN_REFERENCES, EpochScale, measure_baselines, normalise

MIN_RELIABLE_REFERENCES = 10
"""With fewer references a field's scale is doubtful."""
MAX_SYSTEMATIC = 0.02
MAX_FACTOR_OFFSET = 0.3
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
    factor: Floats
    factor_error: Floats


def run(options: NormalizeOptions, context: Context) -> StageResult:
    """Normalise every field of the strip; write and publish epochs and light curves."""
    with context.step("read"):
        columns = read_photometry(context)
    with context.step("normalize"):
        label = epochs.label_fields(columns["ra"].astype(np.float64))
        parts = [
            {name: column[label == k] for name, column in columns.items()} for k in np.unique(label)
        ]
        fields = [field for part in parts if (field := normalise_field(part, options)) is not None]
    if not fields:
        problem = f"No field has {MIN_REFERENCES} stable reference sources with an S/N of at least "
        problem += f"{options.reference_snr:.0f}."
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
    curves = epochs.average_epochs({name: c[measured] for name, c in rows.items()}, SITE.lon_deg)
    candidates = references.find_candidates(curves, options.reference_snr)
    if candidates.sum() < MIN_REFERENCES:
        return None
    gradient, systematic = options.gradient, options.systematic
    if systematic is None:
        systematic = references.measure_systematic(curves, candidates, gradient=gradient)
    error = np.hypot(curves.noise, systematic * curves.flux)
    stable = references.drop_variables(curves, candidates, error, gradient=gradient)
    reference = references.choose_spread(curves, stable, options.max_references)
    if options.systematic is None:
        systematic = references.measure_systematic(curves, reference, gradient=gradient)
    field = scale_field(curves, reference, systematic, gradient=gradient)
    return field if np.isfinite(field.factor).any() else None


def scale_field(
    curves: LightCurves, reference: Bools, systematic: float, *, gradient: bool
) -> NormalizedField:
    """Solve the scale of each epoch; the factor of a reference is that of the other references."""
    flux = curves.flux[reference]
    ratio = flux / measure_baselines(flux)[0][:, None]
    east, north = references.field_offsets(curves)
    near = east[reference], north[reference]
    scales = [scale.solve_epoch(column, *near, gradient=gradient) for column in ratio.T]
    at_sources = [epoch_scale.at(east, north) for epoch_scale in scales]
    factor, error = (np.stack(part, axis=1) for part in zip(*at_sources, strict=True))
    others = scale.scales_from_others(flux, *near, gradient=gradient)
    factor[reference], error[reference] = others
    return NormalizedField(
        name=f"{epochs.arc_middle(curves.ra_deg):05.1f}{np.median(curves.dec_deg):+05.1f}",
        curves=curves,
        reference=reference,
        scales=scales,
        systematic=systematic,
        factor=factor,
        factor_error=error,
    )


def epoch_columns(field: NormalizedField, strip: float) -> Columns:
    """Return one field's part of the columns of the normalization table; NaN becomes null."""
    curves, scales = field.curves, field.scales
    plane = np.array([part.plane for part in scales])
    used = np.array([part.used.sum() for part in scales])
    return {
        "field": np.full(len(scales), field.name),
        "epoch": curves.epoch,
        "mjd": np.nanmean(curves.mjd, axis=0),
        "strip": np.full(len(scales), strip),
        "references": used,
        "clipped": np.isfinite(curves.flux[field.reference]).sum(axis=0) - used,
        "factor": plane[:, 0],
        "factor_err": np.sqrt([part.covariance[0, 0] for part in scales]),
        "scatter": np.array([part.scatter for part in scales]),
        "gradient_east": plane[:, 1],
        "gradient_north": plane[:, 2],
    }


def flux_columns(field: NormalizedField, detection_snr: float) -> Columns:
    """Return one field's part of the columns of the normalized table; NaN becomes null."""
    curves, factor = field.curves, field.factor
    raw_error = np.hypot(curves.noise, field.systematic * curves.flux)
    flux, flux_error = normalise(curves.flux, raw_error, factor, field.factor_error)
    baseline, scatter = measure_baselines(np.where(np.isfinite(factor), curves.flux, np.nan))
    snr = curves.flux / curves.noise
    i, e = np.nonzero(np.isfinite(curves.flux))
    return {
        "source": curves.source[i],
        "ra": curves.ra_deg[i],
        "dec": curves.dec_deg[i],
        "field": np.full(i.size, field.name),
        "epoch": curves.epoch[e],
        "mjd": curves.mjd[i, e],
        "groups": curves.count[i, e],
        "flux_raw": curves.flux[i, e],
        "flux_raw_err": raw_error[i, e],
        "noise": curves.noise[i, e],
        "factor": factor[i, e],
        "factor_err": field.factor_error[i, e],
        "flux": flux[i, e],
        "flux_err": flux_error[i, e],
        "snr": snr[i, e],
        "upper_limit": snr[i, e] < detection_snr,
        "reference": field.reference[i],
        "baseline": baseline[i],
        "baseline_scatter": scatter[i],
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
            factor = field.factor[bright], field.factor_error[bright]
            flux, error = normalise(curves.flux[bright], curves.noise[bright], *factor)
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
    if len(fields) < field_count:
        left_out = field_count - len(fields)
        reasons.append(
            f"{left_out} of {field_count} fields have fewer than {MIN_REFERENCES} references "
            "and were left out"
        )
    for field in fields:
        name = f"field {field.name}"
        factors = np.array([part.plane[0] for part in field.scales])
        if (count := int(field.reference.sum())) < MIN_RELIABLE_REFERENCES:
            reasons.append(f"{name} has only {count} references")
        if missing := int(np.isnan(factors).sum()):
            reasons.append(f"{name}: {missing} epochs have too few references for a scale")
        if ((offset := np.abs(factors - 1)) > MAX_FACTOR_OFFSET).any():
            largest = f"{np.nanmax(offset):.0%}"
            reasons.append(f"{name}: the scale is off by up to {largest} of the baseline")
        if options.systematic is None and field.curves.epoch.size < MIN_EPOCHS_FOR_SCATTER:
            assumed = f"{DEFAULT_SYSTEMATIC} is assumed"
            reasons.append(f"{name}: too few epochs to measure the systematic term; {assumed}")
        elif field.systematic > MAX_SYSTEMATIC:
            scatter = f"{field.systematic:.1%}"
            reasons.append(f"{name}: fluxes scatter by {scatter} more than their noise explains")
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
