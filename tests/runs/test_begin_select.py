"""begin, select and strips: what a reprocessing, a backfill and a night begin with."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contimg.records.groups import GroupRecord, Subband, group_id
from contimg.records.runs import Claim, Outcome, Phase, TaskRun
from contimg.runtime.errors import UsageError
from contimg.runtime.manifest import MANIFEST, QA, Input, Manifest
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import AttemptStore
from contimg_runs.begin import STAGES, begin, keep
from contimg_runs.claim import claim_attempt
from contimg_runs.options import CHUNK, BeginOptions, SelectOptions
from contimg_runs.select import chunks, observed, select

ID = "20260125t222605"
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def record(
    group: str = ID, attempt: int = 1, subbands: int = 16, dec: float | None = 33.0
) -> GroupRecord:
    t0 = datetime.strptime(group, "%Y%m%dt%H%M%S").replace(tzinfo=UTC)
    there = tuple(
        Subband(index=n, uri=f"incoming/sb{n:02d}.hdf5", size=1, modified=t0)
        for n in range(subbands)
    )
    missing = tuple(range(subbands, 16))
    return GroupRecord(
        id=group,
        attempt=attempt,
        t0=t0,
        duration_s=309.0,
        dec_deg=dec,
        subbands=there,
        missing=missing,
    )


def store_with(folder: Path, *records: GroupRecord) -> AttemptStore:
    attempts = AttemptStore(open_store(str(folder)))
    for one in records:
        assert attempts.write_record(one)
    return attempts


def options(store: str = "", uid: str = "u1", first: Any = "convert") -> BeginOptions:
    return BeginOptions(store=store, uid=uid, workflow=f"re-{uid}", group=ID, first=first)


def end(
    attempts: AttemptStore, number: int = 1, uid: str = "u0", tasks: tuple[TaskRun, ...] = ()
) -> None:
    """Let an attempt be claimed and succeed."""
    run = f"{ID}-a{number}"
    attempts.write_claim(Claim(run=run, uid=uid, workflow=f"contimg-{run}", at=NOW))
    assert attempts.write_outcome(
        Outcome(
            run=run,
            workflow=f"contimg-{run}",
            uid=uid,
            phase=Phase.SUCCEEDED,
            ended=NOW,
            tasks=tasks,
        )
    )


def made(folder: Path, stage: str, key: str, *, day: int = 1, **inputs: str) -> str:
    """Leave an artifact of a stage, made from others."""
    path = folder / "products" / ID / stage / key
    path.mkdir(parents=True)
    read = tuple(Input(name=name, uri=uri, digest="0") for name, uri in inputs.items())
    manifest = Manifest(
        stage=stage,
        version="0",
        key=key,
        options={},
        inputs=read,
        tools={},
        outputs=(),
        metrics={},
        qa=QA(),
        seconds={},
        created=NOW + timedelta(days=day),
    )
    (path / MANIFEST).write_text(manifest.model_dump_json())
    return str(path)


def chain(folder: Path, mark: str, day: int = 1) -> dict[str, str]:
    """Leave the artifacts of all stages of a group."""
    convert = made(folder, "convert", f"c{mark}", day=day)
    flag = made(folder, "flag", f"f{mark}", day=day, ms=convert)
    calibrate = made(folder, "calibrate", f"k{mark}", day=day, ms=convert, flags=flag)
    image = made(
        folder, "image", f"i{mark}", day=day, ms=convert, flags=flag, calibration=calibrate
    )
    photometry = made(folder, "photometry", f"p{mark}", day=day, image=image)
    return {
        "convert": convert,
        "flag": flag,
        "calibrate": calibrate,
        "image": image,
        "photometry": photometry,
    }


# begin


def test_the_next_attempt_is_claimed_and_recorded(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    end(attempts)
    begun = begin(attempts, options())
    assert (begun.attempt, dict(begun.kept)) == (2, {})
    found = attempts.read_latest(ID)
    assert found is not None
    assert found.record == record(attempt=2)
    assert found.claim is not None
    assert (found.claim.uid, found.claim.workflow) == ("u1", "re-u1")


def test_a_retried_pod_gets_the_same_attempt(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    end(attempts)
    assert [begin(attempts, options()).attempt for _ in range(3)] == [2, 2, 2]
    assert attempts.list_attempts(ID) == [1, 2]


def test_a_pod_killed_between_claim_and_record_goes_on(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    end(attempts)
    attempts.write_claim(Claim(run=f"{ID}-a2", uid="u1", workflow="re-u1", at=NOW))
    assert begin(attempts, options()).attempt == 2
    assert attempts.list_attempts(ID) == [1, 2]


def test_a_number_that_another_took_is_passed_over(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    end(attempts)
    attempts.write_claim(Claim(run=f"{ID}-a2", uid="other", workflow="gone", at=NOW))
    assert begin(attempts, options()).attempt == 3


def test_no_event_can_take_what_was_begun(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    end(attempts)
    begin(attempts, options())
    assert not claim(
        attempts, Claim(run=f"{ID}-a2", uid="event", workflow=f"contimg-{ID}-a2", at=NOW)
    ).claimed
    assert claim(attempts, Claim(run=f"{ID}-a2", uid="u1", workflow="re-u1", at=NOW)).claimed


def test_an_attempt_in_progress_is_not_overtaken(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    attempts.write_claim(Claim(run=f"{ID}-a1", uid="u0", workflow=f"contimg-{ID}-a1", at=NOW))
    with pytest.raises(UsageError, match=f"found that contimg-{ID}-a1 has it"):
        begin(attempts, options())
    assert attempts.list_attempts(ID) == [1]
    assert attempts.read_claim(f"{ID}-a2") is None


def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError,
        match=f"groups/{ID}-a1.json: expected a group that watch has recorded, found none",
    ):
        begin(store_with(tmp_path), options())


def test_what_the_last_attempt_ended_with_is_kept(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    chain(tmp_path, "newer", day=9)
    used = chain(tmp_path, "used", day=1)
    rows = tuple(
        TaskRun(task=s, stage=s, phase=Phase.SUCCEEDED, tries=1, artifact=uri)
        for s, uri in used.items()
    )
    end(attempts, tasks=rows)
    begun = begin(attempts, options(first="image"))
    assert begun.kept == {stage: used[stage] for stage in ("convert", "flag", "calibrate")}


@pytest.mark.parametrize("first", STAGES)
def test_without_an_outcome_the_newest_chain_is_kept(tmp_path: Path, first: str) -> None:
    attempts = store_with(tmp_path, record())
    chain(tmp_path, "old", day=1)
    newest = chain(tmp_path, "new", day=2)
    wanted = STAGES[: STAGES.index(first)]
    assert keep(attempts, ID, first) == {stage: newest[stage] for stage in wanted}


def test_what_is_gone_cannot_be_kept(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    end(attempts)
    uris = chain(tmp_path, "x")
    (Path(uris["flag"]) / MANIFEST).unlink()
    with pytest.raises(
        UsageError, match="expected artifacts of convert, flag, calibrate, found not all"
    ):
        begin(attempts, options(first="image"))
    # Nothing was begun.
    assert attempts.list_attempts(ID) == [1]
    assert attempts.read_claim(f"{ID}-a2") is None


def test_from_the_first_stage_on_nothing_of_before_is_read(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    attempts.store.put(f"runs/{ID}-a1/outcome.json", b"of another version")
    assert keep(attempts, ID, "convert") == {}


class _Late(AttemptStore):
    """Watch puts its record between our claim and ours."""

    def take(self, claim: Claim) -> bool:
        taken = super().take(claim)
        self.store.create(
            f"groups/{ID}-a2.json", record(attempt=2, subbands=16).model_dump_json().encode()
        )
        return taken


def test_a_late_subband_is_not_lost(tmp_path: Path) -> None:
    end(store_with(tmp_path, record(subbands=15)))
    chain(tmp_path, "x")
    begun = begin(_Late(open_store(str(tmp_path))), options(first="image"))
    # The attempt has 16 subbands, so what was made of 15 is not kept.
    assert (begun.attempt, dict(begun.kept)) == (2, {})
    latest = AttemptStore(open_store(str(tmp_path))).read_latest(ID)
    assert latest is not None
    assert latest.record.complete


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["begin", "again", "end", "event"]), st.integers(0, 3)),
        max_size=12,
    )
)
def test_in_any_order_one_workflow_has_an_attempt(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]
) -> None:
    attempts = store_with(tmp_path_factory.mktemp("store"), record())
    owners: dict[int, set[str]] = {}
    for move, who in moves:
        latest = attempts.read_latest(ID)
        assert latest is not None
        number, uid = latest.record.attempt, f"u{who}"
        if move in {"begin", "again"}:
            try:
                owners.setdefault(begin(attempts, options(uid=uid)).attempt, set()).add(uid)
            except UsageError:
                assert latest.claim is not None
                assert latest.outcome is None
        elif move == "event":
            if claim(attempts, Claim(run=f"{ID}-a{number}", uid=uid, workflow="w", at=NOW)).claimed:
                owners.setdefault(number, set()).add(uid)
        elif latest.claim is not None and latest.outcome is None:
            end(attempts, number, latest.claim.uid)
    assert all(len(uids) == 1 for uids in owners.values())
    assert attempts.list_attempts(ID) == list(range(1, len(attempts.list_attempts(ID)) + 1))


# select and strips


def wanted(attempts: AttemptStore, first: str, last: str, *, redo: bool = False) -> list[str]:
    return select(
        attempts.store, SelectOptions(store="x", first_day=first, last_day=last, redo=redo)
    )


def test_groups_of_the_days_that_nobody_began(tmp_path: Path) -> None:
    ids = ["20260124t235959", "20260125t000000", ID, "20260126t235959", "20260127t000000"]
    attempts = store_with(tmp_path, *(record(one) for one in ids), record(ID, 2))
    assert wanted(attempts, "2026-01-25", "2026-01-26") == [
        "20260125t000000-a1",
        f"{ID}-a2",
        "20260126t235959-a1",
    ]
    assert wanted(attempts, ID, ID) == [f"{ID}-a2"]
    assert wanted(attempts, "2026-01-25", ID) == ["20260125t000000-a1", f"{ID}-a2"]


def test_what_is_done_is_left_alone_unless_redone_and_what_runs_always(tmp_path: Path) -> None:
    running = "20260125t000000"
    attempts = store_with(tmp_path, record(), record(running), record("20260125t100000"))
    end(attempts)
    attempts.write_claim(Claim(run=f"{running}-a1", uid="u", workflow="w", at=NOW))
    assert wanted(attempts, "2026-01-25", "2026-01-25") == ["20260125t100000-a1"]
    assert wanted(attempts, "2026-01-25", "2026-01-25", redo=True) == [
        "20260125t100000-a1",
        f"{ID}-a1",
    ]


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("2026-01-26", "2026-01-25", "expected 2026-01-26 or later, found 2026-01-25"),
        ("2026-02-30", "2026-03-01", "expected YYYY-MM-DD, found 2026-02-30"),
    ],
)
def test_wrong_days_are_named(tmp_path: Path, first: str, last: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        wanted(store_with(tmp_path), first, last)


@given(count=st.integers(0, 4 * CHUNK))
def test_chunks_hold_each_group_once(count: int) -> None:
    ids = [
        (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=309 * n)).strftime("%Y%m%dt%H%M%S")
        for n in range(count)
    ]
    made_of = chunks([f"{one}-a1" for one in ids])
    spread = [[one for one in ids if chunk["first"] <= one <= chunk["last"]] for chunk in made_of]
    assert [one for part in spread for one in part] == ids
    assert all(1 <= len(part) <= CHUNK for part in spread)


def test_strips_are_named_once(tmp_path: Path) -> None:
    old = record("20250101t000000", dec=-5.2)
    attempts = store_with(
        tmp_path,
        old,
        record(),
        record("20260125t230000", dec=33.1),
        record("20260126t000000", dec=None),
    )
    assert observed(attempts.store, None) == [
        {"strip": "-5.2", "epoch": "dec-m05.2"},
        {"strip": "33.0", "epoch": "dec-p33.0"},
    ]
    assert [one["epoch"] for one in observed(attempts.store, datetime(2026, 1, 1, tzinfo=UTC))] == [
        "dec-p33.0"
    ]


@pytest.mark.parametrize("step", [-1, 0, 499_999, 500_000])
def test_strips_since_a_moment_are_those_of_the_groups_begun_then(
    tmp_path: Path, step: int
) -> None:
    since = datetime(2026, 1, 25, 22, 26, 4, 500_000, tzinfo=UTC)
    t0 = since + timedelta(microseconds=step)
    attempts = store_with(tmp_path, record(group_id(t0)).model_copy(update={"t0": t0}))
    assert len(observed(attempts.store, since)) == (step >= 0)


def test_old_records_are_not_read_for_a_night(tmp_path: Path) -> None:
    attempts = store_with(tmp_path, record())
    attempts.store.put("groups/20250101t000000-a1.json", b"of another version")
    assert len(observed(attempts.store, datetime(2026, 1, 1, tzinfo=UTC))) == 1


def test_the_commands_hand_their_answers_over(tmp_path: Path) -> None:
    attempts = store_with(tmp_path / "s", record())
    end(attempts)
    store = ["--store", str(tmp_path / "s")]
    begun = run(tmp_path, "begin", *store, "--group", ID, "--uid", "u", "--workflow", "w")
    assert begun == {"attempt": "2", **dict.fromkeys(STAGES[:-1], "")}
    end(attempts, 2, "u")
    days = ["--first-day", "2026-01-25", "--last-day", "2026-01-25"]
    whole = json.dumps([{"first": ID, "last": ID}])
    assert run(tmp_path, "select", *store, *days) == {"chunks": "[]", "new": "[]", "again": "[]"}
    again = run(tmp_path, "select", *store, *days, "--redo", "true")
    assert again == {"chunks": whole, "new": "[]", "again": json.dumps([f"{ID}-a2"])}
    assert json.loads(run(tmp_path, "strips", *store)["strips"]) == [
        {"strip": "33.0", "epoch": "dec-p33.0"}
    ]


def run(folder: Path, command: str, *words: str) -> dict[str, str]:
    """Run a command as a process; return what it handed over beside its summary."""
    handed = folder / command
    program = str(Path(sys.executable).with_name("contimg"))
    done = subprocess.run(
        [program, command, *words],
        env={"CONTIMG_OUTPUTS": str(handed)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = {
        path.name: path.read_text() for path in handed.iterdir() if path.name != "summary.json"
    }
    for path in handed.iterdir():
        path.unlink()
    return files
