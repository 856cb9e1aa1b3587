"""``contimg logs``: what a workflow's tasks write, while it is written or afterwards."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contimg.runtime.console import Console
from contimg.runtime.errors import ContimgError, UsageError
from contimg_runs.state import RunState
from contimg_workflows.arguments import Service, poll_until_answered, service_of
from contimg_workflows.options import LogsOptions
from contimg_workflows.submit import OPEN

TICK_S = 0.2
POLL_S = 1.0
"""How often the engine is asked for new tasks."""
LAST_LOG_TIMEOUT_S = 30.0
"""How long to wait for the end of a log after its workflow has ended."""
Lines = queue.SimpleQueue[tuple[str, str]]


def run(options: LogsOptions, _console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    """Print the logs of a workflow."""
    service = service_of("contimg logs", options, env)
    state = service.state(options.name)
    live = options.follow and state.status in OPEN
    if options.task and options.task not in state.tasks and not live:
        there = ", ".join(state.tasks) or "none yet"
        problem = f"There is no task {options.task}; the tasks are {there}."
        raise UsageError(f"{service.place}: {state.name}", problem, "Correct the task's name.")
    lines = (
        follow_tasks(service, state, options.task)
        if live
        else (
            pair
            for name, task in state.tasks.items()
            if options.task in {None, name}
            for number in range(len(task.tries))
            for pair in _read_try(service, state, name, number, follow=False)
        )
    )
    try:
        for task_name, line in lines:
            print(line if options.task else f"{task_name} | {line}", flush=options.follow)  # noqa: T201 - its output
        sys.stdout.flush()
    except BrokenPipeError:  # head, or a pager that was left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return {}


def follow_tasks(
    service: Service, state: RunState, wanted: str | None
) -> Iterator[tuple[str, str]]:
    """Yield the lines of all tries that run side by side, until the workflow has ended."""
    lines: Lines = queue.SimpleQueue()
    readers: dict[tuple[str, int], threading.Thread] = {}

    def read(state: RunState, name: str, number: int) -> None:
        for pair in _read_try(service, state, name, number, follow=True):
            lines.put(pair)

    while True:
        for name, task in state.tasks.items():
            for number in range(len(task.tries) if wanted in {None, name} else 0):
                if (name, number) not in readers:
                    reader = threading.Thread(target=read, args=(state, name, number), daemon=True)
                    readers[name, number] = reader
                    reader.start()
        ended = state.status not in OPEN
        until = time.monotonic() + (LAST_LOG_TIMEOUT_S if ended else POLL_S)
        yield from _drain(until, lines, list(readers.values()), ended=ended)
        if ended:
            return
        state = poll_until_answered(service, state.name)


def _read_try(
    service: Service, state: RunState, name: str, number: int, *, follow: bool
) -> Iterator[tuple[str, str]]:
    if number:
        yield name, f"(try {number + 1})"
    try:
        for line in service.lines(state, name, number, follow=follow):
            yield name, line
    except ContimgError as error:  # a missing log must not hide the others
        yield name, f"({error})"


def _drain(
    until: float, lines: Lines, readers: Sequence[threading.Thread], *, ended: bool
) -> Iterator[tuple[str, str]]:
    """Yield lines until a moment of the monotonic clock, or until an ended workflow's logs end."""
    while True:
        reading = any(reader.is_alive() for reader in readers)
        try:
            yield lines.get(timeout=TICK_S)
        except queue.Empty:
            if (ended and not reading) or time.monotonic() > until:
                return
        if not ended and time.monotonic() > until:
            return
