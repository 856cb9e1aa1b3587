"""Which groups are processed, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from contimg.errors import UsageError
from contimg.groups import GROUPS, GroupRecord, record_name
from contimg.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STRIP_GAP_DEG = 0.25
"""Pointings further apart belong to different strips; within a dwell they agree to 0.001."""


@dataclass(frozen=True)
class Limits:
    """From which apparent flux on calibrate solves by itself, Jy."""

    standard_jy: float
    other_jy: float


def latest_records(store: str) -> list[GroupRecord]:
    """Return the latest attempt of each group of a store, by id."""
    root = open_store(store)
    names = [(entry.key, record_name(entry.key.removeprefix(GROUPS))) for entry in root.entries(GROUPS)]
    latest = {name[0]: key for key, name in sorted(names, key=lambda pair: pair[1] or ("", 0)) if name}
    return [GroupRecord.model_validate_json(root.read(key)) for _, key in sorted(latest.items())]


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
        raise UsageError(f"{store}/{GROUPS}", f"a record of {missing[0]}", there, "Run contimg-watch, or correct --group.")
    return [known[one] for one in ids]


def solvable(record: GroupRecord, limits: Limits) -> bool:
    """Say whether a calibrator is bright enough in the beam for the group to be calibrated on itself."""
    from contimg.catalogues import calibrators_in_beam  # slow to import
    from contimg.telescope import SITE

    if record.dec_deg is None:
        return False
    inside = calibrators_in_beam(record.mjd_start, record.mjd_end, record.dec_deg, SITE)
    return any(one.apparent_jy >= (limits.standard_jy if one.is_standard else limits.other_jy) for one in inside)


def strips(records: Iterable[GroupRecord]) -> list[float]:
    """Return the pointing Declinations of groups, degrees, each strip once, rounded to a tenth."""
    decs = sorted(record.dec_deg for record in records if record.dec_deg is not None)
    runs: list[list[float]] = []
    for dec in decs:
        if runs and dec - runs[-1][-1] < STRIP_GAP_DEG:
            runs[-1].append(dec)
        else:
            runs.append([dec])
    return [round(median(run), 1) for run in runs]


def strip_name(dec_deg: float) -> str:
    """Return the name of a strip, which is legal for Kubernetes: dec-p33.0, dec-m05.2."""
    return f"dec-{'m' if dec_deg < 0 else 'p'}{abs(dec_deg):04.1f}"


def limits_of(parameters: Mapping[str, str | None]) -> Limits:
    """Read calibrate's limits from the parameters of process-group."""
    return Limits(float(parameters.get("calibrate-min_primary_jy") or 0), float(parameters.get("calibrate-min_bright_jy") or 0))
