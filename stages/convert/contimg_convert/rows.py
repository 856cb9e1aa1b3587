"""The rows of the tables `ms` and `subbands`: what a group was made of, and what it became."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contimg.records.groups import N_SUBBANDS, day_of_mjd, mjd_of
from contimg.records.schemas.ms import MS
from contimg.records.schemas.subbands import SUBBANDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg.records.groups import GroupRecord
    from contimg.runtime.context import Context

COPIED = (
    "group",
    "attempt",
    "mjd",
    "mjd_start",
    "mjd_end",
    "integrations",
    "antennas",
    "baselines",
    "channels",
    "zeros_fraction",
    "invalid_fraction",
)
"""Metrics that have the same name in the table."""


def publish(
    context: Context,
    tables: str,
    record: GroupRecord,
    digests: Mapping[int, str],
    metrics: Mapping[str, Any],
    verdict: str,
) -> None:
    """Put the rows of a group where queries find them."""
    day = day_of_mjd(metrics["mjd"])
    context.publish(
        tables, SUBBANDS, day, record.id, SUBBANDS.rows(subband_rows(record, digests, metrics))
    )
    context.publish(
        tables, MS, day, record.id, MS.rows([ms_row(context, tables, metrics, verdict)])
    )


def ms_row(
    context: Context, tables: str, metrics: Mapping[str, Any], verdict: str
) -> dict[str, Any]:
    """Return the row of the Measurement Set that this run wrote."""
    tar = next(output for output in context.outputs if output.name == "ms.tar")
    return {
        **{name: metrics[name] for name in COPIED},
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
    """Return sixteen rows, highest frequency first; a missing subband has its place in the band and nothing else.

    Parameters
    ----------
    digests
        sha256 of the files, by subband.
    metrics
        Those of the manifest.
    """
    top, width = (
        metrics["freq_max_hz"],
        (metrics["freq_max_hz"] - metrics["freq_min_hz"]) / N_SUBBANDS,
    )
    there = {subband.index: subband for subband in record.subbands}
    rows = []
    for index in range(N_SUBBANDS):
        row = {
            "group": record.id,
            "attempt": record.attempt,
            "subband": index,
            "missing": index not in there,
            "mjd": metrics["mjd"],
            "freq_min": top - (index + 1) * width,
            "freq_max": top - index * width,
        }
        if index in there:
            one = there[index]
            row |= {
                "file": one.uri.rpartition("/")[2],
                "bytes": one.size,
                "sha256": digests[index],
                "modified": mjd_of(one.modified),
            }
        rows.append(row)
    return rows
