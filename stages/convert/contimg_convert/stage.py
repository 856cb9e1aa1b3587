"""The convert stage: a group of UVH5 subbands to one Measurement Set."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.groups import (
    MJD_ZERO_JD,
    N_SUBBANDS,
    GroupRecord,
    day_of_mjd,
    mjd_of,
    read_group,
)
from contimg.records.schemas.ms import MS, SUBBANDS
from contimg.runtime.context import Context, StageResult
from contimg.runtime.manifest import QA
from contimg_convert.fringes import check_signal
from contimg_convert.options import ConvertOptions
from contimg_convert.reading import open_subband
from contimg_convert.subband_files import fetch_subbands
from contimg_convert.writing import ConversionPlan, Tally, plan_conversion, write_ms

MEMORY_BYTES = 1 << 30
"""Memory that a conversion takes besides its MS."""
WARN_ZEROS_FRACTION = 0.02
"""From this fraction of zeros on the verdict is a warning."""


def run(options: ConvertOptions, context: Context) -> StageResult:
    """Convert one group."""
    record = read_group(options.group)
    with context.step("bring subbands"):
        files = fetch_subbands(record, context)
    folder = context.scratch / f"{record.id}.ms"
    with contextlib.ExitStack() as stack:
        # Digests are computed beside the conversion, which reads the same bytes.
        pool = ThreadPoolExecutor(1)
        stack.callback(pool.shutdown, cancel_futures=True)
        futures = {file.index: pool.submit(file.digest) for file in files}
        with context.step("headers and geometry"):
            subbands = {
                file.index: stack.enter_context(open_subband(file.path, file.uri, file.index))
                for file in files
            }
            headers = {index: subband.header for index, subband in subbands.items()}
            plan = plan_conversion(record.id, headers)
        context.need(plan.bytes, MEMORY_BYTES)
        with context.step("convert"):
            tally = write_ms(folder, record.id, plan, subbands, context.progress)
        check_signal(options, record.name, tally, folder)
        with context.step("store"):
            context.write_tree("ms.tar", folder)
        with context.step("digests of subbands"):
            digests = {index: future.result() for index, future in futures.items()}
    # Names, not URIs: where the store lies is no part of the product.
    listing = [
        {"index": f.index, "name": Path(f.uri).name, "bytes": f.size, "sha256": digests[f.index]}
        for f in files
    ]
    context.write("subbands.json", json.dumps(listing, indent=1).encode())
    missing = sorted(set(range(N_SUBBANDS)) - set(digests))
    metrics = collect_metrics(record, plan, tally) | {"missing_subbands": missing}
    qa = judge_quality(metrics)
    if options.tables is not None:
        day = day_of_mjd(metrics["mjd"])
        for schema, rows in (
            (SUBBANDS, subband_rows(record, digests, metrics)),
            (MS, [ms_row(context, options.tables, metrics, qa.verdict)]),
        ):
            context.publish(options.tables, schema, day, record.id, schema.rows(rows))
    return StageResult(metrics=metrics, qa=qa)


def collect_metrics(record: GroupRecord, plan: ConversionPlan, tally: Tally) -> dict[str, Any]:
    """Return the metrics of the manifest, but for the missing subbands."""
    header, site, order = plan.header, plan.header.array.site, plan.baselines
    half_day = header.integration_s / 2 / DAY_S
    mjd = header.times_jd - MJD_ZERO_JD
    return {
        "group": record.id,
        "attempt": record.attempt,
        "mjd": float(np.mean(mjd)),
        "mjd_start": float(mjd[0]) - half_day,
        "mjd_end": float(mjd[-1]) + half_day,
        "integrations": len(mjd),
        "integration_s": header.integration_s,
        "pointing_dec_deg": float(np.degrees(header.dec_rad)),
        "ra_deg": float(np.degrees(plan.geometry.ra_rad)),
        "dec_deg": float(np.degrees(plan.geometry.dec_rad)),
        "lat_deg": site.lat_deg,
        "lon_deg": site.lon_deg,
        "height_m": site.height_m,
        "antennas": len(np.unique([order.antenna1, order.antenna2])),
        "baselines": len(header.antenna1),
        "rows": plan.rows,
        "channels": len(plan.band_hz),
        "channel_width_hz": header.width_hz,
        "freq_min_hz": float(plan.band_hz[0]) - header.width_hz / 2,
        "freq_max_hz": float(plan.band_hz[-1]) + header.width_hz / 2,
        "longest_baseline_m": plan.longest_baseline_m,
        "header_uvw_difference_m": plan.uvw_difference_m,
        "zeros_fraction": tally.zeros,
        "invalid_fraction": tally.invalid,
    }


def judge_quality(metrics: Mapping[str, Any]) -> QA:
    """Return the verdict: a warning if something is missing, zero or not finite."""
    reasons = []
    if metrics["missing_subbands"]:
        reasons.append(f"subbands missing: {', '.join(map(str, metrics['missing_subbands']))}")
    if metrics["zeros_fraction"] >= WARN_ZEROS_FRACTION:
        reasons.append(f"{metrics['zeros_fraction']:.1%} of the cross-correlations are zero")
    if metrics["invalid_fraction"] > 0:
        reasons.append(f"{metrics['invalid_fraction']:.2%} of the visibilities are not finite")
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))


def ms_row(
    context: Context, tables: str, metrics: Mapping[str, Any], verdict: str
) -> dict[str, Any]:
    """Return the row of the Measurement Set that this run wrote."""
    tar = next(output for output in context.outputs if output.name == "ms.tar")
    # Metrics carry their units in their names, columns in the schema.
    values = {re.sub("_(deg|hz|m|s)$", "", name): value for name, value in metrics.items()}
    return {
        **{column.name: values[column.name] for column in MS.columns if column.name in values},
        "artifact": context.relative_uri(tables),
        "ms": context.key,
        "strip": metrics["pointing_dec_deg"],
        "n_rows": metrics["rows"],
        "n_subbands": N_SUBBANDS - len(metrics["missing_subbands"]),
        "bytes": tar.bytes,
        "sha256": tar.sha256,
        "verdict": verdict,
    }


def subband_rows(
    record: GroupRecord, digests: Mapping[int, str], metrics: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return 16 rows, highest frequency first, from the sha256 by subband and the metrics."""
    top = metrics["freq_max_hz"]
    width = (top - metrics["freq_min_hz"]) / N_SUBBANDS
    present = {subband.index: subband for subband in record.subbands}
    rows = []
    for index in range(N_SUBBANDS):
        row = {
            "group": record.id,
            "attempt": record.attempt,
            "subband": index,
            "missing": index not in present,
            "mjd": metrics["mjd"],
            "freq_min": top - (index + 1) * width,
            "freq_max": top - index * width,
        }
        if index in present:
            subband = present[index]
            row |= {
                "file": subband.uri.rpartition("/")[2],
                "bytes": subband.size,
                "sha256": digests[index],
                "modified": mjd_of(subband.modified),
            }
        rows.append(row)
    return rows
