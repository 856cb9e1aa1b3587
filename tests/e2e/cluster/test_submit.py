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


def test_every_pipeline_has_a_form_with_words(site: Site) -> None:
    status, said = site.argo.ask("GET", f"workflow-templates/{site.namespace}")
    assert status == 200
    forms = {
        one["metadata"]["name"]: one["spec"]["arguments"].get("parameters", [])
        for one in said["items"]
    }
    pipelines = {f"contimg-{name}" for name in (*PIPELINES, *DRIVERS)}
    assert pipelines <= forms.keys()
    assert [
        (name, one["name"])
        for name in pipelines
        for one in forms[name]
        if not one.get("description")
    ] == []


@dataclass(frozen=True)
class Submitted:
    """Every pipeline, begun at once; the tests wait for them one by one."""

    before: dict[str, int]
    """Number of artifacts of each stage of the group."""
    reprocess: str
    epoch: str
    backfill: str
    sweep: str
    nightly: str
    unknown_group: str
    wrong_type: str
    unknown_profile: str
    no_choice: tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def submitted(site: Site, processed: Night) -> Submitted:
    group = processed.id
    day = f"{group[:4]}-{group[4:6]}-{group[6:8]}"
    submit = site.argo.submit
    # So high that rows change: a table of the same bytes would leave the report as it is.
    again = {"group": group, "from": "photometry"}

    def detection(snr: str) -> dict[str, str]:
        return {**again, "options": f"photometry: {{detection_snr: {snr}}}\n"}

    return Submitted(
        before={stage: len(made) for stage, made in site.manifests(group).items()},
        reprocess=submit("contimg-reprocess", detection("100")),
        epoch=submit("contimg-epoch", {"strip": "33.0", "epoch": "rest"}),
        backfill=submit("contimg-backfill", {"first_day": day, "last_day": day}),
        sweep=submit("contimg-sweep", {}, kind="CronWorkflow"),
        nightly=submit("contimg-nightly", {}, kind="CronWorkflow"),
        unknown_group=submit("contimg-process-group", {"group": "20200101t000000"}),
        wrong_type=submit("contimg-reprocess", detection("wide")),
        unknown_profile=submit("contimg-epoch", {"strip": "33", "epoch": "x", "profile": "no"}),
        no_choice=submit_raw(site, "contimg-reprocess", [f"group={group}", "tier=splendid"]),
    )


@pytest.mark.parametrize("name", ["sweep", "nightly"])
def test_a_regular_job_by_hand(site: Site, submitted: Submitted, name: str) -> None:
    """First: a CronWorkflow keeps its last three workflows, and a sweep runs every minute."""
    site.succeeded(getattr(submitted, name))


def test_reprocess_from_a_stage_on_with_an_override(
    site: Site, processed: Night, submitted: Submitted
) -> None:
    workflow = site.succeeded(submitted.reprocess)
    after = {stage: len(made) for stage, made in site.manifests(processed.id).items()}
    changed = {stage for stage in after if after[stage] != submitted.before[stage]}
    assert changed == {"photometry", "report"}, nodes(workflow)


def test_an_epoch(site: Site, submitted: Submitted) -> None:
    workflow = site.succeeded(submitted.epoch)
    assert {"normalize", "variability", "report"} <= site.manifests("epoch-rest").keys(), messages(
        workflow
    )


def test_a_backfill_of_a_date(site: Site, submitted: Submitted) -> None:
    assert len(nodes(site.succeeded(submitted.backfill))) < 100


def test_a_group_that_does_not_exist_is_named(site: Site, submitted: Submitted) -> None:
    workflow = site.finished(submitted.unknown_group)
    assert phase(workflow) == "Failed"
    assert "20200101t000000" in messages(workflow)


def test_a_value_of_the_wrong_type_is_named(site: Site, submitted: Submitted) -> None:
    workflow = site.finished(submitted.wrong_type)
    assert phase(workflow) == "Failed"
    assert "--detection-snr" in messages(workflow)
    assert "wide" in messages(workflow)


def test_wrong_options_end_a_workflow_at_its_first_task(site: Site, submitted: Submitted) -> None:
    for name in (submitted.wrong_type, submitted.unknown_profile):
        stages = {node["displayName"] for node in nodes(site.finished(name), "Pod")}
        assert not any(stage.startswith("process") for stage in stages), stages
    assert "There is no profile of this name" in messages(site.finished(submitted.unknown_profile))


def test_a_word_that_is_no_choice_is_refused(site: Site, submitted: Submitted) -> None:
    status, said = submitted.no_choice
    assert status == 200 or "splendid" in said["message"], said
    if status == 200:  # Argo's server does not check choices; the first task does
        workflow = site.finished(said["metadata"]["name"])
        assert phase(workflow) in {"Failed", "Error"}
        assert "splendid" in messages(workflow)


def submit_raw(site: Site, template: str, parameters: list[str]) -> tuple[int, dict[str, Any]]:
    body = {
        "resourceKind": "WorkflowTemplate",
        "resourceName": template,
        "submitOptions": {"parameters": parameters},
    }
    return site.argo.ask("POST", f"workflows/{site.namespace}/submit", body)
