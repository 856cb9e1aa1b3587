"""The convert stage: a group of UVH5 subbands to one Measurement Set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import MJD_ZERO_JD
from contimg.records.groups import N_SUBBANDS, GroupRecord, day_of_mjd, read_group
from contimg.records.schemas.ms import MS
from contimg.records.schemas.subbands import SUBBANDS
from contimg.runtime.context import Context, StageResult
from contimg.runtime.manifest import QA
from contimg_convert.fringes import check_signal
from contimg_convert.options import ConvertOptions
from contimg_convert.reading import open_subband
from contimg_convert.rows import ms_row, subband_rows
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
    metrics = measure(record, plan, tally) | {"missing_subbands": missing}
    qa = judge(metrics)
    if options.tables is not None:
        day = day_of_mjd(metrics["mjd"])
        for schema, rows in (
            (SUBBANDS, subband_rows(record, digests, metrics)),
            (MS, [ms_row(context, options.tables, metrics, qa.verdict)]),
        ):
            context.publish(options.tables, schema, day, record.id, schema.rows(rows))
    return StageResult(metrics=metrics, qa=qa)


def measure(record: GroupRecord, plan: ConversionPlan, tally: Tally) -> dict[str, Any]:
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


def judge(metrics: Mapping[str, Any]) -> QA:
    """Return the verdict: a warning if something is missing, zero or not finite."""
    reasons = []
    if metrics["missing_subbands"]:
        reasons.append(f"subbands missing: {', '.join(map(str, metrics['missing_subbands']))}")
    if metrics["zeros_fraction"] >= WARN_ZEROS_FRACTION:
        reasons.append(f"{metrics['zeros_fraction']:.1%} of the cross-correlations are zero")
    if metrics["invalid_fraction"] > 0:
        reasons.append(f"{metrics['invalid_fraction']:.2%} of the visibilities are not finite")
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
