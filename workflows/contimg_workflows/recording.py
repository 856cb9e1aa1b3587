"""The exit handler of a workflow on the local engine: the task that Argo runs last, whatever happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contimg.runtime.errors import BadInputError, Exit
from contimg.runtime.options import flag
from contimg_workflows.compiled import REFERENCE
from contimg_workflows.state import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contimg_workflows.compiled import Library
    from contimg_workflows.state import RunFolder, RunState

LOG = "exit.log"
PATIENCE_S = 300.0
PHASES = {Status.DONE: "Succeeded", Status.FAILED: "Failed", Status.STOPPED: "Failed"}


def record(folder: RunFolder, state: RunState, library: Library, env: Mapping[str, str]) -> int:
    """Run the exit handler of a workflow that has ended, if its template has one; return its exit code, 24 if it took too long."""
    argv = command(state, library)
    if not argv:
        return 0
    program = str(Path(sys.executable).parent / argv[0])
    with (folder.path / LOG).open("wb") as log:
        try:
            done = subprocess.run(  # noqa: S603 - argv comes from our templates, never through a shell
                [program, *argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                timeout=PATIENCE_S,
                check=False,
            )
        except (
            subprocess.TimeoutExpired
        ):  # a store that does not answer; what else was submitted must not wait for it
            return Exit.CHILD_TIMED_OUT
    return done.returncode


def command(state: RunState, library: Library) -> list[str]:
    """Return the command line of the exit handler; nothing if there is none.

    Raises
    ------
    BadInputError
        If it refers to what this engine does not know.
    """
    spec = library[state.pipeline].spec
    dag = spec.template(spec.on_exit).dag if spec.on_exit else None
    if dag is None:
        return []
    (task,) = dag.tasks
    known = _known(state)
    given = {one.name: _filled(one.value or "", known) for one in task.arguments.parameters}
    name = task.template_ref.name.removeprefix("contimg-")
    # There may be a cluster in reach, but this workflow is not there.
    return [
        "contimg",
        name,
        *(f"{flag(key)}={value}" for key, value in given.items()),
        "--workflows=none",
    ]


def _known(state: RunState) -> dict[str, str]:
    """Return what an exit handler may refer to, as Argo writes it."""
    arguments = {f"workflow.parameters.{name}": value for name, value in state.arguments.items()}
    return arguments | {
        "workflow.name": state.name,
        "workflow.uid": f"local-{state.name}",
        "workflow.status": PHASES.get(state.status, "Error"),
        "workflow.failures": json.dumps(_failures(state)),
    }


def _failures(state: RunState) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in state.failed:
        task = state.tasks[name]
        last = task.tries[-1] if task.tries else None
        code = f"Error (exit code {last.exit}): " if last and last.exit is not None else ""
        ended = f"{last.ended:%Y-%m-%dT%H:%M:%SZ}" if last and last.ended else None
        found.append(
            {
                "displayName": name,
                "templateName": name,
                "message": f"{code}{task.reason}",
                "finishedAt": ended,
            }
        )
    return found


def _filled(text: str, known: Mapping[str, str]) -> str:
    """Put values in the place of references."""
    lacking = [reference for reference in REFERENCE.findall(text) if reference.strip() not in known]
    if lacking:
        raise BadInputError(
            "exit handler",
            f"expected one of {', '.join(known)}, found {lacking[0]}.",
            "Run it on Argo.",
        )
    return REFERENCE.sub(lambda match: known[match[1].strip()], text)
