"""plan() against hundreds of random listings, and against each case by name."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg.records.groups import N_SUBBANDS, GroupRecord, group_id, mjd_of, utc_of_jd
from contimg_watch.options import WatchOptions
from contimg_watch.plan import ListedSubband, PlanState, SubbandHeader, WatchPlan
from contimg_watch.plan import plan as plan_all

T0 = datetime(2026, 1, 25, 22, 26, 5, 123456, tzinfo=UTC)
ARRIVED = T0 + timedelta(seconds=320)
SIZE = 1000
RULES = {"gap_s": 60, "timeout_s": 900, "size": SIZE}
LATER = ARRIVED + timedelta(days=1)
CADENCE_S = 309.24
WAITING, READY, RECORDED = PlanState
Listing, Records = Sequence[ListedSubband], Sequence[GroupRecord]


def subband(index: int, t0: datetime = T0, skew_s: float = 0.0, **changes: Any) -> ListedSubband:
    """A good subband whose name carries another clock than its data."""
    stamp = t0 + timedelta(seconds=skew_s)
    key = f"incoming/{stamp:%Y-%m-%d}/{stamp:%Y-%m-%dT%H:%M:%S}_sb{index:02d}.hdf5"
    header = SubbandHeader(t0=t0, duration_s=296.353, dec_deg=33.0)
    own = {"key": key, "size": SIZE, "modified": t0 + timedelta(seconds=320), "header": header}
    return ListedSubband(**{**own, **changes})


def group(t0: datetime = T0, without: Sequence[int] = ()) -> list[ListedSubband]:
    return [subband(n, t0) for n in range(N_SUBBANDS) if n not in without]


def plan(listing: Listing, now: datetime, records: Records = (), **rules: Any) -> WatchPlan:
    return plan_all(listing, now, records, WatchOptions(store="", **{**RULES, **rules}))


def plan_one(listing: Listing, now: datetime, *records: GroupRecord) -> tuple[PlanState, Any]:
    (one,) = plan(listing, now, records).groups
    return one.state, one.record


def test_complete_group_is_ready_at_once() -> None:
    state, record = plan_one(group(), ARRIVED)
    assert state is READY
    assert (record.id, record.attempt) == ("20260125t222605", 1)
    assert (record.missing, record.complete) == ((), True)
    assert [one.index for one in record.subbands] == list(range(16))
    assert record.subbands[3].uri == subband(3).key
    assert (record.t0, record.dec_deg, record.duration_s) == (T0, 33.0, 296.353)


def test_names_of_skewed_clocks_and_two_days_are_one_group() -> None:
    midnight = datetime(2026, 1, 26, 0, 0, 3, tzinfo=UTC)
    listing = [subband(n, midnight, skew_s=-1.4 * n) for n in range(16)]
    assert len({one.key.split("/")[1] for one in listing}) == 2
    state, record = plan_one(listing, LATER)
    assert (state, record.complete, record.id) == (READY, True, "20260126t000003")


def test_incomplete_group_waits_until_timeout() -> None:
    listing = group(without=[5])
    assert plan_one(listing, ARRIVED + timedelta(seconds=899))[0] is WAITING
    state, record = plan_one(listing, ARRIVED + timedelta(seconds=900))
    assert (state, record.attempt, record.missing) == (READY, 1, (5,))


def test_timeout_counts_from_last_subband() -> None:
    late = subband(3, modified=ARRIVED + timedelta(seconds=600))
    listing = [*group(without=[3, 5]), late]
    assert plan_one(listing, ARRIVED + timedelta(seconds=1000))[0] is WAITING
    assert plan_one(listing, ARRIVED + timedelta(seconds=1500))[0] is READY


def test_late_subband_makes_second_attempt() -> None:
    _, first = plan_one(group(without=[5]), LATER)
    assert plan_one(group(without=[5]), LATER, first) == (RECORDED, first)
    whole = [*group(without=[5]), subband(5, modified=LATER)]
    state, second = plan_one(whole, LATER, first)
    assert (state, second.id, second.attempt, second.missing) == (READY, first.id, 2, ())
    assert plan_one(whole, LATER, second, first)[0] is RECORDED


def test_one_of_two_late_subbands_waits_for_other() -> None:
    _, first = plan_one(group(without=[5, 6]), LATER)
    listing = [*group(without=[5, 6]), subband(5, modified=LATER)]
    assert plan_one(listing, LATER, first)[0] is WAITING
    state, second = plan_one(listing, LATER + timedelta(seconds=900), first)
    assert (state, second.attempt, second.missing) == (READY, 2, (6,))


@pytest.mark.parametrize("change", [{"modified": LATER}, {"version": '"b"'}, {"size": 999}])
def test_replaced_subband_makes_next_attempt(change: dict[str, Any]) -> None:
    listing = [replace(seen, version='"a"') for seen in group()]
    _, first = plan(listing, LATER, size=0).groups[0].state, plan_one(listing, LATER)[1]
    if "modified" in change:  # a file has no entity tag
        listing = [replace(seen, version="file:1-2") for seen in listing]
        _, first = plan_one(listing, LATER)
    listing[7] = replace(listing[7], **change)
    (found,) = plan(listing, LATER, [first], size=0).groups
    assert (found.state, found.record.attempt) == (READY, 2)
    assert found.record.subbands[7].size == listing[7].size
    assert plan(listing, LATER, [first, found.record], size=0).groups[0].state is RECORDED


def test_same_content_copied_again_is_no_new_attempt() -> None:
    listing = [replace(seen, version='"a"') for seen in group()]
    _, first = plan_one(listing, LATER)
    again = [replace(seen, modified=LATER) for seen in listing]
    assert plan_one(again, LATER, first) == (RECORDED, first)
    chmod = [replace(seen, version=f"file:{n}") for n, seen in enumerate(group())]
    _, first = plan_one(chmod, LATER)
    assert (
        plan_one([replace(seen, version="file:x") for seen in chmod], LATER, first)[0] is RECORDED
    )


def test_subbands_replaced_one_by_one_make_two_attempts() -> None:
    listing, records = group(), [plan_one(group(), LATER)[1]]
    for n in range(16):
        now = LATER + timedelta(seconds=30 * n)
        listing[n] = replace(listing[n], modified=now)
        (found,) = plan(listing, now, records).groups
        records += [found.record] if found.state is READY else []
    (found,) = plan(listing, now + timedelta(seconds=900), records).groups
    assert (len(records), found.state, found.record.attempt) == (2, READY, 3)


@pytest.mark.parametrize("clock_h", [-1000, 2])
def test_timeout_counts_from_when_watch_saw_subband(clock_h: float) -> None:
    kept = [
        replace(seen, modified=seen.modified + timedelta(hours=clock_h), seen=ARRIVED)
        for seen in group(without=[5])
    ]
    assert plan_one(kept, ARRIVED + timedelta(seconds=899))[0] is WAITING
    assert plan_one(kept, ARRIVED + timedelta(seconds=900))[0] is READY


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 0}, "is empty (0 bytes)"),
        ({"size": 142}, "expected 1000 bytes, found 142"),
        ({"header": None, "problem": "no HDF5"}, "is not a UVH5 file (1000 bytes): no HDF5"),
        ({"key": "incoming/2026-01-25/2026-01-25T22:26:05_sb16.hdf5"}, "NN from 00 to 15"),
        ({"key": "incoming/2026-01-25/2026-02-31T22:26:05_sb07.hdf5"}, "expected a name like"),
    ],
)
def test_broken_subband_is_quarantined_with_reason(changes: dict[str, Any], reason: str) -> None:
    broken = subband(7, **changes)
    result = plan([*group(without=[7]), broken], LATER)
    ((key, found),) = result.quarantined
    assert key == broken.key
    assert reason in found
    assert result.groups[0].record.missing == (7,)


def test_second_subband_of_same_index_is_quarantined() -> None:
    second = subband(7, skew_s=2, modified=ARRIVED + timedelta(seconds=50))
    result = plan([second, *group()], LATER)
    problem = f"is a second subband 07 of its group, after {subband(7).key}"
    assert result.quarantined == ((second.key, problem),)
    assert result.groups[0].record.subbands[7].uri == subband(7).key


def test_recorded_subband_is_kept_over_older_copy() -> None:
    _, first = plan_one(group(), LATER)
    older = subband(7, skew_s=2, modified=T0)
    result = plan([older, *group()], LATER, [first])
    assert [key for key, _ in result.quarantined] == [older.key]
    assert plan_one([older, *group()], LATER, first) == (RECORDED, first)


@pytest.mark.parametrize(
    "name",
    ["2026-01-25T22:26:05_sb05_incomplete.hdf5", "notes.txt", "2026-01-25T22:26:05_sb05.hdf5.part"],
)
def test_unfinished_file_is_ignored(name: str) -> None:
    unfinished = subband(5, key=f"incoming/2026-01-25/{name}", size=3, header=None)
    result = plan([*group(without=[5]), unfinished], ARRIVED)
    assert result.quarantined == ()
    assert result.groups[0].state is WAITING


def test_without_size_any_whole_file_counts() -> None:
    compressed = [replace(seen, size=900 + n) for n, seen in enumerate(group())]
    result = plan(compressed, LATER, size=0)
    assert (result.quarantined, result.groups[0].record.complete) == ((), True)


@pytest.mark.parametrize("change", [{"duration_s": 283.5}, {"t0": T0 + timedelta(seconds=13)}])
def test_subband_with_other_integrations_is_quarantined(change: dict[str, Any]) -> None:
    good = subband(7)
    assert good.header is not None
    short = replace(good, header=replace(good.header, **change))
    result = plan([*group(without=[7]), short], LATER)
    ((key, reason),) = result.quarantined
    assert key == short.key
    assert "its integrations last" in reason
    assert result.groups[0].record.missing == (7,)


@pytest.mark.parametrize("gap_s", [25, 60, 150])
def test_any_allowed_gap_separates_groups(gap_s: float) -> None:
    starts = [T0 + timedelta(seconds=after_s) for after_s in (0, 309.24, 309.24 + 410, 2000)]
    listing = [subband(n, t0, skew_s=(n * 7) % 22) for t0 in starts for n in range(16)]
    result = plan(listing, LATER, gap_s=gap_s)
    assert [one.record.t0 for one in result.groups] == starts
    assert all(one.record.complete for one in result.groups)


def test_empty_listing_is_empty_plan() -> None:
    assert plan([], LATER) == WatchPlan()


def test_id_follows_julian_date_of_data() -> None:
    # By the calendar of the Astronomical Almanac, 2026-01-01 is JD 2461041.5.
    jd = 2461041.5 + 24 + (22 * 3600 + 26 * 60 + 5) / 86400
    assert group_id(utc_of_jd(jd)) == "20260125t222605"
    assert mjd_of(utc_of_jd(jd)) == pytest.approx(jd - 2400000.5, abs=1e-9)
    # A float64 Julian date is good to 40 microseconds, and may fall short of the second.
    assert group_id(utc_of_jd(jd - 40e-6 / 86400)) == "20260125t222605"


@st.composite
def listings(draw: st.DrawFn) -> list[ListedSubband]:
    """Groups as the telescope writes them: skewed clocks, gaps, empty, broken and second files."""
    listing: list[ListedSubband] = []
    t0 = T0
    for _ in range(draw(st.integers(1, 3))):
        t0 += timedelta(seconds=draw(st.sampled_from([CADENCE_S, 410.0, 605.0, 7000.0])))
        present = draw(st.sets(st.integers(0, 15), min_size=1, max_size=16))
        full = draw(st.booleans())
        for index in range(16) if full else sorted(present):
            listing.append(draw(members(index, t0)))
            if draw(st.integers(0, 19)) == 0:
                listing.append(draw(members(index, t0)))
    return list({seen.key: seen for seen in listing}.values())


@st.composite
def members(draw: st.DrawFn, index: int, t0: datetime) -> ListedSubband:
    seen = subband(index, t0, skew_s=draw(st.sampled_from([0.0, 1.0, 2.0, 13.0, 21.0])))
    seen = replace(seen, modified=seen.modified + timedelta(seconds=draw(st.integers(0, 2000))))
    fate = draw(st.integers(0, 30))
    if fate == 0:
        return replace(seen, size=draw(st.integers(0, 2 * SIZE)), header=None)
    if fate == 1:
        return replace(seen, header=None, problem="no HDF5")
    if fate == 2:
        return replace(seen, key=seen.key.replace(".hdf5", "_incomplete.hdf5"))
    return seen


MOMENTS = st.integers(0, 20000).map(lambda seconds: T0 + timedelta(seconds=seconds))
EXAMPLES = settings(max_examples=150, deadline=None)


@EXAMPLES
@given(listings(), MOMENTS, st.data())
def test_plan_ignores_order_and_repeats(listing: Listing, now: datetime, data: Any) -> None:
    noisy = data.draw(st.permutations([*listing, *listing[:3]]))
    assert plan(noisy, now) == plan(listing, now)


@EXAMPLES
@given(listings(), MOMENTS)
def test_every_object_is_placed_once_by_its_time(listing: Listing, now: datetime) -> None:
    result = plan(listing, now)
    placed = [one.uri for found in result.groups for one in found.record.subbands]
    placed += [key for key, _ in result.quarantined]
    finished = [seen.key for seen in listing if not seen.key.endswith("_incomplete.hdf5")]
    assert sorted(placed) == sorted(finished)
    t0s = {seen.key: seen.header.t0 for seen in listing if seen.header}
    for found in result.groups:
        assert {t0s[one.uri] for one in found.record.subbands} == {found.record.t0}
        indices = [one.index for one in found.record.subbands]
        assert sorted({*indices, *found.record.missing}) == list(range(16))
        assert len(set(indices)) == len(indices)
        assert found.state is WAITING or found.record.complete or now >= found.until
        assert found.state is READY or not found.record.complete


@EXAMPLES
@given(listings(), st.data())
def test_attempts_grow_in_any_order_of_arrival(listing: Listing, data: Any) -> None:
    order = data.draw(st.permutations(listing))
    now, there = T0 + timedelta(days=1), []
    records: list[GroupRecord] = []
    for number, seen in enumerate(order):
        now += timedelta(seconds=data.draw(st.sampled_from([1, 400, 1000])))
        there.append(replace(seen, modified=now))
        if number % 4 == 0 or number == len(order) - 1:
            found = plan(there, now, records).groups
            records += [one.record for one in found if one.state is READY]
    final = plan(there, now + timedelta(days=1), records)
    records += [one.record for one in final.groups if one.state is READY]
    names = [record.name for record in records]
    assert len(set(names)) == len(names)
    by_group = {record.id: [one for one in records if one.id == record.id] for record in records}
    for attempts in by_group.values():
        assert [one.attempt for one in attempts] == list(range(1, len(attempts) + 1))
        held = [{subband.index for subband in one.subbands} for one in attempts]
        assert all(before < after for before, after in pairwise(held))
    settled = plan(there, now + timedelta(days=2), records)
    assert {one.state for one in settled.groups} <= {RECORDED}
