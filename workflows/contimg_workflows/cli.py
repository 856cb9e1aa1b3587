"""``contimg run`` and ``contimg status``: the local engine for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from contimg.contract import command
from contimg.directory import DirectoryStore
from contimg.errors import ContimgError, UsageError
from contimg.options import Options, Words, parse
from contimg.store import open_store
from contimg.versions import tool_version
from contimg_workflows.display import Display, stdout, summary, tasks, why
from contimg_workflows.state import GOOD, RunState, Status, all_runs, log_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from contimg.console import Console
    from contimg_workflows.runner import Runner


def _lines(value: object) -> object:
    return tuple(value.split("\n")) if isinstance(value, str) else value


class RunOptions(Options):
    """Run stages as processes of this machine."""

    store: str
    """Root URI of the store."""
    jobs: int = Field(default=2, ge=1)
    """Processes side by side."""
    set: Annotated[tuple[str, ...], BeforeValidator(_lines)] = ()
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


class StatusOptions(Options):
    """Say what ran, how long it took and why it failed."""

    store: str | None = None
    """Root URI of the store."""
    runs: str | None = None
    """Folder of states and logs, where it is not the store's."""
    name: str | None = None
    """One workflow, with its tasks."""
    lines: int = Field(default=10, ge=0)
    """Lines of the log of each failed task."""


PIPELINES: dict[str, type[RunOptions]] = {"process-group": GroupOptions, "epoch": EpochOptions, "all": AllOptions}
FAILED = 1
"""Exit code when a workflow failed; its own code and reason stand in the summary."""


def run(argv: Sequence[str]) -> int:
    """Run ``contimg run PIPELINE``; 0 only if everything succeeded."""
    if not argv or argv[0] not in PIPELINES:
        wanted = bool(argv) and argv[0] in {"-h", "--help"}
        print(f"usage: contimg run {{{','.join(PIPELINES)}}} --store URI …", file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    name, ended = argv[0], [True]

    def work(options: RunOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
        answer = _work(name, options, env)
        console.close()
        ended[0] = answer["failed"] == 0
        return answer

    code = command(f"contimg run {name}", PIPELINES[name], work, _join_set(argv[1:]))
    return code or (0 if ended[0] else FAILED)


def _work(name: str, options: RunOptions, env: Mapping[str, str]) -> dict[str, Any]:
    from contimg_workflows.runner import Runner  # Hera is slow to import, and --help needs none

    runs = runs_folder(options.store, options.runs)
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
        raise UsageError("--epoch", "--strip beside it", "none", "Say which strip is meant.")
    return runner.epochs(() if options.strip is None else (options.strip,), options.epoch)


def _all(runner: Runner, _options: AllOptions) -> list[RunState]:
    return runner.everything()


WORK: dict[str, Callable[[Runner, Any], list[RunState]]] = {"process-group": _groups, "epoch": _epochs, "all": _all}


def _join_set(argv: Sequence[str]) -> list[str]:
    """Gather every ``--set`` into one word, so that none hides another and values may hold commas."""
    rest: list[str] = []
    settings: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--set":
            settings.append(next(words, ""))
        elif word.startswith("--set="):
            settings.append(word.removeprefix("--set="))
        else:
            rest.append(word)
    return [*rest, *(["--set=" + "\n".join(settings)] if settings else [])]


def runs_folder(store: str | None, runs: str | None) -> Path:
    """Return where states and logs lie.

    Raises
    ------
    UsageError
        If neither a store nor a folder is named.
    """
    if runs is not None:
        return Path(runs).absolute()
    if store is None:
        raise UsageError("contimg status", "--store or --runs", "neither", "Name the store that was run on.")
    opened = open_store(store)
    return Path(opened.root) / "runs" if isinstance(opened, DirectoryStore) else Path("contimg-runs").absolute()


def status(argv: Sequence[str]) -> int:
    """Run ``contimg status``."""
    options = parse(StatusOptions, argv, "contimg status", tool_version("contimg"))
    try:
        states = _states(options)
    except ContimgError as error:
        print(f"contimg status: {error}", file=sys.stderr)  # noqa: T201 - a command for people
        return int(error.exit)
    console = stdout()
    console.print(summary([state for _, state in states]))
    for folder, state in states:
        if options.name:
            console.print(tasks(state))
        for name, task in state.tasks.items():
            if task.tries and task.status not in {*GOOD, Status.RUNNING} and options.lines:
                log = folder / task.tries[-1].log
                console.print(f"\n{state.name} {name}: {task.reason}\n{log} ends:", markup=False, highlight=False)
                console.print(*[f"  {line}" for line in log_tail(log, options.lines)], sep="\n", markup=False, highlight=False)
    return 0


def _states(options: StatusOptions) -> list[tuple[Path, RunState]]:
    runs = runs_folder(options.store, options.runs)
    found = [(folder.path, folder.load()) for folder in all_runs(runs)]
    wanted = [(path, state) for path, state in found if options.name in {None, state.name}]
    if not wanted:
        there = ", ".join(state.name for _, state in found) or "none"
        raise UsageError(str(runs), f"a run{f' {options.name}' if options.name else ''}", there, "Correct --store or --name.")
    return wanted
