"""What every engine offers, the local one and Argo, in the same words."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from contimg_runs.argo import EngineError
from contimg_runs.state import RunState
from contimg_workflows.forms import Form

PATIENCE_S = 60.0
"""How long to keep retrying an unreachable engine."""
TICK_S = 1.0


class Service(Protocol):
    """Runs workflows of our templates, and knows their states."""

    place: str
    """Where it runs them, for messages."""

    def form(self, template: str) -> Form:
        """Return a template's parameters; UsageError if it is missing or of another version."""
        ...

    def submit(self, template: str, name: str, arguments: Mapping[str, str]) -> None:
        """Start a workflow under a name; UsageError if the name is taken."""
        ...

    def states(self) -> list[RunState]:
        """Return the states of all workflows, the earliest start first."""
        ...

    def state(self, name: str) -> RunState:
        """Return the state of one workflow; UsageError if it does not exist."""
        ...

    def source(self, state: RunState, task: str, number: int) -> str:
        """Return where the log of a task's try is; tries count from 0."""
        ...

    def lines(
        self, state: RunState, task: str, number: int, *, follow: bool = False
    ) -> Iterator[str]:
        """Yield the readable lines of a try's log; `follow`: wait for more until it has ended."""
        ...


def poll_until_answered(service: Service, name: str, patience_s: float = PATIENCE_S) -> RunState:
    """Return the state of a workflow; an unreachable engine is asked again for some time.

    Raises
    ------
    EngineError
        If it does not answer in that time.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            return service.state(name)
        except EngineError:
            if time.monotonic() > until:
                raise
        time.sleep(TICK_S)
