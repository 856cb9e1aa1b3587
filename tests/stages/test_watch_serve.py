"""contimg-watch --serve as a process: notifications, posts, health and metrics."""

import json
import logging
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from commands import contimg
from contimg.records.groups import GroupRecord
from contimg.records.schemas.runs import GROUPS
from contimg.runtime.errors import Exit, StoreError
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import table_key
from contimg_runs.post import post_attempt
from contimg_watch.options import ServiceOptions
from contimg_watch.serve import Metrics, Server
from contimg_watch.stage import Watcher
from listener import Listener
from subbands import fill
from waiting import wait_for

BIN = Path(sys.executable).parent
ID = "20260125t222605"
PASSES = 'contimg_watch_passes_total{result="ok"}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty directory as a store."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def full(root: Path) -> Path:
    """A store with a complete group."""
    fill(open_store(str(root)), root.parent)
    return root


class Service:
    """A running contimg-watch --serve, and requests to it."""

    def __init__(self, store: str, log: Path, *words: str) -> None:
        own = ("--serve", "--store", store, "--size", "0", "--host", "127.0.0.1", "--port", "0")
        argv = [BIN / "contimg-watch", *own, *words]
        self._log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(argv, stderr=sink, stdout=subprocess.DEVNULL)
        wait_for(lambda: "listening" in self.read_log() or self.process.poll() is not None)
        found = re.search(r"listening at http://127.0.0.1:(\d+)", self.read_log())
        self.url = f"http://127.0.0.1:{found[1]}" if found else ""

    def read_log(self) -> str:
        return self._log.read_text()

    def ask(self, path: str, data: bytes | None = None) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", data=data, timeout=10) as answer:  # noqa: S310 - a loopback address
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("/metrics")[1], re.MULTILINE)
        assert found is not None, name
        return float(found[1])


Serve = Callable[..., Service]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running: list[Service] = []

    def start(store: str, *words: str) -> Service:
        running.append(Service(store, tmp_path / f"log{len(running)}", *words))
        return running[-1]

    yield start
    for service in running:
        service.process.kill()
        service.process.wait(10)


def state(root: Path) -> str:
    store = open_store(str(root))
    key = table_key("groups", ID, ID)
    rows = GROUPS.read(store.read(key), "").to_pylist() if store.exists(key) else [{"state": ""}]
    return str(rows[0]["state"])


def watch_once(store: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [BIN / "contimg-watch", "--store", store, "--size", "0", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_notification_posts_group(root: Path, listener: Listener, serve: Serve) -> None:
    start = time.time()
    fill(open_store(str(root)), root.parent, without=(5,))
    service = serve(str(root), "--post", f"{listener.url}/group", "--interval-s", "3600")
    wait_for(lambda: service.ask("/readyz")[0] == 200)
    assert state(root) == "collecting"
    assert service.metric('contimg_watch_groups{state="waiting"}') == 1
    oldest_s = service.metric("contimg_watch_oldest_waiting_seconds")
    assert 0 <= oldest_s <= time.time() - start
    fill(open_store(str(root)), root.parent)
    assert service.ask("/notify", b'{"key": "whatever"}') == (202, "looking\n")
    wait_for(lambda: listener.heard)
    event = {"group": ID, "attempt": 1, "run": f"{ID}-a1", "name": f"contimg-{ID}-a1"}
    assert listener.heard == [{**event, "store": str(root)}]
    wait_for(lambda: state(root) == "pending")
    wait_for(lambda: service.metric('contimg_watch_posts_total{result="ok"}') == 1)
    assert service.metric("contimg_watch_records_total") == 1
    assert service.metric("contimg_watch_notifications_total") == 1
    success = service.metric("contimg_watch_last_success_timestamp_seconds")
    assert start < success < time.time()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == Exit.TERMINATED


def test_many_notifications_make_one_pass_per_second(root: Path, serve: Serve) -> None:
    service = serve(str(root), "--interval-s", "3600")
    wait_for(lambda: service.ask("/readyz")[0] == 200)
    start = time.monotonic()
    for _ in range(100):
        service.ask("/notify", b"")
    assert service.metric(PASSES) <= 3 + (time.monotonic() - start)


def test_refused_post_is_tried_until_accepted(full: Path, listener: Listener, serve: Serve) -> None:
    listener.code = 503
    service = serve(str(full), "--post", f"{listener.url}/group", "--interval-s", "0.2")
    wait_for(lambda: "The event was refused with HTTP 503" in service.read_log())
    wait_for(lambda: service.metric("contimg_watch_unposted") == 1)
    wait_for(lambda: service.ask("/readyz")[0] == 200)
    listener.code = 200
    wait_for(lambda: listener.heard)
    wait_for(lambda: service.metric("contimg_watch_unposted") == 0)
    passes = service.metric(PASSES)
    wait_for(lambda: service.metric(PASSES) >= passes + 2)
    assert len(listener.heard) == 1


def test_sweep_posts_what_killed_service_did_not(
    full: Path, listener: Listener, serve: Serve
) -> None:
    listener.code = 503
    post = ("--post", f"{listener.url}/group")
    service = serve(str(full), *post, "--interval-s", "0.2")
    wait_for(lambda: "HTTP 503" in service.read_log())
    service.process.kill()
    service.process.wait(10)
    listener.code = 200
    again = serve(str(full), *post, "--interval-s", "0.2")
    wait_for(lambda: again.metric('contimg_watch_groups{state="recorded"}') == 1)
    assert listener.heard == []
    own = ("--store", str(full), *post, "--workflows", "none")
    done = contimg("sweep", *own, "--grace-s", "0", "--days", "0")
    assert done["posted"] == [f"{ID}-a1"]
    assert [one["run"] for one in listener.heard] == [f"{ID}-a1"]


def test_service_waits_for_store(moto_root: str, s3_environment: Any, serve: Serve) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3_environment.setenv("AWS_MAX_ATTEMPTS", "1")
    service = serve(moto_root, "--interval-s", "0.2")
    wait_for(lambda: "S3 does not answer" in service.read_log())
    wait_for(lambda: "probed" not in service.ask("/readyz")[1])
    assert service.ask("/readyz") == (503, "the store does not answer; the log has the reason\n")
    assert service.ask("/healthz")[0] == 200
    assert service.process.poll() is None
    wait_for(lambda: service.metric('contimg_watch_passes_total{result="failed"}') >= 1)


@pytest.mark.parametrize(
    ("server", "uri", "secret", "words"),
    [
        ("moto", "s3://no-such-bucket/x", "", "There is no bucket no-such-bucket (NoSuchBucket)"),
        ("moto", "/nowhere/at/all", "", "/nowhere/at/all: The directory of the store is missing"),
        ("rclone", "", "another", "S3 refused access"),
        ("rclone", "", "", "concurrent conditional puts won"),
    ],
)
def test_service_ends_if_store_is_unusable(
    request: Any, s3_environment: Any, serve: Serve, server: str, uri: str, secret: str, words: str
) -> None:
    root = request.getfixturevalue(f"{server}_root")
    open_store(root).put("k", b"")
    if secret:
        s3_environment.setenv("AWS_SECRET_ACCESS_KEY", secret)
    service, once = serve(uri or root), watch_once(uri or root)
    assert (service.process.wait(60), once.returncode) == (Exit.USAGE, Exit.USAGE)
    assert words in service.read_log()
    assert words in once.stderr
    assert not Path("/nowhere").exists()


def test_service_ends_if_port_is_taken(root: Path, listener: Listener, serve: Serve) -> None:
    service = serve(str(root), "--port", str(listener.port))
    assert service.process.wait(30) == Exit.USAGE
    problem = "The service cannot listen at this address"
    assert f"127.0.0.1:{listener.port}: {problem}" in service.read_log()


def test_one_pass_fails_after_retries_of_post(full: Path, listener: Listener) -> None:
    listener.code = 500
    done = watch_once(str(full), "--post", f"{listener.url}/group")
    assert done.returncode == Exit.STORE_UNREACHABLE
    assert "refused with HTTP 500" in done.stderr
    assert listener.refused == 4, "tried again as often as the table of exit codes says"


def test_server_answers_health_metrics_and_bad_requests(root: Path) -> None:
    options = ServiceOptions(store=str(root), host="127.0.0.1", port=0, stall_s=20, interval_s=10)
    watcher = Watcher(options, logging.getLogger("test"))
    server = Server(options, watcher, Metrics())
    asker = Service.__new__(Service)
    asker.url = f"http://127.0.0.1:{server.server_port}"
    wrong = asker.ask("/"), asker.ask("/healthz/x"), asker.ask("/other", b"x")
    assert [code for code, _ in wrong] == [404, 404, 404]
    for too_long in ((1 << 20) + 1, 30 << 20):
        assert asker.ask("/notify", bytes(too_long)) == (413, "a notification is short\n")
    assert asker.ask("/readyz") == (503, "the store was not probed yet\n")
    server.unready = ""
    assert asker.ask("/readyz") == asker.ask("/healthz") == (200, "ok\n")
    watcher.alive_at_s = time.monotonic() - 31
    code, text = asker.ask("/healthz")
    assert (code, re.sub(r"3\d", "N", text)) == (503, "no pass began for N s\n")
    assert asker.ask("/readyz")[0] == 503
    watcher.alive_at_s = time.monotonic()
    assert asker.ask("/healthz")[0] == 200
    assert "process_resident_memory_bytes" in asker.ask("/metrics")[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/group", "http://no-such-host.invalid/group"])
def test_post_without_answer_is_store_error(url: str) -> None:
    t0 = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
    record = GroupRecord(id=ID, attempt=1, t0=t0, duration_s=1, dec_deg=None, subbands=())
    with pytest.raises(StoreError, match=re.escape(url)):
        post_attempt(url, "s3://contimg", record)


@pytest.mark.parametrize("wrong", [{"post": "group"}, {"port": 70000}, {"stall_s": 0}], ids=str)
def test_service_refuses_wrong_options(wrong: dict[str, object]) -> None:
    assert ServiceOptions(store="x").post is None
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServiceOptions(store="x", **wrong)  # type: ignore[arg-type]


def test_unreadable_record_is_logged_and_skipped(full: Path) -> None:
    open_store(str(full)).put("groups/20200101t000000-a1.json", b"{}")
    done = watch_once(str(full))
    assert json.loads(done.stdout)["written"] == [f"{ID}-a1"]
    assert "groups/20200101t000000-a1.json is not a group record" in done.stderr
