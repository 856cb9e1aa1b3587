"""The workflows of a namespace, by the Kubernetes API: get and list, nothing else."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from contimg.runtime.errors import ContimgError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the cluster's certificate and its namespace."""
TIMEOUT_S = 30.0
PAGE = 500
COMPLETED = "workflows.argoproj.io/completed"
# Only names and labels: a whole workflow has up to a megabyte.
META = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 401, 403, 404


@dataclass(frozen=True)
class Known:
    """One workflow of the namespace."""

    name: str
    uid: str
    completed: bool


class Workflows(Protocol):
    """The workflows that there are."""

    def known(self) -> list[Known]:
        """List them."""
        ...

    def get(self, name: str) -> dict[str, Any] | None:
        """Return one whole, as its YAML would have it; None if it is gone."""
        ...


class NoWorkflows:
    """A cluster without workflows, for who says so."""

    def known(self) -> list[Known]:
        """List none."""
        return []

    def get(self, _name: str) -> dict[str, Any] | None:
        """Know none."""
        return None


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes API server, by plain HTTP."""

    url: str
    namespace: str
    account: Path | None = None
    """Folder with token and certificate; the token is read each time, because Kubernetes renews it."""

    def known(self) -> list[Known]:
        """List the namespace's workflows."""
        found: list[Known] = []
        after = ""
        while True:
            page = self._ask(
                "", {"limit": str(PAGE), **({"continue": after} if after else {})}, META
            )
            if page is None:
                what = f"namespace {self.namespace} with Argo Workflows"
                raise UsageError(
                    self.url,
                    f"expected {what}, found no such resource.",
                    "Install Argo Workflows, or say --workflows none.",
                )
            # Of nothing Kubernetes makes null, not an empty list.
            found += [_known(item["metadata"]) for item in page["items"] or ()]
            after = page["metadata"].get("continue", "")
            if not after:
                return found

    def get(self, name: str) -> dict[str, Any] | None:
        """Return one workflow."""
        return self._ask(f"/{urllib.parse.quote(name, safe='')}", {}, "application/json")

    def _ask(self, path: str, query: Mapping[str, str], accept: str) -> dict[str, Any] | None:
        """Return the answer to a GET; None if there is no such thing."""
        base = f"{self.url.rstrip('/')}/apis/argoproj.io/v1alpha1/namespaces/{self.namespace}/workflows{path}"
        url = f"{base}?{urllib.parse.urlencode(query)}" if query else base
        request = urllib.request.Request(url, headers={"Accept": accept, **self._token()})  # noqa: S310 - https in a pod, --api is http
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=TIMEOUT_S, context=self._trust()
            ) as answer:
                whole: dict[str, Any] = json.load(answer)
                return whole
        except urllib.error.HTTPError as error:
            with error:
                if error.code == NOT_FOUND:
                    return None
                raise self._refused(base, error.code, error.reason) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            remedy = "Check the API server and the NetworkPolicy."
            raise StoreError(
                base,
                f"expected an answer from the Kubernetes API, found {getattr(error, 'reason', '') or error!s}.",
                remedy,
            ) from error

    def _refused(self, url: str, code: int, reason: str) -> ContimgError:
        if code in {UNAUTHORIZED, FORBIDDEN}:
            remedy = "Give its service account a role with get and list of workflows.argoproj.io."
            return UsageError(
                url, f"expected leave to read workflows, found HTTP {code} {reason}.", remedy
            )
        return StoreError(
            url,
            f"expected an answer from the Kubernetes API, found HTTP {code} {reason}.",
            "Check the API server.",
        )

    def _token(self) -> dict[str, str]:
        if self.account is None:
            return {}
        return {"Authorization": f"Bearer {(self.account / 'token').read_text().strip()}"}

    def _trust(self) -> ssl.SSLContext | None:
        if self.account is None:
            return None
        context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        # Python 3.13 asks for an extension that the certificates of many clusters lack.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def find_cluster(
    env: Mapping[str, str], url: str | None, namespace: str | None, account: Path = ACCOUNT
) -> Cluster | None:
    """Find the API: by its URL, else as a pod does; None if this is no pod with a token.

    Raises
    ------
    UsageError
        If a URL comes without a namespace.
    """
    if url:
        if not namespace:
            raise UsageError(
                "--api",
                "expected --namespace beside it, found none.",
                "Say in which namespace the workflows are.",
            )
        return Cluster(url, namespace)
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").is_file():
        return None
    own = (account / "namespace").read_text().strip()
    return Cluster(
        f"https://{f'[{host}]' if ':' in host else host}:{port}", namespace or own, account
    )


def _known(meta: Mapping[str, Any]) -> Known:
    return Known(meta["name"], meta["uid"], (meta.get("labels") or {}).get(COMPLETED) == "true")


def nodes_of(workflow: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the nodes of a workflow by id; Argo packs them when there are many."""
    status = workflow.get("status") or {}
    packed = status.get("compressedNodes")
    nodes: dict[str, dict[str, Any]] = (
        json.loads(gzip.decompress(base64.b64decode(packed)))
        if packed
        else status.get("nodes") or {}
    )
    return nodes
