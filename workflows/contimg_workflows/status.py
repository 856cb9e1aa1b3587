"""``contimg status``: what ran, how long it took and why it failed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from contimg.runtime.console import Console
from contimg.runtime.errors import ContimgError
from contimg_runs.argo import no_such_run
from contimg_runs.state import RunState, Status
from contimg_workflows.arguments import service_of
from contimg_workflows.display import console_on, summary_table, task_table
from contimg_workflows.options import StatusOptions
from contimg_workflows.service import Service

BAD = {Status.FAILED, Status.WAITING, Status.STOPPED, Status.INTERRUPTED}


def run(options: StatusOptions, _console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Print the states of all workflows, or of one with its tasks."""
    service = service_of("contimg status", options, env)
    states = [service.state(options.name)] if options.name else service.states()
    if not states:
        raise no_such_run(service.place, None, ())
    console = console_on(sys.stdout)
    console.print(summary_table(states))
    for state in states:
        if options.name:
            console.print(task_table(state))
        for line in failure_lines(service, state, options.lines):
            console.print(line, markup=False, highlight=False)
    return {}


def failure_lines(service: Service, state: RunState, count: int) -> list[str]:
    """Return the last lines of the log of each task that failed or may fail."""
    lines: list[str] = []
    for name, task in state.tasks.items():
        if not (task.tries and task.status in BAD and count):
            continue
        last = len(task.tries) - 1
        lines.append(f"\n{state.name} {name}: {task.reason}")
        lines.append(f"{service.source(state, name, last)} ends:")
        try:
            tail = list(deque(service.lines(state, name, last), maxlen=count))
        except ContimgError as error:
            tail = [f"({error})"]
        lines += [f"  {line}" for line in tail]
    return lines
