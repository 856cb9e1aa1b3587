"""contimg claim and contimg record, as the first and the last pod of a workflow run them."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import certifi
import pytest

from argo_nodes import node, said, workflow
from commands import contimg
from contimg.records.groups import GroupRecord
from contimg.records.schemas.runs import GROUPS, STAGE_RUNS
from contimg.runtime.errors import Exit
from contimg.runtime.manifest import Usage
from contimg.runtime.store import Store, open_store
from contimg_runs.argo import EngineError, find_kubernetes_api
from contimg_runs.attempt_store import AttemptStore, table_key
from contimg_runs.options import ClusterOptions
from listener import WORKFLOWS, Listener, serve_workflows
from manifests import make_manifest

CONTIMG = Path(sys.executable).parent / "contimg"
"""The program itself, where many run at the same time."""
ID = "20260125t222605"
RUN, WF = f"{ID}-a1", f"contimg-{ID}-a1"
T0 = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
OWN = ("--run", RUN, "--uid", "u", "--workflow", "w")


@pytest.fixture
def store(any_root: str) -> Store:
    """A store with one complete group."""
    opened = open_store(any_root)
    add(opened)
    return opened


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    """A directory with one complete group that a workflow has claimed."""
    opened = open_store(str(tmp_path / "disk"))
    add(opened)
    claim(opened, "u1")
    return opened


def add(store: Store, attempt: int = 1) -> None:
    record = GroupRecord(id=ID, attempt=attempt, t0=T0, duration_s=296.3, dec_deg=33.0, subbands=())
    assert AttemptStore(store).write(record)


def claim(store: Store, uid: str, run: str = RUN, **more: Any) -> dict[str, Any]:
    own = ("--run", run, "--uid", uid, "--workflow", f"contimg-{run}")
    return contimg("claim", "--store", store.root, *own, **more)


def record(store: Store, uid: str, *words: str, run: str = RUN, **more: Any) -> dict[str, Any]:
    status = more.pop("status", "Succeeded")
    own = ("--run", run, "--uid", uid, "--workflow", WF, "--status", status)
    return contimg("record", "--store", store.root, *own, *words, **more)


def group_row(store: Store) -> Any:
    (row,) = GROUPS.read(store.read(table_key("groups", ID, ID)), "").to_pylist()
    return row


def stage_rows(store: Store, run: str = RUN, day: str = ID) -> list[Any]:
    return STAGE_RUNS.read(store.read(table_key("stage_runs", day, run)), "").to_pylist()


def test_claim_is_given_to_first_workflow_only(store: Store, tmp_path: Path) -> None:
    first = claim(store, "u1", outputs=tmp_path / "o1")
    assert (first["claimed"], first["group"]) == (True, f"{store.root}/groups/{RUN}.json")
    assert (tmp_path / "o1/claimed").read_text() == "true"
    other = claim(store, "u2", outputs=tmp_path / "o2")
    assert (other["claimed"], other["reason"]) == (False, f"already done by {WF} (u1)")
    assert (tmp_path / "o2/claimed").read_text() == "false"
    assert claim(store, "u1")["claimed"] is True, "a pod that was tried again"
    row = group_row(store)
    assert (row["state"], row["workflow"]) == ("in progress", WF)
    assert (row["n_subbands"], row["attempt"]) == (16, 1)


def test_claim_by_many_processes_is_given_to_one(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    add(store)
    argv = [str(CONTIMG), "claim", "--store", store.root, "--run", RUN, "--workflow", WF, "--uid"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    claims = [subprocess.Popen([*argv, f"u{n}"], **pipes) for n in range(4)]
    answer = [json.loads(one.communicate(timeout=60)[0])["claimed"] for one in claims]
    assert sorted(answer) == [False, False, False, True]


def test_claim_after_outcome_is_refused(store: Store) -> None:
    claim(store, "u1")
    record(store, "u1")
    assert claim(store, "u1")["reason"] == "already recorded as succeeded"


def test_claim_of_replaced_attempt_is_refused(store: Store) -> None:
    add(store, attempt=2)
    assert claim(store, "u1")["reason"] == "attempt 2 has replaced it"
    assert claim(store, "u1", run=f"{ID}-a2")["claimed"] is True


@pytest.mark.parametrize(
    ("run", "known"), [("20260101t000000-a1", "no attempt"), (f"{ID}-a7", "attempts 1")]
)
def test_claim_of_unknown_attempt_names_known(store: Store, run: str, known: str) -> None:
    answer = claim(store, "u", run=run, code=Exit.USAGE)["message"]
    problem = f"There is no record of this attempt; the group has {known}"
    assert f"groups/{run}.json: {problem}" in answer


@pytest.mark.parametrize("run", ["", "x", ID, f"{ID}-a0", f"../{RUN}"])
def test_claim_refuses_what_is_not_an_attempt(tmp_path: Path, run: str) -> None:
    answer = contimg("claim", "--store", str(tmp_path), *OWN[2:], "--run", run, code=Exit.USAGE)
    assert "--run" in answer["message"]


def test_claim_of_other_version_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    add(store)
    store.put(f"runs/{RUN}/claim.json", b'{"schema_version": 2}')
    answer = claim(store, "u", code=Exit.BAD_INPUT)["message"]
    assert f"runs/{RUN}/claim.json: This is not a Claim of this version" in answer


def test_record_of_success_is_written_once(store: Store, tmp_path: Path) -> None:
    claim(store, "u1")
    assert record(store, "u1", outputs=tmp_path / "o")["outcome"] == "succeeded"
    assert (tmp_path / "o/outcome").read_text() == "succeeded"
    assert group_row(store)["state"] == "completed"
    before = store.read(f"runs/{RUN}/outcome.json")
    assert record(store, "u1", status="Failed")["outcome"] == "succeeded", "what was recorded stays"
    assert store.read(f"runs/{RUN}/outcome.json") == before


def test_record_by_workflow_without_claim_is_ignored(store: Store, tmp_path: Path) -> None:
    answer = record(store, "u1", outputs=tmp_path / "o")
    assert (answer["outcome"], answer["reason"]) == ("none", "it was never claimed")
    claim(store, "u1")
    assert record(store, "u2")["reason"] == f"{WF} (u1) has it"
    assert not store.exists(f"runs/{RUN}/outcome.json")


def test_record_of_failure_keeps_code_and_reason(store: Store) -> None:
    claim(store, "u1")
    message = "Error (exit code 12): sb03.hdf5: expected"
    failures = [{"displayName": "convert", "message": message, "templateName": "convert"}]
    record(store, "u1", "--failures", json.dumps(json.dumps(failures)), status="Failed")
    kept, row = json.loads(store.read(f"runs/{RUN}/outcome.json")), group_row(store)
    assert (kept["phase"], kept["blame"], kept["exit"]) == ("failed", "data", 12)
    assert (row["state"], row["exit"]) == ("failed", 12)
    assert kept["reason"] == row["reason"] == "convert: sb03.hdf5: expected"
    (stage,) = stage_rows(store)
    assert (stage["task"], stage["state"], stage["exit"]) == ("convert", "failed", 12)


def test_record_finds_attempt_of_workflow_by_uid(store: Store) -> None:
    add(store, attempt=2)
    claim(store, "mine", run=f"{ID}-a2")
    assert record(store, "mine", "--group", ID, run="")["run"] == f"{ID}-a2"
    assert store.exists(f"runs/{ID}-a2/outcome.json")


def test_record_of_other_workflow_writes_stages_only(store: Store) -> None:
    answer = record(store, "u9", "--pipeline", "epoch", "--group", ID, run="")
    assert (answer["run"], answer["outcome"]) == (WF, "succeeded")
    today = f"{datetime.now(UTC):%Y%m%d}"
    assert stage_rows(store, WF, today) == []
    assert not list(store.entries("runs/"))


def test_record_again_completes_rows(store: Store) -> None:
    claim(store, "u1")
    record(store, "u1")
    store.delete(table_key("stage_runs", ID, RUN))
    store.delete(table_key("groups", ID, ID))
    record(store, "u1")
    assert group_row(store)["state"] == "completed"
    assert stage_rows(store) == []


def test_record_of_unknown_attempt_is_refused(store: Store) -> None:
    answer = record(store, "u", run=f"{ID}-a4", code=Exit.USAGE)
    assert "There is no record of this attempt; the group has attempts 1" in answer["message"]


@pytest.mark.usefixtures("moto_root")
@pytest.mark.parametrize(
    "command", [("claim", *OWN), ("record", *OWN, "--status", "Succeeded")], ids=["claim", "record"]
)
def test_unusable_stores_are_named(tmp_path: Path, s3_environment: Any, command: Any) -> None:
    def refusal(root: str, code: Exit = Exit.USAGE) -> Any:
        return contimg(*command, "--store", root, code=code)["message"]

    assert "gone: The directory of the store is missing" in refusal(str(tmp_path / "gone"))
    assert "There is no bucket no-such-bucket (NoSuchBucket)" in refusal("s3://no-such-bucket/x")
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Could not connect" in refusal("s3://contimg/x", Exit.STORE_UNREACHABLE)


def test_wrong_credentials_are_named(rclone_root: str, s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    s3_environment.setenv("AWS_SECRET_ACCESS_KEY", "another")
    answer = contimg("claim", "--store", rclone_root, *OWN, code=Exit.USAGE)["message"]
    assert "S3 refused access" in answer


def artifact(store: Store, name: str, created: datetime, usage: Usage | None) -> str:
    manifest = make_manifest(name, created, seconds={"work": 40.0}, usage=usage)
    store.put(f"products/{name}/k/manifest.json", manifest.model_dump_json().encode())
    return f"{store.root}/products/{name}/k"


def pod(name: str, minute: int, uri: str = "", phase: str = "Succeeded", **more: Any) -> Any:
    start, end = (f"2026-01-26T01:{at:02d}:00Z" for at in (minute, minute + 3))
    own = {"startedAt": start, "finishedAt": end, "outputs": said(uri)}
    own["templateRef"] = {"name": f"contimg-{name}", "template": "main"}
    return node(WF, f"process.{name}", "Pod", phase, **{**own, **more})


def record_with_cluster(store: Store, listener: Listener, **more: Any) -> dict[str, Any]:
    return record(store, "u1", "--api", listener.url, "--namespace", "radio", **more)


def test_record_takes_time_and_memory_from_manifests(store: Store, listener: Listener) -> None:
    claim(store, "u1")
    start = datetime(2026, 1, 26, 1, 0, tzinfo=UTC)
    usage = Usage(wall_s=90.0, cpu_s=170.5, peak_memory_bytes=3 << 30)
    made = artifact(store, "convert", start + timedelta(seconds=100), usage)
    old = artifact(store, "flag", start - timedelta(days=3), usage)
    message = "Error (exit code 17): noise"
    failed = pod("image", 12, phase="Failed", message=message, outputs={"exitCode": "17"})
    pods = (pod("convert", 0, made), pod("flag", 6, old), failed)
    serve_workflows(listener, workflow(WF, "Running", *pods, uid="u1", template="contimg-group"))
    answer = record_with_cluster(store, listener, status="Failed")
    assert answer["reason"] == "process-image: noise"
    convert, flag, image = stage_rows(store)
    assert (convert["queue_s"], convert["wall_s"], convert["cpu_s"]) == (10.0, 90.0, 170.5)
    assert convert["peak_memory_bytes"] == 3 << 30
    assert (convert["pipeline"], convert["group"]) == ("group", ID)
    assert (convert["attempt"], convert["retries"]) == (1, 0)
    assert (flag["cached"], flag["wall_s"], flag["cpu_s"]) == (True, None, None)
    assert (image["state"], image["exit"], image["reason"]) == ("failed", 17, "noise")
    assert image["artifact"] is None
    assert convert["mjd_ended"] - convert["mjd_started"] == pytest.approx(180 / 86400, abs=1e-8)
    assert group_row(store)["exit"] == 17


@pytest.mark.parametrize("answer", [403, 404, 500])
def test_record_without_cluster_succeeds(disk: Store, listener: Listener, answer: int) -> None:
    listener.pages[f"{WORKFLOWS}/{WF}"] = (answer, {})
    assert record_with_cluster(disk, listener)["outcome"] == "succeeded"


def test_record_ignores_other_workflow_of_same_name(disk: Store, listener: Listener) -> None:
    serve_workflows(listener, workflow(WF, "Running", pod("convert", 0), uid="u2"))
    record_with_cluster(disk, listener)
    assert stage_rows(disk) == []


def test_record_without_artifact_or_usage_has_rows(disk: Store, listener: Listener) -> None:
    bare = artifact(disk, "flag", datetime(2026, 1, 26, 2, tzinfo=UTC), None)
    pods = (pod("convert", 0, f"{disk.root}/gone"), pod("flag", 6, bare))
    serve_workflows(listener, workflow(WF, "Running", *pods, uid="u1"))
    record_with_cluster(disk, listener)
    found = [(row["wall_s"], row["cpu_s"]) for row in stage_rows(disk)]
    assert found == [(None, None), (40.0, None)]


def test_pod_finds_kubernetes_api(tmp_path: Path) -> None:
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    anywhere = ClusterOptions()
    assert find_kubernetes_api(env, anywhere, tmp_path) is None, "no token is mounted"
    (tmp_path / "token").write_text("one\n")
    (tmp_path / "namespace").write_text("radio")
    with pytest.raises(EngineError, match=r"The certificate .*ca\.crt cannot be read"):
        find_kubernetes_api(env, anywhere, tmp_path)
    (tmp_path / "ca.crt").write_text(Path(certifi.where()).read_text())
    found = find_kubernetes_api(env, anywhere, tmp_path)
    assert found is not None
    assert (found.url, found.namespace) == ("https://10.0.0.1:6443", "radio")
    other, six = ClusterOptions(namespace="other"), {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    found = find_kubernetes_api(six, other, tmp_path)
    assert found is not None
    assert (found.url, found.namespace) == ("https://[fd00::1]:443", "other")
    assert find_kubernetes_api({}, anywhere, tmp_path) is None
