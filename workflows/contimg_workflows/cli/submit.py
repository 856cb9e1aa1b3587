"""``contimg submit``: let a pipeline run, on the local engine or on Argo, and return."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from contimg.runtime.contract import command
from contimg.runtime.store import open_store
from contimg_workflows.cli.engines import EngineOptions, engine_of, service_of
from contimg_workflows.cli.run import FAILED
from contimg_workflows.cli.words import Settings, flagged, joined
from contimg_workflows.display import why
from contimg_workflows.service import patiently
from contimg_workflows.state import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from contimg.runtime.console import Console
    from contimg_workflows.service import Service
    from contimg_workflows.state import RunState

PREFIX = "contimg-"
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own for made-up names: no words come of them."""
TICK_S = 1.0
MOVING = {Status.PENDING, Status.RUNNING}


class SubmitOptions(EngineOptions):
    """Let a pipeline or a stage run by its template, and return; contimg status and contimg logs tell how it goes."""

    pipeline: str
    """Name of a pipeline or a stage: process-group, epoch, reprocess, backfill, image …; may stand without its flag."""
    set: Settings = ()
    """STAGE.OPTION=VALUE, or NAME=VALUE of a parameter of the pipeline's own, such as group=ID; may be given again and again."""
    wait: bool = False
    """Return when it has ended; exit 1 if it failed."""


def main(argv: Sequence[str]) -> int:
    """Run ``contimg submit PIPELINE``."""
    ended: list[RunState] = []

    def work(options: SubmitOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
        service = service_of("contimg submit", options, env)
        name = start(service, options.pipeline, options.set, given_store(options, env))
        return submitted(service, name, console, ended, wait=options.wait)

    code = command(
        "contimg submit", SubmitOptions, work, joined(flagged(argv, SubmitOptions, "--pipeline"))
    )
    return code or code_of(ended)


def start(service: Service, pipeline: str, settings: Sequence[str], own: Mapping[str, str]) -> str:
    """Check what is asked for, submit it and return the workflow's name.

    Raises
    ------
    UsageError
        If there is no such pipeline, parameter or value, or the workflow is there already.
    """
    from contimg_workflows.arguments import named, settled, typed

    template = PREFIX + pipeline.removeprefix(PREFIX)
    parameters = service.parameters(template)
    given = {**named(settings, [one.name for one in parameters]), **own}
    values = settled(template, parameters, given)
    typed(template, given)
    name = workflow_name(template, values)
    service.submit(template, name, given)
    return name


def workflow_name(template: str, values: Mapping[str, str]) -> str:
    """Return the name of a workflow: of an attempt at a group the one that it can only have once, else a new one."""
    group = values.get("group", "")
    plain = group.isalnum() and group.islower()
    if template == f"{PREFIX}process-group" and plain:
        return f"{PREFIX}{group}-a{values['attempt']}"
    new = "".join(secrets.choice(LETTERS) for _ in range(5))
    return "-".join([template, *([group] if plain else []), new])


def given_store(options: EngineOptions, env: Mapping[str, str]) -> dict[str, str]:
    """Return the store as an argument, absolute if it is a folder; on Argo it may be left to the chart."""
    if options.store is None:
        return {}
    return {
        "store": open_store(options.store).root
        if engine_of(options, env) == "local"
        else options.store.rstrip("/")
    }


def submitted(
    service: Service, name: str, console: Console, ended: list[RunState], *, wait: bool
) -> dict[str, Any]:
    """Say what was submitted, and wait for its end if that is wanted."""
    console.log.info("submitted %s to %s; contimg logs %s --follow", name, service.place, name)
    answer: dict[str, Any] = {"workflow": name, "place": service.place}
    if wait:
        while (state := patiently(service, name)).status in MOVING:
            time.sleep(TICK_S)
        ended.append(state)
        answer |= {"status": state.status.value, "reason": why(state)}
    return answer


def code_of(ended: Collection[RunState]) -> int:
    """Return the exit code of a command that waited."""
    return FAILED if any(state.status is not Status.DONE for state in ended) else 0
