"""What Argo's JSON says of a workflow, and what its end means."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from contimg.records.runs import Blame, Outcome, Phase, TaskRun, blame_of, run_name, workflow_name
from contimg.runtime.errors import MEANING, Exit
from contimg_runs.node_status import (
    failures_of,
    judge,
    judge_workflow,
    pipeline_of,
    tasks_of,
    understand,
)
from listener import workflow

WF = "contimg-20260125t222605-a1"


def node(name: str, kind: str = "Pod", **more: Any) -> dict[str, Any]:
    """One node of a status, as Argo writes it."""
    own = {
        "id": name,
        "name": f"{WF}.{name}",
        "displayName": name.rsplit(".", maxsplit=1)[-1],
        "type": kind,
        "phase": "Succeeded",
    }
    times = {"startedAt": "2026-01-26T01:00:00Z", "finishedAt": "2026-01-26T01:01:00Z"}
    return {**own, **times, "templateRef": {"name": "contimg-convert", "template": "main"}, **more}


def nodes(*given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in given}


def of(*given: dict[str, Any]) -> tuple[TaskRun, ...]:
    return tasks_of(workflow(WF, "u", phase="Failed", nodes=nodes(*given)))


FAILED = {
    "phase": "Failed",
    "message": "Error (exit code 20): s3://x: expected an answer from S3, found none.",
}


def test_a_task_is_its_last_try_and_counts_them_all() -> None:
    first = node("process.convert(0)", **FAILED)
    outputs = {
        "exitCode": "0",
        "parameters": [
            {"name": "artifact", "value": "s3://c/products/x"},
            {"name": "cached", "value": "false"},
        ],
    }
    last = node(
        "process.convert(1)",
        startedAt="2026-01-26T01:02:00Z",
        finishedAt="2026-01-26T01:05:00Z",
        outputs=outputs,
    )
    retry = node("process.convert", "Retry", children=[last["id"], first["id"]])
    (task,) = of(node("main", "DAG"), retry, first, last)
    assert (task.task, task.stage, task.phase, task.tries, task.exit) == (
        "process-convert",
        "convert",
        Phase.SUCCEEDED,
        2,
        0,
    )
    assert (task.artifact, task.cached, task.reason) == ("s3://c/products/x", False, "")
    assert (task.started, task.ended) == (
        datetime(2026, 1, 26, 1, 0, tzinfo=UTC),
        datetime(2026, 1, 26, 1, 5, tzinfo=UTC),
    )


def test_what_did_not_run_and_the_exit_handler_are_no_tasks() -> None:
    skipped = node("process", "Skipped", phase="Skipped")
    omitted, pending = node("image", phase="Omitted"), node("report", phase="Pending")
    handler = {**node("record"), "name": f"{WF}.onExit"}
    within = {**node("record2"), "name": f"{WF}.onExit.record(0)"}
    assert [
        task.task for task in of(skipped, omitted, pending, handler, within, node("claim"))
    ] == ["claim"]


def test_a_stage_without_a_reference_is_named_by_its_template() -> None:
    plain = {key: value for key, value in node("claim").items() if key != "templateRef"}
    assert of({**plain, "templateName": "claim-it"})[0].stage == "claim-it"


def test_a_stage_that_is_a_workflow_by_itself_has_its_name() -> None:
    alone = {**node("x"), "id": "1", "name": WF, "templateName": "main", "templateRef": {}}
    made = workflow(
        WF,
        "u",
        phase="Succeeded",
        nodes=nodes(alone),
        workflowTemplateRef={"name": "contimg-sweep"},
    )
    assert [(task.task, task.stage) for task in tasks_of(made)] == [(WF, "sweep")]


def test_tasks_stand_in_the_order_in_which_they_began() -> None:
    late = node("flag", startedAt="2026-01-26T02:00:00Z")
    assert [task.task for task in of(late, node("convert"))] == ["convert", "flag"]


def test_many_nodes_come_packed() -> None:
    plain = workflow(WF, "u", phase="Failed", nodes=nodes(node("convert")))
    packed = base64.b64encode(
        gzip.compress(json.dumps(plain["status"].pop("nodes")).encode())
    ).decode()
    plain["status"]["compressedNodes"] = packed
    assert [task.task for task in tasks_of(plain)] == ["convert"]


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("Error (exit code 12): a.hdf5: expected\n  baselines", 12, "a.hdf5: expected baselines"),
        (
            "Error (exit code 2): USAGE: s3://x: expected a bucket x",
            2,
            "s3://x: expected a bucket x",
        ),
        ("OOMKilled (exit code 137)", 137, "killed, probably out of memory"),
        ("Error (exit code 10)", 10, "a file is empty, truncated or not what its name says"),
        ("pod deleted", None, "pod deleted"),
        ("", None, ""),
        ("x" * 9000, None, "x" * 500),
    ],
)
def test_argo_s_message_is_a_code_and_a_reason(message: str, code: int | None, reason: str) -> None:
    assert understand(message) == (code, reason)


def run(code: int | None, task: str = "t", phase: Phase = Phase.FAILED) -> TaskRun:
    return TaskRun(task=task, stage=task, phase=phase, tries=1, exit=code, reason=f"why {task}")


@pytest.mark.parametrize("code", [*MEANING, None, 1, 99])
def test_the_table_of_exit_codes_says_what_is_to_blame(code: int | None) -> None:
    expected = Blame.BUG
    if code == 0:
        expected = Blame.NOTHING
    elif code is not None and 10 <= code <= 19:
        expected = Blame.DATA
    elif code is None or (code in MEANING and MEANING[code][1].limit):
        expected = Blame.WORLD
    assert blame_of(code) is expected


def test_data_weigh_more_than_a_bug_and_that_more_than_the_world() -> None:
    world, bug, data = run(20, "w"), run(70, "b"), run(12, "d")
    verdict = judge("Failed", [world, bug, data, run(None, "gone")])
    assert (verdict.phase, verdict.blame, verdict.exit, verdict.reason) == (
        Phase.FAILED,
        Blame.DATA,
        12,
        "d: why d",
    )
    assert judge("Failed", [world, bug]).blame is Blame.BUG
    assert judge("Error", [world]).exit == 20
    assert judge("Failed", [run(None, "gone")]).blame is Blame.WORLD


def test_a_success_is_one_whatever_was_tried_before() -> None:
    assert judge("Succeeded", [run(20)]).phase is Phase.SUCCEEDED


def test_what_a_person_stopped_is_not_begun_anew() -> None:
    stopped = workflow(WF, "u", phase="Failed", shutdown="Terminate")
    assert judge_workflow(stopped, "Failed", [run(143)]).phase is Phase.STOPPED
    assert judge("Failed", [], "Stopped with strategy 'Stop'").phase is Phase.STOPPED
    tasks = of(
        node("convert", phase="Failed", message="workflow shutdown with strategy: Terminate")
    )
    assert tasks[0].phase is Phase.STOPPED


def test_a_workflow_that_took_too_long_blames_the_world() -> None:
    slow = workflow(WF, "u", phase="Failed")
    slow["status"]["message"] = "Max duration limit exceeded"
    verdict = judge_workflow(slow, "Failed", [])
    assert (verdict.blame, verdict.reason) == (Blame.WORLD, "Max duration limit exceeded")
    assert judge("Error", []).reason == "the workflow ended as Error"


FAILURES = [
    {
        "displayName": "main",
        "message": "",
        "templateName": "main",
        "phase": "Failed",
        "finishedAt": "2026-01-26T01:03:00Z",
    },
    {
        "displayName": "convert",
        "message": "No more retries left",
        "templateName": "main",
        "finishedAt": "2026-01-26T01:03:00Z",
    },
    {
        "displayName": "convert(1)",
        "message": "Error (exit code 12): bad",
        "templateName": "main",
        "finishedAt": "2026-01-26T01:02:00Z",
    },
    {
        "displayName": "convert(0)",
        "message": "OOMKilled (exit code 137)",
        "templateName": "main",
        "finishedAt": "2026-01-26T01:01:00Z",
    },
]


@pytest.mark.parametrize("text", [json.dumps(FAILURES), json.dumps(json.dumps(FAILURES))])
def test_argo_s_failures_are_read_with_and_without_quotes(text: str) -> None:
    (task,) = failures_of(text)
    assert (task.task, task.exit, task.reason) == ("convert", 12, "bad")


def test_failures_without_a_code_are_kept_where_there_is_none() -> None:
    (task,) = failures_of(
        json.dumps([{"displayName": "convert", "message": "pod deleted", "templateName": "main"}])
    )
    assert (task.exit, task.reason) == (None, "pod deleted")


@pytest.mark.parametrize("text", ["", "null", '"null"', "{{workflow.failures}}", "[3]", "{}"])
def test_failures_that_say_nothing(text: str) -> None:
    assert failures_of(text) == ()


def test_a_pipeline_is_named_by_its_template() -> None:
    assert (
        pipeline_of(workflow(WF, "u", workflowTemplateRef={"name": "contimg-process-group"}))
        == "process-group"
    )
    labelled = workflow(WF, "u")
    labelled["metadata"]["labels"]["workflows.argoproj.io/workflow-template"] = "contimg-epoch"
    assert pipeline_of(labelled) == "epoch"
    assert pipeline_of(workflow(WF, "u")) == ""


def test_only_the_world_and_loss_are_worth_another_try() -> None:
    def outcome(phase: Phase, blame: Blame = Blame.NOTHING) -> Outcome:
        return Outcome(
            run="r", workflow="w", uid="u", phase=phase, blame=blame, ended=datetime.now(UTC)
        )

    again = [phase for phase in Phase if outcome(phase).may_be_tried_again]
    assert again == [Phase.LOST]
    assert [blame for blame in Blame if outcome(Phase.FAILED, blame).may_be_tried_again] == [
        Blame.WORLD
    ]


def test_names_of_runs_and_workflows() -> None:
    assert run_name("20260125t222605-a12") == ("20260125t222605", 12)
    assert run_name("20260125t222605-a0") is None
    assert workflow_name("20260125t222605-a1") == WF
    assert Exit.DONE == 0
