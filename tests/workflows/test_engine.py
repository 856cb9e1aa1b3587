"""The local engine with real processes: order, hand-over, resuming, retries, limits."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from contimg.runtime.child import LINEAR_ALGEBRA
from contimg.runtime.errors import UsageError
from contimg_runs.state import Status
from contimg_workflows import process
from contimg_workflows.display import Display
from contimg_workflows.engine import Gate
from contimg_workflows.state import RunFolder

if TYPE_CHECKING:
    from tiny_bench import Bench

    from contimg_workflows.state import RunState


def run(bench: Bench, jobs: int = 2, **settings: str) -> RunState:
    (state,) = bench.engine(jobs).run([bench.workflow(**settings)])
    return state


def statuses(state: RunState) -> dict[str, str]:
    return {name: task.status.value for name, task in state.tasks.items()}


def test_diamond_runs_in_order(bench: Bench) -> None:
    state = run(bench)
    assert state.status is Status.DONE
    assert bench.word("d") == "a b a c d"
    first, *between, last = bench.ran()
    assert (first, sorted(between), last) == ("a", ["b", "c"], "d")


def test_independent_tasks_run_side_by_side(bench: Bench) -> None:
    # Each ends when it sees the other one at work.
    state = run(bench, 2, b_after=bench.mark("c"), c_after=bench.mark("b"))
    assert state.status is Status.DONE


def test_one_job_runs_one_process(bench: Bench) -> None:
    state = run(bench, 1)
    b, c = state.tasks["b"].tries[0], state.tasks["c"].tries[0]
    assert b.ended is not None
    assert c.ended is not None
    assert c.started >= b.ended or b.started >= c.ended


def test_second_run_is_cached(bench: Bench) -> None:
    run(bench)
    state = run(bench)
    assert set(statuses(state).values()) == {"cached"}
    assert len(bench.ran()) == 4
    assert not any(task.tries for task in state.tasks.values())


def test_changed_option_reruns_its_task(bench: Bench) -> None:
    run(bench)
    state = run(bench, c_times="7")
    # c writes the same bytes again, so that what d reads is the same, and d is what it was.
    assert statuses(state) == {"a": "cached", "b": "cached", "c": "done", "d": "cached"}


def test_bad_data_is_not_retried(bench: Bench) -> None:
    state = run(bench, b_do="data", c_nap_s="0.5")
    # c ran already and goes on; d does not begin.
    assert statuses(state) == {"a": "done", "b": "failed", "c": "done", "d": "skipped"}
    assert state.status is Status.FAILED
    assert len(state.tasks["b"].tries) == 1
    assert state.tasks["b"].tries[0].exit == 10
    assert state.tasks["b"].reason == "x.hdf5: expected 145 bytes, found 0 bytes. Send it again."


@pytest.mark.parametrize(
    ("do", "times", "tries", "status", "code"),
    [
        ("world", "2", 3, "done", 0),
        ("world", "9", 4, "failed", 20),
        ("crash", "1", 2, "done", 0),
        ("crash", "9", 2, "failed", 139),
        ("bug", "9", 1, "failed", 70),
    ],
)
def test_retries_match_exit_table(
    bench: Bench, do: str, times: str, tries: int, status: str, code: int
) -> None:
    state = run(bench, a_do=do, a_times=times)
    task = state.tasks["a"]
    assert (len(task.tries), task.status.value, task.tries[-1].exit) == (tries, status, code)


def test_waits_between_tries_grow(bench: Bench) -> None:
    engine = bench.engine()
    engine.wait_factor = 0.03
    (state,) = engine.run([bench.workflow(a_do="world", a_times="2")])
    first, second, third = state.tasks["a"].tries
    assert first.ended is not None
    assert second.ended is not None
    assert (second.started - first.ended).total_seconds() >= 0.3
    assert (third.started - second.ended).total_seconds() >= 0.6


@pytest.mark.parametrize("do", ["sleep", "deaf"])
def test_task_past_deadline_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do: str
) -> None:
    from tiny_bench import Bench

    monkeypatch.setattr(process, "GRACE_S", 0.5 if do == "deaf" else process.GRACE_S)
    # A good try takes half a second, and several on a machine that is busy with other tests.
    state = run(Bench(tmp_path, deadline_s=10), a_do=do, a_times="1")
    first, second = state.tasks["a"].tries
    assert (first.exit, first.reason) == (24, "took longer than 10 s")
    assert second.exit == 0
    assert state.status is Status.DONE


def test_killed_stage_is_retried_and_scratch_removed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTIMG_SCRATCH", str(tmp_path / "scratch"))
    seen: list[Path] = []

    def kill() -> None:
        while not bench.pids():
            time.sleep(0.02)
        seen.extend((tmp_path / "scratch").iterdir())
        assert bench.made() == set()
        os.kill(bench.pids()[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    state = run(bench, a_do="sleep", a_times="1")
    killer.join()
    assert [one.exit for one in state.tasks["a"].tries] == [137, 0]
    assert "out of memory" in state.tasks["a"].tries[0].reason
    assert bench.word("d") == "a b a c d"
    assert len(seen) == 1
    assert list((tmp_path / "scratch").iterdir()) == []


def test_failed_workflow_leaves_others_running(bench: Bench) -> None:
    states = bench.engine().run([bench.workflow("bad", a_do="data"), bench.workflow("good")])
    assert [state.status for state in states] == [Status.FAILED, Status.DONE]
    assert bench.word("d", "good") == "a b a c d"


def test_gate_holds_task_until_others_end(bench: Bench) -> None:
    # The first one's b ends when it sees the late one's c, which nothing holds, at work.
    works = [bench.workflow("first", b_after=bench.mark("c", "late")), bench.workflow("late")]
    first, late = bench.engine(4).run(works, {"late": Gate("b", frozenset({"first"}))})
    ended = first.tasks["b"].tries[0].ended
    assert ended is not None
    assert late.tasks["b"].tries[0].started >= ended
    assert late.tasks["c"].tries[0].started < ended


def test_gate_opens_when_others_fail(bench: Bench) -> None:
    works = [bench.workflow("first", a_do="data"), bench.workflow("late")]
    _, late = bench.engine().run(works, {"late": Gate("b", frozenset({"first"}))})
    assert late.status is Status.DONE


def test_locked_workflow_is_refused(bench: Bench) -> None:
    with (
        RunFolder(bench.runs / "one").hold(),
        pytest.raises(UsageError, match="Another engine runs this workflow"),
    ):
        run(bench)


class Taker(Display):
    """Another engine, which takes a run while the first one is at work on those before it."""

    def __init__(self, folder: RunFolder, held: ExitStack) -> None:
        super().__init__(Console(file=StringIO()))
        self._folder, self._held, self._has = folder, held, False

    def show_change(self, state: RunState, task: str) -> None:
        if not self._has:
            self._held.enter_context(self._folder.hold())
            self._has = True
        super().show_change(state, task)


def test_run_taken_meanwhile_is_skipped(bench: Bench) -> None:
    with ExitStack() as held:
        engine = bench.engine(1, Taker(RunFolder(bench.runs / "two"), held))
        states = engine.run([bench.workflow("one"), bench.workflow("two"), bench.workflow("three")])
    assert [state.status for state in states] == [Status.DONE, Status.SKIPPED, Status.DONE]
    assert "Another engine runs this workflow now." in states[1].reason
    assert bench.ran("two") == []
    assert not RunFolder(bench.runs / "two").exists()


def test_invalid_option_is_reported_by_stage(bench: Bench) -> None:
    state = run(bench, a_times="many")
    assert state.tasks["a"].tries[0].exit == 2
    log = (bench.runs / "one" / "a.1.log").read_text()
    assert "--times" in log


def test_missing_program_is_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bin" / "contimg-a").unlink()
    with pytest.raises(UsageError, match="There is no program contimg-a"):
        run(bench)


def test_processes_get_linear_algebra_settings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = bench.binaries / "contimg-a"
    program.write_text("#!/bin/sh\nenv >&2\nexit 10\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run(bench)
    log = (bench.runs / "one" / "a.1.log").read_text().splitlines()
    assert {f"{name}={value}" for name, value in LINEAR_ALGEBRA.items()} <= set(log)


def test_many_workflows_keep_few_files_open(bench: Bench) -> None:
    run(bench)
    works = [bench.workflow(f"w{n}", str(bench.store / "one")) for n in range(100)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        states = bench.engine().run(works)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {state.status for state in states} == {Status.DONE}
    assert len(bench.ran()) == 4
