"""begin, select and strips: what a reprocessing, a backfill and a night begin with."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands import contimg
from contimg.records.groups import GroupRecord, Subband, group_id
from contimg.records.runs import Claim, Outcome, Phase, TaskRun
from contimg.runtime.errors import Exit, UsageError
from contimg.runtime.manifest import MANIFEST
from contimg.runtime.pipeline import Step
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import AttemptStore
from contimg_runs.claim import begin_attempt, claim_attempt, find_kept
from contimg_runs.options import CHUNK, BeginOptions, SelectOptions
from contimg_runs.pipelines import PROCESS_GROUP
from contimg_runs.select import list_strips, select_runs, split_into_chunks
from manifests import make_manifest

ID = "20260125t222605"
NOW = datetime(2026, 2, 1, tzinfo=UTC)
LAST = ("photometry", "report")
LINE = (*(s for s in PROCESS_GROUP.order if s in PROCESS_GROUP.before(LAST[0])), *LAST)
GROUP = replace(PROCESS_GROUP, steps=tuple(map(PROCESS_GROUP.step, LINE)))
"""The pipeline without the side branches that it may have."""
BRANCH = (
    Step("hello", inputs={"image": "image"}),
    Step("spectra", inputs={"ms": "convert", "notes": "hello"}),
)
SIDE = replace(GROUP, steps=(*GROUP.steps[:4], *BRANCH, *GROUP.steps[4:]))
"""The graph with a side branch: image → hello → spectra, beside photometry."""
INPUTS = {step.stage: dict(step.inputs) for step in SIDE.steps if step.stage != LINE[-1]}


def record(group: str = ID, attempt: int = 1, count: int = 16, dec: Any = 33.0) -> GroupRecord:
    t0 = datetime.strptime(group, "%Y%m%dt%H%M%S").replace(tzinfo=UTC)
    common: dict[str, Any] = {"id": group, "attempt": attempt, "t0": t0, "duration_s": 309.0}
    keys = [f"incoming/sb{n:02d}.hdf5" for n in range(count)]
    files = tuple(Subband(index=n, uri=k, size=1, modified=t0) for n, k in enumerate(keys))
    return GroupRecord(**common, dec_deg=dec, subbands=files, missing=tuple(range(count, 16)))


@pytest.fixture
def attempts(tmp_path: Path) -> AttemptStore:
    """A store with the record of one group."""
    return store_with(tmp_path, record())


@pytest.fixture
def ended(attempts: AttemptStore) -> AttemptStore:
    """The same; the first attempt at the group succeeded."""
    end(attempts)
    return attempts


def store_with(folder: Path, *records: GroupRecord) -> AttemptStore:
    attempts = AttemptStore(open_store(str(folder)))
    for one in records:
        assert attempts.write(one)
    return attempts


def claim(number: int, uid: str) -> Claim:
    run = f"{ID}-a{number}"
    return Claim(run=run, uid=uid, workflow=f"contimg-{run}", at=NOW)


def begin(attempts: AttemptStore, uid: str = "u1", first: str = "") -> tuple[int, dict[str, str]]:
    options = BeginOptions(store="", uid=uid, workflow=f"re-{uid}", group=ID, first=first)
    return begin_attempt(attempts, GROUP, options)


def end(attempts: AttemptStore, number: int = 1, uid: str = "u0", **artifacts: str) -> None:
    """Let an attempt be claimed and succeed with artifacts by stage."""
    owned = claim(number, uid)
    attempts.write(owned)
    good, pairs = Phase.SUCCEEDED, artifacts.items()
    tasks = [TaskRun(task=s, stage=s, phase=good, tries=1, artifact=uri) for s, uri in pairs]
    ids = owned.model_dump(include={"run", "workflow", "uid"})
    assert attempts.write(Outcome(**ids, phase=good, ended=NOW, tasks=tuple(tasks)))


def make_artifact(folder: Path, stage: str, key: str, day: int, **inputs: str) -> str:
    path = folder / "products" / ID / stage / key
    path.mkdir(parents=True)
    manifest = make_manifest(stage, NOW + timedelta(days=day), key, inputs)
    (path / MANIFEST).write_text(manifest.model_dump_json())
    return str(path)


def make_chain(folder: Path, key: str, day: int = 1, steps: Any = LINE[:-1]) -> dict[str, str]:
    """Leave artifacts of steps, each made from those before it."""
    made: dict[str, str] = {}
    for step in steps:
        inputs = {name: made[source] for name, source in INPUTS.get(step, {}).items()}
        made[step] = make_artifact(folder, step, key, day, **inputs)
    return made


def test_begin_claims_and_records_next_attempt(ended: AttemptStore) -> None:
    assert begin(ended) == (2, {})
    found = ended.read_latest(ID)
    assert found is not None
    assert found.record == record(attempt=2)
    assert found.claim is not None
    assert (found.claim.uid, found.claim.workflow) == ("u1", "re-u1")


def test_begin_by_retried_pod_gets_same_attempt(ended: AttemptStore) -> None:
    assert [begin(ended)[0] for _ in range(3)] == [2, 2, 2]
    assert ended.list_attempts(ID) == [1, 2]


@pytest.mark.parametrize(("owner", "numbers"), [("u1", [1, 2]), ("other", [1, 3])])
def test_begin_resumes_own_claim(ended: AttemptStore, owner: str, numbers: list[int]) -> None:
    ended.write(claim(2, owner))  # killed between claim and record
    assert begin(ended)[0] == numbers[-1]
    assert ended.list_attempts(ID) == numbers


def test_begun_attempt_is_not_claimed_by_event(ended: AttemptStore) -> None:
    begin(ended)
    assert claim_attempt(ended, claim(2, "event")) == "already done by re-u1 (u1)"
    assert claim_attempt(ended, claim(2, "u1")) == ""


def assert_refused(attempts: AttemptStore, words: str, first: str = "") -> None:
    before = attempts.list_attempts(ID)
    with pytest.raises(UsageError, match=words):
        begin(attempts, first=first)
    assert attempts.list_attempts(ID) == before
    assert attempts.read(Claim, f"{ID}-a2") is None


def test_begin_refuses_running_or_unknown_attempt(attempts: AttemptStore, tmp_path: Path) -> None:
    attempts.write(claim(1, "u0"))
    assert_refused(attempts, f"in progress: contimg-{ID}-a1 has it")
    unknown = store_with(tmp_path / "empty")
    assert_refused(unknown, f"groups/{ID}-a1.json: There is no record of this group")


def test_begin_keeps_artifacts_of_last_outcome(attempts: AttemptStore, tmp_path: Path) -> None:
    make_chain(tmp_path, "newer", day=9)
    used = make_chain(tmp_path, "used")
    end(attempts, **used)
    assert begin(attempts, first="image") == (2, {step: used[step] for step in LINE[:3]})


@pytest.mark.parametrize("first", LINE)
def test_newest_chain_is_kept(attempts: AttemptStore, tmp_path: Path, first: str) -> None:
    make_chain(tmp_path, "old", day=1)
    newest = make_chain(tmp_path, "new", day=2)
    kept = find_kept(attempts, GROUP, ID, first)
    assert kept == {step: newest[step] for step in LINE[: LINE.index(first)]}


@pytest.mark.parametrize("by_outcome", [True, False], ids=["outcome", "newest chain"])
@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("image", {"image", "hello", "spectra", "photometry", "report"}),
        ("photometry", {"photometry", "report"}),
        ("hello", {"hello", "spectra", "report"}),
        ("spectra", {"spectra", "report"}),
        ("report", {"report"}),
    ],
)
def test_other_branches_are_kept(
    attempts: AttemptStore, tmp_path: Path, first: str, again: set[str], *, by_outcome: bool
) -> None:
    made = make_chain(tmp_path, "x", steps=(*LINE[:4], "hello", "spectra", "photometry"))
    if by_outcome:
        end(attempts, **made)
    kept = find_kept(attempts, SIDE, ID, first)
    assert kept == {step: uri for step, uri in made.items() if step not in again}


def test_missing_side_branch_runs_again(attempts: AttemptStore, tmp_path: Path) -> None:
    line = make_chain(tmp_path, "x")
    assert find_kept(attempts, SIDE, ID, "hello") == line
    with pytest.raises(UsageError, match=r"Not all artifacts of .*hello.* exist"):
        find_kept(attempts, SIDE, ID, "spectra")


def test_side_branch_of_other_artifacts_is_not_kept(attempts: AttemptStore, tmp_path: Path) -> None:
    make_chain(tmp_path, "old", day=1, steps=(*LINE[:4], "hello"))
    newest = make_chain(tmp_path, "new", day=2)
    assert find_kept(attempts, SIDE, ID, "photometry") == {step: newest[step] for step in LINE[:4]}


def test_begin_refuses_missing_artifact_or_step(ended: AttemptStore, tmp_path: Path) -> None:
    uris = make_chain(tmp_path, "x")
    make_artifact(tmp_path, "flag", "of another calibration", 1, ms=uris["convert"])
    (Path(uris["flag"]) / MANIFEST).unlink()
    assert_refused(ended, "Not all artifacts of convert, flag, calibrate exist", "image")
    assert_refused(ended, "There is no step 'mosaic'; the steps are convert, flag", "mosaic")


@pytest.mark.parametrize("first", ["", "convert"])
def test_begin_from_first_step_reads_no_outcome(attempts: AttemptStore, first: str) -> None:
    attempts.store.put(f"runs/{ID}-a1/outcome.json", b"of another version")
    assert find_kept(attempts, GROUP, ID, first) == {}


class _LateSubband(AttemptStore):
    """Watch writes its record between our claim and our record."""

    def write(self, value: GroupRecord | Claim | Outcome) -> bool:
        taken = super().write(value)
        if isinstance(value, Claim):
            super().write(record(attempt=2))
        return taken


def test_begin_keeps_nothing_if_late_subband_came(tmp_path: Path) -> None:
    end(store_with(tmp_path, record(count=15)))
    make_chain(tmp_path, "x")
    late = _LateSubband(open_store(str(tmp_path)))
    assert begin(late, first="image") == (2, {})
    latest = late.read_latest(ID)
    assert latest is not None
    assert latest.record.complete


MOVES = st.tuples(st.sampled_from(["begin", "again", "end", "event"]), st.integers(0, 3))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=st.lists(MOVES, max_size=12))
def test_attempt_has_one_workflow(tmp_path_factory: Any, moves: list[tuple[str, int]]) -> None:
    attempts = store_with(tmp_path_factory.mktemp("store"), record())
    owners: dict[int, set[str]] = {}
    for move, who in moves:
        latest = attempts.read_latest(ID)
        assert latest is not None
        number, uid = latest.record.attempt, f"u{who}"
        if move in {"begin", "again"}:
            try:
                owners.setdefault(begin(attempts, uid)[0], set()).add(uid)
            except UsageError:
                assert latest.claim is not None
                assert latest.outcome is None
        elif move == "event":
            if not claim_attempt(attempts, claim(number, uid)):
                owners.setdefault(number, set()).add(uid)
        elif latest.claim is not None and latest.outcome is None:
            end(attempts, number, latest.claim.uid)
    assert all(len(uids) == 1 for uids in owners.values())
    numbers = attempts.list_attempts(ID)
    assert numbers == list(range(1, len(numbers) + 1))


OWN = {
    "claim": ("--run", f"{ID}-a1", "--uid", "u", "--workflow", "w"),
    "begin": ("--group", ID, "--uid", "u", "--workflow", "w"),
    "select": ("--first-day", ID, "--last-day", ID),
    "strips": (),
}


@pytest.mark.parametrize("command", OWN)
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--options", "{mosaic: {a: 1}}"), "There is no stage 'mosaic'"),
        (("--options", "{report: {teir: 1}}"), "report --teir"),
        (("--options", "{report: {"), "This is not YAML"),
        (("--options", "- report\n- x"), "A mapping of stages is expected"),
        (("--profile", "fast"), "There is no profile of this name"),
        (("--set", "teir=quicklook"), "has no shortcut 'teir'"),
        (("--set", "report.teir=x"), "report --teir"),
        (("--set", "tier"), "This is not a setting: 'tier'"),
        (("--pipeline", "mosaics"), "There is no pipeline of this name"),
    ],
)
def test_wrong_options_are_refused_before_claim(
    attempts: AttemptStore, tmp_path: Path, command: str, words: tuple[str, ...], problem: str
) -> None:
    given = (*OWN[command], "--store", str(tmp_path), *words)
    handed = tmp_path / "handed"
    assert problem in contimg(command, *given, code=Exit.USAGE, outputs=handed)["message"]
    assert [path.name for path in handed.glob("*")] == ["failure.json"]
    assert not list(attempts.store.entries("runs/"))


@pytest.mark.usefixtures("attempts")
def test_claim_hands_over_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = "{deep: {image: {tier: high_precision}, calibrate: {solve: never}}}"
    monkeypatch.setenv("CONTIMG_PROFILES", profile)
    words = ("--profile", "deep", "--options", "{image: {tier: development}}")
    shortcuts = ("--set", "tier=quicklook", "--set", "catalogue=")
    own = (*OWN["claim"], "--store", str(tmp_path))
    contimg("claim", *own, *words, *shortcuts, outputs=tmp_path / "handed")
    handed = (tmp_path / "handed/options").read_text()
    assert handed == '{"image":{"tier":"quicklook"},"calibrate":{"solve":"never"}}'


def test_begin_hands_over_options_and_artifacts(attempts: AttemptStore, tmp_path: Path) -> None:
    made = make_chain(tmp_path, "x")
    end(attempts, **made)
    own = (*OWN["begin"], "--store", str(tmp_path), "--first", "image")
    words = ("--options", "image: {tier: quicklook}\nflag: {rfi: 'off'}")
    contimg("begin", *own, *words, outputs=tmp_path / "handed")
    assert (tmp_path / "handed/attempt").read_text() == "2"
    assert json.loads((tmp_path / "handed/options").read_text()) == {
        "image": {"tier": "quicklook"},
        "flag": {"rfi": "off", "reuse": made["flag"]},
        "convert": {"reuse": made["convert"]},
        "calibrate": {"reuse": made["calibrate"]},
    }


def wanted(attempts: AttemptStore, first: str, last: str, *, redo: bool = False) -> list[str]:
    options = SelectOptions(store="x", first_day=first, last_day=last, redo=redo)
    return select_runs(attempts.store, options)


def test_select_lists_unclaimed_groups_of_days(tmp_path: Path) -> None:
    ids = ["20260124t235959", "20260125t000000", ID, "20260126t235959", "20260127t000000"]
    attempts = store_with(tmp_path, *(record(one) for one in ids), record(ID, 2))
    runs = ["20260125t000000-a1", f"{ID}-a2", "20260126t235959-a1"]
    assert wanted(attempts, "2026-01-25", "2026-01-26") == runs
    assert wanted(attempts, ID, ID) == [f"{ID}-a2"]
    assert wanted(attempts, "2026-01-25", ID) == ["20260125t000000-a1", f"{ID}-a2"]


def test_select_skips_finished_unless_redo(tmp_path: Path) -> None:
    running = "20260125t000000"
    attempts = store_with(tmp_path, record(), record(running), record("20260125t100000"))
    end(attempts)
    attempts.write(claim(1, "u").model_copy(update={"run": f"{running}-a1"}))
    assert wanted(attempts, "2026-01-25", "2026-01-25") == ["20260125t100000-a1"]
    runs = ["20260125t100000-a1", f"{ID}-a1"]
    assert wanted(attempts, "2026-01-25", "2026-01-25", redo=True) == runs


def test_select_refuses_wrong_days(attempts: AttemptStore) -> None:
    words = "The last day, 2026-01-25, is before the first, 2026-01-26"
    with pytest.raises(UsageError, match=words):
        wanted(attempts, "2026-01-26", "2026-01-25")
    with pytest.raises(UsageError, match="There is no day 2026-02-30"):
        wanted(attempts, "2026-02-30", "2026-03-01")


@given(count=st.integers(0, 4 * CHUNK))
def test_chunks_hold_each_group_once(count: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [f"{start + timedelta(seconds=309 * n):%Y%m%dt%H%M%S}" for n in range(count)]
    made_of = split_into_chunks([f"{one}-a1" for one in ids])
    spread = [[one for one in ids if chunk["first"] <= one <= chunk["last"]] for chunk in made_of]
    assert [one for part in spread for one in part] == ids
    assert all(1 <= len(part) <= CHUNK for part in spread)


def test_strips_are_listed_once(tmp_path: Path) -> None:
    old = record("20250101t000000", dec=-5.2)
    others = [record("20260125t230000", dec=33.1), record("20260126t000000", dec=None)]
    attempts = store_with(tmp_path, old, record(), *others)
    south, north = {"strip": "-5.2", "epoch": "dec-m05.2"}, {"strip": "33.0", "epoch": "dec-p33.0"}
    assert list_strips(attempts.store, None) == [south, north]
    # Old records are not read.
    attempts.store.put("groups/20250102t000000-a1.json", b"of another version")
    assert list_strips(attempts.store, datetime(2026, 1, 1, tzinfo=UTC)) == [north]


@pytest.mark.parametrize("step", [-1, 0, 499_999, 500_000])
def test_strips_are_of_groups_observed_since(tmp_path: Path, step: int) -> None:
    since = datetime(2026, 1, 25, 22, 26, 4, 500_000, tzinfo=UTC)
    t0 = since + timedelta(microseconds=step)
    attempts = store_with(tmp_path, record(group_id(t0)).model_copy(update={"t0": t0}))
    assert len(list_strips(attempts.store, since)) == (step >= 0)


def test_commands_hand_over_their_answers(ended: AttemptStore, tmp_path: Path) -> None:
    def run(command: str, *words: str) -> dict[str, str]:
        handed = tmp_path / command
        contimg(command, "--store", ended.store.root, *words, outputs=handed)
        files = [path for path in handed.iterdir() if path.name != "summary.json"]
        return {path.name: path.read_text() for path in files}

    assert run("begin", *OWN["begin"]) == {"attempt": "2", "options": "{}"}
    end(ended, 2, "u")
    lists = {"calibrators": "[]", "others": "[]", "new": "[]", "again": "[]"}
    assert run("select", *OWN["select"]) == lists
    whole = json.dumps([{"first": ID, "last": ID}])
    again = json.dumps([f"{ID}-a2"])
    redone = run("select", *OWN["select"], "--redo", "true")
    assert redone == {**lists, "others": whole, "again": again}
    assert json.loads(run("strips")["strips"]) == [{"strip": "33.0", "epoch": "dec-p33.0"}]


@pytest.mark.parametrize(
    ("only", "options", "calibrators", "new"),
    [
        ("all", "", ["20260125t011431"], ["20260125t000000", "20260125t011431", ID]),
        ("calibrators", "", ["20260125t011431"], ["20260125t011431"]),
        ("others", "", ["20260125t011431"], ["20260125t000000", ID]),
        ("calibrators", "{calibrate: {min_primary_jy: 17, min_bright_jy: 17}}", [], []),
    ],
)
def test_select_lists_calibrators_apart(
    tmp_path: Path, only: str, options: str, calibrators: list[str], new: list[str]
) -> None:
    # 3C48 (16 Jy) culminates at 01:14 UTC of that day.
    ids = ["20260125t000000", "20260125t011431", ID]
    attempts, handed = store_with(tmp_path / "store", *map(record, ids)), tmp_path / "out"
    store = attempts.store.root
    attempts.store.put(f"groups/{ID}-a1.json", b"of another version")  # its own run says so
    days = ("--first-day", "2026-01-25", "--last-day", "2026-01-25")
    contimg("select", "--store", store, *days, "--only", only, "--options", options, outputs=handed)
    chunks = {n: json.loads((handed / n).read_text()) for n in ("calibrators", "others")}
    assert chunks["calibrators"] == [{"first": one, "last": one} for one in calibrators]
    first = ids[0]
    assert chunks["others"] == [{"first": first, "last": ID}]
    assert json.loads((handed / "new").read_text()) == [f"{one}-a1" for one in new]


def test_resolve_options_leaves_out_stages_of_other_pipelines(tmp_path: Path) -> None:
    words = ("--pipeline", "epoch", "--options", "{image: {tier: quicklook}, normalize: {}}")
    answer = contimg("resolve-options", *words, outputs=tmp_path)
    assert answer["options"] == {"normalize": {}}
    assert (tmp_path / "options").read_text() == '{"normalize":{}}'
