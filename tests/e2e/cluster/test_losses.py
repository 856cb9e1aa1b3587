"""Losses while a group is processed: the pod of a stage, and the store for a minute."""

from __future__ import annotations

import time

import pytest

from cluster.argo import nodes, tries
from cluster.groups import WRONG_TELESCOPE, Night, upload
from cluster.kube import wait_until
from cluster.site import Site

pytestmark = pytest.mark.cluster
AWAY_S = 60.0
"""How long the store is away, seconds."""


def running(site: Site, name: str, stage: str) -> tuple[str, str] | None:
    """Return name and uid of the pod of a stage whose main container runs."""
    for pod in site.kube.all("pods", f"workflows.argoproj.io/workflow={name}"):
        about = pod["metadata"]
        annotation = about["annotations"].get("workflows.argoproj.io/node-name", "")
        states = {one["name"]: one["state"] for one in pod["status"].get("containerStatuses", [])}
        if (
            f".{stage}" in annotation
            and "running" in states.get("main", {})
            and "deletionTimestamp" not in about
        ):
            return str(about["name"]), str(about["uid"])
    return None


def is_gone(site: Site, name: str, uid: str) -> bool:
    """Return whether a pod is gone; another pod may have its name."""
    pod = site.kube.get("pods", name)
    return pod is None or pod["metadata"]["uid"] != uid


def test_killed_pod_is_retried(site: Site, processed: Night) -> None:
    """First deleted (a lost node), then terminated (a drained one); the third is left alone."""
    name = site.reprocess(processed.id, image={"tier": "development", "niter": "300"})
    killed = set()
    for grace_s in (0, 30):
        pod, uid = wait_until(
            "image at work", lambda: running(site, name, "image"), 300, every_s=0.4
        )
        time.sleep(1)
        site.kube.kill(pod, grace_s=grace_s)
        wait_until("the pod's end", lambda pod=pod, uid=uid: is_gone(site, pod, uid), 60)  # type: ignore[misc]
        assert site.half_written(processed.id) == []
        killed.add(uid)
    workflow = site.succeeded(name)
    assert len(killed) == 2
    # Argo makes a pod that vanished before it was seen running again under the same name, as the
    # same try.
    assert len(tries(workflow, "image")) in {1, 2, 3}, nodes(workflow, "Pod")
    assert [node["phase"] for node in tries(workflow, "image")][-1] == "Succeeded"
    assert site.half_written(processed.id) == []


def test_workflow_survives_store_outage(site: Site, processed: Night) -> None:
    name = site.reprocess(processed.id, image={"tier": "development", "niter": "301"})
    wait_until("image at work", lambda: running(site, name, "image"), 300)
    site.shut_door()
    try:
        time.sleep(AWAY_S)
    finally:
        site.open_door()
    site.succeeded(name)
    assert site.half_written(processed.id) == []


def test_watch_finds_files_after_store_outage(site: Site) -> None:
    """Watch itself is away from the store, too; afterwards it sees what came."""
    night = Night("2026-01-31", telescope="HERA")
    site.shut_door()
    try:
        upload(site.store, night.files)
        time.sleep(10)  # watch looks every two seconds
    finally:
        site.open_door()
    assert site.outcome(f"{night.id}-a1", 300)["exit"] == WRONG_TELESCOPE
