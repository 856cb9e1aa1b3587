"""What to do about a listing of subbands: one pure function, so that it can be tested against every listing there may be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from contimg.records.groups import N_SUBBANDS, GroupRecord, Subband, group_id, subband_name
from contimg_watch.options import FULL_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALL = frozenset(range(N_SUBBANDS))


@dataclass(frozen=True)
class Header:
    """What a subband's header says of its group."""

    t0: datetime
    """UTC midpoint of the first integration."""
    duration_s: float
    """From the first integration's midpoint to the last one's, seconds."""
    dec_deg: float | None
    """Apparent Declination, degrees; None if the header does not say."""


@dataclass(frozen=True)
class Seen:
    """One object of the listing, with what reading it once told."""

    key: str
    """Below the store's root."""
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""
    header: Header | None = None
    """None where the object was not read or cannot be."""
    problem: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class Rules:
    """When objects belong together, and when they are let go."""

    gap_s: float = 60.0
    """First integrations further apart belong to different groups."""
    timeout_s: float = 900.0
    """An incomplete group goes when nothing came for so long."""
    size: int = FULL_SIZE
    """Bytes of a good subband; 0: what most of its group have."""


class State(StrEnum):
    """What is to be done about a group."""

    WAITING = "waiting"
    """Subbands are missing, and there is time yet."""
    READY = "ready"
    """Its record is to be written: complete, or partial after the timeout."""
    RECORDED = "recorded"
    """Nothing: the latest record holds all that there is."""


@dataclass(frozen=True)
class Group:
    """One group and what is to be done about it."""

    id: str
    state: State
    record: GroupRecord
    """The next attempt, if one is due or waited for; else the latest one."""
    until: datetime
    """When an incomplete group goes as it is."""


@dataclass(frozen=True)
class Plan:
    """What a listing means at a moment."""

    groups: tuple[Group, ...] = ()
    """By id."""
    quarantined: tuple[tuple[str, str], ...] = ()
    """Key and reason of each object that is no part of any group, by key."""


@dataclass
class _Sorter:
    """Takes objects out for a reason."""

    out: list[tuple[str, str]] = field(default_factory=list)

    def drop(self, seen: Seen, reason: str) -> None:
        self.out.append((seen.key, reason))


def plan(
    listing: Iterable[Seen],
    now: datetime,
    records: Iterable[GroupRecord] = (),
    rules: Rules | None = None,
) -> Plan:
    """Sort a listing into groups and say what is to be done about each.

    Parameters
    ----------
    listing
        In any order, any object any number of times; the names' clocks are not trusted.
    now
        UTC.
    records
        The records that were written before; of each group the latest counts.
    rules
        When objects belong together.
    """
    rules = rules or Rules()
    sorter = _Sorter()
    latest = _latest(records)
    good = [seen for seen in _once(listing) if _usable(seen, rules, sorter)]
    groups = [
        _group(cluster, now, latest, rules, sorter) for cluster in _clusters(good, rules.gap_s)
    ]
    return Plan(tuple(sorted(groups, key=lambda group: group.id)), tuple(sorted(sorter.out)))


def _latest(records: Iterable[GroupRecord]) -> dict[str, GroupRecord]:
    return {record.id: record for record in sorted(records, key=lambda record: record.attempt)}


def _once(listing: Iterable[Seen]) -> list[Seen]:
    """Keep the newest state of each object."""
    return list(
        {
            seen.key: seen for seen in sorted(listing, key=lambda seen: (seen.modified, seen.size))
        }.values()
    )


def _usable(seen: Seen, rules: Rules, sorter: _Sorter) -> bool:
    """Judge an object by itself."""
    name = seen.key.rpartition("/")[2]
    if not name.endswith(".hdf5") or name.endswith("_incomplete.hdf5"):
        return False
    if subband_name(name) is None:
        sorter.drop(seen, "expected a name like YYYY-MM-DDTHH:MM:SS_sbNN.hdf5, NN from 00 to 15")
    elif seen.size == 0:
        sorter.drop(seen, "is empty (0 bytes)")
    elif rules.size and seen.size != rules.size:
        sorter.drop(seen, f"expected {rules.size} bytes, found {seen.size}")
    elif seen.header is None:
        sorter.drop(
            seen, f"expected a UVH5 file, found {seen.size} bytes that are none: {seen.problem}"
        )
    else:
        return True
    return False


def _t0(seen: Seen) -> datetime:
    if seen.header is None:
        raise ValueError(seen.key)
    return seen.header.t0


def _clusters(seen: Sequence[Seen], gap_s: float) -> list[list[Seen]]:
    """Split objects where their first integrations leave a gap."""
    ordered = sorted(seen, key=lambda one: (_t0(one), one.key))
    cuts = [
        n
        for n, (a, b) in enumerate(pairwise(ordered), 1)
        if _t0(b) - _t0(a) > timedelta(seconds=gap_s)
    ]
    return [ordered[a:b] for a, b in pairwise([0, *cuts, len(ordered)]) if a < b]


def _group(
    cluster: Sequence[Seen],
    now: datetime,
    latest: dict[str, GroupRecord],
    rules: Rules,
    sorter: _Sorter,
) -> Group:
    """Judge the objects of one group against each other, and the group against its latest record."""
    alike = _same_size(cluster, sorter) if rules.size == 0 else list(cluster)
    header = _typical(alike)
    before = latest.get(group_id(header.t0))
    members = _one_each(alike, before, sorter)
    record = _record(members, header, before)
    until = max(seen.modified for seen in members.values()) + timedelta(seconds=rules.timeout_s)
    if before is not None and not members.keys() - {subband.index for subband in before.subbands}:
        return Group(before.id, State.RECORDED, before, until)
    due = record.complete or now >= until
    return Group(record.id, State.READY if due else State.WAITING, record, until)


def _typical(cluster: Sequence[Seen]) -> Header:
    """Return a header with the first integration that most have, the earliest of equals."""
    counts = Counter(_t0(seen) for seen in cluster)
    t0 = min(counts, key=lambda value: (-counts[value], value))
    return next(seen.header for seen in cluster if seen.header is not None and seen.header.t0 == t0)


def _same_size(cluster: Sequence[Seen], sorter: _Sorter) -> list[Seen]:
    """Keep the objects of the size that most have; of equals the larger, since what goes wrong shortens files."""
    counts = Counter(seen.size for seen in cluster)
    size = max(counts, key=lambda value: (counts[value], value))
    for seen in cluster:
        if seen.size != size:
            sorter.drop(
                seen, f"expected {size} bytes as the others of its group have, found {seen.size}"
            )
    return [seen for seen in cluster if seen.size == size]


def _one_each(
    cluster: Sequence[Seen], before: GroupRecord | None, sorter: _Sorter
) -> dict[int, Seen]:
    """Keep one object of each index: what a record holds already, else the first to come."""
    held = {subband.uri for subband in before.subbands} if before else set()
    members: dict[int, Seen] = {}
    for seen in sorted(cluster, key=lambda one: (one.key not in held, one.modified, one.key)):
        index = _index(seen)
        if index in members:
            sorter.drop(
                seen, f"is a second subband {index:02d} of its group, after {members[index].key}"
            )
        else:
            members[index] = seen
    return dict(sorted(members.items()))


def _index(seen: Seen) -> int:
    name = subband_name(seen.key.rpartition("/")[2])
    if name is None:
        raise ValueError(seen.key)
    return name.index


def _record(members: dict[int, Seen], header: Header, before: GroupRecord | None) -> GroupRecord:
    return GroupRecord(
        id=group_id(header.t0),
        attempt=before.attempt + 1 if before else 1,
        t0=header.t0,
        duration_s=header.duration_s,
        dec_deg=header.dec_deg,
        subbands=tuple(
            Subband(index=n, uri=s.key, size=s.size, modified=s.modified)
            for n, s in members.items()
        ),
        missing=tuple(sorted(ALL - members.keys())),
    )
