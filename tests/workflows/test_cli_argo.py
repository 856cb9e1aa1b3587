"""submit, status, logs and reprocess against a server that answers as Argo's: the words of the
client, not Argo itself."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hera.workflows.models import WorkflowSubmitRequest

from argo_api import ArgoApi
from argo_nodes import node, said, tried, workflow
from commands import here
from contimg.runtime.contract import run_command
from contimg_runs.argo import ArgoServer, EngineError
from contimg_runs.node_status import read_run_state
from contimg_runs.pipelines import PROCESS_GROUP
from contimg_workflows.commands import LOGS, REPROCESS, STATUS, SUBMIT
from contimg_workflows.render import render_all
from contimg_workflows.arguments import poll_until_answered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

submit, reprocess = partial(run_command, SUBMIT), partial(run_command, REPROCESS)
status, logs = partial(run_command, STATUS), partial(run_command, LOGS)
GROUP = "20260125t220000"
RIGHT = "right"
BAD = "Error (exit code 10): x.hdf5: expected 145 bytes, found 0 bytes. Send it again."
NO_ROOM = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."


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


def made(api: ArgoApi) -> tuple[str, dict[str, str]]:
    """Return the name and the arguments of the one workflow."""
    (one,) = api.workflows.values()
    return one["metadata"]["name"], {
        p["name"]: p["value"] for p in one["spec"]["arguments"]["parameters"]
    }


# submit


def test_a_pipeline_is_submitted_by_its_template(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        here(
            submit,
            "process-group",
            "--set",
            f"group={GROUP}",
            "--set",
            "image.tier=quicklook",
            "--set",
            "attempt=2",
        )
        == 0
    )
    name, arguments = made(api)
    assert name == f"contimg-{GROUP}-a2"
    options = '{"image": {"tier": "quicklook"}}'
    assert arguments == {"group": GROUP, "attempt": "2", "options": options}
    said = capfd.readouterr()
    assert json.loads(said.out) == {"workflow": name, "place": f"{api.url}, namespace sky"}
    assert f"contimg logs {name} --follow" in said.err
    method, path, body = api.requests[-1]
    assert (method, path) == ("POST", "/api/v1/workflows/sky/submit")
    request = WorkflowSubmitRequest(**body)
    assert (request.resource_kind, request.resource_name) == (
        "WorkflowTemplate",
        "contimg-process-group",
    )


def test_what_has_no_name_of_its_own_gets_a_new_one_each_time(api: ArgoApi) -> None:
    for _ in range(2):
        assert (
            here(
                submit,
                "epoch",
                "--set",
                "strip=33.0",
                "--set",
                "epoch=mine",
                "--store",
                "s3://other/place/",
            )
            == 0
        )
    first, second = api.workflows
    assert first != second
    assert first.startswith("contimg-epoch-")
    assert {"name": "store", "value": "s3://other/place"} in api.workflows[first]["spec"][
        "arguments"
    ]["parameters"]


def test_to_wait_is_to_end_as_the_workflow_did(
    api: ArgoApi, capfd: pytest.CaptureFixture[str], soon: Callable[..., None]
) -> None:
    name = f"contimg-{GROUP}-a1"
    failed = workflow(name, "Failed", *tried(name, "convert", "Failed", message=BAD))
    soon(lambda: api.workflows.update({name: failed}), when=lambda: name in api.workflows)
    assert here(submit, "process-group", "--set", f"group={GROUP}", "--wait") == 1
    answer = json.loads(capfd.readouterr().out)
    assert (answer["status"], answer["reason"]) == ("failed", f"convert: {BAD.partition(': ')[2]}")


@pytest.fixture
def soon() -> Callable[..., None]:
    """Do something beside the test, when the time has come."""
    import threading

    def later(work: Callable[[], object], when: Callable[[], bool]) -> None:
        def wait() -> None:
            while not when():
                time.sleep(0.02)
            time.sleep(0.2)
            work()

        threading.Thread(target=wait, daemon=True).start()

    return later


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            ["mosaic"],
            'workflowtemplates.argoproj.io "contimg-mosaic" not found. Correct the name or ',
        ),
        (
            ["process-group"],
            "contimg-process-group: Parameter 'group' is required. Id of the group",
        ),
        (
            ["process-group", "--set", "group=x", "--set", "image.teir=1"],
            "--set: image --teir: there is no such option.",
        ),
        (
            ["process-group", "--set", "group=x", "--set", "image.tier=best"],
            "image --tier: Input should be 'quicklook', 'development'",
        ),
        (
            ["process-group", "--set", "group=x", "--set", "convert.max_zeros=lots"],
            "convert --max-zeros: Input should be a valid number",
        ),
        (["process-group", "--set", "group=x", "--engine", "slurm"], "--engine"),
        ([], "--pipeline"),
    ],
)
def test_a_wrong_request_is_explained_and_not_sent(
    api: ArgoApi, capfd: pytest.CaptureFixture[str], words: list[str], found: str
) -> None:
    assert here(submit, *words) == 2
    said = capfd.readouterr()
    assert found in said.err.replace('\\"', '"')
    assert (said.out, api.workflows) == ("", {})


def test_an_attempt_is_submitted_once(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("process-group", "--set", f"group={GROUP}")
    assert here(submit, *words) == 0
    assert here(submit, *words) == 2
    assert "contimg status shows it; contimg reprocess starts" in capfd.readouterr().err
    assert len(api.workflows) == 1


# A server that cannot be spoken to

WORDS = {submit: ["watch"], status: [], logs: ["w"], reprocess: [GROUP]}


@pytest.mark.parametrize(
    "command", [submit, status, logs, reprocess], ids=["submit", "status", "logs", "reprocess"]
)
class TestNoAnswer:
    def said(
        self,
        command: Callable[[Sequence[str]], int],
        capfd: pytest.CaptureFixture[str],
        *words: str,
    ) -> tuple[int, str]:
        code = here(command, *WORDS[command], *words)
        said = capfd.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return code, said.err

    def test_a_server_that_is_down(self, command: Any, capfd: pytest.CaptureFixture[str]) -> None:
        code, words = self.said(command, capfd, "--argo", "http://127.0.0.1:9")
        assert code == 20
        assert "http://127.0.0.1:9, namespace contimg" in words
        assert (
            "Connection refused. Correct --argo or ARGO_SERVER, or see whether the server runs."
            in words
        )

    def test_a_wrong_token(
        self, command: Any, api: ArgoApi, capfd: pytest.CaptureFixture[str]
    ) -> None:
        api.token = RIGHT
        code, words = self.said(command, capfd, "--token", "wrong")
        assert code == 2
        assert "does not accept the token: Unauthorized." in words
        assert "Correct --token or ARGO_TOKEN." in words
        assert "wrong" not in words  # a secret is not repeated

    def test_a_token_without_the_right(
        self, command: Any, api: ArgoApi, capfd: pytest.CaptureFixture[str]
    ) -> None:
        api.forbidden = True
        code, words = self.said(command, capfd)
        assert code == 2
        assert "Ask the operator for the role." in words

    def test_a_server_of_another_kind(
        self, command: Any, capfd: pytest.CaptureFixture[str], moto_endpoint: str
    ) -> None:
        code, words = self.said(command, capfd, "--argo", f"{moto_endpoint}/moto-api")
        assert code in {2, 20}
        assert "Correct" in words

    def test_a_url_that_is_none(self, command: Any, capfd: pytest.CaptureFixture[str]) -> None:
        code, words = self.said(command, capfd, "--argo", "ftp://x")
        assert code == 2
        assert "http://HOST:PORT or https://HOST:PORT, not ftp://x" in words


def test_the_right_token_is_sent(
    api: ArgoApi, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    api.token = RIGHT
    monkeypatch.setenv("ARGO_TOKEN", "Bearer right")  # as `argo auth token` prints it
    assert here(submit, "process-group", "--set", f"group={GROUP}") == 0
    assert here(status) == 0
    assert f"contimg-{GROUP}-a1" in capfd.readouterr().out


def test_templates_of_another_version_are_refused(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(json.dumps(api.templates["contimg-epoch"]))
    document["metadata"]["labels"]["app.kubernetes.io/version"] = "9.9.9"
    api.templates = {**api.templates, "contimg-epoch": document}
    assert here(submit, "epoch", "--set", "strip=33.0", "--set", "epoch=mine") == 2
    said = capfd.readouterr().err
    assert (
        "WorkflowTemplate contimg-epoch: The template is from contimg 9.9.9, "
        "but this program is contimg 0.1.0." in said
    )
    assert "Upgrade the chart to 0.1.0" in said
    assert not api.workflows


# status


def show(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert here(status, *words) == 0
    return capsys.readouterr().out


def test_status_has_the_columns_of_the_local_engine(
    api: ArgoApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.workflows = {
        "good": workflow(
            "good", "Succeeded", *tried("good", "convert", "Succeeded", outputs=said("s3://a"))
        ),
        "bad": workflow("bad", "Failed", *tried("bad", "convert", "Failed", message=BAD)),
        "new": workflow("new", ""),
        "crowded": workflow(
            "crowded",
            "Running",
            *tried("crowded", "image", "Pending", phase="Running", message=NO_ROOM),
        ),
        "other": workflow("other", "Running", template="somebody-elses"),
    }
    lines = show(capsys, "--lines", "0").splitlines()
    assert lines[0].split() == ["workflow", "status", "tasks", "wall", "why"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert set(rows) == {"good", "bad", "new", "crowded"}
    assert rows["crowded"].endswith(f"image: {NO_ROOM}")
    assert rows["good"].split()[1:] == ["✓", "done", "1/1", "5", "min", "0", "s"]
    assert "✗ failed" in rows["bad"]
    assert rows["bad"].endswith(f"convert: {BAD.partition(': ')[2]}")
    assert rows["new"].split()[1:3] == ["·", "pending"]


def test_a_failed_task_s_last_words_are_shown(
    api: ArgoApi, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = tried("bad", "convert", "Failed", "Failed", message=BAD)
    api.workflows = {"bad": workflow("bad", "Failed", *nodes)}
    pod = f"bad-main-{nodes[-1]['id'].rpartition('-')[2]}"
    entry = {"time": "2026-01-25T22:00:01.5Z", "level": "error"}
    lines = [json.dumps({**entry, "message": "x.hdf5: expected 145 bytes"})]
    api.logs = {
        pod: [
            "first",
            *lines,
            'time="2026" level=info msg="sub-process exited" argo=true error="<nil>"',
        ]
    }
    shown = show(capsys, "--name", "bad", "--lines", "1")
    assert (
        f"bad convert: {BAD.partition(': ')[2]}\npod {pod} ends:\n"
        "  22:00:01 error: x.hdf5: expected 145 bytes\n" in shown
    )
    row = next(line for line in shown.splitlines() if line.startswith("convert "))
    assert row.split()[1:4] == ["✗", "failed", "2"]


def test_a_log_that_is_gone_hides_nothing(api: ArgoApi, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = tried(
        "bad", "convert", "Failed", message=BAD, outputs={"artifacts": [{"name": "main-logs"}]}
    )
    api.workflows = {"bad": workflow("bad", "Failed", *nodes)}
    shown = show(capsys)
    assert BAD.partition(": ")[2] in shown
    assert (
        "Internal Server Error. Its pod may be gone; the chart's archiveLogs keeps logs.)" in shown
    )


def test_status_of_no_workflow_names_those_that_are(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    assert here(status, "one") == 2
    assert "There is no run here." in capfd.readouterr().err
    api.workflows = {"two": workflow("two", "Running")}
    assert here(status, "one") == 2
    assert "There is no run one; there are two." in capfd.readouterr().err


# A server that is away for a while


@pytest.mark.usefixtures("api")
def test_who_waits_bears_a_server_that_is_away(
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
    assert here(submit, "watch", "--wait") == 0
    assert json.loads(capfd.readouterr().out)["status"] == "done"
    assert len(asked) == 5
    asked.clear()
    monkeypatch.setattr(
        "contimg_workflows.submit.poll_until_answered", partial(poll_until_answered, patience_s=0.0)
    )
    assert here(submit, "watch", "--wait") == 20
    assert "expected an answer, found none. Wait." in capfd.readouterr().err


# logs


def test_logs_come_from_the_archive_once_the_pod_has_ended(
    api: ArgoApi, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tried("w", "convert", "Succeeded", outputs=said("s3://a"))
    running = tried("w", "flag", "Running")
    api.workflows = {"w": workflow("w", "Running", *done, *running)}
    api.archived = {done[-1]["id"]: "made\nwell\n"}
    api.logs = {f"w-main-{running[-1]['id'].rpartition('-')[2]}": ["begun"]}
    assert here(logs, "w") == 0
    assert capsys.readouterr().out.splitlines() == [
        "convert | made",
        "convert | well",
        "flag | begun",
    ]
    assert here(logs, "w", "flag") == 0
    assert capsys.readouterr().out.splitlines() == ["begun"]


def test_logs_are_followed_to_the_end_of_the_workflow(
    api: ArgoApi, capsys: pytest.CaptureFixture[str], soon: Callable[..., None]
) -> None:
    first, second = (
        tried("w", "convert", "Running"),
        tried("w", "flag", "Succeeded", outputs=said("s3://b")),
    )
    api.workflows = {"w": workflow("w", "Running", *first)}
    api.logs = {f"w-main-{first[-1]['id'].rpartition('-')[2]}": ["one", "two"]}
    api.archived = {second[-1]["id"]: "three"}
    ended = workflow("w", "Succeeded", *tried("w", "convert", "Succeeded"), *second)
    soon(
        lambda: api.workflows.update(w=ended),
        when=lambda: any(path.endswith("/log") for _, path, _ in api.requests),
    )
    assert here(logs, "w", "--follow") == 0
    assert capsys.readouterr().out.splitlines() == [
        "convert | one",
        "convert | two",
        "flag | three",
    ]


def test_logs_of_no_task_name_those_that_are(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    api.workflows = {"w": workflow("w", "Running", *tried("w", "convert", "Running"))}
    assert here(logs, "w", "image") == 2
    assert "There is no task image; the tasks are convert." in capfd.readouterr().err


# reprocess


def begun(name: str, attempt: str) -> dict[str, Any]:
    begin = node(
        name,
        "begin",
        "Pod",
        "Succeeded",
        outputs={"parameters": [{"name": "attempt", "value": attempt}]},
    )
    return workflow(
        name,
        "Running",
        begin,
        *tried(name, "process.image", "Running"),
        template="contimg-reprocess",
    )


def test_a_group_is_reprocessed_from_a_stage_on(
    api: ArgoApi, capfd: pytest.CaptureFixture[str], soon: Callable[..., None]
) -> None:
    soon(
        lambda: api.workflows.update({n: begun(n, "3") for n in api.workflows}),
        when=lambda: bool(api.workflows),
    )
    assert here(reprocess, GROUP, "--from", "image", "--set", "image.tier=quicklook") == 0
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


def test_an_unknown_group_is_told_in_the_words_of_the_task(
    api: ArgoApi, capfd: pytest.CaptureFixture[str], soon: Callable[..., None]
) -> None:
    message = (
        "Error (exit code 2): s3://sky/data/groups/: expected a record of 20990101t000000, "
        "found none. Correct the id."
    )

    def fail() -> None:
        for name in api.workflows:
            api.workflows[name] = workflow(
                name, "Failed", *tried(name, "begin", "Failed", message=message)
            )

    soon(fail, when=lambda: bool(api.workflows))
    assert here(reprocess, "20990101t000000") == 2
    said = capfd.readouterr()
    assert "s3://sky/data/groups/: expected a record of 20990101t000000, found none." in said.err
    assert said.out == ""


def test_a_store_that_does_not_answer_is_no_wrong_request(
    api: ArgoApi, capfd: pytest.CaptureFixture[str], soon: Callable[..., None]
) -> None:
    message = (
        "Error (exit code 20): STORE_UNREACHABLE: s3://sky/data: expected an answer, found none."
    )

    def fail() -> None:
        for name in api.workflows:
            api.workflows[name] = workflow(
                name, "Failed", *tried(name, "begin", "Failed", message=message)
            )

    soon(fail, when=lambda: bool(api.workflows))
    assert here(reprocess, GROUP) == 20
    assert "s3://sky/data: expected an answer, found none. contimg logs" in capfd.readouterr().err


def test_a_workflow_that_ends_before_its_first_task_is_not_waited_for(
    api: ArgoApi, capfd: pytest.CaptureFixture[str], soon: Callable[..., None]
) -> None:
    def fail() -> None:
        for name in api.workflows:
            api.workflows[name] = workflow(
                name, "Error", message="invalid spec: templates.main.tasks.begin is nowhere"
            )

    soon(fail, when=lambda: bool(api.workflows))
    assert here(reprocess, GROUP) == 20
    said = capfd.readouterr()
    assert (
        "The next attempt did not begin: invalid spec: templates.main.tasks.begin is nowhere."
        in said.err
    )
    assert said.out == ""


def test_a_setting_without_effect_is_refused(
    api: ArgoApi, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        here(
            reprocess,
            GROUP,
            "--from",
            "image",
            "--set",
            "image.tier=quicklook",
            "--set",
            "flag.rfi=off",
        )
        == 2
    )
    said = capfd.readouterr().err
    assert (
        "--set flag: The setting would have no effect: --from image reuses the artifact of flag."
        in said
    )
    assert not api.workflows


def test_the_stages_are_those_of_the_template(api: ArgoApi) -> None:
    parameters = api.templates["contimg-reprocess"]["spec"]["arguments"]["parameters"]
    assert list(PROCESS_GROUP.order) == next(p["enum"] for p in parameters if p["name"] == "from")


def test_a_wrong_stage_is_explained(api: ArgoApi, capfd: pytest.CaptureFixture[str]) -> None:
    assert here(reprocess, GROUP, "--from", "mosaic") == 2
    assert "There is no step 'mosaic'; the steps are convert" in capfd.readouterr().err
    assert not api.workflows


# Which engine


def test_the_engine_follows_from_what_is_named(
    tmp_path: Path, api: ArgoApi, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    api.workflows = {"w": workflow("w", "Running")}
    assert here(status) == 0  # ARGO_SERVER
    for words in (["--runs", str(tmp_path)], ["--engine", "local", "--store", str(tmp_path)]):
        assert here(status, *words) == 2
        assert "There is no run here." in capfd.readouterr().err
    monkeypatch.delenv("ARGO_SERVER")
    assert here(status) == 2
    assert "Neither --store nor --runs is given." in capfd.readouterr().err
    assert here(status, "--engine", "argo") == 2
    assert "No Argo Server is named, by --argo URL or by ARGO_SERVER." in capfd.readouterr().err
    assert here(status, "--argo", api.url, "--namespace", "other") == 0
    assert "/api/v1/workflows/other" in {path for _, path, _ in api.requests}


def test_a_server_is_named_as_the_argo_program_names_it(
    api: ArgoApi, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    api.workflows = {"w": workflow("w", "Running")}
    monkeypatch.setenv("ARGO_SERVER", api.url.removeprefix("http://"))
    monkeypatch.setenv("ARGO_SECURE", "false")
    assert here(status) == 0
    monkeypatch.delenv("ARGO_SECURE")
    capfd.readouterr()
    assert here(status) == 20
    assert "https://127.0.0.1" in capfd.readouterr().err
