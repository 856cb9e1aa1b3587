"""What to do about a listing of subbands: a pure function, tested with random listings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from contimg.records.groups import N_SUBBANDS, GroupRecord, Subband, group_id, subband_name
from contimg.runtime.store import Entry
from contimg_watch.options import WatchOptions


@dataclass(frozen=True, kw_only=True)
class SubbandHeader:
    """The fields of a subband's header that describe its group."""

    t0: datetime
    """UTC midpoint of the first integration."""
    duration_s: float
    """From the first integration's midpoint to the last one's, seconds."""
    dec_deg: float | None
    """Apparent Declination, degrees; None if it is not in the header."""


@dataclass(frozen=True, kw_only=True)
class ListedSubband:
    """One object of the listing, with its header."""

    key: str
    """Below the store's root."""
    size: int
    """Bytes."""
    modified: datetime
    """UTC, by the store's clock or as the copying program set it."""
    version: str = ""
    """Version of the content (`Entry.version`)."""
    seen: datetime | None = None
    """UTC when watch first saw this content, by its own clock; None if it did not look."""
    header: SubbandHeader | None = None
    """None where the object was not read or cannot be."""
    problem: str = ""
    """Why it cannot be read."""

    @property
    def arrived(self) -> datetime:
        """UTC when it came, as far as is known.

        A program that copies may keep the time of the original, and a store's clock may be off.
        """
        return self.seen or self.modified

    @property
    def entry(self) -> Entry:
        """The object as the store lists it."""
        return Entry(self.key, self.size, self.modified, self.version)


FIRST_REPLACEMENT = 2
"""Attempt that a replacement in a complete group begins."""
Member = tuple[SubbandHeader, int, ListedSubband]
"""A good subband with its header and index."""


class PlanState(StrEnum):
    """What is to be done about a group."""

    WAITING = "waiting"
    """Subbands are missing, and the timeout has not passed."""
    READY = "ready"
    """Its record is to be written: complete, or partial after the timeout."""
    RECORDED = "recorded"
    """Nothing: the latest record holds all subbands that exist."""


@dataclass(frozen=True, kw_only=True)
class PlannedGroup:
    """One group and what is to be done about it."""

    state: PlanState
    record: GroupRecord
    """The next attempt, if one is due or waited for; else the latest one."""
    until: datetime
    """When the group is processed if it stays incomplete."""


@dataclass(frozen=True)
class WatchPlan:
    """What a listing means at a moment."""

    groups: tuple[PlannedGroup, ...] = ()
    """By id."""
    quarantined: tuple[tuple[str, str], ...] = ()
    """Key and reason of each object that belongs to no group, by key."""


def plan(
    listing: Iterable[ListedSubband],
    now: datetime,
    records: Iterable[GroupRecord],
    options: WatchOptions,
) -> WatchPlan:
    """Sort a listing into groups and say what is to be done about each at a time (UTC).

    The listing is in any order, with any object any number of times; the clocks in the names are
    not trusted. Of the records written before, the latest of each group counts.
    """
    latest = {record.id: record for record in sorted(records, key=lambda record: record.attempt)}
    by_age = sorted(listing, key=lambda one: (one.modified, one.size))
    quarantined: dict[str, str] = {}
    good: list[Member] = []
    for one in {one.key: one for one in by_age}.values():
        name = one.key.rpartition("/")[2]
        if not name.endswith(".hdf5") or name.endswith("_incomplete.hdf5"):
            continue
        subband = subband_name(name)
        if subband is None:
            problem = "expected a name like YYYY-MM-DDTHH:MM:SS_sbNN.hdf5, NN from 00 to 15"
        elif one.size == 0:
            problem = "is empty (0 bytes)"
        elif options.size and one.size != options.size:
            problem = f"expected {options.size} bytes, found {one.size}"
        elif one.header is None:
            problem = f"is not a UVH5 file ({one.size} bytes): {one.problem}"
        else:
            good.append((one.header, subband.index, one))
            continue
        quarantined[one.key] = problem
    good.sort(key=lambda member: (member[0].t0, member[2].key))
    gap = timedelta(seconds=options.gap_s)
    cuts = [n for n, (a, b) in enumerate(pairwise(good), 1) if b[0].t0 - a[0].t0 > gap]
    clusters = [good[a:b] for a, b in pairwise([0, *cuts, len(good)]) if a < b]
    groups = [_plan_group(cluster, now, latest, options, quarantined) for cluster in clusters]
    groups.sort(key=lambda group: group.record.id)
    return WatchPlan(tuple(groups), tuple(sorted(quarantined.items())))


def _plan_group(
    cluster: Sequence[Member],
    now: datetime,
    latest: Mapping[str, GroupRecord],
    options: WatchOptions,
    quarantined: dict[str, str],
) -> PlannedGroup:
    """Choose the subbands of a group, and compare the group with its latest record."""
    # Compression gives every subband its own size, but all have the same integrations.
    axes = Counter((header.t0, header.duration_s) for header, _, _ in cluster)
    # Of equally frequent ones the longer: what goes wrong shortens files.
    t0, duration_s = min(axes, key=lambda axis: (-axes[axis], -axis[1], axis[0]))
    for header, _, one in cluster:
        if (header.t0, header.duration_s) != (t0, duration_s):
            found = f"{header.duration_s:.3f} s from {header.t0.isoformat()}"
            expected = f"{duration_s:.3f} s from {t0.isoformat()}"
            problem = f"its integrations last {found}, those of its group {expected}"
            quarantined[one.key] = problem
    cluster = [m for m in cluster if (m[0].t0, m[0].duration_s) == (t0, duration_s)]
    header = cluster[0][0]
    before = latest.get(group_id(t0))
    # One object per index: the one in the record, else the first that came.
    held = {subband.uri: subband for subband in before.subbands} if before else {}
    by_age = sorted(cluster, key=lambda m: (m[2].key not in held, m[2].modified, m[2].key))
    members: dict[int, ListedSubband] = {}
    for _, index, one in by_age:
        kept = members.setdefault(index, one)
        if kept is not one:
            problem = f"is a second subband {index:02d} of its group, after {kept.key}"
            quarantined[one.key] = problem
    until = max(one.arrived for one in members.values()) + timedelta(seconds=options.timeout_s)
    unchanged = [
        one
        for one in members.values()
        if one.key in held and not held[one.key].is_replaced(one.entry)
    ]
    # What is gone from the store is no reason for another attempt.
    if before is not None and len(unchanged) == len(members):
        return PlannedGroup(state=PlanState.RECORDED, record=before, until=until)
    record = GroupRecord(
        id=group_id(t0),
        attempt=before.attempt + 1 if before else 1,
        t0=t0,
        duration_s=header.duration_s,
        dec_deg=header.dec_deg,
        subbands=tuple(
            Subband(index=n, uri=one.key, size=one.size, modified=one.modified, version=one.version)
            for n, one in sorted(members.items())
        ),
        missing=tuple(n for n in range(N_SUBBANDS) if n not in members),
    )
    # A second replacement soon after the first one waits: all subbands may be on their way.
    is_changing = record.attempt > FIRST_REPLACEMENT and any(
        one.arrived > until - 2 * timedelta(seconds=options.timeout_s) for one in unchanged
    )
    is_due = (record.complete and not is_changing) or now >= until
    state = PlanState.READY if is_due else PlanState.WAITING
    return PlannedGroup(state=state, record=record, until=until)
