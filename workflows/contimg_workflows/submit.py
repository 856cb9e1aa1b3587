"""``contimg submit`` and ``contimg reprocess``: start a pipeline on either engine, and return."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from contimg.records.groups import GROUPS, list_records
from contimg.records.runs import FailureCause, failure_cause
from contimg.runtime.console import Console
from contimg.runtime.errors import UsageError, list_names
from contimg.runtime.store import open_store
from contimg_runs.argo import EngineError
from contimg_runs.pipelines import PIPELINES, find_pipeline
from contimg_runs.resolve import read_settings
from contimg_runs.state import GOOD, Status, TaskState
from contimg_workflows import forms
from contimg_workflows.arguments import (
    Service,
    poll_until_answered,
    service_of,
    template_arguments,
)
from contimg_workflows.display import failure_reason
from contimg_workflows.local import LocalService
from contimg_workflows.options import ReprocessOptions, SubmitOptions

FAILED = 1
"""Exit code when a workflow failed; its own code and reason are in the summary."""
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Those of Kubernetes' generated names, which form no words."""
OPEN = {Status.PENDING, Status.RUNNING}
POLL_S = 1.0
BEGIN = "begin"
"""The task that claims the next attempt."""
BEGIN_POLL_S = 0.5
BEGIN_TIMEOUT_S = 60.0
"""How long to wait for the number of the next attempt."""
MAX_LISTED_IDS = 20


def run(
    options: SubmitOptions | ReprocessOptions, console: Console, env: Mapping[str, str]
) -> dict[str, Any]:
    """Start a pipeline or a stage, or the next attempt at a group; wait for it if asked to."""
    if isinstance(options, ReprocessOptions):
        service, pipeline = service_of("contimg reprocess", options, env), forms.REPROCESS
        own = check_reprocess(options, service)
    else:
        service, pipeline = service_of("contimg submit", options, env), options.pipeline
        own = {}
    template = forms.PREFIX + pipeline.removeprefix(forms.PREFIX)
    form, is_local = service.form(template), isinstance(service, LocalService)
    if options.store is not None and "store" in form:  # on Argo the chart may know it
        own["store"] = open_store(options.store).root if is_local else options.store.rstrip("/")
    given = template_arguments(template, form, options, own, env if is_local else None)
    name = workflow_name(template, {key: one.default or "" for key, one in form.items()} | given)
    service.submit(template, name, given)
    answer: dict[str, Any] = {"workflow": name, "place": service.place}
    if isinstance(options, ReprocessOptions):
        answer["attempt"] = wait_for_attempt(service, name)
    console.log.info("submitted %s to %s; contimg logs %s --follow", name, service.place, name)
    if options.wait:
        while (state := poll_until_answered(service, name)).status in OPEN:
            time.sleep(POLL_S)
        answer |= {"status": state.status.value, "reason": failure_reason(state)}
        if state.status is not Status.DONE:
            answer["exit"] = FAILED
    return answer


def check_reprocess(options: ReprocessOptions, service: Service) -> dict[str, str]:
    """Return the group and the first stage as arguments; UsageError if that cannot be run again."""
    pipeline = find_pipeline(forms.DRIVERS[forms.REPROCESS])
    first = pipeline.step(options.from_ or pipeline.order[0]).stage
    for stage in read_settings(options.set)[0]:
        if stage in pipeline.order and stage not in pipeline.after(first):
            why = f"--from {first} reuses the artifact of {stage}"
            problem = f"The setting would have no effect: {why}."
            raise UsageError(f"--set {stage}", problem, f"Say --from {stage}, or leave it out.")
    if isinstance(service, LocalService):
        # On Argo the first task looks, because the store may not be reachable from here.
        if options.store is None:
            raise UsageError("contimg reprocess", "--store is required.", "Name the group's store.")
        store = open_store(options.store)
        if not any(list_records(store, f"{options.group}-a")):
            ids = sorted({one.group for one in list_records(store)})
            there = list_names(ids, MAX_LISTED_IDS) or "none"
            problem = f"There is no record of group {options.group}; there are {there}."
            remedy = "Correct the id, or run contimg-watch."
            raise UsageError(f"{store.root}/{GROUPS}", problem, remedy)
    return {pipeline.subject: options.group, "from": first}


def workflow_name(template: str, values: Mapping[str, str]) -> str:
    """Return a workflow's name: for an attempt its only one, else a new one."""
    pipeline = forms.pipeline_of(template)
    subject = values.get(pipeline.subject, "") if pipeline else ""
    is_plain = subject.isalnum() and subject.islower()
    name = template.removeprefix(forms.PREFIX)
    if is_plain and name in PIPELINES and "attempt" in values:
        return f"{forms.PREFIX}{subject}-a{values['attempt']}"
    new = "".join(secrets.choice(LETTERS) for _ in range(5))
    return "-".join([template, *([subject] if is_plain else []), new])


def wait_for_attempt(service: Service, name: str) -> int | None:
    """Return the number of the attempt that a reprocessing has begun; None if it has to wait.

    Raises
    ------
    UsageError
        If it cannot begin, with the reason of the task that tried.
    EngineError
        If that was an infrastructure failure.
    """
    until = time.monotonic() + BEGIN_TIMEOUT_S
    while time.monotonic() < until:
        state = poll_until_answered(service, name)
        begin = state.tasks.get(BEGIN, TaskState())
        if begin.status in GOOD:
            return int(begin.outputs["attempt"])
        if begin.status is Status.FAILED or state.status not in OPEN:
            code = begin.tries[-1].exit if begin.tries else None
            is_refusal = failure_cause(code) is not FailureCause.INFRASTRUCTURE
            kind = UsageError if is_refusal else EngineError
            why = begin.reason or state.reason or f"The workflow is {state.status.value}"
            where = f"{service.place}: {name}: The next attempt did not begin"
            raise kind(where, f"{why.rstrip('.')}.", f"contimg logs {name} tells more.")
        time.sleep(BEGIN_POLL_S)
    return None
