"""Alerts and dashboard ask for metrics that somebody tells, and each alert has its page in the
operator's runbook."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from charted import ROOT, Document, of_kind, one, render

pytestmark = pytest.mark.helm

RUNBOOK = (ROOT / "docs/how-to/operate.md").read_text()
METRIC = re.compile(r"\b((?:contimg|argo)_[a-z_]+)(\{[^}]*\})?")
LABEL = re.compile(r"([a-z_]+)(?:=~|!=|!~|=)\"")
ARGO_EVENTS = {
    "argo_events_events_sent_total": {"eventsource_name", "event_name"},
    "argo_events_events_sent_failed_total": {"eventsource_name", "event_name"},
    "argo_events_action_triggered_total": {"sensor_name", "trigger_name"},
    "argo_events_action_failed_total": {"sensor_name", "trigger_name"},
    "argo_events_action_retries_failed_total": {"sensor_name", "trigger_name"},
}
"""What Argo Events 1.9 tells (its pkg/metrics)."""
ARGO_WORKFLOWS = {"argo_workflows_pods_gauge": {"phase"}}
"""What Argo Workflows 4.1 tells by itself (its docs/metrics.md)."""
FOUND = {"le", "namespace"}
"""Labels that Prometheus adds; to what Argo's controller tells it adds the controller's own
namespace, which is not ours."""


def watch_metrics() -> dict[str, set[str]]:
    from contimg_watch.metrics import Metrics

    page, _ = Metrics().render()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        found.setdefault(f"{family.name}_total" if family.type == "counter" else family.name, set())
    return found


def stage_metrics() -> dict[str, set[str]]:
    """Return what the templates ask Argo to tell."""
    found: dict[str, set[str]] = {}
    for document in of_kind(render(), "WorkflowTemplate").values():
        for template in document["spec"]["templates"]:
            for metric in template.get("metrics", {}).get("prometheus", []):
                labels = {label["key"] for label in metric["labels"]}
                suffixes = ("_bucket", "_sum", "_count") if "histogram" in metric else ("",)
                for suffix in suffixes:
                    found.setdefault(f"argo_workflows_{metric['name']}{suffix}", set()).update(
                        labels
                    )
    return found


def alerts() -> list[Document]:
    (group,) = one(render("everything"), "PrometheusRule", "contimg")["spec"]["groups"]
    rules: list[Document] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        one(render("everything"), "ConfigMap", "contimg-dashboard")["data"]["contimg.json"]
    )
    return found


def expressions() -> list[str]:
    asked = [rule["expr"] for rule in alerts()]
    return asked + [
        target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]
    ]


def test_every_metric_and_label_that_is_asked_for_is_told_by_somebody() -> None:
    told = {**watch_metrics(), **stage_metrics(), **ARGO_EVENTS, **ARGO_WORKFLOWS}
    seen = set()
    for expression in expressions():
        asked = METRIC.findall(expression)
        assert asked, expression
        for name, labels in asked:
            seen.add(name)
            assert name in told, f"nobody tells {name}"
            found = FOUND - {"namespace"} if name.startswith("argo_workflows_") else FOUND
            assert set(LABEL.findall(labels)) <= told[name] | found, expression
        assert expression.count("(") == expression.count(")")
    assert len(seen) >= 10


def test_only_counters_are_taken_for_counters() -> None:
    # A gauge that falls would look like a counter that began anew: one file less of ten, and nine
    # more had come.
    for expression in expressions():
        for asked, name in re.findall(r"(increase|i?rate|delta|deriv)\((\w+)", expression):
            counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
            assert counts == asked.endswith(("rate", "increase")), expression


@pytest.mark.parametrize(
    "rule", alerts() if __import__("charted").program() else [], ids=lambda rule: rule["alert"]
)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: Document) -> None:
    assert re.fullmatch(r"Contimg[A-Z]\w+", rule["alert"])
    assert rule["labels"] == {"severity": rule["labels"]["severity"], "team": "sky"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / page).is_file()
    assert anchor in {
        heading.lower() for heading in re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)
    }
    assert re.fullmatch(r"\d+[mh]", rule["for"])


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (Contimg\w+)$", RUNBOOK, re.MULTILINE)) == {
        rule["alert"] for rule in alerts()
    }


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) >= 8
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(ids)
    assert {one["name"] for one in board["templating"]["list"]} == {"source", "namespace"}
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_what_prometheus_is_pointed_at_exists() -> None:
    documents = render("everything")
    monitor = one(documents, "ServiceMonitor", "contimg-watch")
    service = one(documents, "Service", "contimg-watch")
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == {
        port["name"] for port in service["spec"]["ports"]
    }
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selector = one(documents, "PodMonitor", "contimg-events")["spec"]["selector"]
    for kind in ("EventSource", "Sensor"):
        labels = one(documents, kind, "contimg-night")["spec"]["template"]["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        assert labels["app.kubernetes.io/component"] in selector["matchExpressions"][0]["values"]


def test_monitoring_is_off_until_it_is_asked_for() -> None:
    assert not [
        document for document in render() if "monitoring.coreos.com" in document["apiVersion"]
    ]
    assert "contimg-dashboard" not in of_kind(render(), "ConfigMap")
    assert yaml.safe_dump(render("everything")).count("kind: PodMonitor") == 1
