"""A release is changed at work, tested, removed and put back; the data stay."""

from __future__ import annotations

import pytest

from cluster.argo import phase
from cluster.groups import Night, upload
from cluster.kube import wait_until
from cluster.site import RELEASE, Site

pytestmark = pytest.mark.cluster


def objects(site: Site) -> dict[str, tuple[int, object]]:
    """Return what the store holds, but for the logs of workflows and watch's own memory."""
    own = ("argo/", "watch/", "probe")
    return {
        entry.key: (entry.size, entry.modified)
        for entry in site.store.entries("")
        if not entry.key.startswith(own)
    }


def test_upgrade_keeps_running_workflow(site: Site) -> None:
    night = Night("2026-02-01")
    upload(site.store, night.files)
    name = f"contimg-{night.id}-a1"
    wait_until(
        "the workflow at work", lambda: phase(site.kube.get("workflows", name)) == "Running", 120
    )
    site.changes = {**site.changes, "semaphores": {"casa": 3}}
    site.install()
    config = site.kube.get("configmaps", "contimg-semaphores")
    assert config is not None
    assert config["data"]["casa"] == "3"
    site.succeeded(name)
    assert site.outcome(f"{night.id}-a1")["phase"] == "succeeded"


def test_helm_test_succeeds(site: Site) -> None:
    said = site.helm("test", RELEASE, "--timeout", "15m", timeout_s=1000)
    assert "Succeeded" in said


def test_reinstall_keeps_all_data(site: Site) -> None:
    wait_until(
        "the end of all workflows",
        lambda: not [w for w in site.workflows() if phase(w) in {"", "Running"}],
        300,
    )
    before, runs = objects(site), site.runs()
    site.helm("uninstall", RELEASE, "--wait")
    assert site.kube.get("deployments", "contimg-watch") is None
    assert objects(site) == before
    site.install()
    night = Night("2026-02-02", telescope="HERA")
    upload(site.store, night.files)
    site.outcome(f"{night.id}-a1", 300)
    # It knew the groups that were done: none of them was begun again.
    assert set(site.runs()) == {*runs, f"{night.id}-a1"}
    after = objects(site)
    assert {key: after.get(key) for key in before if not key.startswith("tables/")} == {
        key: value for key, value in before.items() if not key.startswith("tables/")
    }
