"""Rows of the tables `ms` and `subbands`: what a group was made of, and what it became."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contimg.records.groups import N_SUBBANDS, GroupRecord, mjd_of
from contimg.records.schemas.ms import MS
from contimg.runtime.context import Context


def ms_row(
    context: Context, tables: str, metrics: Mapping[str, Any], verdict: str
) -> dict[str, Any]:
    """Return the row of the Measurement Set that this run wrote."""
    tar = next(output for output in context.outputs if output.name == "ms.tar")
    same = {column.name: metrics[column.name] for column in MS.columns if column.name in metrics}
    return {
        **same,
        "artifact": context.relative_uri(tables),
        "ms": context.key,
        "ra": metrics["ra_deg"],
        "dec": metrics["dec_deg"],
        "strip": metrics["pointing_dec_deg"],
        "integration": metrics["integration_s"],
        "longest_baseline": metrics["longest_baseline_m"],
        "n_rows": metrics["rows"],
        "channel_width": metrics["channel_width_hz"],
        "freq_min": metrics["freq_min_hz"],
        "freq_max": metrics["freq_max_hz"],
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
