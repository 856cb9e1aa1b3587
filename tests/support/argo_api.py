"""An HTTP server that answers as the Argo Server does, as far as the client asks: templates,
submit, workflows, logs.

It proves what the client sends, not Argo: the tests marked `cluster` ask the real one.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

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
        handler = type("Handler", (_Handler,), {"known": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def submit(self, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        options = body["submitOptions"]
        pairs = [text.split("=", 1) for text in options.get("parameters", [])]
        ids = {"name": options["name"], "namespace": namespace, "uid": "u1"}
        arguments = {"parameters": [{"name": name, "value": value} for name, value in pairs]}
        template = {"name": body["resourceName"]}
        made = {
            "metadata": {**ids, "creationTimestamp": "2026-01-25T22:00:00Z"},
            "spec": {"arguments": arguments, "workflowTemplateRef": template},
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
        """Log nothing."""

    def _answer(self, body: Any) -> None:
        api, path = self.known, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(path.query).items()}
        api.requests.append((self.command, path.path, body))
        if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
            return self._fail(UNKNOWN, "Unauthorized")
        if api.forbidden:
            denied = 'Permission denied, you are not allowed to list workflows in namespace "sky".'
            return self._fail(DENIED, denied)
        match path.path.strip("/").split("/"):
            case ["api", "v1", "workflow-templates", _, name]:
                self._found("workflowtemplates", name, api.templates)
            case ["api", "v1", "workflows", namespace, "submit"]:
                name = body["submitOptions"]["name"]
                if name in api.workflows:
                    return self._fail(EXISTS, f'workflows.argoproj.io "{name}" already exists')
                self._json(200, api.submit(body, namespace))
            case ["api", "v1", "workflows", _]:
                # As Kubernetes does, but at most two, so that a client must ask again.
                first = int(query.get("listOptions.continue", 0))
                more = {"continue": str(first + 2)} if first + 2 < len(api.workflows) else {}
                items = list(api.workflows.values())[first : first + 2]
                self._json(200, {"metadata": more, "items": items or None})
            case ["api", "v1", "workflows", _, _, "log"]:
                # Argo says nothing, with status 200, of a pod that is not there.
                pod = query["podName"]
                lines = [{"content": line, "podName": pod} for line in api.logs.get(pod, [])]
                text = "".join(f"{json.dumps({'result': line})}\n" for line in lines)
                self._send(200, "application/json", text.encode())
            case ["api", "v1", "workflows", _, name]:
                self._found("workflows", name, api.workflows)
            case ["artifact-files", _, "workflows", _, node, "outputs", "main-logs"]:
                # 500: the artifact is named, but no longer in the bucket.
                text = api.archived.get(node, "Internal Server Error")
                self._send(200 if node in api.archived else 500, "text/plain", text.encode())
            case _:
                self._send(404, "text/plain", b"404 page not found")
        return None

    def _found(self, kind: str, name: str, among: dict[str, dict[str, Any]]) -> None:
        if name in among:
            self._json(200, among[name])
        else:
            self._fail(NOT_FOUND, f'{kind}.argoproj.io "{name}" not found')

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
