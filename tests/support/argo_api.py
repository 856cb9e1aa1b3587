"""An HTTP server that answers as the Argo Server does, as far as the client asks: templates,
submit, workflows, logs.

It proves the client's words, not Argo: the tests marked `cluster` ask the real one.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

NOT_FOUND, EXISTS, DENIED, UNKNOWN = (404, 5), (409, 6), (403, 7), (401, 16)
"""HTTP status and the code of gRPC that the gateway puts beside it."""


@dataclass
class ArgoApi:
    """What the server knows; tests change it while it runs."""

    templates: dict[str, dict[str, Any]] = field(default_factory=dict)
    workflows: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    """Lines by pod."""
    archived: dict[str, str] = field(default_factory=dict)
    """Text by node id."""
    token: str = ""
    """The token that is asked for; none if empty."""
    forbidden: bool = False
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path and body of all that was asked."""

    def __enter__(self) -> Self:
        api = self

        class Handler(_Handler):
            known = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def submit(self, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        options = body["submitOptions"]
        given = [
            dict(zip(("name", "value"), text.split("=", 1), strict=True))
            for text in options.get("parameters", [])
        ]
        made = {
            "metadata": {
                "name": options["name"],
                "namespace": namespace,
                "uid": "u1",
                "creationTimestamp": "2026-01-25T22:00:00Z",
            },
            "spec": {
                "arguments": {"parameters": given},
                "workflowTemplateRef": {"name": body["resourceName"]},
            },
            "status": {},
        }
        self.workflows[options["name"]] = made
        return made


class _Handler(BaseHTTPRequestHandler):
    known: ArgoApi

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, body: Any) -> None:
        api, path = self.known, urlsplit(self.path)
        api.requests.append((self.command, path.path, body))
        if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
            return self._fail(UNKNOWN, "Unauthorized")
        if api.forbidden:
            return self._fail(
                DENIED,
                'Permission denied, you are not allowed to list workflows in namespace "sky".',
            )
        match path.path.strip("/").split("/"):
            case ["api", "v1", "workflow-templates", _, name]:
                self._found(
                    api.templates.get(name), f'workflowtemplates.argoproj.io "{name}" not found'
                )
            case ["api", "v1", "workflows", namespace, "submit"]:
                if body["submitOptions"]["name"] in api.workflows:
                    return self._fail(
                        EXISTS,
                        f'workflows.argoproj.io "{body["submitOptions"]["name"]}" already exists',
                    )
                self._json(200, api.submit(body, namespace))
            case ["api", "v1", "workflows", _]:
                self._page(parse_qs(path.query))
            case ["api", "v1", "workflows", _, name, "log"]:
                self._log(parse_qs(path.query)["podName"][0])
            case ["api", "v1", "workflows", _, name]:
                self._found(api.workflows.get(name), f'workflows.argoproj.io "{name}" not found')
            case ["artifact-files", _, "workflows", _, node, "outputs", "main-logs"]:
                text = api.archived.get(node)
                # The artifact is named, but no longer in the bucket.
                self._send(
                    *(
                        (500, "text/plain", b"Internal Server Error")
                        if text is None
                        else (200, "text/plain", text.encode())
                    )
                )
            case _:
                self._send(404, "text/plain", b"404 page not found")
        return None

    def _page(self, query: dict[str, list[str]]) -> None:
        """Return a part of the workflows, as Kubernetes does: at most two, so that a client must
        ask again."""
        first = int(query.get("listOptions.continue", ["0"])[0] or 0)
        found = list(self.known.workflows.values())[first : first + 2]
        rest = str(first + 2) if first + 2 < len(self.known.workflows) else ""
        self._json(200, {"metadata": {"continue": rest} if rest else {}, "items": found or None})

    def _log(self, pod: str) -> None:
        # Argo says nothing, with status 200, of a pod that is not there.
        entries = [
            json.dumps({"result": {"content": line, "podName": pod}})
            for line in self.known.logs.get(pod, [])
        ]
        self._send(200, "application/json", "".join(f"{entry}\n" for entry in entries).encode())

    def _found(self, document: dict[str, Any] | None, otherwise: str) -> None:
        if document is None:
            self._fail(NOT_FOUND, otherwise)
        else:
            self._json(200, document)

    def _fail(self, code: tuple[int, int], message: str) -> None:
        self._json(code[0], {"code": code[1], "message": message})

    def _json(self, status: int, document: Any) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
