"""What may be asked of an engine, the local one or Argo, in the same words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from contimg_runs.argo import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from contimg_workflows.argo import Parameter
    from contimg_workflows.state import RunState


PATIENCE_S = 60.0
"""So long a command that waits for a workflow bears an engine that does not answer."""
TICK_S = 1.0


class Service(Protocol):
    """Runs workflows of our templates, and says what became of them."""

    place: str
    """Where it runs them, for messages."""

    def parameters(self, template: str) -> tuple[Parameter, ...]:
        """Return the parameters of a template; UsageError if there is none, or if it is of another version than this program."""
        ...

    def submit(self, template: str, name: str, arguments: Mapping[str, str]) -> None:
        """Let a workflow run under a name; UsageError if there is one of that name."""
        ...

    def states(self) -> list[RunState]:
        """Return what all workflows have come to, the earliest start first."""
        ...

    def state(self, name: str) -> RunState:
        """Return what one workflow has come to; UsageError if there is none of that name."""
        ...

    def source(self, state: RunState, task: str, number: int) -> str:
        """Say where the log of a task's try lies; tries count from 0."""
        ...

    def lines(
        self, state: RunState, task: str, number: int, *, follow: bool = False
    ) -> Iterator[str]:
        """Yield the lines of the log of a task's try in plain words; to follow is to wait for more until the try has ended."""
        ...


def patiently(service: Service, name: str, patience_s: float = PATIENCE_S) -> RunState:
    """Return what a workflow has come to; an engine that does not answer is given time to come back.

    Raises
    ------
    EngineError
        If it does not.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            return service.state(name)
        except EngineError:
            if time.monotonic() > until:
                raise
        time.sleep(TICK_S)
