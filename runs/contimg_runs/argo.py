"""Argo's workflows by HTTP: in a pod by the Kubernetes API, elsewhere by the Argo Server."""

import json
import ssl
import urllib.error
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from contimg.runtime.errors import ContimgError, Exit, UsageError
from contimg_runs.node_status import pod_name, read_nodes, read_run_state
from contimg_runs.options import ClusterOptions
from contimg_runs.state import RunState, Status, readable_lines

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the cluster's certificate and its namespace."""
TIMEOUT_S, LOG_TIMEOUT_S = 30.0, 120.0
JSON = "application/json"
COMPLETED_LABEL = "workflows.argoproj.io/completed"
VERSION_LABEL = "app.kubernetes.io/version"
NAMES_ONLY = f"{JSON};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,{JSON}"
"""Accept header for a list without specs and statuses; a whole workflow has up to a megabyte."""
OMITTED_FIELDS = "-items.status.storedTemplates,-items.status.storedWorkflowTemplateSpec"
"""Three quarters of a workflow in a list."""
MAX_MESSAGE_LENGTH = 500
PROBLEMS = {
    400: "{system} does not accept the request: {message}.",
    401: "{system} does not accept the token: {message}.",
    403: "The token lacks the permission: {message}.",
    404: "There is no such object: {message}.",
    409: "An object of this name already exists.",
}
"""What a request failed for, by HTTP status; other statuses are failures of the system."""


class EngineError(ContimgError):
    """The engine that runs workflows does not answer, or not as expected."""

    exit = Exit.STORE_UNREACHABLE


class _NotFoundError(UsageError):
    """There is no such object in the namespace."""


def no_such_run(place: str, name: str | None, there: Iterable[str]) -> UsageError:
    """Return the error that there is no run, or none of a name."""
    known = ", ".join(there)
    problem = f"There is no run {name}; there are {known}." if known else "There is no run here."
    return UsageError(place, problem, "Correct the name or the place; contimg status lists runs.")


@dataclass(frozen=True)
class KnownWorkflow:
    """A workflow of the namespace."""

    name: str
    uid: str
    completed: bool


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One parameter of a template."""

    name: str
    default: str | None = None
    """None: a value is required."""
    description: str = ""
    choices: tuple[str, ...] | None = None
    """None: any text."""


class ArgoClient:
    """The workflows of one namespace: requests, errors and paging for both of Argo's interfaces.

    `token` is the bearer token, or the file that holds it, which Kubernetes renews; `verify` may be
    the file with the cluster's own certificate.
    """

    system: ClassVar[str]
    workflows_path: ClassVar[str]
    page_query: ClassVar[Mapping[str, str]]
    """Query for a list, without the token of the page."""
    continue_parameter: ClassVar[str]
    remedies: ClassVar[Mapping[int, str]]
    """By HTTP status; 0: no answer."""
    plain_404_is_missing: ClassVar[bool]
    """Whether a 404 without JSON means that an object is missing, not that the URL is wrong."""

    def __init__(
        self, url: str, namespace: str, token: str | Path | None, *, verify: Path | bool = True
    ) -> None:
        self.place = f"{url}, namespace {namespace}"
        self.url, self.namespace, self._token = url.rstrip("/"), namespace, token or ""
        certificate = verify if isinstance(verify, Path) else None
        try:
            self._tls = ssl.create_default_context(cafile=certificate)
        except OSError as error:  # ssl.SSLError, too
            problem = f"The certificate {certificate} cannot be read: {error}."
            raise EngineError(self.place, problem, self.remedies[0]) from error
        if isinstance(verify, Path):
            # Python 3.13 asks for an extension that the certificates of many clusters lack.
            self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        elif not verify:
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._workflows = self.workflows_path.format(namespace)

    def list_workflows(self) -> list[KnownWorkflow]:
        """List all workflows of the namespace."""
        found = []
        for meta in (item["metadata"] for item in self._list(NAMES_ONLY)):
            completed = (meta.get("labels") or {}).get(COMPLETED_LABEL) == "true"
            found.append(KnownWorkflow(meta["name"], meta["uid"], completed))
        return found

    def get_workflow(self, name: str) -> dict[str, Any] | None:
        """Return a workflow's JSON; None if it is gone."""
        try:
            return self._ask(f"workflow {name}", f"{self._workflows}/{quote(name, safe='')}")
        except _NotFoundError:
            return None

    def _list(self, accept: str = JSON) -> Iterator[dict[str, Any]]:
        after: str | None = ""
        while after is not None:
            query = {**self.page_query, **({self.continue_parameter: after} if after else {})}
            path = f"{self._workflows}?{urlencode(query)}"
            page = self._ask("the list of workflows", path, accept=accept)
            yield from page["items"] or ()  # an empty list comes as null
            after = (page.get("metadata") or {}).get("continue") or None

    def _ask(self, what: str, path: str, body: object = None, accept: str = JSON) -> dict[str, Any]:
        """Return the JSON answer to a GET, or to a POST of a body."""
        with self._explain_errors(what), self._open(path, body, accept, TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def _open(self, path: str, body: object, accept: str, timeout_s: float | None) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": accept, "Content-Type": JSON}
        request = Request(f"{self.url}/{path}", data, headers)  # noqa: S310 - http and https only
        token = self._token if isinstance(self._token, str) else self._token.read_text()
        if token := token.strip():  # `argo auth token` prints "Bearer …"
            scheme = "" if " " in token else "Bearer "
            request.add_unredirected_header("Authorization", f"{scheme}{token}")
        answer: HTTPResponse = urlopen(request, timeout=timeout_s, context=self._tls)  # noqa: S310
        return answer

    @contextmanager
    def _explain_errors(self, what: str, remedy: str = "") -> Iterator[None]:
        """Turn failed requests and unexpected answers into errors that name object and remedy."""
        where = f"{self.place}: {what}"
        try:
            yield
        except urllib.error.HTTPError as error:
            with error:
                raise self._explain_refusal(where, error, remedy) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", "") or error
            problem = f"{self.system} does not answer: {reason}."
            raise EngineError(where, problem, self.remedies[0]) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            line = str(error).partition("\n")[0][:200] or type(error).__name__
            problem = f"The answer is not one of {self.system}: {line}."
            raise EngineError(where, problem, self.remedies[0]) from error

    def _explain_refusal(
        self, where: str, error: urllib.error.HTTPError, remedy: str
    ) -> ContimgError:
        text = error.read().decode(errors="replace")
        try:
            document = json.loads(text)
            message = str(document.get("message") or "")
        except (ValueError, AttributeError):
            document, message = None, text
        message = " ".join(message.split())[:MAX_MESSAGE_LENGTH].rstrip(".")
        message = message or f"HTTP {error.code} {error.reason}"
        is_missing = error.code == HTTPStatus.NOT_FOUND
        is_wrong_url = is_missing and document is None and not self.plain_404_is_missing
        if error.code not in PROBLEMS or is_wrong_url:
            problem = f"{self.system} did not do this: {message}."
            return EngineError(where, problem, remedy or self.remedies[0])
        problem = PROBLEMS[error.code].format(system=self.system, message=message)
        remedy = self.remedies.get(error.code, self.remedies[0])
        return (_NotFoundError if is_missing else UsageError)(where, problem, remedy)


class KubernetesApi(ArgoClient):
    """Workflows by the Kubernetes API: get and list only."""

    system = "The Kubernetes API"
    workflows_path = "apis/argoproj.io/v1alpha1/namespaces/{}/workflows"
    page_query: ClassVar = {"limit": "500"}
    continue_parameter = "continue"
    plain_404_is_missing = True
    remedies: ClassVar = {
        0: "Check the API server and the NetworkPolicy.",
        401: "Give its service account a role with get and list of workflows.argoproj.io.",
        403: "Give its service account a role with get and list of workflows.argoproj.io.",
        404: "Install Argo Workflows in the namespace, or give --workflows none.",
    }


def find_kubernetes_api(
    env: Mapping[str, str], options: ClusterOptions, account: Path = ACCOUNT
) -> KubernetesApi | None:
    """Return the API at --api, else of the pod's cluster; None outside a pod with a token."""
    if options.api:
        if not options.namespace:
            raise UsageError("--api", "It needs --namespace beside it.", "Give both.")
        return KubernetesApi(options.api, options.namespace, None)
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT", "443")
    token, certificate = account / "token", account / "ca.crt"
    if not host or not token.is_file():
        return None
    namespace = options.namespace or (account / "namespace").read_text().strip()
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return KubernetesApi(url, namespace, token, verify=certificate)


class ArgoServer(ArgoClient):
    """Workflows of our templates by the Argo Server: submit, list, show, logs."""

    system = "The Argo Server"
    workflows_path = "api/v1/workflows/{}"
    page_query: ClassVar = {"listOptions.limit": "200", "fields": OMITTED_FIELDS}
    continue_parameter = "listOptions.continue"
    plain_404_is_missing = False
    remedies: ClassVar = {
        0: "Correct --argo or ARGO_SERVER, or see whether the server runs.",
        400: "Correct the arguments.",
        401: "Correct --token or ARGO_TOKEN.",
        403: "Ask the operator for the role.",
        404: "Correct the name or --namespace, or install the chart there.",
        409: "contimg status shows it; contimg reprocess starts the next attempt at a group.",
    }

    def form(self, template: str) -> dict[str, FormField]:
        """Return the parameters of a template; UsageError if it is of another version than this."""
        what, mine = f"WorkflowTemplate {template}", version("contimg")
        path = f"api/v1/workflow-templates/{self.namespace}/{quote(template, safe='')}"
        found = self._ask(what, path)
        with self._explain_errors(what):
            theirs = (found["metadata"].get("labels") or {}).get(VERSION_LABEL, "of no version")
            parameters = (found["spec"].get("arguments") or {}).get("parameters") or ()
        if theirs != mine:
            problem = f"The template is from contimg {theirs}, but this program is contimg {mine}."
            remedy = f"Upgrade the chart to {mine}, or install this program in the chart's version."
            raise UsageError(f"{self.place}: {what}", problem, remedy)
        return {
            one["name"]: FormField(
                name=one["name"],
                default=one.get("value"),
                description=one.get("description") or "",
                choices=tuple(one.get("enum") or ()) or None,
            )
            for one in parameters
        }

    def submit(self, template: str, name: str, arguments: Mapping[str, str]) -> None:
        """Create a workflow of a template; UsageError if the name is taken."""
        parameters = [f"{key}={value}" for key, value in arguments.items()]
        body = {
            "namespace": self.namespace,
            "resourceKind": "WorkflowTemplate",
            "resourceName": template,
            "submitOptions": {"name": name, "parameters": parameters},
        }
        what = f"workflow {name} of WorkflowTemplate {template}"
        self._ask(what, f"{self._workflows}/submit", body)

    def states(self) -> list[RunState]:
        """Return the states of all workflows of our templates, the earliest start first."""
        with self._explain_errors("the list of workflows"):
            all_states = [read_run_state(workflow) for workflow in self._list()]
        states = [state for state in all_states if state.pipeline.startswith("contimg-")]
        for number, state in enumerate(states):
            # The list leaves out the templates, from which the tasks to come are read.
            whole = self.get_workflow(state.name) if state.status is Status.RUNNING else None
            if whole is not None:
                states[number] = read_run_state(whole)
        return sorted(states, key=lambda state: state.started)

    def state(self, name: str) -> RunState:
        """Return the state of one workflow; UsageError if it does not exist."""
        with self._explain_errors(f"workflow {name}"):
            return read_run_state(self._require(name))

    def source(self, state: RunState, task: str, number: int) -> str:
        """Return where the log of a task's try is; tries count from 0."""
        return f"pod {state.tasks[task].tries[number].log}"

    def lines(
        self, state: RunState, task: str, number: int, *, follow: bool = False
    ) -> Iterator[str]:
        """Yield the readable log of a task's try, from its pod or from where Argo archived it."""
        pod = state.tasks[task].tries[number].log
        nodes = read_nodes(self._require(state.name)).values()
        pods = {pod_name(state.name, node): node for node in nodes if node["type"] == "Pod"}
        node = pods.get(pod, {})
        artifacts = (node.get("outputs") or {}).get("artifacts") or ()
        if any(one["name"] == "main-logs" for one in artifacts):
            folder = f"artifact-files/{self.namespace}/workflows/{quote(state.name)}"
            path = f"{folder}/{quote(node['id'])}/outputs/main-logs"
        else:
            options = {"podName": pod, "logOptions.container": "main"}
            query = urlencode({**options, "logOptions.follow": str(follow).lower()})
            path = f"{self._workflows}/{quote(state.name)}/log?{query}"
        yield from readable_lines(self._log_lines(path, follow=follow))

    def _log_lines(self, path: str, *, follow: bool) -> Iterator[str]:
        """Yield the lines of an archived log, or of a pod's, which come as JSON."""
        remedy = "Its pod may be gone; the chart's archiveLogs keeps logs."
        timeout_s = None if follow else LOG_TIMEOUT_S  # a stage may write nothing for an hour
        explained = self._explain_errors("a log", remedy)
        with explained, self._open(path, None, "*/*", timeout_s) as answer:
            for text in (line.decode(errors="replace").rstrip("\r\n") for line in answer):
                if path.startswith("artifact-files/"):
                    yield text
                elif text:
                    entry = json.loads(text.removeprefix("data: "))
                    if "error" in entry:
                        yield f"({entry['error'].get('message', 'no log')})"
                    elif "result" in entry:
                        yield str(entry["result"].get("content", ""))

    def _require(self, name: str) -> dict[str, Any]:
        found = self.get_workflow(name)
        if found is None:
            raise no_such_run(self.place, name, [state.name for state in self.states()])
        return found
