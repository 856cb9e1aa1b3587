"""Argo as a service: its server's REST API, through Hera's client."""

from __future__ import annotations

import json
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

import requests
from hera.exceptions import (
    AlreadyExists,
    BadRequest,
    Forbidden,
    HeraException,
    NotFound,
    Unauthorized,
    exception_from_server_response,
)
from hera.workflows import WorkflowsService
from hera.workflows.models import SubmitOpts, WorkflowSubmitRequest
from pydantic import ValidationError

from contimg.runtime.errors import UsageError
from contimg_workflows.argo_states import archived_log, node_of, run_state
from contimg_workflows.forms import Form, FormField
from contimg_workflows.logfile import readable_lines
from contimg_workflows.service import EngineError, no_such_run
from contimg_workflows.state import RunState, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hera.workflows.models import Workflow, WorkflowTemplate


PATIENCE_S = (10.0, 120.0)
"""To connect, and between two bytes."""
PAGE = "200"
"""Workflows that the server is asked for at a time."""
LEAN = "-items.status.storedTemplates,-items.status.storedWorkflowTemplateSpec"
"""Fields that are left out: three quarters of a workflow, 25 ms to read."""
VERSION = "app.kubernetes.io/version"
OURS = "contimg-"
WHERE = "Correct --argo or ARGO_SERVER."


class ArgoService:
    """The workflows of one namespace."""

    def __init__(self, url: str, namespace: str, token: str | None, *, verify: bool = True) -> None:
        self.place = f"{url}, namespace {namespace}"
        self._namespace = namespace
        self._session = _Session()
        # urljoin drops the last part of a path that does not end in a slash.
        host = url.rstrip("/") + "/"
        self._api = WorkflowsService(
            host=host, verify_ssl=verify, token=token, namespace=namespace, session=self._session
        )

    def form(self, template: str) -> Form:
        """Return the parameters of a WorkflowTemplate of the namespace."""
        with self._speaking(f"WorkflowTemplate {template}"):
            found = self._api.get_workflow_template(template)
        self._same_version(template, found)
        arguments = found.spec.arguments
        return {
            one.name: FormField(
                name=one.name,
                default=one.value,
                description=one.description or "",
                choices=None if one.enum is None else tuple(one.enum),
            )
            for one in (arguments.parameters if arguments else None) or ()
        }

    def submit(self, template: str, name: str, arguments: Mapping[str, str]) -> None:
        """Create the workflow."""
        options = SubmitOpts(
            name=name, parameters=[f"{key}={value}" for key, value in arguments.items()]
        )
        request = WorkflowSubmitRequest(
            namespace=self._namespace,
            resource_kind="WorkflowTemplate",
            resource_name=template,
            submit_options=options,
        )
        with self._speaking(f"workflow {name} of WorkflowTemplate {template}"):
            self._api.submit_workflow(request)

    def states(self) -> list[RunState]:
        """List the workflows that were made from our templates."""
        found: list[Workflow] = []
        more: str | None = None
        while more != "":
            with self._speaking("its workflows"):
                page = self._api.list_workflows(limit=PAGE, continue_=more, fields=LEAN)
            found += page.items or []
            more = (page.metadata.continue_ if page.metadata else None) or ""
        states = [run_state(workflow) for workflow in found if _template(workflow).startswith(OURS)]
        # Of those at work the whole account, for what they have yet to do.
        whole = [
            self._whole(state) if state.status is Status.RUNNING else state for state in states
        ]
        return sorted(whole, key=lambda state: state.started)

    def state(self, name: str) -> RunState:
        """Read one workflow."""
        return run_state(self._workflow(name))

    def source(self, state: RunState, task: str, number: int) -> str:
        """Return the pod's name."""
        return f"pod {state.tasks[task].tries[number].log}"

    def lines(
        self, state: RunState, task: str, number: int, *, follow: bool = False
    ) -> Iterator[str]:
        """Read the log from its pod, or from where Argo keeps the logs of pods that have ended."""
        pod = state.tasks[task].tries[number].log
        workflow = self._workflow(state.name)
        node = node_of(workflow, pod)
        if node is not None and archived_log(node):
            yield from readable_lines(self._archived(workflow, node.id))
        else:
            yield from readable_lines(self._stream(state.name, pod, follow=follow))

    # HTTP

    def _workflow(self, name: str) -> Workflow:
        try:
            return self._read(name)
        except _AbsentError as error:
            raise no_such_run(self.place, name, [state.name for state in self.states()]) from error

    def _whole(self, state: RunState) -> RunState:
        try:
            return run_state(self._read(state.name))
        except _AbsentError:  # removed since it was listed
            return state

    def _read(self, name: str) -> Workflow:
        with self._speaking(f"workflow {name}"):
            return self._api.get_workflow(name)

    def _archived(self, workflow: Workflow, node: str) -> Iterator[str]:
        name = workflow.metadata.name or ""
        folder = f"artifact-files/{self._namespace}/workflows"
        path = f"{folder}/{quote(name)}/{quote(node)}/outputs/main-logs"
        with self._answer(path, {}) as answer:
            yield from answer.content.decode(errors="replace").splitlines()

    def _stream(self, workflow: str, pod: str, *, follow: bool) -> Iterator[str]:
        """Yield what a pod writes; Hera reads one entry only, the server sends one a line."""
        path = f"api/v1/workflows/{self._namespace}/{workflow}/log"
        params = {
            "podName": pod,
            "logOptions.container": "main",
            "logOptions.follow": str(follow).lower(),
        }
        # A stage may say nothing for an hour.
        with self._answer(path, params, None if follow else PATIENCE_S[1]) as answer:
            for line in answer.iter_lines():
                entry = json.loads(line.removeprefix(b"data: ")) if line else {}
                if "error" in entry:
                    yield f"({entry['error'].get('message', 'no log')})"
                elif "result" in entry:
                    yield str(entry["result"].get("content", ""))

    @contextmanager
    def _answer(
        self, path: str, params: Mapping[str, str], patience_s: float | None = PATIENCE_S[1]
    ) -> Iterator[requests.Response]:
        headers, url = {"Authorization": self._api.token}, urljoin(self._api.host, path)
        with self._speaking("a log"):
            answer = self._session.request(
                "get",
                url,
                params=dict(params),
                headers=headers,
                stream=True,
                verify=self._api.verify_ssl,
                timeout=(PATIENCE_S[0], patience_s),
            )
            if not answer.ok:
                found = _message(exception_from_server_response(answer))
                raise EngineError(
                    self.place,
                    f"expected a log, found {found}.",
                    "Its pod may be gone; the chart's archiveLogs keeps logs.",
                )
            with answer:
                yield answer

    def _same_version(self, name: str, template: WorkflowTemplate) -> None:
        mine = version("contimg")
        labels = template.metadata.labels if template.metadata else None
        theirs = (labels or {}).get(VERSION, "without a version")
        if theirs != mine:
            remedy = (
                f"Upgrade the chart to {mine}, or install this program in the version of the chart."
            )
            raise UsageError(
                f"{self.place}: WorkflowTemplate {name}",
                f"expected contimg {mine}, which this program is, found {theirs}.",
                remedy,
            )

    @contextmanager
    def _speaking(self, what: str) -> Iterator[None]:
        """Turn what Hera and HTTP raise into words that name the thing and the remedy."""
        place = f"{self.place}: {what}"
        try:
            yield
        except Unauthorized as error:
            raise UsageError(
                place,
                f"expected a token that the server knows, found {_message(error)}.",
                "Correct --token or ARGO_TOKEN.",
            ) from error
        except Forbidden as error:
            raise UsageError(
                place,
                f"expected a token that may do this, found {_message(error)}.",
                "Ask the operator for the role.",
            ) from error
        except NotFound as error:
            if _message(error).startswith(("<", "404 page")):
                raise EngineError(
                    place,
                    "expected an answer as the Argo Server gives it, found "
                    f"{_message(error)[:100]}.",
                    WHERE,
                ) from error
            remedy = "Correct the name or --namespace, or install the chart there."
            raise _AbsentError(
                place, f"expected to find it, found {_message(error)}.", remedy
            ) from error
        except AlreadyExists as error:
            remedy = (
                "contimg status shows it; contimg reprocess starts the next attempt at a group."
            )
            raise UsageError(
                place, "expected no workflow of that name, found one.", remedy
            ) from error
        except BadRequest as error:
            raise UsageError(
                place,
                f"expected a request that Argo takes, found {_message(error)}.",
                "Correct the arguments.",
            ) from error
        except HeraException as error:
            raise EngineError(
                place,
                f"expected an answer, found {_message(error)}.",
                "Look at the Argo Server's own log.",
            ) from error
        except (ValueError, KeyError, ValidationError) as error:
            raise EngineError(
                place,
                f"expected an answer as the Argo Server gives it, found {_first_line(error)}.",
                WHERE,
            ) from error
        except requests.RequestException as error:
            raise EngineError(
                place,
                f"expected an answer from the Argo Server, found {_cause(error)}.",
                f"{WHERE[:-1]}, or see whether the server runs.",
            ) from error


class _AbsentError(UsageError):
    """There is no such thing in the namespace."""


class _Session(requests.Session):
    """HTTP that does not wait for ever."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as requests has it
        kwargs.setdefault("timeout", PATIENCE_S)
        return super().request(*args, **kwargs)


def _template(workflow: Workflow) -> str:
    reference = workflow.spec.workflow_template_ref
    return (reference.name if reference else None) or ""


def _message(error: HeraException) -> str:
    """Return what the server said, without Hera's frame."""
    _, found, words = str(error).partition("with message: ")
    return (
        " ".join((words if found else str(error)).strip("`").split())[:500].rstrip(".")
        or f"status {error.status_code}"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _cause(error: Exception) -> str:
    """Return the innermost reason of a failed connection; the outer ones repeat the URL."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    words = str(reason or error)
    return words.partition(">: ")[2] or words.rpartition("): ")[2] or words
