"""``contimg logs``: what a workflow's tasks write, as it comes or as it was."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from contimg.runtime.contract import command
from contimg.runtime.errors import ContimgError, UsageError
from contimg_workflows.cli.engines import EngineOptions, service_of
from contimg_workflows.cli.words import flagged
from contimg_workflows.service import patiently
from contimg_workflows.state import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from contimg.runtime.console import Console
    from contimg_workflows.service import Service
    from contimg_workflows.state import RunState

MOVING = {Status.PENDING, Status.RUNNING}
TICK_S = 0.2
LOOK_S = 1.0
"""How often the engine is asked for new tasks."""
LAST_S = 30.0
"""A log that has not come to its end so long after its workflow is left."""


class LogsOptions(EngineOptions):
    """Print the logs of a workflow's tasks, or of one task."""

    name: str
    """Name of the workflow; may stand without its flag."""
    task: str | None = None
    """One task; may stand second. Of others each line begins with the task's name."""
    follow: bool = False
    """Go on until the workflow has ended."""


def main(argv: Sequence[str]) -> int:
    """Run ``contimg logs NAME [TASK]``."""
    return command(
        "contimg logs",
        LogsOptions,
        _work,
        flagged(argv, LogsOptions, "--name", "--task"),
        tell=False,
    )


def _work(options: LogsOptions, _console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    service = service_of("contimg logs", options, env)
    state = service.state(options.name)
    if (
        options.task
        and options.task not in state.tasks
        and not (options.follow and state.status in MOVING)
    ):
        there = ", ".join(state.tasks) or "none yet"
        raise UsageError(
            f"{service.place}: {state.name}",
            f"expected a task {options.task}, found {there}.",
            "Correct the task's name.",
        )
    live = options.follow and state.status in MOVING
    lines = _follow(service, state, options.task) if live else _all(service, state, options.task)
    try:
        for task, line in lines:
            print(line if options.task else f"{task} | {line}", flush=options.follow)  # noqa: T201 - what was asked for
        sys.stdout.flush()
    except BrokenPipeError:  # head, or a pager that was left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return {}


def _all(service: Service, state: RunState, wanted: str | None) -> Iterator[tuple[str, str]]:
    """Yield what was written until now, task by task, try by try."""
    for name, task in state.tasks.items():
        if wanted in {None, name}:
            for number in range(len(task.tries)):
                yield from _try(service, state, name, number, follow=False)


def _try(
    service: Service, state: RunState, name: str, number: int, *, follow: bool
) -> Iterator[tuple[str, str]]:
    if number:
        yield name, f"(try {number + 1})"
    try:
        for line in service.lines(state, name, number, follow=follow):
            yield name, line
    except ContimgError as error:  # one log that is gone must not hide the others
        yield name, f"({error})"


def _follow(service: Service, state: RunState, wanted: str | None) -> Iterator[tuple[str, str]]:
    """Yield lines as they come, of all tries that run side by side, until the workflow has ended."""
    lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    readers: dict[tuple[str, int], threading.Thread] = {}
    while True:
        for name, task in state.tasks.items():
            for number in range(len(task.tries) if wanted in {None, name} else 0):
                if (name, number) not in readers:
                    readers[name, number] = _reader(service, state, name, number, lines)
        ended = state.status not in MOVING
        yield from _until(
            time.monotonic() + (LAST_S if ended else LOOK_S),
            lines,
            list(readers.values()),
            ended=ended,
        )
        if ended:
            return
        state = patiently(service, state.name)


def _reader(
    service: Service,
    state: RunState,
    name: str,
    number: int,
    lines: queue.SimpleQueue[tuple[str, str]],
) -> threading.Thread:
    """Read the log of one try beside the others."""

    def read() -> None:
        for pair in _try(service, state, name, number, follow=True):
            lines.put(pair)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader


def _until(
    moment: float,
    lines: queue.SimpleQueue[tuple[str, str]],
    readers: Sequence[threading.Thread],
    *,
    ended: bool,
) -> Iterator[tuple[str, str]]:
    """Yield lines until a moment of the monotonic clock; after the workflow's end until its logs are at theirs."""
    while True:
        reading = any(reader.is_alive() for reader in readers)
        try:
            yield lines.get(timeout=TICK_S)
        except queue.Empty:
            if (ended and not reading) or time.monotonic() > moment:
                return
        if not ended and time.monotonic() > moment:
            return
