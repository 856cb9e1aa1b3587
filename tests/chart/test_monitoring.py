"""Alerts and dashboard ask for metrics that exist, and each alert has its section in the operator's
runbook."""

import json
import re
from itertools import chain
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from charted import ROOT, Document, of_kind, one, program, render
from contimg_watch.serve import Metrics

pytestmark = pytest.mark.helm

RUNBOOK = (ROOT / "docs/how-to/operate.md").read_text()
HEADINGS = re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)
METRIC = re.compile(r"\b((?:contimg|argo)_[a-z_]+)(\{[^}]*\})?")
LABEL = re.compile(r"([a-z_]+)(?:=~|!=|!~|=)\"")
SENT, ACTIONS = ("", "_failed"), ("triggered", "failed", "retries_failed")
ARGO_EVENTS = {
    **{f"argo_events_events_sent{kind}_total": {"eventsource_name", "event_name"} for kind in SENT},
    **{f"argo_events_action_{kind}_total": {"sensor_name", "trigger_name"} for kind in ACTIONS},
}
"""What Argo Events 1.9 tells (its pkg/metrics)."""
ARGO_WORKFLOWS = {"argo_workflows_pods_gauge": {"phase"}}
"""What Argo Workflows 4.1 tells by itself (its docs/metrics.md)."""
FOUND = {"le", "namespace"}
"""Labels that Prometheus adds; to what Argo's controller tells it adds the controller's own
namespace, which is not ours."""


def watch_metrics() -> dict[str, set[str]]:
    page = generate_latest(Metrics().registry).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        found.setdefault(f"{family.name}_total" if family.type == "counter" else family.name, set())
    return found


def stage_metrics() -> dict[str, set[str]]:
    """Return what the templates ask Argo to tell."""
    documents = of_kind(render(), "WorkflowTemplate").values()
    templates = [template for document in documents for template in document["spec"]["templates"]]
    found: dict[str, set[str]] = {}
    for metric in chain.from_iterable(
        t.get("metrics", {}).get("prometheus", []) for t in templates
    ):
        for suffix in ("_bucket", "_sum", "_count") if "histogram" in metric else ("",):
            labels = found.setdefault(f"argo_workflows_{metric['name']}{suffix}", set())
            labels.update(label["key"] for label in metric["labels"])
    return found


def alerts() -> list[Document]:
    (group,) = one(render("everything"), "PrometheusRule", "contimg")["spec"]["groups"]
    rules: list[Document] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    data = one(render("everything"), "ConfigMap", "contimg-dashboard")["data"]
    found: dict[str, Any] = json.loads(data["contimg.json"])
    return found


def expressions() -> list[str]:
    targets = [target for panel in dashboard()["panels"] for target in panel["targets"]]
    return [one["expr"] for one in [*alerts(), *targets]]


def test_metrics_and_labels_in_expressions_exist() -> None:
    told = {**watch_metrics(), **stage_metrics(), **ARGO_EVENTS, **ARGO_WORKFLOWS}
    seen = set()
    for expression in expressions():
        asked = METRIC.findall(expression)
        assert asked, expression
        for name, labels in asked:
            seen.add(name)
            assert name in told
            found = FOUND - {"namespace"} if name.startswith("argo_workflows_") else FOUND
            assert set(LABEL.findall(labels)) <= told[name] | found, expression
        assert expression.count("(") == expression.count(")")
    assert len(seen) >= 10


def test_rates_are_of_counters_only() -> None:
    # A gauge that falls would look like a counter that was reset: from ten files to nine would
    # count as nine more.
    for expression in expressions():
        for asked, name in re.findall(r"(increase|i?rate|delta|deriv)\((\w+)", expression):
            counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
            assert counts == asked.endswith(("rate", "increase")), expression


@pytest.mark.parametrize("rule", alerts() if program() else [], ids=lambda rule: rule["alert"])
def test_alert_links_to_runbook(rule: Document) -> None:
    assert re.fullmatch(r"Contimg[A-Z]\w+", rule["alert"])
    assert rule["labels"] == {"severity": rule["labels"]["severity"], "team": "sky"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / page).is_file()
    assert anchor in {heading.lower() for heading in HEADINGS}
    assert re.fullmatch(r"\d+[mh]", rule["for"])


def test_runbook_has_alerts_of_chart_only() -> None:
    described = {heading for heading in HEADINGS if heading.startswith("Contimg")}
    assert described == {rule["alert"] for rule in alerts()}


def test_dashboard_is_complete() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) >= 8
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(ids)
    assert {one["name"] for one in board["templating"]["list"]} == {"source", "namespace"}
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_monitors_select_existing_objects() -> None:
    documents = render("everything")
    monitor = one(documents, "ServiceMonitor", "contimg-watch")
    service = one(documents, "Service", "contimg-watch")
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == ports
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selector = one(documents, "PodMonitor", "contimg-events")["spec"]["selector"]
    for kind in ("EventSource", "Sensor"):
        labels = one(documents, kind, "contimg-night")["spec"]["template"]["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        assert labels["app.kubernetes.io/component"] in selector["matchExpressions"][0]["values"]


def test_monitoring_is_off_by_default() -> None:
    assert not [one for one in render() if "monitoring.coreos.com" in one["apiVersion"]]
    assert "contimg-dashboard" not in of_kind(render(), "ConfigMap")
    assert yaml.safe_dump(render("everything")).count("kind: PodMonitor") == 1
