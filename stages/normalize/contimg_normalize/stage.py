"""Put all epochs of a strip on one relative flux scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.astro.telescope import SITE
from contimg.records.groups import utc_of_mjd
from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.runtime.context import StageResult
from contimg.runtime.errors import NoSourcesError
from contimg.runtime.manifest import QA
from contimg_normalize.epochs import LightCurves, fields_of, light_curves, measured, middle_of
from contimg_normalize.inputs import read_photometry
from contimg_normalize.references import (
    EPOCHS_TO_JUDGE,
    candidates,
    offsets,
    spread_out,
    stable,
    systematic_fraction,
)
from contimg_normalize.scale import (
    FEWEST,
    Scale,
    baselines,
    leave_one_out,
    normalised,
    solve,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from contimg.runtime.context import Context
    from contimg_normalize.options import NormalizeOptions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

COLUMNS = ("source", "ra", "dec", "mjd", "flux_forced", "local_rms", "compactness", "blend")
FEW = 10
"""Fewer references than this make a field's scale doubtful."""
UNMEASURED_SYSTEMATIC = 0.01
"""Fraction taken where too few epochs measure it: the better end of what earlier pipelines reached (science.md, 1-2 %)."""
WORST_SYSTEMATIC = 0.02
WORST_FACTOR = 0.3
BRIGHT_SNR = 100.0
"""The scatter of the references from this S/N up goes into the metrics; it is the one that the project has promised."""


@dataclass(frozen=True)
class Field:
    """One field's light curves on their scale."""

    name: str
    curves: LightCurves
    reference: Bools
    """Shape (n,)."""
    scales: list[Scale]
    """One an epoch."""
    systematic: float
    factor: Floats
    """Shape (n, m)."""
    factor_error: Floats

    @property
    def error(self) -> Floats:
        """Noise and the systematic term, before the scale, shape (n, m)."""
        return np.asarray(np.hypot(self.curves.noise, self.systematic * self.curves.flux))


def run(options: NormalizeOptions, context: Context) -> StageResult:
    """Normalise every field of the strip; write and publish epochs and light curves."""
    with context.step("read"):
        columns = as_arrays(read_photometry(context))
    with context.step("normalize"):
        number = fields_of(columns["ra"].astype(np.float64))
        parts = [
            {name: column[number == k] for name, column in columns.items()}
            for k in np.unique(number)
        ]
        fields = [
            made for made in (normalise_field(part, options) for part in parts) if made is not None
        ]
    if not fields:
        expected = f"at least {FEWEST} stable reference sources with S/N of {options.reference_snr:.0f} in a field"
        raise NoSourcesError(
            f"strip {options.strip:+.2f}",
            f"expected {expected}, found no such field.",
            "Lower --reference-snr.",
        )
    with context.step("write"):
        epochs = NORMALIZATION.rows(
            [row for field in fields for row in epoch_rows(field, options.strip)]
        )
        rows = NORMALIZED.rows(
            [row for field in fields for row in flux_rows(field, options.detection_snr)]
        )
        context.write_table("normalization.parquet", NORMALIZATION, epochs)
        context.write_table("normalized.parquet", NORMALIZED, rows)
        last = utc_of_mjd(float(np.max(epochs["mjd"].to_numpy())))
        for schema, table in ((NORMALIZATION, epochs), (NORMALIZED, rows)):
            context.publish(
                options.tables,
                schema,
                last.strftime("%Y-%m-%d"),
                f"strip{options.strip:+06.2f}",
                table,
            )
    metrics = {
        "strip_deg": options.strip,
        "last_mjd": round(float(np.max(epochs["mjd"].to_numpy())), 5),
        **summarise(fields),
    }
    return StageResult(metrics=metrics, qa=judge(fields, len(parts), options))


def as_arrays(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the columns that matter as numpy arrays; nulls are NaN."""
    return {
        name: np.asarray(table[name].to_pylist() if name == "source" else table[name].to_numpy())
        for name in COLUMNS
    }


def normalise_field(rows: dict[str, NDArray[Any]], options: NormalizeOptions) -> Field | None:
    """Normalise one field; None if it has too few references."""
    rows = measured(rows)
    if rows["source"].size == 0:
        return None
    curves = light_curves(rows, SITE.lon_deg)
    among = candidates(curves, options.reference_snr)
    if among.sum() < FEWEST:
        return None
    systematic = _systematic(curves, among, options)
    left = stable(
        curves, among, np.hypot(curves.noise, systematic * curves.flux), gradient=options.gradient
    )
    reference = spread_out(curves, left, options.max_references)
    systematic = _systematic(curves, reference, options)
    scales, factor, factor_error = field_scale(curves, reference, gradient=options.gradient)
    if not np.isfinite(factor).any():
        return None
    name = f"{middle_of(curves.ra_deg):05.1f}{float(np.median(curves.dec_deg)):+05.1f}"
    return Field(name, curves, reference, scales, systematic, factor, factor_error)


def _systematic(curves: LightCurves, reference: Bools, options: NormalizeOptions) -> float:
    if options.systematic is not None:
        return options.systematic
    if curves.epoch.size < EPOCHS_TO_JUDGE:
        return UNMEASURED_SYSTEMATIC
    east, north = offsets(curves)
    plane = (east[reference], north[reference]) if options.gradient else None
    return systematic_fraction(curves.flux[reference], curves.noise[reference], plane)


def field_scale(
    curves: LightCurves, reference: Bools, *, gradient: bool
) -> tuple[list[Scale], Floats, Floats]:
    """Return each epoch's scale, and the factor and its error for each source and epoch, shape (n, m).

    A reference gets the scale of the other references.
    """
    members = np.flatnonzero(reference)
    base, _ = baselines(curves.flux[members])
    ratio = curves.flux[members] / base[:, None]
    east, north = offsets(curves)
    factor, error, scales = np.empty_like(curves.flux), np.empty_like(curves.flux), []
    for e in range(curves.epoch.size):
        scale = solve(ratio[:, e], east[members], north[members], gradient=gradient)
        factor[:, e], error[:, e] = scale.at(east, north)
        for k, own in zip(
            members,
            leave_one_out(ratio[:, e], east[members], north[members], gradient=gradient),
            strict=True,
        ):
            factor[k, e], error[k, e] = own.at(east[k], north[k])
        scales.append(scale)
    return scales, factor, error


def epoch_rows(field: Field, strip: float) -> list[dict[str, Any]]:
    """Return the rows of the normalization table of one field."""
    mjd = np.nanmean(field.curves.mjd, axis=0)
    total = np.isfinite(field.curves.flux[field.reference]).sum(axis=0)
    return [
        {
            "field": field.name,
            "epoch": int(epoch),
            "mjd": mjd[e],
            "strip": strip,
            "references": int(scale.used.sum()),
            "clipped": int(total[e] - scale.used.sum()),
            "factor": _or_null(scale.plane[0]),
            "factor_err": _or_null(np.sqrt(scale.covariance[0, 0])),
            "scatter": _or_null(scale.scatter),
            "gradient_east": _or_null(scale.plane[1]),
            "gradient_north": _or_null(scale.plane[2]),
        }
        for e, (epoch, scale) in enumerate(zip(field.curves.epoch, field.scales, strict=True))
    ]


def flux_rows(field: Field, detection_snr: float) -> list[dict[str, Any]]:
    """Return the rows of the normalized table of one field."""
    curves, error = field.curves, field.error
    flux, flux_error = normalised(curves.flux, error, field.factor, field.factor_error)
    base, scatter = baselines(np.where(np.isfinite(field.factor), curves.flux, np.nan))
    snr = curves.flux / curves.noise
    return [
        {
            "source": str(curves.source[i]),
            "ra": curves.ra_deg[i],
            "dec": curves.dec_deg[i],
            "field": field.name,
            "epoch": int(curves.epoch[e]),
            "mjd": curves.mjd[i, e],
            "groups": int(curves.count[i, e]),
            "flux_raw": curves.flux[i, e],
            "flux_raw_err": error[i, e],
            "noise": curves.noise[i, e],
            "factor": _or_null(field.factor[i, e]),
            "factor_err": _or_null(field.factor_error[i, e]),
            "flux": _or_null(flux[i, e]),
            "flux_err": _or_null(flux_error[i, e]),
            "snr": snr[i, e],
            "upper_limit": bool(snr[i, e] < detection_snr),
            "reference": bool(field.reference[i]),
            "baseline": _or_null(base[i]),
            "baseline_scatter": _or_null(scatter[i]),
        }
        for i, e in np.argwhere(np.isfinite(curves.flux))
    ]


def _or_null(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def summarise(fields: list[Field]) -> dict[str, Any]:
    """Return the numbers for people: how many, and how well the references agree."""
    factors = np.array([scale.plane[0] for field in fields for scale in field.scales])
    middle = float(np.nanmedian(factors))
    metrics = {
        "fields": len(fields),
        "epochs": max(field.curves.epoch.size for field in fields),
        "sources": sum(field.curves.source.size for field in fields),
        "references": int(sum(f.reference.sum() for f in fields)),
        "factor_scatter": round(MAD_TO_SIGMA * float(np.nanmedian(np.abs(factors - middle))), 5),
        "systematic": round(max(field.systematic for field in fields), 5),
    }
    found = [bright_scatter(field) for field in fields]
    relative, over = (np.concatenate(part) for part in zip(*found, strict=True))
    if relative.size:
        metrics |= {
            "scatter_median": round(float(np.median(relative)), 5),
            "scatter_over_noise": round(float(np.median(over)), 4),
        }
    return metrics


def bright_scatter(field: Field) -> tuple[Floats, Floats]:
    """Return the scatter of the bright references' light curves: as a fraction, and over what noise and scale errors predict."""
    bright = field.reference & (field.curves.snr >= BRIGHT_SNR)
    if field.curves.epoch.size < EPOCHS_TO_JUDGE or not bright.any():
        return np.empty(0), np.empty(0)
    raw, noise = field.curves.flux[field.reference], field.curves.noise[field.reference]
    flux, error = normalised(
        raw, noise, field.factor[field.reference], field.factor_error[field.reference]
    )
    part = bright[field.reference]
    mean = np.nanmean(flux[part], axis=1)
    spread = np.nanstd(flux[part], axis=1, ddof=1)
    return spread / mean, spread / np.sqrt(np.nanmean(error[part] ** 2, axis=1))


def judge(fields: list[Field], all_fields: int, options: NormalizeOptions) -> QA:
    """Say what makes the scale doubtful."""
    reasons = []
    if len(fields) < all_fields:
        reasons.append(
            f"{all_fields - len(fields)} of {all_fields} fields have fewer than {FEWEST} references and were left out"
        )
    for field in fields:
        factors = np.array([scale.plane[0] for scale in field.scales])
        if field.reference.sum() < FEW:
            reasons.append(f"field {field.name} has only {int(field.reference.sum())} references")
        if np.isnan(factors).any():
            reasons.append(
                f"field {field.name}: {int(np.isnan(factors).sum())} epochs have too few references for a scale"
            )
        if (np.abs(factors - 1) > WORST_FACTOR).any():
            reasons.append(
                f"field {field.name}: the scale is off by up to {np.nanmax(np.abs(factors - 1)):.0%} of the baseline"
            )
        if options.systematic is None and field.curves.epoch.size < EPOCHS_TO_JUDGE:
            reasons.append(
                f"field {field.name}: too few epochs to measure the systematic term; {UNMEASURED_SYSTEMATIC} was taken"
            )
        elif field.systematic > WORST_SYSTEMATIC:
            reasons.append(
                f"field {field.name}: fluxes scatter by {field.systematic:.1%} beyond their noise"
            )
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
