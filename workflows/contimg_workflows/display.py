"""The display of a run: a live table on a terminal, else a line per change; then a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from contimg_runs.state import GOOD, OPEN, RunState, Status, TaskState

LIVE_ROWS = 20
"""Workflows in the live table."""
REFRESH_S = 0.25
FILE_WIDTH = 400
"""Columns of a table that goes to a file."""
SIGNS = {
    Status.PENDING: ("·", "dim"),
    Status.RUNNING: ("▶", "cyan"),
    Status.WAITING: ("↻", "yellow"),
    Status.DONE: ("✓", "green"),
    Status.CACHED: ("✓", "dim green"),
    Status.FAILED: ("✗", "red"),
    Status.SKIPPED: ("-", "dim"),
    Status.STOPPED: ("■", "yellow"),
    Status.INTERRUPTED: ("■", "yellow"),
}


class Display:
    """Shows the states of running workflows."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or console_on(sys.stderr)
        self._live: Live | None = None
        self._shown = 0.0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show a live table meanwhile, on a terminal."""
        if not self.console.is_terminal:
            yield
            return
        try:
            # Refreshed by hand: a thread beside the engine would make its forks unsafe.
            with Live(console=self.console, auto_refresh=False, transient=True) as self._live:
                yield
        finally:
            self._live = None

    def show(self, states: Sequence[RunState]) -> None:
        """Draw the live table, a few times a second: running workflows, counts of the others."""
        if self._live is None or time.monotonic() - self._shown <= REFRESH_S:
            return
        self._shown = time.monotonic()
        table = Table(box=None, pad_edge=False, show_header=False)
        running = [state for state in states if state.status is Status.RUNNING]
        begun = [one for one in running if any(task.tries for task in one.tasks.values())]
        for state in begun[:LIVE_ROWS]:
            cells = []
            for name, task in state.tasks.items():
                sign, style = SIGNS[task.status]
                words = [sign, name]
                if task.status is Status.RUNNING:
                    words += filter(None, [task.progress, _duration(task)])
                cells.append(Text(" ".join(words), style=style))
            table.add_row(state.name, *cells)
        failed = sum(state.status is Status.FAILED for state in states)
        counts = f"{len(states) - len(running)} of {len(states)} done"
        counts += f", {failed} failed" if failed else ""
        table.add_row(Text(counts, style="bold"))
        self._live.update(table, refresh=True)

    def show_change(self, state: RunState, task: str) -> None:
        """Write a line where there is no live table; failures always."""
        now = state.tasks[task]
        if self._live is not None and now.status not in {Status.FAILED, Status.WAITING}:
            return
        words = now.status.value
        if now.tries or now.status not in {Status.CACHED, Status.SKIPPED}:
            wall = _duration(now) if now.tries[-1].ended else ""
            words = " ".join(filter(None, [words, wall, now.reason]))
        line = f"{datetime.now(UTC):%H:%M:%S} {state.name} {task}: {words}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_table(states: Sequence[RunState]) -> Table:
    """Return the table of what happened: a row a workflow."""
    titles = ("workflow", "status", "tasks", "wall", "why")
    table = Table(*(Column(one, overflow="fold") for one in titles), box=None, pad_edge=False)
    for state in states:
        sign, style = SIGNS[state.status]
        wall_s = ((state.ended or datetime.now(UTC)) - state.started).total_seconds()
        wall = "" if state.status is Status.PENDING else _seconds(wall_s)
        status = Text(f"{sign} {state.status.value}", style=style)
        done = sum(task.status in GOOD for task in state.tasks.values())
        cached = sum(task.status is Status.CACHED for task in state.tasks.values())
        counts = f"{done}/{len(state.tasks)}" + (f" ({cached} cached)" if cached else "")
        table.add_row(state.name, status, counts, wall, failure_reason(state))
    return table


def task_table(state: RunState) -> Table:
    """Return the table of one workflow: a row a task."""
    titles = ("task", "status", "tries", "wall", "work", "why")
    table = Table(*(Column(one, overflow="fold") for one in titles), box=None, pad_edge=False)
    for name, task in state.tasks.items():
        sign, style = SIGNS[task.status]
        work = "" if task.made_s is None else _seconds(task.made_s)
        status = Text(f"{sign} {task.status.value}", style=style)
        reason = task.progress if task.status is Status.RUNNING else task.reason
        table.add_row(name, status, str(len(task.tries) or ""), _duration(task), work, reason)
    return table


def failure_reason(state: RunState) -> str:
    """Return why a workflow failed, or why it or one of its tasks waits, in one line."""
    failed = "; ".join(f"{name}: {state.tasks[name].reason}" for name in state.failed)
    # A started task that does not run waits for something, such as a node with room for its pod.
    waits = [
        f"{name}: {task.reason}"
        for name, task in state.tasks.items()
        if state.status in OPEN and task.status in OPEN and task.reason and task.tries
    ]
    return failed or state.reason or "; ".join(waits)


def _duration(task: TaskState) -> str:
    """Return the wall time of all tries, up to now where one is running."""
    if not task.tries:
        return ""
    total = sum(one.seconds for one in task.tries)
    if task.status is Status.RUNNING:
        total += (datetime.now(UTC) - task.tries[-1].started).total_seconds()
    return _seconds(total)


def _seconds(value: float) -> str:
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{value:.1f} s"


def console_on(stream: TextIO) -> Console:
    """Return a console that folds lines on a terminal, and leaves them whole in a file."""
    return Console(file=stream, width=None if stream.isatty() else FILE_WIDTH)
