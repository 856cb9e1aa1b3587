"""Every pipeline by the Argo Server's REST API, as the UI submits it, and refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from cluster.argo import messages, nodes, phase
from cluster.groups import Night
from cluster.site import Site
from contimg_runs.pipelines import PIPELINES
from contimg_workflows.forms import DRIVERS

pytestmark = pytest.mark.cluster


def test_every_form_has_descriptions(site: Site) -> None:
    status, said = site.argo.ask("GET", f"workflow-templates/{site.namespace}")
    assert status == 200
    forms = {
        one["metadata"]["name"]: one["spec"]["arguments"].get("parameters", [])
        for one in said["items"]
    }
    pipelines = {f"contimg-{name}" for name in (*PIPELINES, *DRIVERS)}
    assert pipelines <= forms.keys()
    fields = [(name, one) for name in pipelines for one in forms[name]]
    assert [(name, one["name"]) for name, one in fields if not one.get("description")] == []


@dataclass(frozen=True)
class Submitted:
    """Every pipeline, begun at once; the tests wait for them one by one."""

    before: dict[str, int]
    """Number of artifacts of each stage of the group."""
    names: dict[str, str]
    """Name of the workflow that each request gave."""
    invalid_choice: tuple[int, dict[str, Any]]
    """Status and answer of a request with an invalid choice."""


@pytest.fixture(scope="module")
def submitted(site: Site, processed: Night) -> Submitted:
    group = processed.id
    day = f"{group[:4]}-{group[4:6]}-{group[6:8]}"
    submit = site.argo.submit
    # So high that rows change: a table of the same bytes would leave the report as it is.
    again = {"group": group, "from": "photometry"}

    def detection(snr: str) -> dict[str, str]:
        return {**again, "options": f"photometry: {{detection_snr: {snr}}}\n"}

    body = {
        "resourceKind": "WorkflowTemplate",
        "resourceName": "contimg-reprocess",
        "submitOptions": {"parameters": [f"group={group}", "tier=splendid"]},
    }
    before = {stage: len(manifests) for stage, manifests in site.manifests(group).items()}
    names = {
        "reprocess": submit("contimg-reprocess", detection("100")),
        "epoch": submit("contimg-epoch", {"strip": "33.0", "epoch": "rest"}),
        "backfill": submit("contimg-backfill", {"first_day": day, "last_day": day}),
        "sweep": submit("contimg-sweep", {}, kind="CronWorkflow"),
        "nightly": submit("contimg-nightly", {}, kind="CronWorkflow"),
        "unknown group": submit("contimg-process-group", {"group": "20200101t000000"}),
        "wrong type": submit("contimg-reprocess", detection("wide")),
        "unknown profile": submit("contimg-epoch", {"strip": "33", "epoch": "x", "profile": "no"}),
    }
    answer = site.argo.ask("POST", f"workflows/{site.namespace}/submit", body)
    return Submitted(before, names, answer)


@pytest.mark.parametrize("name", ["sweep", "nightly"])
def test_cron_workflow_runs_by_hand(site: Site, submitted: Submitted, name: str) -> None:
    """First: a CronWorkflow keeps its last three workflows, and a sweep runs every minute."""
    site.succeeded(submitted.names[name])


def test_reprocess_with_option_remakes_later_stages(
    site: Site, processed: Night, submitted: Submitted
) -> None:
    workflow = site.succeeded(submitted.names["reprocess"])
    after = {stage: len(made) for stage, made in site.manifests(processed.id).items()}
    changed = {stage for stage in after if after[stage] != submitted.before[stage]}
    assert changed == {"photometry", "report"}, nodes(workflow)


def test_epoch_makes_its_products(site: Site, submitted: Submitted) -> None:
    workflow = site.succeeded(submitted.names["epoch"])
    assert {"normalize", "variability", "report"} <= site.manifests("epoch-rest").keys(), messages(
        workflow
    )


def test_backfill_of_one_date_succeeds(site: Site, submitted: Submitted) -> None:
    assert len(nodes(site.succeeded(submitted.names["backfill"]))) < 100


def test_unknown_group_fails_with_its_name(site: Site, submitted: Submitted) -> None:
    workflow = site.finished(submitted.names["unknown group"])
    assert phase(workflow) == "Failed"
    assert "20200101t000000" in messages(workflow)


def test_wrong_type_fails_with_option_name(site: Site, submitted: Submitted) -> None:
    workflow = site.finished(submitted.names["wrong type"])
    assert phase(workflow) == "Failed"
    assert "--detection-snr" in messages(workflow)
    assert "wide" in messages(workflow)


def test_wrong_options_fail_at_first_task(site: Site, submitted: Submitted) -> None:
    for name in ("wrong type", "unknown profile"):
        workflow = site.finished(submitted.names[name])
        stages = {node["displayName"] for node in nodes(workflow, "Pod")}
        assert not any(stage.startswith("process") for stage in stages), stages
    assert "There is no profile of this name" in messages(workflow)


def test_invalid_choice_is_refused(site: Site, submitted: Submitted) -> None:
    status, said = submitted.invalid_choice
    assert status == 200 or "splendid" in said["message"], said
    if status == 200:  # Argo's server does not check choices; the first task does
        workflow = site.finished(said["metadata"]["name"])
        assert phase(workflow) in {"Failed", "Error"}
        assert "splendid" in messages(workflow)
