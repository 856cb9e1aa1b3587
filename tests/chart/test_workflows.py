"""What the chart adds to the rendered templates, and that it adds nothing else."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from charted import CHART, Document, helm, of_kind, one, render
from contimg.runtime.stage import stage_specs
from contimg_workflows.lint import lint

if TYPE_CHECKING:
    from pathlib import Path

RENDERED = CHART / "rendered"
S3 = {
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
}


def sources() -> dict[tuple[str, str], Document]:
    """Return the rendered documents by kind and name."""
    documents = [yaml.safe_load(path.read_text()) for path in RENDERED.glob("*.yaml")]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def ours(documents: list[Document]) -> dict[tuple[str, str], Document]:
    kinds = ("WorkflowTemplate", "CronWorkflow")
    return {
        (kind, name): document
        for kind in kinds
        for name, document in of_kind(documents, kind).items()
    }


def containers(documents: list[Document]) -> dict[str, Document]:
    """Return the containers by template's name; each stage's template has one."""
    return {
        name: template["container"]
        for name, document in of_kind(documents, "WorkflowTemplate").items()
        for template in document["spec"]["templates"]
        if "container" in template
    }


def env(container: Document) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def parameters(document: Document) -> dict[str, str]:
    spec = document["spec"].get("workflowSpec", document["spec"])
    return {
        one["name"]: one.get("value") for one in spec.get("arguments", {}).get("parameters", [])
    }


def stripped(document: Document) -> Document:
    """Return a document without what the chart may set."""
    spec = document["spec"].get("workflowSpec", document["spec"])
    for key in ("serviceAccountName", "artifactRepositoryRef", "podMetadata"):
        spec.pop(key, None)
    spec["arguments"] = [one["name"] for one in spec.get("arguments", {}).get("parameters", [])]
    document["spec"].pop("schedules", None)
    document["metadata"].pop("labels")
    for template in spec.get("templates", []):
        template.pop("serviceAccountName", None)
        for artifact in template.get("outputs", {}).get("artifacts", []):
            artifact["s3"]["key"] = artifact["s3"]["key"].removeprefix("telescope/")
        container = template.get("container")
        if container:
            container["image"] = container["image"].rpartition("/")[2]
            container.pop("imagePullPolicy", None)
            container["env"] = [
                one
                for one in container["env"]
                if not one["name"].startswith("AWS_") and one["name"] != "CONTIMG_PROFILES"
            ]
    return document


@pytest.mark.helm
class TestMerged:
    def test_every_document_comes_out_with_nothing_lost_and_nothing_added(self) -> None:
        merged, before = ours(render()), sources()
        assert set(merged) == set(before)
        for key, document in before.items():
            copy = yaml.safe_load(yaml.safe_dump(merged[key]))
            assert stripped(copy) == stripped(document), key

    def test_argo_s_braces_are_not_helm_s(self) -> None:
        text = yaml.safe_dump_all(render())
        assert text.count("{{inputs.parameters.") > 100
        assert "{{workflow.name}}" in text

    def test_every_form_is_filled_with_the_store(self) -> None:
        for key, document in ours(render()).items():
            values = parameters(document)
            if "store" in values:
                assert values["store"] == "s3://contimg/telescope", key
        assert (
            parameters(one(render("everything"), "WorkflowTemplate", "contimg-process-group"))[
                "store"
            ]
            == "s3://sky/a/b"
        )

    def test_labels_of_the_source_stay(self) -> None:
        template = one(render(), "WorkflowTemplate", "contimg-convert")
        assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "convert"
        assert template["metadata"]["labels"]["app.kubernetes.io/version"] == "0.1.0"

    def test_every_container_reaches_the_store(self) -> None:
        found = containers(render())
        assert len(found) >= 10
        for name, container in found.items():
            variables = env(container)
            assert variables.keys() >= S3, name
            assert variables["AWS_ENDPOINT_URL_S3"] == "http://s3.storage.svc:9000"
            assert variables["AWS_SECRET_ACCESS_KEY"] == {
                "secretKeyRef": {"name": "contimg-s3", "key": "AWS_SECRET_ACCESS_KEY"}
            }
            assert variables["CONTIMG_TEMPLATE_VERSION"] == "0.1.0"
            assert len({one["name"] for one in container["env"]}) == len(container["env"]), name

    def test_with_workload_identity_no_key_is_asked_for(self) -> None:
        for name, container in containers(render("identity")).items():
            assert env(container).keys() & S3 == {"AWS_REGION", "AWS_DEFAULT_REGION"}, name
        config = yaml.safe_load(
            one(render("identity"), "ConfigMap", "contimg-artifacts")["data"]["s3"]
        )
        assert config["s3"]["useSDKCreds"] is True
        assert config["s3"]["endpoint"] == "s3.us-west-2.amazonaws.com"
        assert config["s3"]["insecure"] is False
        assert config["s3"]["keyFormat"] == "argo/{{workflow.name}}/{{pod.name}}"


@pytest.mark.helm
class TestImages:
    def test_by_default_name_and_version(self) -> None:
        assert containers(render())["contimg-convert"]["image"] == "contimg-convert:0.1.0"

    def test_registry_tag_and_digest_of_all_or_of_one(self) -> None:
        found = containers(render("everything"))
        digest = "sha256:" + "0" * 63 + "1"
        assert (
            found["contimg-convert"]["image"]
            == "registry.example.org/contimg/contimg-convert:0.1.0-7"
        )
        assert found["contimg-flag"]["image"] == "registry.example.org/contimg/contimg-flag:0.1.0"
        assert found["contimg-image"]["image"] == f"other.example.org/wsclean@{digest}"
        assert {container["imagePullPolicy"] for container in found.values()} == {"Always"}

    def test_every_image_of_every_pod_is_one_of_ours(self) -> None:
        text = yaml.safe_dump_all(render("everything"))
        images = {
            line.split()[1] for line in text.splitlines() if line.strip().startswith("image:")
        }
        assert len(images) == len({*stage_specs(), "watch"})
        assert all(
            image.startswith(
                ("registry.example.org/contimg/contimg-", "other.example.org/wsclean@")
            )
            for image in images
        )

    def test_pull_secrets_and_places_reach_every_pod(self) -> None:
        documents = render("everything")
        holders = [
            one(documents, "Deployment", "contimg-watch")["spec"]["template"]["spec"],
            one(documents, "Job", "contimg-preflight")["spec"]["template"]["spec"],
            one(documents, "Pod", "contimg-selftest")["spec"],
            one(documents, "EventSource", "contimg-night")["spec"]["template"],
            one(documents, "Sensor", "contimg-night")["spec"]["template"],
            one(documents, "EventBus", "sky")["spec"]["jetstream"],
            *(document["spec"] for document in of_kind(documents, "WorkflowTemplate").values()),
        ]
        for holder in holders:
            assert holder["imagePullSecrets"] == [{"name": "pull-one"}, {"name": "pull-two"}]
            assert holder["nodeSelector"] == {"pool": "batch"}
            assert holder["tolerations"] == [
                {"key": "batch", "operator": "Exists", "effect": "NoSchedule"}
            ]
            assert "nodeAffinity" in holder["affinity"]


@pytest.mark.helm
class TestWhatAnOperatorMaySay:
    def test_resources_are_merged_over_the_template_s(self) -> None:
        before, after = (
            containers(render())["contimg-image"]["resources"],
            containers(render("everything"))["contimg-image"]["resources"],
        )
        assert after["limits"]["memory"] == "12Gi"
        assert after["requests"] == {**before["requests"], "cpu": "500m", "memory": "3Gi"}
        assert {key: value for key, value in after["limits"].items() if key != "memory"} == {
            key: value for key, value in before["limits"].items() if key != "memory"
        }

    @pytest.mark.parametrize(("stage", "mebibytes"), [("image", 12 * 1024), ("flag", 1500)])
    def test_the_memory_ramp_begins_at_the_limit(self, stage: str, mebibytes: int) -> None:
        (template,) = one(render("everything"), "WorkflowTemplate", f"contimg-{stage}")["spec"][
            "templates"
        ]
        patch = yaml.safe_load(template["podSpecPatch"])
        limit = patch["containers"][0]["resources"]["limits"]["memory"]
        assert limit.startswith(f"{{{{={mebibytes} * (")
        assert limit.endswith(")}}Mi")
        (source,) = (
            document
            for key, document in sources().items()
            if key == ("WorkflowTemplate", f"contimg-{stage}")
        )
        assert (
            limit.partition(" ")[2]
            == yaml.safe_load(source["spec"]["templates"][0]["podSpecPatch"])["containers"][0][
                "resources"
            ]["limits"]["memory"].partition(" ")[2]
        )

    def test_defaults_of_parameters(self) -> None:
        values = parameters(one(render("everything"), "WorkflowTemplate", "contimg-process-group"))
        assert (values["tier"], values["attempt"]) == ("quicklook", "3")
        assert json.loads(values["options"]) == {
            "image": {"tier": "quicklook", "size": 2048, "niter": 2000000},
            "flag": {"clip_sigma": 6.5},
            "calibrate": {"do_k": True},
        }
        for pipeline in ("epoch", "reprocess", "backfill", "backfill-chunk", "nightly"):
            template = one(render("everything"), "WorkflowTemplate", f"contimg-{pipeline}")
            assert parameters(template)["options"] == values["options"]
        plain = parameters(one(render(), "WorkflowTemplate", "contimg-process-group"))
        assert (plain["tier"], plain["options"], plain["profile"]) == ("", "", "")

    def test_profiles_reach_the_commands_that_resolve_them(self) -> None:
        documents = render("everything")
        config = one(documents, "ConfigMap", "contimg-profiles")["data"]["profiles"]
        assert json.loads(config) == {
            "deep": {"image": {"tier": "high_precision"}, "variability": {"min-epochs": 5}},
            "empty": {},
        }
        reference = {"configMapKeyRef": {"name": "contimg-profiles", "key": "profiles"}}
        found = {
            name: env(container).get("CONTIMG_PROFILES")
            for name, container in containers(documents).items()
        }
        asking = {name for name, value in found.items() if value == reference}
        asked = {
            name
            for name, container in containers(documents).items()
            if "--profile={{inputs.parameters.profile}}" in container["args"]
        }
        assert asking == asked >= {"contimg-claim", "contimg-begin", "contimg-resolve-options"}
        assert lint(documents) == []

    def test_schedules_and_switches(self) -> None:
        crons = of_kind(render("everything"), "CronWorkflow")
        assert crons["contimg-sweep"]["spec"]["schedules"] == ["*/2 * * * *", "1 3 * * *"]
        assert crons["contimg-nightly"]["spec"]["schedules"] == ["0 4 * * *"]
        assert of_kind(render("minimal", **{"nightly.enabled": False}), "CronWorkflow").keys() == {
            "contimg-sweep"
        }
        for cron in crons.values():
            assert cron["spec"]["timezone"] == "Etc/UTC"
            assert cron["spec"]["concurrencyPolicy"] == "Forbid"

    def test_what_the_sweep_is_told(self) -> None:
        changes = {"sweep.graceSeconds": 5, "sweep.retries": 1, "sweep.days": 0}
        documents = render("minimal", **changes)
        told = parameters(one(documents, "WorkflowTemplate", "contimg-sweep"))
        assert {key: told[key] for key in ("grace_s", "retries", "days")} == {
            "grace_s": "5",
            "retries": "1",
            "days": "0",
        }
        for kind in ("WorkflowTemplate", "CronWorkflow"):
            places = parameters(one(documents, kind, "contimg-sweep"))
            assert places["store"] == "s3://contimg/telescope"
            assert places["post"] == "http://contimg-night-eventsource-svc.night.svc:12000/group"

    def test_which_strips_are_made_at_night(self) -> None:
        assert (
            parameters(one(render("everything"), "WorkflowTemplate", "contimg-nightly"))["days"]
            == "7"
        )

    def test_semaphores_are_those_that_the_templates_ask_for(self) -> None:
        documents = render("everything")
        limits = one(documents, "ConfigMap", "contimg-semaphores")["data"]
        assert limits == {"casa": "1", "wsclean": "2", "backfill": "3"}
        asked = {
            (ref["name"], ref["key"])
            for document in of_kind(documents, "WorkflowTemplate").values()
            for part in [document["spec"], *document["spec"]["templates"]]
            for semaphore in part.get("synchronization", {}).get("semaphores", [])
            for ref in [semaphore["configMapKeyRef"]]
        }
        assert asked == {("contimg-semaphores", key) for key in limits}

    def test_artifacts_lie_below_the_store(self) -> None:
        documents = render()
        for document in of_kind(documents, "WorkflowTemplate").values():
            assert document["spec"]["artifactRepositoryRef"] == {
                "configMap": "contimg-artifacts",
                "key": "s3",
            }
            for template in document["spec"]["templates"]:
                for artifact in template.get("outputs", {}).get("artifacts", []):
                    assert artifact["s3"]["key"].startswith("telescope/argo/{{workflow.name}}/")
        config = yaml.safe_load(one(documents, "ConfigMap", "contimg-artifacts")["data"]["s3"])
        assert config == {
            "archiveLogs": True,
            "s3": {
                "endpoint": "s3.storage.svc:9000",
                "insecure": True,
                "region": "us-east-1",
                "bucket": "contimg",
                "keyFormat": "telescope/argo/{{workflow.name}}/{{pod.name}}",
                "accessKeySecret": {"name": "contimg-s3", "key": "AWS_ACCESS_KEY_ID"},
                "secretKeySecret": {"name": "contimg-s3", "key": "AWS_SECRET_ACCESS_KEY"},
            },
        }

    def test_certificates_of_one_s_own_server(self) -> None:
        documents = render("everything")
        container = containers(documents)["contimg-convert"]
        assert env(container)["AWS_CA_BUNDLE"] == "/etc/contimg-ca/root.pem"
        assert {
            "name": "contimg-ca",
            "mountPath": "/etc/contimg-ca",
            "readOnly": True,
        } in container["volumeMounts"]
        (template,) = one(documents, "WorkflowTemplate", "contimg-convert")["spec"]["templates"]
        assert [volume for volume in template["volumes"] if volume["name"] == "contimg-ca"]
        config = yaml.safe_load(one(documents, "ConfigMap", "contimg-artifacts")["data"]["s3"])
        assert config["s3"]["caSecret"] == {"name": "authority", "key": "root.pem"}
        assert config["s3"]["sessionTokenSecret"] == {"name": "keys", "key": "token"}


@pytest.mark.helm
def test_a_package_holds_the_templates(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    with tarfile.open(tmp_path / "contimg-0.1.0.tgz") as archive:
        names = archive.getnames()
        text = archive.extractfile("contimg/rendered/contimg-convert.yaml")
        assert text is not None
        assert text.read().decode() == (RENDERED / "contimg-convert.yaml").read_text()
    assert "contimg/README.md" in names
    assert "contimg/values.schema.json" in names
    assert not [name for name in names if "README.head" in name]


@pytest.mark.helm
def test_chart_templates_and_programs_are_of_one_version() -> None:
    from importlib.metadata import version

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert str(chart["appVersion"]) == version("contimg")
    images = {
        container["image"].rpartition(":")[2]
        for container in containers(list(sources().values())).values()
    }
    assert images == {version("contimg")}
