"""What may be wrong with a group: bad data, and a stage that wants more memory than it has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.argo import Workflow, phase, tries
from cluster.groups import WRONG_TELESCOPE, Night, upload
from cluster.kube import ROOT, environment
from cluster.site import SMALL, Site, deep

pytestmark = pytest.mark.cluster
CONTIMG = Path(sys.executable).parent / "contimg"


@pytest.fixture(scope="module")
def spoilt(site: Site) -> tuple[Night, Workflow]:
    """A group of another telescope, and the workflow that it got."""
    night = Night("2026-01-30", telescope="HERA")
    upload(site.store, night.files)
    site.outcome(f"{night.id}-a1")
    return night, site.finished(f"contimg-{night.id}-a1")


def test_bad_data_are_not_tried_again(spoilt: tuple[Night, Workflow]) -> None:
    _, workflow = spoilt
    assert phase(workflow) == "Failed"
    (convert,) = tries(workflow, "convert")
    assert convert["outputs"]["exitCode"] == str(WRONG_TELESCOPE)


def test_the_reason_is_what_the_ui_shows(spoilt: tuple[Night, Workflow]) -> None:
    _, workflow = spoilt
    (convert,) = tries(workflow, "convert")
    assert "HERA" in convert["message"], convert["message"]


def test_the_reason_is_what_status_shows(site: Site, spoilt: tuple[Night, Workflow]) -> None:
    night, _ = spoilt
    argv = [
        str(CONTIMG),
        "status",
        "--engine=argo",
        f"--argo={site.argo.url}",
        f"--namespace={site.namespace}",
    ]
    said = subprocess.run(
        [*argv, f"--name=contimg-{night.id}-a1"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        cwd=ROOT,
    )
    assert "HERA" in said.stdout, said.stdout + said.stderr


def test_the_tables_blame_the_data(site: Site, spoilt: tuple[Night, Workflow]) -> None:
    night, _ = spoilt
    outcome = site.document(f"runs/{night.id}-a1/outcome.json")
    assert outcome is not None
    assert (outcome["phase"], outcome["blame"], outcome["exit"]) == (
        "failed",
        "data",
        WRONG_TELESCOPE,
    )
    (row,) = site.table("groups", night.id).to_dict("records")
    assert (row["state"], row["exit"], row["retries"]) == ("failed", WRONG_TELESCOPE, 0)


@pytest.fixture
def starved(site: Site) -> Callable[[], None]:
    """Give flag too little memory for a group, until the test ends."""
    before = site.changes
    little = {
        "stages": {
            "flag": {
                "resources": {
                    **SMALL,
                    "requests": {"memory": "200Mi"},
                    "limits": {"memory": "200Mi"},
                }
            }
        }
    }
    site.changes = deep(before, little)
    site.install()

    def end() -> None:
        site.changes = before
        site.install()

    return end


def test_a_stage_that_wants_memory_gets_more(
    site: Site, processed: Night, starved: Callable[[], None]
) -> None:
    try:
        workflow = site.succeeded(site.reprocess(processed.id, flag={"clip_sigma": "9"}))
    finally:
        starved()
    pods = tries(workflow, "flag")
    assert len(pods) > 1, json.dumps(pods)
    assert "137" in [pod.get("outputs", {}).get("exitCode") for pod in pods[:-1]], json.dumps(pods)
