"""Which groups are processed, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contimg.records.groups import GROUPS, group_record, list_latest
from contimg.records.strips import STRIP_GAP_DEG, strip_name, strips
from contimg.runtime.errors import UsageError
from contimg.runtime.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from contimg.records.groups import GroupRecord

__all__ = [
    "STRIP_GAP_DEG",
    "Limits",
    "chosen",
    "latest_records",
    "limits_of",
    "solvable",
    "strip_name",
    "strips",
]


@dataclass(frozen=True)
class Limits:
    """From which apparent flux on calibrate solves by itself, Jy."""

    standard_jy: float
    other_jy: float


def latest_records(store: str) -> list[GroupRecord]:
    """Return the latest attempt of each group of a store, by id.

    Raises
    ------
    BadInputError
        If a record cannot be read.
    """
    root = open_store(store)
    keys = [one.entry.key for one in list_latest(root)]
    return [group_record(root.read(key), f"{root.root}/{key}") for key in keys]


def chosen(records: Iterable[GroupRecord], ids: Iterable[str], store: str) -> list[GroupRecord]:
    """Return the records of the named groups.

    Raises
    ------
    UsageError
        If the store has no record of one.
    """
    known = {record.id: record for record in records}
    missing = [one for one in ids if one not in known]
    if missing:
        there = ", ".join(known) or "none"
        raise UsageError(
            f"{store}/{GROUPS}",
            f"expected a record of {missing[0]}, found {there}.",
            "Run contimg-watch, or correct --group.",
        )
    return [known[one] for one in ids]


def solvable(record: GroupRecord, limits: Limits) -> bool:
    """Say whether a calibrator is bright enough in the beam for the group to be calibrated on itself."""
    from contimg.astro.catalogues import calibrators_in_beam  # slow to import
    from contimg.astro.telescope import SITE

    if record.dec_deg is None:
        return False
    inside = calibrators_in_beam(record.mjd_start, record.mjd_end, record.dec_deg, SITE)
    return any(
        one.apparent_jy >= (limits.standard_jy if one.is_standard else limits.other_jy)
        for one in inside
    )


def limits_of(parameters: Mapping[str, str | None]) -> Limits:
    """Read calibrate's limits from the parameters of process-group."""
    return Limits(
        float(parameters.get("calibrate-min_primary_jy") or 0),
        float(parameters.get("calibrate-min_bright_jy") or 0),
    )
