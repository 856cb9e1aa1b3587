"""The sweep: each decision, races too rare for random histories, and the command over HTTP."""

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from argo_nodes import workflow
from commands import contimg
from contimg.records.runs import Claim, Phase
from contimg.records.schemas.runs import GROUPS, GroupState
from contimg.runtime.errors import Exit
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import AttemptStore, table_key
from contimg_runs.options import SweepOptions
from contimg_runs.sweep import Action
from listener import WORKFLOWS, Listener, serve_workflows
from watched_world import GRACE_S, T0, TTL_S, Group, World

ID = "20260125t222605"
CLAIM = b'{"run":"%s","uid":"u","workflow":"w","at":"2026-01-27T00:00:00Z"}'
A1, A2, A3 = (f"{ID}-a{n}" for n in (1, 2, 3))
RULES = SweepOptions(store="memory", days=0)


def world(coming: int = 16, **rules: Any) -> World:
    """A world whose one group has landed, was recorded and posted."""
    made = World([Group(T0, list(range(coming)))], RULES.model_copy(update=rules))
    made.land_all()
    made.wait(0 if coming == 16 else 901)
    made.look()
    return made


@pytest.fixture
def made() -> World:
    return world()


def late(made: World) -> World:
    """Let the last subband land after the record without it."""
    made.groups[0].coming = [15]
    made.land(0)
    return made


def fail(made: World, code: int) -> None:
    """Let the first workflow fail and be recorded."""
    made.start()
    made.work(0, code)
    made.work(0)


def phases(made: World) -> list[Phase | None]:
    return [outcome.phase if outcome else None for _, outcome in made.attempts(0)]


def state(made: World) -> object:
    (row,) = GROUPS.read(made.store.read(table_key("groups", ID, ID)), "").to_pylist()
    return row["state"]


def test_unclaimed_attempt_is_posted_again_with_doubling_waits(made: World) -> None:
    gaps, last = [], made.now
    for _ in range(60):
        made.lose(0)
        made.sweep(after_s=300)
        if made.swept.posted:
            gaps.append((made.now - last).total_seconds())
            last = made.now
    assert gaps == [600, 1200, 2400, 4800]
    assert made.store.read(f"runs/{A1}/posted.json") == b'{"times":4}'


def test_lost_workflow_is_closed_and_next_attempt_begins(made: World) -> None:
    made.start()
    made.vanish(0)
    made.sweep(after_s=GRACE_S)
    assert (made.swept.lost, made.swept.restarted) == ([A1], [A2])
    assert [record.name for record in made.bus] == [A2]
    assert state(made) == GroupState.RESUMING
    made.settle()
    assert phases(made) == [Phase.LOST, Phase.SUCCEEDED]
    assert state(made) == GroupState.COMPLETED
    assert [record.retries for record, _ in made.attempts(0)] == [0, 1]


@pytest.mark.parametrize("claimed", [True, False], ids=["running", "waiting"])
def test_living_workflow_is_left_alone(made: World, *, claimed: bool) -> None:
    made.deliver(0)
    if claimed:
        made.work(0)
    for _ in range(5):
        made.sweep(after_s=86400)
        assert (made.swept.posted, made.swept.lost, made.swept.left) == ([], [], 1)
    assert phases(made) == [None]


def test_outcome_missed_by_exit_handler_is_written(made: World) -> None:
    made.start()
    made.work(0)
    made.work(0, code=137)  # the exit handler dies
    assert phases(made) == [None]
    made.sweep()
    assert (made.swept.recorded, phases(made)) == ([A1], [Phase.SUCCEEDED])
    assert state(made) == GroupState.COMPLETED


def test_workflow_ended_before_claim_is_lost_and_next_attempt_begins(made: World) -> None:
    made.deliver(0)
    made.flows[0].step, made.flows[0].phase, made.flows[0].ended = "over", "Error", made.now
    made.sweep()
    assert (made.swept.lost, made.swept.restarted) == ([A1], [A2])
    assert AttemptStore(made.store).read(Claim, A1) is not None
    made.flows[0].step = "claim"  # were it to come back, it would be refused
    made.start()
    assert made.flows[0].step == "record"


@pytest.mark.parametrize(
    ("code", "again"), [(12, False), (70, False), (20, True), (137, True), (22, True)]
)
def test_only_infrastructure_failures_are_restarted(made: World, code: int, *, again: bool) -> None:
    fail(made, code)
    made.sweep()
    assert phases(made)[0] is Phase.FAILED
    assert made.swept.restarted == ([A2] if again else [])
    assert state(made) == (GroupState.RESUMING if again else GroupState.FAILED)


def test_restarts_end_after_given_number() -> None:
    made = world(retries=2)
    for _ in range(4):
        fail(made, 20)
        made.sweep()
    assert phases(made) == [Phase.FAILED] * 3
    assert made.swept.given_up == {A3: "it was started again 2 times"}
    assert state(made) == GroupState.FAILED


def test_late_subband_resets_number_of_retries() -> None:
    made = world(coming=15, retries=1)
    fail(made, 20)
    made.sweep()
    late(made).look()
    found = [(record.retries, record.complete) for record, _ in made.attempts(0)]
    assert found == [(0, False), (1, False), (0, True)]
    made.settle()
    assert phases(made) == [Phase.FAILED, Phase.SUPERSEDED, Phase.SUCCEEDED]


def test_lost_reprocessing_after_success_is_not_restarted(made: World) -> None:
    made.settle()
    attempts = AttemptStore(made.store)
    (record, outcome) = made.attempts(0)[0]
    assert outcome is not None
    attempts.write(record.model_copy(update={"attempt": 2}))
    attempts.write(Claim(run=A2, uid="person", workflow="contimg-reprocess-x", at=made.now))
    made.sweep(after_s=GRACE_S)
    assert (made.swept.lost, made.swept.restarted) == ([A2], [])
    assert made.swept.given_up == {A2: "an earlier attempt at the same subbands succeeded"}


def test_claim_without_record_is_ignored(made: World) -> None:
    made.store.put(f"runs/{A2}/claim.json", b"{}")
    made.settle()
    assert phases(made) == [Phase.SUCCEEDED]


def test_days_limit_decisions(made: World) -> None:
    made.wait(86400 * 40)
    last = [made.new_sweeper(RULES.model_copy(update={"days": days})) for days in (30, 50)]
    due = [[one.action for _, one in sweeper.decide_all(made.now)] for sweeper in last]
    assert due == [[], [Action.POST]]


def test_failed_post_stops_posts_of_this_pass_only() -> None:
    starts = [T0 + n * timedelta(seconds=400) for n in range(3)]
    made = World([Group(t0, list(range(16))) for t0 in starts], RULES)
    made.land_all()
    made.look()
    made.bus.clear()
    made.bus_up = False
    made.wait(GRACE_S)
    sweeper = made.new_sweeper()
    done = sweeper.run_pass(made.now)
    assert (done.posted, sweeper.failure is not None) == ([], True)
    made.bus_up = True
    assert len(sweeper.run_pass(made.now).posted) == 3
    assert sweeper.failure is None


def test_missing_row_is_written_again(made: World) -> None:
    made.settle()
    made.store.objects.pop(table_key("groups", ID, ID))
    made.sweep()
    assert state(made) == GroupState.COMPLETED


def test_old_event_after_later_attempt_runs_nothing() -> None:
    made = late(world(coming=15))
    made.look()
    made.deliver(1)  # the second attempt first
    for _ in range(3):
        made.work(0)
    made.deliver(0)
    made.start()
    assert made.successes.keys() == {A2}
    assert made.flows[-1].step == "record"


def test_claim_during_sweep_keeps_attempt() -> None:
    made = late(world(coming=15))
    made.look()
    # The first attempt is found superseded; before it is taken for that, its workflow claims.
    name = made.bus[0].name
    claim_now = partial(made.store.put, f"runs/{name}/claim.json", CLAIM % name.encode())
    made.disturbed(made.sweep, 2, claim_now)
    assert made.swept.superseded == []
    assert phases(made)[0] is None


def test_workflow_started_during_sweep_is_not_lost() -> None:
    made = world(grace_s=0)
    made.disturbed(made.sweep, 1, made.start)
    assert made.swept.lost == []
    made.settle()
    assert phases(made) == [Phase.SUCCEEDED]


def test_outcome_during_sweep_stands(made: World) -> None:
    made.start()
    made.work(0)
    flow = made.flows.pop()  # deleted, but its exit handler's pod still ends
    made.wait(GRACE_S)
    made.disturbed(made.sweep, 2, lambda: made.record(flow, 0))
    assert (made.swept.lost, made.swept.restarted) == ([], [])
    assert phases(made) == [Phase.SUCCEEDED]


def test_fresh_claim_without_workflow_is_left_alone(made: World) -> None:
    made.wait(GRACE_S)
    made.start()
    made.vanish(0)
    made.sweep(after_s=GRACE_S - 1)
    assert (made.swept.lost, made.swept.left) == ([], 1)
    made.sweep(after_s=1)
    assert made.swept.lost == [A1]


def test_next_attempt_recorded_by_watch_is_posted_by_watch() -> None:
    made = world(coming=15)
    fail(made, 20)
    late(made)
    # The sweep's workflows are known, and it is about to record the second attempt.
    made.disturbed(made.sweep, 2, made.look)
    assert made.swept.restarted == []
    assert [record.name for record in made.events] == [A1, A2]
    assert [record.complete for record, _ in made.attempts(0)] == [False, True]


def test_of_two_watchers_one_posts() -> None:
    made = World([Group(T0, list(range(16)))])
    made.land_all()
    made.disturbed(made.look, 1, lambda: made.new_watcher().run_pass(made.now))
    assert [record.name for record in made.events] == [A1]


def test_newer_row_is_not_replaced_by_older(made: World) -> None:
    made.start()
    flow = made.flows[0]
    made.work(0)
    # While the row "in progress" is on its way, the run ends and is recorded.
    refresh = partial(AttemptStore(made.store).refresh_row, ID)
    made.disturbed(refresh, 1, lambda: made.record(flow, 0))
    assert state(made) == GroupState.COMPLETED


def test_event_repeated_after_cleanup_runs_nothing(made: World) -> None:
    made.deliver(0, keep=True)
    for _ in range(3):
        made.work(0)
    made.wait(TTL_S + 1)
    assert made.flows == []
    made.start()
    assert [flow.step for flow in made.flows] == ["record"]
    made.settle()
    assert list(made.successes.values()) == [["uid1"]]


def sweep(root: str, listener: Listener, *words: str, code: int = 0) -> dict[str, Any]:
    own = ["--store", root, "--post", f"{listener.url}/group", "--days", "0", "--grace-s", "0"]
    api = ["--api", listener.url, "--namespace", "radio"] if "--workflows" not in words else []
    return contimg("sweep", *own, *api, *words, code=code)


@pytest.fixture
def root(any_root: str) -> str:
    """A store with one record that no workflow claimed."""
    for key, (data, _) in world().store.objects.items():
        open_store(any_root).put(key, data)
    return any_root


def test_sweep_posts_lost_event_and_leaves_running_workflow(root: str, listener: Listener) -> None:
    serve_workflows(listener)
    assert sweep(root, listener)["posted"] == [A1]
    name = f"contimg-{A1}"
    assert listener.heard == [{"group": ID, "attempt": 1, "run": A1, "name": name, "store": root}]
    accept = listener.asked[0][1]["Accept"]
    assert accept.startswith("application/json;as=PartialObjectMetadataList")
    serve_workflows(listener, workflow(name, "Running"))
    assert sweep(root, listener)["posted"] == []


def test_sweep_starts_next_attempt_of_lost_run(root: str, listener: Listener) -> None:
    open_store(root).put(f"runs/{A1}/claim.json", CLAIM % A1.encode())
    serve_workflows(listener, workflow("w", "Running", uid="another"))
    answer = sweep(root, listener, "--dry-run")
    assert answer["would"] == {A1: "mark lost"}
    assert listener.heard == []
    answer = sweep(root, listener)
    assert (answer["lost"], answer["restarted"]) == ([A1], [A2])
    assert [one["run"] for one in listener.heard] == [A2]
    outcome = json.loads(open_store(root).read(f"runs/{A1}/outcome.json"))
    assert outcome["reason"] == "workflow w (u) is gone and left no outcome"


def test_sweep_reads_all_pages_of_workflows(root: str, listener: Listener) -> None:
    items, url = [workflow(f"contimg-{A1}", "Running")], f"{WORKFLOWS}?limit=500"
    listener.pages[url] = (200, {"items": [], "metadata": {"continue": "more"}})
    listener.pages[f"{url}&continue=more"] = (200, {"items": items, "metadata": {}})
    assert sweep(root, listener)["left"] == 1


def test_sweep_with_event_source_down_fails(root: str, listener: Listener) -> None:
    listener.code = 503
    answer = sweep(root, listener, "--workflows", "none", code=Exit.STORE_UNREACHABLE)
    assert "/group: The event was refused with HTTP 503" in answer["message"]
    assert "EventSource" in answer["message"]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, Exit.USAGE, "The token lacks the permission: HTTP 403"),
        (401, Exit.USAGE, "The Kubernetes API does not accept the token: HTTP 401"),
        (404, Exit.USAGE, "Install Argo Workflows in the namespace"),
        (500, Exit.STORE_UNREACHABLE, "The Kubernetes API did not do this: HTTP 500"),
    ],
)
def test_cluster_refusal_is_explained(
    tmp_path: Path, listener: Listener, status: int, code: int, words: str
) -> None:
    listener.pages[f"{WORKFLOWS}?limit=500"] = (status, {})
    assert words in sweep(str(tmp_path), listener, code=code)["message"]


@pytest.mark.parametrize(
    ("store", "words", "problem"),
    [
        ("", ("--post", "http://127.0.0.1:9"), "--workflows none"),
        ("", ("--post", "http://127.0.0.1:9", "--api", "http://127.0.0.1:9"), "--namespace"),
        ("", (), "No --post URL is given"),
        ("", ("--post", "eventsource:12000"), "--post: String should match pattern"),
        ("gone", ("--workflows", "none"), "gone: The directory of the store is missing"),
    ],
)
def test_sweep_says_what_is_missing(tmp_path: Path, store: str, words: Any, problem: str) -> None:
    answer = contimg("sweep", "--store", str(tmp_path / store), *words, code=Exit.USAGE)
    assert problem in answer["message"]
