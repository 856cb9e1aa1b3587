"""``contimg status``: what ran, how long it took and why it failed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from contimg.runtime.console import Console
from contimg.runtime.errors import ContimgError
from contimg_runs.argo import no_such_run
from contimg_runs.state import Status
from contimg_workflows.arguments import service_of
from contimg_workflows.display import console_on, summary_table, task_table
from contimg_workflows.options import StatusOptions

BAD = {Status.FAILED, Status.WAITING, Status.STOPPED, Status.INTERRUPTED}


def run(options: StatusOptions, _console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Print the states of all workflows, or of one with its tasks; and how their logs end."""
    service = service_of("contimg status", options, env)
    states = [service.state(options.name)] if options.name else service.states()
    if not states:
        raise no_such_run(service.place, None, ())
    console = console_on(sys.stdout)
    console.print(summary_table(states))
    for state in states:
        if options.name:
            console.print(task_table(state))
        for name, task in state.tasks.items():
            if not (task.tries and task.status in BAD and options.lines):
                continue
            last = len(task.tries) - 1
            try:
                tail = list(deque(service.lines(state, name, last), maxlen=options.lines))
            except ContimgError as error:
                tail = [f"({error})"]
            lines = [f"\n{state.name} {name}: {task.reason}"]
            lines.append(f"{service.source(state, name, last)} ends:")
            for line in [*lines, *(f"  {one}" for one in tail)]:
                console.print(line, markup=False, highlight=False)
    return {}
