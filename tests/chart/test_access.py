"""Who may do what: exactly this, and nothing for the whole cluster; who may talk to whom."""

from __future__ import annotations

from typing import Any

import pytest

from charted import Document, of_kind, one, pods, render

pytestmark = pytest.mark.helm

RESULTS = ("argoproj.io", "workflowtaskresults", ("create", "patch"))
RULES = {
    "contimg-workflow": {RESULTS},
    "contimg-control": {RESULTS, ("argoproj.io", "workflows", ("get", "list"))},
    "contimg-spawn": {RESULTS, ("argoproj.io", "workflows", ("create", "get", "list", "watch"))},
    "contimg-sensor": {("argoproj.io", "workflows", ("create",))},
}
NOBODY = {"contimg-watch", "contimg-events", "contimg-preflight"}
"""Accounts without a right and without a token."""


def rules(role: Document) -> set[tuple[str, str, tuple[str, ...]]]:
    found = set()
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        (group,), (resource,) = rule["apiGroups"], rule["resources"]
        found.add((group, resource, tuple(rule["verbs"])))
    return found


@pytest.mark.parametrize("name", ["minimal", "everything", "identity"])
class TestRoles:
    def test_each_account_may_do_this_and_no_more(self, name: str) -> None:
        documents = render(name)
        assert {
            role: rules(document) for role, document in of_kind(documents, "Role").items()
        } == RULES
        assert set(of_kind(documents, "ServiceAccount")) == {*RULES, *NOBODY}

    def test_nothing_is_for_the_whole_cluster(self, name: str) -> None:
        assert not [document for document in render(name) if document["kind"].startswith("Cluster")]

    def test_each_role_is_bound_to_its_own_account(self, name: str) -> None:
        bindings = of_kind(render(name), "RoleBinding")
        assert set(bindings) == set(RULES)
        for role, binding in bindings.items():
            assert binding["roleRef"] == {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": role,
            }
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": role, "namespace": "night"}
            ]

    def test_who_may_nothing_gets_no_token(self, name: str) -> None:
        accounts = of_kind(render(name), "ServiceAccount")
        tokens = {
            account: document["automountServiceAccountToken"]
            for account, document in accounts.items()
        }
        assert tokens == {**dict.fromkeys(RULES, True), **dict.fromkeys(NOBODY, False)}

    def test_no_pod_runs_as_the_default_account(self, name: str) -> None:
        documents = render(name)
        for template in of_kind(documents, "WorkflowTemplate").values():
            assert template["spec"]["serviceAccountName"] == "contimg-workflow"
        for where, pod in pods(documents):
            if not where.startswith("WorkflowTemplate"):
                assert pod["serviceAccountName"] in {*RULES, *NOBODY}, where

    def test_pods_of_ours_that_need_no_api_have_no_token(self, name: str) -> None:
        for where, pod in pods(render(name)):
            if where.split()[0] in {"Deployment", "Job", "Pod"}:
                assert pod["automountServiceAccountToken"] is False, where


def test_only_record_and_sweep_read_workflows_and_only_fan_outs_make_them() -> None:
    special: dict[str, set[str]] = {}
    for name, document in of_kind(render(), "WorkflowTemplate").items():
        for template in document["spec"]["templates"]:
            account = template.get("serviceAccountName")
            if account:
                special.setdefault(account, set()).add(name)
            if "resource" in template:
                assert account == "contimg-spawn", name
            if {"record", "sweep"} & set(template.get("container", {}).get("command", [])):
                assert account == "contimg-control", name
            elif "container" in template:
                assert account is None, name
    assert set(special) <= {"contimg-control", "contimg-spawn"}


def test_names_of_accounts_can_be_others() -> None:
    names = {"serviceAccounts.names.control": "other", "serviceAccounts.names.sensor": "third"}
    documents = render("minimal", **names)
    assert rules(one(documents, "Role", "other")) == RULES["contimg-control"]
    (sensor,) = of_kind(documents, "Sensor").values()
    assert sensor["spec"]["template"]["serviceAccountName"] == "third"


def test_workload_identity_annotates_the_accounts_that_reach_the_store() -> None:
    accounts = of_kind(render("identity"), "ServiceAccount")
    annotated = {
        name
        for name, document in accounts.items()
        if "eks.amazonaws.com/role-arn" in document["metadata"].get("annotations", {})
    }
    assert annotated == {
        "contimg-workflow",
        "contimg-control",
        "contimg-watch",
        "contimg-preflight",
    }


def test_no_secret_is_made_and_no_key_is_in_any_object() -> None:
    for name in ("minimal", "everything", "identity", "bare"):
        assert of_kind(render(name), "Secret") == {}


# Who may talk to whom


def ports(rule: dict[str, Any]) -> set[Any]:
    return {port["port"] for port in rule["ports"]}


def policy(documents: list[Document], name: str) -> tuple[list[set[Any]], list[set[Any]]]:
    spec = one(documents, "NetworkPolicy", f"contimg-{name}")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    return [ports(rule) for rule in spec["ingress"]], [ports(rule) for rule in spec["egress"]]


DNS = {53, 5353}


@pytest.mark.parametrize(
    ("name", "store", "api", "nats"),
    [
        ("minimal", {9000}, {443, 6443}, {4222}),
        ("everything", {8443}, {16443}, {4333}),
        ("identity", {443}, {443, 6443}, {4222}),
    ],
)
def test_pods_talk_only_to_what_they_need(
    name: str, store: set[int], api: set[int], nats: set[int]
) -> None:
    documents = render(name)
    webhook = {12000}
    assert policy(documents, "watch") == ([{"http"}], [DNS, store, webhook])
    assert policy(documents, "workflow") == ([], [DNS, store, api, webhook])
    assert policy(documents, "events") == ([webhook, {7777}], [DNS, nats])
    assert policy(documents, "sensor") == ([{7777}], [DNS, nats, api])
    assert policy(documents, "test") == ([], [DNS, store, webhook])


def selects(policy: Document, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(
        one["key"] in labels and one["operator"] == "Exists"
        for one in selector.get("matchExpressions", [])
    )


def test_each_pod_is_under_exactly_one_policy() -> None:
    documents = render("everything")
    labels = {
        "watch": one(documents, "Deployment", "contimg-watch")["spec"]["template"]["metadata"][
            "labels"
        ],
        "test": one(documents, "Pod", "contimg-selftest")["metadata"]["labels"],
        "preflight": one(documents, "Job", "contimg-preflight")["spec"]["template"]["metadata"][
            "labels"
        ],
        "events": one(documents, "EventSource", "contimg-night")["spec"]["template"]["metadata"][
            "labels"
        ],
        "sensor": one(documents, "Sensor", "contimg-night")["spec"]["template"]["metadata"][
            "labels"
        ],
    }
    for name, document in of_kind(documents, "WorkflowTemplate").items():
        labels[name] = {
            **document["spec"]["podMetadata"]["labels"],
            "workflows.argoproj.io/workflow": "any",
        }
    policies = of_kind(documents, "NetworkPolicy").values()
    for pod, own in labels.items():
        assert sum(selects(one_policy, own) for one_policy in policies) == 1, pod
        assert own["team"] == "sky"


def test_who_may_notify_and_scrape_can_be_narrowed() -> None:
    spec = one(render("everything"), "NetworkPolicy", "contimg-watch")["spec"]
    assert spec["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    spec = one(render(), "NetworkPolicy", "contimg-watch")["spec"]
    assert spec["ingress"][0]["from"] == [{"namespaceSelector": {}}]
