"""What Argo's JSON says of a workflow's tasks, and what the end of a workflow means."""

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from argo_nodes import fnv, node, said, tried, workflow
from contimg.records.runs import FailureCause, Outcome, Phase, TaskRun, failure_cause
from contimg.runtime.errors import MEANING
from contimg_runs import node_status
from contimg_runs.node_status import judge_run, read_failures, read_run_state, read_task_runs
from contimg_runs.record import read_outcome
from contimg_runs.state import Status
from contimg_workflows.display import failure_reason

RECORDED = Path(__file__).parent / "recorded"
"""Workflows as Argo v4.1.2 gave them, without inputs."""
CONVERT = {"name": "contimg-convert", "template": "main"}
WF = "contimg-20260125t222605-a1"
STARTED = datetime(2026, 1, 25, 22, 0, tzinfo=UTC)
REASON = "incoming/x_sb03.hdf5: expected 145348600 bytes, found 0. Send it again."
BAD = f"Error (exit code 10): {REASON}"
KILLED = "killed, probably out of memory"
IMAGE = 'ImagePullBackOff: pulling "x"'


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text())


def test_pending_workflow_has_reason_and_start() -> None:
    waiting = read_run_state(workflow("w", "Pending", message="too many workflows are running"))
    assert (waiting.status, waiting.tasks) == (Status.PENDING, {})
    assert waiting.reason == "too many workflows are running"
    unseen = read_run_state(workflow("w", ""))
    assert (unseen.status, unseen.started) == (Status.PENDING, STARTED)


def test_finished_workflow_has_tasks_times_and_outputs() -> None:
    cached = tried("w", "convert", "Succeeded", outputs=said("s3://b/convert/1", cached="true"))
    retried = tried("w", "flag", "Failed", "Succeeded", outputs=said("s3://b/flag/2"))
    nodes = [node("w", "", "DAG", "Succeeded"), *cached, *retried]
    found = read_run_state(workflow("w", "Succeeded", *nodes))
    assert (found.status, found.pipeline) == (Status.DONE, "contimg-process-group")
    assert found.arguments == {"group": "20260125t220000"}
    assert found.ended is not None
    assert list(found.tasks) == ["convert", "flag"]
    convert, flag = found.tasks["convert"], found.tasks["flag"]
    assert (convert.status, convert.made_s) == (Status.CACHED, 12.5)
    assert convert.outputs["artifact"] == "s3://b/convert/1"
    assert (flag.status, flag.tries[1].exit, flag.reason) == (Status.DONE, 0, "")
    assert [one.seconds for one in flag.tries] == [90.0, 30.0]


@pytest.mark.parametrize(
    ("message", "shown", "reason", "code"),
    [
        (BAD, None, REASON, 10),
        (f"main: {BAD}", None, REASON, 10),
        ("Error (exit code 12): a: expected\n  baselines", None, "a: expected baselines", 12),
        ("Error (exit code 2): USAGE: s3://x: no bucket", None, "s3://x: no bucket", 2),
        ("OOMKilled (exit code 137)", f"exit code 137: {KILLED}", KILLED, 137),
        ("Error (exit code 99)", "exit code 99: unknown exit code 99", "unknown exit code 99", 99),
        ("pod deleted", None, "pod deleted", None),
        (IMAGE, None, IMAGE, None),
        ("x" * 9000, None, "x" * 500, None),
    ],
)
def test_argo_message_is_split(message: str, shown: str | None, reason: str, code: Any) -> None:
    nodes = tried("w", "convert", "Failed", message=message)
    failed = workflow("w", "Failed", *nodes, message="child 'w-1' failed")
    state = read_run_state(failed)
    assert failure_reason(state) == f"convert: {shown or reason}"
    assert state.tasks["convert"].tries[0].exit == code
    (task,) = read_task_runs(failed)
    assert (task.exit, task.reason) == (code, reason)
    (failure,) = read_failures(json.dumps([{"displayName": "convert", "message": message}]))
    assert (failure.exit, failure.reason) == (code, reason)


def test_failure_without_task_has_reason_of_workflow() -> None:
    message = 'workflowtemplates.argoproj.io "contimg-x" not found'
    found = read_run_state(workflow("w", "Error", message=message))
    assert (found.status, failure_reason(found)) == (Status.FAILED, message)


@pytest.mark.parametrize(
    ("phase", "message", "status", "reason"),
    [
        ("Failed", "Error (exit code 20): s3: no answer", Status.WAITING, "s3: no answer"),
        ("Pending", "Unschedulable: 0/1 nodes", Status.PENDING, "Unschedulable: 0/1 nodes"),
    ],
)
def test_running_task_is_as_last_try(phase: str, message: str, status: Status, reason: str) -> None:
    tries = tried("w", "convert", phase, phase="Running", message=message)
    task = read_run_state(workflow("w", "Running", *tries)).tasks["convert"]
    assert (task.status, task.reason) == (status, reason)


def test_task_with_false_condition_is_skipped() -> None:
    skipped = node("w", "process", "Skipped", "Skipped", message="when 'false' evaluated false")
    task = read_run_state(workflow("w", "Succeeded", skipped)).tasks["process"]
    assert (task.status, task.tries) == (Status.SKIPPED, [])


def test_recorded_failure_has_states_reason_and_pod() -> None:
    found, name = read_run_state(recorded("failed")), "contimg-20260125t011431-a1"
    assert (found.name, found.status) == (name, Status.FAILED)
    assert found.pipeline == "contimg-process-group"
    ran = {"convert": "done", "flag": "failed", "onExit-record": "done"}
    skipped = dict.fromkeys(list(found.tasks)[2:-1], "skipped")
    assert len(skipped) == 4
    assert {name: task.status.value for name, task in found.tasks.items()} == {**ran, **skipped}
    problem = "TarFile.extract() got an unexpected keyword argument 'filter'"
    assert failure_reason(found) == f"flag: TypeError: {problem}"
    convert, flag = found.tasks["convert"], found.tasks["flag"]
    folder = "s3://contimg/c-cli/products/20260125t011431/convert/"
    assert convert.outputs["artifact"].startswith(folder)
    assert (convert.outputs["cached"], convert.made_s, convert.tries[0].exit) == ("false", 8.899, 0)
    assert (flag.tries[0].exit, flag.tries[0].log) == (70, f"{name}-main-983264536")


def test_recorded_running_workflow_lists_tasks_to_come() -> None:
    found = read_run_state(recorded("running"))
    assert found.status is Status.RUNNING
    begin, *steps = found.tasks
    assert (begin, found.tasks["begin"].status.value) == ("begin", "done")
    assert steps[0] == "process-convert"
    assert {found.tasks[step].status.value for step in steps} == {"pending"}
    assert len(steps) == 6
    assert found.tasks["begin"].outputs["attempt"].isdigit()


def test_recorded_single_stage_has_all_tries() -> None:
    found = read_run_state(recorded("retried"))
    (task,) = found.tasks.values()
    assert list(found.tasks) == ["main"]
    assert (len(task.tries), {one.exit for one in task.tries}) == (4, {64})
    missing = 'exec: "contimg-watch": executable file not found in $PATH'
    assert failure_reason(found) == f"main: failed to find name in PATH: {missing}"
    # As `kubectl get pods` had them.
    hashes = {one.log.removeprefix("contimg-watch-kxvw6-main-") for one in task.tries}
    assert hashes >= {"1499979672", "3646970451"}


def test_pod_name_ends_in_hash_of_node() -> None:
    assert fnv("foobar") == 0xBF9CF968  # the hash's own published example
    _, pod = tried("contimg-1", "convert", "Running")
    name = f"contimg-1-main-{fnv('contimg-1.convert(0)')}"
    assert node_status.pod_name("contimg-1", pod) == name


def pod(path: str, phase: str = "Succeeded", **more: Any) -> dict[str, Any]:
    return node(WF, path, "Pod", phase, **{"templateRef": CONVERT, **more})


def task_runs(*nodes: dict[str, Any]) -> tuple[TaskRun, ...]:
    return read_task_runs(workflow(WF, "Failed", *nodes))


def test_task_run_is_last_try_and_counts_all() -> None:
    more = {"templateRef": CONVERT, "finishedAt": "2026-01-25T22:05:00Z"}
    phases, outputs = ("Failed", "Succeeded"), said("s3://c/x")
    retry, *tries = tried(WF, "process.convert", *phases, outputs=outputs, **more)
    retry["children"] = retry["children"][::-1]
    (task,) = task_runs(node(WF, "process", "DAG", "Succeeded"), retry, *tries)
    assert (task.task, task.stage, task.phase) == ("process-convert", "convert", Phase.SUCCEEDED)
    assert (task.tries, task.exit, task.reason) == (2, 0, "")
    assert (task.artifact, task.cached) == ("s3://c/x", False)
    assert (task.started, task.ended) == (STARTED, STARTED + timedelta(minutes=5))


def test_task_runs_leave_out_exit_handler_and_skipped() -> None:
    skipped = node(WF, "process", "Skipped", "Skipped")
    others = [pod("image", "Omitted"), pod("report", "Pending"), pod("onExit")]
    runs = task_runs(skipped, *others, pod("onExit.record(0)"), pod("claim"))
    assert [run.task for run in runs] == ["claim"]


def test_task_within_retried_dag_has_name_of_local_engine() -> None:
    dag = node(WF, "(0)", "DAG", "Failed")
    dag["name"] = f"{WF}(0)"
    retry = node(WF, "", "Retry", "Failed", children=[dag["id"]])
    inner = {**pod("x"), "name": f"{WF}(0).process(0).convert"}
    assert [run.task for run in task_runs(retry, dag, inner)] == ["process-convert"]


@pytest.mark.parametrize(
    ("given", "task", "stage"),
    [
        ({**pod("claim"), "templateRef": None, "templateName": "claim-it"}, "claim", "claim-it"),
        ({**pod(""), "templateRef": None, "templateName": "main"}, WF, "process-group"),
    ],
    ids=["template of its own", "workflow of one stage"],
)
def test_task_is_named_by_template(given: dict[str, Any], task: str, stage: str) -> None:
    assert [(run.task, run.stage) for run in task_runs(given)] == [(task, stage)]


def test_task_runs_are_ordered_by_start_also_if_compressed() -> None:
    late = pod("flag", startedAt="2026-01-26T02:00:00Z")
    document = workflow(WF, "Failed", late, pod("convert"))
    assert [run.task for run in read_task_runs(document)] == ["convert", "flag"]
    packed = gzip.compress(json.dumps(document["status"].pop("nodes")).encode())
    document["status"]["compressedNodes"] = base64.b64encode(packed).decode()
    assert [run.task for run in read_task_runs(document)] == ["convert", "flag"]


def run(code: int | None, task: str = "t", phase: Phase = Phase.FAILED) -> TaskRun:
    return TaskRun(task=task, stage=task, phase=phase, tries=1, exit=code, reason=f"why {task}")


@pytest.mark.parametrize("code", [*MEANING, None, 1, 99])
def test_failure_cause_follows_table_of_exit_codes(code: int | None) -> None:
    expected = FailureCause.NONE if code == 0 else FailureCause.BUG
    if code is not None and 10 <= code <= 19:
        expected = FailureCause.DATA
    elif code is None or (code in MEANING and MEANING[code][1].limit):
        expected = FailureCause.INFRASTRUCTURE
    assert failure_cause(code) is expected


def test_verdict_prefers_data_then_bug() -> None:
    infrastructure, bug, data, killed = run(20, "w"), run(70, "b"), run(12, "d"), run(None, "gone")
    verdict = judge_run("Failed", [infrastructure, bug, data, killed])
    assert (verdict.phase, verdict.blame) == (Phase.FAILED, FailureCause.DATA)
    assert (verdict.exit, verdict.reason) == (12, "d: why d")
    assert judge_run("Failed", [infrastructure, bug]).blame is FailureCause.BUG
    assert judge_run("Error", [infrastructure]).exit == 20
    assert judge_run("Failed", [killed]).blame is FailureCause.INFRASTRUCTURE
    assert judge_run("Succeeded", [infrastructure]).phase is Phase.SUCCEEDED


def test_workflow_shut_down_by_person_is_stopped() -> None:
    document = workflow(WF, "Failed", pod("convert", "Failed", message="exit code 143"))
    document["spec"]["shutdown"] = "Terminate"
    assert read_run_state(document).status is Status.STOPPED
    assert read_outcome("r", document, "Failed").phase is Phase.STOPPED
    assert judge_run("Failed", [], "Stopped with strategy 'Stop'").phase is Phase.STOPPED
    message = "workflow shutdown with strategy: Terminate"
    assert task_runs(pod("convert", "Failed", message=message))[0].phase is Phase.STOPPED


def test_verdict_of_exceeded_deadline_is_infrastructure() -> None:
    slow = workflow(WF, "Failed", message="Max duration limit exceeded")
    outcome = read_outcome("r", slow, "Failed")
    assert outcome.blame is FailureCause.INFRASTRUCTURE
    assert outcome.reason == "Max duration limit exceeded"
    assert judge_run("Error", []).reason == "the workflow ended as Error"


FAILURES = [
    {"displayName": name, "message": message, "finishedAt": f"2026-01-26T01:0{minute}:00Z"}
    for name, message, minute in (
        ("main", "", 3),
        ("convert", "No more retries left", 3),
        ("convert(1)", "Error (exit code 12): bad", 2),
        ("convert(0)", "OOMKilled (exit code 137)", 1),
    )
]


@pytest.mark.parametrize("text", [json.dumps(FAILURES), json.dumps(json.dumps(FAILURES))])
def test_failures_are_read_with_and_without_quotes(text: str) -> None:
    (task,) = read_failures(text)
    assert (task.task, task.exit, task.reason) == ("convert", 12, "bad")


@pytest.mark.parametrize("text", ["", "null", '"null"', "{{workflow.failures}}", "[3]", "{}"])
def test_failures_without_content_are_empty(text: str) -> None:
    assert read_failures(text) == ()


def test_pipeline_is_named_by_reference_or_label() -> None:
    document = workflow(WF, "")
    assert node_status.pipeline_of(document) == "process-group"
    del document["spec"]["workflowTemplateRef"]
    assert node_status.pipeline_of(document) == ""
    document["metadata"]["labels"] = {"workflows.argoproj.io/workflow-template": "contimg-epoch"}
    assert node_status.pipeline_of(document) == "epoch"


def test_only_infrastructure_failures_and_losses_are_tried_again() -> None:
    def outcome(phase: Phase, blame: FailureCause = FailureCause.NONE) -> Outcome:
        return Outcome(run="r", workflow="w", uid="u", phase=phase, blame=blame, ended=STARTED)

    assert [phase for phase in Phase if outcome(phase).may_be_tried_again] == [Phase.LOST]
    again = [c for c in FailureCause if outcome(Phase.FAILED, c).may_be_tried_again]
    assert again == [FailureCause.INFRASTRUCTURE]
