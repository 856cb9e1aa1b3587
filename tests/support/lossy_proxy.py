"""An S3 server's proxy that spoils the answer of the first conditional write of each key."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>try again</Message></Error>"
DROPPED = {"content-length", "transfer-encoding", "connection"}


@contextmanager
def lossy_proxy(endpoint: str, fault: str) -> Iterator[str]:
    """Yield the proxy's address. `fault`: lost (the write is done, its answer is lost), conflict
    (nothing is done, 409), or late (another writer of the same bytes is first)."""
    spoiled: set[str] = set()

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

        def send(self, method: str, headers: dict[str, str], body: bytes) -> None:
            server = http.client.HTTPConnection(urlsplit(endpoint).netloc)
            server.request(method, self.path, body, headers)
            self.answer = server.getresponse()
            self.content = self.answer.read()

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            own = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            is_first = "If-None-Match" in own and self.path not in spoiled
            now = fault if is_first else ""
            spoiled.update([self.path] if is_first else [])
            if now == "conflict":
                self.reply(409, [("Content-Type", "application/xml")], CONFLICT)
                return
            if now == "late":
                self.send("PUT", {k: v for k, v in own.items() if "meta" not in k.lower()}, body)
            self.send(self.command, own, body)
            if now == "lost":
                self.close_connection = True
                self.connection.close()
                return
            self.reply(self.answer.status, self.answer.getheaders(), self.content)

        def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            is_head = self.command == "HEAD"
            length = (self.answer.getheader("Content-Length") or "0") if is_head else len(content)
            self.send_response_only(status)
            kept = [pair for pair in headers if pair[0].lower() not in DROPPED]
            for name, value in [*kept, ("Content-Length", str(length))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if is_head else content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = pass_on  # noqa: N815 - http.server's names

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
