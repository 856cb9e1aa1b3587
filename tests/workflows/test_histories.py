"""Random DAGs with random exit codes: what ran, when and how often obeys the rules."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from contimg.runtime.errors import retry_of
from contimg_runs.state import RunState, Status, TaskState
from contimg_workflows.display import Display
from contimg_workflows.engine import Engine
from contimg_workflows.tasks import LocalTask, LocalWorkflow

SCRIPT = """#!/bin/sh
NAME=$1 MARKS=$2 FATES=$3
n=$(ls "$MARKS" | grep -c "^$NAME\\.")
: > "$MARKS/$NAME.$n"
set -- $FATES
while [ "$n" -gt 0 ]; do shift; n=$((n - 1)); done
[ "${1:-0}" = 0 ] && echo "/made/$NAME" > "$CONTIMG_OUTPUTS/artifact"
exit "${1:-0}"
"""
CODES = (0, 0, 0, 0, 10, 20, 21, 23, 70)


@dataclass(frozen=True)
class Node:
    """A task: what it needs, and how each try of it would end."""

    name: str
    needs: frozenset[str]
    fates: tuple[int, ...]

    @property
    def tries(self) -> tuple[int, ...]:
        """The exit codes that it comes to: until one is 0 or the table allows no more."""
        for number, code in enumerate(self.fates, 1):
            if code == 0 or number > retry_of(code).limit:
                return self.fates[:number]
        return (*self.fates, 0)


@st.composite
def dags(draw: st.DrawFn) -> list[Node]:
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 6))):
        before = [node.name for node in nodes]
        needs = frozenset(draw(st.lists(st.sampled_from(before), max_size=2)) if before else [])
        fates = draw(st.lists(st.sampled_from(CODES), max_size=4))
        nodes.append(Node(f"t{number}", needs, tuple(fates)))
    return nodes


def run(nodes: list[Node], jobs: int, folder: Path) -> RunState:
    program = folder / "contimg-shell"
    program.write_text(SCRIPT)
    program.chmod(0o755)
    marks = folder / "marks"
    marks.mkdir()
    made = {node.name: _task(node, marks) for node in nodes}
    env, display = {"PATH": os.environ["PATH"]}, Display(Console(file=io.StringIO()))
    engine = Engine(folder / "runs", folder, env, display, jobs)
    engine.wait_factor = 0.0
    (state,) = engine.run([LocalWorkflow("one", "random", {}, made)])
    return state


def _task(node: Node, marks: Path) -> LocalTask:
    return LocalTask(
        name=node.name,
        needs=node.needs,
        program=("contimg-shell", node.name, str(marks), " ".join(map(str, node.fates))),
        arguments={},
        outputs=("artifact",),
        deadline_s=30,
    )


@settings(max_examples=40, deadline=None)
@given(dags(), st.integers(1, 3))
def test_random_dag_obeys_rules(nodes: list[Node], jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = run(nodes, jobs, Path(folder))
        marks = sorted(path.name for path in (Path(folder) / "marks").iterdir())
    tasks = state.tasks
    for node in nodes:
        _one(node, tasks)
    failed = [node.name for node in nodes if tasks[node.name].status is Status.FAILED]
    assert state.status is (Status.FAILED if failed else Status.DONE)
    if all(node.tries[-1] == 0 for node in nodes):
        assert all(task.status is Status.DONE for task in tasks.values())
    # Every process is in the state, and nothing else.
    counts = {name: len(task.tries) for name, task in tasks.items()}
    assert marks == sorted(f"{name}.{n}" for name, count in counts.items() for n in range(count))
    assert _most_together(tasks) <= jobs


def _one(node: Node, tasks: dict[str, TaskState]) -> None:
    task = tasks[node.name]
    codes = tuple(one.exit for one in task.tries)
    if task.status is Status.SKIPPED:
        # After a failure nothing begins, and nothing is tried again.
        assert any(other.status is Status.FAILED for other in tasks.values())
        assert codes == node.tries[: len(codes)]
        assert len(codes) < len(node.tries)
        return
    assert codes == node.tries
    assert task.status is (Status.DONE if codes[-1] == 0 else Status.FAILED)
    assert (task.outputs == {"artifact": f"/made/{node.name}"}) is (codes[-1] == 0)
    for need in node.needs:
        assert tasks[need].status is Status.DONE
        ended = tasks[need].tries[-1].ended
        assert ended is not None
        assert ended <= task.tries[0].started


def _most_together(tasks: dict[str, TaskState]) -> int:
    tries = [one for task in tasks.values() for one in task.tries]
    return max(
        (sum(a.started <= b.started < (a.ended or a.started) for a in tries) for b in tries),
        default=0,
    )
