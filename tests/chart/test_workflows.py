"""What the chart adds to the rendered templates, and that it adds nothing else."""

import json
import tarfile
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from charted import CHART, Document, env, helm, of_kind, one, parameters, render
from contimg.astro.beam_text import DEFAULT_BEAM
from contimg.runtime.options import input_mark
from contimg.runtime.stage import stage_specs
from contimg_runs.pipelines import PROCESS_GROUP
from contimg_workflows.lint import lint

RENDERED = CHART / "rendered"
VERSION = version("contimg")
SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
REGIONS = {"AWS_REGION", "AWS_DEFAULT_REGION"}
S3 = {*SECRETS, *REGIONS, "AWS_ENDPOINT_URL_S3"}
pytestmark = pytest.mark.helm


def sources() -> dict[tuple[str, str], Document]:
    """Return the rendered documents by kind and name."""
    documents = [yaml.safe_load(path.read_text()) for path in RENDERED.glob("*.yaml")]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def ours(documents: list[Document]) -> dict[tuple[str, str], Document]:
    found = {kind: of_kind(documents, kind) for kind in ("WorkflowTemplate", "CronWorkflow")}
    return {(kind, name): one for kind, named in found.items() for name, one in named.items()}


def template(name: str, values: str = "everything") -> Document:
    return one(render(values), "WorkflowTemplate", f"contimg-{name}")


def artifact_repository(values: str) -> Document:
    text = one(render(values), "ConfigMap", "contimg-artifacts")["data"]["s3"]
    found: Document = yaml.safe_load(text)
    return found


def containers(documents: list[Document]) -> dict[str, Document]:
    """Return the containers by template's name; each stage's template has one."""
    return {
        name: template["container"]
        for name, document in of_kind(documents, "WorkflowTemplate").items()
        for template in document["spec"]["templates"]
        if "container" in template
    }


def stripped(document: Document) -> Document:
    """Return a document without what the chart may set."""
    spec = document["spec"].get("workflowSpec", document["spec"])
    for key in ("serviceAccountName", "artifactRepositoryRef", "podMetadata"):
        spec.pop(key, None)
    spec["arguments"] = list(parameters(document))
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
            added = ("AWS_", "CONTIMG_PROFILES")
            container["env"] = [
                one for one in container["env"] if not one["name"].startswith(added)
            ]
    return document


class TestMerged:
    def test_merged_documents_equal_rendered(self) -> None:
        merged, before = ours(render()), sources()
        assert set(merged) == set(before)
        for key, document in before.items():
            assert stripped(deepcopy(merged[key])) == stripped(document), key

    def test_braces_of_argo_stay(self) -> None:
        text = yaml.safe_dump_all(render())
        assert text.count("{{inputs.parameters.") > 100
        assert "{{workflow.name}}" in text

    def test_forms_name_the_store(self) -> None:
        for key, document in ours(render()).items():
            values = parameters(document)
            if "store" in values:
                assert values["store"] == "s3://contimg/telescope", key
        assert parameters(template("process-group"))["store"] == "s3://sky/a/b"

    def test_labels_of_rendered_documents_stay(self) -> None:
        labels = template("convert", "minimal")["metadata"]["labels"]
        assert labels["app.kubernetes.io/component"] == "convert"
        assert labels["app.kubernetes.io/version"] == VERSION

    def test_containers_have_store_variables(self) -> None:
        found = containers(render())
        assert len(found) >= 10
        for name, container in found.items():
            variables = env(container)
            assert variables.keys() >= S3, name
            assert variables["AWS_ENDPOINT_URL_S3"] == "http://s3.storage.svc:9000"
            reference = {"name": "contimg-s3", "key": "AWS_SECRET_ACCESS_KEY"}
            assert variables["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": reference}
            assert variables["CONTIMG_TEMPLATE_VERSION"] == VERSION
            assert len({one["name"] for one in container["env"]}) == len(container["env"]), name

    def test_workload_identity_needs_no_keys(self) -> None:
        for name, container in containers(render("identity")).items():
            assert env(container).keys() & S3 == REGIONS, name
        s3 = artifact_repository("identity")["s3"]
        assert s3["useSDKCreds"] is True
        assert s3["endpoint"] == "s3.us-west-2.amazonaws.com"
        assert s3["insecure"] is False
        assert s3["keyFormat"] == "argo/{{workflow.name}}/{{pod.name}}"


class TestImages:
    def test_image_is_name_and_version_by_default(self) -> None:
        assert containers(render())["contimg-convert"]["image"] == "contimg-convert:0.1.0"

    def test_registry_tag_and_digest_of_all_or_of_one(self) -> None:
        found = containers(render("everything"))
        digest, registry = "sha256:" + "0" * 63 + "1", "registry.example.org/contimg"
        images = {name: found[f"contimg-{name}"]["image"] for name in ("convert", "flag", "image")}
        assert images == {
            "convert": f"{registry}/contimg-convert:0.1.0-7",
            "flag": f"{registry}/contimg-flag:0.1.0",
            "image": f"other.example.org/wsclean@{digest}",
        }
        assert {container["imagePullPolicy"] for container in found.values()} == {"Always"}

    def test_images_of_all_pods_are_ours(self) -> None:
        lines = [line.strip() for line in yaml.safe_dump_all(render("everything")).splitlines()]
        images = {line.split()[1] for line in lines if line.startswith("image:")}
        assert len(images) == len({*stage_specs(), "watch"})
        ours = ("registry.example.org/contimg/contimg-", "other.example.org/wsclean@")
        assert all(image.startswith(ours) for image in images)

    def test_pull_secrets_and_places_reach_all_pods(self) -> None:
        documents = render("everything")
        described = (
            ("Deployment", "contimg-watch"),
            ("Job", "contimg-preflight"),
            ("EventSource", "contimg-night"),
            ("Sensor", "contimg-night"),
        )
        templates = [one(documents, kind, name)["spec"]["template"] for kind, name in described]
        holders = [
            *(template.get("spec", template) for template in templates),
            one(documents, "Pod", "contimg-selftest")["spec"],
            one(documents, "EventBus", "sky")["spec"]["jetstream"],
            *(document["spec"] for document in of_kind(documents, "WorkflowTemplate").values()),
        ]
        toleration = {"key": "batch", "operator": "Exists", "effect": "NoSchedule"}
        for holder in holders:
            assert holder["imagePullSecrets"] == [{"name": "pull-one"}, {"name": "pull-two"}]
            assert holder["nodeSelector"] == {"pool": "batch"}
            assert holder["tolerations"] == [toleration]
            assert "nodeAffinity" in holder["affinity"]


class TestValues:
    def test_resources_are_merged(self) -> None:
        before, after = (
            containers(render(values))["contimg-image"]["resources"]
            for values in ("minimal", "everything")
        )
        assert after["limits"] == {**before["limits"], "memory": "12Gi"}
        assert after["requests"] == {**before["requests"], "cpu": "500m", "memory": "3Gi"}

    @pytest.mark.parametrize(("stage", "mebibytes"), [("image", 12 * 1024), ("flag", 1500)])
    def test_memory_ramp_begins_at_limit(self, stage: str, mebibytes: int) -> None:
        documents = (template(stage), sources()["WorkflowTemplate", f"contimg-{stage}"])
        patches = [yaml.safe_load(one["spec"]["templates"][0]["podSpecPatch"]) for one in documents]
        limit, before = (
            patch["containers"][0]["resources"]["limits"]["memory"] for patch in patches
        )
        assert limit.startswith(f"{{{{={mebibytes} * (")
        assert limit.endswith(")}}Mi")
        assert limit.partition(" ")[2] == before.partition(" ")[2]

    def test_defaults_of_parameters(self) -> None:
        values = parameters(template("process-group"))
        assert (values["tier"], values["attempt"]) == ("quicklook", "3")
        assert json.loads(values["options"]) == {
            "image": {"tier": "quicklook", "size": 2048, "niter": 2000000},
            "flag": {"clip_sigma": 6.5},
            "calibrate": {"do_k": True},
        }
        for pipeline in ("epoch", "reprocess", "backfill", "backfill-chunk", "nightly"):
            assert parameters(template(pipeline))["options"] == values["options"]
        plain = parameters(template("process-group", "minimal"))
        assert (plain["tier"], plain["options"], plain["profile"]) == ("", "", "")

    @pytest.mark.parametrize(
        ("name", "value"),
        [("beam", "gaussian:3.13@1405MHz"), ("catalogue", "s3://sky/catalogues/first.parquet")],
    )
    def test_beam_and_catalogue_reach_stages_and_keys(self, name: str, value: str) -> None:
        documents = of_kind(render("minimal", **{f"parameters.{name}": value}), "WorkflowTemplate")
        for form in ("process-group", "reprocess", "backfill", "backfill-chunk"):
            assert parameters(documents[f"contimg-{form}"])[name] == value
        process = documents["contimg-process-group"]["spec"]["templates"]
        steps = next(one for one in process if one["name"] == "steps")["dag"]["tasks"]
        tasks = {one["name"]: one["arguments"]["parameters"] for one in steps}
        args = {name: one["args"] for name, one in containers(list(documents.values())).items()}
        (shortcut,) = (one for one in PROCESS_GROUP.shortcuts if one.name == name)
        for stage, _, option in (path.partition(".") for path in shortcut.sets):
            given = {"name": option, "value": f"{{{{inputs.parameters.{name}}}}}"}
            assert given in tasks[stage]
            assert f"--{option}={{{{inputs.parameters.{option}}}}}" in args[f"contimg-{stage}"]
            mark = input_mark(stage_specs()[stage].options.model_fields[option])
            assert mark is not None, "its content is in the key"
            if name == "beam":
                digests = {mark.describe(option, one).digest for one in (value, DEFAULT_BEAM)}
                assert len(digests) == 2

    def test_profiles_reach_commands_that_resolve_them(self) -> None:
        documents = render("everything")
        config = one(documents, "ConfigMap", "contimg-profiles")["data"]["profiles"]
        assert json.loads(config) == {
            "deep": {"image": {"tier": "high_precision"}, "variability": {"min-epochs": 5}},
            "empty": {},
        }
        reference = {"configMapKeyRef": {"name": "contimg-profiles", "key": "profiles"}}
        found = containers(documents)
        asking = {name for name in found if env(found[name]).get("CONTIMG_PROFILES") == reference}
        word = "--profile={{inputs.parameters.profile}}"
        asked = {name for name, container in found.items() if word in container["args"]}
        assert asking == asked >= {"contimg-claim", "contimg-begin", "contimg-resolve-options"}
        assert lint(documents) == []

    def test_schedules_and_switches(self) -> None:
        crons = of_kind(render("everything"), "CronWorkflow")
        assert crons["contimg-sweep"]["spec"]["schedules"] == ["*/2 * * * *", "1 3 * * *"]
        assert crons["contimg-nightly"]["spec"]["schedules"] == ["0 4 * * *"]
        without = render("minimal", **{"nightly.enabled": False})
        assert set(of_kind(without, "CronWorkflow")) == {"contimg-sweep"}
        for cron in crons.values():
            assert cron["spec"]["timezone"] == "Etc/UTC"
            assert cron["spec"]["concurrencyPolicy"] == "Forbid"

    def test_sweep_parameters(self) -> None:
        changes = {"sweep.graceSeconds": 5, "sweep.retries": 1, "sweep.days": 0}
        documents = render("minimal", **changes)
        told = parameters(one(documents, "WorkflowTemplate", "contimg-sweep"))
        assert [told[key] for key in ("grace_s", "retries", "days")] == ["5", "1", "0"]
        for kind in ("WorkflowTemplate", "CronWorkflow"):
            places = parameters(one(documents, kind, "contimg-sweep"))
            assert places["store"] == "s3://contimg/telescope"
            assert places["post"] == "http://contimg-night-eventsource-svc.night.svc:12000/group"

    def test_nightly_days(self) -> None:
        assert parameters(template("nightly"))["days"] == "7"

    def test_semaphores_are_those_of_templates(self) -> None:
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

    def test_artifacts_are_below_store(self) -> None:
        documents = render()
        for document in of_kind(documents, "WorkflowTemplate").values():
            reference = {"configMap": "contimg-artifacts", "key": "s3"}
            assert document["spec"]["artifactRepositoryRef"] == reference
            for template in document["spec"]["templates"]:
                for artifact in template.get("outputs", {}).get("artifacts", []):
                    assert artifact["s3"]["key"].startswith("telescope/argo/{{workflow.name}}/")
        s3 = {"endpoint": "s3.storage.svc:9000", "insecure": True, "region": "us-east-1"}
        assert artifact_repository("minimal") == {
            "archiveLogs": True,
            "s3": {
                **s3,
                "bucket": "contimg",
                "keyFormat": "telescope/argo/{{workflow.name}}/{{pod.name}}",
                "accessKeySecret": {"name": "contimg-s3", "key": "AWS_ACCESS_KEY_ID"},
                "secretKeySecret": {"name": "contimg-s3", "key": "AWS_SECRET_ACCESS_KEY"},
            },
        }

    def test_own_certificates_are_mounted(self) -> None:
        container = containers(render("everything"))["contimg-convert"]
        assert env(container)["AWS_CA_BUNDLE"] == "/etc/contimg-ca/root.pem"
        mount = {"name": "contimg-ca", "mountPath": "/etc/contimg-ca", "readOnly": True}
        assert mount in container["volumeMounts"]
        volumes = template("convert")["spec"]["templates"][0]["volumes"]
        assert "contimg-ca" in {volume["name"] for volume in volumes}
        s3 = artifact_repository("everything")["s3"]
        assert s3["caSecret"] == {"name": "authority", "key": "root.pem"}
        assert s3["sessionTokenSecret"] == {"name": "keys", "key": "token"}


def test_package_holds_templates(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    with tarfile.open(tmp_path / "contimg-0.1.0.tgz") as archive:
        names = archive.getnames()
        text = archive.extractfile("contimg/rendered/contimg-convert.yaml")
        assert text is not None
        assert text.read().decode() == (RENDERED / "contimg-convert.yaml").read_text()
    assert "contimg/README.md" in names
    assert "contimg/values.schema.json" in names
    assert not [name for name in names if "README.head" in name]


def test_chart_and_programs_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert str(chart["appVersion"]) == VERSION
    images = [container["image"] for container in containers(list(sources().values())).values()]
    assert {image.rpartition(":")[2] for image in images} == {VERSION}
