"""``contimg submit``, ``status``, ``logs`` and ``reprocess`` against the real Argo Server."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any
from unittest import mock

import pytest

from cluster.argo import phase
from cluster.groups import Night
from cluster.kube import environment, wait_until
from cluster.site import STEPS, Site
from commands import run_here
from contimg_runs.argo import ArgoServer
from contimg_runs.state import GOOD

pytestmark = pytest.mark.cluster
COLUMNS = ["workflow", "status", "tasks", "wall", "why"]
GROUP_X = ["submit", "process-group", "--set", "group=x", "--set"]


@dataclass(frozen=True)
class CommandOutput:
    """Output and exit code of a command."""

    returncode: int
    stdout: str
    stderr: str


def contimg(site: Site, command: str, *words: str, **env: str) -> CommandOutput:
    """Run a command with a server and a namespace, in this process."""
    told = {"ARGO_SERVER": site.argo.url, "ARGO_NAMESPACE": site.namespace, "ARGO_TOKEN": "", **env}
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, told), redirect_stdout(out), redirect_stderr(err):
        code = run_here(command, *words)
    return CommandOutput(code, out.getvalue(), err.getvalue())


def answer(done: CommandOutput) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def show_all(site: Site, **env: str) -> dict[str, list[str]]:
    """Return the words of each row of status, by the workflow's name."""
    done = contimg(site, "status", "--lines", "0", **env)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split() == COLUMNS
    return {line.split()[0]: line.split()[1:] for line in lines if line.strip()}


def submitted(site: Site) -> set[str]:
    """Return the names of the workflows; those of the clock come and go."""
    names = {str(workflow["metadata"]["name"]) for workflow in site.workflows()}
    return {name for name in names if "sweep" not in name}


def test_status_shows_workflow_of_the_sensor(site: Site, processed: Night) -> None:
    name = f"contimg-{processed.id}-a1"
    assert show_all(site)[name][:2] == ["✓", "done"]
    shown = contimg(site, "status", name)
    tasks = {
        line.split()[0]: line.split()[2] for line in shown.stdout.splitlines()[3:] if line.strip()
    }
    assert {f"process-{stage}" for stage in STEPS} <= tasks.keys()
    assert set(tasks.values()) <= {"done", "cached"}


def test_logs_follow_ends_with_the_workflow(site: Site) -> None:
    name = answer(contimg(site, "submit", "watch", "--set", "size=0"))["workflow"]
    said = contimg(site, "logs", name, "--follow")
    assert said.returncode == 0, said.stderr
    # It ended because the workflow had.
    assert '"stage": "watch"' in said.stdout
    assert all(line.startswith("main | ") for line in said.stdout.splitlines())
    state = ArgoServer(site.argo.url, site.namespace, None).state(name)
    assert state.status in GOOD
    # Afterwards it is what Argo kept; two streams may be woven in another way.
    kept = contimg(site, "logs", name, "main").stdout.splitlines()
    assert sorted(kept) == sorted(line.removeprefix("main | ") for line in said.stdout.splitlines())


def test_reprocess_from_stage_is_next_attempt(site: Site, processed: Night) -> None:
    before = {stage: len(made) for stage, made in site.manifests(processed.id).items()}
    settings = ("--from", "photometry", "--set", "photometry.detection_snr=7.5")
    found = answer(contimg(site, "reprocess", processed.id, *settings, "--wait"))
    assert found["status"] == "done", found
    assert found["attempt"] == max(
        int(run.rpartition("-a")[2]) for run in site.runs() if run.startswith(processed.id)
    )
    assert site.outcome(f"{processed.id}-a{found['attempt']}")["workflow"] == found["workflow"]
    after = {stage: len(made) for stage, made in site.manifests(processed.id).items()}
    changed = {stage for stage in after if after[stage] != before[stage]}
    # The page is made again only if the fluxes came out differently.
    assert {"photometry"} <= changed <= {"photometry", "report"}


def test_reprocess_of_unknown_group_is_refused(site: Site) -> None:
    done = contimg(site, "reprocess", "20990101t000000")
    assert (done.returncode, done.stdout) == (2, "")
    assert "groups/20990101t000000-a1.json: There is no record of this group." in done.stderr
    name = next(name for name in show_all(site) if "20990101t000000" in name)
    shown = contimg(site, "status", name)
    assert "begin: s3://" in shown.stdout.splitlines()[1]
    assert " ends:" in shown.stdout  # the last lines of the task's log
    assert "error: s3://" in shown.stdout


def test_status_shows_pending_workflows(site: Site) -> None:
    """The first workflow holds a lock and is suspended, so that the second has to wait for it."""
    names = ["contimg-cli-first", "contimg-cli-second"]
    lock = {"mutexes": [{"name": "contimg-cli-test"}]}
    for name in names:
        template = {"workflowTemplateRef": {"name": "contimg-watch"}}
        spec = {**template, "synchronization": lock, "suspend": name == names[0]}
        kind = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"}
        site.kube.apply({**kind, "metadata": {"name": name}, "spec": spec})
        wait_until(
            f"a phase of {name}", partial(lambda n: phase(site.kube.get("workflows", n)), name), 60
        )
    try:
        # The controller first says that it is pending, and then why.
        wait_until("a reason", lambda: "Waiting for" in " ".join(show_all(site)[names[1]]), 60)
        found = show_all(site)
        assert found[names[0]][:2] == ["▶", "running"]
        assert found[names[1]][:2] == ["·", "pending"]
    finally:
        site.kube.ctl("delete", "workflow", *names)


# What is refused


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["submit", "mosaic"], 'workflowtemplates.argoproj.io "contimg-mosaic" not found'),
        (["submit", "process-group"], "Parameter 'group' is required. Id of the group"),
        ([*GROUP_X, "image.teir=1"], "image --teir: there is no such option"),
        ([*GROUP_X, "image.tier=best"], "image --tier: Input should be 'quicklook', 'development'"),
        ([*GROUP_X, "convert.max_zeros=lots"], "convert --max-zeros: Input should be a valid numb"),
        (
            ["submit", "watch", "--namespace", "nowhere"],
            "Correct the name or --namespace, or install the chart there.",
        ),
        (["status", "nothing"], "There is no run nothing; there are "),
        (["logs", "nothing"], "There is no run nothing; there are "),
    ],
)
def test_wrong_request_is_not_submitted(site: Site, words: list[str], found: str) -> None:
    before = submitted(site)
    done = contimg(site, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert found in done.stderr.replace('\\"', '"')
    assert submitted(site) == before


def test_submit_of_existing_attempt_is_refused(site: Site, processed: Night) -> None:
    done = contimg(site, "submit", "process-group", "--set", f"group={processed.id}")
    assert done.returncode == 2
    assert "An object of this name already exists." in done.stderr


def test_submit_refuses_template_of_another_version(site: Site) -> None:
    document = site.kube.get("workflowtemplates", "contimg-watch")
    assert document is not None
    labels = {**document["metadata"]["labels"], "app.kubernetes.io/version": "9.9.9"}
    site.kube.apply({**document, "metadata": {"name": "contimg-old", "labels": labels}})
    try:
        done = contimg(site, "submit", "old")
        assert done.returncode == 2
        assert "The template is from contimg 9.9.9, but this program is" in done.stderr
        assert f"contimg {version('contimg')}. Upgrade the chart" in done.stderr
    finally:
        site.kube.ctl("delete", "workflowtemplate", "contimg-old")


def test_unreachable_or_foreign_server_is_named(site: Site) -> None:
    done = contimg(site, "status", ARGO_SERVER="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (20, "")
    assert (
        "Connection refused. Correct --argo or ARGO_SERVER, or see whether the server runs."
        in done.stderr
    )
    done = contimg(site, "status", ARGO_SERVER=environment()["AWS_ENDPOINT_URL_S3"])
    assert done.returncode == 20
    assert "The Argo Server did not do this: " in done.stderr


@pytest.fixture(scope="module")
def locked_server(site: Site) -> Iterator[str]:
    """An Argo Server that asks for a token; the kit's own trusts whoever reaches it."""
    program = shutil.which("argo", path=environment()["PATH"])
    if program is None:
        pytest.skip("no argo program here to serve with")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["--namespace=argo", "--auth-mode=client", "--secure=false", f"--port={port}"]
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([program, "server", *options], env=environment(), **silent)
    url = f"http://127.0.0.1:{port}"
    token = site.kube.ctl("create", "token", "contimg-control").strip()
    # Just begun it lists nothing: it has yet to fill its cache.
    wait_until(
        "a server with a login",
        lambda: contimg(site, "status", ARGO_SERVER=url, ARGO_TOKEN=token).returncode == 0,
        60,
    )
    yield url
    server.terminate()
    server.wait(30)


def test_token_is_checked_and_not_printed(site: Site, locked_server: str) -> None:
    for token in ("", "wrong"):
        done = contimg(site, "status", ARGO_SERVER=locked_server, ARGO_TOKEN=token)
        assert (done.returncode, done.stdout) == (2, "")
        assert "The Argo Server does not accept the token: " in done.stderr
        assert "Correct --token or ARGO_TOKEN." in done.stderr
    weak = site.kube.ctl("create", "token", "contimg-workflow").strip()
    done = contimg(site, "status", ARGO_SERVER=locked_server, ARGO_TOKEN=weak)
    assert done.returncode == 2
    assert "The token lacks the permission: Permission denied" in done.stderr
    assert weak not in done.stderr
    control = site.kube.ctl("create", "token", "contimg-control").strip()
    assert show_all(site, ARGO_SERVER=locked_server, ARGO_TOKEN=f"Bearer {control}")
