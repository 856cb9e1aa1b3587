"""The programs that helm runs in the cluster: the question to the store after an install, and the
group of `helm test`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from chain import Chain
from charted import CHART, env, of_kind, one, render
from contimg.runtime.console import Console
from contimg.runtime.errors import BadInputError, MissingError, StoreError
from contimg.runtime.store import Store, open_store
from contimg_watch.options import ServiceOptions
from listener import Listener

FILES = CHART / "files"
BIN = Path(sys.executable).parent


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
    path = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    argv = [sys.executable, str(FILES / f"{name}.py"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=path, timeout=120)


class TestPreflight:
    def test_good_store_passes(self, moto_root: str) -> None:
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
    def test_wrong_options_are_named_before_store(
        self, monkeypatch: pytest.MonkeyPatch, options: str, profiles: str, problem: str
    ) -> None:
        monkeypatch.setenv("CONTIMG_PROFILES", profiles)
        done = script("preflight", "--store", "s3://no-such-bucket/x", "--options", options)
        assert done.returncode == 2
        assert problem in done.stderr

    @pytest.mark.usefixtures("moto_root")
    def test_missing_bucket_is_named(self) -> None:
        wrong = ("--parameters", '{"robust": "5", "niter": "1e6", "tier": "quicklook"}')
        done = script("preflight", "--store", "s3://no-such-bucket/x", *wrong)
        assert "--robust: Input should be less than or equal to 2" in done.stderr
        assert "--niter: Input should be a valid integer" in done.stderr
        done = script("preflight", "--store", "s3://no-such-bucket/x")
        assert done.returncode in {2, 20}
        (said,) = [json.loads(line) for line in done.stderr.splitlines()]
        assert "s3://no-such-bucket" in said["message"]
        assert "bucket" in said["message"].lower()

    @pytest.mark.parametrize(
        ("server", "variable", "value", "code", "problem"),
        [
            ("rclone", "UNUSED", "", 2, "of 32 concurrent conditional puts won"),
            ("moto", "AWS_ENDPOINT_URL", "http://127.0.0.1:9", 20, "127.0.0.1:9"),
            ("moto", "CONTIMG_TEMPLATE_VERSION", "9.9.9", 2, "9.9.9"),
        ],
        ids=["no conditional puts", "endpoint down", "other version"],
    )
    def test_unusable_store_or_version_is_refused(
        self,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        server: str,
        variable: str,
        value: str,
        code: int,
        problem: str,
    ) -> None:
        root = request.getfixturevalue(f"{server}_root")
        monkeypatch.setenv(variable, value)
        done = script("preflight", "--store", root)
        assert done.returncode == code
        assert problem in done.stderr


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A group of `helm test`, made by the first two containers' steps; in a directory, which is a
    store as well."""
    folder = tmp_path_factory.mktemp("selftest")
    words = ("--store", str(folder / "store"), "--folder", str(folder / "pod"))
    for step in ("simulate", "watch"):
        done = script("selftest", "--step", step, *words)
        assert done.returncode == 0, done.stderr
    return folder


class Cluster:
    """What events lead to on a cluster, as the store sees it; the first event is lost."""

    def __init__(self, pod: Path, factor: float, phase: str = "succeeded") -> None:
        self.events: list[dict[str, Any]] = []
        self._store = open_store((pod / "store").read_text())
        self._truth = json.loads(open_store((pod / "truth").read_text()).read("truth.json"))
        self._factor, self._phase = factor, phase

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
        key = f"tables/photometry/date=2013-12-05/{event['group']}.parquet"
        self._store.put(key, sink.getvalue().to_pybytes())
        outcome = json.dumps({"phase": self._phase, "reason": "why"}).encode()
        self._store.put(f"runs/{run}/outcome.json", outcome)


@pytest.fixture
def selftest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("selftest")
    monkeypatch.setattr(module, "POST_AGAIN_S", 0.1)
    return module


def check(module: ModuleType, folder: Path, post: str, **more: Any) -> Any:
    own = {"step": "check", "store": "", "folder": str(folder), "post": post}
    return module.check(module.SelftestOptions(**own, **more), Console("selftest", {}))


class TestSelftest:
    def run(
        self, module: ModuleType, simulated: Path, *, factor: float, **more: Any
    ) -> tuple[Any, Cluster, Store]:
        cluster = Cluster(simulated / "pod", factor, **more)
        store = open_store((simulated / "pod/store").read_text())
        for entry in [*store.entries("runs/"), *store.entries("tables/")]:
            store.delete(entry.key)
        listener, said = Listener(cluster.taken), None
        try:
            said = check(module, simulated / "pod", f"{listener.url}/group", timeout_s=20)
        except (BadInputError, StoreError) as error:
            said = error
        finally:
            listener.close()
        return said, cluster, store

    def test_group_is_new_each_time_below_store(self, simulated: Path) -> None:
        store = open_store((simulated / "pod/store").read_text())
        keys = [entry.key for entry in store.entries()]
        assert sum(key.startswith("incoming/") for key in keys) == 16
        (record,) = [key for key in keys if key.startswith("groups/")]
        assert record.endswith("-a1.json")
        assert store.root.startswith(str(simulated / "store/2"))

    def test_wrong_fluxes_are_reported(self, simulated: Path, selftest: ModuleType) -> None:
        said, _, store = self.run(selftest, simulated, factor=1.06)
        assert isinstance(said, BadInputError)
        assert "within 5% of the truth" in str(said)
        assert "6.0% off" in str(said)
        # What failed stays for a look.
        assert [entry.key for entry in store.entries("runs/")]

    def test_failed_workflow_is_reported_with_reason(
        self, simulated: Path, selftest: ModuleType
    ) -> None:
        said, _, _ = self.run(selftest, simulated, factor=1.0, phase="failed")
        assert isinstance(said, BadInputError)
        assert "found failed: why" in str(said)

    def test_group_without_record_is_reported(self, tmp_path: Path, selftest: ModuleType) -> None:
        (tmp_path / "store").write_text(str(tmp_path / "empty"))
        with pytest.raises(MissingError, match="record of the simulated group"):
            check(selftest, tmp_path, "http://127.0.0.1:9")

    def test_exceeded_time_is_reported(self, simulated: Path, selftest: ModuleType) -> None:
        store = open_store((simulated / "pod/store").read_text())
        for entry in store.entries("runs/"):
            store.delete(entry.key)
        with pytest.raises(StoreError, match="not even a claim"):
            check(selftest, simulated / "pod", "http://127.0.0.1:9/", timeout_s=0.5)

    def test_true_fluxes_pass_and_group_is_removed(
        self, simulated: Path, selftest: ModuleType
    ) -> None:
        # Last: it removes what the others look at.
        said, cluster, store = self.run(selftest, simulated, factor=1.03)
        assert said["median"] == pytest.approx(1.03)
        assert said["ratio"] == pytest.approx(1.03)
        assert said["sources"] >= 10
        first, second = cluster.events[:2]
        assert first == second
        assert first["name"] == f"contimg-{said['run']}"
        assert first["store"] == store.root
        assert list(store.entries()) == []

    @pytest.mark.slow
    def test_real_chain_passes(self, small_chain: Chain) -> None:
        rows = pq.read_table(f"{small_chain.photometry}/photometry.parquet").to_pylist()
        compared = load("selftest").compare(small_chain.truth, rows)
        assert compared["sources"] >= 10
        assert abs(compared["median"] - 1) <= 0.05
        assert abs(compared["ratio"] - 1) <= 0.05


@pytest.mark.helm
class TestInTheCluster:
    def test_steps_are_containers(self) -> None:
        spec = one(render("everything"), "Pod", "contimg-selftest")["spec"]
        module = load("selftest")
        steps = []
        for container in [*spec["initContainers"], *spec["containers"]]:
            program, path, *words = container["command"]
            assert (program, path) == ("python", "/etc/contimg/selftest.py")
            names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
            values = dict(zip(names, words[1::2], strict=True))
            options = module.SelftestOptions.model_validate(values)
            assert options.store == "s3://sky/a/b/helm-test"
            image = container["image"].rpartition("contimg-")[2].partition(":")[0]
            steps.append((options.step, image))
        assert steps == [("simulate", "simulate"), ("watch", "watch"), ("check", "simulate")]
        assert options.post == "http://contimg-night-eventsource-svc.night.svc:12000/group"

    def test_config_map_holds_scripts(self) -> None:
        data = one(render(), "ConfigMap", "contimg-scripts")["data"]
        assert data == {"selftest.py": (FILES / "selftest.py").read_text()}

    def test_preflight_is_hook_that_shows_its_log(self) -> None:
        options = {"image": {"tier": "quicklook"}}
        profiles = {"deep": {"image": {"tier": "standard"}}}
        documents = render("minimal", options=options, profiles=profiles)
        job = one(documents, "Job", "contimg-preflight")
        hook = "helm.sh/hook"
        assert job["metadata"]["annotations"] == {
            hook: "pre-install,pre-upgrade",
            f"{hook}-delete-policy": "before-hook-creation,hook-succeeded",
            f"{hook}-output-log-policy": "hook-failed",
        }
        assert job["spec"]["backoffLimit"] == 0
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        # Nothing of the release is there yet: not its account, not its ConfigMaps.
        program, given = (FILES / "preflight.py").read_text(), json.dumps(options).replace(" ", "")
        words = ["--store", "s3://contimg/telescope", "--options", given, "--parameters", "{}"]
        assert container["command"] == ["python", "-c", program, *words]
        assert json.loads(env(container)["CONTIMG_PROFILES"]) == profiles
        assert {name for volume in pod["volumes"] for name in volume} == {"name", "emptyDir"}
        assert pod["serviceAccountName"] == "contimg-preflight"
        account = one(render("identity"), "ServiceAccount", "contimg-preflight")
        assert account["automountServiceAccountToken"] is False
        annotations = account["metadata"]["annotations"]
        assert annotations[hook] == "pre-install,pre-upgrade"
        assert int(annotations[f"{hook}-weight"]) < 0
        assert "eks.amazonaws.com/role-arn" in annotations
        own = one(render("bare", **{"preflight.enabled": True}), "Job", "contimg-preflight")
        assert own["spec"]["template"]["spec"]["serviceAccountName"] == "contimg-watch"

    def test_defaults_of_watch_are_those_of_chart(self) -> None:
        defaults = yaml.safe_load((CHART / "values.yaml").read_text())["watch"]
        fields = ServiceOptions.model_fields
        names = {"interval_s": "intervalSeconds", "timeout_s": "timeoutSeconds"}
        names |= {"gap_s": "gapSeconds", "size": "subbandBytes", "stall_s": "stallSeconds"}
        assert {name: fields[name].default for name in names} == {
            name: defaults[value] for name, value in names.items()
        }

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
