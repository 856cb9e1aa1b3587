"""A group with bad data, and a stage that needs more memory than its limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.argo import Workflow, phase, tries
from cluster.groups import WRONG_TELESCOPE, Night, upload
from cluster.kube import ROOT, environment
from cluster.site import SMALL, Site, deep

pytestmark = pytest.mark.cluster
CONTIMG = Path(sys.executable).parent / "contimg"


@pytest.fixture(scope="module")
def bad_group(site: Site) -> tuple[Night, Workflow]:
    """A group of another telescope, and the workflow that it got."""
    night = Night("2026-01-30", telescope="HERA")
    upload(site.store, night.files)
    site.outcome(f"{night.id}-a1")
    return night, site.finished(f"contimg-{night.id}-a1")


def test_bad_data_are_not_retried(bad_group: tuple[Night, Workflow]) -> None:
    _, workflow = bad_group
    assert phase(workflow) == "Failed"
    (convert,) = tries(workflow, "convert")
    assert convert["outputs"]["exitCode"] == str(WRONG_TELESCOPE)


def test_node_message_gives_reason(bad_group: tuple[Night, Workflow]) -> None:
    _, workflow = bad_group
    (convert,) = tries(workflow, "convert")
    assert "HERA" in convert["message"], convert["message"]


def test_status_gives_reason(site: Site, bad_group: tuple[Night, Workflow]) -> None:
    night, _ = bad_group
    server = ["--engine=argo", f"--argo={site.argo.url}", f"--namespace={site.namespace}"]
    argv = [str(CONTIMG), "status", *server, f"--name=contimg-{night.id}-a1"]
    said = subprocess.run(
        argv, capture_output=True, text=True, env=environment(), check=False, cwd=ROOT
    )
    assert "HERA" in said.stdout, said.stdout + said.stderr


def test_tables_record_bad_data(site: Site, bad_group: tuple[Night, Workflow]) -> None:
    night, _ = bad_group
    outcome = site.document(f"runs/{night.id}-a1/outcome.json")
    assert outcome is not None
    expected = {"phase": "failed", "blame": "data", "exit": WRONG_TELESCOPE}
    assert {name: outcome[name] for name in expected} == expected
    (row,) = site.table("groups", night.id).to_dict("records")
    assert (row["state"], row["exit"], row["retries"]) == ("failed", WRONG_TELESCOPE, 0)


def test_out_of_memory_retry_gets_more(site: Site, processed: Night) -> None:
    """With too little memory for flag, for the time of the test."""
    before = site.changes
    resources = {kind: {"memory": "200Mi"} for kind in ("requests", "limits")}
    site.changes = deep(before, {"stages": {"flag": {"resources": {**SMALL, **resources}}}})
    site.install()
    try:
        workflow = site.succeeded(site.reprocess(processed.id, flag={"clip_sigma": "9"}))
    finally:
        site.changes = before
        site.install()
    pods = tries(workflow, "flag")
    assert len(pods) > 1, json.dumps(pods)
    assert "137" in [pod.get("outputs", {}).get("exitCode") for pod in pods[:-1]], json.dumps(pods)
