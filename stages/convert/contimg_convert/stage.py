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
from contimg.astro.coordinates import earth_orientation_end
from contimg.records import groups
from contimg.records.groups import MJD_ZERO_JD, N_SUBBANDS, GroupRecord
from contimg.records.ms import MeasurementSet
from contimg.records.schemas.ms import MS, SUBBANDS
from contimg.runtime.context import Context, StageResult
from contimg.runtime.errors import NoSignalError
from contimg.runtime.manifest import QA
from contimg_convert.options import ConvertOptions
from contimg_convert.reading import open_subband
from contimg_convert.subband_files import fetch_subbands
from contimg_convert.writing import ConversionPlan, Tally, plan_conversion, write_ms

MEMORY_BYTES = 1 << 30
"""Memory that a conversion takes besides its MS."""
WARN_ZEROS_FRACTION = 0.02
"""From this fraction of zeros on the verdict is a warning."""
SIGNAL_ROWS, SIGNAL_STRIDE = 512, 16
"""Rows of a block, and one block in this many, that are searched for fringes."""
MIN_COHERENCE_SIGMA = 5
MAX_NAME_OFFSET_S = 30.0
"""The clocks of all nodes are never wrong by more; of one node by 21 s."""
ORIENTATION_NOTE_DAYS, ORIENTATION_WARNING_DAYS = 365.0, 90.0
"""The end of the Earth orientation's table is noted and warned of so long before. Its predictions
reach a year, so a warning as early as the note would never go away."""


def run(options: ConvertOptions, context: Context) -> StageResult:
    """Convert one group."""
    record = groups.read_group(options.group)
    with context.step("bring subbands"):
        files = fetch_subbands(record, context)
    folder = context.scratch / f"{record.id}.ms"
    with contextlib.ExitStack() as stack:
        # Digests are computed beside the conversion, which reads the same bytes.
        pool = ThreadPoolExecutor(1)
        stack.callback(pool.shutdown, cancel_futures=True)
        futures = {file.subband.index: pool.submit(file.digest) for file in files}
        with context.step("headers and geometry"):
            subbands = {}
            for file in files:
                index, uri = file.subband.index, file.subband.uri
                subbands[index] = stack.enter_context(open_subband(file.path, uri, index))
            headers = {index: subband.header for index, subband in subbands.items()}
            plan = plan_conversion(record.id, headers)
        context.need(plan.bytes, MEMORY_BYTES)
        with context.step("convert"):
            tally = write_ms(folder, record.id, plan, subbands, context.progress)
        check_signal(options, record.name, tally, folder)
        for file in files:  # while it was read, too
            file.check_unchanged()
        with context.step("store"):
            context.write_tree("ms.tar", folder)
        with context.step("digests of subbands"):
            digests = {index: future.result() for index, future in futures.items()}
    # Names, not URIs: where the store lies is no part of the product.
    listing = [
        {"index": s.index, "name": Path(s.uri).name, "bytes": s.size, "sha256": digests[s.index]}
        for s in record.subbands
    ]
    context.write("subbands.json", json.dumps(listing, indent=1).encode())
    missing = sorted(set(range(N_SUBBANDS)) - set(digests))
    metrics = collect_metrics(record, plan, tally) | {"missing_subbands": missing}
    qa = judge(metrics, tally)
    if options.tables is not None:
        publish_rows(context, options.tables, record, digests, metrics, qa.verdict)
    return StageResult(metrics=metrics, qa=qa)


def judge(metrics: Mapping[str, Any], tally: Tally) -> QA:
    """Return the verdict of a conversion; the end of a table that is months away leaves it good."""
    reasons = []
    if metrics["missing_subbands"]:
        reasons.append(f"subbands missing: {', '.join(map(str, metrics['missing_subbands']))}")
    if tally.zeros >= WARN_ZEROS_FRACTION:
        reasons.append(f"{tally.zeros:.1%} of the cross-correlations are zero")
    if tally.invalid > 0:
        reasons.append(f"{tally.invalid:.2%} of the visibilities are not finite")
    if tally.unsampled > 0:
        reasons.append(f"{tally.unsampled:.2%} of the visibilities have no nsamples")
    if metrics["lost_integrations"]:
        reasons.append(f"time_axis: {metrics['lost_integrations']} integrations are missing")
    if abs(metrics["name_offset_s"]) > MAX_NAME_OFFSET_S:
        offset = f"{metrics['name_offset_s']:+.0f} s"
        reasons.append(f"clock: the names of the subbands are {offset} from the data's times")
    left_days = metrics["earth_orientation_days"]
    warned = bool(reasons) or left_days < ORIENTATION_WARNING_DAYS
    if left_days < ORIENTATION_NOTE_DAYS:
        end = groups.utc_of_mjd(earth_orientation_end()).date()
        note = f"earth_orientation: the table of UT1 ends on {end}, {left_days:.0f} days after this"
        reasons.append(f"{note} group; later groups fail. Install a newer contimg before.")
    return QA(verdict="warning" if warned else "good", reasons=tuple(reasons))


def check_signal(options: ConvertOptions, group: str, tally: Tally, ms: Path) -> None:
    """Raise NoSignalError if the data are no observation.

    That is if too many values are not finite, or too many are zeros and the rest shows no fringes:
    the sky is the same in neighbouring channels, noise is not.

    Notes
    -----
    The coherence is Re sum(V_c conj(V_c+1)) / sum |V_c|^2 over all pairs of cross-correlations that
    are neither zero nor flagged; its error for noise alone is 1 / sqrt(2 N). It is the share of the
    power that is sky: 1 for a strong source, 0 (and 1 of N = 0) for noise, zeros or a broken
    correlator.
    """
    remedy = "The correlator failed: leave this group out."
    if tally.invalid >= options.max_invalid:
        problem = f"{tally.invalid:.1%} of the visibilities are not finite; the limit is"
        raise NoSignalError(group, f"{problem} {options.max_invalid:.0%}.", remedy)
    if tally.zeros < options.max_zeros:
        return
    product, power, count = 0.0, 0.0, 0
    with MeasurementSet(ms) as data:
        cross = data.rows.antenna1 != data.rows.antenna2
        for part in list(data.blocks(SIGNAL_ROWS))[::SIGNAL_STRIDE]:
            first, rows, mine = part.start, part.stop - part.start, cross[part]
            values, flags = (data.read(name, first, rows)[mine] for name in ("DATA", "FLAG"))
            good = ~flags & (values != 0)
            pairs = good[:, 1:] & good[:, :-1]
            one, two = values[:, 1:][pairs], values[:, :-1][pairs]
            product += float(np.sum((one * two.conj()).real, dtype=np.float64))
            power += float(np.sum(np.abs(one) ** 2 + np.abs(two) ** 2, dtype=np.float64)) / 2
            count += one.size
    coherence, error = (product / power, 1 / np.sqrt(2 * count)) if power else (0.0, 1.0)
    if not coherence > MIN_COHERENCE_SIGMA * error:
        problem = (
            f"{tally.zeros:.1%} of the cross-correlations are zeros (the limit is"
            f" {options.max_zeros:.0%}), and the others show no fringes: the coherence of"
            f" neighbouring channels is {coherence:.1e} ± {error:.0e}."
        )
        raise NoSignalError(group, problem, remedy)


def collect_metrics(record: GroupRecord, plan: ConversionPlan, tally: Tally) -> dict[str, Any]:
    """Return the metrics of the manifest, but for the missing subbands."""
    header, site = plan.header, plan.header.array.site
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
        "antennas": len(np.unique([plan.antenna1, plan.antenna2])),
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
        "unsampled_fraction": tally.unsampled,
        "lost_integrations": header.lost_integrations,
        "name_offset_s": name_offset_s(record),
        "earth_orientation_days": earth_orientation_end() - float(mjd[-1]),
    }


def name_offset_s(record: GroupRecord) -> float:
    """Return how long after the first integration the name nearest to it is, s; 0 without names.

    Each node names its file by its own clock, up to 21 s off.
    """
    names = [groups.subband_name(Path(subband.uri).name) for subband in record.subbands]
    offsets_s = [(one.stamp - record.t0).total_seconds() for one in names if one]
    return min(offsets_s, key=abs, default=0.0)


def publish_rows(
    context: Context,
    tables: str,
    record: GroupRecord,
    digests: Mapping[int, str],
    metrics: Mapping[str, Any],
    verdict: str,
) -> None:
    """Write the row of the Measurement Set, and the rows of all subbands, highest frequency first.

    `digests` are the sha256 of the subbands that are present, by index.
    """
    top, present = metrics["freq_max_hz"], {subband.index: subband for subband in record.subbands}
    width = (top - metrics["freq_min_hz"]) / N_SUBBANDS
    subbands = []
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
                "modified": groups.mjd_of(subband.modified),
            }
        subbands.append(row)
    tar = next(output for output in context.outputs if output.name == "ms.tar")
    # Metrics carry their units in their names, columns in the schema.
    values = {re.sub("_(deg|hz|m|s)$", "", name): value for name, value in metrics.items()}
    ms = {
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
    day = groups.day_of_mjd(metrics["mjd"])
    for schema, rows in ((SUBBANDS, subbands), (MS, [ms])):
        context.publish(tables, schema, day, record.id, schema.rows(rows))
