"""watch as a service: pass after pass, sooner after a notification, with health and metrics."""

import math
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging import Logger
from typing import NoReturn

import prometheus_client as prometheus

from contimg.astro.constants import DAY_S
from contimg.astro.coordinates import earth_orientation_end
from contimg.records.groups import UNIX_EPOCH_MJD
from contimg.runtime.errors import UsageError
from contimg_watch.options import ServiceOptions
from contimg_watch.plan import PlanState, WatchPlan
from contimg_watch.probe import probe
from contimg_watch.stage import Watcher

MIN_PAUSE_S = 1.0
"""Pause between two passes at least, however many notifications come."""
FULL_PASS_SPACING = 10
"""For this many times the seconds of a pass over the whole store, only new days are looked at.

A notification may be about any day: after one, the next pass over the whole store comes after as
many seconds as the last one took.
"""
MAX_BODY_BYTES = 1 << 20
"""Of a notification; its content is not used, since the listing decides."""
MAX_REFUSED_BYTES = 64 << 20
"""Of a refused body that is read; a client cut off while it sends would not see the reason."""
CHUNK_BYTES = 1 << 16
PLAIN_TEXT = "text/plain; charset=utf-8"
NAMESPACE = "contimg_watch"
"""Of the metrics."""
BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Of the durations of passes."""


def serve(options: ServiceOptions, log: Logger) -> NoReturn:
    """Serve until stopped: run a pass, wait for the interval or a notification, and so on."""
    watcher, metrics = Watcher(options, log), Metrics()
    server = Server(options, watcher, metrics)
    log.info("listening at http://%s:%d", options.host, server.server_port)
    loop = Loop(watcher, metrics, options.timeout_s)
    try:
        while True:
            start = watcher.alive_at_s = time.monotonic()
            good = watcher.try_or_log(loop.run_pass)
            metrics.count_pass(good=good, seconds=time.monotonic() - start, watcher=watcher)
            server.unready = "" if good else "the store does not answer; the log has the reason"
            loop.is_notified |= server.wake.wait(options.interval_s)
            # Cleared before the pause: a notification within it counts for the pass after the next
            # one, too.
            server.wake.clear()
            soonest = start + min(MIN_PAUSE_S, options.interval_s)
            if loop.is_notified:
                soonest = max(soonest, loop.full_ended_s + loop.full_took_s)
            time.sleep(max(0.0, soonest - time.monotonic()))
    finally:
        server.shutdown()
        server.server_close()


class Metrics:
    """The metrics of one service for Prometheus."""

    def __init__(self) -> None:
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        gauge = partial(prometheus.Gauge, namespace=NAMESPACE, registry=registry)
        counter = partial(prometheus.Counter, namespace=NAMESPACE, registry=registry)
        histogram = partial(prometheus.Histogram, namespace=NAMESPACE, registry=registry)
        self._passes = counter("passes", "Passes over the store, by result", ["result"])
        text = "Seconds of a pass over the store"
        self._seconds = histogram("pass_seconds", text, buckets=BUCKETS_S)
        text = "Unix time of the last pass that succeeded"
        self._success = gauge("last_success_timestamp_seconds", text)
        text = "Groups at the last pass over the whole store, by state"
        self._groups = gauge("groups", text, ["state"])
        self._quarantined = gauge("quarantined", "Objects that belong to no group")
        text = "Longest time since a subband came of a group that lacks some"
        self._oldest = gauge("oldest_waiting_seconds", text)
        self._records = counter("records", "Attempts recorded")
        text = "Attempts posted, and passes in which a post failed"
        self._posts = counter("posts", text, ["result"])
        self._unposted = gauge("unposted", "Attempts that are not posted yet")
        text = "Unix time at which the installed table of the Earth's orientation ends"
        orientation = gauge("earth_orientation_end_timestamp_seconds", text)
        orientation.set((earth_orientation_end() - UNIX_EPOCH_MJD) * DAY_S)
        self.notifications = counter("notifications", "Notifications of new objects")
        self._counted = (0, 0)
        for state in PlanState:
            self._groups.labels(state)
        for result in ("ok", "failed"):
            self._passes.labels(result)
            self._posts.labels(result)

    def count_pass(self, *, good: bool, seconds: float, watcher: Watcher) -> None:
        """Count a pass, and what the watcher recorded and posted since the last one."""
        self._passes.labels("ok" if good else "failed").inc()
        self._seconds.observe(seconds)
        if good:
            self._success.set_to_current_time()
        records, posts = len(watcher.written), len(watcher.posted)
        self._records.inc(records - self._counted[0])
        self._posts.labels("ok").inc(posts - self._counted[1])
        self._counted = (records, posts)
        if watcher.failure is not None:
            self._posts.labels("failed").inc()
        self._unposted.set(len(watcher.unposted))

    def show_plan(self, plan: WatchPlan, now: datetime, timeout_s: float) -> None:
        """Show what a pass over the whole store found."""
        for state in PlanState:
            self._groups.labels(state).set(sum(group.state is state for group in plan.groups))
        self._quarantined.set(len(plan.quarantined))
        untils = [group.until for group in plan.groups if group.state is PlanState.WAITING]
        oldest_s = (now - min(untils)).total_seconds() + timeout_s if untils else 0.0
        self._oldest.set(max(0.0, oldest_s))


@dataclass
class Loop:
    """The passes of a service: which look at the whole store, and which at new days only."""

    watcher: Watcher
    metrics: Metrics
    timeout_s: float
    is_probed: bool = False
    full_ended_s: float = -math.inf
    """End of the last pass over the whole store, by the monotonic clock."""
    full_took_s: float = 0.0
    is_notified: bool = False
    """Whether a notification came since the last pass over the whole store."""

    def run_pass(self) -> None:
        """Run a pass over the whole store, or over new days if the last whole one was recent."""
        if not self.is_probed:
            self.watcher.store.check()
            probe(self.watcher.store)
            self.is_probed = True
        start, now = time.monotonic(), datetime.now(UTC)
        is_recent = start - self.full_ended_s < self.full_took_s * FULL_PASS_SPACING
        if is_recent and not self.is_notified:
            yesterday = (now - timedelta(days=1)).date()
            self.watcher.run_pass(now, frozenset({now.date(), yesterday}))
            return
        self.metrics.show_plan(self.watcher.run_pass(now), now, self.timeout_s)
        self.is_notified = False
        self.full_ended_s = time.monotonic()
        self.full_took_s = self.full_ended_s - start


class Server(ThreadingHTTPServer):
    """HTTP in threads of its own; UsageError if it cannot listen at the address."""

    daemon_threads = True

    def __init__(self, options: ServiceOptions, watcher: Watcher, metrics: Metrics) -> None:
        self.watcher, self.metrics = watcher, metrics
        self.stall_s = options.stall_s + options.interval_s
        self.wake = threading.Event()
        """Set by a notification."""
        self.unready = "the store was not probed yet"
        """Why the service is not ready; empty: it is."""
        try:
            super().__init__((options.host, options.port), Handler)
        except OSError as error:
            problem = f"The service cannot listen at this address: {error}."
            remedy = "Choose another --host or --port."
            raise UsageError(f"{options.host}:{options.port}", problem, remedy) from error
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """The four paths."""

    timeout = 10
    server: Server

    def do_GET(self) -> None:
        """Answer health checks and Prometheus."""
        if self.path == "/metrics":
            text = prometheus.generate_latest(self.server.metrics.registry)
            kind = prometheus.exposition.CONTENT_TYPE_PLAIN_0_0_4
            self._answer(HTTPStatus.OK, text, kind)
        elif self.path in {"/healthz", "/readyz"}:
            problem = self.server.unready if self.path == "/readyz" else ""
            age_s = time.monotonic() - self.server.watcher.alive_at_s
            if age_s > self.server.stall_s:
                problem = f"no pass began for {age_s:.0f} s"
            code = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
            self._answer(code, f"{problem or 'ok'}\n".encode())
        else:
            text = b"there are /healthz, /readyz, /metrics and POST /notify\n"
            self._answer(HTTPStatus.NOT_FOUND, text)

    def do_POST(self) -> None:
        """Take a notification of new objects; its content is not used."""
        header = self.headers.get("Content-Length", "0")
        length = int(header) if header.isdigit() else 0
        left = min(length, MAX_REFUSED_BYTES)
        while left and (chunk := self.rfile.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
        if self.path.partition("?")[0] != "/notify":
            self._answer(HTTPStatus.NOT_FOUND, b"there is POST /notify\n")
        elif not header.isdigit() or length > MAX_BODY_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"a notification is short\n")
        else:
            self.server.metrics.notifications.inc()
            self.server.wake.set()
            self._answer(HTTPStatus.ACCEPTED, b"looking\n")

    def log_message(self, *_: object) -> None:
        """Do not log requests: health checks come every few seconds."""

    def _answer(self, code: HTTPStatus, body: bytes, kind: str = PLAIN_TEXT) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
