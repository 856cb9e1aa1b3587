"""contimg-watch --serve as a process: it looks sooner when told, posts what it records, and tells how it is."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contimg.records.schemas.runs import GROUPS
from contimg.runtime.errors import Exit, StoreError
from contimg.runtime.store import open_store
from contimg_runs.attempt_store import table_key
from contimg_runs.post import post
from contimg_watch.metrics import Metrics
from contimg_watch.options import ServiceOptions
from contimg_watch.serve import Pulse, listen
from listener import Listener
from subbands import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(sys.executable).parent
ID = "20260125t222605"


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


class Service:
    """A contimg-watch --serve, and questions to it."""

    def __init__(self, store: str, log: Path, *words: str) -> None:
        argv = [
            str(BIN / "contimg-watch"),
            "--serve",
            "--store",
            store,
            "--size",
            "0",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            *words,
        ]
        self._log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(argv, stderr=sink, stdout=subprocess.DEVNULL)
        until(lambda: "listening" in self.said() or self.process.poll() is not None)
        found = re.search(r"listening at http://127.0.0.1:(\d+)", self.said())
        self.url = f"http://127.0.0.1:{found[1]}" if found else ""

    def said(self) -> str:
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

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def start(store: str, *words: str) -> Service:
        running.append(Service(store, tmp_path / f"log{len(running)}", *words))
        return running[-1]

    yield start
    for service in running:
        service.process.kill()
        service.process.wait(10)


def until(what: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def state(root: Path) -> str:
    store = open_store(str(root))
    key = table_key("groups", ID, ID)
    return (
        str(GROUPS.read(store.read(key), "").to_pylist()[0]["state"]) if store.exists(key) else ""
    )


def test_a_group_is_posted_soon_after_a_notification(
    tmp_path: Path, listener: Listener, serve: Callable[..., Service]
) -> None:
    root = tmp_path / "store"
    fill(open_store(str(root)), tmp_path, without=(5,))
    service = serve(str(root), "--post", f"{listener.url}/group", "--interval-s", "3600")
    until(lambda: service.ask("/readyz")[0] == 200)
    assert state(root) == "collecting"
    assert service.metric('contimg_watch_groups{state="waiting"}') == 1
    assert service.metric("contimg_watch_oldest_waiting_seconds") < 60
    fill(open_store(str(root)), tmp_path)
    assert service.ask("/notify", b'{"key": "whatever"}') == (202, "looking\n")
    until(lambda: listener.heard)
    event = {
        "group": ID,
        "attempt": 1,
        "run": f"{ID}-a1",
        "name": f"contimg-{ID}-a1",
        "store": str(root),
    }
    assert listener.heard == [event]
    until(lambda: state(root) == "pending")
    until(lambda: service.metric('contimg_watch_posts_total{result="ok"}') == 1)
    assert service.metric("contimg_watch_records_total") == 1
    assert service.metric("contimg_watch_notifications_total") == 1
    assert service.metric("contimg_watch_last_success_timestamp_seconds") == pytest.approx(
        time.time(), abs=30
    )
    assert service.stop() == Exit.TERMINATED


def test_notifications_in_a_flood_are_one_look_a_second(
    tmp_path: Path, serve: Callable[..., Service]
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    service = serve(str(root), "--interval-s", "3600")
    until(lambda: service.ask("/readyz")[0] == 200)
    start = time.monotonic()
    for _ in range(100):
        service.ask("/notify", b"")
    passes = service.metric('contimg_watch_passes_total{result="ok"}')
    assert passes <= 3 + (time.monotonic() - start)


def test_an_event_source_that_is_down_is_tried_again(
    tmp_path: Path, listener: Listener, serve: Callable[..., Service]
) -> None:
    root = tmp_path / "store"
    fill(open_store(str(root)), tmp_path)
    listener.code = 503
    service = serve(str(root), "--post", f"{listener.url}/group", "--interval-s", "0.2")
    until(lambda: "The event was refused with HTTP 503" in service.said())
    until(lambda: service.metric("contimg_watch_unposted") == 1)
    until(lambda: service.ask("/readyz")[0] == 200)
    listener.code = 200
    until(lambda: listener.heard)
    until(lambda: service.metric("contimg_watch_unposted") == 0)
    time.sleep(0.6)
    assert len(listener.heard) == 1


def test_killed_between_the_put_and_the_post_the_sweep_posts_it(
    tmp_path: Path, listener: Listener, serve: Callable[..., Service]
) -> None:
    root = tmp_path / "store"
    fill(open_store(str(root)), tmp_path)
    listener.code = 503
    service = serve(str(root), "--post", f"{listener.url}/group", "--interval-s", "0.2")
    until(lambda: "HTTP 503" in service.said())
    service.process.kill()
    service.process.wait(10)
    listener.code = 200
    again = serve(str(root), "--post", f"{listener.url}/group", "--interval-s", "0.2")
    until(lambda: again.metric('contimg_watch_groups{state="recorded"}') == 1)
    assert listener.heard == []
    words = [
        "--store",
        str(root),
        "--post",
        f"{listener.url}/group",
        "--workflows",
        "none",
        "--grace-s",
        "0",
        "--days",
        "0",
    ]
    done = subprocess.run(
        [BIN / "contimg", "sweep", *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["posted"] == [f"{ID}-a1"]
    assert [one["run"] for one in listener.heard] == [f"{ID}-a1"]


def test_a_store_that_is_down_at_first_is_waited_for(
    moto_root: str, s3_environment: pytest.MonkeyPatch, serve: Callable[..., Service]
) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3_environment.setenv("AWS_MAX_ATTEMPTS", "1")
    service = serve(moto_root, "--interval-s", "0.2")
    until(lambda: "expected an answer from S3" in service.said(), 60)
    until(lambda: "probed" not in service.ask("/readyz")[1])
    assert service.ask("/readyz") == (503, "the store does not answer; the log has the reason\n")
    assert service.ask("/healthz")[0] == 200
    assert service.process.poll() is None
    until(lambda: service.metric('contimg_watch_passes_total{result="failed"}') >= 1)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://no-such-bucket/x", "expected a bucket no-such-bucket, found NoSuchBucket"),
        ("/nowhere/at/all", "/nowhere/at/all: expected the directory of a store, found none"),
    ],
)
def test_a_store_that_is_not_there_ends_it(
    moto_root: str, uri: str, words: str, serve: Callable[..., Service]
) -> None:
    assert moto_root
    service = serve(uri)
    assert service.process.wait(30) == Exit.USAGE
    assert words in service.said()
    folder = subprocess.run(
        [BIN / "contimg-watch", "--store", uri],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (folder.returncode, words in folder.stderr) == (Exit.USAGE, True)
    assert not Path("/nowhere").exists()


def test_wrong_credentials_end_it(
    rclone_root: str, s3_environment: pytest.MonkeyPatch, serve: Callable[..., Service]
) -> None:
    s3_environment.setenv("AWS_SECRET_ACCESS_KEY", "another")
    service = serve(rclone_root)
    assert service.process.wait(30) == Exit.USAGE
    assert "expected credentials that S3 accepts" in service.said()


def test_a_store_without_working_conditional_puts_ends_it(
    rclone_root: str, serve: Callable[..., Service]
) -> None:
    open_store(rclone_root).put("k", b"")
    service = serve(rclone_root)
    assert service.process.wait(60) == Exit.USAGE
    assert "concurrent conditional puts won" in service.said()


def test_a_port_that_is_taken(
    tmp_path: Path, listener: Listener, serve: Callable[..., Service]
) -> None:
    service = serve(str(tmp_path), "--port", str(listener.port))
    assert service.process.wait(30) == Exit.USAGE
    assert f"127.0.0.1:{listener.port}: The service cannot listen at this address" in service.said()


def test_one_pass_posts_too_and_fails_when_nobody_listens(
    tmp_path: Path, listener: Listener
) -> None:
    root = tmp_path / "store"
    fill(open_store(str(root)), tmp_path)
    argv = [BIN / "contimg-watch", "--store", str(root), "--size", "0", "--post"]
    listener.code = 500
    start = time.monotonic()
    done = subprocess.run(
        [*argv, f"{listener.url}/group"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == Exit.STORE_UNREACHABLE
    assert "refused with HTTP 500" in done.stderr
    assert 7 < time.monotonic() - start < 30, "tried again after 1, 2 and 4 s"


# The parts


def test_an_unclear_question_is_answered_shortly() -> None:
    now = [0.0]
    server = listen("127.0.0.1", 0, Pulse(30, lambda: now[0]), Metrics())
    asker = Service.__new__(Service)
    asker.url = f"http://127.0.0.1:{server.server_port}"
    assert asker.ask("/")[0] == 404
    assert asker.ask("/healthz/x")[0] == 404
    assert asker.ask("/other", b"x")[0] == 404
    for too_long in ((1 << 20) + 1, 30 << 20):
        assert asker.ask("/notify", bytes(too_long)) == (413, "a notification is short\n")
    assert asker.ask("/readyz") == (503, "the store was not probed yet\n")
    server.pulse.unready = ""
    assert asker.ask("/readyz") == asker.ask("/healthz") == (200, "ok\n")
    now[0] = 31
    assert asker.ask("/healthz") == (503, "no pass began for 31 s\n")
    assert asker.ask("/readyz")[0] == 503
    server.pulse.beat()
    assert asker.ask("/healthz")[0] == 200
    assert "process_resident_memory_bytes" in asker.ask("/metrics")[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/group", "http://no-such-host.invalid/group"])
def test_nobody_at_an_address_is_the_world_s_fault(url: str) -> None:
    with pytest.raises(StoreError, match=re.escape(url)):
        post(url, {}, timeout_s=2)


def test_options_of_the_service_are_checked() -> None:
    assert ServiceOptions(store="x").post is None
    for wrong in ({"post": "group"}, {"port": 70000}, {"stall_s": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ServiceOptions(store="x", **wrong)  # type: ignore[arg-type]


def test_a_record_that_cannot_be_read_is_named_and_stops_nothing(tmp_path: Path) -> None:
    root = tmp_path / "store"
    fill(open_store(str(root)), tmp_path)
    open_store(str(root)).put("groups/20200101t000000-a1.json", b"{}")
    argv = [BIN / "contimg-watch", "--store", str(root), "--size", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["written"] == [f"{ID}-a1"]
    assert "groups/20200101t000000-a1.json is not a group record" in done.stderr
