"""Put all epochs of a strip on one relative flux scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from contimg.astro.constants import MAD_TO_SIGMA
from contimg.records.groups import day_of_mjd
from contimg.records.schemas.normalization import NORMALIZATION, NORMALIZED
from contimg.records.strips import table_unit
from contimg.records.tables import repeat_texts
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import NoSourcesError, list_names
from contimg.runtime.manifest import QA
from contimg_normalize import epochs
from contimg_normalize.beam import REMEDY, average_beam, describe_beam, read_images
from contimg_normalize.curves import (
    LightCurves,
    average_groups,
    measure_baselines,
    measure_systematic,
    reduced_scatter,
)
from contimg_normalize.epochs import (
    Bools,
    Columns,
    Floats,
    Ints,
    Measurements,
    grouped_median,
)
from contimg_normalize.options import NormalizeOptions
from contimg_normalize.scale import (
    BAD,
    BORROWED,
    FAINT_FRACTION,
    GOOD,
    MIN_REFERENCES,
    NONE,
    CellScale,
    solve_cell,
)

MIN_RELIABLE_REFERENCES = 10
"""With fewer references a field's scale is doubtful."""
MAX_SYSTEMATIC, MAX_FACTOR_OFFSET = 0.02, 0.3
MAX_EXPONENT = 0.02
"""A beam that is wrong by more than this, as an exponent, is reported: 1 % in width."""
BRIGHT_SNR = 100.0
"""The metric of scatter is of the references with this S/N; see docs/stages/normalize.md."""
SNR_CLASSES = (5.0, 10.0, 30.0, 100.0, np.inf)
"""Borders of the classes for which the scatter of steady sources is reported."""
MAX_STEADY_SCATTER = 2.0
"""Sources above this multiple of their class's median √χ²ν vary and say nothing of the errors."""
MIN_SLOPE = 1e-5
"""Per degree; the prior of slopes that are not fitted leaves less."""
ROWS_AT_ONCE = 1 << 18
"""Measurements whose light curves are in memory; one row group of the file."""
STATUSES = (GOOD, BORROWED, BAD, NONE)


@dataclass(frozen=True, kw_only=True)
class NormalizedField:
    """The sources of one cell, and their scale."""

    scale: CellScale
    sources: Ints
    """Indices of the cell's own sources with measurements."""
    groups: Columns
    """Names and times of the scale's groups, `group` and `mjd`, shape (u,) each."""
    touched: Bools
    """Which groups of the scale measured one of them, shape (u,)."""
    systematic: float
    """1 sigma of errors that grow with flux, a fraction."""
    measured: bool
    """Whether `systematic` was measured."""


def run(options: NormalizeOptions, context: Context) -> StageResult:
    """Normalise every field of the strip; write and publish epochs and light curves."""
    with context.step("read"):
        rows, reasons, left_out = comparable_rows(epochs.read_photometry(context), options)
        beam = average_beam(read_images(context, rows))
        reasons += describe_beam(beam) + epochs.describe_unplaced(context.named(epochs.UNPLACED))
        left_out |= beam
    with context.step("normalize"):
        fields, missing = normalise_strip(rows, options)
    if not fields:
        raise explain_no_field(rows, options)
    with context.step("write"):
        parts = [group_columns(field, options.strip) for field in fields]
        scales = pa.concat_tables([NORMALIZATION.table(part) for part in parts])
        last_mjd = float(np.max(scales["mjd"].to_numpy()))
        day, unit = day_of_mjd(last_mjd), table_unit(options.strip, options.setup)
        context.write_table("normalization.parquet", NORMALIZATION, scales)
        context.publish(options.tables, NORMALIZATION, day, unit, scales)
        statistics: list[Floats] = []
        texts = {"field": [field.scale.cell.name for field in fields], "status": STATUSES}
        texts["source"] = rows.names[np.concatenate([field.sources for field in fields])]
        longest = {name: max(map(len, values)) for name, values in texts.items()}
        with context.writer("normalized.parquet") as sink:
            made = flux_tables(rows, fields, options.detection_snr, statistics)
            NORMALIZED.write(sink, made, longest)
        context.publish_output(options.tables, NORMALIZED.name, day, unit, "normalized.parquet")
    metrics = {"strip_deg": options.strip, "setup_number": options.setup}
    metrics |= {"last_mjd": round(last_mjd, 5), **summarise(fields)}
    metrics |= summarise_scatter(np.concatenate(statistics, axis=1))
    return StageResult(metrics=metrics | left_out, qa=judge(fields, missing, options, reasons))


def comparable_rows(
    rows: Measurements, options: NormalizeOptions
) -> tuple[Measurements, list[str], dict[str, Any]]:
    """Return the measurements of one setup, each time once, what was left out, and its metrics.

    Raises NoSourcesError if there is no setup of the chosen number.
    """
    setup = epochs.label_setups(rows.groups)
    names = [epochs.describe_setup(rows.groups, setup == k) for k in range(setup.max() + 1)]
    if options.setup >= len(names):
        problem = f"There is no setup {options.setup}: {len(names)} were found."
        raise NoSourcesError(f"strip {options.strip:+.2f}", problem, "Lower --setup.")
    chosen, reasons = setup == options.setup, []
    for k, name in enumerate(names):
        if k != options.setup:
            count = int(np.sum(setup == k))
            text = f"{count} groups of another setup were left out ({name})"
            reasons.append(f"{text}; --setup {k} makes their light curves")
    duplicate = epochs.find_duplicates(rows, chosen)
    if duplicate.any():
        same = sorted(str(name) for name in rows.groups["group"][duplicate])
        reasons.append(f"the same data under another name were left out: {list_names(same)}")
    # Images of other telescopes have no tier, but all have a frequency and a beam.
    lacking = sorted({*epochs.unstated(rows.groups, chosen)} & {*epochs.SIMILAR_SETUP})
    if lacking:
        text = f"the photometry does not state the {', '.join(lacking)} of its images"
        reasons.append(f"{text}: fluxes of different ones may be mixed")
    empty = chosen & (np.bincount(rows.group, minlength=chosen.size) == 0)
    if empty.any():
        blank = sorted(str(name) for name in rows.groups["group"][empty])
        reasons.append(f"no usable flux: {list_names(blank)}")
    kept = chosen & ~duplicate
    metrics = {"setup": names[options.setup], "setups": len(names)}
    metrics |= {"groups": int(kept.sum()), "duplicates": int(duplicate.sum())}
    metrics["blank_groups"] = int(empty.sum())
    return rows.without_groups(~kept), reasons, metrics


def normalise_strip(
    rows: Measurements, options: NormalizeOptions
) -> tuple[list[NormalizedField], int]:
    """Return the fields of a strip that have a scale, and how many have no scale."""
    fields, missing = [], 0
    for cell in epochs.make_cells(options.strip):
        home = cell.holds(rows.ra_deg)
        mine = home[rows.source]
        if not mine.any():
            continue
        scale = solve_cell(rows.select(cell.uses(rows.ra_deg)[rows.source]), cell, options)
        if scale is None or not scale.whole.usable.any():
            missing += 1
            continue
        systematic, measured = options.systematic, False
        if systematic is None:
            reference = scale.reference[home[scale.reference]]
            own = rows.select(np.isin(rows.source, reference))
            systematic, measured = measure_systematic(average_groups(own, scale, 0.0), scale)
        field = NormalizedField(
            scale=scale,
            sources=np.unique(rows.source[mine]).astype(np.int64),
            groups={name: rows.groups[name][scale.groups] for name in ("group", "mjd")},
            touched=np.isin(scale.groups, rows.group[mine]),
            systematic=systematic,
            measured=measured,
        )
        fields.append(field)
    return fields, missing


def explain_no_field(rows: Measurements, options: NormalizeOptions) -> NoSourcesError:
    """Return why no field of the strip has a scale, and what to do."""
    where, snr = f"strip {options.strip:+.2f}", rows.flux / rows.noise
    faint, total = FAINT_FRACTION * options.reference_snr, rows.groups["mjd"].size
    bright = np.bincount(rows.group[snr >= faint], minlength=total)
    groups = np.unique(rows.group)
    dark = groups[bright[groups] < MIN_REFERENCES]
    if 2 * dark.size > groups.size > dark.size:
        names = list_names(rows.groups["group"][dark].tolist())
        problem = f"In {dark.size} of {groups.size} groups fewer than {MIN_REFERENCES} sources"
        problem += f" have an S/N of {faint:.0f}: most images are blank, or not calibrated"
        remedy = "Look at these groups and process them again, or leave out their days"
        remedy += " (--first-day, --last-day)."
        return NoSourcesError(where, f"{problem} ({names}).", remedy)
    best = np.sort(grouped_median(snr, rows.source, rows.names.size))[::-1][:MIN_REFERENCES]
    few = f"{MIN_REFERENCES} stable reference sources"
    problem = f"No field has {few} with an S/N of at least {options.reference_snr:.0f}; the highest"
    problem += f" median S/N are {', '.join(f'{value:.1f}' for value in best)}."
    return NoSourcesError(where, problem, "Lower --reference-snr, or add groups.")


def light_curves(
    rows: Measurements, fields: list[NormalizedField]
) -> Iterator[list[tuple[NormalizedField, LightCurves]]]:
    """Yield the light curves of some sources after the other, in the order of their names."""
    owner = np.full(rows.names.size, -1)
    for k, field in enumerate(fields):
        owner[field.sources] = k
    first, end = 0, rows.source.size
    while first < end:
        # To the last row of a source.
        last = rows.source[min(first + ROWS_AT_ONCE, end) - 1]
        after = int(np.searchsorted(rows.source, last, side="right"))
        part = rows.select(slice(first, after))
        label = owner[part.source]
        made = []
        for k in np.unique(label[label >= 0]):
            curves = average_groups(part.select(label == k), fields[k].scale, fields[k].systematic)
            made.append((fields[k], curves))
        if made:
            yield made
        first = after


def flux_tables(
    rows: Measurements,
    fields: list[NormalizedField],
    detection_snr: float,
    statistics: list[Floats],
) -> Iterator[pa.Table]:
    """Yield the normalized table in parts; `statistics` gets those of each part's sources."""
    for part in light_curves(rows, fields):
        columns = [flux_columns(*one, rows, detection_snr) for one in part]
        statistics += [source_statistics(curves) for _, curves in part]
        made = pa.concat_tables([NORMALIZED.table(one) for one in columns])
        yield NORMALIZED.table({name: made[name] for name in made.column_names})


def group_columns(field: NormalizedField, strip: float) -> Columns:
    """Return one field's part of the columns of the normalization table; NaN becomes null."""
    scale, mine = field.scale, field.touched
    usable = scale.whole.usable
    plane = np.where(usable[:, None], scale.whole.plane, np.nan)
    error = np.where(usable, np.sqrt(scale.whole.covariance[:, 0, 0]), np.nan)
    columns = {
        "field": np.full(mine.size, scale.cell.name),
        "epoch": scale.epoch,
        **field.groups,
        "status": scale.whole.status,
        "reason": scale.reason,
        "strip": np.full(mine.size, strip),
        "references": scale.used,
        "clipped": scale.clipped,
        "factor": plane[:, 0],
        "factor_err": error,
        "scatter": scale.relative_scatter,
        "scatter_over_error": scale.scatter,
        "gradient_east": plane[:, 1],
        "gradient_north": plane[:, 2],
    }
    return {name: values[mine] for name, values in columns.items()}


def flux_columns(
    field: NormalizedField, curves: LightCurves, rows: Measurements, detection_snr: float
) -> dict[str, Any]:
    """Return the columns of the normalized table of light curves; NaN becomes null."""
    baseline, scatter = measure_baselines(curves)
    snr = curves.raw / curves.noise
    names, label = np.unique(curves.source, return_inverse=True)
    return {
        "field": repeat_texts(np.zeros(snr.size, np.int64), [field.scale.cell.name]),
        "source": repeat_texts(label, rows.names[names].tolist()),
        "status": curves.status,
        "ra": rows.ra_deg[curves.source],
        "dec": rows.dec_deg[curves.source],
        "epoch": curves.epoch,
        "mjd": curves.mjd,
        "groups": curves.count,
        "flux_raw": curves.raw,
        "flux_raw_err": curves.raw_error,
        "noise": curves.noise,
        "factor": curves.factor,
        "factor_err": curves.factor_error,
        "flux": curves.flux,
        "flux_err": curves.error,
        "snr": snr,
        "upper_limit": snr < detection_snr,
        "reference": curves.reference,
        "baseline": baseline,
        "baseline_scatter": scatter,
    }


def summarise(fields: list[NormalizedField]) -> dict[str, Any]:
    """Return the metrics: how many fields, epochs and sources, and how well references agree."""
    used = [field.scale.whole.plane[field.scale.whole.usable, 0] for field in fields]
    factors = np.concatenate(used)
    offset = np.abs(factors - float(np.median(factors)))
    counts = [field.scale.used[field.scale.whole.usable] for field in fields]
    exponents = np.array([field.scale.exponent for field in fields])
    return {
        "fields": len(fields),
        "epochs": max(np.unique(field.scale.epoch[field.touched]).size for field in fields),
        "sources": sum(field.sources.size for field in fields),
        "references": len({int(k) for field in fields for k in field.scale.reference}),
        "references_per_group": round(float(np.median(np.concatenate(counts))), 1),
        "bad_groups": len(groups_of(fields, BAD)),
        "borrowed_groups": len(groups_of(fields, BORROWED)),
        "groups_without_scale": len(groups_of(fields, NONE)),
        "factor_scatter": round(MAD_TO_SIGMA * float(np.median(offset)), 5),
        "systematic": round(max(field.systematic for field in fields), 5),
        "gradient_fields": sum(
            bool((np.abs(field.scale.whole.plane[:, 1:]) > MIN_SLOPE).any()) for field in fields
        ),
        "beam_exponent": round(float(exponents[np.argmax(np.abs(exponents))]), 4),
    }


def summarise_scatter(statistics: Floats) -> dict[str, Any]:
    """Return what the scatter of light curves, as `source_statistics`, says of their errors.

    For bright references; and for steady sources in classes of S/N: √χ²ν in the median, and the
    scatter that the errors do not explain, a fraction of the flux.
    """
    snr, relative, over_noise, chi, excess, reference = statistics
    metrics: dict[str, Any] = {}
    bright = np.isfinite(chi) & (reference > 0) & (snr >= BRIGHT_SNR)
    if bright.any():
        metrics["scatter_median"] = round(float(np.median(relative[bright])), 5)
        metrics["scatter_over_noise"] = round(float(np.median(over_noise[bright])), 4)
    classes = []
    for low, high in pairwise(SNR_CLASSES):
        mine = np.isfinite(chi) & (snr >= low) & (snr < high)
        if mine.any():
            mine &= chi <= MAX_STEADY_SCATTER * float(np.median(chi[mine]))
            median = round(float(np.median(chi[mine])), 3)
            unexplained = float(np.sqrt(max(0.0, float(np.median(excess[mine])))))
            found = {"snr_min": low, "sources": int(mine.sum()), "scatter_over_error": median}
            classes.append(found | {"unexplained": round(unexplained, 5)})
    return metrics | ({"scatter_classes": classes} if classes else {})


def source_statistics(curves: LightCurves) -> Floats:
    """Return six rows of numbers, shape (6, n), of n sources.

    S/N, relative scatter, scatter over noise, √χ²ν, excess variance, and whether it is a reference.
    The excess variance is relative: that of the flux less that of the noise and the factor's error.
    """
    good = curves.select(np.isfinite(curves.flux))
    flux = good.flux
    names, label, size = np.unique(good.source, return_inverse=True, return_counts=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(label, flux) / size
        variance = np.bincount(label, (flux - mean[label]) ** 2) / (size - 1)
        expected = np.bincount(label, replace(good, systematic=0.0).error ** 2) / size
        chi = reduced_scatter(flux, good.error, label)
        ratio = np.sqrt(variance / expected)
        spread = np.sqrt(variance) / mean
        excess = (variance - expected) / mean**2
    snr = grouped_median(good.raw / good.noise, label, names.size)
    reference = np.bincount(label, good.reference) > 0
    return np.stack([snr, spread, ratio, chi, excess, reference])


def groups_of(fields: list[NormalizedField], status: str) -> dict[str, str | None]:
    """Return the groups of a status and why, over all fields that they touch."""
    found = {}
    for field in fields:
        scale = field.scale
        for k in np.flatnonzero(field.touched & (scale.whole.status == status)):
            found[str(field.groups["group"][k])] = scale.reason[k]
    return found


def judge(
    fields: list[NormalizedField], missing: int, options: NormalizeOptions, reasons: list[str]
) -> QA:
    """Return the reasons why the scale is doubtful; `missing` fields have no scale."""
    reasons = list(reasons)
    if missing:
        lack = f"fewer than {MIN_REFERENCES} references and were left out"
        reasons.append(f"{missing} of {missing + len(fields)} fields have {lack}")
    for status, text in ((BAD, "bad epoch"), (NONE, "no scale"), (BORROWED, "borrowed scale")):
        found = groups_of(fields, status)
        named = [f"{name} ({why})" if why else name for name, why in sorted(found.items())]
        if named:
            reasons.append(f"{text}: {list_names(named)}")
    for field in fields:
        scale, systematic = field.scale, field.systematic
        factors = scale.whole.plane[scale.whole.usable, 0]
        count, offset = (
            int(np.median(scale.used[field.touched])),
            float(np.max(np.abs(factors - 1))),
        )
        assumed = options.systematic is None and not field.measured
        excess = f"fluxes scatter by {systematic:.1%} more than their noise explains"
        beam = f"primary_beam: fluxes follow beam^{scale.exponent:+.3f}, which was removed"
        checks = (
            (count < MIN_RELIABLE_REFERENCES, f"only {count} references"),
            (offset > MAX_FACTOR_OFFSET, f"the scale is off by up to {offset:.0%} of the baseline"),
            (assumed, f"too few data for the systematic term; {systematic} is assumed"),
            (systematic > MAX_SYSTEMATIC, excess),
            (abs(scale.exponent) > MAX_EXPONENT + 5 * scale.exponent_error, f"{beam}; {REMEDY}"),
        )
        reasons += [f"field {scale.cell.name}: {text}" for doubtful, text in checks if doubtful]
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
