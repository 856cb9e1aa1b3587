"""plan() against hundreds of random listings, and against each case by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contimg.records.groups import (
    N_SUBBANDS,
    GroupRecord,
    group_id,
    mjd_of,
    subband_name,
    utc_of_jd,
)
from contimg_watch.plan import (
    SubbandHeader,
    WatchPlan,
    GroupingRules,
    ListedSubband,
    PlanState,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

T0 = datetime(2026, 1, 25, 22, 26, 5, 123456, tzinfo=UTC)
ARRIVED = T0 + timedelta(seconds=320)
SIZE = 1000
RULES = GroupingRules(gap_s=60, timeout_s=900, size=SIZE)
LATER = ARRIVED + timedelta(days=1)
CADENCE_S = 309.24


def subband(index: int, t0: datetime = T0, skew_s: float = 0.0, **changes: object) -> ListedSubband:
    """A good subband whose name carries another clock than its data."""
    stamp = t0 + timedelta(seconds=skew_s)
    key = f"incoming/{stamp:%Y-%m-%d}/{stamp:%Y-%m-%dT%H:%M:%S}_sb{index:02d}.hdf5"
    seen = ListedSubband(
        key=key,
        size=SIZE,
        modified=t0 + timedelta(seconds=320),
        header=SubbandHeader(t0=t0, duration_s=296.353, dec_deg=33.0),
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


def group(t0: datetime = T0, without: Sequence[int] = ()) -> list[ListedSubband]:
    return [subband(n, t0) for n in range(N_SUBBANDS) if n not in without]


def only(result: WatchPlan) -> tuple[PlanState, GroupRecord]:
    (one,) = result.groups
    return one.state, one.record


# Each case by name


def test_a_complete_group_is_ready_at_once() -> None:
    state, record = only(plan(group(), ARRIVED, rules=RULES))
    assert state is PlanState.READY
    assert (record.id, record.attempt, record.missing, record.complete) == (
        "20260125t222605",
        1,
        (),
        True,
    )
    assert [one.index for one in record.subbands] == list(range(16))
    assert record.subbands[3].uri == subband(3).key
    assert (record.t0, record.dec_deg, record.duration_s) == (T0, 33.0, 296.353)


def test_names_of_many_clocks_and_two_days_are_one_group() -> None:
    midnight = datetime(2026, 1, 26, 0, 0, 3, tzinfo=UTC)
    listing = [subband(n, midnight, skew_s=-1.4 * n) for n in range(16)]
    assert len({one.key.split("/")[1] for one in listing}) == 2
    state, record = only(plan(listing, LATER, rules=RULES))
    assert (state, record.complete, record.id) == (PlanState.READY, True, "20260126t000003")


def test_fifteen_wait_and_then_go_as_they_are() -> None:
    listing = group(without=[5])
    assert (
        only(plan(listing, ARRIVED + timedelta(seconds=899), rules=RULES))[0] is PlanState.WAITING
    )
    state, record = only(plan(listing, ARRIVED + timedelta(seconds=900), rules=RULES))
    assert (state, record.attempt, record.missing) == (PlanState.READY, 1, (5,))


def test_what_came_last_counts_for_the_timeout() -> None:
    late = subband(3, modified=ARRIVED + timedelta(seconds=600))
    listing = [*group(without=[3, 5]), late]
    assert (
        only(plan(listing, ARRIVED + timedelta(seconds=1000), rules=RULES))[0] is PlanState.WAITING
    )
    assert only(plan(listing, ARRIVED + timedelta(seconds=1500), rules=RULES))[0] is PlanState.READY


def test_a_late_subband_makes_a_second_attempt() -> None:
    _, first = only(plan(group(without=[5]), LATER, rules=RULES))
    assert only(plan(group(without=[5]), LATER, [first], RULES)) == (PlanState.RECORDED, first)
    state, second = only(
        plan([*group(without=[5]), subband(5, modified=LATER)], LATER, [first], RULES)
    )
    assert (state, second.id, second.attempt, second.missing) == (PlanState.READY, first.id, 2, ())
    assert (
        only(
            plan([*group(without=[5]), subband(5, modified=LATER)], LATER, [second, first], RULES)
        )[0]
        is PlanState.RECORDED
    )


def test_one_of_two_late_subbands_waits_for_the_other() -> None:
    _, first = only(plan(group(without=[5, 6]), LATER, rules=RULES))
    listing = [*group(without=[5, 6]), subband(5, modified=LATER)]
    assert only(plan(listing, LATER, [first], RULES))[0] is PlanState.WAITING
    state, second = only(plan(listing, LATER + timedelta(seconds=900), [first], RULES))
    assert (state, second.attempt, second.missing) == (PlanState.READY, 2, (6,))


def test_the_same_files_sent_again_are_no_new_attempt() -> None:
    _, first = only(plan(group(), LATER, rules=RULES))
    again = [replace(seen, modified=LATER) for seen in group()]
    assert only(plan(again, LATER, [first], RULES)) == (PlanState.RECORDED, first)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (subband(7, size=0), "is empty (0 bytes)"),
        (subband(7, size=142), "expected 1000 bytes, found 142"),
        (
            subband(7, header=None, problem="file signature not found"),
            "is not a UVH5 file (1000 bytes): file signature not found",
        ),
        (subband(7, key="incoming/2026-01-25/2026-01-25T22:26:05_sb16.hdf5"), "NN from 00 to 15"),
        (
            subband(7, key="incoming/2026-01-25/2026-02-31T22:26:05_sb07.hdf5"),
            "expected a name like",
        ),
    ],
)
def test_a_broken_subband_is_named_with_its_reason(broken: ListedSubband, reason: str) -> None:
    result = plan([*group(without=[7]), broken], LATER, rules=RULES)
    assert [key for key, _ in result.quarantined] == [broken.key]
    assert reason in result.quarantined[0][1]
    assert only(result)[1].missing == (7,)


def test_a_second_subband_of_the_same_index_is_named() -> None:
    second = subband(7, skew_s=2, modified=ARRIVED + timedelta(seconds=50))
    result = plan([second, *group()], LATER, rules=RULES)
    assert result.quarantined == (
        (second.key, f"is a second subband 07 of its group, after {subband(7).key}"),
    )
    assert only(result)[1].subbands[7].uri == subband(7).key


def test_a_recorded_subband_is_not_displaced_by_an_older_copy() -> None:
    _, first = only(plan(group(), LATER, rules=RULES))
    older = subband(7, skew_s=2, modified=T0)
    result = plan([older, *group()], LATER, [first], RULES)
    assert [key for key, _ in result.quarantined] == [older.key]
    assert only(result) == (PlanState.RECORDED, first)


@pytest.mark.parametrize(
    "name",
    ["2026-01-25T22:26:05_sb05_incomplete.hdf5", "notes.txt", "2026-01-25T22:26:05_sb05.hdf5.part"],
)
def test_what_is_being_written_is_not_seen(name: str) -> None:
    unfinished = subband(5, key=f"incoming/2026-01-25/{name}", size=3, header=None)
    result = plan([*group(without=[5]), unfinished], ARRIVED, rules=RULES)
    assert result.quarantined == ()
    assert only(result)[0] is PlanState.WAITING


def test_without_a_size_the_group_agrees_on_one() -> None:
    short = subband(7, size=900)
    result = plan([*group(without=[7]), short], LATER, rules=replace(RULES, size=0))
    assert result.quarantined == (
        (short.key, "expected 1000 bytes like the others of its group, found 900"),
    )
    other = [replace(seen, size=555) for seen in group(T0 + timedelta(seconds=310))]
    assert [
        one.state for one in plan([*group(), *other], LATER, rules=replace(RULES, size=0)).groups
    ] == [PlanState.READY] * 2


@pytest.mark.parametrize("gap_s", [25, 60, 150])
def test_any_gap_separates_the_telescope_s_groups(gap_s: float) -> None:
    starts = [
        T0,
        T0 + timedelta(seconds=309.24),
        T0 + timedelta(seconds=309.24 + 410),
        T0 + timedelta(seconds=2000),
    ]
    listing = [subband(n, t0, skew_s=(n * 7) % 22) for t0 in starts for n in range(16)]
    result = plan(listing, LATER, rules=replace(RULES, gap_s=gap_s))
    assert [one.record.t0 for one in result.groups] == starts
    assert all(one.record.complete for one in result.groups)


def test_nothing_is_nothing() -> None:
    assert plan([], LATER) == WatchPlan()


def test_ids_and_times_are_those_of_the_data() -> None:
    # 2026-01-25T22:26:05 is JD 2461066.43478..., by the calendar of the Astronomical Almanac (JD 2461041.5 = 2026-01-01).
    jd = 2461041.5 + 24 + (22 * 3600 + 26 * 60 + 5) / 86400
    assert group_id(utc_of_jd(jd)) == "20260125t222605"
    assert mjd_of(utc_of_jd(jd)) == pytest.approx(jd - 2400000.5, abs=1e-9)
    # A float64 Julian date is good to 40 microseconds, and may fall short of the second.
    assert group_id(utc_of_jd(jd - 40e-6 / 86400)) == "20260125t222605"


@pytest.mark.parametrize(
    "name",
    [
        "2026-01-25T22:26:05_sb3.hdf5",
        "2026-01-25T22:26:05_sb03.hdf5.gz",
        "x2026-01-25T22:26:05_sb03.hdf5",
    ],
)
def test_other_names_are_no_subbands(name: str) -> None:
    assert subband_name(name) is None


# Against random listings


@st.composite
def listings(draw: st.DrawFn) -> list[ListedSubband]:
    """Some groups as the telescope writes them: skewed clocks, gaps, wrong sizes, empty, broken and second files."""
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


def moments() -> st.SearchStrategy[datetime]:
    return st.integers(0, 20000).map(lambda seconds: T0 + timedelta(seconds=seconds))


MANY = settings(max_examples=150, deadline=None)


@MANY
@given(listings(), moments(), st.data())
def test_order_and_repeats_change_nothing(
    listing: list[ListedSubband], now: datetime, data: st.DataObject
) -> None:
    noisy = data.draw(st.permutations([*listing, *listing[:3]]))
    assert plan(noisy, now, rules=RULES) == plan(listing, now, rules=RULES)


@MANY
@given(listings(), moments())
def test_every_object_has_one_place(listing: list[ListedSubband], now: datetime) -> None:
    result = plan(listing, now, rules=RULES)
    placed = [one.uri for found in result.groups for one in found.record.subbands] + [
        key for key, _ in result.quarantined
    ]
    assert sorted(placed) == sorted(
        seen.key for seen in listing if not seen.key.endswith("_incomplete.hdf5")
    )


@MANY
@given(listings(), moments())
def test_groups_are_those_of_the_data(listing: list[ListedSubband], now: datetime) -> None:
    t0s = {seen.key: seen.header.t0 for seen in listing if seen.header}
    for found in plan(listing, now, rules=RULES).groups:
        assert {t0s[one.uri] for one in found.record.subbands} == {found.record.t0}
        indices = [one.index for one in found.record.subbands]
        assert sorted({*indices, *found.record.missing}) == list(range(16))
        assert len(set(indices)) == len(indices)
        assert found.state is PlanState.WAITING or found.record.complete or now >= found.until
        assert found.state is PlanState.READY or not found.record.complete


@MANY
@given(listings(), st.data())
def test_in_whatever_order_files_come_a_group_ends_with_all_of_them_once(
    listing: list[ListedSubband], data: st.DataObject
) -> None:
    """Let the objects arrive in any order, looking after each: attempts count up, and never hold the same twice."""
    order = data.draw(st.permutations(listing))
    now, there = T0 + timedelta(days=1), []
    records: list[GroupRecord] = []
    for number, seen in enumerate(order):
        now += timedelta(seconds=data.draw(st.sampled_from([1, 400, 1000])))
        there.append(replace(seen, modified=now))
        if number % 4 == 0 or number == len(order) - 1:
            records += [
                one.record
                for one in plan(there, now, records, RULES).groups
                if one.state is PlanState.READY
            ]
    final = plan(there, now + timedelta(days=1), records, RULES)
    records += [one.record for one in final.groups if one.state is PlanState.READY]
    names = [record.name for record in records]
    assert len(set(names)) == len(names)
    by_group = {record.id: [one for one in records if one.id == record.id] for record in records}
    for attempts in by_group.values():
        assert [one.attempt for one in attempts] == list(range(1, len(attempts) + 1))
        held = [{subband.index for subband in one.subbands} for one in attempts]
        assert all(before < after for before, after in pairwise(held))
    settled = plan(there, now + timedelta(days=2), records, RULES)
    assert {one.state for one in settled.groups} <= {PlanState.RECORDED}
