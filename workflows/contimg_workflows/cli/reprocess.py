"""``contimg reprocess``: start the next attempt at a group, from a stage on, with other options."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, get_args

from contimg.records.groups import GROUPS, recorded
from contimg.records.runs import FailureCause, failure_cause
from contimg.runtime.contract import command
from contimg.runtime.errors import UsageError
from contimg.runtime.store import open_store
from contimg_runs.argo import EngineError
from contimg_workflows.cli.engines import EngineOptions, engine_of, service_of
from contimg_workflows.cli.submit import MOVING, code_of, given_store, start, submitted
from contimg_workflows.cli.words import Settings, flagged, joined
from contimg_workflows.service import patiently
from contimg_workflows.state import GOOD, Status, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contimg.runtime.console import Console
    from contimg_workflows.service import Service
    from contimg_workflows.state import RunState

BEGIN = "begin"
"""The task that claims the attempt."""
PATIENCE_S = 60.0
"""So long the command waits to hear which attempt it is."""
TICK_S = 0.5
FEW = 20
Stages = Literal["convert", "flag", "calibrate", "image", "photometry", "report"]
STAGES: tuple[str, ...] = get_args(Stages)


class ReprocessOptions(EngineOptions):
    """Start the next attempt at a group; what stages before --from made is taken as it is."""

    group: str
    """Id of the group, such as 20260125t222605; may stand without its flag."""
    from_: Stages = "convert"
    """The first stage that runs anew."""
    set: Settings = ()
    """STAGE.OPTION=VALUE, for any option of any stage; may be given again and again."""
    wait: bool = False
    """Return when it has ended; exit 1 if it failed."""


def main(argv: Sequence[str]) -> int:
    """Run ``contimg reprocess ID``."""
    ended: list[RunState] = []

    def work(options: ReprocessOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
        service = service_of("contimg reprocess", options, env)
        own = {"group": options.group, "from": options.from_, **given_store(options, env)}
        _kept(options)
        if engine_of(options, env) == "local":
            _known(own.get("store"), options.group)
        name = start(service, "reprocess", options.set, own)
        attempt = _attempt(service, name)
        return {**submitted(service, name, console, ended, wait=options.wait), "attempt": attempt}

    code = command(
        "contimg reprocess",
        ReprocessOptions,
        work,
        joined(flagged(argv, ReprocessOptions, "--group")),
    )
    return code or code_of(ended)


def _kept(options: ReprocessOptions) -> None:
    """Refuse settings of stages that do not run: they would be without effect."""
    kept = STAGES[: STAGES.index(options.from_)]
    for setting in options.set:
        stage = setting.partition("=")[0].replace("-", ".", 1).partition(".")[0]
        if stage in kept:
            found = f"--from {options.from_}, which keeps what {stage} made"
            raise UsageError(
                f"--set {setting}",
                f"expected --from {stage} or earlier, found {found}.",
                "Begin earlier, or leave that setting out.",
            )


def _known(store: str | None, group: str) -> None:
    """See that the store has a record of the group; on Argo the first task does, for the store may not be reached from here."""
    if store is None:
        raise UsageError(
            "contimg reprocess",
            "expected --store, found none.",
            "Name the store that the group lies in.",
        )
    if not any(recorded(open_store(store), f"{group}-a")):
        found = _ids(store) or "none"
        raise UsageError(
            f"{store}/{GROUPS}",
            f"expected a record of {group}, found {found}.",
            "Correct the id, or run contimg-watch.",
        )


def _ids(store: str) -> str:
    """Return the ids that a store has records of, as many as a line holds."""
    ids = sorted({one.group for one in recorded(open_store(store))})
    return ", ".join(ids[:FEW]) + (f" and {len(ids) - FEW} more" if len(ids) > FEW else "")


def _attempt(service: Service, name: str) -> int | None:
    """Return the number of the attempt that has begun; None if it has to wait.

    Raises
    ------
    UsageError
        If it cannot begin, in the words of the task that tried.
    EngineError
        If the world is to blame.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        state = patiently(service, name)
        begin = state.tasks.get(BEGIN, TaskState())
        if begin.status in GOOD:
            return int(begin.outputs["attempt"])
        if begin.status is Status.FAILED or state.status not in MOVING:
            code = begin.tries[-1].exit if begin.tries else None
            kind = (
                UsageError
                if failure_cause(code) is not FailureCause.INFRASTRUCTURE
                else EngineError
            )
            why = begin.reason or state.reason or f"that the workflow is {state.status.value}"
            raise kind(
                f"{service.place}: {name}",
                f"expected the next attempt to begin, found {why.rstrip('.')}.",
                f"contimg logs {name} tells more.",
            )
        time.sleep(TICK_S)
    return None
