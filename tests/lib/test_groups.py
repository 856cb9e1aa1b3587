"""Groups: names, ids, times and records, wherever the store is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.records.groups import (
    GroupRecord,
    Subband,
    group_id,
    group_input,
    list_records,
    mjd_of,
    read_group,
    record_name,
    store_of,
    subband_name,
    utc_of_jd,
    utc_of_mjd,
)
from contimg.runtime.errors import BadInputError, MissingError
from contimg.runtime.manifest import object_input
from contimg.runtime.store import open_store

T0 = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it


def record(**changes: Any) -> GroupRecord:
    subbands = [
        Subband(
            index=n,
            uri=f"incoming/2026-01-25/2026-01-25T22:26:05_sb{n:02d}.hdf5",
            size=7,
            modified=T0,
        )
        for n in range(16)
    ]
    given_: dict[str, Any] = {
        "id": "20260125t222605",
        "attempt": 1,
        "t0": T0,
        "duration_s": 296.353,
        "dec_deg": 33.0,
        "subbands": tuple(subbands),
    }
    return GroupRecord(**{**given_, **changes})


@pytest.mark.parametrize("index", range(16))
def test_subband_name_is_parsed(index: int) -> None:
    name = subband_name(f"2026-01-25T22:26:05_sb{index:02d}.hdf5")
    assert name is not None
    assert (name.index, name.stamp) == (index, T0)


@pytest.mark.parametrize(
    "name",
    [
        "2026-01-25T22:26:05_sb16.hdf5",
        "2026-01-25T22:26:05_sb99.hdf5",
        "2026-01-25T22:26:05_sb5.hdf5",
        "2026-01-25T22:26:05_sb05_incomplete.hdf5",
        "2026-01-25T22:26:05_sb05.hdf5.tmp",
        "2026-01-25 22:26:05_sb05.hdf5",
        "2026-02-30T22:26:05_sb05.hdf5",
        "2026-01-25T25:26:05_sb05.hdf5",
        ".2026-01-25T22:26:05_sb05.hdf5",
        "",
    ],
)
def test_other_subband_names_are_refused(name: str) -> None:
    assert subband_name(name) is None


def test_record_name_is_parsed() -> None:
    assert record_name("20260125t222605-a1.json") == ("20260125t222605", 1)
    assert record_name("20260125t222605-a12.json") == ("20260125t222605", 12)
    assert record_name(f"{record(attempt=3).name}.json") == ("20260125t222605", 3)


@pytest.mark.parametrize(
    "name",
    [
        "20260125t222605.json",
        "20260125t222605-a0.json",
        "x-a1.json",
        "20260125t222605-a1.json.part",
    ],
)
def test_other_record_names_are_refused(name: str) -> None:
    assert record_name(name) is None


def test_the_records_of_a_store_are_listed_and_sort_by_number(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for name in (
        "20260125t222605-a10.json",
        "20260125t222605-a2.json",
        "20260125t222605-ax.json",
        "20260126t000000-a1.json",
    ):
        store.put(f"groups/{name}", b"{}")
    store.put("groups/old/20260125t222605-a1.json", b"{}")
    listed = [(one.group, one.attempt, one.entry.key) for one in sorted(list_records(store))]
    assert listed == [
        ("20260125t222605", 2, "groups/20260125t222605-a2.json"),
        ("20260125t222605", 10, "groups/20260125t222605-a10.json"),
        ("20260126t000000", 1, "groups/20260126t000000-a1.json"),
    ]
    assert [one.attempt for one in list_records(store, "20260126")] == [1]


def test_ids_are_utc_to_the_nearest_second() -> None:
    assert group_id(T0) == "20260125t222605"
    assert group_id(T0 - timedelta(microseconds=13)) == "20260125t222605"
    assert group_id(T0 + timedelta(milliseconds=499)) == "20260125t222605"
    assert group_id(T0 + timedelta(milliseconds=500)) == "20260125t222606"
    assert group_id(T0.astimezone(timezone(timedelta(hours=-8)))) == "20260125t222605"
    assert group_id(datetime(2025, 12, 31, 23, 59, 59, 700000, tzinfo=UTC)) == "20260101t000000"


@given(moments)
def test_ids_are_legal_names_for_kubernetes_and_sort_by_time(moment: datetime) -> None:
    name = group_id(moment)
    assert name == name.lower()
    assert name.replace("t", "").isdigit()
    assert group_id(moment + timedelta(seconds=25)) > name


@given(moments)
def test_times_survive_a_float_julian_date(moment: datetime) -> None:
    # A float64 near 2.46 million has steps of 40 microseconds.
    jd = mjd_of(moment) + 2400000.5
    assert abs(utc_of_jd(jd) - moment) < timedelta(microseconds=50)


def test_mjd_is_the_almanac_s() -> None:
    # J2000.0 is JD 2451545.0, that is 2000-01-01 12:00; leap seconds do not enter.
    assert mjd_of(datetime(2000, 1, 1, 12, tzinfo=UTC)) == 51544.5
    assert utc_of_jd(2451545.0) == utc_of_mjd(51544.5) == datetime(2000, 1, 1, 12, tzinfo=UTC)


def test_record_has_times_and_missing_subbands() -> None:
    whole = record()
    assert whole.complete
    assert whole.name == "20260125t222605-a1"
    assert (whole.mjd_end - whole.mjd_start) * 86400 == pytest.approx(296.353, abs=1e-5)
    partial = record(subbands=whole.subbands[:5] + whole.subbands[6:], missing=(5,))
    assert not partial.complete


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "today"},
        {"attempt": 0},
        {"surprise": 1},
        {"t0": datetime(2026, 1, 25)},  # noqa: DTZ001
        {"schema_version": 2},
    ],
)
def test_bad_group_record_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        record(**changes)


@pytest.mark.parametrize("index", [-1, 16])
def test_there_are_sixteen_subbands(index: int) -> None:
    with pytest.raises(ValidationError):
        Subband(index=index, uri="x", size=1, modified=T0)


def test_a_record_is_found_with_absolute_uris(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("groups/20260125t222605-a1.json", record().model_dump_json().encode())
    uri = f"{store.root}/groups/20260125t222605-a1.json"
    assert store_of(uri) == store.root
    found = read_group(uri)
    assert found.subbands[3].uri == f"{store.root}/{record().subbands[3].uri}"
    assert found.model_copy(update={"subbands": record().subbands}) == record()


def test_a_record_in_s3_is_found_with_s3_uris(moto_root: str) -> None:
    open_store(moto_root).put("groups/20260125t222605-a1.json", record().model_dump_json().encode())
    found = read_group(f"{moto_root}/groups/20260125t222605-a1.json")
    assert found.subbands[0].uri == f"{moto_root}/incoming/2026-01-25/2026-01-25T22:26:05_sb00.hdf5"


@pytest.mark.parametrize("uri", ["/elsewhere/x.hdf5", "s3://other/x.hdf5"])
def test_absolute_uris_stay(tmp_path: Path, uri: str) -> None:
    other = record().subbands[0].model_copy(update={"uri": uri})
    store = open_store(str(tmp_path))
    store.put(
        "groups/20260125t222605-a1.json", record(subbands=(other,)).model_dump_json().encode()
    )
    assert read_group(f"{tmp_path}/groups/20260125t222605-a1.json").subbands[0].uri == uri


def test_a_relative_path_to_a_record_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(str(tmp_path)).put(
        "groups/20260125t222605-a1.json", record().model_dump_json().encode()
    )
    monkeypatch.chdir(tmp_path)
    found = read_group("groups/20260125t222605-a1.json")
    assert Path(found.subbands[0].uri).is_absolute()
    assert found.subbands[0].uri.startswith(str(tmp_path))


def test_missing_or_bad_group_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="20260125t222605-a1"):
        read_group(f"{tmp_path}/groups/20260125t222605-a1.json")
    open_store(str(tmp_path)).put("groups/20260125t222605-a1.json", json.dumps({"id": 1}).encode())
    with pytest.raises(BadInputError, match="This is not a group record"):
        read_group(f"{tmp_path}/groups/20260125t222605-a1.json")


def _digest(folder: Path, **changes: Any) -> str:
    one = record(**changes)
    (folder / f"{one.name}.json").write_text(one.model_dump_json())
    found = group_input("group", f"{folder}/{one.name}.json")
    assert (found.name, found.uri) == ("group", f"{folder}/{one.name}.json")
    return found.digest


def test_the_same_subbands_again_are_the_same_work(tmp_path: Path) -> None:
    first = _digest(tmp_path)
    assert _digest(tmp_path, attempt=2, retries=1) == first
    assert _digest(tmp_path, attempt=3, subbands=record().subbands[:15], missing=(15,)) != first
    moved = record().subbands[0].model_copy(update={"size": 8})
    assert _digest(tmp_path, attempt=4, subbands=(moved, *record().subbands[1:])) != first


def test_bad_group_record_is_digested_whole(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert group_input("group", f"{tmp_path}/x.json") == object_input("group", f"{tmp_path}/x.json")
    with pytest.raises(MissingError):
        group_input("group", f"{tmp_path}/gone.json")
