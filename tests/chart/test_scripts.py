"""The programs that helm runs in the cluster: the question to the store after an install, and the
group of `helm test`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from charted import CHART, of_kind, one, render
from contimg.runtime.console import Console
from contimg.runtime.errors import BadInputError, MissingError, StoreError
from contimg.runtime.store import Store, open_store
from contimg_watch.options import ServiceOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from chain import Chain

FILES = CHART / "files"
BIN = os.path.dirname(sys.executable)  # noqa: PTH120


def load(name: str) -> ModuleType:
    """Load a script as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"chart_{name}", FILES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    argv = [sys.executable, str(FILES / f"{name}.py"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=120)


@contextmanager
def event_source(taken: Callable[[dict[str, Any]], None]) -> Iterator[str]:
    """Serve what the webhook EventSource serves, on a port of its own."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/group"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestPreflight:
    def test_a_good_store_is_good(self, moto_root: str) -> None:
        done = script("preflight", "--store", moto_root)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"stage": "preflight", "store": moto_root}
        assert list(open_store(moto_root).entries()) == []

    @pytest.mark.parametrize(
        ("options", "profiles", "problem"),
        [
            ("{image: {tier: best}}", "{}", "image --tier: Input should be 'quicklook'"),
            ("{imagee: {}}", "{}", "There is no stage 'imagee'"),
            ("{}", "{deep: {convert: {max_zeros: 2}}}", "convert --max-zeros: Input should be"),
        ],
    )
    def test_wrong_options_are_named_before_the_store_is_asked(
        self, monkeypatch: pytest.MonkeyPatch, options: str, profiles: str, problem: str
    ) -> None:
        monkeypatch.setenv("CONTIMG_PROFILES", profiles)
        done = script("preflight", "--store", "s3://no-such-bucket/x", "--options", options)
        assert done.returncode == 2
        assert problem in done.stderr

    def test_a_bucket_that_is_not_there_is_named(self, moto_root: str) -> None:
        assert moto_root
        done = script("preflight", "--store", "s3://no-such-bucket/x")
        assert done.returncode in {2, 20}
        (said,) = [json.loads(line) for line in done.stderr.splitlines()]
        assert "s3://no-such-bucket" in said["message"]
        assert "bucket" in said["message"].lower()

    def test_a_store_without_conditional_puts_is_refused(self, rclone_root: str) -> None:
        done = script("preflight", "--store", rclone_root)
        assert done.returncode == 2
        assert "of 32 concurrent conditional puts won" in done.stderr

    def test_an_endpoint_that_is_down_is_named(self, s3_environment: pytest.MonkeyPatch) -> None:
        s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        done = script("preflight", "--store", "s3://contimg/x")
        assert done.returncode == 20
        assert "127.0.0.1:9" in done.stderr

    def test_another_version_than_the_template_s_is_refused(
        self, moto_root: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONTIMG_TEMPLATE_VERSION", "9.9.9")
        done = script("preflight", "--store", moto_root)
        assert done.returncode == 2
        assert "9.9.9" in done.stderr


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A group of `helm test`, made by the first two containers' steps; in a directory, which is a
    store as well."""
    folder = tmp_path_factory.mktemp("selftest")
    for step in ("simulate", "watch"):
        done = script(
            "selftest",
            "--step",
            step,
            "--store",
            str(folder / "store"),
            "--folder",
            str(folder / "pod"),
        )
        assert done.returncode == 0, done.stderr
    return folder


class Cluster:
    """What events lead to on a cluster, as the store sees it; the first event is lost."""

    def __init__(
        self, store: Store, truth: dict[str, Any], factor: float, phase: str = "succeeded"
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._store, self._truth, self._factor, self._phase = store, truth, factor, phase

    def taken(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if len(self.events) < 2:
            return
        run = event["run"]
        self._store.put(f"runs/{run}/claim.json", b"{}")
        (group,) = self._truth["groups"]
        rows = [
            {
                "source": source["name"],
                "ra": source["ra_deg"],
                "dec": source["dec_deg"],
                "snr": 1e3 * source["apparent_jy"],
                "upper_limit": False,
                "flux_peak": 1e3 * source["flux_mid_jy"] * group["flux_scale"] * self._factor,
            }
            for source in group["sources"]
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        self._store.put(
            f"tables/photometry/date=2013-12-05/{event['group']}.parquet",
            sink.getvalue().to_pybytes(),
        )
        self._store.put(
            f"runs/{run}/outcome.json", json.dumps({"phase": self._phase, "reason": "why"}).encode()
        )


class TestSelftest:
    def run(
        self, simulated: Path, monkeypatch: pytest.MonkeyPatch, *, factor: float, **more: Any
    ) -> tuple[Any, Cluster, Store]:
        module = load("selftest")
        monkeypatch.setattr(module, "POST_AGAIN_S", 0.1)
        store = open_store((simulated / "pod/store").read_text())
        for entry in [*store.entries("runs/"), *store.entries("tables/")]:
            store.delete(entry.key)
        truth = json.loads(open_store((simulated / "pod/truth").read_text()).read("truth.json"))
        cluster = Cluster(store, truth, factor, **more)
        with event_source(cluster.taken) as url:
            options = module.SelftestOptions(
                step="check", store="", folder=str(simulated / "pod"), post=url, timeout_s=20
            )
            said: Any
            try:
                said = module.check(options, Console("selftest", {}))
            except (BadInputError, StoreError) as error:
                said = error
        return said, cluster, store

    def test_a_group_is_new_each_time_and_lies_below_the_store(self, simulated: Path) -> None:
        store = open_store((simulated / "pod/store").read_text())
        keys = [entry.key for entry in store.entries()]
        assert sum(key.startswith("incoming/") for key in keys) == 16
        (record,) = [key for key in keys if key.startswith("groups/")]
        assert record.endswith("-a1.json")
        assert store.root.startswith(str(simulated / "store/2"))

    def test_other_fluxes_are_told(self, simulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        said, _, store = self.run(simulated, monkeypatch, factor=1.06)
        assert isinstance(said, BadInputError)
        assert "within 5% of the truth" in str(said)
        assert "6.0% off" in str(said)
        # What failed stays for a look.
        assert [entry.key for entry in store.entries("runs/")]

    def test_a_workflow_that_fails_is_told_with_its_reason(
        self, simulated: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said, _, _ = self.run(simulated, monkeypatch, factor=1.0, phase="failed")
        assert isinstance(said, BadInputError)
        assert "found failed: why" in str(said)

    def test_a_group_that_watch_did_not_record_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text(str(tmp_path / "empty"))
        module = load("selftest")
        options = module.SelftestOptions(
            step="check", store="", folder=str(tmp_path), post="http://127.0.0.1:9"
        )
        with pytest.raises(MissingError, match="record of the simulated group"):
            module.check(options, Console("selftest", {}))

    def test_time_that_is_up_is_told(
        self, simulated: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Cluster, "taken", lambda self, event: self.events.append(event))
        module = load("selftest")
        store = open_store((simulated / "pod/store").read_text())
        for entry in store.entries("runs/"):
            store.delete(entry.key)
        options = module.SelftestOptions(
            step="check",
            store="",
            folder=str(simulated / "pod"),
            post="http://127.0.0.1:9/",
            timeout_s=0.5,
        )
        with pytest.raises(StoreError, match="not even a claim"):
            module.check(options, Console("selftest", {}))

    def test_the_true_fluxes_pass_and_the_group_is_removed(
        self, simulated: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Last: it removes what the others look at.
        said, cluster, store = self.run(simulated, monkeypatch, factor=1.03)
        assert said["median"] == pytest.approx(1.03)
        assert said["ratio"] == pytest.approx(1.03)
        assert said["sources"] >= 10
        first, second = cluster.events[:2]
        assert first == second
        assert first["name"] == f"contimg-{said['run']}"
        assert first["store"] == store.root
        assert list(store.entries()) == []

    @pytest.mark.slow
    def test_the_real_chain_passes_it(self, small_chain: Chain) -> None:
        rows = pq.read_table(f"{small_chain.photometry}/photometry.parquet").to_pylist()
        compared = load("selftest").compare(small_chain.truth, rows)
        assert compared["sources"] >= 10
        assert abs(compared["median"] - 1) <= 0.05
        assert abs(compared["ratio"] - 1) <= 0.05


@pytest.mark.helm
class TestInTheCluster:
    def test_the_three_steps_are_three_containers(self) -> None:
        spec = one(render("everything"), "Pod", "contimg-selftest")["spec"]
        module = load("selftest")
        steps = []
        for container in [*spec["initContainers"], *spec["containers"]]:
            program, path, *words = container["command"]
            assert (program, path) == ("python", "/etc/contimg/selftest.py")
            values = {
                words[i].removeprefix("--").replace("-", "_"): words[i + 1]
                for i in range(0, len(words), 2)
            }
            options = module.SelftestOptions.model_validate(values)
            assert options.store == "s3://sky/a/b/helm-test"
            steps.append(
                (options.step, container["image"].rpartition("contimg-")[2].partition(":")[0])
            )
        assert steps == [("simulate", "simulate"), ("watch", "watch"), ("check", "simulate")]
        assert options.post == "http://contimg-night-eventsource-svc.night.svc:12000/group"

    def test_the_scripts_are_those_of_the_files(self) -> None:
        data = one(render(), "ConfigMap", "contimg-scripts")["data"]
        assert data == {"selftest.py": (FILES / "selftest.py").read_text()}

    def test_helm_shows_why_a_question_to_the_store_failed(self) -> None:
        options = {"image": {"tier": "quicklook"}}
        profiles = {"deep": {"image": {"tier": "standard"}}}
        documents = render("minimal", options=options, profiles=profiles)
        job = one(documents, "Job", "contimg-preflight")
        assert job["metadata"]["annotations"] == {
            "helm.sh/hook": "pre-install,pre-upgrade",
            "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
            "helm.sh/hook-output-log-policy": "hook-failed",
        }
        assert job["spec"]["backoffLimit"] == 0
        (container,) = job["spec"]["template"]["spec"]["containers"]
        # Nothing of the release is there yet: not its account, not its ConfigMaps.
        assert container["command"] == [
            "python",
            "-c",
            (FILES / "preflight.py").read_text(),
            "--store",
            "s3://contimg/telescope",
            "--options",
            json.dumps(options, separators=(",", ":")),
        ]
        (given,) = [one["value"] for one in container["env"] if one["name"] == "CONTIMG_PROFILES"]
        assert json.loads(given) == profiles
        assert {
            name for volume in job["spec"]["template"]["spec"]["volumes"] for name in volume
        } == {"name", "emptyDir"}
        account = one(render("identity"), "ServiceAccount", "contimg-preflight")
        assert job["spec"]["template"]["spec"]["serviceAccountName"] == "contimg-preflight"
        assert account["automountServiceAccountToken"] is False
        assert account["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert int(account["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
        assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
        own = one(render("bare", **{"preflight.enabled": True}), "Job", "contimg-preflight")
        assert own["spec"]["template"]["spec"]["serviceAccountName"] == "contimg-watch"

    def test_the_watch_s_own_defaults_are_the_chart_s(self) -> None:
        defaults = yaml.safe_load((CHART / "values.yaml").read_text())["watch"]
        fields = ServiceOptions.model_fields
        names = {
            "interval_s": "intervalSeconds",
            "timeout_s": "timeoutSeconds",
            "gap_s": "gapSeconds",
            "size": "subbandBytes",
        }
        assert {name: fields[name].default for name in names} == {
            name: defaults[value] for name, value in names.items()
        }
        assert fields["stall_s"].default == defaults["stallSeconds"]

    def test_nothing_else_is_a_hook(self) -> None:
        hooks = {
            (document["kind"], document["metadata"]["name"])
            for document in render("everything")
            if "helm.sh/hook" in document["metadata"].get("annotations", {})
        }
        assert hooks == {
            ("ServiceAccount", "contimg-preflight"),
            ("Job", "contimg-preflight"),
            ("Pod", "contimg-selftest"),
        }
        assert of_kind(render("bare"), "Pod") == {}
