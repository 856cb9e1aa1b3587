"""What Argo tells of a workflow, as the states that the local engine has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hera.workflows.models import Workflow

from argo_nodes import fnv, node, said, tried, workflow
from contimg_workflows.argo_states import archived_log, node_of, pod_name, run_state
from contimg_workflows.display import failure_reason
from contimg_workflows.state import RunState, Status

RECORDED = Path(__file__).parent / "recorded"
BAD = (
    "Error (exit code 10): incoming/x_sb03.hdf5: expected 145348600 bytes, found 0. Send it again."
)


def state(document: dict[str, Any]) -> RunState:
    return run_state(Workflow(**document))


def test_a_workflow_that_has_not_begun_is_pending_and_says_failure_reason() -> None:
    waiting = state(workflow("w", "Pending", message="too many workflows are running"))
    assert (waiting.status, waiting.reason, waiting.tasks) == (
        Status.PENDING,
        "too many workflows are running",
        {},
    )
    unseen = state(workflow("w", ""))
    assert (unseen.status, unseen.started.isoformat()) == (
        Status.PENDING,
        "2026-01-25T22:00:00+00:00",
    )


def test_a_finished_workflow_has_its_tasks_times_and_products() -> None:
    found = state(
        workflow(
            "w",
            "Succeeded",
            node("w", "", "DAG", "Succeeded"),
            *tried("w", "convert", "Succeeded", outputs=said("s3://b/convert/1", cached="true")),
            *tried("w", "flag", "Failed", "Succeeded", outputs=said("s3://b/flag/2")),
        )
    )
    assert (found.status, found.pipeline, found.arguments) == (
        Status.DONE,
        "contimg-process-group",
        {"group": "20260125t220000"},
    )
    assert found.ended is not None
    assert list(found.tasks) == ["convert", "flag"]
    convert, flag = found.tasks["convert"], found.tasks["flag"]
    assert (convert.status, convert.made_s, convert.outputs["artifact"]) == (
        Status.CACHED,
        12.5,
        "s3://b/convert/1",
    )
    assert (flag.status, len(flag.tries), flag.tries[1].exit, flag.reason) == (
        Status.DONE,
        2,
        0,
        "",
    )
    assert [one.seconds for one in flag.tries] == [90.0, 30.0]


@pytest.mark.parametrize(
    ("message", "reason", "code"),
    [
        (BAD, BAD.partition(": ")[2], 10),
        ("Error (exit code 137)", "exit code 137: killed, probably out of memory", 137),
        ("OOMKilled (exit code 137)", "exit code 137: killed, probably out of memory", 137),
        (f"main: {BAD}", BAD.partition(": ")[2], 10),
        ("Error (exit code 10): BAD_FILE: x_sb03.hdf5: is empty", "x_sb03.hdf5: is empty", 10),
        ("Error (exit code 99)", "exit code 99: unknown exit code 99", 99),
        ("pod deleted", "pod deleted", None),
        (
            'ImagePullBackOff: Back-off pulling image "x"',
            'ImagePullBackOff: Back-off pulling image "x"',
            None,
        ),
    ],
)
def test_a_failure_is_told_in_the_words_of_the_stage(
    message: str, reason: str, code: int | None
) -> None:
    found = state(
        workflow(
            "w",
            "Failed",
            *tried("w", "convert", "Failed", message=message),
            message="child 'w-1' failed",
        )
    )
    assert failure_reason(found) == f"convert: {reason}"
    assert found.tasks["convert"].tries[0].exit == code


def test_a_failure_without_a_task_is_the_workflow_s_own() -> None:
    found = state(
        workflow("w", "Error", message='workflowtemplates.argoproj.io "contimg-x" not found')
    )
    assert (found.status, failure_reason(found)) == (
        Status.FAILED,
        'workflowtemplates.argoproj.io "contimg-x" not found',
    )


def test_what_was_stopped_did_not_fail() -> None:
    document = workflow("w", "Failed", message="Stopped with strategy 'Terminate'")
    document["spec"]["shutdown"] = "Terminate"
    assert state(document).status is Status.STOPPED


def test_between_two_tries_a_task_waits() -> None:
    tries = tried(
        "w", "convert", "Failed", phase="Running", message="Error (exit code 20): s3: no answer"
    )
    task = state(workflow("w", "Running", *tries)).tasks["convert"]
    assert (task.status, task.reason) == (Status.WAITING, "s3: no answer")


def test_a_pod_that_cannot_begin_says_failure_reason() -> None:
    tries = tried(
        "w", "convert", "Pending", phase="Running", message="Unschedulable: 0/1 nodes are available"
    )
    task = state(workflow("w", "Running", *tries)).tasks["convert"]
    assert (task.status, task.reason) == (Status.PENDING, "Unschedulable: 0/1 nodes are available")


def test_tasks_that_were_left_out_are_skipped() -> None:
    found = state(
        workflow(
            "w",
            "Succeeded",
            node("w", "process", "Skipped", "Skipped", message="when 'false' evaluated false"),
        )
    )
    assert (found.tasks["process"].status, found.tasks["process"].tries) == (Status.SKIPPED, [])


# As Argo v4.1.2 told of them; inputs and such are cut out.


def recorded(name: str) -> Workflow:
    return Workflow(**json.loads((RECORDED / f"{name}.json").read_text()))


def test_a_recorded_failure() -> None:
    found = run_state(recorded("failed"))
    assert (found.name, found.pipeline, found.status) == (
        "contimg-20260125t011431-a1",
        "contimg-process-group",
        Status.FAILED,
    )
    assert {name: task.status.value for name, task in found.tasks.items()} == {
        "convert": "done",
        "flag": "failed",
        "calibrate": "skipped",
        "image": "skipped",
        "photometry": "skipped",
        "report": "skipped",
        "onExit-record": "done",
    }
    assert (
        failure_reason(found)
        == "flag: TypeError: TarFile.extract() got an unexpected keyword argument 'filter'"
    )
    convert, flag = found.tasks["convert"], found.tasks["flag"]
    assert convert.outputs["artifact"].startswith(
        "s3://contimg/c-cli/products/20260125t011431/convert/"
    )
    assert (convert.outputs["cached"], convert.made_s, convert.tries[0].exit) == ("false", 8.899, 0)
    assert (flag.tries[0].exit, flag.tries[0].log) == (
        70,
        "contimg-20260125t011431-a1-main-983264536",
    )


def test_a_recorded_run_at_work_names_what_it_has_yet_to_do() -> None:
    found = run_state(recorded("running"))
    assert found.status is Status.RUNNING
    assert {name: task.status.value for name, task in found.tasks.items()} == {
        "begin": "done",
        "process-convert": "pending",
        "process-flag": "pending",
        "process-calibrate": "pending",
        "process-image": "pending",
        "process-photometry": "pending",
        "process-report": "pending",
    }
    assert found.tasks["begin"].outputs["attempt"].isdigit()


def test_a_recorded_stage_that_was_tried_again_and_again() -> None:
    found = run_state(recorded("retried"))
    (task,) = found.tasks.values()
    assert list(found.tasks) == ["main"]
    assert (len(task.tries), {one.exit for one in task.tries}) == (4, {64})
    assert (
        failure_reason(found) == 'main: failed to find name in PATH: exec: "contimg-watch": '
        "executable file not found in $PATH"
    )


def test_recorded_pods_have_the_names_that_argo_gave_them() -> None:
    workflow = recorded("retried")
    # As `kubectl get pods` had them.
    for pod in ("contimg-watch-kxvw6-main-1499979672", "contimg-watch-kxvw6-main-3646970451"):
        assert node_of(workflow, pod) is not None


def test_a_pod_has_the_name_that_argo_gives_it() -> None:
    document = workflow(
        "contimg-1", "Running", *tried("contimg-1", "convert", "Running", outputs=said("x"))
    )
    found = Workflow(**document)
    (name,) = [
        pod_name("contimg-1", one) for one in found.status.nodes.values() if one.type == "Pod"
    ]
    assert fnv("foobar") == 0xBF9CF968  # the hash's own published example
    assert name == f"contimg-1-main-{fnv('contimg-1.convert(0)')}"
    node = node_of(found, name)
    assert node is not None
    assert archived_log(node)
    assert node_of(found, "contimg-1-main-1") is None
