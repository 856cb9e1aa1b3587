"""``contimg run``: work through pipelines in this process, here and now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pydantic import Field

from contimg.runtime.contract import command
from contimg.runtime.errors import UsageError
from contimg.runtime.options import Options, Words
from contimg_workflows.cli.words import Settings, joined, runs_folder
from contimg_workflows.display import Display, summary, why
from contimg_workflows.state import RunState, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from contimg.runtime.console import Console
    from contimg_workflows.runner import Runner


class RunOptions(Options):
    """Run stages as processes of this machine."""

    store: str
    """Root URI of the store."""
    jobs: int = Field(default=2, ge=1)
    """Processes side by side."""
    set: Settings = ()
    """STAGE.OPTION=VALUE, for any option of any stage; may be given again and again."""
    runs: str | None = None
    """Folder of states and logs; default: STORE/runs, or ./contimg-runs where the store is no directory."""


class GroupOptions(RunOptions):
    """Process groups: convert, flag, calibrate, image, photometry, report."""

    group: Words
    """Ids of the groups, with commas between them; the latest attempt at each is run."""


class EpochOptions(RunOptions):
    """Normalise the fluxes of a Declination strip, search its light curves, write the page."""

    strip: float | None = None
    """Pointing Declination, degrees; default: each strip that the store's groups point to."""
    epoch: str | None = None
    """Name of the products' folder, STORE/products/epoch-NAME, for one strip; default: from the strip, as dec-p33.0."""


class AllOptions(RunOptions):
    """Look for groups, process all of them, those with a calibrator first, then run the epoch of each strip."""


PIPELINES: dict[str, type[RunOptions]] = {
    "process-group": GroupOptions,
    "epoch": EpochOptions,
    "all": AllOptions,
}
FAILED = 1
"""Exit code when a workflow failed; its own code and reason stand in the summary."""


def main(argv: Sequence[str]) -> int:
    """Run ``contimg run PIPELINE``; 0 only if everything succeeded."""
    if not argv or argv[0] not in PIPELINES:
        wanted = bool(argv) and argv[0] in {"-h", "--help"}
        print(
            f"usage: contimg run {{{','.join(PIPELINES)}}} --store URI …",
            file=sys.stdout if wanted else sys.stderr,
        )
        return 0 if wanted else 2
    name, ended = argv[0], [True]

    def work(options: RunOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
        answer = _work(name, options, env)
        console.close()
        ended[0] = answer["failed"] == 0
        return answer

    code = command(f"contimg run {name}", PIPELINES[name], work, joined(argv[1:]))
    return code or (0 if ended[0] else FAILED)


def _work(name: str, options: RunOptions, env: Mapping[str, str]) -> dict[str, Any]:
    from contimg_workflows.runner import Runner  # Hera is slow to import, and --help needs none

    runs = runs_folder(f"contimg run {name}", options.store, options.runs)
    with Display() as display:
        runner = Runner(options.store, runs, env, display, options.jobs, options.set)
        states = WORK[name](runner, options)
    shown = [state for state in states if state.status is not Status.DONE] or states[-1:]
    display.print(summary(shown if len(states) > MANY else states))
    failed = [state for state in states if state.status is not Status.DONE]
    cached = sum(task.status is Status.CACHED for state in states for task in state.tasks.values())
    return {
        "pipeline": name,
        "workflows": len(states),
        "failed": len(failed),
        "tasks": sum(len(state.tasks) for state in states),
        "cached": cached,
        "reasons": {state.name: why(state) for state in failed},
        "runs": str(runs),
    }


MANY = 100
"""Workflows that the closing table lists one by one; of more, only the failed ones."""


def _groups(runner: Runner, options: GroupOptions) -> list[RunState]:
    return runner.groups(options.group)


def _epochs(runner: Runner, options: EpochOptions) -> list[RunState]:
    if options.epoch and options.strip is None:
        raise UsageError(
            "--epoch", "expected --strip beside it, found none.", "Say which strip is meant."
        )
    return runner.epochs(() if options.strip is None else (options.strip,), options.epoch)


def _all(runner: Runner, _options: AllOptions) -> list[RunState]:
    return runner.everything()


WORK: dict[str, Callable[[Runner, Any], list[RunState]]] = {
    "process-group": _groups,
    "epoch": _epochs,
    "all": _all,
}
