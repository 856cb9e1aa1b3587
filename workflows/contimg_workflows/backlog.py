"""The process behind ``contimg submit`` on this machine: waits for its turn, then runs all that was submitted meanwhile."""

from __future__ import annotations

import fcntl
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contimg.runtime.contract import command
from contimg.runtime.errors import ContimgError
from contimg.runtime.options import Options
from contimg_workflows.display import Display
from contimg_workflows.engine import Engine
from contimg_workflows.local import library
from contimg_workflows.recording import record
from contimg_workflows.state import LOCK, RunFolder, Status, all_runs, held

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from contimg.runtime.console import Console
    from contimg_workflows.compiled import Library, Workflow

TURN = ".turn"
"""Lock of a folder of runs: who holds it runs what was submitted."""
TICK_S = 0.5


class BacklogOptions(Options):
    """Run what was submitted to a folder of runs, then end."""

    runs: str
    """Folder of states and logs."""
    jobs: int = 2
    """Processes side by side."""


def main(argv: list[str] | None = None) -> int:
    """Run the process."""
    return command("contimg backlog", BacklogOptions, _work, argv)


def _work(options: BacklogOptions, console: Console, env: Mapping[str, str]) -> dict[str, Any]:
    runs, ran, templates = Path(options.runs), 0, library()
    with turn(runs):
        while waiting := pending(runs):
            workflows = [
                one for folder in waiting if (one := _workflow(folder, templates)) is not None
            ]
            states = Engine(runs, Path(sys.executable).parent, env, Display(), options.jobs).run(
                workflows
            )
            for state in (one for one in states if one.status is not Status.SKIPPED):
                if code := record(RunFolder(runs, state.name), state, templates, env):
                    console.log.warning(
                        "%s: what became of it could not be recorded, exit code %d",
                        state.name,
                        code,
                    )
            ran += len(workflows)
            if not workflows:
                time.sleep(TICK_S)
    return {"ran": ran}


@contextmanager
def turn(runs: Path) -> Iterator[None]:
    """Wait until no other process runs what was submitted here; the kernel lets go when this one ends in whatever way."""
    with (runs / TURN).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pending(runs: Path) -> list[RunFolder]:
    """Return what was submitted and not begun, the earliest first."""
    return [folder for folder in all_runs(runs) if folder.load().status is Status.PENDING]


def _workflow(folder: RunFolder, templates: Library) -> Workflow | None:
    """Compile what was submitted; None if another engine took it, or if it cannot be run, which its state then says."""
    if held(folder.path / LOCK):
        return None
    state = folder.load()
    try:
        return templates.workflow(state.name, state.pipeline, state.arguments)
    except ContimgError as error:
        state.status, state.reason, state.ended = Status.FAILED, str(error), datetime.now(UTC)
        folder.save(state)
        return None


if __name__ == "__main__":
    sys.exit(main())
