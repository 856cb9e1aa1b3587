"""A small HTTP server that records requests: a webhook, or the Kubernetes API; and two stores."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/radio/workflows"


class Listener:
    """One server on a port of its own."""

    def __init__(self, taken: Callable[[dict[str, Any]], object] = lambda _body: None) -> None:
        self.heard: list[dict[str, Any]] = []
        """Bodies of POSTs that were taken."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Paths of GETs with their headers."""
        self.code = 200
        """The status of the answer to every POST."""
        self.refused = 0
        """POSTs that were answered with another status than 200."""
        self.pages: dict[str, tuple[int, Any]] = {}
        """Status and JSON by path with its query; anything else is 404."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.code == 200:
                    outer.heard.append(body)
                    taken(body)
                else:
                    outer.refused += 1
                self._say(outer.code, {})

            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                self._say(*outer.pages.get(self.path, (404, {"reason": "NotFound"})))

            def log_message(self, *_: object) -> None:
                """Log nothing."""

            def _say(self, code: int, answer: Any) -> None:
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture(params=["directory", "moto"])
def any_root(request: pytest.FixtureRequest) -> str:
    """The root of an empty store, in a directory and on S3."""
    if request.param == "directory":
        return str(request.getfixturevalue("tmp_path") / "store")
    root: str = request.getfixturevalue("moto_root")
    return root


def serve_workflows(listener: Listener, *workflows: dict[str, Any]) -> None:
    """Let a listener be the Kubernetes API of namespace `radio`."""
    items = [{"metadata": one["metadata"]} for one in workflows]
    # Of nothing Kubernetes makes null, not an empty list.
    listener.pages[f"{WORKFLOWS}?limit=500"] = (200, {"items": items or None, "metadata": {}})
    for one in workflows:
        listener.pages[f"{WORKFLOWS}/{one['metadata']['name']}"] = (200, one)
