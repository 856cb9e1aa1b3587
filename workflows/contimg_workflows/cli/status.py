"""``contimg status``: what ran, how long it took and why it failed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from pydantic import Field

from contimg.runtime.contract import command
from contimg.runtime.errors import ContimgError
from contimg_runs.argo import no_such_run
from contimg_workflows.cli.engines import EngineOptions, service_of
from contimg_workflows.cli.words import flagged
from contimg_workflows.display import stdout, summary, tasks
from contimg_workflows.state import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contimg.runtime.console import Console
    from contimg_workflows.service import Service
    from contimg_workflows.state import RunState

BAD = {Status.FAILED, Status.WAITING, Status.STOPPED, Status.INTERRUPTED}


class StatusOptions(EngineOptions):
    """Say what ran, how long it took and why it failed."""

    name: str | None = None
    """One workflow, with its tasks; may stand without its flag."""
    lines: int = Field(default=10, ge=0)
    """Lines of the log of each failed task."""


def main(argv: Sequence[str]) -> int:
    """Run ``contimg status``."""
    return command(
        "contimg status", StatusOptions, _work, flagged(argv, StatusOptions, "--name"), tell=False
    )


def _work(options: StatusOptions, _console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    service = service_of("contimg status", options, env)
    states = [service.state(options.name)] if options.name else service.states()
    if not states:
        raise no_such_run(service.place, None, ())
    console = stdout()
    console.print(summary(states))
    for state in states:
        if options.name:
            console.print(tasks(state))
        for said in _failures(service, state, options.lines):
            console.print(said, markup=False, highlight=False)
    return {}


def _failures(service: Service, state: RunState, lines: int) -> list[str]:
    """Return the last lines of the log of each task that failed or may fail."""
    said: list[str] = []
    for name, task in state.tasks.items():
        if task.tries and task.status in BAD and lines:
            last = len(task.tries) - 1
            said.append(
                f"\n{state.name} {name}: {task.reason}\n{service.source(state, name, last)} ends:"
            )
            said += [f"  {line}" for line in _tail(service, state, name, last, lines)]
    return said


def _tail(service: Service, state: RunState, task: str, number: int, lines: int) -> Sequence[str]:
    """Return the last lines of a log; why they cannot be had, if they cannot."""
    try:
        return list(deque(service.lines(state, task, number), maxlen=lines))
    except ContimgError as error:
        return [f"({error})"]
