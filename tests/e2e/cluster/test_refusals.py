"""Wrong values of a release: helm refuses them with one message, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.images import load
from cluster.kube import Kube, KubeError, environment
from cluster.site import CHART, DOOR, RELEASE, Site, fresh

pytestmark = pytest.mark.cluster
BUCKET = environment().get("CONTIMG_S3_BUCKET", "contimg")


@pytest.fixture(scope="module")
def empty() -> Iterator[Site]:
    """A namespace with everything but a release."""
    load()
    site = fresh("refused")
    try:
        site.prepare()
        yield site
    finally:
        site.remove()


def refusal(site: Site, changes: dict[str, Any]) -> str:
    """Install with a change that is wrong; return what helm says."""
    site.changes = {"events": {"enabled": False}, "sweep": {"enabled": False}, **changes}
    try:
        with pytest.raises(KubeError) as refused:
            site.helm("install", RELEASE, str(CHART), "--timeout", "3m", values=True)
    finally:
        site.helm("uninstall", RELEASE, "--wait", "--ignore-not-found", check=False)
        site.changes = {}
    return str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"watch": {"intervalSeconds": "often"}}, ["intervalSeconds", "string"]),
        ({"wach": {"enabled": True}}, ["wach"]),
        ({"store": {"uri": ""}}, ["store.uri"]),
        ({"parameters": {"teer": "quicklook"}}, ["teer"]),
        ({"options": {"image": {"teer": "quicklook"}}}, ["options.image.teer"]),
        ({"profiles": {"deep": {"imagee": {}}}}, ["profiles.deep.imagee"]),
        ({"images": {"registry": "localhost", "tag": "9.9.9"}}, ["9.9.9", "version"]),
    ],
)
def test_helm_refuses_values(empty: Site, changes: dict[str, Any], words: list[str]) -> None:
    said = refusal(empty, changes)
    assert [word for word in words if word not in said] == [], said
    assert empty.kube.get("deployments", "contimg-watch") is None


def test_helm_names_missing_secret(empty: Site) -> None:
    s3 = {"endpoint": "http://s3.invalid:9000", "existingSecret": "absent"}
    message = refusal(empty, {"s3": s3})
    assert "absent" in message
    assert "kubectl" in message, "it says what to do"


def test_preflight_names_value_out_of_range(empty: Site) -> None:
    """By the preflight, which knows the stages' types."""
    said = refusal(empty, {"profiles": {"deep": {"convert": {"max_zeros": 2}}}})
    assert "convert --max-zeros" in said, said


def s3(site: Site, **changes: Any) -> dict[str, Any]:
    """Return values of a good S3 server but for the changes."""
    return {"s3": {**site.values()["s3"], **changes}, "preflight": {"timeoutSeconds": 90}}


def test_preflight_names_missing_bucket(empty: Site) -> None:
    said = refusal(empty, {**s3(empty), "store": {"uri": "s3://no-such-bucket-here/x"}})
    assert "no-such-bucket-here" in said


def test_preflight_names_wrong_credentials(empty: Site) -> None:
    wrong = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "guess"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"}}
    empty.kube.apply({**secret, "stringData": wrong})
    said = refusal(empty, s3(empty, existingSecret="wrong"))
    assert "credentials" in said, said


def test_preflight_names_unreachable_endpoint(empty: Site) -> None:
    where = f"http://nowhere.{empty.namespace}.svc:9000"
    said = refusal(empty, s3(empty, endpoint=where))
    assert where in said, said
    assert DOOR not in said


def test_refused_release_leaves_no_object(empty: Site) -> None:
    kinds = "deployments,configmaps,services,sensors,eventsources"
    release = ("-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name")
    assert Kube(empty.namespace).ctl("get", kinds, *release).split() == []
