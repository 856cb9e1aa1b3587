"""Groups: names, ids, times and records, wherever the store is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contimg.records import groups
from contimg.runtime.errors import BadInputError, MissingError
from contimg.runtime.manifest import object_input
from contimg.runtime.store import open_store

GROUP, T0 = "20260125t222605", datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it


def record(**changes: Any) -> groups.GroupRecord:
    uri = "incoming/2026-01-25/2026-01-25T22:26:05_sb{:02d}.hdf5"
    whole = [groups.Subband(index=n, uri=uri.format(n), size=7, modified=T0) for n in range(16)]
    given_ = {"id": GROUP, "attempt": 1, "t0": T0, "duration_s": 296.353, "dec_deg": 33.0}
    return groups.GroupRecord.model_validate(given_ | {"subbands": tuple(whole)} | changes)


def put(root: Path | str, content: groups.GroupRecord | bytes) -> str:
    """Store a record under the name of the first attempt; return its URI."""
    data = content if isinstance(content, bytes) else content.model_dump_json().encode()
    open_store(str(root)).put(f"groups/{GROUP}-a1.json", data)
    return f"{root}/groups/{GROUP}-a1.json"


@pytest.mark.parametrize("index", range(16))
def test_subband_name_is_parsed(index: int) -> None:
    name = groups.subband_name(f"2026-01-25T22:26:05_sb{index:02d}.hdf5")
    assert name == groups.SubbandName(T0, index)


@pytest.mark.parametrize(
    "name",
    [
        *(f"2026-01-25T22:26:05_{end}.hdf5" for end in ("sb16", "sb99", "sb5", "sb05_incomplete")),
        *(f"{start}:26:05_sb05.hdf5" for start in ("2026-01-25 22", "2026-02-30T22")),
        *(f"{start}:26:05_sb05.hdf5" for start in ("2026-01-25T25", ".2026-01-25T22")),
        *("2026-01-25T22:26:05_sb05.hdf5.tmp", ""),
    ],
)
def test_other_subband_names_are_refused(name: str) -> None:
    assert groups.subband_name(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{GROUP}-a1.json", (GROUP, 1)),
        (f"{GROUP}-a12.json", (GROUP, 12)),
        (f"{record(attempt=3).name}.json", (GROUP, 3)),
        *((name, None) for name in (f"{GROUP}.json", f"{GROUP}-a0.json", f"{GROUP}-a1.json.part")),
        ("x-a1.json", None),
    ],
)
def test_record_name_is_parsed(name: str, expected: tuple[str, int] | None) -> None:
    assert groups.record_name(name) == expected


def test_listed_records_sort_by_number(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for name in (f"{GROUP}-a10", f"{GROUP}-a2", f"{GROUP}-ax", "20260126t000000-a1"):
        store.put(f"groups/{name}.json", b"{}")
    store.put(f"groups/old/{GROUP}-a1.json", b"{}")
    listed = [(one.group, one.attempt, one.entry.key) for one in sorted(groups.list_records(store))]
    assert listed == [
        (GROUP, 2, f"groups/{GROUP}-a2.json"),
        (GROUP, 10, f"groups/{GROUP}-a10.json"),
        ("20260126t000000", 1, "groups/20260126t000000-a1.json"),
    ]
    assert [one.attempt for one in groups.list_records(store, "20260126")] == [1]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (T0, GROUP),
        (T0 - timedelta(microseconds=13), GROUP),
        (T0 + timedelta(milliseconds=499), GROUP),
        (T0 + timedelta(milliseconds=500), "20260125t222606"),
        (T0.astimezone(timezone(timedelta(hours=-8))), GROUP),
        (datetime(2025, 12, 31, 23, 59, 59, 700000, tzinfo=UTC), "20260101t000000"),
    ],
)
def test_ids_are_utc_to_nearest_second(moment: datetime, expected: str) -> None:
    assert groups.group_id(moment) == expected


@given(moments)
def test_ids_and_times_of_any_moment(moment: datetime) -> None:
    name = groups.group_id(moment)
    assert name == name.lower()
    assert name.replace("t", "").isdigit()
    assert groups.group_id(moment + timedelta(seconds=25)) > name
    # A float64 near 2.46 million, a Julian date, has steps of 40 microseconds.
    jd = groups.mjd_of(moment) + 2400000.5
    assert abs(groups.utc_of_jd(jd) - moment) < timedelta(microseconds=50)


def test_mjd_is_the_almanac_s() -> None:
    # J2000.0 is JD 2451545.0, that is 2000-01-01 12:00; leap seconds do not enter.
    noon = datetime(2000, 1, 1, 12, tzinfo=UTC)
    assert groups.mjd_of(noon) == 51544.5
    assert groups.utc_of_jd(2451545.0) == groups.utc_of_mjd(51544.5) == noon


def test_record_has_times_and_missing_subbands() -> None:
    whole = record()
    assert whole.complete
    assert whole.name == f"{GROUP}-a1"
    # Midpoints of the first and the last integration; a step of float64 is 0.6 us.
    assert whole.mjd_start == groups.mjd_of(T0)
    assert (whole.mjd_end - whole.mjd_start) * 86400 == pytest.approx(296.353, abs=2e-6)
    partial = record(subbands=whole.subbands[:5] + whole.subbands[6:], missing=(5,), dec_deg=None)
    assert not partial.complete
    assert groups.GroupRecord.model_validate_json(partial.model_dump_json()) == partial


NAIVE = datetime(2026, 1, 25)  # noqa: DTZ001


@pytest.mark.parametrize(
    "change",
    [("id", "today"), ("attempt", 0), ("surprise", 1), ("t0", NAIVE), ("schema_version", 2)],
)
def test_bad_group_record_is_refused(change: tuple[str, Any]) -> None:
    with pytest.raises(ValidationError):
        record(**dict([change]))
    for index in (-1, 16):
        with pytest.raises(ValidationError):
            groups.Subband(index=index, uri="x", size=1, modified=T0)


def test_read_group_makes_uris_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = open_store(str(tmp_path / "store")).root
    found = groups.read_group(put(root, record()))
    assert found.subbands[3].uri == f"{root}/{record().subbands[3].uri}"
    assert found.model_copy(update={"subbands": record().subbands}) == record()
    monkeypatch.chdir(root)
    assert groups.read_group(f"groups/{GROUP}-a1.json") == found


def test_read_group_makes_s3_uris(moto_root: str) -> None:
    found = groups.read_group(put(moto_root, record()))
    assert found.subbands[0].uri == f"{moto_root}/incoming/2026-01-25/2026-01-25T22:26:05_sb00.hdf5"


@pytest.mark.parametrize("uri", ["/elsewhere/x.hdf5", "s3://other/x.hdf5"])
def test_absolute_uris_stay(tmp_path: Path, uri: str) -> None:
    other = record().subbands[0].model_copy(update={"uri": uri})
    assert groups.read_group(put(tmp_path, record(subbands=(other,)))).subbands[0].uri == uri


def test_missing_or_bad_group_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=f"{GROUP}-a1"):
        groups.read_group(f"{tmp_path}/groups/{GROUP}-a1.json")
    with pytest.raises(BadInputError, match="This is not a group record"):
        groups.read_group(put(tmp_path, b'{"id": 1}'))


def _digest(folder: Path, **changes: Any) -> str:
    one = record(**changes)
    (folder / f"{one.name}.json").write_text(one.model_dump_json())
    found = groups.group_input("group", f"{folder}/{one.name}.json")
    assert (found.name, found.uri) == ("group", f"{folder}/{one.name}.json")
    return found.digest


def test_same_subbands_have_same_digest(tmp_path: Path) -> None:
    first = _digest(tmp_path)
    assert _digest(tmp_path, attempt=2, retries=1) == first
    assert _digest(tmp_path, attempt=3, subbands=record().subbands[:15], missing=(15,)) != first
    moved = record().subbands[0].model_copy(update={"size": 8})
    assert _digest(tmp_path, attempt=4, subbands=(moved, *record().subbands[1:])) != first
    # A bad record is digested whole.
    uri = f"{tmp_path}/x.json"
    Path(uri).write_text("{}")
    assert groups.group_input("group", uri) == object_input("group", uri)
    with pytest.raises(MissingError):
        groups.group_input("group", f"{tmp_path}/gone.json")
