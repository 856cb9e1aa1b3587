"""The convert stage: a group of UVH5 subbands to one Measurement Set."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from contimg.astro.constants import DAY_S
from contimg.records.groups import MJD_ZERO_JD, N_SUBBANDS, group_id, read_group, utc_of_jd
from contimg.runtime.context import StageResult
from contimg.runtime.errors import InconsistentGroupError, NoSignalError
from contimg.runtime.manifest import QA
from contimg_convert import rows, writing
from contimg_convert.fringes import coherence
from contimg_convert.reading import REGROUP, check_group, opened
from contimg_convert.sources import Digests, Source, bring

if TYPE_CHECKING:
    from pathlib import Path

    from contimg.records.groups import GroupRecord
    from contimg.runtime.context import Context
    from contimg_convert.options import ConvertOptions

MEMORY = 1 << 30
"""Bytes that a conversion takes besides its MS."""
ZEROS_WORTH_SAYING = 0.02
"""From this fraction of zeros on the verdict is a warning."""


def run(options: ConvertOptions, context: Context) -> StageResult:
    """Convert one group."""
    record = read_group(options.group)
    with context.step("bring subbands"):
        sources = bring(record, context)
    folder = context.scratch / f"{record.id}.ms"
    with Digests(sources) as digests:
        the, tally = _convert(record, sources, folder, context)
        judge_signal(options, record, tally, folder)
        with context.step("store"):
            context.write_tree("ms.tar", folder)
        with context.step("digests of subbands"):
            found = digests.results()
    context.write("subbands.json", _listing(sources, found))
    missing = sorted(set(range(N_SUBBANDS)) - set(found))
    metrics = _metrics(record, the, tally) | {"missing_subbands": missing}
    qa = _verdict(metrics)
    if options.tables is not None:
        rows.publish(context, options.tables, record, found, metrics, qa.verdict)
    return StageResult(metrics=metrics, qa=qa)


def _convert(
    record: GroupRecord, sources: list[Source], folder: Path, context: Context
) -> tuple[writing.Plan, writing.Tally]:
    with contextlib.ExitStack() as stack:
        with context.step("headers and geometry"):
            subbands = {
                s.index: stack.enter_context(opened(s.path, s.uri, s.index)) for s in sources
            }
            headers = {index: subband.header for index, subband in subbands.items()}
            band = check_group(headers, N_SUBBANDS)
            the = writing.plan(headers, band)
            started = group_id(utc_of_jd(the.header.times_jd[0]))
            if started != record.id:
                where = the.header.where
                raise InconsistentGroupError(
                    where,
                    f"expected a first integration at {record.id}, as the record says, found {started}.",
                    REGROUP,
                )
        context.need(the.bytes, MEMORY)
        with context.step("convert"):
            return the, writing.write(folder, record.id, the, subbands, context.progress)


def judge_signal(
    options: ConvertOptions, record: GroupRecord, tally: writing.Tally, folder: Path
) -> None:
    """Refuse what is no observation.

    Raises
    ------
    NoSignalError
        If too much is not finite, or zeros are many and what is left shows no fringes.
    """
    remedy = "The correlator failed: leave this group out."
    if tally.invalid >= options.max_invalid:
        wanted = f"less than {options.max_invalid:.0%} of the visibilities not finite"
        raise NoSignalError(record.name, f"expected {wanted}, found {tally.invalid:.1%}.", remedy)
    if tally.zeros < options.max_zeros:
        return
    value, error = coherence(folder)
    if not value > 5 * error:
        wanted = f"less than {options.max_zeros:.0%} zeros, or fringes"
        found = f"{tally.zeros:.1%} zeros and a coherence of neighbouring channels of {value:.1e} ± {error:.0e}"
        raise NoSignalError(record.name, f"expected {wanted}, found {found}.", remedy)


def _listing(sources: list[Source], digests: dict[int, str]) -> bytes:
    # The name alone: where the store lies is no part of the product.
    files = [
        {
            "index": s.index,
            "name": s.uri.rpartition("/")[2],
            "bytes": s.size,
            "sha256": digests[s.index],
        }
        for s in sources
    ]
    return json.dumps(files, indent=1).encode()


def _metrics(record: GroupRecord, the: writing.Plan, tally: writing.Tally) -> dict[str, Any]:
    header, site = the.header, the.header.array.site
    half_day = header.integration_s / 2 / DAY_S
    mjd = header.times_jd - MJD_ZERO_JD
    width = header.width_hz / 2
    return {
        "group": record.id,
        "attempt": record.attempt,
        "mjd": float(np.mean(mjd)),
        "mjd_start": float(mjd[0]) - half_day,
        "mjd_end": float(mjd[-1]) + half_day,
        "integrations": len(mjd),
        "integration_s": header.integration_s,
        "pointing_dec_deg": float(np.degrees(header.dec_rad)),
        "ra_deg": float(np.degrees(the.geometry.ra_rad)),
        "dec_deg": float(np.degrees(the.geometry.dec_rad)),
        "lat_deg": site.lat_deg,
        "lon_deg": site.lon_deg,
        "height_m": site.height_m,
        "antennas": len(np.unique(the.baselines.antennas)),
        "baselines": len(header.antenna1),
        "rows": the.rows,
        "channels": len(the.band_hz),
        "channel_width_hz": header.width_hz,
        "freq_min_hz": float(the.band_hz[0]) - width,
        "freq_max_hz": float(the.band_hz[-1]) + width,
        "longest_baseline_m": writing.longest_baseline_m(the),
        "header_uvw_difference_m": the.uvw_difference_m,
        "zeros_fraction": tally.zeros,
        "invalid_fraction": tally.invalid,
    }


def _verdict(metrics: dict[str, Any]) -> QA:
    reasons = []
    if metrics["missing_subbands"]:
        reasons.append(f"subbands missing: {', '.join(map(str, metrics['missing_subbands']))}")
    if metrics["zeros_fraction"] >= ZEROS_WORTH_SAYING:
        reasons.append(f"{metrics['zeros_fraction']:.1%} of the cross-correlations are zero")
    if metrics["invalid_fraction"] > 0:
        reasons.append(f"{metrics['invalid_fraction']:.2%} of the visibilities are not finite")
    return QA(verdict="warning" if reasons else "good", reasons=tuple(reasons))
