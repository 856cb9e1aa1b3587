"""watch as a service: pass after pass, sooner after a notification, with health and metrics."""

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging import Logger
from typing import NoReturn

from contimg.runtime.errors import UsageError
from contimg_watch.metrics import Metrics
from contimg_watch.options import ServiceOptions
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
"""Of a refused body that is read; a client that is cut off while it sends would not see the
reason."""
CHUNK_BYTES = 1 << 16


class Pulse:
    """What the loop and the HTTP server tell each other."""

    def __init__(self, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.wake = threading.Event()
        self.unready = "the store was not probed yet"
        """Why the service is not ready; empty: it is."""
        self._stall_s, self._clock = stall_s, clock
        self._beat = clock()

    def beat(self) -> None:
        """Note that the loop is alive."""
        self._beat = self._clock()

    @property
    def dead(self) -> str:
        """Why the service must be restarted; empty: it is alive."""
        age = self._clock() - self._beat
        return f"no pass began for {age:.0f} s" if age > self._stall_s else ""


def serve(options: ServiceOptions, log: Logger) -> NoReturn:
    """Serve until stopped."""
    pulse, metrics = Pulse(options.stall_s + options.interval_s), Metrics()
    server = listen(options.host, options.port, pulse, metrics)
    log.info("listening at http://%s:%d", options.host, server.server_port)
    try:
        Loop(options, log, pulse, metrics).run_forever()
    finally:
        server.shutdown()
        server.server_close()


class Loop:
    """The passes of a service."""

    def __init__(
        self, options: ServiceOptions, log: Logger, pulse: Pulse, metrics: Metrics
    ) -> None:
        self._pulse, self._metrics = pulse, metrics
        self._interval_s, self._timeout_s = options.interval_s, options.timeout_s
        self._watcher = Watcher(options, log, beat=pulse.beat)
        self._is_probed = False
        self._full_ended_s, self._full_took_s = -math.inf, 0.0
        """Of the last pass over the whole store: its end by the monotonic clock, its duration."""
        self._is_notified = False
        """Whether a notification came since the last pass over the whole store."""

    def run_forever(self) -> NoReturn:
        """Run a pass, wait for the interval or a notification, and so on."""
        while True:
            self._pulse.beat()
            start = time.monotonic()
            good = self._watcher.try_or_log(self._run_pass)
            seconds = time.monotonic() - start
            self._metrics.count_pass(good=good, seconds=seconds, watcher=self._watcher)
            problem = "the store does not answer; the log has the reason"
            self._pulse.unready = "" if good else problem
            self._is_notified |= self._pulse.wake.wait(self._interval_s)
            # Cleared before the pause: a notification within it counts for the pass after the next
            # one, too.
            self._pulse.wake.clear()
            soonest = start + min(MIN_PAUSE_S, self._interval_s)
            if self._is_notified:
                soonest = max(soonest, self._full_ended_s + self._full_took_s)
            time.sleep(max(0.0, soonest - time.monotonic()))

    def _run_pass(self) -> None:
        if not self._is_probed:
            self._watcher.store.check()
            probe(self._watcher.store)
            self._is_probed = True
        start, now = time.monotonic(), datetime.now(UTC)
        is_recent = start - self._full_ended_s < self._full_took_s * FULL_PASS_SPACING
        if is_recent and not self._is_notified:
            yesterday = (now - timedelta(days=1)).date()
            self._watcher.run_pass(now, frozenset({now.date(), yesterday}))
            return
        self._metrics.show_plan(self._watcher.run_pass(now), now, self._timeout_s)
        self._is_notified = False
        self._full_ended_s = time.monotonic()
        self._full_took_s = self._full_ended_s - start


class Server(ThreadingHTTPServer):
    """HTTP in threads of its own."""

    daemon_threads = True

    def __init__(self, host: str, port: int, pulse: Pulse, metrics: Metrics) -> None:
        self.pulse, self.metrics = pulse, metrics
        super().__init__((host, port), Handler)
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """The four paths."""

    timeout = 10
    server: Server

    def do_GET(self) -> None:
        """Answer health checks and Prometheus."""
        pulse = self.server.pulse
        if self.path == "/metrics":
            self._answer(HTTPStatus.OK, *self.server.metrics.render())
        elif self.path in {"/healthz", "/readyz"}:
            problem = pulse.dead or (pulse.unready if self.path == "/readyz" else "")
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
            self.server.metrics.count_notification()
            self.server.pulse.wake.set()
            self._answer(HTTPStatus.ACCEPTED, b"looking\n")

    def log_message(self, *_: object) -> None:
        """Do not log requests: health checks come every few seconds."""

    def _answer(
        self, code: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def listen(host: str, port: int, pulse: Pulse, metrics: Metrics) -> Server:
    """Start the HTTP server; UsageError if it cannot listen at the address."""
    try:
        return Server(host, port, pulse, metrics)
    except OSError as error:
        problem = f"The service cannot listen at this address: {error}."
        raise UsageError(f"{host}:{port}", problem, "Choose another --host or --port.") from error
