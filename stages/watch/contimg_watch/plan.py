"""What to do about a listing of subbands: a pure function, tested with random listings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from contimg.records.groups import N_SUBBANDS, GroupRecord, Subband, group_id, subband_name
from contimg_watch.options import FULL_SIZE


@dataclass(frozen=True, kw_only=True)
class SubbandHeader:
    """What a subband's header says about its group."""

    t0: datetime
    """UTC midpoint of the first integration."""
    duration_s: float
    """From the first integration's midpoint to the last one's, seconds."""
    dec_deg: float | None
    """Apparent Declination, degrees; None if the header does not say."""


@dataclass(frozen=True, kw_only=True)
class ListedSubband:
    """One object of the listing, with its header."""

    key: str
    """Below the store's root."""
    size: int
    """Bytes."""
    modified: datetime
    """UTC."""
    header: SubbandHeader | None = None
    """None where the object was not read or cannot be."""
    problem: str = ""
    """Why it cannot be read."""

    @property
    def t0(self) -> datetime:
        """UTC midpoint of the first integration; ValueError without a header."""
        if self.header is None:
            raise ValueError(self.key)
        return self.header.t0

    @property
    def index(self) -> int:
        """Number of the subband, from its name; ValueError if that is not a subband's."""
        name = subband_name(self.key.rpartition("/")[2])
        if name is None:
            raise ValueError(self.key)
        return name.index


@dataclass(frozen=True, kw_only=True)
class GroupingRules:
    """When objects belong together, and when an incomplete group is processed."""

    gap_s: float = 60.0
    """First integrations further apart belong to different groups, seconds."""
    timeout_s: float = 900.0
    """An incomplete group is processed when no subband came for this time, seconds."""
    size: int = FULL_SIZE
    """Bytes of a good subband; 0: the size of most subbands of its group."""


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
    records: Iterable[GroupRecord] = (),
    rules: GroupingRules | None = None,
) -> WatchPlan:
    """Sort a listing into groups and say what is to be done about each.

    Parameters
    ----------
    listing
        In any order, any object any number of times. The clocks in the names are not trusted.
    now
        UTC.
    records
        The records that were written before; of each group the latest counts.
    rules
        When objects belong together.
    """
    rules = rules or GroupingRules()
    latest = {record.id: record for record in sorted(records, key=lambda record: record.attempt)}
    by_age = sorted(listing, key=lambda one: (one.modified, one.size))
    quarantined: dict[str, str] = {}
    good: list[ListedSubband] = []
    for one in {one.key: one for one in by_age}.values():
        name = one.key.rpartition("/")[2]
        if name.endswith(".hdf5") and not name.endswith("_incomplete.hdf5"):
            problem = find_problem(one, rules.size)
            if problem:
                quarantined[one.key] = problem
            else:
                good.append(one)
    good.sort(key=lambda one: (one.t0, one.key))
    gap = timedelta(seconds=rules.gap_s)
    cuts = [n for n, (a, b) in enumerate(pairwise(good), 1) if b.t0 - a.t0 > gap]
    clusters = [good[a:b] for a, b in pairwise([0, *cuts, len(good)]) if a < b]
    groups = [_plan_group(cluster, now, latest, rules, quarantined) for cluster in clusters]
    groups.sort(key=lambda group: group.record.id)
    return WatchPlan(tuple(groups), tuple(sorted(quarantined.items())))


def find_problem(one: ListedSubband, size: int) -> str:
    """Return what is wrong with an object by itself; empty if it is a good subband."""
    if subband_name(one.key.rpartition("/")[2]) is None:
        return "expected a name like YYYY-MM-DDTHH:MM:SS_sbNN.hdf5, NN from 00 to 15"
    if one.size == 0:
        return "is empty (0 bytes)"
    if size and one.size != size:
        return f"expected {size} bytes, found {one.size}"
    if one.header is None:
        return f"is not a UVH5 file ({one.size} bytes): {one.problem}"
    return ""


def _plan_group(
    cluster: Sequence[ListedSubband],
    now: datetime,
    latest: Mapping[str, GroupRecord],
    rules: GroupingRules,
    quarantined: dict[str, str],
) -> PlannedGroup:
    """Choose the subbands of a group, and compare the group with its latest record."""
    if rules.size == 0:
        sizes = Counter(one.size for one in cluster)
        # Of equally frequent sizes the larger: what goes wrong shortens files.
        size = max(sizes, key=lambda value: (sizes[value], value))
        for one in cluster:
            if one.size != size:
                problem = f"expected {size} bytes like the others of its group, found {one.size}"
                quarantined[one.key] = problem
        cluster = [one for one in cluster if one.size == size]
    starts = Counter(one.t0 for one in cluster)
    t0 = min(starts, key=lambda value: (-starts[value], value))
    header = next(one.header for one in cluster if one.header is not None and one.t0 == t0)
    before = latest.get(group_id(t0))
    members = _choose_members(cluster, before, quarantined)
    until = max(one.modified for one in members.values()) + timedelta(seconds=rules.timeout_s)
    if before is not None and not members.keys() - {subband.index for subband in before.subbands}:
        return PlannedGroup(state=PlanState.RECORDED, record=before, until=until)
    record = GroupRecord(
        id=group_id(t0),
        attempt=before.attempt + 1 if before else 1,
        t0=t0,
        duration_s=header.duration_s,
        dec_deg=header.dec_deg,
        subbands=tuple(
            Subband(index=n, uri=one.key, size=one.size, modified=one.modified)
            for n, one in sorted(members.items())
        ),
        missing=tuple(n for n in range(N_SUBBANDS) if n not in members),
    )
    is_due = record.complete or now >= until
    state = PlanState.READY if is_due else PlanState.WAITING
    return PlannedGroup(state=state, record=record, until=until)


def _choose_members(
    cluster: Sequence[ListedSubband], before: GroupRecord | None, quarantined: dict[str, str]
) -> dict[int, ListedSubband]:
    """Return one object per index: the one in the record, else the first that came."""
    held = {subband.uri for subband in before.subbands} if before else set()
    members: dict[int, ListedSubband] = {}
    for one in sorted(cluster, key=lambda one: (one.key not in held, one.modified, one.key)):
        first = members.setdefault(one.index, one)
        if first is not one:
            problem = f"is a second subband {one.index:02d} of its group, after {first.key}"
            quarantined[one.key] = problem
    return members
