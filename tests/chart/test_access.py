"""Who may do what: exactly this, and nothing for the whole cluster; who may talk to whom."""

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
NO_RIGHTS = {"contimg-watch", "contimg-events", "contimg-preflight"}
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
    def test_accounts_have_exactly_these_rules(self, name: str) -> None:
        documents = render(name)
        roles = of_kind(documents, "Role")
        assert {name: rules(role) for name, role in roles.items()} == RULES
        assert set(of_kind(documents, "ServiceAccount")) == {*RULES, *NO_RIGHTS}

    def test_nothing_is_cluster_wide(self, name: str) -> None:
        assert not [document for document in render(name) if document["kind"].startswith("Cluster")]

    def test_role_is_bound_to_own_account(self, name: str) -> None:
        bindings = of_kind(render(name), "RoleBinding")
        assert set(bindings) == set(RULES)
        for role, binding in bindings.items():
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
            assert binding["roleRef"] == reference
            account = {"kind": "ServiceAccount", "name": role, "namespace": "night"}
            assert binding["subjects"] == [account]

    def test_account_without_rule_has_no_token(self, name: str) -> None:
        accounts = of_kind(render(name), "ServiceAccount").items()
        tokens = {one: document["automountServiceAccountToken"] for one, document in accounts}
        assert tokens == {**dict.fromkeys(RULES, True), **dict.fromkeys(NO_RIGHTS, False)}

    def test_no_pod_runs_as_default_account(self, name: str) -> None:
        documents = render(name)
        for template in of_kind(documents, "WorkflowTemplate").values():
            assert template["spec"]["serviceAccountName"] == "contimg-workflow"
        for where, pod in pods(documents):
            if not where.startswith("WorkflowTemplate"):
                assert pod["serviceAccountName"] in {*RULES, *NO_RIGHTS}, where

    def test_pods_without_api_have_no_token(self, name: str) -> None:
        for where, pod in pods(render(name)):
            if where.split()[0] in {"Deployment", "Job", "Pod"}:
                assert pod["automountServiceAccountToken"] is False, where


def test_only_control_commands_and_fan_outs_have_accounts() -> None:
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


def test_account_names_can_be_changed() -> None:
    names = {"serviceAccounts.names.control": "other", "serviceAccounts.names.sensor": "third"}
    documents = render("minimal", **names)
    assert rules(one(documents, "Role", "other")) == RULES["contimg-control"]
    (sensor,) = of_kind(documents, "Sensor").values()
    assert sensor["spec"]["template"]["serviceAccountName"] == "third"


def test_workload_identity_annotates_store_accounts() -> None:
    annotated = {
        name.removeprefix("contimg-")
        for name, document in of_kind(render("identity"), "ServiceAccount").items()
        if "eks.amazonaws.com/role-arn" in document["metadata"].get("annotations", {})
    }
    assert annotated == {"workflow", "control", "watch", "preflight"}


def test_no_secret_is_made() -> None:
    for name in ("minimal", "everything", "identity", "bare"):
        assert of_kind(render(name), "Secret") == {}


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
def test_network_policies_open_only_needed_ports(
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


def test_each_pod_has_one_network_policy() -> None:
    documents = render("everything")
    labels = {"test": one(documents, "Pod", "contimg-selftest")["metadata"]["labels"]}
    for kind, name in (
        ("Deployment", "contimg-watch"),
        ("Job", "contimg-preflight"),
        ("EventSource", "contimg-night"),
        ("Sensor", "contimg-night"),
    ):
        labels[kind] = one(documents, kind, name)["spec"]["template"]["metadata"]["labels"]
    for name, document in of_kind(documents, "WorkflowTemplate").items():
        own = document["spec"]["podMetadata"]["labels"]
        labels[name] = {**own, "workflows.argoproj.io/workflow": "any"}
    policies = of_kind(documents, "NetworkPolicy").values()
    for pod, own in labels.items():
        assert sum(selects(one_policy, own) for one_policy in policies) == 1, pod
        assert own["team"] == "sky"


def test_watch_ingress_can_be_narrowed() -> None:
    labels = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    for name, selector in (("everything", labels), ("minimal", {})):
        spec = one(render(name), "NetworkPolicy", "contimg-watch")["spec"]
        assert spec["ingress"][0]["from"] == [{"namespaceSelector": selector}]
