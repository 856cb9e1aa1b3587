"""One installation of the chart: namespace, release, store, and the state of each run."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from cluster.argo import FINISHED, Argo, Workflow, messages, phase
from cluster.groups import Night
from cluster.images import load
from cluster.kube import ROOT, Kube, KubeError, environment, run, wait_until
from contimg.runtime.stage import stage_specs
from contimg.runtime.store import Store, open_store
from contimg_runs.pipelines import PROCESS_GROUP

if TYPE_CHECKING:
    import pandas as pd

CHART = ROOT / "charts" / "contimg"
RELEASE = "contimg"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3")
DOOR = "s3-door"
"""A Service of the namespace that leads to the S3 server, so that a test can shut it for this
namespace alone."""
SMALL = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}}
"""For a small group, on a node of two cores where several pods must find a place."""
STEPS = PROCESS_GROUP.order
Figure = Callable[[str, str], None]
WITHIN_S = 900.0
"""A small group takes a minute or two alone; several share two cores."""


def deep(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two trees of values; the second one wins."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = deep(old, value) if both else value
    return merged


@dataclass
class Site:
    """A release in a namespace of its own and a store in a prefix of its own."""

    namespace: str
    uri: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Values over those that every test has."""
    checked: bool = False
    """Whether helm has compared what it installs with the cluster's schemas, which costs two
    seconds of each processor."""

    @property
    def kube(self) -> Kube:
        """The namespace."""
        return Kube(self.namespace)

    @property
    def argo(self) -> Argo:
        """The Argo Server."""
        return Argo(self.namespace)

    @cached_property
    def store(self) -> Store:
        """The store, from this machine."""
        os.environ.update({key: value for key, value in environment().items() if key in KEYS})
        return open_store(self.uri)

    def values(self) -> dict[str, Any]:
        """Return the values of the release: defaults, but for what is small here."""
        outside = urlsplit(environment()["CONTIMG_S3_ENDPOINT_IN_CLUSTER"])
        bus = environment()["CONTIMG_NATS_IN_CLUSTER"]
        ours = {
            "store": {"uri": self.uri},
            "s3": {
                "endpoint": f"http://{DOOR}.{self.namespace}.svc:{outside.port}",
                "existingSecret": "s3",
            },
            "images": {"registry": "localhost"},
            "stages": {name: {"resources": SMALL} for name in (*stage_specs(), "watch")},
            "options": {"image": {"tier": "quicklook"}},
            "parameters": {"grace_s": "20", "days": "0"},
            "watch": {"intervalSeconds": 2, "timeoutSeconds": 40, "subbandBytes": 0},
            "events": {"eventBus": {"kind": "exotic", "exotic": {"url": bus}}},
            "sweep": {"schedules": ["*/2 * * * *"]},
        }
        return deep(ours, self.changes)

    def prepare(self) -> None:
        """Make the namespace, its Secret and the door to S3."""
        env = environment()
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {"metadata": {"name": self.namespace, "labels": labels}}
        Kube("default").apply({"apiVersion": "v1", "kind": "Namespace", **namespace})
        secret = {"metadata": {"name": "s3"}, "stringData": {key: env[key] for key in KEYS[:2]}}
        self.kube.apply({"apiVersion": "v1", "kind": "Secret", **secret})
        self.open_door()

    def open_door(self) -> None:
        """Let the pods reach S3."""
        host = urlsplit(environment()["CONTIMG_S3_ENDPOINT_IN_CLUSTER"]).hostname or ""
        full = f"{host}.cluster.local" if host.endswith(".svc") else host
        spec = {"type": "ExternalName", "externalName": full}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": DOOR}}
        self.kube.apply({**service, "spec": spec})

    def shut_door(self) -> None:
        """Cut the namespace off from S3; open connections stay open."""
        self.kube.ctl("delete", "service", DOOR)

    def helm(
        self, *words: str, values: bool = False, check: bool = True, timeout_s: float = 600
    ) -> str:
        """Run helm in the namespace."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(self.values(), file)
            file.flush()
            given = ("-f", file.name) if values else ()
            argv = ["helm", "--namespace", self.namespace, *words, *given]
            return run(*argv, check=check, timeout_s=timeout_s)

    def install(self) -> None:
        """Install the chart or change the release to the present values.

        Raises
        ------
        KubeError
            If that fails, with the state of the namespace.
        """
        try:
            words = ["--disable-openapi-validation"] if self.checked else []
            argv = ["upgrade", "--install", RELEASE, str(CHART), "--wait", "--timeout=5m", *words]
            self.helm(*argv, values=True)
            self.checked = True
            self.hears()
        except (KubeError, TimeoutError) as error:
            raise KubeError(f"{error}\n{self.describe()}") from error

    def hears(self) -> None:
        """Wait until webhook and sensor are connected; events before that are lost."""
        for label in ("eventsource-name", "sensor-name"):
            wait_until(f"a ready pod with {label}", lambda label=label: self._ready(label), 120)  # type: ignore[misc]

    def _ready(self, label: str) -> bool:
        pods = self.kube.all("pods", label)
        states = [
            status["ready"] for pod in pods for status in pod["status"].get("containerStatuses", [])
        ]
        return bool(states) and all(states)

    def reprocess(self, group: str, **options: dict[str, str]) -> str:
        """Submit the next attempt with options of stages; return the workflow's name."""
        document = deep(self.values()["options"], options)
        parameters = {"group": group, "options": json.dumps(document)}
        return self.argo.submit("contimg-reprocess", parameters)

    def workflows(self) -> list[Workflow]:
        """Return the workflows of the namespace."""
        return self.kube.all("workflows")

    def finished(self, name: str, within_s: float = WITHIN_S) -> Workflow:
        """Wait for a workflow's end and return it; what the UI would show stands in the failure.

        Raises
        ------
        LookupError
            If it is not there: a CronWorkflow keeps few, and all have a time to live.
        """

        def ask() -> Workflow | None:
            workflow = self.kube.get("workflows", name)
            if workflow is None:
                raise LookupError(f"no workflow {name} in {self.namespace}")
            return workflow if phase(workflow) in FINISHED else None

        return wait_until(f"the end of {name}", ask, within_s)

    def succeeded(self, name: str, within_s: float = WITHIN_S) -> Workflow:
        """Wait for a workflow to end, and check that it succeeded."""
        workflow = self.finished(name, within_s)
        assert phase(workflow) == "Succeeded", f"{name}: {messages(workflow)}"
        return workflow

    def document(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object of the store, or None."""
        if not self.store.exists(key):
            return None
        answer: dict[str, Any] = json.loads(self.store.read(key))
        return answer

    def outcome(self, run: str, within_s: float = WITHIN_S) -> dict[str, Any]:
        """Wait until the run of an attempt, ID-aN, has an outcome."""
        key = f"runs/{run}/outcome.json"
        return wait_until(f"an outcome of {run}", lambda: self.document(key), within_s)

    def runs(self) -> list[str]:
        """Return the attempts, ID-aN, that have a record."""
        keys = [entry.key for entry in self.store.entries("groups/")]
        return [key.removeprefix("groups/").removesuffix(".json") for key in keys]

    def table(self, name: str, unit: str = "") -> pd.DataFrame:
        """Return the rows of a table, all units by default."""
        import pandas as pd

        keys = [entry.key for entry in self.store.entries(f"tables/{name}/")]
        frames = [
            pq.read_table(io.BytesIO(self.store.read(key))).to_pandas()
            for key in keys
            if key.endswith(f"/{unit}.parquet" if unit else ".parquet")
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def manifests(self, unit: str) -> dict[str, list[dict[str, Any]]]:
        """Return the manifests of a group's or epoch's products, by stage."""
        found = defaultdict(list)
        for entry in self.store.entries(f"products/{unit}/"):
            if entry.key.endswith("/manifest.json"):
                found[entry.key.split("/")[2]].append(json.loads(self.store.read(entry.key)))
        return found

    def half_written(self, unit: str) -> list[str]:
        """Return what manifests name that is missing or of another size: nothing."""
        sizes = {entry.key: entry.size for entry in self.store.entries(f"products/{unit}/")}
        wrong = []
        for key in sizes:
            folder, _, name = key.rpartition("/")
            if name == "manifest.json":
                outputs = json.loads(self.store.read(key))["outputs"]
                expected = {f"{folder}/{one['name']}": one["bytes"] for one in outputs}
                wrong += [name for name, size in expected.items() if sizes.get(name) != size]
        return wrong

    def describe(self) -> str:
        """Return what a person would look at first."""
        pods = self.kube.ctl("get", "pods,workflows,deployments", "-o", "wide", check=False)
        events = self.kube.ctl("get", "events", "--sort-by=.lastTimestamp", check=False)
        started = [workflow for workflow in self.workflows() if workflow.get("status")]
        reasons = [f"{one['metadata']['name']}: {messages(one)}" for one in started]
        return "\n".join([pods[-6000:], events[-6000:], *reasons])

    def remove(self) -> None:
        """Remove release, namespace and the objects of the store."""
        self.helm("uninstall", RELEASE, "--wait", check=False)
        words = ["delete", "namespace", self.namespace, "--timeout=120s"]
        Kube("default").ctl(*words, check=False, timeout_s=150)
        for entry in list(self.store.entries("")):
            self.store.delete(entry.key)


@dataclass(frozen=True)
class Done:
    """A group that went through by itself."""

    site: Site
    night: Night
    workflow: Workflow

    @property
    def run(self) -> str:
        """The attempt."""
        return f"{self.night.id}-a1"

    def products(self) -> dict[str, datetime]:
        """Return when each object of its products was written."""
        entries = self.site.store.entries(f"products/{self.night.id}/")
        return {entry.key: entry.modified for entry in entries}


def fresh(word: str, **changes: Any) -> Site:
    """Return a new site; its names hold this process, so that two test runs do not meet."""
    name = f"contimg-{word}-{os.getpid()}"
    return Site(name, f"s3://{environment()['CONTIMG_S3_BUCKET']}/{name}", changes)


@contextmanager
def installed(word: str, **changes: Any) -> Iterator[Site]:
    """Install the chart; remove it with its store unless `CONTIMG_E2E_KEEP` is set."""
    load()
    made = fresh(word, **changes)
    try:
        made.prepare()
        made.install()
        yield made
    finally:
        if "CONTIMG_E2E_KEEP" not in os.environ:
            made.remove()
