"""watch as a service: it looks for ever, sooner when it is told of a new object, and tells how it is."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NoReturn

from contimg.runtime.errors import UsageError
from contimg_watch.metrics import Metrics
from contimg_watch.probe import probe
from contimg_watch.stage import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date
    from logging import Logger

    from contimg_watch.options import ServiceOptions

SOONEST_S = 1.0
"""Pause between two passes at least, however many notifications come, seconds."""
FULL_SHARE = 10
"""Between two looks at the whole store pass so many times the seconds that one takes; meanwhile only new days are looked at.

A notification may be about any day: the whole store is looked at, after as many seconds as the last time took.
"""
MOST_BODY = 1 << 20
"""Bytes of a notification that are read, and forgotten: the listing is the truth."""
MOST_REFUSED = 64 << 20
"""Bytes of a refused body that are read: who is cut off while it still sends hears of a broken connection, not of the reason."""
CHUNK = 1 << 16


class Pulse:
    """What the loop tells the server, and the server the loop."""

    def __init__(self, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.wake = threading.Event()
        self.unready = "the store was not probed yet"
        """Why nothing may rely on the service yet; empty: it may."""
        self._stall_s, self._clock = stall_s, clock
        self._beat = clock()

    def beat(self) -> None:
        """Begin a pass."""
        self._beat = self._clock()

    @property
    def dead(self) -> str:
        """Why the service ought to be started anew; empty: it lives."""
        age = self._clock() - self._beat
        return f"no pass began for {age:.0f} s" if age > self._stall_s else ""


def serve(options: ServiceOptions, log: Logger) -> NoReturn:
    """Serve until told to stop."""
    pulse, metrics = Pulse(options.stall_s + options.interval_s), Metrics()
    server = listen(options.host, options.port, pulse, metrics)
    log.info("listening at http://%s:%d", options.host, server.server_port)
    loop = Loop(options, log, pulse, metrics)
    try:
        loop.forever()
    finally:
        server.shutdown()
        server.server_close()


class Loop:
    """The passes of a service."""

    def __init__(
        self, options: ServiceOptions, log: Logger, pulse: Pulse, metrics: Metrics
    ) -> None:
        self._pulse, self._metrics, self._log = pulse, metrics, log
        self._interval_s, self._timeout_s = options.interval_s, options.timeout_s
        self._watcher = Watcher(options, log, beat=pulse.beat)
        self._probed = False
        self._full_ended = -math.inf
        self._full_s = 0.0
        self._told = False
        """Whether a notification came since the last look at the whole store."""

    def forever(self) -> NoReturn:
        """Look, wait for the interval or a notification, look again."""
        while True:
            self._pulse.beat()
            start = time.monotonic()
            good = self._watcher.bear(self._look)
            self._metrics.passed(good=good, seconds=time.monotonic() - start, watcher=self._watcher)
            self._pulse.unready = (
                "" if good else "the store does not answer; the log has the reason"
            )
            self._rest(start)

    def _rest(self, start: float) -> None:
        self._told |= self._pulse.wake.wait(self._interval_s)
        # The event is cleared before the pause: a notification that comes within it counts for the pass after it, too.
        self._pulse.wake.clear()
        soonest = start + min(SOONEST_S, self._interval_s)
        if self._told:
            soonest = max(soonest, self._full_ended + self._full_s)
        time.sleep(max(0.0, soonest - time.monotonic()))

    def _look(self) -> None:
        if not self._probed:
            self._watcher.store.check()
            probe(self._watcher.store)
            self._probed = True
        start, now = time.monotonic(), datetime.now(UTC)
        if not self._told and start - self._full_ended < self._full_s * FULL_SHARE:
            self._watcher.once(now, _recent(now))
            return
        self._metrics.planned(self._watcher.once(now), now, self._timeout_s)
        self._told = False
        self._full_ended = time.monotonic()
        self._full_s = self._full_ended - start


def _recent(now: datetime) -> frozenset[date]:
    return frozenset({now.date(), (now - timedelta(days=1)).date()})


class Server(ThreadingHTTPServer):
    """HTTP in threads of its own."""

    daemon_threads = True

    def __init__(self, host: str, port: int, pulse: Pulse, metrics: Metrics) -> None:
        self.pulse, self.metrics = pulse, metrics
        super().__init__((host, port), Handler)
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """The four places."""

    timeout = 10
    server: Server

    def do_GET(self) -> None:
        """Say how it is."""
        pulse = self.server.pulse
        if self.path == "/metrics":
            self._answer(HTTPStatus.OK, *self.server.metrics.page())
        elif self.path == "/healthz":
            self._state(pulse.dead)
        elif self.path == "/readyz":
            self._state(pulse.dead or pulse.unready)
        else:
            self._answer(
                HTTPStatus.NOT_FOUND, b"there are /healthz, /readyz, /metrics and POST /notify\n"
            )

    def do_POST(self) -> None:
        """Be told of new objects; which ones does not matter."""
        said = self.headers.get("Content-Length", "0")
        length = int(said) if said.isdigit() else 0
        self._skip(min(length, MOST_REFUSED))
        if self.path.partition("?")[0] != "/notify":
            self._answer(HTTPStatus.NOT_FOUND, b"there is POST /notify\n")
        elif not said.isdigit() or length > MOST_BODY:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"a notification is short\n")
        else:
            self.server.metrics.notified()
            self.server.pulse.wake.set()
            self._answer(HTTPStatus.ACCEPTED, b"looking\n")

    def log_message(self, *_: object) -> None:
        """Be silent about every probe."""

    def _skip(self, left: int) -> None:
        while left and (chunk := self.rfile.read(min(left, CHUNK))):
            left -= len(chunk)

    def _state(self, wrong: str) -> None:
        code = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
        self._answer(code, f"{wrong or 'ok'}\n".encode())

    def _answer(
        self, code: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def listen(host: str, port: int, pulse: Pulse, metrics: Metrics) -> Server:
    """Answer to HTTP from now on.

    Raises
    ------
    UsageError
        If the port is taken or not ours to take.
    """
    try:
        return Server(host, port, pulse, metrics)
    except OSError as error:
        raise UsageError(
            f"{host}:{port}",
            f"expected an address to listen at, found {error!s}.",
            "Choose another --host or --port.",
        ) from error
