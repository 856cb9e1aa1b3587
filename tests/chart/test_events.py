"""From the event that watch posts to the workflow that starts: names, values and tries, as the
Sensor will put them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from charted import CHART, Document, of_kind, one, render

pytestmark = pytest.mark.helm

EVENT = {
    "group": "20260125t222605",
    "attempt": 2,
    "run": "20260125t222605-a2",
    "store": "s3://contimg/telescope",
    "name": "contimg-20260125t222605-a2",
}


def sensor(**changes: Any) -> Document:
    (found,) = of_kind(render("minimal", **changes), "Sensor").values()
    return found


def created(trigger: Document, event: Document) -> Document:
    """Apply an event's parameters to the Sensor's resource, as Argo Events does: every value
    becomes text."""
    resource: Document = yaml.safe_load(
        yaml.safe_dump(trigger["template"]["k8s"]["source"]["resource"])
    )
    for parameter in trigger["template"]["k8s"]["parameters"]:
        assert parameter["src"]["dependencyName"] == "group"
        value: Any = {"body": event}
        for step in parameter["src"]["dataKey"].split("."):
            value = value[step]
        *folders, last = parameter["dest"].split(".")
        place: Any = resource
        for step in folders:
            place = place[int(step)] if isinstance(place, list) else place[step]
        assert last in place
        place[last] = str(value)
    return resource


def test_an_event_becomes_a_workflow_of_its_name() -> None:
    (trigger,) = sensor()["spec"]["triggers"]
    workflow = created(trigger, EVENT)
    assert workflow["metadata"]["name"] == "contimg-20260125t222605-a2"
    assert workflow["metadata"]["labels"]["contimg/run"] == "20260125t222605-a2"
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "contimg-process-group"}
    values = {one["name"]: one["value"] for one in workflow["spec"]["arguments"]["parameters"]}
    assert values == {"store": "s3://contimg/telescope", "group": "20260125t222605", "attempt": "2"}
    assert "set-by-the-event" not in yaml.safe_dump(workflow)


def test_the_template_takes_what_the_event_brings() -> None:
    documents = render()
    template = one(documents, "WorkflowTemplate", "contimg-process-group")
    asked = {one["name"]: "value" in one for one in template["spec"]["arguments"]["parameters"]}
    assert {"store", "group", "attempt"} <= asked.keys()
    assert [
        name
        for name, has_value in asked.items()
        if not has_value and name not in {"store", "group", "attempt"}
    ] == []


def test_watch_posts_this_event() -> None:
    from contimg.records.groups import GroupRecord
    from contimg_runs.post import event

    record = GroupRecord.model_validate(
        {
            "id": EVENT["group"],
            "attempt": 2,
            "t0": "2026-01-25T22:26:05Z",
            "duration_s": 296,
            "dec_deg": 33,
            "subbands": [],
        }
    )
    assert event(record, str(EVENT["store"])) == EVENT


def test_an_event_is_delivered_at_least_once_tried_again_and_never_lost_silently() -> None:
    (trigger,) = sensor(**{"events.sensor.retries": 7, "events.sensor.perSecond": 2})["spec"][
        "triggers"
    ]
    assert trigger["atLeastOnce"] is True
    assert trigger["retryStrategy"]["steps"] == 7
    assert trigger["rateLimit"] == {"unit": "Second", "requestsPerUnit": 2}
    assert trigger["template"]["k8s"]["operation"] == "create"
    assert trigger["dlqTrigger"]["atLeastOnce"] is True
    assert "log" in trigger["dlqTrigger"]["template"]


def test_sensor_source_bus_and_poster_find_each_other() -> None:
    documents = render("everything")
    (source,) = of_kind(documents, "EventSource").values()
    (listener,) = of_kind(documents, "Sensor").values()
    (bus,) = of_kind(documents, "EventBus").values()
    assert {
        source["spec"]["eventBusName"],
        listener["spec"]["eventBusName"],
        bus["metadata"]["name"],
    } == {"sky"}
    ((event, webhook),) = source["spec"]["webhook"].items()
    (dependency,) = listener["spec"]["dependencies"]
    assert dependency == {
        "name": "group",
        "eventSourceName": source["metadata"]["name"],
        "eventName": event,
    }
    url = f"http://{source['metadata']['name']}-eventsource-svc.night.svc:{webhook['port']}{webhook['endpoint']}"
    watch = one(documents, "Deployment", "contimg-watch")["spec"]["template"]["spec"]["containers"][
        0
    ]
    assert f"--post={url}" in watch["args"]
    assert source["spec"]["service"]["ports"] == [{"port": 12000, "targetPort": 12000}]
    policy = one(documents, "NetworkPolicy", "contimg-watch")["spec"]["egress"][-1]
    assert policy["to"] == [
        {"podSelector": {"matchLabels": {"eventsource-name": source["metadata"]["name"]}}}
    ]


def test_sources_of_two_namespaces_on_one_stream_have_two_names() -> None:
    long = "a-namespace-with-a-name-as-long-as-sixty-three-letters-may-be-x"
    spaces = ["night", "day", f"{long}1"[-63:], f"{long}2"[-63:], long]
    names = [name for space in spaces for name in of_kind(render(namespace=space), "EventSource")]
    assert names[:2] == ["contimg-night", "contimg-day"]
    assert len(set(names)) == len(spaces)
    # Its Deployment and Service get longer names, of which a label holds 63 letters.
    assert all(len(f"{name}-eventsource-svc") <= 63 for name in names)


def test_a_bus_that_is_there_already_and_one_of_our_own() -> None:
    stream = {
        "maxMsgs": 50000,
        "maxAge": "168h",
        "maxBytes": -1,
        "replicas": 1,
        "duplicates": "300s",
    }
    there = one(render("identity"), "EventBus", "default")["spec"]["jetstreamExotic"]
    assert there["url"] == "nats://nats.nats.svc:4222"
    assert there["accessSecret"] == {"name": "nats-auth", "key": "auth"}
    assert yaml.safe_load(there["streamConfig"]) == stream
    own = one(render("everything"), "EventBus", "sky")["spec"]["jetstream"]
    assert (own["version"], own["replicas"]) == ("2.10.10", 3)
    assert yaml.safe_load(own["streamConfig"]) == {
        **stream,
        "maxMsgs": 100000000,
        "maxAge": "24h",
        "replicas": 3,
    }
    assert own["persistence"] == {
        "storageClassName": "fast",
        "accessMode": "ReadWriteOnce",
        "volumeSize": "5Gi",
    }
    assert "persistence" not in one(render(), "EventBus", "default")["spec"]["jetstream"]
    assert of_kind(render("minimal", **{"events.eventBus.create": False}), "EventBus") == {}


class TestWatch:
    def container(self, name: str = "minimal") -> Document:
        found: Document = one(render(name), "Deployment", "contimg-watch")["spec"]["template"][
            "spec"
        ]["containers"][0]
        return found

    def test_its_command_line_is_one_that_it_takes(self) -> None:
        from contimg.runtime.options import parse
        from contimg_watch.options import ServiceOptions

        said = parse(ServiceOptions, self.container("everything")["args"], "contimg-watch", "0")
        assert said.serve
        assert said.store == "s3://sky/a/b"
        assert (
            said.interval_s,
            said.timeout_s,
            said.gap_s,
            said.size,
            said.port,
            said.stall_s,
        ) == (2.5, 40, 90, 0, 9000, 300)
        assert (
            parse(ServiceOptions, self.container()["args"], "contimg-watch", "0").size == 145348600
        )

    def test_probes_ask_the_port_that_it_listens_on(self) -> None:
        container = self.container("everything")
        assert container["ports"] == [{"name": "http", "containerPort": 9000}]
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
        (port,) = one(render("everything"), "Service", "contimg-watch")["spec"]["ports"]
        assert port == {"name": "http", "port": 9000, "targetPort": "http"}

    def test_there_is_one_and_it_may_be_moved(self) -> None:
        documents = render()
        spec = one(documents, "Deployment", "contimg-watch")["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        budget = one(documents, "PodDisruptionBudget", "contimg-watch")["spec"]
        assert budget["maxUnavailable"] == 1
        assert (
            budget["selector"]
            == spec["selector"]
            == {"matchLabels": one(documents, "Service", "contimg-watch")["spec"]["selector"]}
        )
        assert (
            spec["selector"]["matchLabels"].items()
            <= spec["template"]["metadata"]["labels"].items()
        )

    def test_its_reason_is_the_pod_s_message(self) -> None:
        variables = {one["name"]: one.get("value") for one in self.container()["env"]}
        assert variables["CONTIMG_TERMINATION_LOG"] == "/dev/termination-log"
        assert (
            variables["CONTIMG_TEMPLATE_VERSION"]
            == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        )
