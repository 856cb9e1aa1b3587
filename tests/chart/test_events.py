"""From the event that watch posts to the workflow that starts: names, values and tries, as the
Sensor will put them."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from charted import CHART, Document, env, of_kind, one, parameters, render
from contimg.records.groups import GroupRecord
from contimg.runtime.options import parse
from contimg_runs.post import post_attempt
from contimg_watch.options import ServiceOptions
from listener import Listener

pytestmark = pytest.mark.helm

ID, RUN, STORE = "20260125t222605", "20260125t222605-a2", "s3://contimg/telescope"
EVENT = {"group": ID, "attempt": 2, "run": RUN, "name": f"contimg-{RUN}", "store": STORE}


def watch_container(name: str = "minimal") -> Document:
    spec = one(render(name), "Deployment", "contimg-watch")["spec"]["template"]["spec"]
    found: Document = spec["containers"][0]
    return found


def sensor(**changes: Any) -> Document:
    (found,) = of_kind(render("minimal", **changes), "Sensor").values()
    return found


def created(trigger: Document, event: Document) -> Document:
    """Apply an event's parameters to the Sensor's resource, as Argo Events does: every value
    becomes text."""
    resource: Document = deepcopy(trigger["template"]["k8s"]["source"]["resource"])
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


def test_event_becomes_workflow_of_its_name() -> None:
    (trigger,) = sensor()["spec"]["triggers"]
    workflow = created(trigger, EVENT)
    assert workflow["metadata"]["name"] == f"contimg-{RUN}"
    assert workflow["metadata"]["labels"]["contimg/run"] == RUN
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "contimg-process-group"}
    assert parameters(workflow) == {"store": STORE, "group": ID, "attempt": "2"}
    assert "set-by-the-event" not in yaml.safe_dump(workflow)


def test_template_takes_parameters_of_event() -> None:
    template = one(render(), "WorkflowTemplate", "contimg-process-group")
    asked = {one["name"]: "value" in one for one in template["spec"]["arguments"]["parameters"]}
    required = {name for name, has_value in asked.items() if not has_value}
    assert required <= {"store", "group", "attempt"} <= asked.keys()


def test_watch_posts_this_event(listener: Listener) -> None:
    t0 = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
    record = GroupRecord(id=ID, attempt=2, t0=t0, duration_s=296, dec_deg=33, subbands=())
    post_attempt(listener.url, STORE, record)
    assert listener.heard == [EVENT]


def test_event_is_delivered_at_least_once() -> None:
    changes = {"events.sensor.retries": 7, "events.sensor.perSecond": 2}
    (trigger,) = sensor(**changes)["spec"]["triggers"]
    assert trigger["atLeastOnce"] is True
    assert trigger["retryStrategy"]["steps"] == 7
    assert trigger["rateLimit"] == {"unit": "Second", "requestsPerUnit": 2}
    assert trigger["template"]["k8s"]["operation"] == "create"
    assert trigger["dlqTrigger"]["atLeastOnce"] is True
    assert "log" in trigger["dlqTrigger"]["template"]


def test_sensor_source_bus_and_watch_match() -> None:
    documents = render("everything")
    (source,) = of_kind(documents, "EventSource").values()
    (sensor,) = of_kind(documents, "Sensor").values()
    (bus,) = of_kind(documents, "EventBus").values()
    names = {part["spec"]["eventBusName"] for part in (source, sensor)}
    assert names | {bus["metadata"]["name"]} == {"sky"}
    ((event, webhook),) = source["spec"]["webhook"].items()
    name = source["metadata"]["name"]
    dependency = {"name": "group", "eventSourceName": name, "eventName": event}
    assert sensor["spec"]["dependencies"] == [dependency]
    url = f"http://{name}-eventsource-svc.night.svc:{webhook['port']}{webhook['endpoint']}"
    assert f"--post={url}" in watch_container("everything")["args"]
    assert source["spec"]["service"]["ports"] == [{"port": 12000, "targetPort": 12000}]
    policy = one(documents, "NetworkPolicy", "contimg-watch")["spec"]["egress"][-1]
    assert policy["to"] == [{"podSelector": {"matchLabels": {"eventsource-name": name}}}]


def test_sources_of_two_namespaces_have_two_names() -> None:
    long = "a-namespace-with-a-name-as-long-as-sixty-three-letters-may-be-x"
    spaces = ["night", "day", f"{long}1"[-63:], f"{long}2"[-63:], long]
    names = [name for space in spaces for name in of_kind(render(namespace=space), "EventSource")]
    assert names[:2] == ["contimg-night", "contimg-day"]
    assert len(set(names)) == len(spaces)
    # Its Deployment and Service get longer names, of which a label holds 63 letters.
    assert all(len(f"{name}-eventsource-svc") <= 63 for name in names)


def test_event_bus_is_external_or_own() -> None:
    rest = {"maxBytes": -1, "duplicates": "300s"}
    stream = {"maxMsgs": 50000, "maxAge": "168h", "replicas": 1, **rest}
    there = one(render("identity"), "EventBus", "default")["spec"]["jetstreamExotic"]
    assert there["url"] == "nats://nats.nats.svc:4222"
    assert there["accessSecret"] == {"name": "nats-auth", "key": "auth"}
    assert yaml.safe_load(there["streamConfig"]) == stream
    own = one(render("everything"), "EventBus", "sky")["spec"]["jetstream"]
    assert (own["version"], own["replicas"]) == ("2.10.10", 3)
    stream = {"maxMsgs": 100000000, "maxAge": "24h", "replicas": 3, **rest}
    assert yaml.safe_load(own["streamConfig"]) == stream
    volume = {"storageClassName": "fast", "accessMode": "ReadWriteOnce", "volumeSize": "5Gi"}
    assert own["persistence"] == volume
    assert "persistence" not in one(render(), "EventBus", "default")["spec"]["jetstream"]
    assert of_kind(render("minimal", **{"events.eventBus.create": False}), "EventBus") == {}


def test_watch_takes_its_command_line() -> None:
    args = [watch_container(name)["args"] for name in ("everything", "minimal")]
    said, plain = (parse(ServiceOptions, words, "contimg-watch", "0") for words in args)
    assert said.serve
    assert said.store == "s3://sky/a/b"
    assert (said.interval_s, said.timeout_s, said.gap_s) == (2.5, 40, 90)
    assert (said.size, said.port, said.stall_s) == (0, 9000, 300)
    assert plain.size == 145348600


def test_probes_ask_port_of_watch() -> None:
    container = watch_container("everything")
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    (port,) = one(render("everything"), "Service", "contimg-watch")["spec"]["ports"]
    assert port == {"name": "http", "port": 9000, "targetPort": "http"}


def test_one_watch_runs_and_may_be_moved() -> None:
    documents = render()
    spec = one(documents, "Deployment", "contimg-watch")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    budget = one(documents, "PodDisruptionBudget", "contimg-watch")["spec"]
    assert budget["maxUnavailable"] == 1
    labels = one(documents, "Service", "contimg-watch")["spec"]["selector"]
    assert budget["selector"] == spec["selector"] == {"matchLabels": labels}
    assert labels.items() <= spec["template"]["metadata"]["labels"].items()


def test_watch_leaves_reason_as_message_of_pod() -> None:
    variables = env(watch_container())
    assert variables["CONTIMG_TERMINATION_LOG"] == "/dev/termination-log"
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert variables["CONTIMG_TEMPLATE_VERSION"] == version
