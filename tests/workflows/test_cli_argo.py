"""submit, status, logs and reprocess against a server that answers as Argo's does."""

from __future__ import annotations

import json
import shlex
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hera.workflows.models import WorkflowSubmitRequest

from argo_api import ArgoApi
from argo_nodes import node, said, tried, workflow
from commands import run_here
from contimg_runs.argo import ArgoServer, EngineError
from contimg_runs.node_status import read_run_state
from contimg_runs.pipelines import PROCESS_GROUP
from contimg_workflows.arguments import poll_until_answered
from contimg_workflows.render import render_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GROUP = "20260125t220000"
SUBMIT_GROUP = f"submit process-group --set group={GROUP}"
RIGHT = "right"
REASON = "x.hdf5: expected 145 bytes, found 0 bytes. Send it again."
BAD = f"Error (exit code 10): {REASON}"
NO_ROOM = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."


def contimg(line: str) -> int:
    """Run a command line of `contimg` in this process; return its exit code."""
    return run_here(*shlex.split(line))


@pytest.fixture(scope="module")
def templates() -> dict[str, dict[str, Any]]:
    """Our templates, as the chart leaves them: it knows the store."""
    documents = [yaml.safe_load(text) for text in render_all().values()]
    found = {one["metadata"]["name"]: one for one in documents if one["kind"] == "WorkflowTemplate"}
    for document in found.values():
        for one in document["spec"].get("arguments", {}).get("parameters", []):
            if one["name"] == "store":
                one["value"] = "s3://sky/data"
    return found


@pytest.fixture
def api(templates: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[ArgoApi]:
    with ArgoApi(templates=templates) as server:
        monkeypatch.setenv("ARGO_SERVER", server.url)
        monkeypatch.setenv("ARGO_NAMESPACE", "sky")
        monkeypatch.delenv("ARGO_TOKEN", raising=False)
        yield server


def replace_later(
    api: ArgoApi, make: Callable[[str], dict[str, Any]], when: Callable[[], bool] | None = None
) -> None:
    """Replace every workflow by another state of it, beside the test, once it was submitted."""

    def wait() -> None:
        while not (when() if when else api.workflows):
            time.sleep(0.02)
        time.sleep(0.2)
        api.workflows.update({name: make(name) for name in api.workflows})

    threading.Thread(target=wait, daemon=True).start()


# submit


def test_submit_sends_template_name_and_arguments(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    assert contimg(f"{SUBMIT_GROUP} --set image.tier=quicklook --set attempt=2") == 0
    ((name, made),) = api.workflows.items()
    assert name == f"contimg-{GROUP}-a2"
    arguments = {one["name"]: one["value"] for one in made["spec"]["arguments"]["parameters"]}
    options = '{"image": {"tier": "quicklook"}}'
    assert arguments == {"group": GROUP, "attempt": "2", "options": options}
    said = capfd.readouterr()
    assert json.loads(said.out) == {"workflow": name, "place": f"{api.url}, namespace sky"}
    assert f"contimg logs {name} --follow" in said.err
    method, path, body = api.requests[-1]
    assert (method, path) == ("POST", "/api/v1/workflows/sky/submit")
    request = WorkflowSubmitRequest(**body)
    assert request.resource_kind == "WorkflowTemplate"
    assert request.resource_name == "contimg-process-group"


def test_submit_without_attempt_makes_new_name(api: ArgoApi) -> None:
    for _ in range(2):
        line = "submit epoch --set strip=33.0 --set epoch=mine --store s3://other/place/"
        assert contimg(line) == 0
    first, second = api.workflows
    assert first != second
    assert first.startswith("contimg-epoch-")
    given = api.workflows[first]["spec"]["arguments"]["parameters"]
    assert {"name": "store", "value": "s3://other/place"} in given


def test_submit_wait_returns_outcome(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    replace_later(
        api, lambda name: workflow(name, "Failed", *tried(name, "convert", "Failed", message=BAD))
    )
    assert contimg(f"{SUBMIT_GROUP} --wait") == 1
    answer = json.loads(capfd.readouterr().out)
    assert (answer["status"], answer["reason"]) == ("failed", f"convert: {REASON}")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            "mosaic",
            'workflowtemplates.argoproj.io "contimg-mosaic" not found. Correct the name or ',
        ),
        ("process-group", "contimg-process-group: Parameter 'group' is required. Id of the group"),
        (
            "process-group --set group=x --set image.teir=1",
            "--set: image --teir: there is no such option.",
        ),
        (
            "process-group --set group=x --set image.tier=best",
            "image --tier: Input should be 'quicklook', 'development'",
        ),
        (
            "process-group --set group=x --set convert.max_zeros=lots",
            "convert --max-zeros: Input should be a valid number",
        ),
        ("process-group --set group=x --engine slurm", "--engine"),
        ("", "--pipeline"),
    ],
)
def test_wrong_request_is_not_sent(
    api: ArgoApi, capfd: pytest.CaptureFixture[str], words: str, found: str
) -> None:
    assert contimg(f"submit {words}") == 2
    said = capfd.readouterr()
    assert found in said.err.replace('\\"', '"')
    assert (said.out, api.workflows) == ("", {})


def test_attempt_cannot_be_submitted_twice(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    assert contimg(SUBMIT_GROUP) == 0
    assert contimg(SUBMIT_GROUP) == 2
    assert "contimg status shows it; contimg reprocess starts" in capfd.readouterr().err
    assert len(api.workflows) == 1


# A server that does not answer as it should

UNREACHABLE = "Connection refused. Correct --argo or ARGO_SERVER, or see whether the server runs."


@pytest.mark.parametrize("line", ["submit watch", "status", "logs w", f"reprocess {GROUP}"])
class TestNoAnswer:
    def said(self, line: str, capfd: pytest.CaptureFixture[str], words: str) -> tuple[int, str]:
        code = contimg(f"{line} {words}")
        said = capfd.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return code, said.err

    def test_unreachable_server(self, line: str, capfd: pytest.CaptureFixture[str]) -> None:
        code, words = self.said(line, capfd, "--argo http://127.0.0.1:9")
        assert code == 20
        assert "http://127.0.0.1:9, namespace contimg" in words
        assert UNREACHABLE in words

    def test_wrong_token(self, line: str, api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
        api.token = RIGHT
        code, words = self.said(line, capfd, "--token wrong")
        assert code == 2
        assert "does not accept the token: Unauthorized." in words
        assert "Correct --token or ARGO_TOKEN." in words
        assert "wrong" not in words  # a secret is not repeated

    def test_token_without_permission(
        self, line: str, api: ArgoApi, capfd: pytest.CaptureFixture[str]
    ) -> None:
        api.forbidden = True
        code, words = self.said(line, capfd, "")
        assert code == 2
        assert "Ask the operator for the role." in words

    def test_server_of_another_kind(
        self, line: str, capfd: pytest.CaptureFixture[str], moto_endpoint: str
    ) -> None:
        code, words = self.said(line, capfd, f"--argo {moto_endpoint}/moto-api")
        assert code in {2, 20}
        assert "Correct" in words

    def test_wrong_url(self, line: str, capfd: pytest.CaptureFixture[str]) -> None:
        code, words = self.said(line, capfd, "--argo ftp://x")
        assert code == 2
        assert "http://HOST:PORT or https://HOST:PORT, not ftp://x" in words


def test_bearer_token_is_sent(
    api: ArgoApi, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    api.token = RIGHT
    monkeypatch.setenv("ARGO_TOKEN", "Bearer right")  # as `argo auth token` prints it
    assert contimg(SUBMIT_GROUP) == 0
    assert contimg("status") == 0
    assert f"contimg-{GROUP}-a1" in capfd.readouterr().out


def test_template_of_another_version_is_refused(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(json.dumps(api.templates["contimg-epoch"]))
    document["metadata"]["labels"]["app.kubernetes.io/version"] = "9.9.9"
    api.templates = {**api.templates, "contimg-epoch": document}
    assert contimg("submit epoch --set strip=33.0 --set epoch=mine") == 2
    said = capfd.readouterr().err
    problem = "The template is from contimg 9.9.9, but this program is contimg 0.1.0."
    assert f"WorkflowTemplate contimg-epoch: {problem}" in said
    assert "Upgrade the chart to 0.1.0" in said
    assert not api.workflows


# status


def show(capsys: pytest.CaptureFixture[str], words: str) -> str:
    assert contimg(f"status {words}") == 0
    return capsys.readouterr().out


def test_status_has_columns_of_local_engine(
    api: ArgoApi, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tried("good", "convert", "Succeeded", outputs=said("s3://a"))
    failed = tried("bad", "convert", "Failed", message=BAD)
    pending = tried("crowded", "image", "Pending", phase="Running", message=NO_ROOM)
    made = [
        workflow("good", "Succeeded", *done),
        workflow("bad", "Failed", *failed),
        workflow("new", ""),
        workflow("crowded", "Running", *pending),
        workflow("other", "Running", template="somebody-elses"),
    ]
    api.workflows = {one["metadata"]["name"]: one for one in made}
    lines = show(capsys, "--lines 0").splitlines()
    assert lines[0].split() == ["workflow", "status", "tasks", "wall", "why"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert set(rows) == {"good", "bad", "new", "crowded"}
    assert rows["crowded"].endswith(f"image: {NO_ROOM}")
    assert rows["good"].split()[1:] == ["✓", "done", "1/1", "5", "min", "0", "s"]
    assert "✗ failed" in rows["bad"]
    assert rows["bad"].endswith(f"convert: {REASON}")
    assert rows["new"].split()[1:3] == ["·", "pending"]


def test_status_shows_log_end_of_failed_task(
    api: ArgoApi, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = tried("bad", "convert", "Failed", "Failed", message=BAD)
    api.workflows = {"bad": workflow("bad", "Failed", *nodes)}
    pod = f"bad-main-{nodes[-1]['id'].rpartition('-')[2]}"
    message = "x.hdf5: expected 145 bytes"
    entry = {"time": "2026-01-25T22:00:01.5Z", "level": "error", "message": message}
    executor = 'time="2026" level=info msg="sub-process exited" argo=true error="<nil>"'
    api.logs = {pod: ["first", json.dumps(entry), executor]}
    shown = show(capsys, "--name bad --lines 1")
    assert f"bad convert: {REASON}\npod {pod} ends:\n  22:00:01 error: {message}\n" in shown
    row = next(line for line in shown.splitlines() if line.startswith("convert "))
    assert row.split()[1:4] == ["✗", "failed", "2"]


def test_status_survives_lost_log(api: ArgoApi, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {"artifacts": [{"name": "main-logs"}]}
    nodes = tried("bad", "convert", "Failed", message=BAD, outputs=outputs)
    api.workflows = {"bad": workflow("bad", "Failed", *nodes)}
    shown = show(capsys, "")
    assert REASON in shown
    gone = "Internal Server Error. Its pod may be gone; the chart's archiveLogs keeps logs.)"
    assert gone in shown


def test_status_of_unknown_workflow_lists_known(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    assert contimg("status one") == 2
    assert "There is no run here." in capfd.readouterr().err
    api.workflows = {"two": workflow("two", "Running")}
    assert contimg("status one") == 2
    assert "There is no run one; there are two." in capfd.readouterr().err


# A server that is away for a while


@pytest.mark.usefixtures("api")
def test_submit_wait_retries_lost_server(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("contimg_workflows.arguments.TICK_S", 0.05)
    asked = []

    def answer(self: ArgoServer, name: str) -> Any:
        asked.append(name)
        if len(asked) in {2, 3}:
            raise EngineError(self.place, "expected an answer, found none.", "Wait.")
        return read_run_state(workflow(name, "Running" if len(asked) < 5 else "Succeeded"))

    monkeypatch.setattr(ArgoServer, "state", answer)
    assert contimg("submit watch --wait") == 0
    assert json.loads(capfd.readouterr().out)["status"] == "done"
    assert len(asked) == 5
    asked.clear()
    impatient = partial(poll_until_answered, patience_s=0.0)
    monkeypatch.setattr("contimg_workflows.submit.poll_until_answered", impatient)
    assert contimg("submit watch --wait") == 20
    assert "expected an answer, found none. Wait." in capfd.readouterr().err


# logs


def test_logs_of_ended_pod_come_from_archive(
    api: ArgoApi, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tried("w", "convert", "Succeeded", outputs=said("s3://a"))
    running = tried("w", "flag", "Running")
    api.workflows = {"w": workflow("w", "Running", *done, *running)}
    api.archived = {done[-1]["id"]: "made\nwell\n"}
    api.logs = {f"w-main-{running[-1]['id'].rpartition('-')[2]}": ["begun"]}
    assert contimg("logs w") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["convert | made", "convert | well", "flag | begun"]
    assert contimg("logs w flag") == 0
    assert capsys.readouterr().out.splitlines() == ["begun"]


def test_logs_follow_until_workflow_ends(api: ArgoApi, capsys: pytest.CaptureFixture[str]) -> None:
    first = tried("w", "convert", "Running")
    second = tried("w", "flag", "Succeeded", outputs=said("s3://b"))
    api.workflows = {"w": workflow("w", "Running", *first)}
    api.logs = {f"w-main-{first[-1]['id'].rpartition('-')[2]}": ["one", "two"]}
    api.archived = {second[-1]["id"]: "three"}
    ended = workflow("w", "Succeeded", *tried("w", "convert", "Succeeded"), *second)
    replace_later(
        api, lambda _: ended, when=lambda: any(path.endswith("/log") for _, path, _ in api.requests)
    )
    assert contimg("logs w --follow") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["convert | one", "convert | two", "flag | three"]


def test_logs_of_unknown_task_list_known(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    api.workflows = {"w": workflow("w", "Running", *tried("w", "convert", "Running"))}
    assert contimg("logs w image") == 2
    assert "There is no task image; the tasks are convert." in capfd.readouterr().err


# reprocess


def test_reprocess_tells_attempt(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    def begun(name: str) -> dict[str, Any]:
        outputs = {"parameters": [{"name": "attempt", "value": "3"}]}
        begin = node(name, "begin", "Pod", "Succeeded", outputs=outputs)
        image = tried(name, "process.image", "Running")
        return workflow(name, "Running", begin, *image, template="contimg-reprocess")

    replace_later(api, begun)
    assert contimg(f"reprocess {GROUP} --from image --set image.tier=quicklook") == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["attempt"] == 3
    assert answer["workflow"].startswith(f"contimg-reprocess-{GROUP}-")
    (body,) = [body for method, _, body in api.requests if method == "POST"]
    assert body["resourceName"] == "contimg-reprocess"
    assert sorted(body["submitOptions"]["parameters"]) == [
        "from=image",
        f"group={GROUP}",
        'options={"image": {"tier": "quicklook"}}',
    ]


NO_RECORD = "s3://sky/data/groups/: expected a record of 20990101t000000, found none."
NO_STORE = "s3://sky/data: expected an answer, found none."
NO_TASK = "invalid spec: templates.main.tasks.begin is nowhere"


@pytest.mark.parametrize(
    ("task", "phase", "message", "code", "found"),
    [
        ("begin", "Failed", f"Error (exit code 2): {NO_RECORD} Correct the id.", 2, NO_RECORD),
        (
            "begin",
            "Failed",
            f"Error (exit code 20): STORE_UNREACHABLE: {NO_STORE}",
            20,
            f"{NO_STORE} contimg logs",
        ),
        ("", "Error", NO_TASK, 20, f"The next attempt did not begin: {NO_TASK}."),
    ],
    ids=["refused", "store_unreachable", "ended_before_first_task"],
)
def test_reprocess_that_does_not_begin_says_why(
    api: ArgoApi,
    capfd: pytest.CaptureFixture[str],
    task: str,
    phase: str,
    message: str,
    code: int,
    found: str,
) -> None:
    def failed(name: str) -> dict[str, Any]:
        nodes = tried(name, task, phase, message=message) if task else []
        return workflow(name, phase, *nodes, **({} if task else {"message": message}))

    replace_later(api, failed)
    assert contimg("reprocess 20990101t000000") == code
    said = capfd.readouterr()
    assert found in said.err
    assert said.out == ""


def test_setting_without_effect_is_refused(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    line = f"reprocess {GROUP} --from image --set image.tier=quicklook --set flag.rfi=off"
    assert contimg(line) == 2
    problem = "The setting would have no effect: --from image reuses the artifact of flag."
    assert f"--set flag: {problem}" in capfd.readouterr().err
    assert not api.workflows


def test_first_stage_choices_match_pipeline(api: ArgoApi) -> None:
    parameters = api.templates["contimg-reprocess"]["spec"]["arguments"]["parameters"]
    assert list(PROCESS_GROUP.order) == next(p["enum"] for p in parameters if p["name"] == "from")


def test_unknown_first_stage_is_refused(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    assert contimg(f"reprocess {GROUP} --from mosaic") == 2
    assert "There is no step 'mosaic'; the steps are convert" in capfd.readouterr().err
    assert not api.workflows


# Which engine


def test_engine_follows_options_and_environment(
    tmp_path: Path, api: ArgoApi, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    api.workflows = {"w": workflow("w", "Running")}
    assert contimg("status") == 0  # ARGO_SERVER
    for words in (f"--runs {tmp_path}", f"--engine local --store {tmp_path}"):
        assert contimg(f"status {words}") == 2
        assert "There is no run here." in capfd.readouterr().err
    monkeypatch.delenv("ARGO_SERVER")
    assert contimg("status") == 2
    assert "Neither --store nor --runs is given." in capfd.readouterr().err
    assert contimg("status --engine argo") == 2
    assert "No Argo Server is named, by --argo URL or by ARGO_SERVER." in capfd.readouterr().err
    assert contimg(f"status --argo {api.url} --namespace other") == 0
    assert "/api/v1/workflows/other" in {path for _, path, _ in api.requests}


def test_argo_server_variable_may_lack_scheme(
    api: ArgoApi, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    api.workflows = {"w": workflow("w", "Running")}
    monkeypatch.setenv("ARGO_SERVER", api.url.removeprefix("http://"))
    monkeypatch.setenv("ARGO_SECURE", "false")
    assert contimg("status") == 0
    monkeypatch.delenv("ARGO_SECURE")
    capfd.readouterr()
    assert contimg("status") == 20
    assert "https://127.0.0.1" in capfd.readouterr().err
